"""Corrections, predictions and their parts, by hand."""

from __future__ import annotations

import pytest

from tritier.documents import (
    BorderTiming,
    Corrections,
    Duration,
    HostFacts,
    LayerTiming,
    MemoryFigures,
    PlanModel,
    Quantization,
    ServingTiming,
    TimingProfile,
    TimingSettings,
)
from tritier.errors import CheckFailed, InputError
from tritier.timing import (
    Border,
    correct,
    correct_profiles,
    duration,
    fit_serving,
    merged_summaries,
    predict_component_ms,
    times_when_quantized,
)
from tritier.workflow import Runs

MIB = 1 << 20


def test_layers_and_serving_add_up_to_the_whole_model() -> None:
    found = correct({"a": 2.0, "b": 6.0}, {}, whole_ms=11.0, mixed_ms=None, serving_ms=1.0)
    assert found.float_ms == {"a": 2.5, "b": 7.5}
    assert found.corrections == Corrections(float_scale=1.25)


def test_gains_add_up_to_what_the_mixed_model_saves() -> None:
    found = correct({"a": 4.0, "b": 6.0}, {"a": 2.0, "b": 5.0}, 10.0, 6.4, 0.0)
    gains = {name: found.float_ms[name] - found.int8_ms[name] for name in "ab"}
    assert gains == pytest.approx({"a": 2.4, "b": 1.2})
    assert found.corrections.gain_scale == pytest.approx(1.2)


def test_losses_are_scaled_as_gains_are() -> None:
    found = correct({"a": 4.0, "b": 6.0}, {"a": 5.0, "b": 8.0}, 10.0, 13.6, 0.0)
    assert found.int8_ms == pytest.approx({"a": 5.2, "b": 8.4})


def test_gains_and_losses_that_cancel_are_shifted_and_not_blown_up() -> None:
    """The factor of the published correction would be (10 - 9.8) / 0.01 = 20."""
    found = correct({"a": 4.0, "b": 6.0}, {"a": 3.0, "b": 6.99}, 10.0, 9.8, 0.0)
    assert found.corrections.gain_scale == 1.0
    assert found.corrections.gain_shift_ms == pytest.approx((0.2 - 0.01) / 2)
    total = sum(found.float_ms[x] - found.int8_ms[x] for x in "ab")
    assert total == pytest.approx(0.2)
    assert found.int8_ms["a"] == pytest.approx(4.0 - 1.0 - 0.095)


def test_times_that_can_not_be_scaled_are_refused() -> None:
    with pytest.raises(CheckFailed, match=r"take 2\.000 ms and should add up to -1\.000 ms"):
        correct({"a": 2.0}, {}, 1.0, None, 2.0)


def test_a_profile_without_kernels_of_layers_is_refused() -> None:
    with pytest.raises(CheckFailed, match="use --method layers"):
        correct({"a": 0.0}, {}, 1.0, None)


def test_profiles_of_two_models_are_scaled_each_by_itself() -> None:
    """The mixed model was profiled while the machine was twice as slow."""
    floats, mixed = {"a": 4.0, "b": 6.0}, {"a": 2 * 2.0, "b": 2 * 6.0}
    found = correct_profiles(floats, mixed, {}, ["a"], 11.0, 9.0, 1.0)
    assert found.float_ms == pytest.approx(floats)
    assert found.int8_ms == pytest.approx({"a": 2.0})
    assert found.corrections.float_scale == pytest.approx(1.0)
    assert found.corrections.gain_scale == pytest.approx(1.0)


def test_a_quantized_layer_answers_for_what_changes_around_it() -> None:
    neighbours = {"a": ["b"], "b": ["a", "c"], "c": ["b", "d"], "d": ["c", "e"], "e": ["d"]}
    floats = dict.fromkeys("abcde", 1.0)
    mixed = {"a": 0.2, "b": 1.5, "c": 1.0, "d": 1.25, "e": 9.0}
    # a is faster by 0.8, but b and d got slower; e is too far away to be its doing.
    found = times_when_quantized(floats, mixed, neighbours, ["a"])
    assert found == pytest.approx({"a": 1.0 - 0.8 + 0.5 + 0.25})


def test_the_nearest_quantized_layer_answers() -> None:
    neighbours = {"a": ["b"], "b": ["a", "c"], "c": ["b", "d"], "d": ["c"]}
    floats = dict.fromkeys("abcd", 1.0)
    mixed = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 1.0}
    assert times_when_quantized(floats, mixed, neighbours, ["a", "d"]) == pytest.approx(
        {"a": 2.0, "d": 4.0}
    )


def test_serving_is_read_off_models_that_do_nothing() -> None:
    found = fit_serving(
        [
            (Border(tensors, mib * MIB), 0.5 + 0.125 * tensors + 0.25 * mib)
            for tensors, mib in ((2, 0), (16, 0), (2, 2), (2, 8), (8, 4))
        ]
    )
    assert found.call_ms == pytest.approx(0.5)
    assert found.tensor_ms == pytest.approx(0.125)
    assert found.copy_ms_per_mib == pytest.approx(0.25)


def test_times_of_nothing_are_refused() -> None:
    with pytest.raises(CheckFailed, match="in no time"):
        fit_serving([(Border(2, 0), 0.0), (Border(2, MIB), 1.0)])


def test_serving_is_never_negative() -> None:
    found = fit_serving([(Border(2, 0), 1.0), (Border(16, 0), 0.9), (Border(2, MIB), 0.5)])
    assert min(found.call_ms, found.tensor_ms, found.copy_ms_per_mib) == 0.0


def test_durations() -> None:
    found = duration([1e6, 3e6, 8e6])
    assert (found.median_ms, found.mean_ms, found.n) == (3.0, 4.0, 3)
    assert found.std_ms == pytest.approx(2.94392)
    rounds = [{"median_ns": m, "mean_ns": m, "std_ns": 1.0, "n": 2} for m in (1.0, 2.0, 9.0)]
    assert merged_summaries(rounds) == {
        "median_ns": 2.0,
        "mean_ns": 4.0,
        "std_ns": pytest.approx((1 + 38 / 3) ** 0.5),
        "n": 6,
    }


def test_runs_are_spread_over_the_rounds() -> None:
    assert Runs(runs=30, rounds=4).of_rounds == [8, 8, 7, 7]
    assert Runs(runs=3, rounds=4).of_rounds == [1, 1, 1]


def profile(**changes: object) -> TimingProfile:
    """Three layers, of which b is faster and c slower quantized."""
    once = Duration(median_ms=1.0, mean_ms=1.0, std_ms=0.0, n=1)
    layers = [("a", 1.0, None), ("b", 4.0, 1.5), ("c", 2.0, 3.0)]
    found = TimingProfile(
        model=PlanModel(name="m", sha256="0" * 64),
        server="edge",
        host=HostFacts(
            host="h", cores=1, cpu_model="x", cpu_flags=(), memory_total_bytes=1,
            memory_available_bytes=1, python="3.11",
        ),
        measured_at="2026-01-01T00:00:00Z",
        settings=TimingSettings(
            method="profiler", execution_provider="cpu", threads=1, quantization=Quantization(),
            warmup=1, runs=1,
        ),
        layers=tuple(
            LayerTiming(name=name, float_ms=float_ms, int8_ms=int8_ms, measured_float=once)
            for name, float_ms, int8_ms in layers
        ),
        borders=(
            BorderTiming(tensor="ab", making_ms=0.25, reading_ms=0.5),
            BorderTiming(tensor="bc", making_ms=8.0, reading_ms=16.0),
        ),
        whole=once,
        serving=ServingTiming(call_ms=0.125, tensor_ms=0.0625, copy_ms_per_mib=2.0),
        corrections=Corrections(float_scale=1.0),
        memory=MemoryFigures(
            weight_bytes=1, measured_bytes=1, process_bytes=1, weight_factor=1, activation_factor=1
        ),
        whole_alone=once,
        profiling_s=1.0,
    )  # fmt: skip
    return found.model_copy(update=changes)


def test_a_component_takes_its_layers_its_borders_and_serving() -> None:
    found = predict_component_ms(profile(), {"b", "c"}, (), ["ab"], ["y"], Border(2, MIB))
    assert found == 4.0 + 2.0 + 0.5 + 0.125 + 2 * 0.0625 + 2.0


def test_a_quantized_layer_has_its_other_time() -> None:
    found = predict_component_ms(profile(), {"b", "c"}, {"b"}, ["ab"], ["y"], Border(0, 0))
    assert found == 1.5 + 2.0 + 0.5 + 0.125


def test_int8_is_offered_only_where_it_gains() -> None:
    """Rule R7."""
    assert profile().gaining_layers == ("b",)


def test_a_profile_reads_back_and_refuses_names_that_stand_twice() -> None:
    document = profile().model_dump(mode="json", by_alias=True, exclude_none=True)
    assert TimingProfile.from_data(document) == profile()
    document["layers"][1]["name"] = "a"
    with pytest.raises(InputError, match="layers: 'a' stands 2 times"):
        TimingProfile.from_data(document)
