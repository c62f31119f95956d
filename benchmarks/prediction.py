"""What the planner's simulator predicts of plans, beside what the plans take, on the lab.

1. The lab is started with emulated links and declared slow-downs: device x 4, edge x 2, cloud x 1.
2. Profiles of the model on each server, the links, ranges and noise are measured, and what the
   app's own connection to the entry takes, as `tritier compare` does it.
3. Plans are made: optimal ones for weights of latency against energy, noise limits and sets of
   servers, and ones drawn at random; on 1, 2 and 3 servers, with int8 layers and codecs on wires.
4. All predictions are written (`parts/predicted_*.json`).
5. Plans are loaded in groups, side by side. Before any of a group is asked, the whole model is run
   on each server, as its profile did: that tells by how much the machine is slower or faster than
   when it was profiled. The same predictions with the times of layers multiplied by that are
   written, too (`parts/checked_*.json`).
6. The plans of the group are asked in turn, each twice, of which the second counts: the first finds
   the caches full of the plan before. In every round the whole model is run on each server again.

Errors are |predicted - measured| / measured of the median latency that an app sees: `raw` is what
was predicted before, by the tool alone; `speed checked` what was predicted right before the plans
were asked; `simulated only` is the raw one without the app's connection; `drift out` the same
prediction with the times of layers multiplied by the drift of the whole model in the same rounds.
Usage:

    python -m benchmarks.prediction -o results/prediction [--quick] [--model super-resolution]
        [--report FILE]

Finished groups in the folder are not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.kept import Kept, environment, tell, times_of
from benchmarks.lab_runs import Request, Stage, in_turn, running, scratch_of
from benchmarks.prediction_plans import Made, Maker, endless, select
from benchmarks.prediction_report import summary, write_plot
from benchmarks.record import record
from benchmarks.tiers import (
    QUANTIZATION,
    References,
    Store,
    Subject,
    drifted,
    known,
    layer_names,
    super_resolution,
    tensors_between,
    text_detection,
)
from tritier.documents import Assignment, Plan, Server, ServersSpec
from tritier.files import write_file
from tritier.network.contact import timestamp
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.compare_app import app_bytes, measure_app_ms
from tritier.workflow.plan import plan_from_assignment

_SLOWDOWNS = {"device": 4.0, "edge": 2.0, "cloud": 1.0}
# Configured, for the energy in the objective: nothing here measures power.
_WATTS = {"device": (5.0, 1.0), "edge": (25.0, 2.0), "cloud": (95.0, 3.0)}
# From, to, MiB/s, ms one way: as in the example, uplinks of 5 / 20 / 100 MB/s.
_LINKS = (
    ("device", "edge", 4.768, 5.0),
    ("device", "cloud", 4.768, 55.0),
    ("edge", "device", 19.07, 5.0),
    ("edge", "cloud", 19.07, 50.0),
    ("cloud", "device", 95.37, 55.0),
    ("cloud", "edge", 95.37, 50.0),
)
# Mean difference of an answer to that of the float model, whose values are from 0 to 1.
_EXACT_OFF, _CODED_OFF = 1e-4, 0.2
_SUBJECTS = {"super-resolution": super_resolution, "text detection": text_detection}


@dataclass(frozen=True)
class Amount:
    """How much is measured: plans of the first and of each further model, plans side by side,
    rounds, rounds of a check of speed, runs of a profile (half as many of large models), pictures,
    the seconds after which no round of a group is begun, and the longest plan that is drawn: one
    of which links take nearly all is predicted well, but by nothing that could be wrong."""

    plans: int = 32
    more_plans: int = 8
    group: int = 8
    rounds: int = 15
    check_rounds: int = 12
    runs: int = 30
    pictures: int = 8
    group_s: float = 100.0
    longest_ms: float = 900.0


QUICK = Amount(plans=6, more_plans=3, group=6, rounds=5, check_rounds=3, runs=6,
               pictures=3, group_s=15.0)  # fmt: skip


def main() -> int:
    """Measure and write the report; exit code 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("results/prediction"))
    parser.add_argument("--quick", action="store_true", help="few plans, for a try")
    parser.add_argument("--model", action="append", choices=list(_SUBJECTS), help="both if none")
    parser.add_argument("--seed", type=int, default=0, help="of the random plans")
    parser.add_argument("--report", type=Path, help="Markdown file to fill")
    options = parser.parse_args()
    amount = QUICK if options.quick else Amount()
    names = options.model or list(_SUBJECTS)
    kept = Kept(options.output, {**asdict(amount), "seed": options.seed, "models": names})
    kept.once("environment", environment)
    rows: list[dict[str, Any]] = []
    with (
        scratch_of(options.output) as scratch,
        running(spec(), scratch) as stage,
    ):
        for index, name in enumerate(names):
            item = _SUBJECTS[name](scratch, amount.pictures)
            plans = amount.more_plans if index else amount.plans
            run = Run(kept, stage, item, amount, options.seed)
            rows += run.all_rows(plans)
    text = summary(rows)
    kept.write("table.md", text)
    write_plot(rows, kept.folder / "prediction.png")
    kept.write_result({"environment": kept.get("environment"), "plans": rows})
    if options.report:
        pictures = {"Measured against predicted": kept.folder / "prediction.png"}
        record(options.report, text, pictures, kept.get("environment"))
    sys.stdout.write(text)
    return 0


def spec() -> ServersSpec:
    """The lab's servers and links."""
    servers = tuple(
        Server.from_data(
            {
                "name": name,
                "tier": name,
                "entry": name == "device",
                "slowdown": slowdown,
                "quantization": QUANTIZATION.model_dump(mode="json"),
                "compute_power_watt": _WATTS[name][0],
                "tx_other_power_watt": _WATTS[name][1],
            }
        )
        for name, slowdown in _SLOWDOWNS.items()
    )
    links = [
        {"from": source, "to": target, "bandwidth_mib_s": mib_s, "latency_ms": ms}
        for source, target, mib_s, ms in _LINKS
    ]
    made = [server.model_dump(mode="json", exclude_none=True) for server in servers]
    return ServersSpec.from_data({"servers": made, "links": links})


class Run:
    """The experiment on one model."""

    def __init__(self, kept: Kept, stage: Stage, item: Subject, amount: Amount, seed: int) -> None:
        self._kept, self._stage, self._item = kept, stage, item
        self._amount, self._seed = amount, seed
        self._key = item.key
        self._store = Store(kept.folder / "documents")

    def all_rows(self, plans: int) -> list[dict[str, Any]]:
        """A row for each plan: predicted, then measured."""
        item, stage = self._item, self._stage
        network = self._store.network(stage)
        ranges = self._store.ranges(item)
        # The detector's noise takes minutes to learn: there, int8 layers are chosen freely.
        learned = len(layer_names(item)) < 50
        noise = self._store.noise(item, ranges, tensors_between(item)) if learned else None
        runs = self._amount.runs if learned else self._amount.runs // 2
        timings = self._store.timings(item, stage, runs)
        self._known = known(item, stage.spec, timings, network)
        app_ms = self._kept.once(f"app_{self._key}", self._app_ms)
        self._known = replace(self._known, app_ms=app_ms)
        maker = Maker(item, stage.spec, timings, network, ranges, noise, self._item.prefix)
        chosen = self._chosen(maker, plans)
        predicted = {made.plan.id: self._predicted(made) for made in chosen}
        size = self._amount.group
        groups = [chosen[i : i + size] for i in range(0, len(chosen), size)]
        rows = []
        for number, group in enumerate(groups):
            name = f"measured_{self._key}_{number}"
            tell(f"{item.name}: group {number + 1} of {len(groups)}")
            measured = self._kept.get(name)
            if measured is None:
                measured = self._kept.put(name, self._measured(group))
            rows += [{**predicted[made.plan.id], **measured[made.plan.id]} for made in group]
        return rows

    def _chosen(self, maker: Maker, plans: int) -> list[Made]:
        """Mixed, so that every group has plans of all kinds; as files, too."""
        path = self._kept.folder / "documents" / f"plans_{self._key}"
        found = self._kept.get(f"plans_{self._key}")
        if found is None:
            tell(f"{self._item.name}: plans")
            limits = _limits(maker)
            drawn = endless(maker, (1, 2, 3, 2, 3), self._seed)
            short = (x for x in drawn if self._predict_ms(x) <= self._amount.longest_ms)
            made = select(list(maker.optimal(limits)), short, plans)
            made.sort(key=lambda x: (x.plan.id[-1], x.plan.id))
            for item in made:
                write_file(path / f"{item.plan.id}.json", item.plan.to_json())
            found = self._kept.put(f"plans_{self._key}", [[x.plan.id, x.kind, x.aim] for x in made])
        return [Made(Plan.load(path / f"{i}.json"), kind, aim) for i, kind, aim in found]

    def _predict_ms(self, made: Made) -> float:
        return predict_plan(made.plan, self._known).latency_ms

    def _predicted(self, made: Made) -> dict[str, Any]:
        """Written before anything is measured."""

        def make() -> dict[str, Any]:
            figures = predict_plan(made.plan, self._known)
            return {
                "model": self._item.name,
                "plan_id": made.plan.id,
                "kind": made.kind,
                "aim": made.aim,
                "tiers": made.tiers,
                "components": len(made.plan.components),
                "int8_layers": len(made.plan.quantized_layers),
                "simulated_ms": figures.latency_ms - (figures.app_ms or 0.0),
                "predicted_ms": figures.latency_ms,
                "predicted_at": timestamp(),
            }

        found: dict[str, Any] = self._kept.once(f"predicted_{self._key}_{made.plan.id}", make)
        return found

    def _expected(self) -> Any:
        """What the float model answers, in this process."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        session = ort.InferenceSession(
            self._item.model.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, self._item.arrays)[0]

    def _whole_plans(self) -> dict[str, Plan]:
        """The whole model on each server."""
        found = {}
        for name in self._stage.spec.names:
            assignment = Assignment(layers={}, default=name)
            whole = f"{self._item.prefix}-whole-{name}"
            found[name] = plan_from_assignment(
                self._item.model, assignment, self._stage.spec, whole
            )
        return found

    def _app_ms(self) -> float:
        """What the app's own connection takes, as `tritier compare` measures it."""
        entry = self._stage.spec.entry.name
        sizes = app_bytes(self._known, [self._item.arrays])
        return measure_app_ms(entry, self._stage.urls[entry], *sizes)

    def _measured(self, group: Sequence[Made]) -> dict[str, Any]:
        wholes = self._whole_plans()
        plans = [made.plan for made in group]
        started = time.monotonic()
        with self._stage.loaded([*wholes.values(), *plans], self._item.model):
            tell(f"  loaded in {time.monotonic() - started:.0f} s")
            references = References(self._stage, wholes, self._known.timings, self._item.arrays)
            checked = self._checked(group, references)
            requests = {x.id: self._stage.request(x, self._item.arrays) for x in plans}
            times = in_turn(
                requests, self._amount.rounds, each_round=references.round,
                until_s=self._amount.group_s, uncounted=1,
            )  # fmt: skip
            factors = references.factors()
            references.close()
            off = {x.id: _off(requests[x.id], self._expected()) for x in plans}
            _check_answers(plans, off)
            for request in requests.values():
                request.close()
        now: Known = drifted(self._known, factors)
        return {
            made.plan.id: {
                **checked[made.plan.id],
                "measured": asdict(times_of(times[made.plan.id])),
                "drift": factors,
                "without_drift_ms": predict_plan(made.plan, now).latency_ms,
                "answer_off": off[made.plan.id],
                "measured_at": timestamp(),
            }
            for made in group
        }

    def _checked(self, group: Sequence[Made], references: References) -> dict[str, Any]:
        """Predictions by how fast servers are now, written before a plan of the group is asked."""
        for number in range(-3, self._amount.check_rounds):
            references.round(number)
        factors = references.factors()
        references.begin_anew()
        now = drifted(self._known, factors)
        found = {
            made.plan.id: {
                "checked_ms": predict_plan(made.plan, now).latency_ms,
                "checked_drift": factors,
                "checked_at": timestamp(),
            }
            for made in group
        }
        # Of the last try, if a run was cut off between this and what it measured.
        written: dict[str, Any] = self._kept.put(f"checked_{self._key}_{group[0].plan.id}", found)
        return written


def _off(request: Request, expected: Any) -> float:
    """The mean difference of the last answer to that of the float model."""
    (answer,) = request.answer.values()
    return float("inf") if answer is None else float(np.abs(answer - expected).mean())


def _check_answers(plans: Sequence[Plan], off: Mapping[str, float]) -> None:
    """A fast wrong answer is no measurement. What is quantized or coded is off by what the noise
    model says at most; by this much, something else is wrong."""
    for plan in plans:
        exact = not plan.quantized_layers and all(wire.codec == "as_is" for wire in plan.wires)
        if not off[plan.id] <= (_EXACT_OFF if exact else _CODED_OFF):
            raise SystemExit(f"broken: plan {plan.id} answers {off[plan.id]:g} off the model")


def _limits(maker: Maker) -> tuple[float, ...]:
    """Exact, a tenth and the whole of the noise of all int8 layers; without a noise model: exact,
    or any."""
    if maker.noise is None:
        return (0.0, 1.0)
    (output, *_) = maker.noise.outputs
    all_layers = output.predict(list(maker.noise.layers))
    return (0.0, 0.3 * all_layers, 2.0 * all_layers)


if __name__ == "__main__":
    sys.exit(main())
