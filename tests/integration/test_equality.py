"""Rule R4 live: what apps get from several Tritons equals what the whole model gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton

from tests.integration.conftest import Bench, peer_plan, random_plan
from tests.integration.light import write_light_model
from tritier.divider import WholeModel
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions
from tritier.workflow import gather_inputs, infer, plan_from_placement, verify_live

pytestmark = pytest.mark.integration
_SEEDS = range(20)


@pytest.fixture(scope="module", params=["squeezenet", "shufflenet"])
def light(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load_model(write_light_model(request.param, tmp_path_factory.mktemp("light")))


def _assert_equal(bench: Bench, model: LoadedModel, seed: int, pieces: int) -> None:
    plan = random_plan(model, bench.spec, seed, pieces)
    with bench.deployed(plan, model, GenerateOptions(optimisation="disabled")) as (repos, at):
        inputs = gather_inputs(plan, 2, seed)
        exact = repos.manifest.tolerances[0]
        verdict = verify_live(repos, model, inputs, exact, at.urls["device"])
        assert exact.absolute == exact.relative == 0
        assert [d.max_abs for d in verdict.differences] == [0.0] * len(plan.outputs)
        # The control: the outputs do depend on the inputs, so a wrong tensor would show.
        whole = WholeModel(model.path, "disabled")
        first, second = (whole.run(arrays) for arrays in inputs)
        assert any(not np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("seed", _SEEDS)
def test_super_resolution_split_at_random(bench: Bench, espcn: LoadedModel, seed: int) -> None:
    _assert_equal(bench, espcn, seed, pieces=2 + seed % 5)


@pytest.mark.parametrize("seed", _SEEDS)
def test_light_models_split_at_random(bench: Bench, light: LoadedModel, seed: int) -> None:
    _assert_equal(bench, light, seed, pieces=2 + seed % 4)


def test_served_level_stays_within_its_tolerance(bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, bench.spec)
    with bench.deployed(plan, espcn) as (repos, at):
        served = repos.manifest.tolerances[-1]
        assert served.optimisation == "all"
        verdict = verify_live(repos, espcn, gather_inputs(plan, 3, 0), served, at.urls["device"])
        assert verdict.ok


def test_apps_see_the_whole_models_names_types_and_shapes(bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, bench.spec)
    with bench.deployed(plan, espcn, GenerateOptions(with_whole=True)) as (_, at):
        client = triton.InferenceServerClient(at.urls["device"])
        split, whole = (client.get_model_metadata(n) for n in ("espcn", "espcn__whole"))
        client.close()
        assert list(split.inputs) == list(whole.inputs)
        assert list(split.outputs) == list(whole.outputs)


def test_a_batch_passes_through_all_servers(bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, bench.spec)
    with bench.deployed(plan, espcn, GenerateOptions(optimisation="disabled")) as (repos, at):
        assert repos.manifest.batching is not None
        assert repos.manifest.batching.max_batch_size == 16
        inputs = gather_inputs(plan, 1, 0, dims={"batch": 5})
        exact = repos.manifest.tolerances[0]
        verdict = verify_live(repos, espcn, inputs, exact, at.urls["device"])
        assert [d.max_abs for d in verdict.differences] == [0.0]


def test_a_plan_of_one_server(bench: Bench, espcn: LoadedModel) -> None:
    plan = random_plan(espcn, bench.spec, 0, 1)
    with bench.deployed(plan, espcn, GenerateOptions(optimisation="disabled")) as (repos, at):
        exact = repos.manifest.tolerances[0]
        verdict = verify_live(repos, espcn, gather_inputs(plan, 1, 0), exact, at.urls["device"])
        assert verdict.ok


def test_scalars_and_shapes_cross_between_servers(bench: Bench, tmp_path: Path) -> None:
    text = """
      <ir_version: 8, opset_import: ["" : 17]>
      agraph (float[N, 4] x) => (float y, int64[2] s, float[K] z) {
        s = Shape (x)
        total = ReduceSum <keepdims = 0> (x)
        half = Constant <value = float {0.5}> ()
        y = Mul (total, half)
        long = ReduceProd <keepdims = 0> (s)
        axis = Constant <value = int64[1] {0}> ()
        length = Unsqueeze (long, axis)
        z = Reshape (x, length)
      }
    """
    path = tmp_path / "scalars.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    model = load_model(path)
    plan = random_plan(model, bench.spec, 3, 6)
    assert {c.server for c in plan.components} == {"device", "edge", "cloud"}
    with bench.deployed(plan, model, GenerateOptions(optimisation="disabled")) as (repos, at):
        inputs = gather_inputs(plan, 2, 0, dims={"N": 3})
        exact = repos.manifest.tolerances[0]
        verdict = verify_live(repos, model, inputs, exact, at.urls["device"])
        assert {d.output: d.max_abs for d in verdict.differences} == {"y": 0, "s": 0, "z": 0}


def test_apps_may_ask_for_some_of_the_outputs(bench: Bench, tmp_path: Path) -> None:
    text = """
      <ir_version: 8, opset_import: ["" : 17]>
      agraph (float[4] x) => (float[4] a, float[4] b, float[4] c) {
        u = Exp (x)
        a = Neg (u)
        v = Add (u, u)
        b = Relu (v)
        c = Mul (x, x)
      }
    """
    path = tmp_path / "outputs.onnx"
    onnx.save(onnx.parser.parse_model(text), str(path))
    model = load_model(path)
    graph = build_layer_graph(model.proto)
    servers = ["edge", "edge", "cloud", "cloud", "device"]
    server_of = {layer.name: s for layer, s in zip(graph.layers, servers, strict=True)}
    plan = plan_from_placement(model, graph, server_of, bench.spec)
    x = np.linspace(0, 1, 4, dtype=np.float32)
    whole = WholeModel(path, "disabled").run({"x": x})
    with bench.deployed(plan, model, GenerateOptions(deadline_ms=2000)) as (_, at):
        client = triton.InferenceServerClient(at.urls["device"])
        item = triton.InferInput("x", [4], "FP32")
        item.set_data_from_numpy(x)
        for wanted in (["a"], ["b"], ["c"], ["a", "b"], ["b", "c"], ["a", "b", "c"]):
            outputs = [triton.InferRequestedOutput(name) for name in wanted]
            answer = client.infer("outputs", [item], outputs=outputs, client_timeout=10)
            for name in wanted:
                assert np.array_equal(answer.as_numpy(name), whole[name]), (wanted, name)
        client.close()


def test_wrong_inputs_get_an_error_not_an_answer(bench: Bench, espcn: LoadedModel) -> None:
    plan = peer_plan(espcn, bench.spec)
    with bench.deployed(plan, espcn) as (_, at):
        client = triton.InferenceServerClient(at.urls["device"])
        wrong = np.zeros((1, 1, 100, 100), np.float32)
        with pytest.raises(Exception, match="unexpected shape"):
            infer(client, "espcn", {"luminance": wrong})
        client.close()
