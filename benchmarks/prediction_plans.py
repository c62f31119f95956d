"""The plans of `prediction`: optimal ones over aims and limits, and random ones."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.kept import file_hash
from benchmarks.tiers import Subject, layer_names
from tritier.documents import (
    Assignment,
    Codec,
    NetworkState,
    NoiseModel,
    Plan,
    Ranges,
    ServersSpec,
    TimingProfile,
)
from tritier.errors import InfeasibleError, InputError
from tritier.graph import Quantizable, build_layer_graph, profile_model
from tritier.workflow.plan import plan_from_assignment
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest, WireCodec

WEIGHTS = (1.0, 0.5, 0.0)
_CODECS: tuple[WireCodec, ...] = ("as_is", "fp16")


@dataclass(frozen=True)
class Made:
    """A plan and how it came about: `optimal` with its aim, or `random`."""

    plan: Plan
    kind: str
    aim: str

    @property
    def tiers(self) -> int:
        """Servers on which it has layers."""
        return len({part.server for part in self.plan.components})


def signature(plan: Plan) -> str:
    """The same for plans that do the same: components, int8 layers, and codecs of wires."""
    names = {tensor.id: tensor.name for tensor in plan.tensors}
    return file_hash(
        [[part.server, sorted(part.layers)] for part in plan.components],
        sorted(plan.quantized_layers),
        sorted([names[w.tensor], w.source, w.target, w.codec] for w in plan.wires),
    )


@dataclass(frozen=True)
class Maker:
    """Makes plans of a model from what was measured. Each gets a Triton model's name of its own, by
    what it does, so that several can be served at once."""

    subject: Subject
    spec: ServersSpec
    timings: Mapping[str, TimingProfile]
    network: NetworkState
    ranges: Ranges
    noise: NoiseModel | None
    prefix: str

    def optimal(self, limits: Sequence[float]) -> Iterator[Made]:
        """The best plans of the entry alone, with one server, and with all, for each weight of
        latency against energy and each noise limit; each once."""
        entry = self.spec.entry.name
        others = [name for name in self.timings if name != entry]
        chosen = [(entry,), *((entry, name) for name in others), tuple(self.timings)]
        for servers, weight, limit in itertools.product(chosen, WEIGHTS, limits):
            request = self.request(servers, limit, _CODECS)
            goals = Goals("weighted", weight, time_limit_s=10.0, explain=False)
            try:
                plan = make_plan(request, goals, self.prefix).plan
            except InfeasibleError:
                continue
            yield Made(
                self.named(plan), "optimal", f"latency {weight:g}, noise {limit:g}, {len(servers)}"
            )

    def request(
        self, servers: Sequence[str], limit: float, codecs: Sequence[WireCodec]
    ) -> PlanningRequest:
        """To plan for these servers within a noise limit; 0: exactly the model."""
        item = self.subject
        freely = limit > 0 and self.noise is None
        limited = limit > 0 and self.noise is not None
        outputs = [x.output for x in self.noise.outputs] if self.noise else []
        allowed = tuple(codecs) if limit > 0 else ("as_is",)
        pairs = itertools.permutations(servers, 2)
        return PlanningRequest(
            model=item.model,
            graph=build_layer_graph(item.model.proto),
            profile=profile_model(item.model, item.dims, Quantizable()),
            servers=self.spec,
            timings={name: self.timings[name] for name in servers},
            network=self.network,
            noise=(self.noise,) if limited and self.noise else (),
            noise_limits=dict.fromkeys(outputs, limit) if limited else {},
            unlimited_noise=freely,
            wire_codecs=dict.fromkeys(pairs, allowed),
            int8_tensors=("*",) if "int8" in allowed else (),
            ranges=self.ranges,
        )

    def drawn(self, tiers: int, seed: int) -> Made:
        """Runs of consecutive layers on servers drawn at random, so many of them in use, with int8
        layers and a codec of wires drawn as well."""
        dice = random.Random(f"{seed} {tiers}")  # noqa: S311 - no secret
        layers = layer_names(self.subject)
        entry = self.spec.entry.name
        others = [name for name in self.timings if name != entry]
        used = [entry, *dice.sample(others, tiers - 1)]
        pieces = dice.randint(tiers, tiers + 1) if tiers > 1 else 1
        servers = [dice.choice(used) for _ in range(pieces)]
        while len(set(servers)) < tiers or any(a == b for a, b in itertools.pairwise(servers)):
            servers = [dice.choice(used) for _ in range(pieces)]
        cuts = sorted(dice.sample(range(1, len(layers)), pieces - 1))
        where = {
            layer: servers[sum(index >= cut for cut in cuts)] for index, layer in enumerate(layers)
        }
        known = profile_model(self.subject.model, self.subject.dims, Quantizable())
        timed = {
            layer.name
            for layer in next(iter(self.timings.values())).layers
            if layer.int8_ms is not None
        }
        candidates = [name for name in known.quantizable_layers if name in timed]
        share = dice.choice([0.0, 0.0, 0.3, 0.7]) if tiers > 1 else dice.choice([0.2, 0.5, 0.8])
        int8 = [name for name in candidates if dice.random() < share]
        codec: Codec | None = dice.choice([None, None, "fp16", "int8"]) if tiers > 1 else None
        assignment = Assignment(layers=where, quantized_layers=tuple(int8), wire_codec=codec)
        plan = plan_from_assignment(
            self.subject.model, assignment, self.spec, self.prefix, self.ranges
        )
        return Made(self.named(plan), "random", f"{pieces} runs, {len(int8)} int8, {codec}")

    def named(self, plan: Plan) -> Plan:
        """With a name by what it does."""
        name = f"{self.prefix}-{signature(plan)}"
        model = plan.model.model_copy(update={"name": name})
        data = plan.model_copy(update={"model": model, "plan_id": None, "predictions": None})
        return Plan.from_data(data.model_dump(mode="json", by_alias=True, exclude_none=True))


def select(optimal: Sequence[Made], drawn: Iterator[Made], wanted: int) -> list[Made]:
    """So many different plans: of each number of tiers as many as of the others if there are, first
    the optimal ones (those of different aims first), then drawn ones."""
    found: dict[str, Made] = {}
    per_tier: dict[int, int] = {}
    for made in optimal:
        key = signature(made.plan)
        # Not all may be optimal: then they would all be alike.
        if key not in found and per_tier.get(made.tiers, 0) < wanted // 4:
            found[key] = made
            per_tier[made.tiers] = per_tier.get(made.tiers, 0) + 1
    for made in drawn:
        if len(found) >= wanted:
            break
        found.setdefault(signature(made.plan), made)
    return list(found.values())[:wanted]


def endless(maker: Maker, tiers: Sequence[int], seed: int, most: int = 500) -> Iterator[Made]:
    """Drawn plans with each number of tiers in turn; those that can't be made are left out."""
    for number in range(most):
        # A detour that no component can make, a layer without a time: drawn again.
        with suppress(InfeasibleError, InputError):
            yield maker.drawn(tiers[number % len(tiers)], seed + number)
