"""Stages put together: planning, generating with the pool, and proving (rule R4)."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as triton
from onnx import numpy_helper

from tests.helpers.models import load, parse, spec
from tritier.divider import Arrays, WholeModel
from tritier.documents import Assignment, Plan, Tolerance
from tritier.errors import CheckFailed, InputError
from tritier.graph import LoadedModel, load_model
from tritier.pool import Pool
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import (
    gather_inputs,
    generate,
    infer,
    model_of_plan,
    plan_from_assignment,
    remember,
    verify_chained,
)

TEXT = "g (float[N,4] x) => (float[N,4] y) { [a] h = Relu(x) [b] y = Neg(h) }"
WHERE = {"a": "a", "b": "b"}
EXACT = Tolerance(optimisation="disabled", absolute=0.0, relative=0.0, reason="a test")


def planned(folder: Path, text: str | onnx.ModelProto = TEXT) -> tuple[LoadedModel, Plan]:
    """A model with layer a on the entry and layer b on b."""
    model = load(folder, text)
    return model, plan_from_assignment(model, Assignment(layers=WHERE), spec())


# -- planning -------------------------------------------------------------------------------------


def test_a_plan_names_the_model_and_only_the_servers_that_it_uses(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    assert (plan.model.name, plan.model.sha256) == ("m", model.sha256)
    assert [server.name for server in plan.servers] == ["a", "b"]
    assert [(t.id, t.name, t.shape) for t in plan.tensors] == [
        ("t0", "x", ("N", 4)),
        ("t1", "h", ("N", 4)),
        ("t2", "y", ("N", 4)),
    ]


def test_the_entry_is_in_the_plan_even_without_layers(tmp_path: Path) -> None:
    model = load(tmp_path, TEXT)
    plan = plan_from_assignment(model, Assignment(default="c"), spec())
    assert [(server.name, server.entry) for server in plan.servers] == [("a", True), ("c", False)]


def test_a_constant_may_be_named_in_the_assignment(tmp_path: Path) -> None:
    text = """
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
          [constant] c = Neg(w) [lost] l = Neg(x) [a] h = Add(x, c) [b] y = Neg(h)
        }
    """
    model = load(tmp_path, text)
    where = {"constant": "c", "lost": "c", **WHERE}
    plan = plan_from_assignment(model, Assignment(layers=where), spec())
    assert [c.layers for c in plan.components] == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a b", "can't be a Triton model name here"),
        ("a/b", "can't be a Triton model name here"),
        ("größe", "can't be a Triton model name here"),
        ("-a", "can't be a Triton model name here"),
        ("a" * 101, "can't be a Triton model name here"),
        ("a__b", "has two underscores together"),
    ],
)
def test_a_name_that_triton_or_a_path_can_not_take_is_refused(
    tmp_path: Path, name: str, problem: str
) -> None:
    model = load(tmp_path, TEXT)
    with pytest.raises(InputError, match=problem):
        plan_from_assignment(model, Assignment(default="a"), spec(), name)


@pytest.mark.parametrize("stem", ["a  b", "__", "größe (2)", "x" * 300])
def test_any_file_name_gives_a_model_name(tmp_path: Path, stem: str) -> None:
    model = load(tmp_path, TEXT)
    renamed = LoadedModel(Path(f"{stem}.onnx"), model.sha256, model.proto)
    plan = plan_from_assignment(renamed, Assignment(default="a"), spec())
    assert plan.model.name


# -- generating with the pool ---------------------------------------------------------------------


def test_sub_models_come_from_the_pool(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    pool = Pool(tmp_path / "pool")
    first, _ = generate(plan, model, GenerateOptions(), pool)
    assert generate(plan, model, GenerateOptions(), pool)[0] == first
    assert {entry.kind for entry in pool.entries()} == {"sub-model"}
    other = onnx.load_model_from_string(first[f"b/m__{plan.id}__c1/1/model.onnx"])
    other.graph.node[0].op_type = "Abs"
    (entry,) = [entry for entry in pool.entries() if "/c1/" in entry.key]
    pool.put("sub-model", entry.key, entry.name, other.SerializeToString())
    assert generate(plan, model, GenerateOptions(), pool)[0] != first


def test_a_damaged_sub_model_of_the_pool_is_cut_anew(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    pool = Pool(tmp_path / "pool")
    first, _ = generate(plan, model, GenerateOptions(), pool)
    for path in (tmp_path / "pool" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    assert generate(plan, model, GenerateOptions(), pool)[0] == first
    assert generate(plan, model, GenerateOptions(), pool)[0] == first


def test_a_plan_finds_its_model_in_the_pool(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    pool = Pool(tmp_path / "pool")
    with pytest.raises(InputError, match=r"the pool has no model .*: pass the model file"):
        model_of_plan(plan, None, pool, tmp_path)
    remember(pool, plan, model)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = model_of_plan(plan, None, pool, scratch)
    assert (found.sha256, found.path.parent) == (model.sha256, scratch)
    assert pool.get("plan", plan.id) == plan.to_json().encode()
    assert model_of_plan(plan, model.path, pool, scratch).path == model.path


def test_a_model_that_does_not_fit_the_plan_is_refused(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    other = load(tmp_path, TEXT.replace("Relu", "Abs"), "other")
    with pytest.raises(InputError, match="the plan is for a model with sha256"):
        generate(plan, other, GenerateOptions())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"dtype": "float16"},
            "tensor 'h' is float16 of shape ['N', 4] in the plan, float32 of shape ['N', 4] in "
            "the model: plan again",
        ),
        (
            {"shape": ["N", 5]},
            "tensor 'h' is float32 of shape ['N', 5] in the plan, float32 of shape ['N', 4] in "
            "the model: plan again",
        ),
        (
            {"shape": [4]},
            "tensor 'h' is float32 of shape [4] in the plan, float32 of shape ['N', 4] in the "
            "model: plan again",
        ),
        ({"name": "z"}, "the model has no tensor 'z'"),
    ],
)
def test_a_plan_from_elsewhere_that_tells_of_other_tensors_is_refused(
    tmp_path: Path, change: dict[str, Any], fault: str
) -> None:
    model, plan = planned(tmp_path)
    data = json.loads(plan.to_json())
    del data["plan_id"]
    data["tensors"][1] |= change
    with pytest.raises(InputError) as caught:
        generate(Plan.from_data(data), model, GenerateOptions())
    assert caught.value.faults == (fault,)


def test_other_symbols_for_the_same_sizes_are_fine(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    data = json.loads(plan.to_json().replace('"N"', '"batch"'))
    del data["plan_id"]
    _, batching = generate(Plan.from_data(data), model, GenerateOptions())
    assert batching.max_batch_size == 16


def test_a_component_that_onnx_runtime_refuses_is_found(tmp_path: Path) -> None:
    text = "g (float[2] x) => (float[2] y) { [a] h = Relu(x) [b] y = com.microsoft.Lost(h) }"
    model, plan = planned(tmp_path, parse(text))
    with pytest.raises(InputError, match="ONNX Runtime can't load the model"):
        generate(plan, model, GenerateOptions())


@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_whole_model_with_scalars_is_served_with_one_element(
    tmp_path: Path, ir_version: int
) -> None:
    proto = parse("""
        g (float s, float[2] x) => (float y) {
          [a] h = Mul(x, s)
          [b] y = ReduceMax<keepdims = 0>(h)
        }
    """)
    proto.ir_version = ir_version
    model, plan = planned(tmp_path, proto)
    files, _ = generate(plan, model, GenerateOptions(with_whole=True))
    inputs: Arrays = {"s": np.array([3], np.float32), "x": np.array([1, 2], np.float32)}
    served = WholeModel(files["a/m__whole/1/model.onnx"], "disabled").run(inputs)
    assert served["y"].tolist() == [6.0]
    plain = WholeModel(model.path, "disabled").run({**inputs, "s": inputs["s"].reshape(())})
    assert plain["y"].tolist() == 6.0


def test_a_whole_model_without_scalars_is_the_file(tmp_path: Path) -> None:
    model, plan = planned(tmp_path)
    files, _ = generate(plan, model, GenerateOptions(with_whole=True))
    assert files["a/m__whole/1/model.onnx"] == model.path.read_bytes()


# -- external data --------------------------------------------------------------------------------


def external(folder: Path, weights: list[float]) -> Path:
    """A model whose weights lie in a file beside it."""
    model = parse("g (float[2] x) => (float[2] y) { [a] h = Add(x, w) [b] y = Neg(h) }")
    data = numpy_helper.from_array(np.array(weights, np.float32), "w")
    model.graph.initializer.append(data)
    folder.mkdir(exist_ok=True)
    path = folder / "m.onnx"
    (folder / "w.bin").unlink(missing_ok=True)  # it would be appended to
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    return path


def test_weights_beside_the_model_get_into_the_sub_models(tmp_path: Path) -> None:
    model = load_model(external(tmp_path, [1, 2]))
    plan = plan_from_assignment(model, Assignment(layers=WHERE), spec())
    files, _ = generate(plan, model, GenerateOptions())
    sub = onnx.load_model_from_string(files[f"a/m__{plan.id}__c0/1/model.onnx"])
    assert numpy_helper.to_array(sub.graph.initializer[0]).tolist() == [1, 2]


def test_other_weights_beside_the_model_are_another_model(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool")
    found = []
    for weights in ([1.0, 2.0], [3.0, 4.0]):
        model = load_model(external(tmp_path / "model", weights))
        plan = plan_from_assignment(model, Assignment(layers=WHERE), spec())
        files, _ = generate(plan, model, GenerateOptions(), pool)
        found.append(files[f"a/m__{plan.id}__c0/1/model.onnx"])
    assert found[0] != found[1]


def test_the_pool_gives_a_model_back_with_its_weights(tmp_path: Path) -> None:
    model = load_model(external(tmp_path / "model", [1, 2]))
    plan = plan_from_assignment(model, Assignment(layers=WHERE), spec())
    pool = Pool(tmp_path / "pool")
    remember(pool, plan, model)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert model_of_plan(plan, None, pool, scratch).proto == model.proto


def test_the_whole_model_is_served_with_its_weights(tmp_path: Path) -> None:
    model = load_model(external(tmp_path / "model", [1, 2]))
    plan = plan_from_assignment(model, Assignment(layers=WHERE), spec())
    files, _ = generate(plan, model, GenerateOptions(with_whole=True))
    write_files(files, tmp_path / "out", force=False)
    WholeModel(tmp_path / "out" / "a" / "m__whole" / "1" / "model.onnx", "disabled")


# -- inputs ---------------------------------------------------------------------------------------


def npz(path: Path, **arrays: Any) -> Path:
    """Write arrays as .npz."""
    np.savez(path, **arrays)
    return path


def test_random_inputs_repeat_with_their_seed(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    one, two = gather_inputs(plan, 2, seed=1), gather_inputs(plan, 2, seed=1)
    assert [i["x"].tolist() for i in one] == [i["x"].tolist() for i in two]
    assert one[0]["x"].shape == (1, 4)
    assert one[0]["x"].dtype == np.float32
    assert one[0]["x"].tolist() != one[1]["x"].tolist()
    assert gather_inputs(plan, 1, seed=2)[0]["x"].tolist() != one[0]["x"].tolist()
    assert gather_inputs(plan, 1, seed=1, dims={"N": 3})[0]["x"].shape == (3, 4)


def test_inputs_of_every_kind_are_made(tmp_path: Path) -> None:
    text = """
        g (float s, int64[2] i, bool[3] b) => (float s2, int64[2] i2, bool[3] b2) {
          s2 = Neg(s) i2 = Neg(i) b2 = Not(b)
        }
    """
    model = load(tmp_path, text)
    plan = plan_from_assignment(model, Assignment(default="a"), spec())
    (inputs,) = gather_inputs(plan, 1, seed=0)
    assert {name: (a.dtype.name, a.shape) for name, a in inputs.items()} == {
        "s": ("float32", ()),
        "i": ("int64", (2,)),
        "b": ("bool", (3,)),
    }


def test_a_size_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    text = "g (float[N,H] x) => (float[N,H] y) { [a] h = Relu(x) [b] y = Neg(h) }"
    _, plan = planned(tmp_path, text)
    with pytest.raises(InputError, match="give it a number with --dim H=N"):
        gather_inputs(plan, 1, seed=0)


def test_files_hold_one_array_or_one_for_each_input(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    array = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.save(tmp_path / "one.npy", array)
    many = npz(tmp_path / "many.npz", x=array, more=array)
    found = gather_inputs(plan, 0, 0, [tmp_path / "one.npy", many])
    assert [list(item) for item in found] == [["x"], ["x"]]
    assert all(item["x"].tolist() == array.tolist() for item in found)


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (np.zeros((1, 4)), "'x' is float64 of shape [1, 4]; the model needs float32 of shape"),
        (np.zeros(4, np.float32), "'x' is float32 of shape [4]; the model needs float32 of shape"),
        (np.zeros((1, 5), np.float32), "'x' is float32 of shape [1, 5]; the model needs float32"),
    ],
)
def test_an_array_that_does_not_fit_is_told(tmp_path: Path, array: Any, fault: str) -> None:
    _, plan = planned(tmp_path)
    with pytest.raises(InputError) as caught:
        gather_inputs(plan, 0, 0, [npz(tmp_path / "i.npz", x=array)])
    assert caught.value.faults[0].startswith(fault)


def test_a_file_without_an_input_is_told(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    with pytest.raises(InputError, match="has no array 'x'; it has z"):
        gather_inputs(plan, 0, 0, [npz(tmp_path / "i.npz", z=np.zeros(1))])


def test_one_array_for_two_inputs_is_told(tmp_path: Path) -> None:
    text = "g (float[2] x, float[2] z) => (float[2] y) { [a] h = Relu(x) [b] y = Add(h, z) }"
    _, plan = planned(tmp_path, text)
    np.save(tmp_path / "i.npy", np.zeros(2, np.float32))
    with pytest.raises(InputError, match=r"holds one array, the model needs x, z: give an \.npz"):
        gather_inputs(plan, 0, 0, [tmp_path / "i.npy"])


def broken_files() -> dict[str, bytes]:
    """Files that are no arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, x=np.array([{}], object))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x.npy", b"not an array")
    return {
        "empty": b"",
        "text": b"hello",
        "torn archive": buffer.getvalue()[:-30],
        "objects": buffer.getvalue(),
        "an archive of something else": archive.getvalue(),
    }


@pytest.mark.parametrize("kind", broken_files())
def test_a_file_that_is_no_array_is_told(tmp_path: Path, kind: str) -> None:
    _, plan = planned(tmp_path)
    path = tmp_path / "i.npz"
    path.write_bytes(broken_files()[kind])
    with pytest.raises(InputError) as caught:
        gather_inputs(plan, 0, 0, [path])
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    _, plan = planned(tmp_path)
    with pytest.raises(InputError, match=r"can't be read as \.npy or \.npz"):
        gather_inputs(plan, 0, 0, [tmp_path / "none.npz"])


# -- proving --------------------------------------------------------------------------------------


def written(tmp_path: Path) -> tuple[LoadedModel, Repositories]:
    """Generated repositories on disk."""
    model, plan = planned(tmp_path)
    files, _ = generate(plan, model, GenerateOptions())
    write_files(files, tmp_path / "out", force=True)
    return model, Repositories.open(tmp_path / "out")


def test_r4_good_parts_are_proven(tmp_path: Path) -> None:
    model, repositories = written(tmp_path)
    inputs = gather_inputs(repositories.plan, 3, 0)
    verdict = verify_chained(repositories, model, inputs, EXACT)
    assert verdict.ok
    (row,) = verdict.differences
    assert (row.output, row.samples, row.max_abs) == ("y", 3, 0.0)


def test_r4_a_wrong_part_is_found(tmp_path: Path) -> None:
    model, repositories = written(tmp_path)
    path = repositories.sub_models()["c1"]
    sub = onnx.load_model(str(path))
    sub.graph.node[0].op_type = "Abs"
    path.write_bytes(sub.SerializeToString())
    inputs = gather_inputs(repositories.plan, 3, 0)
    verdict = verify_chained(repositories, model, inputs, EXACT)
    assert not verdict.ok
    assert verdict.differences[0].max_abs > 0


def test_no_inputs_prove_nothing(tmp_path: Path) -> None:
    model, repositories = written(tmp_path)
    with pytest.raises((InputError, CheckFailed)):
        verify_chained(repositories, model, [], EXACT)


def test_inputs_that_the_model_refuses_are_told(tmp_path: Path) -> None:
    text = "g (float[N,4] x, float[M,4] z) => (float[N,4] y) { [a] h = Relu(x) [b] y = Add(h, z) }"
    model, plan = planned(tmp_path, text)
    files, _ = generate(plan, model, GenerateOptions())
    write_files(files, tmp_path / "out", force=True)
    inputs = gather_inputs(plan, 1, 0, dims={"N": 2, "M": 3})
    with pytest.raises(InputError, match="ONNX Runtime can't run the model"):
        verify_chained(Repositories.open(tmp_path / "out"), model, inputs, EXACT)


class FakeClient:
    """Takes a request and answers with its first input."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[int]] = {}

    def infer(self, model: str, request: list[triton.InferInput], client_timeout: float) -> Any:
        """Note the shapes; answer something."""
        assert model
        assert client_timeout > 0
        self.shapes = {item.name(): item.shape() for item in request}
        return self

    def get_response(self) -> Any:
        """An answer without outputs."""
        return triton.service_pb2.ModelInferResponse()


def test_a_scalar_is_sent_as_one_element() -> None:
    client = FakeClient()
    infer(client, "m", {"s": np.array(3, np.float32), "x": np.zeros((2, 4), np.float32)})
    assert client.shapes == {"s": [1], "x": [2, 4]}
