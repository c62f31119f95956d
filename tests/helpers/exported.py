"""Generated folders and servers files to export from, without models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.plans import files_of, make_plan
from tritier.documents import ServersSpec
from tritier.export import Tiers, read_tiers
from tritier.repository import Repositories, write_files

# a, the entry, calls b and c; b hands t1 to c directly.
COMPONENTS = ("b: t0 -> t1", "c: t1 -> t2", "a: t2 -> t9")
TLS: dict[str, Any] = {
    "tls": True,
    "mutual": True,
    "ca": "certs/ca.pem",
    "client_cert": "certs/client.pem",
    "client_key": "certs/client.key",
    "admin_key_file": "admin.key",
}


def repositories(folder: Path, components: Sequence[str] = COMPONENTS) -> Repositories:
    """A generated folder of servers a, b and c."""
    write_files(files_of(make_plan(components)), folder / "repos", force=False)
    return Repositories.open(folder / "repos")


def servers(changes: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> ServersSpec:
    """A servers file of a (the entry), b and c, with what is changed for one, and for all."""
    rows: list[dict[str, Any]] = [
        {"name": "a", "tier": "device", "entry": True},
        {"name": "b", "tier": "edge", "url": "10.0.0.7:8001"},
        {"name": "c", "tier": "cloud", "url": "c.example:8001"},
    ]
    rows = [{**row, **(changes or {}).get(row["name"], {})} for row in rows]
    return ServersSpec.from_data({"servers": rows, **more})


def protected(**more: Any) -> ServersSpec:
    """The same with certificates and a key."""
    own = {
        name: {"security": {"server_cert": f"certs/{name}.pem", "server_key": f"certs/{name}.key"}}
        for name in "abc"
    }
    return servers({**own, **more}, security=TLS)


def tiers(folder: Path, spec: ServersSpec | None = None, **options: Any) -> Tiers:
    """The containers of both."""
    return read_tiers(repositories(folder), spec or servers(), **options)


class _Strict(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        assert not twice, f"{node.start_mark}: {twice} stand twice"
        return super().construct_mapping(node, deep)


def strict_yaml(text: str | bytes) -> Any:
    """The document; a key that stands twice is an error, which plain PyYAML lets pass."""
    return yaml.load(text, Loader=_Strict)
