"""Choosing codecs and quantized layers, what plans and manifests tell of them, verifying them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.helpers.coded import measured_ranges
from tests.helpers.models import load, spec
from tests.helpers.plans import plan_data
from tritier.divider import Arrays
from tritier.documents import Assignment, Codec, Plan, Quantization, Ranges, Tolerance
from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.graph import LoadedModel, build_layer_graph
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import (
    code_plan,
    gather_inputs,
    generate,
    plan_from_assignment,
    verify_chained,
)

EXACT = Tolerance(optimisation="disabled", absolute=0, relative=0, reason="for a test")
# What crosses: floats `h` and `k`, a shape `s`, an index `i`.
MODEL = """
    g (float[N,4] x, int64[2] u) => (float[N,4] y, int64[2] v, int64[N,2] z)
    <float[4,4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2}, float[N,4] h> {
      [relu] h = Relu(x)
      [mul] k = MatMul(h, w)
      [shape] s = Shape(h)
      [top] i = ArgMax<axis = 1>(h)
      [neg] y = Neg(k)
      [add] v = Add(s, u)
      [last] z = Add(i, s)
    }
"""
WHERE = {"mul": "b", "shape": "b", "top": "b", "*": "a"}
INPUTS: Arrays = {
    "x": np.array([[1, -2, 3, -4], [5, 6, -7, 8]], np.float32),
    "u": np.array([1, 300], np.int64),
}
Codecs = dict[str, Codec]


class Case:
    """A model, a plan without codecs, and ranges."""

    def __init__(self, folder: Path, quantization: Quantization | None = None) -> None:
        self.model: LoadedModel = load(folder, MODEL)
        self.graph = build_layer_graph(self.model.proto)
        servers = spec("ab")
        update = {"quantization": quantization or Quantization()}
        servers = servers.model_copy(
            update={"servers": tuple(s.model_copy(update=update) for s in servers.servers)}
        )
        self.plan = plan_from_assignment(self.model, Assignment(layers=WHERE), servers)
        self.ranges = measured_ranges(self.model, [INPUTS])

    def coded(
        self,
        layers: Sequence[str] = (),
        default: Codec | None = None,
        codecs: Mapping[str, Codec] | None = None,
        ranges: Ranges | None = None,
    ) -> Plan:
        """The plan with codecs and quantized layers."""
        return code_plan(
            self.plan, self.model, self.graph, layers, ranges or self.ranges, default, codecs
        )

    def faults(self, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        """What is said about a bad choice."""
        with pytest.raises(InputError) as caught:
            self.coded(*args, **kwargs)
        return caught.value.faults


def codecs_of(plan: Plan) -> Codecs:
    """Tensor -> codec, of the wires that have one."""
    found = {plan.tensor(w.tensor).name: w.codec for w in plan.wires if w.codec != "as_is"}
    return dict(sorted(found.items()))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """With signed activations."""
    return Case(tmp_path)


# -- choices --------------------------------------------------------------------------------------


def test_nothing_asked_for_is_nothing_done(case: Case) -> None:
    assert case.coded() is case.plan
    assert case.coded(default="as_is").id == case.plan.id
    assert case.coded(codecs={"h": "as_is"}).id == case.plan.id
    assert case.plan.is_exact


def test_ranges_that_nothing_needs_stay_out_of_the_plan(case: Case) -> None:
    assert case.coded(codecs={"h": "fp16"}).ranges is None
    assert set(case.coded(codecs={"h": "int8"}).ranges or {}) == {"h"}
    assert set(case.coded(["mul"]).ranges or {}) == {"h", "k"}


@pytest.mark.parametrize(
    ("default", "expected"),
    [
        # h is read by two layers of b, k goes back. Indices over 4 elements fit 8 bits, sizes 32.
        ("fp16", {"h": "fp16", "i": "to_uint8", "k": "fp16", "s": "to_int32"}),
        ("int8", {"h": "int8", "i": "to_uint8", "k": "int8", "s": "to_int32"}),
        ("uint8", {"h": "uint8", "i": "to_uint8", "k": "uint8", "s": "to_int32"}),
        ("to_int8", {"i": "to_uint8", "s": "to_int32"}),
        ("as_is", {}),
        (None, {}),
    ],
)
def test_a_codec_for_all_goes_where_it_suits(
    case: Case, default: Codec | None, expected: Codecs
) -> None:
    assert codecs_of(case.coded(default=default)) == expected


def test_patterns_go_before_the_codec_for_all_and_names_before_patterns(case: Case) -> None:
    codecs: Codecs = {"[hk]": "as_is", "k": "uint8", "?": "int8", "[is]": "as_is"}
    with pytest.raises(InputError, match="its codec may be as_is, to_uint8"):
        case.coded(default="fp16", codecs=codecs)  # `?` comes before `[is]`
    codecs = {"[hk]": "as_is", "k": "uint8", "[is]": "as_is", "*": "int8"}
    assert codecs_of(case.coded(default="fp16", codecs=codecs)) == {"k": "uint8"}


def test_what_quantized_layers_read_and_make_crosses_as_they_compute_with_it(
    case: Case,
) -> None:
    assert codecs_of(case.coded(["mul"])) == {"h": "int8", "k": "int8"}
    assert codecs_of(case.coded(["mul"], "uint8"))["h"] == "int8"  # loses nothing more
    assert codecs_of(case.coded(["mul"], "fp16"))["h"] == "fp16"  # was asked for
    assert codecs_of(case.coded(["mul"], "as_is")) == {}
    assert codecs_of(case.coded(["mul"], codecs={"k": "uint8"})) == {"h": "int8", "k": "uint8"}


def test_unsigned_activations_cross_unsigned(tmp_path: Path) -> None:
    case = Case(tmp_path, Quantization(activation_type="uint8"))
    for default in (None, "int8", "uint8"):
        found = codecs_of(case.coded(["mul"], default))
        assert (found["h"], found["k"]) == ("uint8", "uint8")


def test_integers_are_narrowed_by_request_if_calibration_shows_that_they_fit(case: Case) -> None:
    # Of `s` the graph tells no more than that it is a size.
    codecs: Codecs = {"s": "to_int8", "i": "to_int16"}
    assert codecs_of(case.coded(codecs=codecs)) == dict(sorted(codecs.items()))
    none = case.ranges.model_copy(update={"ranges": {}})
    assert case.faults(codecs=codecs, ranges=none) == (
        "the values of tensor 's' go from 0 to 2147483647, so to_int8 could change them: "
        "calibrate it with `tritier ranges`, or choose a wider codec",
    )


def test_integers_that_the_graph_does_not_bound(tmp_path: Path) -> None:
    model = load(tmp_path, "g (int64[2] u) => (int64[2] v) { [a] h = Neg(u) [b] v = Neg(h) }")

    def coded(codecs: Codecs, ranges: Mapping[str, tuple[float, float]]) -> Codecs:
        found = Ranges(model_sha256=model.sha256, method="minmax", samples=1, ranges=dict(ranges))
        assignment = Assignment(layers={"a": "a", "b": "b"}, wire_codecs=codecs, wire_codec="fp16")
        return codecs_of(plan_from_assignment(model, assignment, spec("ab"), ranges=found))

    limits = {"h": (-300.0, 5.0), "v": (0.0, 255.0)}
    assert coded({"h": "to_int16", "v": "to_uint8"}, limits) == {"h": "to_int16", "v": "to_uint8"}
    assert coded({"h": "as_is"}, limits) == {}  # without a request only what is proven
    with pytest.raises(InputError, match=r"'h' go from -300 to 5, so to_int8 could change"):
        coded({"h": "to_int8"}, limits)
    with pytest.raises(InputError, match="the values of tensor 'v' are not known, so to_int32"):
        coded({"v": "to_int32"}, {})


def test_layers_by_name_and_pattern_in_the_model_s_order(case: Case) -> None:
    assert case.coded(["neg", "m*", "relu"]).quantized_layers == ("relu", "mul", "neg")


# -- messages -------------------------------------------------------------------------------------


def test_unknown_layers_are_all_named_with_a_suggestion(case: Case) -> None:
    assert case.faults(["mull", "conv*", "relu"]) == (
        "quantized_layers: 'mull' is no layer and matches none (did you mean 'mul'?)",
        "quantized_layers: 'conv*' is no layer and matches none",
    )


def test_patterns_that_match_nothing_that_crosses(case: Case) -> None:
    text = "wire_codecs: no tensor that crosses a link is called or matches"
    assert case.faults(codecs={"w": "fp16", "q*": "fp16", "h": "fp16"}) == (
        f"{text} 'w'; those are h, k, s, i",
        f"{text} 'q*'; those are h, k, s, i",
    )


def test_codecs_that_do_not_suit(case: Case) -> None:
    assert case.faults(codecs={"h": "to_int8"}) == (
        "tensor 'h' is float32; its codec may be as_is, fp16, int8, uint8, not to_int8",
    )
    assert case.faults(codecs={"s": "fp16"}) == (
        "tensor 's' is int64; its codec may be as_is, to_uint8, to_int8, to_int16, to_int32, "
        "not fp16",
    )


def test_all_missing_ranges_are_named(case: Case) -> None:
    none = case.ranges.model_copy(update={"ranges": {}})
    assert case.faults(default="int8", ranges=none) == tuple(
        f"tensor '{name}' is to cross in 8 bits and has no range: calibrate it with "
        "`tritier ranges` and pass the file with --ranges"
        for name in ("h", "k")
    )
    assert case.faults(["mul"], ranges=none) == (
        "2 tensors of quantized layers have no range, among them 'h', 'k': calibrate them with "
        "`tritier ranges` and pass the file with --ranges",
    )


def test_ranges_of_another_model(case: Case) -> None:
    other = case.ranges.model_copy(update={"model_sha256": "f" * 64})
    assert case.faults(["mul"], ranges=other) == (
        f"the ranges are of a model with sha256 ffffffffffff..., the plan is for "
        f"{case.model.sha256[:12]}...: calibrate this model with `tritier ranges`",
    )


# -- the document ---------------------------------------------------------------------------------

CHAIN = ["b: t0 -> t1", "c: t1 -> t9"]
Change = Callable[[dict[str, Any]], None]


def chain(*changes: Change) -> dict[str, Any]:
    """Plain data of a plan with wires t0 a>b, t1 b>c, t9 c>a, after some changes."""
    data = plan_data(CHAIN)
    for change in changes:
        change(data)
    return data


def codec(index: int, name: str) -> Change:
    return lambda data: data["wires"][index].update(codec=name)


def put(key: str, value: Any) -> Change:
    return lambda data: data.__setitem__(key, value)


def test_all_faults_of_codecs_ranges_and_layers_are_reported_together() -> None:
    data = chain(
        codec(0, "int8"),
        codec(1, "to_int8"),
        codec(2, "uint8"),
        put("ranges", {"n9": [1.0, -1.0]}),
        put("quantized_layers", ["l0", "l0", "l7"]),
    )
    with pytest.raises(InputError) as caught:
        Plan.from_data(data)
    assert set(caught.value.faults) == {
        "wires: 't0' from a to b: codec int8 needs the range of 'n0' in `ranges`",
        "wires: 't1' from b to c: codec to_int8 does not suit float32; allowed are as_is, fp16, "
        "int8, uint8",
        "ranges: 'n9' goes from 1.0 to -1.0; the least value comes first",
        "quantized_layers: 'l0' stands 2 times; give it once",
        "quantized_layers: 'l7' is in no component",
    }


@pytest.mark.parametrize(
    "change",
    [
        codec(0, "fp8"),
        codec(0, ""),
        put("ranges", {"n0": [1.0]}),
        put("ranges", {"n0": "wide"}),
        put("ranges", {"n0": [float("nan"), 1.0]}),
        put("ranges", {"n0": [0.0, float("inf")]}),
        put("quantized_layers", "l0"),
        lambda data: data["servers"][0].update(quantization={"activation_type": "int4"}),
    ],
)
def test_fields_of_a_wrong_shape_are_told_and_not_raised(change: Change) -> None:
    with pytest.raises(InputError):
        Plan.from_data(chain(change))


ALL = (
    codec(0, "int8"),
    codec(1, "fp16"),
    put("ranges", {"n0": [-1.5, 2.0]}),
    put("quantized_layers", ["l0"]),
    lambda data: data["servers"][1].update(quantization={"activation_type": "uint8"}),
)


def test_a_coded_plan_comes_back_from_its_json() -> None:
    plan = Plan.from_data(chain(*ALL))
    assert Plan.from_data(json.loads(plan.to_json())) == plan
    assert not plan.is_exact


def test_the_id_of_a_plan_without_codecs_has_not_changed() -> None:
    # As it was before plans had codecs: what is already deployed keeps its names.
    assert "codec" not in plan_data(CHAIN)["wires"][0]
    spelt_out = chain(codec(0, "as_is"), put("quantized_layers", []), put("ranges", None))
    assert Plan.from_data(spelt_out).id == Plan.from_data(chain()).id


def test_codecs_ranges_and_settings_change_the_id() -> None:
    found = {Plan.from_data(chain(*ALL[:count])).id for count in (0, 3, 4, 5)}
    found.add(Plan.from_data(chain(codec(1, "fp16"))).id)
    found.add(Plan.from_data(chain(*ALL, put("ranges", {"n0": [-1.5, 2.5]}))).id)
    assert len(found) == 6


@pytest.mark.parametrize(
    ("dtype", "shape", "codec_", "expected"),
    [
        ("float32", [3, 4], "as_is", 48),
        ("float32", [3, 4], "fp16", 24),
        ("float32", [3, 4], "int8", 12),
        ("float64", [3, 4], "uint8", 12),
        ("float16", [3, 4], "as_is", 24),
        ("int64", [3, 4], "to_int16", 24),
        ("int64", [3, 4], "to_int32", 48),
        ("bool", [3, 4], "as_is", 12),
        ("float32", ["N", 4], "int8", 4),  # a batch of 1
        ("float32", ["N"], "fp16", 2),
        ("float32", [2, "N"], "int8", None),
        ("float32", ["?", "N"], "int8", None),
        ("float32", [], "fp16", 2),
        ("float32", [0, 4], "fp16", 0),
    ],
)
def test_bytes_of_a_wire(
    dtype: str, shape: list[int | str], codec_: Codec, expected: int | None
) -> None:
    data = chain(codec(0, codec_), put("ranges", {"n0": [0.0, 1.0]}))
    data["tensors"][0] |= {"dtype": dtype, "shape": shape}
    plan = Plan.from_data(data)
    assert plan.wire_bytes(plan.wires[0]) == expected


# -- manifest and verification --------------------------------------------------------------------


def written(case: Case, plan: Plan, folder: Path, changed: Mapping[str, bytes]) -> Repositories:
    """Generated repositories on disk, some files replaced and the manifest made to agree."""
    files, _ = generate(plan, case.model, GenerateOptions(max_batch_size=0))
    files |= changed
    manifest = json.loads(files["manifest.json"])
    for row in manifest["files"]:
        row["sha256"] = sha256_bytes(files[row["path"]])
    files["manifest.json"] = json.dumps(manifest).encode()
    write_files(files, folder, force=True)
    return Repositories.open(folder)


def test_the_manifest_tells_what_crosses(case: Case, tmp_path: Path) -> None:
    plan = case.coded(["mul"], "fp16", {"k": "int8"})
    manifest = written(case, plan, tmp_path / "out", {}).manifest
    rows = {w.name: (w.source, w.target, w.codec, w.dtype, w.bytes) for w in manifest.wires}
    assert rows == {
        "h": ("a", "b", "fp16", "float16", 8),
        "k": ("b", "a", "int8", "int8", 4),
        "s": ("b", "a", "to_int32", "int32", 8),
        "i": ("b", "a", "to_uint8", "uint8", 1),
    }
    # The name table is that of the model, without tensors of codecs.
    assert {t.id for t in manifest.tensors} == {t.id for t in plan.tensors}


def test_the_manifest_of_a_plan_without_codecs_has_its_wires_too(
    case: Case, tmp_path: Path
) -> None:
    manifest = written(case, case.plan, tmp_path / "out", {}).manifest
    assert {w.name: (w.codec, w.bytes) for w in manifest.wires} == {
        "h": ("as_is", 16),
        "k": ("as_is", 16),
        "s": ("as_is", 16),
        "i": ("as_is", 8),
    }


def inputs_of(plan: Plan) -> list[Arrays]:
    """Inputs within the ranges, and random ones."""
    return [INPUTS, *gather_inputs(plan, 2, 0, (), {"N": 2})]


def test_a_quantized_plan_is_verified_and_its_noise_told(case: Case, tmp_path: Path) -> None:
    plan = case.coded(["mul"])
    repositories = written(case, plan, tmp_path / "out", {})
    for tolerance in (EXACT, *repositories.manifest.tolerances):
        verdict = verify_chained(repositories, case.model, inputs_of(plan), tolerance)
        assert verdict.ok, verdict
        noise = {row.output: row for row in verdict.noise}
        assert noise.keys() == {"y", "v", "z"}
        assert 0 < noise["y"].max_abs < 3
        assert noise["y"].samples == 3
        # Sizes and indices cross as they are.
        assert (noise["v"].max_abs, noise["z"].max_abs) == (0, 0)


def test_an_exact_plan_has_no_noise(case: Case, tmp_path: Path) -> None:
    repositories = written(case, case.plan, tmp_path / "out", {})
    verdict = verify_chained(repositories, case.model, [INPUTS], EXACT)
    assert verdict.ok
    assert verdict.noise == ()


def damaged(data: bytes, constant: str, factor: float) -> bytes:
    """A sub-model in which a constant is another."""
    model = onnx.load_model_from_string(data)
    found = [t for t in model.graph.initializer if t.name == constant]
    assert len(found) == 1
    array = numpy_helper.to_array(found[0])
    changed = (array * factor).astype(array.dtype).reshape(array.shape)
    found[0].CopyFrom(numpy_helper.from_array(changed, constant))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("component", "constant"), [("c1", "h_scale"), ("c1", "w_scale"), ("c2", "k_scale")]
)
def test_a_damaged_scale_is_found(
    case: Case, tmp_path: Path, component: str, constant: str
) -> None:
    plan = case.coded(["mul"])
    files, _ = generate(plan, case.model, GenerateOptions(max_batch_size=0))
    path = next(p for p in files if p.endswith(f"__{component}/1/model.onnx"))
    wrong = {path: damaged(files[path], constant, 1.01)}
    repositories = written(case, plan, tmp_path / "out", wrong)
    verdict = verify_chained(repositories, case.model, [INPUTS], EXACT)
    assert [row.output for row in verdict.differences if not row.ok] == ["y"]


def test_noise_does_not_excuse_a_damaged_weight_at_any_level(case: Case, tmp_path: Path) -> None:
    plan = case.coded(["mul"])
    files, _ = generate(plan, case.model, GenerateOptions(max_batch_size=0))
    path = next(p for p in files if p.endswith("__c1/1/model.onnx"))
    wrong = {path: damaged(files[path], "w_scale", 1.5)}
    repositories = written(case, plan, tmp_path / "out", wrong)
    for tolerance in repositories.manifest.tolerances:
        assert not verify_chained(repositories, case.model, [INPUTS], tolerance).ok
