"""How long planning takes: the published scaling experiment, and the cases that matter in practice.

    python -m benchmarks.planner_scaling [scaling|cases|all] [--quick] [--repeat 5] [--json FILE]

`scaling` plans the chains and random graphs of `benchmarks.planner_instances`: making the problem
and its tables, least latency, least energy and the weighted sum, and grouping layers into
components. Beside it stand the medians that the published system recorded for as many layers and
servers, with a commercial solver on its own machine and its own draws: only the order of magnitude
can be compared.

`cases` plans recorded models with the links of the published runs: int8 under a noise limit, by
elimination and through PuLP; 11 points of the front; a device energy limit and memory limits that
bind; and every tensor in fp16 at half its time, with a drawn noise of up to a fifth of the limit.
Negative times of int8 layers are clipped.

Times are processor seconds of one thread, medians over the repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.planner_instances import CHAINS, RANDOM, SERVERS, chain, random_graph
from benchmarks.planner_published import components
from tests.helpers.published import NOMINAL, fixture, problem
from tritier.planner.objective import pareto_front, solve_weighted
from tritier.planner.problem import Limits, Problem, Weights
from tritier.planner.pulp_core import solve_folded
from tritier.planner.pulp_model import solve_pulp
from tritier.planner.search import Search, solve
from tritier.planner.solution import Solution
from tritier.planner.wires import Codings, Losses, Trial, weigh

T = TypeVar("T")
KINDS = {"chain": (CHAINS, chain), "random": (RANDOM, random_graph)}
NOISE_SHARE = 0.25  # of the noise of all quantizable layers
LOUDEST = 0.2  # of the limit, a tensor in fp16
FRONT_POINTS = 11
TIME_LIMIT_S = 15.0
SHORT_S = 5.0


@dataclass(frozen=True)
class Scaled:
    """Seconds for one size; `published_*` are medians of other draws on another machine."""

    kind: str
    layers: int
    servers: int
    build_s: float
    solve_s: float
    group_s: float
    published_build_s: float
    published_solve_s: float
    published_group_s: float
    published_s: float
    components: int
    proven: bool

    @property
    def total_s(self) -> float:
        """All three steps."""
        return self.build_s + self.solve_s + self.group_s


@dataclass(frozen=True)
class Timed:
    """A case: seconds, and how the search ended."""

    name: str
    seconds: float
    first_s: float
    status: str
    gap: float
    found: str


def scaled(kind: str, layers: int, servers: int, repeat: int) -> Scaled:
    """Plan one size."""
    make = KINDS[kind][1]
    steps = []
    for _ in range(repeat):
        marks = [time.process_time()]
        built = make(layers, servers)
        search = Search(built)
        marks.append(time.process_time())
        solution, _ = solve_weighted(search, 0.5)
        marks.append(time.process_time())
        assert solution.placement is not None
        groups = components(built, solution.placement)
        marks.append(time.process_time())
        steps.append([b - a for a, b in pairwise(marks)])
    build_s, solve_s, group_s = (statistics.median(x) for x in zip(*steps, strict=True))
    recorded = next(r for r in fixture()["scaling"][kind] if r[:2] == [layers, servers])
    _, _, _, build, latency, energy, whole, post, total = recorded
    return Scaled(
        kind, layers, servers, build_s, solve_s, group_s,
        build, latency + energy + whole, post, total, groups, solution.gap == 0,
    )  # fmt: skip


def sizes(quick: bool) -> Iterator[tuple[str, int, int]]:
    """(kind, layers, servers); the ends only if it has to be quick."""
    for kind, (all_layers, _) in KINDS.items():
        layers = (all_layers[0], all_layers[-1]) if quick else all_layers
        for count in layers:
            for servers in (1, 3, 6) if quick else SERVERS:
                yield kind, count, servers


def show_scaling(rows: list[Scaled]) -> None:
    """The table on stdout."""
    table = Table(title="synthetic graphs: seconds here, published", title_justify="left")
    for name in ("graph", "layers", "servers", "build", "3 solves", "group", "total", "published",
                 "times", "parts"):  # fmt: skip
        table.add_column(name, justify="left" if name == "graph" else "right")
    for row in rows:
        table.add_row(
            row.kind,
            str(row.layers),
            str(row.servers),
            f"{row.build_s:.3f} / {row.published_build_s:.1f}",
            f"{row.solve_s:.3f} / {row.published_solve_s:.1f}",
            f"{row.group_s:.3f} / {row.published_group_s:.1f}",
            f"{row.total_s:.3f}",
            f"{row.published_s:.1f}",
            f"{row.published_s / row.total_s:.0f}",
            str(row.components),
        )
    Console(width=130).print(table)


def cases(repeat: int, quick: bool) -> Iterator[Timed]:
    """Recorded models."""
    models = ("yolo11x-seg",) if quick else ("yolo11x-seg", "yolo11m")
    both = Weights(1.0, 100.0)
    for model in models:
        limited = problem(model, max_noise=NOISE_SHARE * full_noise(model), clip=True)
        name = f"{model}, 3 servers, 12 quantizable, noise <= {NOISE_SHARE:.0%}"
        yield once(f"{name}: tables and one solve", partial(solve, limited, both), repeat)
        yield once(f"{name}: folded, PuLP (HiGHS)", partial(solve_folded, limited, both), repeat)
        yield once(f"{name}: PuLP (HiGHS), not folded", partial(solve_pulp, limited, both), repeat)
        yield front(f"{name}: {FRONT_POINTS} weights", limited, repeat)
        yield supported(f"{name}: front of all supported points", limited, repeat)
        yield from binding(model, repeat)
        name = f"{model}, 3 servers, 12 quantizable, all tensors in fp16 with drawn noise"
        yield once(name, partial(coded, limited, both), repeat)


def coded(given: Problem, weights: Weights, seed: int = 0) -> Solution:
    """The best choice of quantized layers and of tensors in fp16, which share the noise limit."""
    draw = np.random.default_rng(seed)
    count = len(given.flows)
    (row,) = given.noise.rows
    shares = draw.uniform(0, LOUDEST, count)
    losses = Losses([row], [{(t, 1): shares[t] * row.budget for t in range(count)}])
    half = given.transfer_ms / 2

    def attempt(codings: Codings) -> Trial:
        most = np.array([codings.most.get(t, int(codings.rest)) for t in range(count)])
        times = np.where(most[:, None, None] > 0, half, given.transfer_ms)
        # a tensor that no layer has in 8 bits takes the same in both tables
        same = (given.coded_ms == given.transfer_ms).all(axis=(1, 2))
        eight = np.where(same[:, None, None], times, given.coded_ms)
        noise = replace(given.noise, rows=losses.counting(codings.counted))
        found = solve(replace(given, transfer_ms=times, coded_ms=eight, noise=noise), weights)
        crossing = [x[0] for x in found.costs.crossings if not x[3]] if found.costs else []
        return Trial(found, {t: 1 for t in crossing if most[t]})

    return weigh(attempt, losses, time.monotonic() + TIME_LIMIT_S).solution


def full_noise(model: str) -> float:
    """With all quantizable layers quantized."""
    row = problem(model, max_noise=1.0).noise.rows[0]
    return row.load((1 << len(problem(model).quantizable)) - 1)


def binding(model: str, repeat: int) -> Iterator[Timed]:
    """A device energy limit halfway between what is best without it and what is possible; and
    memory for a part of the weights on each server."""
    two = problem(
        model, NOMINAL.first(2), max_noise=NOISE_SHARE * full_noise(model), clip=True
    )  # fmt: skip
    limit = device_limit(two, Weights(0.0, 1.0))
    limits = Limits(server_energy_joule=(limit, np.inf))
    yield once(
        f"{model}, device energy <= {limit:.2f} J, least energy, 2 servers",
        lambda: solve(replace(two, limits=limits), Weights(0.0, 1.0), time_limit_s=TIME_LIMIT_S),
        repeat,
    )
    three = problem(model, max_noise=NOISE_SHARE * full_noise(model), clip=True)
    weights, working = three.float_bytes[:, 0].sum(), three.working_bytes.max()
    room = tuple(share * weights + working for share in (0.3, 0.4, 0.5))
    shown = ", ".join(f"{x / 2**20:.0f}" for x in room)
    tight = replace(three, limits=Limits(memory_bytes=room))
    for seconds in (SHORT_S, TIME_LIMIT_S):
        yield once(
            f"{model}, memory <= {shown} MiB, least latency, 3 servers, {seconds:g} s at most",
            partial(solve, tight, Weights(1.0, 0.0), time_limit_s=seconds),
            repeat,
        )


def device_limit(built: Problem, weights: Weights) -> float:
    """Halfway between the device's energy at the optimum and the least possible."""
    free = solve(built, weights)
    off = np.zeros(len(built.servers) - 1)
    alone = replace(
        built,
        compute_watt=np.concatenate((built.compute_watt[:1], off)),
        send_watt=np.concatenate((built.send_watt[:1], off)),
    )
    least = solve(alone, Weights(0.0, 1.0))
    assert free.costs is not None
    assert least.costs is not None
    return (free.costs.server_energy_joule[0] + least.costs.server_energy_joule[0]) / 2


def once(name: str, action: Callable[[], Solution], repeat: int) -> Timed:
    """Time one solve, and say how it ended."""
    found, seconds = repeated(action, repeat)
    costs = found.costs
    what = "nothing" if costs is None else f"{costs.latency_ms:.0f} ms {costs.energy_joule:.2f} J"
    return Timed(
        name, statistics.median(seconds), seconds[0], found.status.name, found.gap, what
    )  # fmt: skip


def front(name: str, built: Problem, repeat: int) -> Timed:
    """The optimum of equally spaced weights, and of the ends between which they are."""

    def action() -> list[Solution]:
        search = Search(built)
        _, ends = solve_weighted(search, 1.0)
        step = 1 / (FRONT_POINTS - 1)
        return search.solve_many([ends.weights(i * step) for i in range(FRONT_POINTS)])

    found, seconds = repeated(action, repeat)
    different = len({solution.placement for solution in found})
    return Timed(
        name, statistics.median(seconds), seconds[0], "OPTIMAL", max(s.gap for s in found),
        f"{different} different plans",
    )  # fmt: skip


def supported(name: str, built: Problem, repeat: int) -> Timed:
    """All supported points."""
    found, seconds = repeated(lambda: pareto_front(Search(built)), repeat)
    gap = max(point.solution.gap for point in found)
    return Timed(
        name, statistics.median(seconds), seconds[0], "OPTIMAL", gap, f"{len(found)} points"
    )  # fmt: skip


def repeated(action: Callable[[], T], repeat: int) -> tuple[T, list[float]]:
    """What an action gives the last time, and processor seconds of each time."""
    seconds = []
    for _ in range(repeat):
        started = time.process_time()
        found = action()
        seconds.append(time.process_time() - started)
    return found, seconds


def show_cases(rows: list[Timed]) -> None:
    """The table on stdout."""
    table = Table(title="recorded models", title_justify="left")
    for name in ("case", "seconds", "first", "ended", "gap", "found"):
        table.add_column(name, justify="left" if name in ("case", "found") else "right")
    for row in rows:
        table.add_row(
            row.name, f"{row.seconds:.3f}", f"{row.first_s:.3f}", row.status, f"{row.gap:.1e}",
            row.found,
        )  # fmt: skip
    Console(width=150).print(table)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=["scaling", "cases", "all"], default="all")
    parser.add_argument("--quick", action="store_true", help="a few sizes, one model")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Scaled] = []
    timed: list[Timed] = []
    if options.part != "cases":
        rows = [scaled(*size, options.repeat) for size in sizes(options.quick)]
        show_scaling(rows)
    if options.part != "scaling":
        timed = list(cases(options.repeat, options.quick))
        show_cases(timed)
    if options.json:
        data = {"scaling": [asdict(r) for r in rows], "cases": [asdict(t) for t in timed]}
        options.json.write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
