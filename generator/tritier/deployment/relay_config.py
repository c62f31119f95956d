"""What `tritier.deployment.relay` is told to emulate: links, relays and their validation."""

from __future__ import annotations

import json
import reprlib
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn, TypeVar

MAX_BANDWIDTH_MIB_S = 100_000.0
MAX_LATENCY_MS = 60_000.0
MAX_PORT = 65535
# `black_hole`: bytes stop, connections stay; `cut`: connections are reset, new ones too.
LINK_STATES = ("open", "black_hole", "cut")


class RelayConfigError(ValueError):
    """A value that a configuration cannot hold; the message says where, what and what may be."""


class RelayListenError(OSError):
    """A relay that cannot listen on its port."""


def _refuse(where: str, field: str, value: object, allowed: str) -> NoReturn:
    raise RelayConfigError(f"{where}: {field} is {reprlib.repr(value)}, allowed: {allowed}")


def _is_number(value: object, most: float) -> bool:
    is_bool = isinstance(value, bool)  # an int to Python
    return isinstance(value, int | float) and not is_bool and 0 <= value <= most


def _check_name(where: str, field: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        _refuse(where, field, value, "a string that is not empty")


@dataclass(frozen=True)
class LinkSpec:
    """One ordered link: its bandwidth in MiB/s (None: unlimited), one-way latency in ms and state.

    Raises:
        RelayConfigError: a value is out of its range.
    """

    name: str
    bandwidth_mib_s: float | None
    latency_ms: float
    state: str = "open"

    def __post_init__(self) -> None:
        _check_name("link", "name", self.name)
        where, rate = f"link {reprlib.repr(self.name)}", self.bandwidth_mib_s
        if rate is not None and not (_is_number(rate, MAX_BANDWIDTH_MIB_S) and rate > 0):
            allowed = f"a number above 0 and up to {MAX_BANDWIDTH_MIB_S:g}, or null for unlimited"
            _refuse(where, "bandwidth_mib_s", rate, allowed)
        if not _is_number(self.latency_ms, MAX_LATENCY_MS):
            _refuse(where, "latency_ms", self.latency_ms, f"a number from 0 to {MAX_LATENCY_MS:g}")
        if self.state not in LINK_STATES:
            _refuse(where, "state", self.state, ", ".join(LINK_STATES))


@dataclass(frozen=True)
class RelaySpec:
    """A listening port of 127.0.0.1, the port it leads to, and the links there and back.

    Raises:
        RelayConfigError: a port is not one, or a link's name is not a string.
    """

    listen_port: int
    target_port: int
    forward_link: str
    reverse_link: str

    def __post_init__(self) -> None:
        for field in ("listen_port", "target_port"):
            port = getattr(self, field)
            if type(port) is not int or not 1 <= port <= MAX_PORT:
                _refuse(self.label, field, port, f"an integer from 1 to {MAX_PORT}")
        for field in ("forward_link", "reverse_link"):
            _check_name(self.label, field, getattr(self, field))

    @property
    def label(self) -> str:
        """The relay's name in messages."""
        return f"relay {reprlib.repr(self.listen_port)}->{reprlib.repr(self.target_port)}"


@dataclass(frozen=True)
class RelayConfig:
    """All links and relays of one process.

    Raises:
        RelayConfigError: no relays, a name or a port used twice, an unknown link, a loop.
    """

    links: tuple[LinkSpec, ...]
    relays: tuple[RelaySpec, ...]

    def __post_init__(self) -> None:
        names = [link.name for link in self.links]
        for name in names:
            if names.count(name) > 1:
                _refuse("links", "name", name, "each name once")
        if not self.relays:
            _refuse("config", "relays", [], "at least one relay")
        targets: dict[int | None, int] = {}
        for relay in self.relays:
            if relay.listen_port in targets:
                _refuse(relay.label, "listen_port", relay.listen_port, "each port once")
            targets[relay.listen_port] = relay.target_port
            for field in ("forward_link", "reverse_link"):
                if getattr(relay, field) not in names:
                    known = ", ".join(names) or "none, as links is empty"
                    _refuse(relay.label, field, getattr(relay, field), f"a link's name ({known})")
        for relay in self.relays:
            port: int | None = relay.listen_port
            for _ in range(len(targets) + 1):
                port = targets.get(port)
            if port is not None:  # more hops than relays
                allowed = "a port from which no relay leads back"
                _refuse(relay.label, "target_port", relay.target_port, allowed)


_Spec = TypeVar("_Spec", LinkSpec, RelaySpec)


def _object_of(where: str, item: Any, kind: type) -> dict[str, Any]:
    keys = [field.name for field in fields(kind) if field.default is MISSING]
    extra = [field.name for field in fields(kind) if field.default is not MISSING]
    if not isinstance(item, dict) or not set(keys) <= set(item) <= {*keys, *extra}:
        more = f" and, if wanted, {', '.join(extra)}" if extra else ""
        _refuse(
            where, "the value", item, f"an object with exactly the keys {', '.join(keys)}{more}"
        )
    return item


def _parse_objects(document: dict[str, Any], key: str, kind: type[_Spec]) -> tuple[_Spec, ...]:
    items = document[key]
    if not isinstance(items, list):
        _refuse("config", key, items, "a list")
    return tuple(kind(**_object_of(f"{key}[{i}]", item, kind)) for i, item in enumerate(items))


def parse_config(document: object) -> RelayConfig:
    """Turn a parsed JSON document into a checked configuration.

    Raises:
        RelayConfigError: anything in it is missing, unknown or out of range.
    """
    checked = _object_of("config", document, RelayConfig)
    links = _parse_objects(checked, "links", LinkSpec)
    return RelayConfig(links, _parse_objects(checked, "relays", RelaySpec))


def load_config(path: Path) -> RelayConfig:
    """Read and check a configuration file.

    Raises:
        RelayConfigError: it cannot be read, is not JSON, or `parse_config` refuses it.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RelayConfigError(f"config {path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RelayConfigError(f"config {path}: is not JSON in UTF-8: {error}") from error
    return parse_config(document)


def load_changes(data: bytes, config: RelayConfig) -> tuple[LinkSpec, ...]:
    """The links of a configuration as they are to be from now on.

    `data` is a JSON object {"links": [...]} that names the links that are to differ.

    Raises:
        RelayConfigError: it is not such an object, or names a link that there is not.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RelayConfigError(f"changes: not JSON in UTF-8: {error}") from error
    if not isinstance(document, dict):
        _refuse("changes", "the value", document, 'an object {"links": [...]}')
    changed = {
        link.name: link for link in _parse_objects({"links": [], **document}, "links", LinkSpec)
    }
    known = [link.name for link in config.links]
    for name in changed:
        if name not in known:
            _refuse("changes", "name", name, f"a link's name ({', '.join(known)})")
    return tuple(changed.get(link.name, link) for link in config.links)
