"""Sharers of one core: latencies that the queueing model predicts from a single sharer's service
times, beside those of a real Triton with its rate limiter (docs/sharing.md, section 6).

    python -m benchmarks.sharing_queue [-o FOLDER] [--rounds N] [--seconds S]

Servers keep to the last core, clients to the others. Every round measures all levels, in turn; a
run that was cut off goes on with the next round.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import Kept, environment, markdown, tell
from benchmarks.lab_runs import ended_by_sigterm
from benchmarks.sharing_server import Clients, Layout, Pinned, Sent, pinned_server
from tritier.costs.sharing_load import Arrivals, Floats, Station, Stream
from tritier.costs.sharing_simulate import simulate
from tritier.costs.sharing_sources import Effort

LEVELS = (1, 2, 4, 8)
CAMERAS = (2, 4, 8)
LOAD = 0.7
LIMIT_PERCENT = 15.0
# One model with 8 instances; or a model per sharer, other ones for each level: the rate limiter
# counts turns since a model was loaded, and who had fewer goes first until that is made up.
LAYOUTS = {"instances": Layout(1, 8), "models": Layout(sum(LEVELS), 1)}
_WARM_UP = 2
# If others took more of the servers' core, a level is measured again, at most so often.
_OTHERS = 0.05
_TRIES = 3


def models_of(layout: str, sharers: int) -> list[str]:
    """The Triton model of each sharer at a level."""
    names = LAYOUTS[layout].names
    if layout == "instances":
        return names * sharers
    first = sum(level for level in LEVELS if level < sharers)
    return names[first : first + sharers]


def latencies(sent: Sequence[Sequence[Sent]]) -> list[float]:
    """Of all sharers together, without the first and the last request of each: these meet fewer
    others."""
    return [item.latency_ms for items in sent for item in items[1:-1]]


class Bench:
    """The servers of all layouts, and what is measured on them."""

    def __init__(self, servers: Mapping[str, Pinned], seconds: float) -> None:
        self._servers, self._seconds = servers, seconds

    def warm_up(self) -> None:
        """The first requests of every instance are slow."""
        for layout, server in self._servers.items():
            for sharers in LEVELS:
                with Clients(server.url, models_of(layout, sharers)) as clients:
                    clients.closed(sharers, 0.0, _WARM_UP)

    def closed(self, layout: str, sharers: int) -> dict[str, Any]:
        """Requests one after the other."""
        with Clients(self._servers[layout].url, models_of(layout, sharers)) as clients:
            return self._watched(layout, lambda: clients.closed(sharers, self._seconds, 4))

    def _watched(self, layout: str, send: Callable[[], list[list[Sent]]]) -> dict[str, Any]:
        """Latencies, the server's processor time per request, and the share of its core that others
        took: of the try with the least of that, if it is too much."""
        server = self._servers[layout]
        found: list[dict[str, Any]] = []
        while not found or (found[-1]["others"] > _OTHERS and len(found) < _TRIES):
            own, core, started = server.cpu_s(), server.core_s(), time.perf_counter()
            sent = send()
            own, core = server.cpu_s() - own, server.core_s() - core
            others = (core - own) / (time.perf_counter() - started)
            busy_ms = 1000.0 * own / sum(map(len, sent))
            found.append({"latency_ms": latencies(sent), "busy_ms": busy_ms, "others": others})
        return min(found, key=lambda item: item["others"]) | {"tries": len(found)}

    def cameras(self, sharers: int, service_ms: float, seed: int) -> dict[str, Any]:
        """Frames at even distances with phases drawn at random, at a load of LOAD."""
        period_s = sharers * service_ms / LOAD / 1000.0
        phases = np.random.default_rng([seed, sharers]).random(sharers)
        count = max(4, round(self._seconds / period_s))
        starts_s = [float(x) * period_s for x in phases]
        with Clients(self._servers["instances"].url, models_of("instances", sharers)) as clients:
            found = self._watched(
                "instances", lambda: clients.periodic(sharers, period_s, starts_s, count)
            )
        return found | {"period_ms": 1000.0 * period_s, "phases": [float(x) for x in phases]}

    def round(self, number: int) -> dict[str, Any]:
        """All levels, each time in another order."""
        kinds = [("closed", layout, n) for layout in LAYOUTS for n in LEVELS]
        kinds += [("cameras", "instances", n) for n in CAMERAS]
        order = np.random.default_rng(number).permutation(len(kinds))
        found: dict[str, Any] = {}
        alone = self.closed("instances", 1)  # the cameras' period hangs on it
        found["closed instances 1"] = alone
        for index in order:
            kind, layout, sharers = kinds[int(index)]
            name = f"{kind} {layout} {sharers}"
            if kind == "cameras":
                found[name] = self.cameras(sharers, alone["busy_ms"], number)
            elif name not in found:
                found[name] = self.closed(layout, sharers)
        return found


def service_of(alone: Sequence[Mapping[str, Any]]) -> tuple[Floats, float]:
    """Service times and the time outside the core, from single-sharer measurements of all rounds.

    What a request holds the core for is, on average, the processor's time that it costs there; the
    rest of its latency is outside.
    """
    times = np.concatenate([np.array(x["latency_ms"]) for x in alone])
    busy = float(np.mean([x["busy_ms"] for x in alone]))
    outside = max(0.0, float(times.mean()) - busy)
    return np.maximum(times - outside, 0.1 * busy), outside


def predict_closed(layout: str, sharers: int, service: Floats, outside: float) -> Floats:
    """Latencies of all sharers."""
    one = layout == "instances"
    streams = [
        Stream(f"s{n}", service, Arrivals("closed", 0.0), outside, source=n,
               model="one" if one else None)
        for n in range(sharers)
    ]  # fmt: skip
    station = Station(discipline="turns", model_instances=LAYOUTS[layout].instances if one else 1)
    return np.concatenate(simulate(streams, station, Effort(runs=20, requests=1500, each=40)))


def predict_cameras(rounds: Sequence[Mapping[str, Any]], service: Floats, outside: float) -> Floats:
    """Latencies of all cameras over the phases of all rounds."""
    found = []
    for number, item in enumerate(rounds):
        streams = [
            Stream(f"s{n}", service, Arrivals("periodic", item["period_ms"], phase=phase), outside,
                   source=n, model="one")
            for n, phase in enumerate(item["phases"])
        ]  # fmt: skip
        station = Station(discipline="turns", model_instances=LAYOUTS["instances"].instances)
        effort = Effort(runs=20, requests=0, each=20, seed=number)
        found += simulate(streams, station, effort)
    return np.concatenate(found)


def summary(rounds: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Predicted and measured latencies of every level."""
    rows = []
    for name in rounds[0]:
        kind, layout, level = name.split()
        service, outside = service_of([item[f"closed {layout} 1"] for item in rounds])
        sharers = int(level)
        items = [item[name] for item in rounds]
        predicted = (
            predict_cameras(items, service, outside)
            if kind == "cameras"
            else predict_closed(layout, sharers, service, outside)
        )
        measured = np.concatenate([np.array(item["latency_ms"]) for item in items])
        rows.append(_row(kind, layout, sharers, predicted, measured, items))
    return sorted(rows, key=lambda row: (row["kind"], row["layout"], row["sharers"]))


def _row(
    kind: str, layout: str, sharers: int, predicted: Floats, measured: Floats, items: Sequence[Any]
) -> dict[str, Any]:
    by_round = [float(np.percentile(item["latency_ms"], 95)) for item in items]
    p95 = [float(np.percentile(x, 95)) for x in (predicted, measured)]
    return {
        "kind": kind,
        "layout": layout,
        "sharers": sharers,
        "n": int(measured.size),
        "rounds": len(items),
        "predicted_mean_ms": float(predicted.mean()),
        "measured_mean_ms": float(measured.mean()),
        "predicted_p95_ms": p95[0],
        "measured_p95_ms": p95[1],
        "measured_p95_low_ms": min(by_round),
        "measured_p95_high_ms": max(by_round),
        "others_percent": 100.0 * max(item["others"] for item in items),
        "error_percent": 100.0 * (p95[0] / p95[1] - 1.0),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The Markdown table."""
    columns = ["arrivals", "layout", "sharers", "n", "mean predicted", "measured",
               "p95 predicted", "measured", "(of a round)", "error of p95",
               "others on the core, at most"]  # fmt: skip
    cells = [
        (
            row["kind"], row["layout"], row["sharers"], row["n"],
            f"{row['predicted_mean_ms']:.1f}", f"{row['measured_mean_ms']:.1f}",
            f"{row['predicted_p95_ms']:.1f}", f"{row['measured_p95_ms']:.1f}",
            f"{row['measured_p95_low_ms']:.1f} to {row['measured_p95_high_ms']:.1f}",
            f"{row['error_percent']:+.1f} %",
            f"{row['others_percent']:.0f} %",
        )
        for row in rows
    ]  # fmt: skip
    return markdown(columns, cells, left=2)


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """p95 over sharers, predicted as lines and measured as points."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    groups = sorted({(row["kind"], row["layout"]) for row in rows})
    for (kind, layout), colour, mark in zip(
        groups, ("#0072B2", "#D55E00", "#009E73"), "osD", strict=False
    ):
        mine = [row for row in rows if (row["kind"], row["layout"]) == (kind, layout)]
        x = [row["sharers"] for row in mine]
        axes.plot(x, [row["predicted_p95_ms"] for row in mine], color=colour)
        axes.plot(x, [row["measured_p95_ms"] for row in mine], mark, color=colour,
                  label=f"{kind}, {layout}: measured; line: predicted")  # fmt: skip
    axes.set_xlabel("sharers of one core")
    axes.set_ylabel("p95 latency in ms")
    axes.set_ylim(bottom=0)
    axes.set_xticks(LEVELS)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def measure(kept: Kept, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """All rounds; those that were kept are not measured again."""
    found = [kept.get(f"round_{number}") for number in range(rounds)]
    if all(item is not None for item in found):
        return found
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("two cores are needed: one for the servers, one for the clients")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sharing_")))
        servers = {}
        for layout, what in LAYOUTS.items():
            tell(f"starting a server: {what.models} models, {what.instances} instances each")
            servers[layout] = stack.enter_context(pinned_server(folder / layout, what, cores[-1]))
        os.sched_setaffinity(0, cores[:-1])
        stack.callback(os.sched_setaffinity, 0, cores)
        bench = Bench(servers, seconds)
        bench.warm_up()
        for number in range(rounds):
            if found[number] is None:
                tell(f"round {number + 1} of {rounds}")
                found[number] = kept.put(f"round_{number}", bench.round(number))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, predict, write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("results/sharing_queue"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each level in each round")
    options = parser.parse_args(arguments)
    kept = Kept(options.output, {"seconds": options.seconds, "load": LOAD, "levels": LEVELS})
    with ended_by_sigterm():
        rounds = measure(kept, options.rounds, options.seconds)
    rows = summary(rounds)
    # The goal is for requests one after the other; cameras are shown besides.
    worst = max(abs(row["error_percent"]) for row in rows if row["kind"] == "closed")
    result = {"environment": environment(), "limit_percent": LIMIT_PERCENT,
              "worst_percent": worst, "rows": rows}  # fmt: skip
    kept.put("summary", result)
    kept.write("result.json", json.dumps(result, indent=1) + "\n")
    kept.write("table.md", table(rows))
    plot(rows, options.output / "sharing_queue.png")
    tell(f"largest error of a closed p95: {worst:.1f} % (the goal is {LIMIT_PERCENT:g} %)")
    tell(f"written to {options.output}")


if __name__ == "__main__":
    main()
