"""Links that are emulated between containers: what is shaped, by whom, with which commands."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.exported import servers, strict_yaml, tiers
from tests.unit.test_export_compose import VALIDATOR
from tritier.documents import NetworkState
from tritier.errors import InputError
from tritier.export.compose import COMPOSE_NAME, compose_files
from tritier.export.compose_services import ComposeOptions

PROGRAM = Path(__file__).resolve().parents[2] / "docker" / "links.py"


def network(*pairs: str) -> NetworkState:
    """Measured links of 4 MiB/s and a round trip of 11 ms between servers of one letter each."""
    figure = {"value": 1.0, "source": "measured", "low": 1.0, "high": 1.0, "n": 3}
    links = [
        {
            "from": pair[0],
            "to": pair[1],
            "measured_at": "2026-01-02T03:04:05Z",
            "bandwidth_mib_s": {**figure, "value": 4.0},
            "round_trip_ms": {**figure, "value": 11.0},
            "call_ms": figure,
            "copy_ms_per_mib": figure,
        }
        for pair in pairs
    ]
    names = sorted({name for pair in pairs for name in pair})
    rows = [
        {
            "name": name,
            "id": f"0000000{index}",
            "url": f"{name}:8001",
            "state": "ready",
            "checked_at": "2026-01-02T03:04:05Z",
        }
        for index, name in enumerate(names)
    ]
    return NetworkState.from_data({"servers": rows, "links": links})


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_links", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exported(folder: Path, *pairs: str) -> tuple[dict[str, Any], dict[str, str]]:
    files, _ = compose_files(tiers(folder), ComposeOptions(network=network(*pairs)))
    return strict_yaml(files[COMPOSE_NAME])["services"], dict(files)


def test_each_sender_is_shaped_by_a_service_of_its_own(tmp_path: Path) -> None:
    services, files = exported(tmp_path, "ab", "ba", "ac", "xa")
    beside = {name for name in services if name.endswith("-links")}
    assert beside == {"a-links", "b-links"}
    assert json.loads(files["config/a_links.json"]) == [
        {"peer": "b", "bandwidth_mib_s": 4.0, "delay_ms": 5.5},
        {"peer": "c", "bandwidth_mib_s": 4.0, "delay_ms": 5.5},
    ]
    links = services["a-links"]
    assert links["network_mode"] == "service:a"
    assert (links["cap_drop"], links["cap_add"]) == (["ALL"], ["NET_ADMIN"])
    assert links["profiles"] == ["links"]
    assert links["volumes"][0]["source"] == "./config/a_links.json"
    # Nobody else gets a capability.
    assert {name for name, item in services.items() if "cap_add" in item} == beside
    text = compose_files(tiers(tmp_path / "again"), ComposeOptions(network=network("ab")))[0]
    assert [e.message for e in VALIDATOR.iter_errors(strict_yaml(text[COMPOSE_NAME]))] == []


def test_without_a_network_file_nothing_is_shaped(tmp_path: Path) -> None:
    files, _ = compose_files(tiers(tmp_path), ComposeOptions())
    assert "cap_add" not in files[COMPOSE_NAME]
    assert not [name for name in files if "links" in name]


def test_a_network_file_of_others_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no link between b, c, a: measure them"):
        exported(tmp_path, "xy")


def test_the_name_of_a_service_of_links_is_refused(tmp_path: Path) -> None:
    found = tiers(tmp_path)
    renamed = [
        item if item.server != "b" else type(item)(**{**vars(item), "name": "a-links"})
        for item in found.tiers
    ]
    found = type(found)(found.repositories, tuple(renamed), servers())
    with pytest.raises(InputError, match="'b' would be the service 'a-links', which shapes"):
        compose_files(found, ComposeOptions(network=network("ab")))


def test_commands_of_tc(program: ModuleType) -> None:
    rows = [
        {"peer": "b", "bandwidth_mib_s": 4.0, "delay_ms": 5.5},
        {"peer": "c", "bandwidth_mib_s": None, "delay_ms": 0},
    ]
    lines = [
        " ".join(command)
        for command in program.commands(rows, {"b": ["10.0.0.2", "10.0.0.3"], "c": []}, "eth0")
    ]
    assert lines == [
        "tc qdisc del dev eth0 root",
        "tc qdisc add dev eth0 root handle 1: htb default 1",
        "tc class add dev eth0 parent 1: classid 1:1 htb rate 10000000000bit burst 64kb "
        "quantum 60000",
        "tc class add dev eth0 parent 1: classid 1:10 htb rate 33554432bit burst 64kb quantum "
        "60000",
        "tc qdisc add dev eth0 parent 1:10 handle 10: netem delay 5.5ms limit 100000",
        "tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.0.0.2/32 "
        "flowid 1:10",
        "tc filter add dev eth0 parent 1: protocol ip prio 1 u32 match ip dst 10.0.0.3/32 "
        "flowid 1:10",
        "tc class add dev eth0 parent 1: classid 1:11 htb rate 10000000000bit burst 64kb "
        "quantum 60000",
    ]
