"""A family of plans side by side on real servers: each plan, the whole model and the router."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import numpy_helper

from tests.helpers.models import assert_same_bits
from tests.integration.conftest import Bench, peer_plan, placement
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import Addresses, deploy, find_addresses, undeploy
from tritier.divider import WholeModel
from tritier.documents import Family, Plan
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import gather_inputs, infer, plan_from_placement
from tritier.workflow.family_generate import generate_family
from tritier.workflow.family_verify import verify_family_live

pytestmark = pytest.mark.integration


@dataclass
class Served:
    """A family that is loaded, and where."""

    model: LoadedModel
    family: Family
    plans: tuple[Plan, ...]
    repositories: Repositories
    addresses: Addresses

    @property
    def url(self) -> str:
        return self.addresses.urls["device"]


def _plans(bench: Bench, model: LoadedModel) -> tuple[Plan, ...]:
    """A plan with all three servers, one without the cloud, one without the edge."""
    graph = build_layer_graph(model.proto)
    two = [
        plan_from_placement(
            model, graph, placement(model, {"conv": server}, "device"), bench.spec, "espcn"
        )
        for server in ("edge", "cloud")
    ]
    return (peer_plan(model, bench.spec), *two)


def _family(plans: tuple[Plan, ...]) -> Family:
    exact = {plans[0].tensor(t).name: 0.0 for t in plans[0].outputs}
    ids = [plan.id for plan in plans]
    lost: list[list[str]] = [[], ["cloud"], ["edge"]]
    return Family.from_data(
        {
            "model": plans[0].model.model_dump(),
            "plans": [
                {
                    "id": plan.id,
                    "file": f"plans/{plan.id}.json",
                    "servers": [server.name for server in plan.servers],
                    "without": without,
                    "noise_limits": exact,
                }
                for plan, without in zip(plans, lost, strict=True)
            ],
            "classes": [
                {"name": "critical", "plans": [*ids, "whole"], "deadline_ms": 20_000,
                 "noise_limits": exact},
                {"name": "low", "plans": [ids[1], "whole"], "deadline_ms": 30_000},
            ],
            "default_class": "low",
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(
    bench: Bench, espcn: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    plans = _plans(bench, espcn)
    family = _family(plans)
    options = GenerateOptions(optimisation="disabled", deadline_ms=family.longest_deadline_ms)
    files, _ = generate_family(family, plans, espcn, options)
    folder: Path = tmp_path_factory.mktemp("family") / "repos"
    write_files(files, folder, force=False)
    repositories = Repositories.open(folder)
    addresses = find_addresses(repositories, bench.spec, bench.state)
    deploy(repositories, addresses, push="always")
    try:
        yield Served(espcn, family, plans, repositories, addresses)
    finally:
        assert undeploy(repositories, addresses) == []


def test_every_plan_gives_the_whole_model_s_bits(served: Served) -> None:
    inputs = gather_inputs(served.plans[0], 2, 0)
    whole = WholeModel(served.model.path, "disabled")
    client = triton.InferenceServerClient(served.url)
    try:
        names = [part.entry_model for part in served.repositories.parts()]
        assert len(set(names)) == 3
        for name in (*names, "espcn__whole"):
            for arrays in inputs:
                assert_same_bits(whole.run(arrays), infer(client, name, arrays))
    finally:
        client.close()


def test_models_of_plans_never_mix(served: Served) -> None:
    manifest = served.repositories.manifest
    owned = [model for model in manifest.models if model.kind not in ("whole", "router")]
    assert {model.plan for model in owned} == {plan.id for plan in served.plans}
    for model in owned:
        assert model.name.startswith(f"espcn__{model.plan}")
    for server in served.repositories.servers():
        with TritonServer(server, served.addresses.urls[server]) as found:
            wanted = {model.name for model in served.repositories.models_of(server)}
            assert wanted <= set(found.loaded())


def test_apps_see_one_model(served: Served) -> None:
    """Router, plans and whole model have the same names, types and shapes."""
    client = triton.InferenceServerClient(served.url)
    try:
        shown = {
            name: client.get_model_metadata(name)
            for name in ("espcn", "espcn__whole", f"espcn__{served.plans[0].id}")
        }
    finally:
        client.close()
    sides = [
        [(t.name, t.datatype, list(t.shape)) for t in (*item.inputs, *item.outputs)]
        for item in shown.values()
    ]
    assert sides[0] == sides[1] == sides[2]


def test_verification_asks_plans_and_router(served: Served) -> None:
    inputs = gather_inputs(served.plans[0], 1, 0)
    found = verify_family_live(served.repositories, served.model, inputs, served.url)
    assert [item.asked for item in found] == [
        *(f"espcn__{plan.id}" for plan in served.plans),
        "espcn__whole",
        "espcn as critical",
        "espcn as low",
    ]
    for item in found:
        assert item.verdict.ok, item.asked
        assert [d.max_abs for d in item.verdict.differences] == [0.0], item.asked


def test_verification_can_fail(served: Served, tmp_path: Path) -> None:
    """The control: what is served is not this other network, and each line says so."""
    proto = onnx.ModelProto()
    proto.CopyFrom(served.model.proto)
    weight = proto.graph.initializer[0]
    values = numpy_helper.to_array(weight) * 1.01
    weight.CopyFrom(numpy_helper.from_array(values.astype(np.float32), weight.name))
    onnx.save(proto, str(tmp_path / "other.onnx"))
    other = load_model(tmp_path / "other.onnx")
    inputs = gather_inputs(served.plans[0], 1, 0)
    found = verify_family_live(served.repositories, other, inputs, served.url)
    assert len(found) == 6
    assert not any(item.verdict.ok for item in found)
