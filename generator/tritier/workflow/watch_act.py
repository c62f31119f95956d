"""What a watch does to servers: load what one lacks, deploy another family."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tritier.deployment.addresses import Addresses, Push, find_addresses
from tritier.deployment.client import TritonServer
from tritier.deployment.lock import deployment_lock
from tritier.deployment.switch import (
    Switched,
    SwitchOptions,
    family_of,
    load_missing,
    switch,
)
from tritier.documents import (
    DEFAULT_DEADLINE_MS,
    WHOLE,
    Classes,
    Family,
    LabState,
    Plan,
    RequestClass,
    ServersSpec,
)
from tritier.graph import LoadedModel
from tritier.pool import Pool
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow.family_generate import family_of_one, generate_family
from tritier.workflow.family_plan import plan_family
from tritier.workflow.live import LiveCheck
from tritier.workflow.planning import Planned
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest
from tritier.workflow.verify import gather_inputs

# From a plan that was found to the family that is deployed, and its plans.
MakeFamily = Callable[[Planned, Repositories], tuple[Family, Sequence[Plan]]]
# Folders of former families that stay, so that one can go back by hand.
_KEPT = 2


def alone(planned: Planned, deployed: Repositories) -> tuple[Family, Sequence[Plan]]:
    """The plan by itself, with the whole model behind it if that is there now."""
    deadline_ms = deployed.family.longest_deadline_ms if deployed.family else DEFAULT_DEADLINE_MS
    return family_of_one(planned.plan, deadline_ms, _serves_whole(deployed)), [planned.plan]


def with_alternatives(classes: Classes, request: PlanningRequest, goals: Goals) -> MakeFamily:
    """A family for these classes, planned for the network and the servers of the plan that was
    found; `request` and `goals` are those of the command, which classes change."""

    def make(planned: Planned, deployed: Repositories) -> tuple[Family, Sequence[Plan]]:
        now = planned.built.request
        here = replace(request, network=now.network, timings=now.timings, pins=now.pins)
        quick = replace(goals, explain=False, front=None)
        name, whole = planned.plan.model.name, _serves_whole(deployed)
        found = plan_family(here, quick, classes, name, with_whole=whole)
        return found.family, found.plans

    return make


def classes_of(family: Family) -> Classes:
    """The classes that a family was made for, as far as it says."""
    return Classes(
        classes={
            item.name: RequestClass(
                noise=_limit(item.noise_limits), deadline_ms=item.deadline_ms, hedge=item.hedge
            )
            for item in family.classes
        },
        default=family.default_class,
    )


def _limit(limits: Mapping[str, float]) -> float | dict[str, float] | None:
    if not limits:
        return None
    return dict(limits) if any(limits.values()) else 0.0


def _serves_whole(repositories: Repositories) -> bool:
    return any(model.kind == "whole" for model in repositories.manifest.models)


@dataclass
class Actor:
    """Acts on the servers of a servers file. `folder` gets the generated families."""

    repositories: Repositories
    servers_file: Path
    spec: ServersSpec
    lab: LabState | None
    model: LoadedModel
    folder: Path
    push: Push = "auto"
    metrics_url: str | None = None
    pool: Pool | None = None
    make_family: MakeFamily = alone
    dims: Mapping[str, int] = field(default_factory=dict)

    def addresses(self) -> Addresses:
        """Where the servers are."""
        return find_addresses(self.repositories, self.spec, self.lab)

    def deployed_plans(self) -> list[Plan | None]:
        """The plans that requests of the default class go through, in their order; None is the
        whole model."""
        family = self.repositories.family
        if family is None:
            return [self.repositories.plan]
        plans = {plan.id: plan for plan in self.repositories.plans}
        chosen = family.request_class(family.default_class).plans
        return [None if plan == WHOLE else plans[plan] for plan in chosen]

    def measured_model(self) -> str:
        """The Triton model whose requests are timed: that of the first plan of the default class,
        without what the router itself takes."""
        first = self.deployed_plans()[0]
        return f"{self.repositories.plan.model.name}__{first.id if first else WHOLE}"

    def predicted_ms(self) -> float | None:
        """What requests of the default class are predicted to take."""
        first, family = self.deployed_plans()[0], self.repositories.family
        return family.plan(first.id).latency_ms if first and family else None

    def wanted(self) -> dict[str, frozenset[str]]:
        """Names of the models that each server should serve."""
        models = self.repositories.manifest.models
        servers = {model.server for model in models}
        return {x: frozenset(m.name for m in models if m.server == x) for x in servers}

    def reconcile(self, names: Collection[str]) -> list[str]:
        """Load what these servers lack. Raises ServerError."""
        with deployment_lock(self.servers_file):
            return load_missing(self.repositories, self.addresses(), names, self.push)

    def switch(self, planned: Planned, cancelled: Callable[[], bool]) -> Switched:
        """Deploy the family of a plan. Raises ServerError, CheckFailed, InputError, Cancelled; then
        what was deployed still is."""
        family, plans = self.make_family(planned, self.repositories)
        files, _ = generate_family(family, plans, self.model, self._options(), self.pool)
        folder = self.folder / planned.plan.id
        write_files(files, folder, force=True)
        fresh = Repositories.open(folder)
        done = self._deploy(fresh, cancelled)
        self.repositories = fresh
        self._tidy()
        return done

    def deploy(self) -> Switched:
        """Deploy what is to be watched, or check that it is deployed. Raises as `switch`."""
        return self._deploy(self.repositories, lambda: False)

    def adopt(self) -> bool:
        """Go on with the family that serves now if it is one that an earlier watch deployed."""
        entry, name = self.repositories.plan.entry.name, self.repositories.plan.model.name
        with TritonServer(entry, self.addresses().urls[entry]) as server:
            found = family_of(server.config(name)) if server.serves(name) else None
        for manifest in self.folder.glob("*/manifest.json"):
            if found and found != self.repositories.id:
                repositories = Repositories.open(manifest.parent)
                if repositories.id == found:
                    self.repositories = repositories
                    return True
        return False

    def _deploy(self, fresh: Repositories, cancelled: Callable[[], bool]) -> Switched:
        check = LiveCheck(fresh, self.model, gather_inputs(fresh.plan, 1, 0, dims=self.dims))
        options = SwitchOptions(self.push, check, self.metrics_url, cancelled)
        with deployment_lock(self.servers_file):
            return switch(fresh, find_addresses(fresh, self.spec, self.lab), options)

    def _options(self) -> GenerateOptions:
        """As what is deployed now was generated."""
        part = self.repositories.parts()[0]
        family = self.repositories.family
        return GenerateOptions(
            deadline_ms=family.longest_deadline_ms if family else GenerateOptions().deadline_ms,
            optimisation=part.tolerances[-1].optimisation,
            dims=self.dims,
        )

    def _tidy(self) -> None:
        """Remove the folders of families of long ago."""
        found = sorted(
            (path for path in self.folder.iterdir() if (path / "manifest.json").is_file()),
            key=lambda path: path.stat().st_mtime,
        )
        for path in found[: -_KEPT - 1]:
            if path != self.repositories.path:
                shutil.rmtree(path, ignore_errors=True)
