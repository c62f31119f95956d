"""Cuts of a model in two, and processes that are kept on one core: for `serving_overhead`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tritier.documents import ModelProfile, Plan, ServersSpec
from tritier.graph import LayerGraph, LoadedModel
from tritier.planner import Group
from tritier.workflow.plan import plan_from_groups


@dataclass(frozen=True)
class Cut:
    """Between the first `after` layers and the rest: the share of FLOPs before it, and the bytes of
    tensors that cross it forwards."""

    after: int
    share: float
    crossing_bytes: int


def cuts_of(profile: ModelProfile, graph: LayerGraph) -> list[Cut]:
    """All cuts through the model's order of layers."""
    names = [layer.name for layer in graph.layers]
    at = {name: index for index, name in enumerate(names)}
    flops = {layer.name: layer.flops or 0 for layer in profile.layers}
    total = sum(flops[name] for name in names) or 1
    found, done = [], 0
    for after in range(1, len(names)):
        done += flops[names[after - 1]]
        crossing = 0
        for tensor in profile.tensors:
            readers = [at[name] for name in tensor.consumers if name in at]
            made = at.get(tensor.source, -1)
            if readers and made < after <= max(readers) and made >= 0:
                crossing += tensor.bytes or 0
        found.append(Cut(after, done / total, crossing))
    return found


def balanced(cuts: Sequence[Cut], within: float = 0.08) -> Cut:
    """The cut with the fewest bytes of those that divide the FLOPs best, or nearly as well."""
    best = min(abs(cut.share - 0.5) for cut in cuts)
    return min(
        (cut for cut in cuts if abs(cut.share - 0.5) <= best + within),
        key=lambda cut: (cut.crossing_bytes, abs(cut.share - 0.5)),
    )


def steadiest(cuts: Sequence[Cut], stages_ms: Callable[[Cut], tuple[float, float]]) -> Cut:
    """The cut whose slower stage is the fastest, by measured times of both; of the lightest cuts
    of each twentieth of the FLOPs between a fifth and four fifths, or of all cuts if none is
    there."""
    wanted = [cut for cut in cuts if 0.2 <= cut.share <= 0.8] or list(cuts)
    # Where FLOPs lie says little of times: candidates from all over, not only the lightest few.
    parts: dict[int, Cut] = {}
    for cut in sorted(wanted, key=lambda cut: (cut.crossing_bytes, abs(cut.share - 0.5))):
        parts.setdefault(int(cut.share * 20), cut)
    return min(parts.values(), key=lambda cut: max(stages_ms(cut)))


def lightest(cuts: Sequence[Cut]) -> Cut:
    """The cut with the fewest bytes, the later one of equal ones."""
    return min(cuts, key=lambda cut: (cut.crossing_bytes, -cut.after))


def two_parts(
    model: LoadedModel,
    graph: LayerGraph,
    spec: ServersSpec,
    after: int,
    servers: tuple[str, str],
    name: str,
) -> Plan:
    """The plan with the first `after` layers on one server and the rest on another, or the same,
    in components of their own."""
    names = tuple(layer.name for layer in graph.layers)
    groups = [Group(servers[0], names[:after]), Group(servers[1], names[after:])]
    return plan_from_groups(model, graph, [g for g in groups if g.layers], spec, name)


def pin(pid: int, cores: set[int]) -> None:
    """Keep a process and all that it started, with all their threads, on these cores."""
    for process in _family(pid):
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(task.name), cores)


def _family(pid: int) -> list[int]:
    """A process and what it started, and what that started."""
    found = [pid]
    for process in found:  # grows on the way
        for task in Path(f"/proc/{process}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found
