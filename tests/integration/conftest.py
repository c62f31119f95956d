"""Real Tritons on loopback, started once for all tests that only load and unload models."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tritier.deployment.deploy import Addresses, deploy, find_addresses, undeploy
from tritier.deployment.lab import Lab
from tritier.documents import LabState, Plan, ServersSpec
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.resources import example_dir
from tritier.workflow import generate, plan_from_placement

NAMES = ("device", "edge", "cloud")


def three_servers(**edge: object) -> ServersSpec:
    """Device (the entry), edge and cloud without link emulation."""
    servers = [{"name": name, "tier": name, "entry": name == "device"} for name in NAMES]
    servers[1] |= edge
    return ServersSpec.from_data({"servers": servers})


@dataclass
class Bench:
    """A running lab and what is needed to put plans on it."""

    spec: ServersSpec
    lab: Lab
    state: LabState
    folder: Path

    @contextmanager
    def deployed(
        self, plan: Plan, model: LoadedModel, options: GenerateOptions | None = None
    ) -> Iterator[tuple[Repositories, Addresses]]:
        """The plan, generated and loaded (its bytes pushed: the servers don't see the folder)."""
        files, _ = generate(plan, model, options or GenerateOptions())
        folder = self.folder / plan.id
        write_files(files, folder, force=True)
        repositories = Repositories.open(folder)
        addresses = find_addresses(repositories, self.spec, self.state)
        deploy(repositories, addresses, push="always")
        try:
            yield repositories, addresses
        finally:
            undeploy(repositories, addresses)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("lab")
    lab = Lab(folder / "lab")
    spec = three_servers()
    state = lab.up(spec, None)
    try:
        yield Bench(spec, lab, state, folder)
    finally:
        lab.down()


@pytest.fixture(scope="session")
def espcn() -> LoadedModel:
    """The super-resolution network that ships with the project: trained, not drawn."""
    return load_model(example_dir("super_resolution") / "espcn_x3.onnx")


def placement(model: LoadedModel, groups: dict[str, str], default: str) -> dict[str, str]:
    """Server of each layer: by the start of its name, else the default."""
    layers = [layer.name for layer in build_layer_graph(model.proto).layers]
    return {
        layer: next((s for start, s in groups.items() if layer.startswith(start)), default)
        for layer in layers
    }


def peer_plan(model: LoadedModel, spec: ServersSpec) -> Plan:
    """The super-resolution network with a tensor that goes from edge to cloud directly."""
    groups = {"conv1": "edge", "relu1": "edge", "conv2": "edge", "conv5": "cloud"}
    groups |= {"relu2": "cloud", "conv3": "cloud", "relu3": "cloud", "conv4": "cloud"}
    groups |= {"relu4": "cloud"}
    graph = build_layer_graph(model.proto)
    return plan_from_placement(model, graph, placement(model, groups, "device"), spec, "espcn")


def random_plan(model: LoadedModel, spec: ServersSpec, seed: int, pieces: int) -> Plan:
    """The model's layers, in order, in `pieces` runs, each on a server drawn at random."""
    draw = random.Random(seed)
    graph = build_layer_graph(model.proto)
    count = len(graph.layers)
    cuts = sorted(draw.sample(range(1, count), min(pieces, count) - 1))
    server_of, server = {}, draw.choice(NAMES)
    for index, layer in enumerate(graph.layers):
        if index in cuts:
            server = draw.choice(NAMES)
        server_of[layer.name] = server
    return plan_from_placement(model, graph, server_of, spec, "drawn")
