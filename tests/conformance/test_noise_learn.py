"""Learning the noise of a small model: what is measured, fitted, stored and taken up again."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.models import load
from tests.helpers.noise import (
    CONVS,
    NETWORK,
    PAIR,
    THREE,
    WEIGHTS,
    arrays,
    request_for,
    write_inputs,
)
from tritier.calibration import Arrays, FileInputs, calibrate
from tritier.documents import MeasuredSubset, NoiseModel, Quantization, Ranges
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.graph import build_layer_graph
from tritier.noise import Candidate, Executor, built_in, load_metric
from tritier.noise.sessions import open_session
from tritier.workflow import NoiseFit, NoiseRequest, learn_noise, measurer_of, settle_pick
from tritier.workflow.noise_fit import fit_outputs
from tritier.workflow.noise_spread import Where

HEAD = "g (float[N,3,H,W] x) => "
BODY = "[c1] a = Conv(x, w1) [r1] b = Relu(a) [c2] c = Conv(b, w2) [c3] y = Conv(c, w3)"
BODY_CONVS = ("c1", "c2", "c3")
# An output of integers and one of truth values.
CLASSES = f"""
    {HEAD} (float[N,3,H,W] y, int64[N,1,H,W] k, bool[N,3,H,W] t)
      <{WEIGHTS}, float half = {{0.5}}> {{
      {BODY} [best] k = ArgMax<axis = 1>(y) [is] t = Greater(y, half)
    }}
"""
COLUMNS = f"""
    {HEAD} (float[N,3,H,W] y, float[M] z)
      <{WEIGHTS}, int64[1] flat = {{-1}}, float least = {{0.2}}> {{
      {BODY} [f] v = Reshape(y, flat) [g] p = Greater(v, least) [k] z = Compress(v, p)
    }}
"""
DEAD = f"""
    {HEAD} (float[N,3,H,W] y)
      <{WEIGHTS}, float tiny = {{1e-9}}, float[1,3,1,1] bias = {{1, 5, 9}}> {{
      [c1] a = Conv(x, w1) [m] b = Mul(a, tiny) [c2] c = Conv(b, w2) [add] y = Add(c, bias)
    }}
"""


class Stop:
    """A report that ends the run at a step, as Ctrl-C does; keeps what it was told."""

    def __init__(self, at: str = "") -> None:
        self.at = at
        self.steps: list[str] = []

    def __call__(self, step: str) -> None:
        self.steps.append(step)
        if self.at and self.at in step:
            raise KeyboardInterrupt

    @property
    def measured(self) -> list[str]:
        """What was measured, in inputs: nothing that came from the store."""
        return [step for step in self.steps if step.endswith("inputs")]


def without_times(model: NoiseModel) -> NoiseModel:
    return model.model_copy(update={"measured_at": "", "elapsed_s": 0.0})


def noise_by_hand(request: NoiseRequest, layers: Sequence[str], count: int) -> float:
    """Mean |y - y'| over the first inputs, from two whole models."""
    graph = build_layer_graph(request.model.proto)
    executor = Executor(request.model, graph, request.layers, request.ranges, request.settings)
    mask = sum(1 << request.layers.index(name) for name in layers)
    sessions = [open_session(executor.quantized_model(x), request.kernels) for x in (0, mask)]
    found = []
    for feed, _ in zip(request.inputs, range(count), strict=False):
        before, after = (session.run(["y"], feed)[0] for session in sessions)
        found.append(float(np.abs(before - after).mean(dtype=np.float64)))
    return float(np.mean(found))


def measured(model: NoiseModel) -> dict[tuple[str, ...], float]:
    return {item.layers: item.noise["y"] for item in model.measured}


# What is measured.


def test_measured_noise_is_that_of_the_quantized_model(tmp_path: Path) -> None:
    request = request_for(tmp_path, layers=THREE)
    model = learn_noise(request)
    assert len(model.measured) == 2**3 - 1
    for item in model.measured:
        assert item.noise == {"y": pytest.approx(noise_by_hand(request, item.layers, 2))}
        assert item.inputs == 2
    (output,) = model.outputs
    assert output.predict(["c2"]) == pytest.approx(measured(model)["c2",])
    assert model.self_check is not None
    assert model.self_check.max_abs_diff == 0.0
    assert (model.layers, model.excluded) == (THREE, ())
    assert [item.sha256 for item in model.inputs] == [sha256_file(p) for p in request.inputs.paths]
    assert NoiseModel.from_data(model.model_dump(mode="json", exclude_none=True)) == model


def test_fitted_subsets_on_few_inputs_are_scaled_to_all(tmp_path: Path) -> None:
    """By the noise of all layers there and here; all layers and verification are on all inputs."""
    request = request_for(tmp_path, layers=THREE, count=3, shape_inputs=1)
    model = learn_noise(request)
    found = measured(model)
    scale = noise_by_hand(request, THREE, 3) / noise_by_hand(request, THREE, 1)
    assert abs(scale - 1) > 0.001
    for item in model.measured:
        if item.layers == THREE or item.use == "verification":
            expected, count = noise_by_hand(request, item.layers, 3), 3
        else:
            expected, count = scale * noise_by_hand(request, item.layers, 1), 1
        assert found[item.layers] == pytest.approx(expected)
        assert item.inputs == count
    assert {item.use for item in model.measured} == {"design", "verification"}


def test_one_layer_and_two_inputs(tmp_path: Path) -> None:
    request = request_for(tmp_path, layers=("c2",))
    model = learn_noise(request)
    (only,) = model.measured
    assert only.noise["y"] == pytest.approx(noise_by_hand(request, ["c2"], 2))
    assert (model.outputs[0].margin, model.outputs[0].held_out) == (1.0, None)
    assert model.outputs[0].predict(["c2"]) == pytest.approx(only.noise["y"])


def test_inputs_of_different_shapes(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    paths = [write_inputs(tmp_path / f"{size}", 1, first=size, size=size)[0] for size in (4, 6, 9)]
    inputs = FileInputs.of(request.model, paths)
    model = learn_noise(dataclasses.replace(request, inputs=inputs))
    signal = model.outputs[0].signal
    assert signal is not None
    assert signal.variation is not None  # of what all sizes have in common
    assert signal.variation > 0.1
    by_hand = noise_by_hand(dataclasses.replace(request, inputs=inputs), PAIR, 3)
    assert measured(model)[PAIR] == pytest.approx(by_hand)


def test_integers_and_truth_values_as_outputs(tmp_path: Path) -> None:
    model = learn_noise(request_for(tmp_path, CLASSES, BODY_CONVS))
    assert [item.output for item in model.outputs] == ["y", "k", "t"]
    assert all(0 <= item.noise["t"] <= 1 for item in model.measured)
    assert all((item.noise["k"] * 36 * 2) % 1 < 1e-9 for item in model.measured)  # whole changes


def test_chosen_outputs(tmp_path: Path) -> None:
    """In the model's order."""
    request = request_for(tmp_path, CLASSES, BODY_CONVS, outputs=("t", "y"))
    request = dataclasses.replace(request, layers=("c1",))
    model = learn_noise(request)
    assert [item.output for item in model.outputs] == ["y", "t"]
    with pytest.raises(InputError, match=r"'z' is no output of the model; it has y, k, t"):
        learn_noise(dataclasses.replace(request, outputs=("z",)))


def test_an_output_whose_shape_changes(tmp_path: Path) -> None:
    inputs = request_for(tmp_path, COLUMNS, BODY_CONVS[:2], count=20, fit=NoiseFit(exhaustive=True))
    with pytest.raises(InputError, match=r"'z' has the shape \[\d+\] with .*--model-output"):
        learn_noise(inputs)
    assert learn_noise(dataclasses.replace(inputs, outputs=("y",))).outputs[0].output == "y"
    own = tmp_path / "own.py"
    own.write_text("def size(a, b, n):\n    return float(abs(a['z'].size - b['z'].size))\n")
    found = learn_noise(dataclasses.replace(inputs, metric=load_metric(f"{own}:size")))
    assert [item.output for item in found.outputs] == ["size"]
    assert found.outputs[0].signal is None
    assert any(item.noise["size"] > 0 for item in found.measured)


def test_an_output_in_steps_that_can_t_be_predicted(tmp_path: Path) -> None:
    """Nothing that was fitted changes it, other choices do."""
    model = learn_noise(request_for(tmp_path, layers=THREE, fit=NoiseFit(verification=0)))
    noise = [
        *(item.model_copy(update={"noise": {"k": 0.0}}) for item in model.measured),
        *(
            MeasuredSubset(layers=layers, use="verification", noise={"k": 1.0}, inputs=2)
            for layers in (("c1", "c4"), ("c2", "c4"))
        ),
    ]
    (output,) = fit_outputs(model.settings, 1, THREE, noise, {})
    assert output.margin is None
    with pytest.raises(InputError, match="no margin makes predictions of 'k' safe"):
        output.budget(1.0)


# What is refused.


def test_a_dead_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"hardly change with the input \('y' by .*tritier rescale"
    ):
        learn_noise(request_for(tmp_path, DEAD, ("c1", "c2")))


def test_inputs_of_the_calibration_are_refused_under_any_name(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    copied = tmp_path / "another_name.npz"
    copied.write_bytes((tmp_path / "calibration" / "x51.npz").read_bytes())
    shared = FileInputs.of(request.model, [*request.inputs.paths, copied])
    with pytest.raises(
        InputError, match=r"calibrated on 1 of the inputs, among them 'another_name"
    ):
        learn_noise(dataclasses.replace(request, inputs=shared))
    digests = {item.sha256 for item in request.ranges.inputs}
    assert digests == {sha256_file(path) for path in (tmp_path / "calibration").iterdir()}
    assert learn_noise(request).calibration == request.ranges.inputs


def test_what_can_t_be_learned(tmp_path: Path) -> None:
    request = request_for(tmp_path)

    def refused(text: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=text):
            learn_noise(dataclasses.replace(request, **changes))

    one = FileInputs.of(request.model, request.inputs.paths[:1])
    refused("1 inputs: noise is measured on at least two", inputs=one)
    refused("no layers to learn the noise of", layers=())
    other = request.ranges.model_copy(update={"model_sha256": "0" * 64})
    refused(r"the ranges are for another model \(000000000000\.\.\.\)", ranges=other)
    few = request.ranges.model_copy(update={"ranges": {"x": (-1.0, 1.0)}})
    refused("have no range, among them", ranges=few)
    many = tuple(f"c{i}" for i in range(15))
    refused("15 layers have 32,768 subsets", layers=many, fit=NoiseFit(exhaustive=True))


def test_nothing_is_left_without_sensitive_layers(tmp_path: Path) -> None:
    text = f"""
        {HEAD} (float[N,6,H,W] y) <{WEIGHTS}, float big = {{640}}> {{
          [c1] a = Conv(x, w1) [s] s = Sigmoid(a) [b] b = Mul(a, big)
          [join] y = Concat<axis = 1>(b, s)
        }}
    """
    request = request_for(tmp_path, text, ("c1", "join"))
    model = learn_noise(request)
    assert (model.layers, [item.name for item in model.excluded]) == (("c1",), ["join"])
    kept = learn_noise(dataclasses.replace(request, keep_sensitive=True))
    assert (kept.layers, kept.excluded) == (("c1", "join"), ())
    with pytest.raises(InputError) as caught:
        learn_noise(dataclasses.replace(request, layers=("join",)))
    assert "no layer is left" in caught.value.faults[0]
    assert "--keep-sensitive" in caught.value.faults[0]
    assert caught.value.faults[1].startswith("'join': alone it makes 3 of 6 slices of 'y' constant")


# Fits and margins.


def test_fewer_verification_subsets_give_a_margin_all_the_same(tmp_path: Path) -> None:
    """The largest ratio of those that there are; of all, if all are measured."""
    request = request_for(tmp_path, layers=CONVS)
    some = learn_noise(dataclasses.replace(request, fit=NoiseFit(verification=4)))
    held = [x for x in some.measured if x.use == "verification"]
    ratios = [x.noise["y"] / some.outputs[0].predict(x.layers) for x in held]
    assert len(ratios) == 4
    assert some.outputs[0].margin == pytest.approx(max(1.0, *ratios))
    every = learn_noise(dataclasses.replace(request, fit=NoiseFit(exhaustive=True)))
    (output,) = every.outputs
    assert len(every.measured) == 15
    ratios = [x.noise["y"] / output.predict(x.layers) for x in every.measured]
    assert output.margin == pytest.approx(max(ratios))
    assert output.margin is not None
    assert output.margin > 1.0


def test_polynomial(tmp_path: Path) -> None:
    request = request_for(tmp_path, layers=THREE)
    fit = NoiseFit(kind="polynomial", degree=3, samples=7, verification=5)
    model = learn_noise(dataclasses.replace(request, fit=fit))
    (output,) = model.outputs
    assert (output.power, model.settings.degree, len(model.measured)) == (1, 3, 7)
    assert {len(term.layers) for term in output.terms} == {1, 2, 3}
    assert output.held_out is None  # no subset is left
    other = dataclasses.replace(request, fit=dataclasses.replace(fit, degree=1, samples=4))
    model = learn_noise(other)
    assert {len(term.layers) for term in model.outputs[0].terms} == {1}
    assert model.outputs[0].held_out is not None
    assert model.outputs[0].held_out.subsets == 3


# Stored results.


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    """To the same result as in one go, and by one job."""
    request = request_for(tmp_path, layers=THREE, count=4, where=Where(jobs=2))
    whole = learn_noise(dataclasses.replace(request, store=tmp_path / "other", where=Where()))
    with pytest.raises(KeyboardInterrupt):
        learn_noise(request, Stop(at="fitted subsets: 2 of 4 inputs"))
    again = Stop()
    resumed = learn_noise(request, again)
    assert again.measured[0] == "6 fitted subsets on 2 inputs"
    assert without_times(resumed) == without_times(whole)
    last = Stop()
    assert without_times(learn_noise(request, last)) == without_times(whole)
    assert last.measured == []


def test_fresh_measures_again(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    first, again = Stop(), Stop()
    learn_noise(request, first)
    learn_noise(dataclasses.replace(request, fresh=True), again)
    assert again.measured == first.measured == ["3 fitted subsets on 2 inputs"]


def test_stored_results_are_only_taken_for_the_same(tmp_path: Path) -> None:
    fit = NoiseFit(kind="polynomial", degree=1, samples=3, verification=0)
    base = request_for(tmp_path, layers=THREE, fit=fit, keep_sensitive=True)
    learn_noise(base)
    wide = {**base.ranges.ranges, "y": (-9.0, 9.0)}
    changes: list[dict[str, Any]] = [
        {"settings": Quantization(activation_type="uint8")},
        {"metric": built_in("max_abs")},
        {"layers": ("c1", "c2", "c3")},
        {"ranges": base.ranges.model_copy(update={"ranges": wide})},
        {"kernels": True},
        {"seed": 1},
    ]
    for change in changes:
        report = Stop()
        learn_noise(dataclasses.replace(base, **change), report)
        assert len(report.measured) == 1, change
        assert report.measured[0].endswith("fitted subsets on 2 inputs"), change
    for same in ({"fit": dataclasses.replace(fit, degree=2)}, {"where": Where(jobs=2)}):
        report = Stop()
        learn_noise(dataclasses.replace(base, **same), report)
        assert report.measured == [], same


def test_an_input_of_the_same_name_and_other_content_is_another(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    first = learn_noise(request)
    np.savez(tmp_path / "inputs" / "x1.npz", **arrays(77))
    report = Stop()
    second = learn_noise(request, report)
    assert report.measured[0] == "3 fitted subsets on 1 inputs"
    assert measured(second) != measured(first)


def test_scores_of_a_user_s_metric_are_the_same_from_the_store(tmp_path: Path) -> None:
    """Tuples become lists, numpy's numbers plain ones: before they are combined, not after."""
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\n"
        "def parts(a, b, n):\n"
        "    return (np.abs(a['y'] - b['y']).sum(), a['y'].size)\n"
        "parts.combine = lambda s: sum(x[0] for x in s) / sum(x[1] for x in s)\n"
    )
    request = request_for(tmp_path, metric=load_metric(f"{own}:parts"))
    first = learn_noise(request)
    assert without_times(learn_noise(request)) == without_times(first)
    by_hand = noise_by_hand(request, PAIR, 2)
    assert next(x for x in first.measured if x.layers == PAIR).noise == {
        "parts": pytest.approx(by_hand, rel=1e-5)
    }


@pytest.mark.parametrize("jobs", [1, 2])
def test_errors_of_a_user_s_metric_end_the_run_in_words(tmp_path: Path, jobs: int) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "def late(a, b, n):\n    if n == 1:\n        raise KeyError('label')\n    return 1.0\n"
        "def bad(a, b, n):\n    return float('nan')\n"
    )
    request = request_for(tmp_path, where=Where(jobs=jobs), metric=load_metric(f"{own}:late"))
    with pytest.raises(InputError, match=r"own\.py:late fails on input 1: KeyError: 'label'"):
        learn_noise(request)
    request = dataclasses.replace(request, metric=load_metric(f"{own}:bad"))
    with pytest.raises(InputError, match=r"own\.py:bad of 'bad' is nan on input \d with 1 layers"):
        learn_noise(request)


def test_ranges_of_arrays_name_no_inputs(tmp_path: Path) -> None:
    """Only files have hashes."""
    feeds: list[Arrays] = [arrays(1), arrays(2)]
    ranges: Ranges = calibrate(load(tmp_path, NETWORK), feeds)
    assert (ranges.inputs, ranges.samples) == ((), 2)


# A plan's pick.


def test_a_pick_is_measured_on_all_inputs_before_it_is_final(tmp_path: Path) -> None:
    """Design subsets are known from 2 of 6 inputs only; one of them that a plan picks is measured
    again, joins the noise model in their place, and counts."""
    request = request_for(tmp_path, layers=CONVS, count=6, shape_inputs=2)
    noise = learn_noise(request)
    measurer = measurer_of(noise, request)
    true = {mask: measurer.mean(mask) for mask in range(1, 16)}
    limit = sorted(item["y"] for item in true.values())[9] * 1.001
    worth = (5.0, 2.0, 1.0, 3.0)
    value = {m: sum(w for i, w in enumerate(worth) if m >> i & 1) for m in range(16)}
    asked: list[int] = []
    shares: set[float] = set()

    def pick(model: NoiseModel, share: float, refused: Collection[int]) -> Candidate | None:
        (output,) = model.outputs
        shares.add(share)
        for mask in sorted(value, key=lambda m: -value[m]):
            names = measurer.executor.names(mask)
            if mask not in refused and output.predict(names) <= limit * share:
                return Candidate(mask, value[mask])
        return None

    def measure(mask: int) -> dict[str, float]:
        asked.append(mask)
        return true[mask]

    done = settle_pick(noise, {"y": limit}, pick, measure, len(request.inputs))
    assert done.pick is not None
    held = noise.outputs[0].held_out
    assert held is not None
    assert shares == {1.0, 1 + max(0.02, held.mape)}  # as much as predictions are off
    best = max((m for m in true if true[m]["y"] <= limit), key=lambda m: value[m])
    assert value[done.pick.mask] == value[best]
    whole = {x.layers for x in noise.measured if not x.scaled}
    names = [measurer.executor.names(mask) for mask in asked]
    assert set(names).isdisjoint(whole)
    assert measurer.executor.names(done.pick.mask) in {*names, *whole}
    picks = {x.layers: x for x in done.model.measured if x.use == "pick"}
    assert set(picks) == set(names)
    assert all(item.inputs == 6 and not item.scaled for item in picks.values())
    layers = [item.layers for item in done.model.measured]
    assert len(layers) == len(set(layers))  # an older figure of the same choice is gone


def test_what_was_learned_otherwise_measures_no_pick(tmp_path: Path) -> None:
    request = request_for(tmp_path)
    noise = learn_noise(request)
    other = dataclasses.replace(request, settings=Quantization(per_channel=True))
    with pytest.raises(InputError, match=r"learned with the format .*: learn it again"):
        measurer_of(noise, other)
    with pytest.raises(InputError, match=r"noise limit of 'y' is 0.0: it must be above 0"):
        settle_pick(noise, {"y": 0.0}, lambda *_: None, lambda _: {}, 2)


def test_many_terms_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    layers = tuple(f"c{i}" for i in range(88))
    fit = NoiseFit(kind="polynomial", degree=3)
    with pytest.raises(InputError, match="degree 3 of 88 layers has 113652 terms"):
        learn_noise(request_for(tmp_path, layers=layers, fit=fit))


def test_scaled_figures_say_so(tmp_path: Path) -> None:
    noise = learn_noise(request_for(tmp_path, layers=THREE, count=4, shape_inputs=2))
    scaled = {item.layers for item in noise.measured if item.scaled}
    assert ("c1",) in scaled
    assert THREE not in scaled  # all layers are measured on all inputs
    every = learn_noise(
        request_for(tmp_path, layers=THREE, count=4, shape_inputs=2, fit=NoiseFit(exhaustive=True))
    )
    assert not any(item.scaled for item in every.measured)
