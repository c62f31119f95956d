"""How well the noise of quantized layers is known after measuring a few choices of layers.

    python -m benchmarks.noise_accuracy exact MODEL [options]
    python -m benchmarks.noise_accuracy held-out MODEL [options]
    python -m benchmarks.noise_accuracy exhaustive MODEL [options]

MODEL is a word or FILE=PREPROCESSING, see `benchmarks.subjects`. Times are processor seconds of one
thread.

`exact` compares the memoising executor with the really quantized model. `held-out` learns a noise
model and measures fresh random subsets; `--published N` also fits the published regression to N
random subsets and measures what one of them costs without the executor. `exhaustive` measures every
subset, and lets a planner pick under 19 limits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np

from benchmarks.subjects import HELP, subject
from tritier.calibration import calibrate
from tritier.documents import Quantization
from tritier.graph import Quantizable, build_layer_graph, profile_model
from tritier.noise import (
    Candidate,
    Executor,
    built_in,
    design,
    figures,
    fit_polynomial,
    fit_squared,
    margin,
    predict,
    random_design,
    settle,
    verification,
)
from tritier.noise.sessions import open_session
from tritier.noise.settle import SLACK
from tritier.workflow import NoiseFit, NoiseRequest, learn_noise
from tritier.workflow.noise_measure import Measurer

FORMATS = {
    "s8s8": Quantization(),
    "u8s8-channel-reduced": Quantization(
        activation_type="uint8", per_channel=True, reduce_range=True
    ),
}
# The published way: random subsets to fit and to test, images of each.
PUBLISHED_SUBSETS, PUBLISHED_IMAGES = 1100, 20
LIMITS = 19
Predicted = Callable[[int], float]


class Case:
    """A model, its ranges and the images that noise is measured on."""

    def __init__(self, options: argparse.Namespace, workspace: Path) -> None:
        found = subject(options.model, workspace, options.calibration, options.images)
        self.model, self.inputs = found.model, found.noise
        count = 1_000_000 if options.layers == "all" else int(options.layers)
        self.layers = profile_model(self.model, {}, Quantizable(count)).quantizable_layers
        self.ranges = calibrate(self.model, found.calibration)
        self.settings = FORMATS[options.format]
        self.workspace = workspace

    def request(self, shape_inputs: int | None, seed: int = 0) -> NoiseRequest:
        """To learn noise without verification."""
        return NoiseRequest(
            self.model, self.layers, self.inputs, self.ranges, self.workspace, self.settings,
            fit=NoiseFit(verification=0), shape_inputs=shape_inputs, seed=seed, fresh=True,
        )  # fmt: skip

    def executor(self, layers: tuple[str, ...], kernels: bool = False) -> Executor:
        """For these layers."""
        graph = build_layer_graph(self.model.proto)
        return Executor(self.model, graph, layers, self.ranges, self.settings, kernels)

    def measurer(self, layers: tuple[str, ...]) -> Measurer:
        """Of the mean absolute difference of the first output."""
        executor = self.executor(layers)
        outputs = executor.graph.outputs[:1]
        metric = built_in("mean_abs")
        return Measurer(executor, metric, outputs, self.inputs, self.workspace, fresh=True)


def exact(case: Case, options: argparse.Namespace) -> None:
    """Outputs of random subsets, by the executor and by the quantized model in one session."""
    every = (1 << len(case.layers)) - 1
    drawn = verification(len(case.layers), options.subsets, options.seed, (every,))
    subsets = [0, *drawn, every]
    arrays = next(iter(case.inputs))
    for kernels in (False, True):
        executor = case.executor(case.layers, kernels)
        found = executor.run(
            executor.compile(subsets), arrays, lambda _, out: {k: v.copy() for k, v in out.items()}
        )
        worst = 0.0
        for subset, outputs in found.items():
            whole = executor.run_whole(subset, arrays)
            gaps = [np.abs(whole[k].astype(float) - outputs[k].astype(float)) for k in whole]
            worst = max(worst, *(float(gap.max()) for gap in gaps))
        name = "int8 kernels" if kernels else "simulated"
        print(
            f"{case.model.default_name}, {name}: {len(found)} subsets, largest difference {worst}"
        )


def held_out(case: Case, options: argparse.Namespace) -> None:
    """Learn, then measure fresh subsets."""
    started = time.process_time()
    noise = learn_noise(case.request(options.shape_images))
    learning_s = time.process_time() - started
    count, output = len(noise.layers), noise.outputs[0]
    print(
        f"{case.model.default_name}: {count} layers ({len(noise.excluded)} excluded), "
        f"{len(noise.measured)} subsets, {len(case.inputs)} images, {len(output.terms)} terms, "
        f"learned in {learning_s:.1f} s"
    )
    if not options.fresh:
        return
    chosen = design(count)
    drawn = verification(count, options.verification + options.fresh, 1000, chosen)
    alike = random_design(count, options.alike, 4000)
    measurer = case.measurer(noise.layers)
    started = time.process_time()
    means = measurer.means([(1 << count) - 1], [*drawn, *alike], None).noise
    took_s = time.process_time() - started
    print(f"  {len(drawn) + len(alike)} random subsets measured in {took_s:.1f} s")
    measured = {subset: means[subset][output.output] for subset in (*drawn, *alike)}

    def predicted(subset: int) -> float:
        return output.predict(measurer.executor.names(subset))

    fresh = drawn[options.verification :]
    _show("  fresh, sizes equally likely", {s: measured[s] for s in fresh}, predicted)
    if alike:
        _show("  fresh, subsets equally likely", {s: measured[s] for s in alike}, predicted)
    _show_coverage(drawn, options.verification, measured, predicted)
    if options.published:
        test = {s: measured[s] for s in (alike or drawn)}
        _published(case, measurer, options.published, test, learning_s)


def _show(what: str, measured: Mapping[int, float], predicted: Predicted) -> None:
    found = figures(measured, predicted)
    print(
        f"{what}: {found.subsets} subsets, R2 {found.r2:.4f}, MAPE {found.mape:.2%}, Spearman "
        f"{found.spearman:.4f}, worst under {found.worst_under:.1%}, over {found.worst_over:.1%}; "
        f"noise {min(measured.values()):.4g} to {max(measured.values()):.4g}"
    )


def _show_coverage(
    drawn: list[int], size: int, measured: Mapping[int, float], predicted: Predicted
) -> None:
    """Of the margin, over many ways to take the verification subsets out of all that were drawn."""
    ratio = {s: measured[s] / predicted(s) for s in drawn}
    draw = np.random.default_rng(0)
    covered, factors = [], []
    for _ in range(500):
        some = {drawn[i] for i in draw.choice(len(drawn), size, replace=False)}
        factor = margin({s: measured[s] for s in some}, predicted)
        rest = [s for s in drawn if s not in some]
        covered.append(sum(ratio[s] <= factor for s in rest) / len(rest))
        factors.append(factor)
    print(
        f"  margin from {size} subsets: {statistics.mean(factors):.3f} on average "
        f"({min(factors):.3f} to {max(factors):.3f}), covers {statistics.mean(covered):.1%} of the "
        f"others on average over 500 draws"
    )


def _published(
    case: Case, measurer: Measurer, count: int, test: Mapping[int, float], learning_s: float
) -> None:
    """The regression of degree 3 on random subsets, and what rebuilding each of them costs."""
    executor, name = measurer.executor, measurer.outputs[0]
    drawn = random_design(len(executor.layers), count, 2000)
    means = measurer.means([drawn[0]], drawn, None).noise
    constant, terms = fit_polynomial({s: means[s][name] for s in drawn}, len(executor.layers), 3)
    _show(f"  published way, {len(drawn)} subsets", test, lambda s: predict(terms, constant, 1, s))
    arrays = list(case.inputs)[:3]
    costs = []
    for subset in drawn[:5]:
        started = time.process_time()
        for index in range(len(arrays)):
            if index == 0:
                session = open_session(executor.quantized_model(subset), executor.kernels)
                built_s = time.process_time() - started
            session.run(None, arrays[index])
        run_s = (time.process_time() - started - built_s) / len(arrays)
        costs.append((built_s, run_s))
    built_s, run_s = (statistics.median(x) for x in zip(*costs, strict=True))
    total_s = PUBLISHED_SUBSETS * (built_s + PUBLISHED_IMAGES * run_s)
    ours_s = learning_s * PUBLISHED_IMAGES / len(case.inputs)
    print(
        f"  published way: {built_s:.2f} s to rebuild, {run_s:.3f} s per image; "
        f"{PUBLISHED_SUBSETS} subsets x {PUBLISHED_IMAGES} images take {total_s:.0f} s, "
        f"{total_s / ours_s:.0f} x as much as {ours_s:.0f} s here at as many images"
    )


def exhaustive(case: Case, options: argparse.Namespace) -> None:
    """Every subset: figures over all of them, and picks under limits."""
    noise = learn_noise(case.request(options.shape_images))
    count, output = len(noise.layers), noise.outputs[0].output
    measurer = case.measurer(noise.layers)
    started = time.process_time()
    every = list(range(1, 1 << count))
    means = measurer.means([every[-1]], every, None).noise
    truth = {subset: means[subset][output] for subset in every}
    print(
        f"{case.model.default_name}: all {len(truth)} subsets of {count} layers, "
        f"{len(case.inputs)} images, in {time.process_time() - started:.0f} s"
    )
    samples = {subset: truth[subset] for subset in design(count)}
    terms = fit_squared(samples, count)
    rest = {s: x for s, x in truth.items() if s not in samples}
    _show(f"  {len(samples)} subsets, all others", rest, lambda s: predict(terms, 0.0, 2, s))
    drawn = random_design(count, 1000, 3000)
    constant, cubic = fit_polynomial({s: truth[s] for s in drawn}, count, 3)
    rest = {s: x for s, x in truth.items() if s not in set(drawn)}
    _show("  published way, 1000 subsets", rest, lambda s: predict(cubic, constant, 1, s))
    some = {s: truth[s] for s in verification(count, options.verification, 1, list(samples))}
    slack = max(SLACK, figures(some, lambda s: predict(terms, 0.0, 2, s)).mape)
    for seed in range(options.gains):
        for in_turn in (False, True):
            _picks(truth, samples, count, seed, slack, in_turn)


def _picks(
    truth: Mapping[int, float],
    samples: Mapping[int, float],
    count: int,
    seed: int,
    slack: float,
    in_turn: bool,
) -> None:
    """A planner that knows its gains exactly and the noise by the model only; `in_turn` each limit
    knows what was measured for those before it."""
    samples = dict(samples)
    gains = np.random.default_rng(seed).lognormal(0.0, 0.6, count)
    value = {
        subset: float(sum(gains[i] for i in range(count) if subset >> i & 1))
        for subset in range(1 << count)
    }
    ordered = sorted(value, key=lambda s: -value[s])
    top = max(truth.values())
    right = runs = 0
    lost = []
    for step in range(1, LIMITS + 1):
        limit = top * step / (LIMITS + 1)

        def pick(
            terms: Mapping[int, float], within: float, refused: Collection[int]
        ) -> Candidate | None:
            for subset in ordered:
                if subset not in refused and predict(terms, 0.0, 2, subset) <= within:
                    return Candidate(subset, value[subset])
            return None

        done = settle(
            pick, truth.__getitem__, lambda x: fit_squared(x, count), samples, limit, slack=slack
        )
        best = next(s for s in ordered if s == 0 or truth[s] <= limit)
        assert done.pick is not None
        right += done.pick.value == value[best]
        lost.append(1 - done.pick.value / value[best] if value[best] else 0.0)
        runs += done.runs
        if in_turn:
            samples |= done.measured
    print(
        f"  gains {seed}{', limits in turn' if in_turn else ''}: the true optimum at {right} of "
        f"{LIMITS} limits, {runs / LIMITS:.2f} measurements each; mean loss of gain "
        f"{statistics.mean(lost):.2%}"
    )


def main() -> None:
    """Read the command line and run one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=["exact", "held-out", "exhaustive"])
    parser.add_argument("model", help=HELP)
    parser.add_argument("--layers", default="12", help="how many, or 'all' Convs")
    parser.add_argument("--calibration", type=int, default=100, help="pictures for ranges")
    parser.add_argument("--images", type=int, default=20, help="pictures for noise")
    parser.add_argument("--shape-images", type=int)
    parser.add_argument("--format", choices=list(FORMATS), default="s8s8")
    parser.add_argument("--subsets", type=int, default=20, help="of exact")
    parser.add_argument("--verification", type=int, default=20)
    parser.add_argument("--fresh", type=int, default=100, help="of held-out; 0 to learn only")
    parser.add_argument("--alike", type=int, default=0, help="more, all subsets equally likely")
    parser.add_argument("--published", type=int, default=0, metavar="N")
    parser.add_argument("--gains", type=int, default=3, help="draws of gains for the picks")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    parts = {"exact": exact, "held-out": held_out, "exhaustive": exhaustive}
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as folder:
        parts[options.part](Case(options, Path(folder)), options)


if __name__ == "__main__":
    main()
