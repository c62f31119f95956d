"""Explain a plan: what each server and link does, which limits bind, what changes would bring."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tritier.documents import (
    GENERATOR,
    Alternative,
    Baseline,
    FrontEntry,
    Gain,
    LimitUse,
    LinkShare,
    PlanFigures,
    ServerShare,
    ThroughputEntry,
)
from tritier.planner.alternatives import Variant, relaxations, runner_ups
from tritier.planner.baselines import Baseline as KnownBaseline
from tritier.planner.evaluate import Violation
from tritier.planner.objective import pareto_front
from tritier.planner.problem import Placement, Problem
from tritier.planner.simulate import throughput
from tritier.timing.durations import MIB
from tritier.workflow.planning_figures import Predictor
from tritier.workflow.planning_goals import Goals
from tritier.workflow.planning_search import Found
from tritier.workflow.problem import BuiltProblem
from tritier.workflow.problem_links import LinkTimes, transfers
from tritier.workflow.problem_money import moved

_BINDING = 0.99
# Limits used up to this share are tried out a tenth larger, links with this much more.
_NEARLY, _LARGER, _MORE_MIB_S = 0.9, 1.1, 1.0


def server_shares(predictor: Predictor, placement: Placement) -> tuple[ServerShare, ...]:
    """Of every server that may be used, the unused too."""
    problem, found = predictor.problem, predictor.predict(placement)
    pipeline = predictor.pipeline(placement)
    inner = placement.servers[1:-1]
    return tuple(
        ServerShare(
            server=name,
            layers=inner.count(k),
            components=sum(
                1 for component in pipeline.components if component.server == k and component.layers
            ),
            compute_ms=found.costs.server_ms[k],
            energy_joule=found.costs.server_energy_joule[k],
            memory_bytes=round(found.costs.memory_bytes[k]),
        )
        for k, name in enumerate(problem.servers)
    )


def link_shares(predictor: Predictor, placement: Placement) -> tuple[LinkShare, ...]:
    """Of every link that is used."""
    problem, costs = predictor.problem, predictor.predict(placement).costs
    sizes, coded_sizes = predictor.sizes(costs), predictor.built.coded_bytes
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for flow, source, target, coded, milliseconds in costs.crossings:
        size = float((coded_sizes if coded else sizes)[flow])
        found.setdefault((source, target), []).append((size, milliseconds))
    return tuple(
        LinkShare.model_validate(
            {
                "from": problem.servers[source],
                "to": problem.servers[target],
                "tensors": len(items),
                "bytes": round(sum(size for size, _ in items)),
                "transfer_ms": sum(ms for _, ms in items),
            }
        )
        for (source, target), items in sorted(found.items())
    )


def limit_uses(
    predictor: Predictor, placement: Placement, measured: Mapping[str, float]
) -> tuple[LimitUse, ...]:
    """Every limit, and how much of it is used: of noise what was `measured`, by output, if it
    was."""
    problem, costs = predictor.problem, predictor.predict(placement).costs
    limits, names = problem.limits, problem.servers
    rows = [
        ("latency", "ms", costs.latency_ms, limits.latency_ms),
        ("energy", "J", costs.energy_joule, limits.energy_joule),
    ]
    rows += [
        (f"energy of {names[k]}", "J", costs.server_energy_joule[k], limit)
        for k, limit in enumerate(limits.server_energy_joule)
    ]
    rows += [
        (f"memory of {names[k]}", "MiB", (costs.memory_bytes[k] + process) / MIB,
         (limit + process) / MIB)
        for k, limit in enumerate(limits.memory_bytes)
        for process in [predictor.process_bytes(k)]
    ]  # fmt: skip
    rows += [_noise_use(predictor, placement, index, measured)
             for index in range(len(problem.noise.rows))]  # fmt: skip
    return tuple(
        LimitUse(
            what=what, unit=unit, used=used, limit=limit, binding=used > _BINDING * limit
        )
        for what, unit, used, limit in rows
        if math.isfinite(limit)
    )  # fmt: skip


def _noise_use(
    predictor: Predictor, placement: Placement, index: int, measured: Mapping[str, float]
) -> tuple[str, str, float, float]:
    row, request = predictor.problem.noise.rows[index], predictor.built.request
    if row.output in measured:  # the row may have some slack, the limit has none
        what = f"noise of {row.output}, measured"
        return what, "", measured[row.output], request.noise_limits[row.output]
    margin = " with its margin" if request.noise_margin else ""
    load = row.load(placement.quantized) or predictor.wire_load(index, placement)
    used = predictor.noise_of_load(index, load)
    return f"noise of {row.output}{margin}", "", used, predictor.noise_of_load(index, row.budget)


def baseline_entries(predictor: Predictor, found: Found) -> tuple[Baseline, ...]:
    """The table of rule R8."""
    return tuple(
        Baseline(
            what=baseline_text(predictor, item),
            figures=predictor.figures(item.placement),
            broken=tuple(broken_text(predictor, x) for x in item.broken),
            chosen=item.placement == found.placement,
        )
        for item in found.baselines
        if math.isfinite(item.costs.latency_ms)
    )


def baseline_text(predictor: Predictor, item: KnownBaseline) -> str:
    """A baseline in words. An input of 8-bit pixels is what `tritier prepare --pixels` makes."""
    problem = predictor.problem
    server = problem.servers[item.server]
    if item.cut_after is None:
        tensors = predictor.built.request.profile.tensors
        types = {tensor.dtype for tensor in tensors if tensor.source == GENERATOR}
        kind = "8-bit input" if types == {"uint8"} else "raw input"
        return f"all on {server}" + (f", {kind}" if item.server != problem.entry else "")
    return f"best single cut to {server}, after '{problem.layers[item.cut_after]}'"


def broken_text(predictor: Predictor, broken: Violation) -> str:
    """A limit that is not kept, in words."""
    if broken.kind == "allowed":
        return "layers or tensors that may not be there"
    if broken.kind == "noise":
        return "noise"
    where = "" if broken.server is None else f" of {predictor.problem.servers[broken.server]}"
    if broken.kind == "memory" and broken.server is not None:
        process = predictor.process_bytes(broken.server)
        used, limit = (broken.value + process) / MIB, (broken.limit + process) / MIB
        return f"memory{where}: {used:.4g} MiB of {limit:.4g}"
    unit = "ms" if broken.kind == "latency" else "J"
    return f"{broken.kind.removeprefix('server ')}{where}: {broken.value:.4g} {unit} of " + (
        f"{broken.limit:.4g}"
    )


def alternative_entries(predictor: Predictor, found: Found, goals: Goals) -> list[Alternative]:
    """The best plans with fewer servers, and the nearest other placement."""
    if goals.objective == "throughput":
        return []  # runner-ups are solved for sums
    shown = {found.placement, *(item.placement for item in found.baselines)}
    return [
        Alternative(what=item.what, figures=predictor.figures(item.solution.placement))
        for item in runner_ups(found.search, found.weights, found.solution)
        if item.solution.placement is not None and item.solution.placement not in shown
    ]


def gain_entries(predictor: Predictor, found: Found, goals: Goals) -> list[Gain]:
    """What better links and looser limits bring the plan, each solved again; what brings the
    optimum nothing is left out."""
    if goals.objective in ("throughput", "makespan"):
        return []
    assert found.placement is not None
    plan = replace(
        found.solution,
        placement=found.placement,
        costs=predictor.predict(found.placement).costs,
    )
    variants = list(_variants(predictor, found))
    gains = [
        Gain(
            what=item.what,
            sum_ms=item.latency_ms,
            energy_joule=item.energy_joule,
            cost_usd=item.usd,
        )
        for item in relaxations(found.search, found.weights, plan, variants)
        if item.solution.value < found.solution.value * (1 - 1e-6)
    ]
    if goals.objective == "cost":
        return sorted(gains, key=lambda gain: (gain.cost_usd, gain.sum_ms))
    return sorted(gains, key=lambda gain: (gain.sum_ms, gain.energy_joule))


def _variants(predictor: Predictor, found: Found) -> Iterator[Variant]:
    problem, built = predictor.problem, predictor.built
    for key, link in built.links.items():
        if link.network_ms_per_mib > 0:
            rate = 1000.0 / link.network_ms_per_mib + _MORE_MIB_S
            better = replace(link, network_ms_per_mib=1000.0 / rate)
            yield Variant(
                f"+{_MORE_MIB_S:g} MiB/s on {link.source} -> {link.target}",
                _with_link(built, problem, key, better),
            )
        if link.one_way_ms > 0:
            yield Variant(
                f"half the round trip of {link.source} -> {link.target}",
                _with_link(built, problem, key, replace(link, one_way_ms=link.one_way_ms / 2)),
            )
    assert found.solution.placement is not None
    yield from _looser(predictor, found.solution.placement)


def _with_link(
    built: BuiltProblem, problem: Problem, key: tuple[int, int], link: LinkTimes
) -> Problem:
    moving = transfers(built.tensors, {**built.links, key: link})
    return moved(problem, built.request, built.tensors, moving)


def _looser(predictor: Predictor, placement: Placement) -> Iterator[Variant]:
    """Limits that are nearly used up, a tenth larger; limits of noise always, as sets of layers
    leave some of it unused."""
    problem, built = predictor.problem, predictor.built
    limits, costs = problem.limits, predictor.predict(placement).costs
    for name, used in (
        ("server_energy_joule", costs.server_energy_joule), ("memory_bytes", costs.memory_bytes)
    ):  # fmt: skip
        values = getattr(limits, name)
        what = "energy" if name == "server_energy_joule" else "memory"
        for k, limit in enumerate(values):
            if math.isfinite(limit) and used[k] > _NEARLY * limit:
                # A tenth of what the user allows, which is for the server itself, too.
                whole = limit + (predictor.process_bytes(k) if what == "memory" else 0)
                more = whole * (_LARGER - 1)
                larger = tuple(x + more if i == k else x for i, x in enumerate(values))
                changes: dict[str, Any] = {name: larger}
                yield Variant(
                    f"+10 % {what} on {problem.servers[k]}",
                    replace(problem, limits=replace(limits, **changes)),
                )
    for name, used_total in (
        ("latency_ms", costs.latency_ms), ("energy_joule", costs.energy_joule)
    ):  # fmt: skip
        limit = getattr(limits, name)
        if math.isfinite(limit) and used_total > _NEARLY * limit:
            looser = replace(limits, **{name: limit * _LARGER})
            yield Variant(f"+10 % {name.split('_')[0]} in all", replace(problem, limits=looser))
    request = built.request
    if problem.noise.rows:
        looser_rows = [
            row
            for model in request.noise
            for row in built.rows_for(model, share=_LARGER, with_margin=request.noise_margin)
        ]
        rows = tuple(  # with the noise of codecs, which counts beside that of layers
            replace(row, budget=looser.budget)
            for row, looser in zip(problem.noise.rows, looser_rows, strict=True)
        )
        noise = replace(problem.noise, rows=rows)
        yield Variant("+10 % noise", replace(problem, noise=noise))


def front_entries(predictor: Predictor, found: Found, goals: Goals) -> list[FrontEntry]:
    """The front, if it is wanted."""
    if goals.front is None:
        return []
    points = pareto_front(found.search, goals.front, time_limit_s=goals.time_limit_s)
    return [
        FrontEntry(figures=predictor.figures(p.solution.placement), supported=p.supported)
        for p in points
        if p.solution.placement is not None
    ]


def throughput_entries(
    predictor: Predictor, placement: Placement, goals: Goals
) -> list[ThroughputEntry]:
    """Predicted throughput for so many users at once."""
    pipeline = predictor.pipeline(placement)
    found = [throughput(pipeline, users) for users in goals.concurrency]
    return [
        ThroughputEntry(concurrency=x.concurrency, infer_per_s=x.infer_per_s, latency_ms=x.mean_ms)
        for x in found
        if np.isfinite(x.infer_per_s)
    ]


def best_figures(predictor: Predictor, found: Found) -> PlanFigures:
    """Of what is to be done."""
    assert found.placement is not None
    return predictor.figures(found.placement)
