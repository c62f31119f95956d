"""What anyone would do without a planner (rule R8): everything on one server, or one cut.

Baselines quantize too: all on one server as well as plans do, a cut with the largest sets that the
noise allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tritier.planner.evaluate import Costs, Violation, evaluate, violations
from tritier.planner.problem import Bools, Floats, Limits, Placement, Problem, Weights
from tritier.planner.rows import worth_of
from tritier.planner.search import Search

# Cuts that are looked at in full, the best first, until one keeps all limits.
_TRIED = 200


@dataclass(frozen=True)
class Baseline:
    """`kind` is 'all on one server' or 'single cut', `server` where the layers go (behind the cut,
    the layers before it are on the entry). What is `forbidden` or over a limit is in `broken`."""

    kind: str
    server: int
    placement: Placement
    costs: Costs
    broken: tuple[Violation, ...]
    cut_after: int | None = None

    @property
    def is_feasible(self) -> bool:
        """Whether it keeps all limits."""
        return not self.broken


def baselines(problem: Problem, weights: Weights) -> list[Baseline]:
    """All on each server, the entry first, then the best single cut to each other server."""
    others = [k for k in range(len(problem.servers)) if k != problem.entry]
    found = [_all_on(problem, weights, server) for server in (problem.entry, *others)]
    cuts = [_best_cut(problem, weights, server) for server in others]
    return found + [cut for cut in cuts if cut is not None]


def _all_on(problem: Problem, weights: Weights, server: int) -> Baseline:
    """Limits of energy and memory are left out to see what it costs; what it breaks is told."""
    allowed = np.zeros_like(problem.allowed)
    allowed[1:-1, server] = True
    allowed[[0, -1], problem.entry] = True
    placement = _cheapest(problem, weights, allowed)
    costs = evaluate(problem, placement)
    broken = tuple(violations(problem, placement, costs))
    return Baseline("all on one server", server, placement, costs, broken)


def _cheapest(problem: Problem, weights: Weights, allowed: Bools) -> Placement:
    """The best choice of quantized layers, within all limits if that is possible."""
    servers = tuple(int(row.argmax()) for row in allowed)
    for limits in dict.fromkeys((problem.limits, Limits())):
        restricted = replace(problem, allowed=allowed, limits=limits)
        found = Search(restricted).solve(weights, time_limit_s=5.0)
        if found.placement is not None:
            return found.placement
    return Placement(servers)


def _best_cut(problem: Problem, weights: Weights, server: int) -> Baseline | None:
    """The best of all cuts through the order of the layers, each with the best of the largest sets
    of quantized layers; None if there are no two layers to cut between."""
    best: Baseline | None = None
    for found in itertools.islice(_cuts(problem, weights, server), _TRIED):
        if found.is_feasible:
            return found
        best = best or found
    return best


def best_cuts(problem: Problem, weights: Weights, server: int, count: int) -> list[Baseline]:
    """Single cuts to a server, the best first, each once, with the quantized layers that suit it
    best; so many at most. Those that are over a limit are among them: `broken` says so."""
    found: dict[int | None, Baseline] = {}
    for item in _cuts(problem, weights, server):
        found.setdefault(item.cut_after, item)
        if len(found) == count:
            break
    return list(found.values())


def _cuts(problem: Problem, weights: Weights, server: int) -> Iterator[Baseline]:
    """All cuts that can be, with each of the largest sets of quantized layers, the best first."""
    masks = _masks(problem)
    values = np.stack([_cut_values(problem, weights, server, mask) for mask in masks], axis=1)
    for index in np.argsort(values, axis=None):
        cut, choice = (int(i) for i in np.unravel_index(index, values.shape))
        if not np.isfinite(values[cut, choice]):
            break
        servers = [problem.entry] * (cut + 2) + [server] * (len(problem.layers) - cut - 3)
        servers.append(problem.entry)
        placement = Placement(tuple(servers), _offered(problem, servers, masks[choice]))
        costs = evaluate(problem, placement)
        broken = tuple(violations(problem, placement, costs))
        yield Baseline("single cut", server, placement, costs, broken, cut_after=cut + 1)


def _offered(problem: Problem, servers: Sequence[int], mask: int) -> int:
    """The layers of a mask that can be quantized where they stand."""
    modes = _modes(problem, mask)
    return sum(1 << bit for layer, bit in problem.bit_of.items() if modes[layer, servers[layer]])


def _masks(problem: Problem) -> Sequence[int]:
    if not problem.quantizable:
        return (0,)
    if problem.noise.limits and problem.noise.is_tabulated:
        return tuple(dict.fromkeys((0, *problem.noise.largest)))
    full = (1 << len(problem.quantizable)) - 1
    return (0, full) if not problem.noise.limits else (0, *_greedy(problem))


def _greedy(problem: Problem) -> Iterator[int]:
    """One layer after the other, those that gain most on any server first, while it is allowed."""
    gains = (problem.float_ms - problem.int8_ms).max(axis=1)
    mask = 0
    for layer in sorted(problem.quantizable, key=lambda layer: -gains[layer]):
        if problem.noise.allows(mask | 1 << problem.bit_of[layer]):
            mask |= 1 << problem.bit_of[layer]
    yield mask


def _cut_values(problem: Problem, weights: Weights, server: int, mask: int) -> Floats:
    """The objective of each cut with these layers quantized, where int8 is offered; [layers - 3]:
    entry i is the cut after layer i + 1. Infinite where something can't be."""
    count, entry = len(problem.layers), problem.entry
    int8 = _modes(problem, mask)
    behind = np.arange(count + 1)  # the first layer behind each cut
    worth = worth_of(problem, weights)
    total, blocked = np.zeros(count + 1), np.zeros(count + 1)
    for place, side in ((entry, slice(None)), (server, slice(None, None, -1))):
        times = np.where(int8[:, place], problem.int8_ms[:, place], problem.float_ms[:, place])
        wrong = ~problem.allowed[:, place] | ~np.isfinite(times)
        wrong[[0, -1]] = False
        times = np.where(wrong | (behind[:-1] == 0) | (behind[:-1] == count - 1), 0.0, times)
        total += np.r_[0.0, np.cumsum((times * worth.compute[place])[side])][side]
        blocked += np.r_[0, np.cumsum(wrong[side])][side]
    for index, flow in enumerate(problem.flows):
        inner = [layer for layer in flow.consumers if layer < count - 1]
        passages = []
        if inner:  # to the server, if the cut is behind its source and before its last reader
            passages.append((entry, server, behind[flow.source + 1 : inner[-1] + 1]))
        if flow.consumers[-1] == count - 1 and flow.source > 0:  # back, if it is made there
            passages.append((server, entry, behind[: flow.source + 1]))
        for source, target, cuts in passages:
            coded = np.zeros(len(cuts), dtype=bool)
            for layer in flow.coded_by:
                coded |= np.where(layer < cuts, int8[layer, entry], int8[layer, server])
            times = np.where(
                coded, problem.coded_ms[index, source, target],
                problem.transfer_ms[index, source, target],
            )  # fmt: skip
            wrong = ~np.isfinite(times)
            total[cuts] += np.where(wrong, 0.0, times) * worth.send[source]
            if worth.per_usd and problem.money is not None:
                paid = problem.money.coded_crossing, problem.money.crossing
                small, plain = (table[index, source, target] for table in paid)
                total[cuts] += np.where(coded, small, plain) * worth.per_usd
            blocked[cuts] += wrong
    return np.where(blocked > 0, np.inf, total)[2:-2]


def _modes(problem: Problem, mask: int) -> Bools:
    """Whether each layer is quantized on each server; [layers, servers]."""
    found = np.zeros(problem.int8_ms.shape, dtype=bool)
    for layer, bit in problem.bit_of.items():
        if mask >> bit & 1:
            found[layer] = np.isfinite(problem.int8_ms[layer])
    return found
