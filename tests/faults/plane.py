"""A deployed family of plans before a router, and what the router says of itself."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.faults import server_of
from tests.helpers.load import Asker, Question
from tests.helpers.small import questions, write_small
from tritier.deployment.deploy import Addresses, deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.deployment.security import LabProtection
from tritier.documents import (
    Assignment,
    Family,
    FamilyClass,
    FamilyPlan,
    LabServer,
    LabState,
    Plan,
    ServersSpec,
)
from tritier.graph import LoadedModel
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import plan_from_assignment
from tritier.workflow.family_generate import generate_family

DEADLINE_MS = 4000
# What an answer may take beyond its deadline on a machine that does other things, too.
SLACK_MS = 1500
PROBE_INTERVAL_S = 1.0
# One layer pair on the edge; the device has the rest.
EDGE = {"conv1": "edge", "relu1": "edge"}
# The same, and a tensor that goes from the edge to the cloud directly.
PEER = {**EDGE, "conv2": "cloud", "relu2": "cloud"}
# Its tensors are larger than 64 KiB, so that a slow link shows.
SIDE, CHANNELS = 32, 16


@dataclass
class Plane:
    """A lab, a family on it, and what is asked."""

    folder: Path
    spec: ServersSpec
    lab: Lab
    model: LoadedModel
    options: GenerateOptions
    plans: dict[str, Plan]
    questions: list[Question]
    family: Family
    repositories: Repositories

    @property
    def state(self) -> LabState:
        found = self.lab.state()
        assert found is not None
        return found

    @property
    def addresses(self) -> Addresses:
        return find_addresses(self.repositories, self.spec, self.state)

    def server(self, name: str) -> LabServer:
        return server_of(self.state, name)

    def asker(self, plan: str | None = None, **keys: Any) -> Asker:
        """Asks the router, or (the controls) one plan past the router."""
        name = self.model_name(plan) if plan else "small"
        return Asker(self.addresses.urls["device"], name, self.questions, **keys)

    def model_name(self, plan: str) -> str:
        """The Triton model of a plan by its name here, or of the whole model."""
        return f"small__{self.plans[plan].id if plan in self.plans else plan}"

    def id_of(self, plan: str) -> str:
        return self.plans[plan].id if plan in self.plans else plan

    @contextmanager
    def watched(self) -> Iterator[Watched]:
        """Look at the router's metrics all the time."""
        watched = Watched(self.server("device").metrics_url)
        thread = threading.Thread(target=watched.run, daemon=True)
        thread.start()
        try:
            yield watched
        finally:
            watched.stop.set()
            thread.join(timeout=10)


@dataclass
class Watched:
    """The router's metrics over time: [(monotonic seconds, {(name, labels): value})]."""

    metrics_url: str
    seen: list[tuple[float, dict[tuple[str, frozenset[tuple[str, str]]], float]]] = field(
        default_factory=list
    )
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            self.look()
            self.stop.wait(0.1)

    def look(self) -> None:
        with suppress(OSError):
            self.seen.append((time.monotonic(), _router_metrics(self.metrics_url)))

    def when(self, name: str, at_least: float, after_s: float, **labels: str) -> float | None:
        """When, in seconds after `after_s`, a metric was first seen to be so much."""
        for seen_s, values in list(self.seen):
            if seen_s >= after_s and _sum(values, name, labels) >= at_least:
                return seen_s - after_s
        return None

    def wait_for(self, name: str, at_least: float, timeout_s: float, **labels: str) -> float:
        """Wait until a metric is so much from now on; returns the seconds that it took."""
        started_s = time.monotonic()
        while (found := self.when(name, at_least, started_s, **labels)) is None:
            assert time.monotonic() < started_s + timeout_s, f"{name} {labels}: {self.now()}"
            time.sleep(0.05)
        return found

    def value(self, name: str, **labels: str) -> float:
        """The last that was seen, summed over the labels that are not given."""
        return _sum(self.seen[-1][1], name, labels) if self.seen else 0.0

    @staticmethod
    def sum(
        values: Mapping[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str
    ) -> float:
        """A metric in one of `seen`, summed over the labels that are not given."""
        return _sum(values, name, labels)

    def now(self) -> dict[str, float]:
        """All that the router says, for messages."""
        last = self.seen[-1][1] if self.seen else {}
        return {f"{name} {dict(labels)}": value for (name, labels), value in last.items()}


@contextmanager
def deployed_plane(
    folder: Path,
    placements: Mapping[str, Mapping[str, str]],
    edge: Mapping[str, Any] | None = None,
    device: Mapping[str, Any] | None = None,
    links: Sequence[Mapping[str, Any]] = (),
    deadline_ms: int = DEADLINE_MS,
    classes: Mapping[str, Sequence[str]] | None = None,
    protection: LabProtection | None = None,
    **options: Any,
) -> Iterator[Plane]:
    """Device and edge, and a cloud if it is used, in a lab of its own, with a plan for each
    placement of layers.

    `classes` are lists of names of plans, with "whole" at their end; by default there is one class
    with all plans in their order. `options` are those of `GenerateOptions`.
    """
    servers = [
        {"name": "device", "tier": "device", "entry": True, **(device or {})},
        {"name": "edge", "tier": "edge", **(edge or {})},
    ]
    if any("cloud" in layers.values() for layers in placements.values()):
        servers.append({"name": "cloud", "tier": "cloud"})
    spec = ServersSpec.from_data({"servers": servers, "links": [dict(link) for link in links]})
    model = write_small(folder / "small.onnx", CHANNELS, SIDE)
    plans = {
        name: plan_from_assignment(model, Assignment(layers=dict(layers), default="device"), spec)
        for name, layers in placements.items()
    }
    family = family_of(plans, classes or {"normal": [*plans, "whole"]}, deadline_ms)
    made = GenerateOptions(optimisation="disabled", deadline_ms=deadline_ms, **options)
    repositories = written(folder / "repos", family, list(plans.values()), model, made)
    lab = Lab(folder / "lab")
    lab.up(spec, None, protection=protection)
    try:
        plane = Plane(folder, spec, lab, model, made, plans, questions(model), family, repositories)
        deploy(repositories, plane.addresses, push="always")
        _warm_up(plane)
        yield plane
    finally:
        lab.down()


def family_of(
    plans: Mapping[str, Plan], classes: Mapping[str, Sequence[str]], deadline_ms: int
) -> Family:
    """A family without predictions: plans are tried in the order of their class."""
    first = next(iter(plans.values()))
    rows = [
        FamilyPlan(
            id=plan.id,
            file=f"plans/{plan.id}.json",
            servers=tuple(server.name for server in plan.servers),
        )
        for plan in plans.values()
    ]
    return Family(
        model=first.model,
        plans=tuple(rows),
        classes=tuple(
            FamilyClass(
                name=name,
                plans=tuple(plans[p].id if p in plans else p for p in order),
                deadline_ms=deadline_ms,
            )
            for name, order in classes.items()
        ),
        default_class=next(iter(classes)),
    )


def written(
    folder: Path,
    family: Family,
    plans: Sequence[Plan],
    model: LoadedModel,
    options: GenerateOptions,
) -> Repositories:
    """The generated folders of a family."""
    files, _ = generate_family(family, plans, model, options)
    write_files(files, folder, force=True)
    return Repositories.open(folder)


def _warm_up(plane: Plane) -> None:
    """The first requests to a server that has just started may take longer than their deadline."""
    names = [*plane.plans, *(["whole"] if plane.family.serves_whole else [])]
    for plan in [*names, None]:
        asker = plane.asker(plan)
        deadline = time.monotonic() + 20
        while not (answer := asker.ask()).ok:
            assert time.monotonic() < deadline, answer
        asker.close()


def _router_metrics(metrics_url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=2) as answer:
        text = answer.read().decode()
    lines = [line for line in text.splitlines() if "tritier_router_" in line]
    return {
        (
            sample.name.removeprefix("tritier_router_"),
            frozenset(sample.labels.items()),
        ): sample.value
        for metric in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in metric.samples
    }


def _sum(
    values: Mapping[tuple[str, frozenset[tuple[str, str]]], float],
    name: str,
    labels: Mapping[str, str],
) -> float:
    wanted = frozenset(labels.items())
    return sum(v for (found, own), v in values.items() if found == name and wanted <= own)
