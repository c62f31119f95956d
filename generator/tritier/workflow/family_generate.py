"""A family of plans and its model become repositories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritier.documents import WHOLE, Batching, Family, FamilyClass, FamilyPlan, Plan
from tritier.errors import InputError
from tritier.graph import LoadedModel, build_layer_graph
from tritier.pool import Pool
from tritier.repository import (
    FAMILY_NAME,
    FamilyPart,
    GenerateOptions,
    generate_family_files,
    plan_file,
)
from tritier.workflow.generate import part_of_plan, served_whole

DEFAULT_CLASS = "default"


def generate_family(
    family: Family,
    plans: Sequence[Plan],
    model: LoadedModel,
    options: GenerateOptions,
    pool: Pool | None = None,
) -> tuple[dict[str, bytes], dict[str, Batching]]:
    """All files of the repositories of a family, and what was decided about batching by plan id.

    The whole model is there if a class of the family ends with it, or the options ask for it.
    Raises InputError as `generate` does.
    """
    graph = build_layer_graph(model.proto)
    parts = [FamilyPart(plan, *part_of_plan(plan, model, graph, options, pool)) for plan in plans]
    wanted = family.serves_whole or options.with_whole
    whole = served_whole(model) if wanted else None
    files = generate_family_files(family, parts, whole, options)
    return files, {part.plan.id: part.batching for part in parts}


def read_family(path: Path) -> tuple[Family, list[Plan]]:
    """The family of a file or of the folder that has it, and its plans in order.

    Raises InputError with the faults of all files, and for plans that are not those of the family.
    """
    file = path / FAMILY_NAME if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"has no {FAMILY_NAME}: give the folder of a family", str(path))
    family = Family.load(file)
    plans, faults = [], []
    for item in family.plans:
        try:
            plan = Plan.load(file.parent / item.file)
        except InputError as error:
            faults += [f"{item.file}: {fault}" for fault in error.faults]
            continue
        plans.append(plan)
        faults += [f"{item.file}: {fault}" for fault in _differences(plan, item, family)]
    if faults:
        raise InputError(faults, str(file))
    return family, plans


def _differences(plan: Plan, item: FamilyPlan, family: Family) -> list[str]:
    """What the family says of a plan and what is not so."""
    found = []
    if plan.id != item.id:
        found.append(f"is plan {plan.id}; the family has {item.id} there")
    if plan.model != family.model:
        found.append(f"is of another model than the family, which is of '{family.model.name}'")
    names = {server.name for server in plan.servers}
    if names != set(item.servers):
        found.append(
            f"uses the servers {', '.join(sorted(names))}; the family has "
            f"{', '.join(sorted(item.servers))}"
        )
    exact = [output for output, limit in item.noise_limits.items() if limit == 0]
    if exact and not plan.is_exact:
        found.append(
            f"quantizes layers or codes wires; the family says that it makes no noise in "
            f"{', '.join(exact)}"
        )
    return found


def family_of_one(plan: Plan, deadline_ms: int, with_whole: bool = True) -> Family:
    """One plan behind a router, for any request; the whole model answers when it can't."""
    figures = plan.predictions
    return Family(
        model=plan.model,
        plans=(
            FamilyPlan(
                id=plan.id,
                file=plan_file(plan.id),
                servers=tuple(server.name for server in plan.servers),
                latency_ms=figures.latency_ms if figures else None,
                energy_joule=figures.energy_joule if figures else None,
            ),
        ),
        classes=(
            FamilyClass(
                name=DEFAULT_CLASS,
                plans=(plan.id, WHOLE) if with_whole else (plan.id,),
                deadline_ms=deadline_ms,
            ),
        ),
        default_class=DEFAULT_CLASS,
    )
