"""What serving costs beside computing: three promises, each measured with requests in turn.

  entry      the whole model on one Triton, asked with tritonclient, beside ONNX Runtime called in
             this process, with the same threads and the same settings of malloc and of the session;
             goal: 5 % + 2 ms at most. Beside it the same past the ensemble, and with the app's
             tensors in shared memory, as an app on the entry's machine may send them (same goal)
  split      the model in two components, on two Tritons on loopback (no link emulation) and on one
             Triton, beside the whole model on one Triton; goal: 1.05 x at most. First the cut whose
             halves take about the same time, then the one with the fewest bytes, which may leave
             next to nothing to one half
  floor      a Triton model that computes nothing: it returns tensors of the sizes of the model's
             outputs; what a request with these bytes takes at least
  pipeline   the model in two components of about equal time (measured in this process, with 1.5 ms
             for each MiB of the cut), each on a Triton that is kept on a core of its own: requests
             per second at concurrency 4 and 8 beside those at 1; goal: 1.6 x at least. Beside that,
             the same over the whole model on one of these Tritons, asked one at a time in the same
             windows. This process shares the two cores: there is no third. Triton may join what
             waits to batches (`batched`, the default of `tritier generate` where a model allows it)
             or not (`one by one`): requests of a batch move together, and then one stage waits for
             the other. `int8 wire`: the tensor of the cut crosses in 8 bits, as copying it takes
             time of the same cores

Usage:

    python -m benchmarks.serving_overhead -o results/serving_overhead [--quick] [--model NAME]
        [--report FILE]

Models are the super-resolution network and the trained text detector of rapidocr at 320 x 640
pixels. Finished parts in the folder are not measured again.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept import Kept, environment, tell, times_of
from benchmarks.lab_runs import Request, Stage, Timed, in_turn, running, scratch_of
from benchmarks.record import record
from benchmarks.serving_cuts import Cut, lightest, pin, steadiest
from benchmarks.serving_floor import floor_served, halves_ms
from benchmarks.serving_loop import closed_loop, medians, over
from benchmarks.serving_report import FLOOR, PAST_ENSEMBLE, SHARED, summary, write_plot
from benchmarks.serving_shared import SharedRequest
from benchmarks.serving_subject import DETECTOR, SUPER_RESOLUTION, Direct, Subject
from tritier.documents import Plan, ServersSpec
from tritier.repository import GenerateOptions
from tritier.workflow.compare_rounds import median_interval

_CONCURRENCY = (1, 2, 4, 8)
# Compared with the model in this process; all else with the whole model on a Triton.
_IN_PROCESS = ("whole", PAST_ENSEMBLE, SHARED)
# Mean difference of an answer to that of the model in this process.
_PLAIN_OFF, _CODED_OFF = 1e-4, 0.05
_CORES = {"device": 0, "edge": 1}


def main() -> int:
    """Measure and write the report; exit code 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("results/serving_overhead"))
    parser.add_argument("--quick", action="store_true", help="a try in a minute or two")
    parser.add_argument(
        "--model", action="append", choices=[SUPER_RESOLUTION, DETECTOR], help="both if none"
    )
    parser.add_argument("--report", type=Path, help="Markdown file to fill")
    options = parser.parse_args()
    rounds, windows, window_s = (15, 1, 2.0) if options.quick else (120, 5, 5.0)
    settings = {"rounds": rounds, "windows": windows, "window_s": window_s}
    kept = Kept(options.output, settings)
    kept.once("environment", environment)
    spec = ServersSpec.from_data(
        {
            "servers": [
                {"name": "device", "tier": "device", "entry": True},
                {"name": "edge", "tier": "edge"},
            ]
        }
    )
    names = options.model or [SUPER_RESOLUTION, DETECTOR][: 1 if options.quick else 2]
    with scratch_of(options.output) as scratch:
        for name in names:
            subject = Subject(name, scratch)
            key = name.replace(" ", "_")
            for part in ("split", "pipeline"):
                if kept.get(f"{part}_{key}") is not None:
                    continue
                tell(f"{name}: {part}")
                with running(spec, scratch) as stage:
                    data = (
                        _split(stage, subject, rounds)
                        if part == "split"
                        else _pipeline(stage, subject, windows, window_s)
                    )
                kept.put(f"{part}_{key}", data)
    found = {
        name: {part: kept.get(f"{part}_{name.replace(' ', '_')}") for part in ("split", "pipeline")}
        for name in names
    }
    text = summary(found)
    kept.write("table.md", text)
    write_plot(found, kept.folder / "pipeline.png")
    kept.write_result({"environment": kept.get("environment"), "models": found})
    if options.report:
        pictures = {"Throughput of two stages": kept.folder / "pipeline.png"}
        record(options.report, text, pictures, kept.get("environment"))
    sys.stdout.write(text)
    return 0


def _split(stage: Stage, subject: Subject, rounds: int) -> dict[str, Any]:
    """The whole model, in this process and served, and its halves, in turn."""
    plans = _split_plans(stage, subject)
    with stage.loaded([plan for plan, _ in plans.values()], subject.model), ExitStack() as opened:
        requests: dict[str, Request | SharedRequest] = {
            kind: stage.request(plan, subject.arrays) for kind, (plan, _) in plans.items()
        }
        services = {kind: _services(stage, plan) for kind, (plan, _) in plans.items()}
        whole = plans["whole"][0]
        requests[PAST_ENSEMBLE] = _past_ensemble(stage, whole, subject)
        requests[SHARED] = SharedRequest(stage.urls["device"], whole.model.name, subject.arrays)
        # However it ends, no shared memory may be left.
        for item in (*requests.values(), *itertools.chain.from_iterable(services.values())):
            opened.callback(item.close)
        direct = Direct(subject)
        direct()

        def begin(number: int) -> None:
            if number < 0:  # warm; what comes now counts
                for look in itertools.chain.from_iterable(services.values()):
                    look.since()

        with floor_served(stage, subject.arrays, direct.answer) as floor:
            timed: dict[str, Timed] = {"in process": direct, FLOOR: floor, **requests}
            times = in_turn(timed, rounds, warm_up=10, each_round=begin)
        _check_answers(direct, requests)
        computed = {
            kind: sum(look.since() or 0.0 for look in looks) for kind, looks in services.items()
        }
    cuts = {kind: asdict(cut) for kind, (_, cut) in plans.items() if cut}
    return {
        kind: {
            **_beside(times[kind], times["in process" if kind in _IN_PROCESS else "whole"]),
            "components_ms": computed.get(kind),
            "cut": cuts.get(kind),
        }
        for kind in times
    }


def _split_plans(stage: Stage, subject: Subject) -> dict[str, tuple[Plan, Cut | None]]:
    """The whole model, and both cuts on two servers and on one."""
    light, half = lightest(subject.cuts), _halves(subject)
    plans: dict[str, tuple[Plan, Cut | None]] = {
        "whole": (
            subject.plan(stage.spec, "whole", len(subject.graph.layers), "device", "device"),
            None,
        )
    }
    for cut in dict.fromkeys((half, light)):
        for kind, servers in (("two", ("edge", "device")), ("one", ("device", "device"))):
            plan = subject.plan(stage.spec, kind, cut.after, *servers)
            plans[f"{kind} servers, cut {cut.after}".replace("one servers", "one server")] = (
                plan,
                cut,
            )
    return plans


def _beside(values: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Times, and those beside others of requests sent one after the other: what slows the machine
    down meets both."""
    added = [a - b for a, b in zip(values, base, strict=True)]
    ratios = over(values, base)
    (low, high), (least, most) = median_interval(added), median_interval(ratios)
    return {
        **asdict(times_of(values)),
        "ratio": statistics.median(values) / statistics.median(base),
        "added_ms": statistics.median(added),
        "added_low": low,
        "added_high": high,
        "paired_ratio": statistics.median(ratios),
        "ratio_low": least,
        "ratio_high": most,
    }


def _halves(subject: Subject) -> Cut:
    """The cut into stages of about the same time, measured once, on this machine."""
    if subject.halves is None:
        subject.halves = steadiest(subject.cuts, lambda cut: halves_ms(subject.model, cut.after))
        tell(f"  {subject.name}: halves are cut after {subject.halves.after} layers")
    return subject.halves


def _past_ensemble(stage: Stage, plan: Plan, subject: Subject) -> Request:
    """Asks the one component of a plan itself, which tells what the ensemble before it adds."""
    (part,) = plan.components
    (array,) = subject.arrays.values()
    model = f"{plan.model.name}__{plan.id}__{part.id}"
    return Request(stage.urls[part.server], model, {part.inputs[0]: array})


def _services(stage: Stage, plan: Plan) -> list[Any]:
    return [
        stage.service_ms(c.server, f"{plan.model.name}__{plan.id}__{c.id}") for c in plan.components
    ]


def _check_answers(direct: Direct, requests: Mapping[str, Request | SharedRequest]) -> None:
    for kind, request in requests.items():
        (found,) = request.answer.values()
        if found is None or not np.allclose(found, direct.answer[0], atol=1e-3):
            raise SystemExit(f"broken: '{kind}' answers something else than the model in process")


def _pipeline(stage: Stage, subject: Subject, windows: int, window_s: float) -> dict[str, Any]:
    """Requests per second of two stages by concurrency, in windows that take turns; with Triton
    batching what waits, as plans are generated by default, and without."""
    cut = _halves(subject)
    whole = subject.plan(stage.spec, "one-core", len(subject.graph.layers), "device", "device")
    direct = Direct(subject)
    direct()
    # The entry has the second half: then only the input and the tensor of the cut move.
    plain = subject.plan(stage.spec, "pipeline", cut.after, "edge", "device")
    found = {}
    for kind, plan, most in (
        ("batched", plain, 16),
        ("one by one", plain, 1),
        ("one by one, int8 wire", subject.coded(plain), 1),
    ):
        options = GenerateOptions(deadline_ms=60_000, max_batch_size=most)
        with stage.loaded([plan, whole], subject.model, options):
            for server in stage.state.servers:
                pin(server.process.pid, {_CORES[server.name]})
            tell(f"  {subject.name}: {kind}")
            found[kind] = _levels(stage, subject, plan, whole, direct.answer[0], windows, window_s)
    return {"cut": asdict(cut), "levels": found}


def _levels(
    stage: Stage,
    subject: Subject,
    plan: Plan,
    whole: Plan,
    expected: Any,
    windows: int,
    window_s: float,
) -> dict[str, dict[str, Any]]:
    rates: dict[int, list[float]] = {level: [] for level in _CONCURRENCY}
    services: dict[int, list[list[float | None]]] = {level: [] for level in _CONCURRENCY}
    alone: list[float] = []
    # 8 bits on the wire change the answer a little.
    coded = any(wire.codec != "as_is" for wire in plan.wires)

    def check(request: Request) -> None:
        (found,) = request.answer.values()
        off = np.inf if found is None else float(np.abs(found - expected).mean())
        if not off <= (_CODED_OFF if coded else _PLAIN_OFF):
            raise SystemExit(f"broken: '{plan.model.name}' answers {off:g} off the model")

    def connect() -> Request:
        return stage.request(plan, subject.arrays)

    def connect_whole() -> Request:
        return stage.request(whole, subject.arrays)

    looks = _services(stage, plan)
    closed_loop(connect, 4, min(2.0, window_s), check)
    for number in range(windows):
        alone.append(closed_loop(connect_whole, 1, window_s, check))
        for level in _CONCURRENCY if number % 2 == 0 else reversed(_CONCURRENCY):
            for look in looks:
                look.since()
            rates[level].append(closed_loop(connect, level, window_s, check))
            services[level].append([look.since() for look in looks])
        shown = ", ".join(f"{level}: {rates[level][-1]:.1f}/s" for level in rates)
        tell(f"  window {number + 1} of {windows}: {shown}")
    for look in looks:
        look.close()
    return {
        str(level): {
            "infer_per_s": statistics.median(values),
            "least_per_s": min(values),
            "most_per_s": max(values),
            "n": len(values),
            "speedup": statistics.median(speedups := over(values, rates[1])),
            "speedup_from_to": [min(speedups), max(speedups)],
            "beside_whole": statistics.median(over(values, alone)),
            "stage_ms": medians(services[level]),
        }
        for level, values in rates.items()
    }


if __name__ == "__main__":
    sys.exit(main())
