"""`network.json`: what is known of servers and links, since when and from where."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import CalibratedBy, Figure, Timestamp
from tritier.documents.servers import ServerName

Bytes = Annotated[int, Field(ge=0)]


class GpuFacts(Document):
    """A GPU of a host, as NVML reports it."""

    name: str
    memory_total_bytes: Bytes
    memory_free_bytes: Bytes


class HostFacts(Document):
    """What the agent found on the machine where it runs."""

    host: str = Field(description="a hash that is the same for all servers on one running host")
    cores: int = Field(ge=1, description="that this server may use")
    cpu_model: str
    cpu_flags: tuple[str, ...] = Field(description="those that matter to int8 and float kernels")
    memory_total_bytes: Bytes
    memory_available_bytes: Bytes
    gpus: tuple[GpuFacts, ...] = ()
    python: str
    onnxruntime: str | None = Field(default=None, description="version; left out if not installed")
    providers: tuple[str, ...] = Field(default=(), description="ONNX Runtime execution providers")
    slowdown: float = Field(default=1.0, ge=1, description="declared factor of the lab")


class PowerFacts(Document):
    """A power that was read, or one of servers.yaml where nothing can be read."""

    what: str = Field(description="'rapl package-0', 'nvml gpu-0', 'jetson VDD_IN', 'compute', ...")
    watt: Figure


class TritonFacts(Document):
    """What Triton says of itself."""

    name: str
    version: str
    extensions: tuple[str, ...]


class ServerState(Document):
    """A server of servers.yaml. Facts of an earlier contact stay when it can't be reached."""

    name: ServerName
    id: str = Field(pattern=r"^[0-9a-f]{8}$", description="stays when the server is renamed")
    url: str
    state: Literal["ready", "not_ready", "unreachable"]
    checked_at: Timestamp = Field(description="the last attempt to reach it")
    seen_at: Timestamp | None = Field(default=None, description="the last time that it answered")
    triton: TritonFacts | None = None
    host_seen_at: Timestamp | None = Field(
        default=None,
        description="the last answer of the agent; host, clock and measured power are of then",
    )
    host: HostFacts | None = None
    clock_offset_ms: Figure | None = Field(
        default=None, description="clock of the server minus clock of the tool"
    )
    power: tuple[PowerFacts, ...] = ()
    problems: tuple[str, ...] = Field(
        default=(), description="why the last check failed for this server"
    )
    warnings: tuple[str, ...] = Field(default=(), description="what the last check noticed besides")


class LinkState(Document):
    """An ordered pair of servers, measured from its source over the path of the data plane.

    A message of B MiB takes round_trip_ms + 1000 B / bandwidth_mib_s + call_ms +
    copy_ms_per_mib B: the first two are the network's, the others those of the software at both
    ends.
    """

    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")
    measured_at: Timestamp
    bandwidth_mib_s: Figure
    round_trip_ms: Figure
    call_ms: Figure = Field(description="what a call costs besides, whatever its size")
    copy_ms_per_mib: Figure = Field(description="what each MiB costs besides")
    after_idle_ms: Figure | None = Field(
        default=None,
        description="how much longer a message takes on a connection that was idle",
    )
    after_idle_message_bytes: int | None = Field(default=None, ge=1, description="of that message")
    calibrated_by: tuple[CalibratedBy, ...] | None = Field(
        default=None, description="corrected by what plans took; oldest first"
    )


class NetworkState(Document):
    """Servers in the order of servers.yaml, links by their ends."""

    title: ClassVar[str] = "network state"

    format: Literal["tritier/network/1"] = "tritier/network/1"
    servers: tuple[ServerState, ...] = ()
    links: tuple[LinkState, ...] = ()

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names, ids or links that stand twice; links to servers that are not there."""
        try:
            return _name_faults(data)
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands

    def server(self, name: str) -> ServerState | None:
        """The state of that server, if anything is known of it."""
        return next((server for server in self.servers if server.name == name), None)

    def link(self, source: str, target: str) -> LinkState | None:
        """The state of that link, if it was measured."""
        found = (x for x in self.links if (x.source, x.target) == (source, target))
        return next(found, None)


def _name_faults(data: dict[str, Any]) -> list[str]:
    servers, links = data.get("servers", ()), data.get("links", ())
    names = Counter(server["name"] for server in servers)
    ids = Counter(server["id"] for server in servers)
    pairs = Counter((link["from"], link["to"]) for link in links)
    faults = [f"servers: the name '{x}' stands {n} times" for x, n in names.items() if n > 1]
    faults += [f"servers: the id '{x}' stands {n} times" for x, n in ids.items() if n > 1]
    faults += [f"links: {a} -> {b} stands {n} times" for (a, b), n in pairs.items() if n > 1]
    for a, b in pairs:
        if a == b:
            faults.append(f"links: joins '{a}' to itself; a link has two servers")
        faults += [f"links: {a} -> {b}: '{x}' is no server here" for x in (a, b) if x not in names]
    return faults
