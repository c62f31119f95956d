"""Promise 6, the experiment: plans are exchanged while apps ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.plane import EDGE, Plane, deployed_plane, family_of, written
from tests.helpers.load import Answer, closed_loop, summary
from tritier.deployment.deploy import undeploy
from tritier.deployment.switch import Switched, SwitchOptions, switch
from tritier.documents import Assignment
from tritier.repository import Repositories
from tritier.workflow import plan_from_assignment

DEADLINE_MS = 4000
_WORKERS = 4
OTHER = {**EDGE, "conv2": "edge", "relu2": "edge"}


@dataclass
class Switches:
    """What was measured."""

    answers: list[Answer] = field(default_factory=list)
    switched: list[Switched] = field(default_factory=list)

    @property
    def failed(self) -> list[Answer]:
        return [a for a in self.answers if not a.ok]

    def text(self) -> str:
        took = [s.took_s for s in self.switched]
        times = f"{min(took):.1f} to {max(took):.1f} s each" if took else "none"
        return f"{len(took)} switches, {times}, {len(self.failed)} failed: {summary(self.answers)}"


@contextmanager
def two_families(folder: Path) -> Iterator[tuple[Plane, list[Repositories]]]:
    """A deployed family, and the folders of another and of itself, to switch to in turn."""
    with deployed_plane(folder, {"edge": EDGE}, deadline_ms=DEADLINE_MS) as plane:
        plan = plan_from_assignment(
            plane.model, Assignment(layers=OTHER, default="device"), plane.spec
        )
        family = family_of({"other": plan}, {"normal": ["other", "whole"]}, DEADLINE_MS)
        other = written(folder / "other", family, [plan], plane.model, plane.options)
        yield plane, [other, plane.repositories]


def switches(plane: Plane, families: list[Repositories], count: int) -> Switches:
    """Switch `count` times under load."""
    found = Switches()
    asker = plane.asker(deadline_ms=DEADLINE_MS)
    options = SwitchOptions(push="always", metrics_url=plane.server("device").metrics_url)
    with closed_loop(asker, _WORKERS, 0.005) as load:
        for number in range(count):
            time.sleep(0.5)
            repositories = families[number % len(families)]
            found.switched.append(switch(repositories, plane.addresses, options))
        time.sleep(0.5)
    found.answers = load.answers
    asker.close()
    return found


def replaced(plane: Plane, families: list[Repositories]) -> Switches:
    """The control: what is there is unloaded, then the other family is loaded."""
    found = Switches()
    asker = plane.asker(deadline_ms=DEADLINE_MS)
    with closed_loop(asker, _WORKERS, 0.005) as load:
        time.sleep(0.5)
        undeploy(families[-1], plane.addresses)
        found.switched.append(switch(families[0], plane.addresses, SwitchOptions(push="always")))
        time.sleep(0.5)
    found.answers = load.answers
    asker.close()
    return found
