"""Puts plans on servers to measure them: in the lab by itself, elsewhere it says what to deploy."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tritier.deployment.addresses import find_addresses
from tritier.deployment.client import TritonServer
from tritier.deployment.deploy import deploy, undeploy
from tritier.deployment.lock import deployment_lock
from tritier.divider import Arrays
from tritier.documents import Comparison, Environment, LabState, Plan
from tritier.errors import ServerError, TritierError
from tritier.files import write_file
from tritier.network.registry import server_urls
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.compare_files import (
    find_deployed,
    triton_versions,
    written_measurement,
    written_prediction,
)
from tritier.workflow.compare_measure import Counts, Deployed, measure_plan
from tritier.workflow.generate import generate

Report = Callable[[str], None]


@dataclass
class Stage:
    """Servers, and a folder with what is put on them: plan-N.json, repos-N, comparison-N.json.

    `environment` describes where measuring was done, by the version of Triton of each server.
    """

    servers_file: Path
    lab: LabState | None
    folder: Path
    inputs: Sequence[Arrays]
    counts: Counts = field(default_factory=Counts)
    options: GenerateOptions = field(default_factory=GenerateOptions)
    report: Report = lambda _step: None
    environment: Callable[[Mapping[str, str]], Environment] | None = None
    found_there: dict[str, None] = field(default_factory=dict)
    _there: Repositories | None = None

    @property
    def deployed_folder(self) -> Path | None:
        """The folder of the plan that is deployed now, if this put it there."""
        return None if self._there is None else self._there.path

    @property
    def deployed_plan(self) -> str:
        """The id of that plan."""
        return "" if self._there is None else self._there.plans[0].id

    def clear(self, known: Known) -> None:
        """Remove the steps of an earlier calibration in the folder, all together: its comparisons
        could not be measured again. What it left deployed in the lab is taken away before its
        repositories are gone. Other files stay. Raises ServerError."""
        for folder in sorted(self.folder.glob("repos-*")):
            self._take_away_left(folder, known)
            shutil.rmtree(folder)
        for pattern in ("plan-*.json", "comparison-*.json"):
            for path in self.folder.glob(pattern):
                path.unlink()

    def _take_away_left(self, folder: Path, known: Known) -> None:
        if self.lab is None:
            return
        there = Repositories.open(folder)
        try:
            addresses = find_addresses(there, known.servers, self.lab)
        except TritierError:  # of other servers: nothing of it can be on these
            return
        with deployment_lock(self.servers_file):
            for name in reversed(there.servers()):
                with TritonServer(name, addresses.urls[name]) as server:
                    models = {model.name for model in there.models_of(name)}
                    for model in sorted(models.intersection(server.loaded())):
                        if _plan_of(server, model) in (None, there.plans[0].id):
                            server.unload(model)

    def measure(self, plan: Plan, known: Known, number: int) -> Comparison:
        """Predict a plan, write that, deploy it if need be, and measure it."""
        write_file(self.folder / f"plan-{number}.json", plan.to_json())
        path = self.folder / f"comparison-{number}.json"
        written = written_prediction(path, plan, predict_plan(plan, known))
        deployed = self._deployed(plan, known, number)
        self.report(f"measuring plan {plan.id}")
        measured = measure_plan(deployed, self.inputs, self.counts)
        here = self.environment(triton_versions(deployed.urls)) if self.environment else None
        return written_measurement(path, written, measured, here)

    def _deployed(self, plan: Plan, known: Known, number: int) -> Deployed:
        used = {plan.entry.name, *(part.server for part in plan.components)}
        chosen = tuple(server for server in known.servers.servers if server.name in used)
        urls = server_urls(known.servers.model_copy(update={"servers": chosen}), self.lab)
        try:
            found = find_deployed(plan, urls, self.lab)
            if self.deployed_plan != plan.id:
                self.found_there[plan.id] = None
            return found
        except ServerError as error:
            if self.lab is None:
                raise ServerError(
                    f"{error}. The plan is {self.folder / f'plan-{number}.json'}; when it is "
                    "deployed, calibrate again from the documents in that folder"
                ) from None
        self._put(plan, known, number)
        return find_deployed(plan, urls, self.lab)

    def _put(self, plan: Plan, known: Known, number: int) -> None:
        """Take away what was put there before, and put the plan there."""
        folder = self.folder / f"repos-{number}"
        self.report(f"deploying plan {plan.id}")
        files, _ = generate(plan, known.model, self.options)
        write_files(files, folder, force=True)
        fresh = Repositories.open(folder)
        with deployment_lock(self.servers_file):
            self._take_away(known)
            deploy(fresh, find_addresses(fresh, known.servers, self.lab))
        self._there = fresh

    def _take_away(self, known: Known) -> None:
        if self._there is None:
            return
        failures = undeploy(self._there, find_addresses(self._there, known.servers, self.lab))
        if failures:
            raise ServerError("\n".join(failures))
        self._there = None


def _plan_of(server: TritonServer, model: str) -> str | None:
    """The plan that a model says it is of: names that apps call may be another plan's by now."""
    found = server.config(model).parameters["plan_id"].string_value
    return found or None
