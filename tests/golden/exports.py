"""Exported folders of the golden plans, and what is said of those that can't be exported."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.helpers.plans import files_of, make_plan
from tritier.documents import ServersSpec
from tritier.errors import TritierError
from tritier.export import Tiers, read_tiers, write_export
from tritier.export.compose import RESERVED, compose_files
from tritier.export.compose_services import ComposeOptions
from tritier.repository import Repositories, write_files

HERE = Path(__file__).resolve().parent
INPUT = HERE / "input"
# Case -> generated case, servers file.
COMPOSE = {
    "compose_two_servers": ("two_servers", "servers.yaml"),
    "compose_protected": ("family", "servers_protected.yaml"),
}
_FOREIGN = ServersSpec.from_data({"servers": [{"name": "x", "tier": "edge", "entry": True}]})


def trees(generated: Callable[[str], Mapping[str, bytes]]) -> dict[str, bytes]:
    """Case and relative path -> content, of all cases. What is copied from the generated folder is
    left out, and so is all but the first copy of the dashboard."""
    found: dict[str, bytes] = {}
    for case, (plan, servers) in COMPOSE.items():
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            _export(_tiers(folder, generated(plan), ServersSpec.load(INPUT / servers)), folder)
            found |= {
                f"{case}/{path.relative_to(folder / 'out')}": path.read_bytes()
                for path in sorted((folder / "out").rglob("*"))
                if path.is_file() and "repositories" not in path.relative_to(folder).parts
            }
    dashboards = [name for name in found if "/grafana/dashboards/" in name]
    assert len({found.pop(name) for name in dashboards[1:]} | {found[dashboards[0]]}) == 1
    return found


def errors(generated: Callable[[str], Mapping[str, bytes]]) -> str:
    """What is said, one paragraph for each fault of an input."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        good = ServersSpec.load(INPUT / "servers.yaml")
        tiers = _tiers(folder, generated("three_servers"), good)
        (folder / "thesis").mkdir()
        (folder / "thesis" / "thesis.tex").write_text("")
        _export(tiers, folder)
        repositories = tiers.repositories
        faults: dict[str, Callable[[], object]] = {
            "a folder that was not generated": lambda: Repositories.open(folder / "thesis"),
            "the servers file of another plan": lambda: read_tiers(repositories, _FOREIGN),
            "another entry": lambda: read_tiers(repositories, _changed(good, _other_entry)),
            "names that are one label": lambda: _named("edge_1", "edge-1", folder),
            "the name of another service": lambda: _named("grafana", "cloud", folder),
            "TLS without certificates of servers": lambda: read_tiers(
                repositories, _changed(good, _tls)
            ),
            "certificates with different names": lambda: read_tiers(
                repositories, _changed(good, _tls_names)
            ),
            "a folder that exists": lambda: _export(tiers, folder),
            "a folder that was not exported": lambda: _export(tiers, folder, "thesis"),
            "a folder among the repositories": lambda: _export(tiers, folder, "repos/out"),
        }
        lines = [f"{title}:\n{_message(what)}\n" for title, what in faults.items()]
        return "\n".join(lines).replace(f"{scratch}/", "").replace(f"{INPUT}/", "")


def _message(action: Callable[[], object]) -> str:
    try:
        action()
    except TritierError as error:
        return str(error)
    raise AssertionError("it is not refused")


def _tiers(folder: Path, files: Mapping[str, bytes], spec: ServersSpec) -> Tiers:
    write_files(files, folder / "repos", force=False)
    return read_tiers(Repositories.open(folder / "repos"), spec, reserved=RESERVED)


def _export(tiers: Tiers, folder: Path, name: str = "out") -> None:
    files, copies = compose_files(tiers, ComposeOptions())
    write_export("compose", tiers, files, folder / name, False, copies, kept=["secrets"])


def _changed(spec: ServersSpec, change: Callable[[list[dict[str, Any]]], None]) -> ServersSpec:
    data = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    change(data["servers"])
    return ServersSpec.from_data(data)


def _other_entry(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["entry"] = row["name"] == "edge"


def _tls(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["security"] = {"tls": True, "ca": "ca.pem"}


def _tls_names(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        name = row["name"]
        row["security"] = {
            "tls": True,
            "ca": "ca.pem",
            "server_cert": f"{name}.pem",
            "server_key": f"{name}.key",
            "server_name": f"{name}.example",
        }


def _named(second: str, third: str, folder: Path) -> None:
    """A plan over servers of these names."""
    plan = make_plan(["b: t0 -> t1", "c: t1 -> t2", "a: t2 -> t9"])
    data = plan.model_dump_json(by_alias=True, exclude_none=True, exclude={"plan_id"})
    plan = type(plan).model_validate_json(
        data.replace('"b"', f'"{second}"').replace('"c"', f'"{third}"')
    )
    spec = ServersSpec.from_data(
        {
            "servers": [
                {"name": "a", "tier": "device", "entry": True},
                {"name": second, "tier": "edge"},
                {"name": third, "tier": "cloud"},
            ]
        }
    )
    _tiers(Path(tempfile.mkdtemp(dir=folder)), files_of(plan), spec)
