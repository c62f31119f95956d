"""Manifests of a family of plans with a router."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.cases import FAMILY, INPUT, generated
from tests.helpers.manifest_checks import name_faults
from tests.helpers.manifests import edges, read_export, workloads
from tests.helpers.validate_export import object_faults
from tritier.documents import ServersSpec, read_data
from tritier.export import read_tiers
from tritier.export.kubernetes import kubernetes_files
from tritier.repository import Repositories, write_files


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Repositories:
    """Three plans of three servers; the device is the entry and has the router."""
    folder = tmp_path_factory.mktemp("family") / "repos"
    write_files(generated(FAMILY), folder, force=False)
    return Repositories.open(folder)


def spec(**security: Any) -> ServersSpec:
    """The servers, with TLS if there is a word about it."""
    data: Any = read_data(INPUT / "servers.yaml")
    if security:
        own = {"server_cert": "own.pem", "server_key": "own.key"}
        data["servers"] = [{**row, "security": own} for row in data["servers"]]
        data["security"] = {"tls": True, "ca": "ca.pem", **security}
    return ServersSpec.from_data(data)


def test_a_family_is_exported_whole(family: Repositories) -> None:
    files = kubernetes_files(read_tiers(family, spec()))
    objects = read_export(files)
    assert [fault for data in objects.values() for fault in object_faults(data)] == []
    assert name_faults(objects, files["README.md"]) == []
    # The router asks all servers whether they are ready; edge and cloud hand tensors on.
    assert edges(objects) == {
        ("device", "edge"), ("device", "cloud"), ("edge", "cloud"), ("cloud", "edge"),
    }  # fmt: skip
    command = workloads(objects)["device"][1]["containers"][0]["command"]
    loaded = {word.partition("=")[2] for word in command if word.startswith("--load-model=")}
    entries = {part.entry_model for part in family.parts()}
    assert len(entries) == 3
    assert {"golden", "golden__whole", *entries} <= loaded
    assert f"--model-repository=/models/{family.manifest.family_id}" in command


@pytest.mark.parametrize(
    ("security", "own", "scaled"),
    [
        ({}, "127.0.0.1:8001", True),
        ({"server_name": "triton"}, "127.0.0.1:8001", True),
        ({"mutual": False}, "device:8001", False),
    ],
)
def test_a_router_reaches_plans_in_its_own_pod(
    family: Repositories, security: dict[str, Any], own: str, scaled: bool
) -> None:
    files = kubernetes_files(read_tiers(family, spec(**security)))
    objects = read_export(files)
    peers = json.loads(objects["device/config-map.yaml"]["data"]["peers.json"])
    assert peers == {"device": own, "edge": "edge:8001", "cloud": "cloud:8001"}
    assert ("device/horizontal-pod-autoscaler.yaml" in objects) == scaled
    assert ("# The router calls plans through" in files["device/deployment.yaml"]) != scaled
