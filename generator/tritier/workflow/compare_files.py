"""Comparisons on disk, and whether a plan is what servers serve.

A prediction is written before anything is measured, and then completed, never replaced by another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritier.deployment.client import TritonServer
from tritier.documents import (
    Comparison,
    Environment,
    LabState,
    MeasuredFigures,
    Plan,
    PredictedFigures,
    wire_up,
)
from tritier.errors import InputError, ServerError
from tritier.files import write_file
from tritier.network.contact import timestamp
from tritier.workflow.compare_measure import Deployed


def written_prediction(
    path: Path, plan: Plan, predicted: PredictedFigures, force: bool = False
) -> Comparison:
    """The prediction as it stands in the file: written now, or earlier if it is the same.

    Raises InputError if the file has another prediction (unless `force`, and it was not measured
    yet), was measured already, or is no comparison.
    """
    if path.is_file():
        known = Comparison.load(path)
        if known.measured is not None:
            raise InputError(
                f"{path} was measured at {known.measured_at}: a comparison is not done twice into "
                "one file; choose another name"
            )
        if known.plan_id == plan.id and known.predicted == predicted:
            return known
        if not force:
            raise InputError(
                f"{path} has another prediction, made at {known.predicted_at} for plan "
                f"{known.plan_id}: choose another name, or pass --force to replace it, which is "
                "allowed as long as nothing was measured"
            )
    elif path.exists():
        raise InputError(f"{path} is no file: choose another name")
    found = Comparison(
        plan_id=plan.id,
        model=plan.model.name,
        plan=plan,
        predicted_at=timestamp(),
        predicted=predicted,
    )
    write_file(path, found.to_json())
    return found


def app_ms_written(path: Path, plan: Plan) -> tuple[bool, float | None]:
    """(whether the plan's prediction is in the file and waits for its measurement, its `app_ms`):
    what was predicted is not predicted anew."""
    if not path.is_file():
        return False, None
    known = Comparison.load(path)
    waits = known.measured is None and known.plan_id == plan.id
    return waits, known.predicted.app_ms if waits else None


def written_measurement(
    path: Path,
    comparison: Comparison,
    measured: MeasuredFigures,
    environment: Environment | None = None,
) -> Comparison:
    """The comparison, completed, with where that was measured."""
    found = comparison.model_copy(
        update={
            "measured_at": timestamp(),
            "measured": measured,
            "environment": environment,
        }
    )
    write_file(path, found.to_json())
    return found


def find_deployed(plan: Plan, urls: Mapping[str, str], lab: LabState | None) -> Deployed:
    """The plan on the servers, with the model that runs it. Raises ServerError if it is not
    there, with what to do."""
    entry = plan.entry.name
    names = (plan.model.name, f"{plan.model.name}__{plan.id}")
    served = {}
    with TritonServer(entry, urls[entry]) as server:
        for name in names:
            if server.serves(name):
                served[name] = server.config(name).parameters["plan_id"].string_value
    asked = next((name for name in names if served.get(name) == plan.id), None)
    if asked is None:
        there = "".join(f"; '{name}' there is of plan {found}" for name, found in served.items())
        raise ServerError(
            f"plan {plan.id} is not deployed on the entry '{entry}'{there}: run `tritier generate "
            "PLAN --model MODEL -o REPOS` and `tritier deploy REPOS --servers FILE` first"
        )
    deployed = Deployed(plan, urls, asked, lab)
    _check_components(deployed)
    return deployed


def _check_components(deployed: Deployed) -> None:
    missing = []
    for name in dict.fromkeys(part.server for part in deployed.plan.components):
        with TritonServer(name, deployed.urls[name]) as server:
            missing += [
                f"{part.id} on '{name}'"
                for part in wire_up(deployed.plan).components
                if part.server == name and not server.serves(deployed.model_of(part.id))
            ]
    if missing:
        raise ServerError(
            f"plan {deployed.plan.id} is deployed, but for {', '.join(missing)}: run `tritier "
            "deploy` again"
        )


def triton_versions(urls: Mapping[str, str]) -> dict[str, str]:
    """Version of Triton by server. Raises ServerError."""
    found = {}
    for name, url in urls.items():
        with TritonServer(name, url) as server:
            found[name] = server.version()
    return found
