"""`servers.yaml`: the inventory of servers and links."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from tritier.documents.base import Document
from tritier.documents.security import Security, security_faults

ServerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Url = Annotated[str, Field(pattern=r"^[A-Za-z0-9.\[\]:_-]+:[0-9]{1,5}$")]
ExecutionProvider = Literal["cpu", "openvino", "cuda"]


class Quantization(Document):
    """How layers are quantized on a server. Which setting is fastest depends on the processor:
    `tritier formats` measures it."""

    activation_type: Literal["int8", "uint8"] = Field(
        default="int8", description="int8 is symmetric, uint8 has a zero point"
    )
    per_channel: bool = Field(default=False, description="a scale per channel of the weights")
    reduce_range: bool = Field(
        default=False,
        description="7-bit weights, against saturation on x86 processors without VNNI",
    )
    weight_type: Literal["int8", "uint8"] = Field(
        default="int8",
        description="int8 is symmetric, uint8 has a zero point, never saturates and needs uint8 "
        "activations",
    )

    @model_validator(mode="after")
    def _check_types(self) -> Self:
        if self.weight_type == "uint8" and self.activation_type != "uint8":
            raise PydanticCustomError(
                "weight_type",
                "weight_type uint8 needs activation_type uint8: ONNX Runtime has no kernels for "
                "int8 activations with uint8 weights",
            )
        return self

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The weight type came later: left at its default it changes no file and no plan id."""
        data: dict[str, Any] = handler(self)
        if self.weight_type == "int8":
            data.pop("weight_type", None)
        return data


class Server(Document):
    """A machine that runs Triton."""

    name: ServerName
    url: Url | None = Field(
        default=None, description="gRPC host:port; may be left out for a server of the lab"
    )
    metrics_url: Url | None = Field(
        default=None, description="host:port of Triton's metrics, for the energy of its GPUs"
    )
    tier: Literal["device", "edge", "cloud"] = Field(description="a label for reports")
    entry: bool = Field(
        default=False, description="requests start and answers end here; exactly one server"
    )
    execution_provider: ExecutionProvider = "cpu"
    threads: int = Field(default=1, ge=1, le=1024, description="intra-op threads of an instance")
    instances: int = Field(default=1, ge=1, le=64, description="instances of every component")
    quantization: Quantization = Quantization()
    slowdown: float = Field(
        default=1.0, ge=1, le=1000, description="declared factor on execution times; lab only"
    )
    memory_mib: float | None = Field(default=None, gt=0)
    compute_power_watt: float | None = Field(default=None, ge=0)
    tx_self_power_watt: float | None = Field(
        default=None, ge=0, description="power while a tensor stays on the server"
    )
    tx_other_power_watt: float | None = Field(
        default=None, ge=0, description="power while sending to another server"
    )
    price_per_hour_usd: float | None = Field(default=None, ge=0)
    security: Security | None = Field(
        default=None, description="what is otherwise here than for all servers"
    )


class Link(Document):
    """An ordered pair of servers: what tensors cross on their way from one to the other."""

    source: ServerName = Field(alias="from")
    target: ServerName = Field(alias="to")
    bandwidth_mib_s: float | None = Field(
        default=None, gt=0, description="MiB/s (1 MB/s is 0.954 MiB/s); unlimited if left out"
    )
    latency_ms: float = Field(default=0.0, ge=0, le=60_000, description="one way")


class ServersSpec(Document):
    """The servers among which a model is split, and the links between them."""

    title: ClassVar[str] = "servers file"

    servers: tuple[Server, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    security: Security | None = Field(default=None, description="of all servers")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a servers file. Paths in it are made absolute: they are relative to the file."""
        spec = super().load(path)
        return spec.model_copy(
            update={
                "security": spec.security and spec.security.resolved(path.parent),
                "servers": tuple(
                    server.model_copy(update={"security": server.security.resolved(path.parent)})
                    if server.security
                    else server
                    for server in spec.servers
                ),
            }
        )

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names are unique, one entry, links join different known servers, each once."""
        servers = [item for item in _list(data, "servers") if isinstance(item, dict)]
        names = [str(item["name"]) for item in servers if "name" in item]
        faults = [
            f"servers: the name '{name}' stands {count} times; names are unique"
            for name, count in Counter(names).items()
            if count > 1
        ]
        entries = [str(item.get("name")) for item in servers if item.get("entry") is True]
        if servers and not entries:
            faults.append("servers: none is the entry; set `entry: true` on exactly one")
        if len(entries) > 1:
            faults.append(
                f"servers: {' and '.join(entries)} are all the entry; set `entry: true` on "
                "exactly one"
            )
        return faults + _link_faults(data, names) + security_faults(data)

    @property
    def entry(self) -> Server:
        """The server where requests start and answers end."""
        return next(server for server in self.servers if server.entry)

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the file."""
        return tuple(server.name for server in self.servers)

    def server(self, name: str) -> Server:
        """The server of that name; KeyError if there is none."""
        return {server.name: server for server in self.servers}[name]

    def security_of(self, name: str) -> Security:
        """What holds for a server: its own, over that of all servers; KeyError if unknown."""
        own = self.server(name).security or Security()
        return own.over(self.security or Security())


def _link_faults(data: dict[str, Any], names: list[str]) -> list[str]:
    faults = []
    seen: set[tuple[str, str]] = set()
    for index, link in enumerate(_list(data, "links")):
        if not isinstance(link, dict):
            continue
        for key in ("from", "to"):
            if key in link and str(link[key]) not in names:
                faults.append(
                    f"links[{index}].{key}: unknown server '{link[key]}'; known are "
                    f"{', '.join(dict.fromkeys(names))}"
                )
        if "from" not in link or "to" not in link:
            continue  # which is reported where it is missing
        pair = (str(link["from"]), str(link["to"]))
        if pair[0] == pair[1]:
            faults.append(f"links[{index}]: joins '{pair[0]}' to itself; a link has two servers")
        if pair in seen:
            faults.append(f"links[{index}]: {pair[0]} -> {pair[1]} stands twice; give it once")
        seen.add(pair)
    return faults


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []
