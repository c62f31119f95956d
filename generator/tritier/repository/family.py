"""Several plans of one model side by side, and the router before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import tritier
from tritier.documents import WHOLE, Batching, Family, Manifest, ManifestPlan, Plan, wire_up
from tritier.errors import InputError
from tritier.repository.dataplane import build_data_plane, whole_model
from tritier.repository.render import Renderer
from tritier.repository.router import entry_name, family_id, router_model, whole_id
from tritier.repository.types import GenerateOptions, TritonModel
from tritier.repository.write import (
    MANIFEST_NAME,
    Files,
    manifest_files,
    manifest_models,
    manifest_tensors,
    manifest_wires,
    model_files,
    tolerances,
)

FAMILY_NAME = "family.json"
PLANS_FOLDER = "plans"


@dataclass(frozen=True)
class FamilyPart:
    """A plan, its sub-models by component, and whether requests to it are batched."""

    plan: Plan
    models: Mapping[str, bytes]
    batching: Batching


def plan_file(plan_id: str) -> str:
    """Path of a plan in the folder of its family."""
    return f"{PLANS_FOLDER}/{plan_id}.json"


def with_own_files(family: Family) -> Family:
    """The same family with its plans where they are in a generated folder."""
    plans = tuple(x.model_copy(update={"file": plan_file(x.id)}) for x in family.plans)
    return family.model_copy(update={"plans": plans})


def generate_family_files(
    family: Family, parts: Sequence[FamilyPart], whole: bytes | None, options: GenerateOptions
) -> Files:
    """Every file of the repositories of a family: path relative to the output folder -> content.

    `parts` are in the order of the family's plans; `whole` is the uncut model where it is served.
    Names of models carry the plan id, so that plans never mix; files of a plan are the same in any
    family with the same options. Nothing is written. Same arguments, same bytes (rule R6).
    """
    plans = {part.plan.id: part.plan for part in parts}
    _check(family, plans, options)
    models: list[TritonModel] = []
    files: Files = {}
    options = replace(options, with_whole=False)
    for part in parts:
        of_plan = _plan_models(family, part, options)
        renderer = Renderer(wire_up(part.plan), part.batching, options)
        files |= model_files(of_plan, renderer, part.models, None)
        files[plan_file(part.plan.id)] = part.plan.to_json().encode()
        models += of_plan
    for model, batching in _shared(family, parts, whole is not None, options):
        first = parts[0].plan
        what = (
            f"family {family_id(family, plans)}"
            if model.kind == "router"
            else f"model {family.model.name}, sha256 {family.model.sha256[:12]}"
        )
        files |= model_files([model], Renderer(first, batching, options, what), {}, whole)
        models.append(model)
    files[FAMILY_NAME] = with_own_files(family).to_json().encode()
    manifest = _manifest(family, parts, models, options, files)
    files[MANIFEST_NAME] = manifest.to_json().encode()
    return files


def _check(family: Family, plans: Mapping[str, Plan], options: GenerateOptions) -> None:
    """Raise InputError unless the plans are the family's, of one model and with one entry."""
    faults = []
    if list(plans) != [item.id for item in family.plans]:
        faults.append("the plans are not those of the family, in its order")
    first = next(iter(plans.values()))
    for plan in plans.values():
        if plan.model != family.model:
            faults.append(f"plan {plan.id} is of another model than the family")
        if plan.entry.name != first.entry.name:
            faults.append(
                f"plan {plan.id} has the entry '{plan.entry.name}', plan {first.id} "
                f"'{first.entry.name}': apps call one server"
            )
        faults += [
            f"plan {plan.id} uses a server '{PLANS_FOLDER}', which is the name of the folder of "
            "plans: rename it"
            for server in plan.servers
            if server.name == PLANS_FOLDER
        ]
        if _app_side(plan) != _app_side(first):
            faults.append(f"plan {plan.id} has other inputs or outputs than plan {first.id}")
    if options.max_in_flight < 1:
        faults.append(f"max_in_flight is {options.max_in_flight}: allowed is 1 or more")
    if faults:
        raise InputError(faults)


def _app_side(plan: Plan) -> list[tuple[object, ...]]:
    rows = [plan.tensor(t) for t in (*plan.inputs, *plan.outputs)]
    return [(row.name, row.dtype, row.shape) for row in rows]


def _plan_models(family: Family, part: FamilyPart, options: GenerateOptions) -> list[TritonModel]:
    name = entry_name(family.model.name, part.plan.id)
    models = build_data_plane(wire_up(part.plan), part.batching, options, name)
    return [replace(model, plan=part.plan.id) for model in models]


def _shared(
    family: Family, parts: Sequence[FamilyPart], with_whole: bool, options: GenerateOptions
) -> list[tuple[TritonModel, Batching]]:
    """Models that are of no plan: the whole model, if it is served, and the router."""
    plans = {part.plan.id: part.plan for part in parts}
    batching = _least([part.batching for part in parts])
    found = []
    if with_whole:
        whole = whole_model(parts[0].plan, batching.max_batch_size)
        found.append((replace(whole, plan=whole_id(family)), batching))
    return [*found, (router_model(family, plans, options), batching)]


def _least(batchings: Sequence[Batching]) -> Batching:
    """A batch that was proven right for all plans."""
    return min(batchings, key=lambda batching: batching.max_batch_size)


def _manifest(
    family: Family,
    parts: Sequence[FamilyPart],
    models: Sequence[TritonModel],
    options: GenerateOptions,
    files: Files,
) -> Manifest:
    return Manifest(
        tool_version=tritier.__version__,
        family_id=family_id(family, {part.plan.id: part.plan for part in parts}),
        model=family.model.name,
        model_sha256=family.model.sha256,
        plans=tuple(
            ManifestPlan(
                id=part.plan.id,
                file=plan_file(part.plan.id),
                entry=entry_name(family.model.name, part.plan.id),
                batching=part.batching,
                tolerances=tolerances(part.plan, options),
                tensors=manifest_tensors(part.plan),
                wires=manifest_wires(part.plan),
            )
            for part in parts
        ),
        models=manifest_models(models),
        files=manifest_files(files),
    )


def without_whole(family: Family) -> Family:
    """The family where the whole model answers nobody; InputError if a class has nothing else."""
    faults = [
        f"class '{item.name}' has no plan but '{WHOLE}': serve the whole model"
        for item in family.classes
        if item.plans == (WHOLE,)
    ]
    if faults:
        raise InputError(faults)
    classes = tuple(
        item.model_copy(update={"plans": tuple(x for x in item.plans if x != WHOLE)})
        for item in family.classes
    )
    return family.model_copy(update={"classes": classes})
