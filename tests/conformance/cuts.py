"""Place the layers of a model on three servers, cut it, run the parts, judge."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.conformance.cases import Case
from tests.helpers.models import spec
from tritier.divider import Chain, cut_model, realise
from tritier.documents import Plan
from tritier.errors import InputError
from tritier.workflow import plan_from_placement

SERVERS = "abc"  # a is the entry
# Up to here every placement is tried: 3 ** 5 of them.
_EXHAUSTIVE = 5

Placement = dict[str, str]
Reasons = tuple[str, ...]


def every_placement(layers: Sequence[str]) -> Iterator[Placement]:
    """All ways to place layers."""
    for servers in itertools.product(SERVERS, repeat=len(layers)):
        yield dict(zip(layers, servers, strict=True))


def drawn_placements(layers: Sequence[str], count: int, seed: int) -> Iterator[Placement]:
    """`count` placements, all different, on at least two servers: in turn runs of layers, a few
    layers that stand apart from the rest, and a server for each layer by itself."""
    draw = random.Random(seed)
    kinds = itertools.cycle((_runs, _few_apart, _each))
    found: set[tuple[str, ...]] = set()
    while len(found) < count:
        servers = tuple(next(kinds)(draw, len(layers)))
        if len(set(servers)) > 1 and servers not in found:
            found.add(servers)
            yield dict(zip(layers, servers, strict=True))


def is_cut(placement: Mapping[str, str]) -> bool:
    """Whether more than one server has layers."""
    return len(set(placement.values())) > 1


def _runs(draw: random.Random, count: int) -> list[str]:
    starts = set(draw.sample(range(1, count), min(draw.randint(1, 7), count - 1)))
    servers, server = [], draw.choice(SERVERS)
    for index in range(count):
        if index in starts:
            server = draw.choice(SERVERS.replace(server, ""))
        servers.append(server)
    return servers


def _few_apart(draw: random.Random, count: int) -> list[str]:
    servers = [draw.choice(SERVERS)] * count
    for index in draw.sample(range(count), max(1, count // 12)):
        servers[index] = draw.choice(SERVERS)
    return servers


def _each(draw: random.Random, count: int) -> list[str]:
    return [draw.choice(SERVERS) for _ in range(count)]


@dataclass
class Split:
    """A model, cut."""

    case: Case
    plan: Plan
    models: dict[str, bytes]

    def loads(self) -> bool:
        """Whether ONNX Runtime loads all parts."""
        try:
            Chain(self.plan, self.models, "disabled")
        except InputError:
            return False
        return True

    def check(self, index: int) -> None:
        """Fail unless the chained parts give the answer to a sample."""
        parts = Chain(self.plan, self.models, "disabled").run(self.case.samples[index].inputs)
        self.case.check(index, parts)


def split(case: Case, placement: Mapping[str, str]) -> Split:
    """Plan and cut; InputError if the planner or the divider refuses."""
    plan = plan_from_placement(case.model, case.graph, placement, spec(SERVERS), "m")
    subs = cut_model(realise(case.model.proto, case.graph, plan))
    return Split(case, plan, {sub.component: sub.data for sub in subs})


def judge(case: Case, placement: Mapping[str, str], samples: Sequence[int]) -> Reasons:
    """Nothing when the parts equal the whole, else why the cut is refused.

    What ONNX Runtime refuses counts only if it refuses the whole model as well as the parts.
    """
    try:
        made = split(case, placement)
    except InputError as error:
        return error.faults
    try:
        for index in samples:
            case.whole(index)
    except InputError as error:
        assert not made.loads(), f"{case.name}: only the parts load, placed {placement}"
        return error.faults
    try:
        for index in samples:
            made.check(index)
    except (AssertionError, InputError) as error:
        error.add_note(f"{case.name}, placed {placement}")
        raise
    return ()


@dataclass
class Result:
    """What became of a model: of its cuts, and of all its layers moved together."""

    name: str
    layers: int
    equal: int = 0
    refused: int = 0
    moved: int = 0
    stuck: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def cuts(self) -> int:
        """How many cuts were tried."""
        return self.equal + self.refused

    @property
    def outcome(self) -> str:
        """`equal` and `refused` if that holds for each cut; both at once is an outcome that the
        expectations don't have."""
        if self.layers < 2:
            return "not multi-node"
        found = [word for word in ("equal", "refused") if getattr(self, word)]
        return " and ".join(found) or "not tried"

    def add(self, placement: Mapping[str, str], reasons: Reasons) -> None:
        """Count a judgement."""
        self.reasons.update(reasons)
        if is_cut(placement):
            self.refused += bool(reasons)
            self.equal += not reasons
        else:
            self.stuck += bool(reasons)
            self.moved += not reasons


def try_model(case: Case, count: int, seed: int = 0) -> Result:
    """Cut a model in every way if it is small, else in `count` ways, each on one sample, in turn;
    no small model has more than one."""
    result = Result(case.name, len(case.layers))
    small = len(case.layers) <= _EXHAUSTIVE
    placements = (
        every_placement(case.layers) if small else drawn_placements(case.layers, count, seed)
    )
    for index, placement in enumerate(placements):
        result.add(placement, judge(case, placement, [index % len(case.samples)]))
    return result
