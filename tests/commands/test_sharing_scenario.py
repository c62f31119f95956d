"""The safe number of sharers of a scenario, what it costs, and the settings that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tritier.cli import main
from tritier.costs import Prices, starter_book
from tritier.costs.sharing import level, most_sharers, share
from tritier.costs.sharing_config import (
    config_map,
    device_plugin,
    instance_group,
    parse_fragment,
    server_flags,
    settings_of,
)
from tritier.costs.sharing_load import Arrivals, Station, Stream
from tritier.costs.sharing_simulate import default_effort, simulate
from tritier.costs.sharing_sources import Effort
from tritier.documents.sharing import SharingReport, SharingScenario
from tritier.errors import InputError

CAMERAS = Path(__file__).parents[2] / "examples" / "costs" / "camera_sharing.yaml"


def scenario(**changes: Any) -> SharingScenario:
    machine = {"machine": "m", "price_per_hour_usd": 1.0, "service": {"a": {"median_ms": 10.0}}}
    data = {
        "name": "drawn", "discipline": "fifo", "latency_limit_ms": 35.0,
        "models": [{"name": "a", "per_s": 10.0}], "machines": [machine],
    }  # fmt: skip
    return SharingScenario.from_data(data | changes)


def test_the_largest_number_that_keeps_the_limit_is_found() -> None:
    asked = scenario()
    found = most_sharers(asked, asked.machines[0])
    assert found.safe_sharers == 8
    levels = {row.sharers: row for row in found.levels}
    assert levels[8].p95_ms is not None
    assert levels[8].p95_ms <= 35.0 < (levels[9].judged_ms or 0.0)
    assert levels[8].method == "formula (periodic streams)"
    assert found.limited_by == levels[9].broken[0]
    for count in range(1, 9):
        assert not level(asked, asked.machines[0], count).broken
    assert "100% of the accelerator's time" in level(asked, asked.machines[0], 10).broken[0]


def test_formula_and_simulation_agree_on_a_scenario() -> None:
    exact = level(scenario(), scenario().machines[0], 7)
    service = {"a": {"samples_ms": [10.0, 10.0]}}
    machine = scenario().machines[0].model_dump(mode="json") | {"service": service}
    drawn = scenario(machines=[machine])
    simulated = level(drawn, drawn.machines[0], 7)
    assert simulated.method == "simulation"
    assert simulated.p95_ms == pytest.approx(exact.p95_ms, rel=0.03)
    assert simulated.mean_ms == pytest.approx(exact.mean_ms, rel=0.03)


def test_worst_phases_judge_the_last_in_the_queue() -> None:
    asked = scenario(phases="worst")
    assert level(asked, asked.machines[0], 3).p95_ms == pytest.approx(30.0)
    assert most_sharers(asked, asked.machines[0]).safe_sharers == 3


def test_memory_limits_sharers_whether_or_not_latency_would() -> None:
    machine = scenario().machines[0].model_dump(mode="json") | {"memory_mib": 1000.0}
    models = [{"name": "a", "per_s": 10.0, "memory_mib": 400.0}]
    asked = scenario(machines=[machine], models=models, discipline="turns")
    found = most_sharers(asked, asked.machines[0])
    assert found.safe_sharers == 2
    assert found.limited_by == "memory: 1200 MiB are above 1000 MiB"
    one = asked.model_copy(update={"copies": "one"})
    assert most_sharers(one, one.machines[0]).safe_sharers > 2


def test_what_is_predicted_is_what_is_written() -> None:
    """As many instances, and as much memory, as the settings have."""
    plain = scenario().machines[0].model_dump(mode="json") | {"kind": "KIND_CPU", "at_once": 4}
    models = [{"name": "a", "per_s": 1.0, "memory_mib": 100.0}]
    for discipline, copies, count in (
        ("fifo", "per_sharer", 4), ("fifo", "one", 4), ("turns", "per_sharer", 3),
        ("turns", "one", 1), ("sliced", "per_sharer", 1),
    ):  # fmt: skip
        asked = scenario(machines=[plain], models=models, discipline=discipline, copies=copies)
        machine = asked.machines[0]
        text = settings_of(asked, machine, 3)["a/instance_group.pbtxt"]
        assert parse_fragment(text).instance_group[0].count == count, (discipline, copies)
        memory = level(asked, machine, 3).memory_mib
        # Time slices are of processes, each with its own Triton.
        assert memory == 100.0 * (3 if discipline == "sliced" else count), (discipline, copies)


def test_one_model_of_all_sharers_is_what_takes_turns() -> None:
    """A single instance answers in order of arrival; the copies of sharers, in the order of the
    limiter's heap. Neither is a model per sharer."""
    service = {"a": {"median_ms": 10.0}}
    machine = {"machine": "m", "price_per_hour_usd": 1.0, "service": service}
    models = [{"name": "a", "arrivals": "closed"}]
    found = {}
    for copies in ("one", "per_sharer"):
        asked = scenario(machines=[machine], models=models, discipline="turns", copies=copies)
        row = level(asked, asked.machines[0], 8)
        found[copies] = (row.p50_ms, row.p99_ms)
    assert found["one"][0] == pytest.approx(80.0)
    assert found["one"][1] == pytest.approx(80.0)
    effort = Effort(runs=21, requests=600, each=12)
    items = [Stream(f"a#{n}", np.array([10.0]), Arrivals("closed", 0.0), source=n, model="a")
             for n in range(8)]  # fmt: skip
    station = Station(discipline="turns", model_instances=8)
    times = np.concatenate(simulate(items, station, effort))
    assert found["per_sharer"][1] == pytest.approx(float(np.percentile(times, 99)), rel=0.02)


def test_pauses_leave_time_on_the_accelerator() -> None:
    machine = scenario().machines[0].model_dump(mode="json")
    models = [{"name": "a", "arrivals": "closed", "pause_ms": 90.0}]
    asked = scenario(machines=[machine], models=models)
    assert level(asked, asked.machines[0], 1).utilisation == pytest.approx(0.1)
    assert level(asked, asked.machines[0], 5).utilisation == pytest.approx(0.5, rel=0.1)
    busy = scenario(machines=[machine], models=[{"name": "a", "arrivals": "closed"}])
    assert level(busy, busy.machines[0], 2).utilisation == pytest.approx(1.0)


def test_the_published_cameras_share_by_themselves() -> None:
    report = share(SharingScenario.load(CAMERAS), Prices(starter_book()))
    small, large = report.machines
    assert (small.safe_sharers, large.safe_sharers) == (7, 54)
    costs = {row.name: row for row in report.costs}
    alone = costs["aws-g4dn.xlarge: an accelerator per model"]
    assert f"{alone.usd_per_stream:.2f}" == "353.03"
    assert alone.latency_ms == pytest.approx(10.8)
    assert report.best == "aws-g4dn.8xlarge: 54 share"
    assert f"{costs[report.best].usd_per_stream:.2f}" == "27.81"
    row = next(x for x in large.levels if x.sharers == 54)
    assert row.mean_ms == pytest.approx(205.0, abs=1.0)
    assert SharingReport.from_data(json.loads(report.to_json())) == report


def test_settings_are_what_triton_and_the_device_plugin_read() -> None:
    config = parse_fragment(instance_group("KIND_CPU", 8, 2))
    (group,) = config.instance_group
    assert (group.count, group.rate_limiter.priority) == (8, 2)
    (resource,) = group.rate_limiter.resources
    assert (resource.name, resource.count) == ("turn", 1)
    assert (
        not parse_fragment(instance_group("KIND_GPU", 1, None))
        .instance_group[0]
        .HasField("rate_limiter")
    )
    assert server_flags({"turn": 1}) == [
        "--rate-limit=execution_count", "--rate-limit-resource=turn:1",
    ]  # fmt: skip
    plugin = yaml.safe_load(device_plugin(4))
    assert plugin["version"] == "v1"
    slicing = plugin["sharing"]["timeSlicing"]
    assert slicing["resources"] == [{"name": "nvidia.com/gpu", "replicas": 4}]
    inner = yaml.safe_load(config_map(4, "slices", "gpus"))
    assert yaml.safe_load(inner["data"]["any"]) == plugin
    with pytest.raises(InputError, match="at least 2 replicas"):
        device_plugin(1)
    with pytest.raises(InputError, match="KIND_TPU"):
        instance_group("KIND_TPU", 1, 1)
    turns = scenario(discipline="turns")
    files = settings_of(turns, turns.machines[0], 3)
    assert sorted(files) == ["a/instance_group.pbtxt", "tritonserver_options.txt"]
    assert parse_fragment(files["a/instance_group.pbtxt"]).instance_group[0].count == 3


def test_the_command_writes_report_and_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.json"
    file.write_text(scenario(discipline="turns").to_json())
    folder, report = tmp_path / "settings", tmp_path / "report.json"
    arguments = ["share", str(file), "--latency-ms", "25", "--sharers", "3", "-o", str(report),
                 "--settings", str(folder), "--json"]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(report.read_text())
    assert 3 in [row["sharers"] for row in shown["machines"][0]["levels"]]
    assert (folder / "a" / "instance_group.pbtxt").is_file()
    with pytest.raises(SystemExit) as ended:
        main(["share", str(file), "--latency-ms", "5"])
    assert ended.value.code == 5


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--machine", "m"], 2, "--settings"),
        (["--machine", "n", "--settings", "new"], 3, "is not in the scenario"),
        (["--settings", "full"], 3, "is not empty"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("scenario.json").write_text(scenario(discipline="turns").to_json())
    Path("full").mkdir()
    Path("full", "mine").touch()
    with pytest.raises(SystemExit) as ended:
        main(["share", "scenario.json", "-o", "report.json", *words])
    assert ended.value.code == code
    assert message in capsys.readouterr().err
    assert not Path("report.json").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"models": [{"name": "a"}]}, "needs per_s"),
        ({"models": [{"name": "a", "arrivals": "closed", "per_s": 1.0}]}, "have no per_s"),
        ({"models": [{"name": "b", "per_s": 1.0}]}, "has no service time of 'b'"),
        ({"machines": [{"machine": "m", "service": {"a": {}}}]}, "median_ms or samples_ms"),
        (
            {"machines": [{"machine": "m", "service": {"a": {"median_ms": 2.0, "p95_ms": 1.0}}}]},
            "is below median_ms",
        ),
        (
            {"models": [{"name": "a", "per_s": 1.0}, {"name": "b", "per_s": 1.0}]},
            "2 models have no common queue",
        ),
        ({"discipline": "sliced", "copies": "one"}, "each load the model"),
    ],
)
def test_bad_scenarios_are_refused(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        scenario(**change)


def test_unequal_rates_are_simulated_in_fewer_runs() -> None:
    fast = Stream("fast", np.array([0.1]), Arrivals("poisson", 1.0))
    slow = Stream("slow", np.array([1.0]), Arrivals("poisson", 2_000.0), source=1)
    alike = default_effort([fast, fast], Station())
    assert alike.runs == 128
    unequal = default_effort([fast, slow], Station())
    assert unequal.runs == 2_000_000 // int(24 * 2_000.0 * (1.0 + 1 / 2_000.0))
    slower = Stream("slow", np.array([1.0]), Arrivals("poisson", 1e6), source=1)
    assert default_effort([fast, slower], Station()).runs == 16
