"""Runs of the agent's worker: what is timed and counted, and what rests between them is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.agent import load_agent

(worker,) = load_agent("worker")
NS_PER_S = 10**9


class Host:
    """A clock, and a counter of joules that goes on all the time: 1 W at rest, 11 W in a run."""

    def __init__(self) -> None:
        self.now_s, self.joule = 0.0, 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.joule += seconds

    def run(self) -> None:
        self.now_s += 0.5
        self.joule += 11 * 0.5

    def counters(self) -> dict[str, list[float | None]]:
        return {"rapl package-0": [self.joule, None]}


@pytest.mark.parametrize("idle_s", [0, 2.0])
def test_what_rests_between_runs_counts_neither_as_time_nor_as_energy(
    idle_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host()
    clock: Any = SimpleNamespace(
        sleep=host.sleep, perf_counter_ns=lambda: round(host.now_s * NS_PER_S)
    )
    monkeypatch.setattr(worker, "time", clock)
    monkeypatch.setattr(worker.facts, "energy_counters", host.counters)
    runs_ns, energy_joule = worker._timed(host.run, 3, idle_s)
    assert runs_ns == [NS_PER_S // 2] * 3
    assert energy_joule == {"rapl package-0": pytest.approx(3 * 5.5)}
    assert host.now_s == pytest.approx(3 * (0.5 + idle_s))


def test_a_host_without_counters_has_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.facts, "energy_counters", dict)
    runs_ns, energy_joule = worker._timed(lambda: None, 2, 0.001)
    assert len(runs_ns) == 2
    assert energy_joule == {}
