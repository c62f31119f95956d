"""The plan of the planner against every baseline, over uplinks and slow-downs of the device.

The lab has a device (the entry), an edge nearby (slow-down 2, 5 ms) and a cloud far away (slow-down
1, 55 ms); the device's uplink to both is 0.5 to 50 MB/s, its slow-down 1 to 16; edge and cloud send
20 and 100 MB/s. The model is the super-resolution network (1 x 224 x 224 to 1 x 672 x 672): its
input is small, its output large, its layers' tensors larger still. Plans may lose one grey level
(1/255) in the mean, in int8 layers and codecs of wires together.

In each cell: the planner's plan (least latency) and, if a baseline is predicted to be faster, that
baseline in its place (rule R8); and the baselines, all on each server with raw input, and the best
single cut to each server (the best of all cuts, or of the 12 that look best, each planned as a
whole), in two families:

  raw     as anyone would run them: float tensors cross, nothing is quantized
  coded   with the same int8 layers and codecs that the plan may use, within the same noise limit,
          chosen for each of them by the planner

What counts is the best baseline of both families. All that differs is measured in turn on one lab,
after a request to each that does not count; what takes twice as long as the best of its family in
the better of two rounds, or 30 % longer in the best of four, gets no more, unless it was predicted
to be the best of its family. Where the plan does the same as a baseline, both are one measurement
and their ratio is 1. What is sent is of a photograph that neither ranges nor noise were fitted to;
the answer of each variant is compared with the float model's.

Profiles and links are measured once, at 5 MB/s and without slow-down of the device; for the cells,
the bandwidth of its links and its times are multiplied by what is declared there. A slow-down only
sleeps after each run of a session: it slows down neither what copies and codes tensors, nor Triton,
and what sleeps leaves its core to others. Usage:

    python -m benchmarks.baseline_grid -o results/grid [--quick] [--model "text detection"]
        [--report FILE]

Finished cells in the folder are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.grid_cells import (
    CLEARLY_SLOWER,
    FAMILIES,
    SLOWDOWNS,
    UPLINKS_MB_S,
    Cell,
    cells,
    is_close,
    worth_measuring,
)
from benchmarks.grid_plans import Planning, Variant
from benchmarks.grid_report import describe, summary, verdicts_of, write_heat_map
from benchmarks.kept import Kept, environment, tell
from benchmarks.lab_runs import Request, Stage, in_turn, running, scratch_of
from benchmarks.prediction_plans import Maker
from benchmarks.record import record
from benchmarks.tiers import (
    QUANTIZATION,
    Store,
    Subject,
    scaled,
    super_resolution,
    tensors_between,
    text_detection,
)
from tritier.deployment.lab_links import set_link
from tritier.documents import NetworkState, ServersSpec, TimingProfile

_SUBJECTS = {"super-resolution": super_resolution, "text detection": text_detection}
# One grey level of 255, in the mean over pixels; of the detector's map of probabilities, 1 %.
_NOISE = {"super-resolution": 1 / 255, "text detection": 0.01}
_EXACT = 1e-4  # mean difference of what only computes in another order
_BACK_MIB_S = {"edge": 20e6 / 2**20, "cloud": 100e6 / 2**20}
_ONE_WAY_MS = {("device", "edge"): 5.0, ("device", "cloud"): 55.0, ("edge", "cloud"): 50.0}
_SPEED = {"edge": 2.0, "cloud": 1.0}
_FIRST_MB_S = 5.0


@dataclass(frozen=True)
class Amount:
    """How much is measured: cells, rounds of a cell (at least, and where something is close), the
    seconds after which no round is begun, runs of a profile, pictures."""

    uplinks: tuple[float, ...] = UPLINKS_MB_S
    slowdowns: tuple[float, ...] = SLOWDOWNS
    rounds: int = 11
    close_rounds: int = 25
    cell_s: float = 12.0
    runs: int = 30
    pictures: int = 8


QUICK = Amount((1.0, 10.0), (4.0,), rounds=6, close_rounds=6, cell_s=8.0, runs=6, pictures=3)


def main() -> int:
    """Measure and write the report; exit code 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("results/grid"))
    parser.add_argument("--quick", action="store_true", help="two cells, for a try")
    parser.add_argument("--model", choices=list(_SUBJECTS), default="super-resolution")
    parser.add_argument("--report", type=Path, help="Markdown file to fill")
    options = parser.parse_args()
    amount = QUICK if options.quick else Amount()
    kept = Kept(options.output, {**asdict(amount), "model": options.model})
    kept.once("environment", environment)
    with scratch_of(options.output) as scratch:
        item = _SUBJECTS[options.model](scratch, amount.pictures)
        grid = Grid(kept, item, amount, scratch)
        grid.prepare()
        for slowdown in amount.slowdowns:
            grid.measure(slowdown)
    measured = {cell: kept.get(cell.name) for cell in cells(amount.uplinks, amount.slowdowns)}
    text = summary(measured)
    kept.write("table.md", text)
    for family, found in verdicts_of(measured).items():
        title = f"{item.name}: plan against {describe(family)}"
        path = kept.folder / f"heat_map_{family}.png"
        write_heat_map(found, amount.uplinks, amount.slowdowns, title, path)
    rows = [{**asdict(cell), **data} for cell, data in measured.items()]
    kept.write_result({"environment": kept.get("environment"), "cells": rows})
    if options.report:
        pictures = {
            f"Plans against {describe(family)}": kept.folder / f"heat_map_{family}.png"
            for family in verdicts_of(measured)
        }
        record(options.report, text, pictures, kept.get("environment"))
    sys.stdout.write(text)
    return 0


def with_uplink(network: NetworkState, factor: float) -> NetworkState:
    """The device's links with so many times the bandwidth."""
    links = []
    for link in network.links:
        if link.source == "device":
            rate = link.bandwidth_mib_s
            ends = {k: None if v is None else v * factor for k, v in
                    (("value", rate.value), ("low", rate.low), ("high", rate.high))}  # fmt: skip
            link = link.model_copy(update={"bandwidth_mib_s": rate.model_copy(update=ends)})
        links.append(link)
    return network.model_copy(update={"links": tuple(links)})


def spec(slowdown: float) -> ServersSpec:
    """The lab for a slow-down of the device, with an uplink of 5 MB/s."""
    uplink_mib_s = _FIRST_MB_S * 1e6 / 2**20
    servers = [
        {
            "name": name,
            "tier": name,
            "entry": name == "device",
            "slowdown": _SPEED.get(name, slowdown),
            "quantization": QUANTIZATION.model_dump(mode="json"),
        }
        for name in ("device", "edge", "cloud")
    ]
    links = [
        {
            "from": source,
            "to": target,
            "bandwidth_mib_s": _BACK_MIB_S.get(source, uplink_mib_s),
            "latency_ms": _ONE_WAY_MS.get((source, target)) or _ONE_WAY_MS[target, source],
        }
        for source, target in itertools.permutations(("device", "edge", "cloud"), 2)
    ]
    return ServersSpec.from_data({"servers": servers, "links": links})


class Grid:
    """The experiment: what was measured first, and cells."""

    def __init__(self, kept: Kept, item: Subject, amount: Amount, scratch: Path) -> None:
        self._kept, self._item, self._amount, self._scratch = kept, item, amount, scratch
        self._store = Store(kept.folder / "documents")
        self._timings: dict[str, TimingProfile] = {}
        self._networks: dict[float, NetworkState] = {}

    def prepare(self) -> None:
        """Ranges, noise, a profile of each server (the device's without slow-down) and all links at
        one uplink."""
        ranges = self._store.ranges(self._item)
        noise = self._store.noise(self._item, ranges, tensors_between(self._item))
        with running(spec(1.0), self._scratch) as stage:
            self._timings = self._store.timings(self._item, stage, self._amount.runs)
            first = self._store.network(stage)
            self._networks = {
                uplink: with_uplink(first, uplink / _FIRST_MB_S) for uplink in self._amount.uplinks
            }
            maker = Maker(
                self._item, stage.spec, self._timings, first, ranges, noise, self._item.prefix
            )
        self._planning = Planning(maker, _NOISE[self._item.name])

    def measure(self, slowdown: float) -> None:
        """All cells of a slow-down: plans are loaded once, links change under way."""
        wanted = [Cell(uplink, slowdown) for uplink in self._amount.uplinks]
        wanted = [cell for cell in wanted if self._kept.get(cell.name) is None]
        if not wanted:
            return
        tell(f"slow-down {slowdown:g}: planning {len(wanted)} cells")
        timings = {**self._timings, "device": scaled(self._timings["device"], slowdown)}
        found = {
            cell: self._planning.variants(timings, self._networks[cell.uplink_mb_s])
            for cell in wanted
        }
        plans = {x.plan.id: x.plan for variants in found.values() for x in variants.values()}
        tell(f"slow-down {slowdown:g}: loading {len(plans)} plans")
        with (
            running(spec(slowdown), self._scratch) as stage,
            stage.loaded(list(plans.values()), self._item.model),
        ):
            requests = {k: stage.request(plan, self._item.arrays) for k, plan in plans.items()}
            _set_uplink(stage, Cell(max(UPLINKS_MB_S), slowdown))
            in_turn(requests, 1, warm_up=1)
            for cell, variants in found.items():
                self._kept.put(cell.name, self._cell(stage, cell, variants, requests))
            for request in requests.values():
                request.close()

    def _cell(
        self,
        stage: Stage,
        cell: Cell,
        variants: Mapping[str, Variant],
        requests: Mapping[str, Request],
    ) -> dict[str, Any]:
        _set_uplink(stage, cell)
        own = variants["plan"].plan.id
        families: dict[str, list[str]] = {family: [] for family in FAMILIES}
        for item in variants.values():
            if item.family in families:
                families[item.family].append(item.plan.id)
        names = list(dict.fromkeys(x.plan.id for x in variants.values()))
        hoped = predicted_best(variants)
        started = time.monotonic()
        times: dict[str, list[float]] = {}
        noise: dict[str, float] = {}
        # All twice, then what is not far slower, then what may be the best.
        for warm_up, slower in ((1, 2.0), (0, CLEARLY_SLOWER)):
            chosen = {name: requests[name] for name in names}
            _add(times, in_turn(chosen, 2, warm_up=warm_up, seed=len(times)))
            noise = {name: self._noise(requests[name]) for name in names} | noise
            names = worth_measuring({n: times[n] for n in names}, own, families, slower, hoped)
        close = is_close(times, own, families)
        rounds = self._amount.close_rounds if close else self._amount.rounds
        left_s = max(0.0, self._amount.cell_s - (time.monotonic() - started))
        chosen = {name: requests[name] for name in names}
        _add(times, in_turn(chosen, rounds - 4, warm_up=0, until_s=left_s, seed=1))
        for item in variants.values():
            if item.family == "raw" and noise[item.plan.id] > _EXACT:
                raise SystemExit(f"broken: '{item.name}' does not answer as the float model does")
        data = {
            "variants": {
                name: {
                    "plan": item.plan.id,
                    "family": item.family,
                    "where": item.where,
                    "predicted_ms": item.predicted_ms,
                    "noise": noise[item.plan.id],
                }
                for name, item in variants.items()
            },
            "times": times,
            "noise_limit": _NOISE[self._item.name],
        }
        tell(f"  uplink {cell.uplink_mb_s:g}: {len(times)} plans, "
             f"{len(times[own])} rounds, {time.monotonic() - started:.0f} s")  # fmt: skip
        return data

    def _noise(self, request: Request) -> float:
        """The mean difference of the last answer to that of the float model, on what is sent."""
        if not hasattr(self, "_reference"):
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            session = ort.InferenceSession(
                self._item.model.proto.SerializeToString(),
                sess_options=options,
                providers=["CPUExecutionProvider"],
            )
            self._reference = session.run(None, self._item.arrays)[0]
        (answer,) = request.answer.values()
        assert answer is not None
        return float(np.abs(answer - self._reference).mean())


def predicted_best(variants: Mapping[str, Variant]) -> set[str]:
    """The plans of each family that are predicted to be its fastest: they stay, whatever the first
    rounds say."""
    found = set()
    for family in FAMILIES:
        members = [item for item in variants.values() if item.family == family]
        if members:
            found.add(min(members, key=lambda item: item.predicted_ms).plan.id)
    return found


def _add(times: dict[str, list[float]], more: Mapping[str, list[float]]) -> None:
    for name, values in more.items():
        times.setdefault(name, []).extend(values)


def _set_uplink(stage: Stage, cell: Cell) -> None:
    for target in ("edge", "cloud"):
        set_link(stage.state, "device", target, bandwidth_mib_s=cell.uplink_mib_s)


if __name__ == "__main__":
    sys.exit(main())
