"""What is read from what perf_analyzer left, in recorded runs of the real program."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tritier.bench.results import (
    composing_models,
    failure,
    late_because,
    printed_figures,
    read_requests,
    strip_profile,
    unstable_because,
)
from tritier.errors import ServerError

RECORDED = Path(__file__).resolve().parents[1] / "data" / "perf_analyzer"


def log(name: str) -> str:
    return (RECORDED / f"{name}.log").read_text()


def test_own_figures_of_the_times_are_those_that_it_prints() -> None:
    requests = read_requests(RECORDED / "rate.profile.json")
    assert len(requests.times_ns) == 100
    assert (requests.windows, requests.failures) == (3, 0)
    assert 100 / requests.duration_s == pytest.approx(16.6582, rel=1e-3)
    latencies = np.array(requests.latencies_ms)
    assert np.quantile(latencies, 0.5) == pytest.approx(5.163, rel=0.05)
    assert np.quantile(latencies, 0.95) == pytest.approx(9.873, rel=0.05)
    assert latencies.mean() == pytest.approx(5.729, rel=0.02)


def test_tensors_are_left_out_and_times_are_not(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    shutil.copy(RECORDED / "rate.profile.json", path)
    before = read_requests(path)
    strip_profile(path)
    assert read_requests(path) == before
    assert "request_inputs" not in path.read_text()
    assert "response_outputs" not in path.read_text()


def test_failed_requests_and_earlier_windows_do_not_count(tmp_path: Path) -> None:
    second = 1_000_000_000
    rows = [
        {"timestamp": second * k + 1, "response_timestamps": [second * k + second // 2]}
        for k in range(5)
    ]
    rows.append({"timestamp": 3 * second + 5, "response_timestamps": []})
    rows.append(
        {"timestamp": 3 * second, "response_timestamps": [3 * second + 9], "success": False}
    )
    experiment = {"requests": rows, "window_boundaries": [k * second for k in range(6)]}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"experiments": [experiment]}))
    found = read_requests(path)
    assert (len(found.times_ns), found.failures, found.windows) == (3, 2, 3)
    assert found.duration_s == 3


@pytest.mark.parametrize(
    "text",
    ["", "{}", '{"experiments": []}', '{"experiments": [{"requests": [{}]}]}',
     '{"experiments": [{"requests": [], "window_boundaries": [1, 2]}]}'],
)  # fmt: skip
def test_a_damaged_export_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(ServerError, match=r"profile\.json"):
        read_requests(path)


def test_the_steps_of_an_ensemble_are_read() -> None:
    steps = {step.model: step for step in composing_models(log("stable"))}
    assert list(steps) == [
        "small__360cf6ff__c0",
        "small__360cf6ff__c1__call",
        "small__360cf6ff__c2",
    ]
    call = steps["small__360cf6ff__c1__call"]
    assert (call.requests, call.executions) == (1040, 1040)
    assert (call.queue_ms, call.compute_input_ms) == (0.135, 0.031)
    assert (call.compute_infer_ms, call.compute_output_ms) == (0.83, 0.017)


def test_a_model_without_steps_has_none() -> None:
    whole, _, _ = log("stable").partition("Composing models")
    assert composing_models(whole) == ()


def test_an_unstable_run_says_how_far_its_windows_are_apart() -> None:
    reason = unstable_because(log("unstable"), 10)
    # Of 218.3, 196.1 and 237.7 inferences per second, and 6050, 7640 and 5183 microseconds.
    assert reason == (
        "after 4 windows the last three differ by 21 % in inferences per second and 47 % in "
        "latency; 10 % are allowed"
    )
    assert "only 0 of 3 windows" in unstable_because("", 10)


def test_an_unstable_run_has_no_figures() -> None:
    with pytest.raises(ServerError, match=r"no figures.*Failed to obtain stable measurement"):
        printed_figures(log("unstable"))


def test_printed_figures_are_read() -> None:
    found = printed_figures(log("mean"))
    assert (found.requests, found.infer_per_s) == (55, 6.0975)
    figures = found.figures
    assert (figures.mean_ms, figures.std_ms) == (496.426, 21.26)
    assert (figures.p50_ms, figures.p90_ms) == (493.802, 518.823)
    assert (figures.p95_ms, figures.p99_ms) == (524.154, 553.981)
    assert figures.high_ms - figures.mean_ms == pytest.approx(1.96 * 21.26 / 55**0.5)
    assert figures.mean_ms - figures.low_ms == pytest.approx(1.96 * 21.26 / 55**0.5)


def test_numbers_are_read_as_cpp_prints_them() -> None:
    large = log("mean").replace("Throughput: 6.0975 infer", "Throughput: 1e+06 infer")
    assert printed_figures(large).infer_per_s == 1e6
    three = "  Pass [1] throughput: 1e+06 infer/sec. p95 latency: 10 usec\n" * 3
    assert "after 3 windows the last three differ by 0 %" in unstable_because(three, 10)


@pytest.mark.parametrize("count", ["Throughput: 0 infer", "Request count: 0\n"])
def test_a_run_without_answers_has_no_figures(count: str) -> None:
    name = count.partition(":")[0]
    line = next(line for line in log("mean").splitlines() if f"    {name}:" in line)
    ending = "/sec" if "Through" in count else ""
    none = log("mean").replace(line + "\n", f"    {count.strip()}{ending}\n", 1)
    with pytest.raises(ServerError, match="counted no answered request"):
        printed_figures(none)


def test_requests_that_were_sent_late_are_told() -> None:
    assert late_because(log("rate")) is None
    for delayed, told in ((1, None), (2, "sent 2% of the requests later than they were due")):
        line = f"    Request count: 100\n    Delayed Request Count: {delayed}\n"
        text = log("rate").replace("    Request count: 100\n", line)
        assert (told or "") in (late_because(text) or "")
        assert (late_because(text) is None) == (told is None)


def test_a_failed_run_is_told_by_its_error() -> None:
    assert "unknown model: 'nix'" in failure(log("unknown_model"))
    assert failure("") == "it printed nothing"
