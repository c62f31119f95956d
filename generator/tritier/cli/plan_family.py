"""`tritier plan --alternatives`: a family of plans, for classes of requests and lost servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tritier.cli.output import say, show_json, show_table
from tritier.documents import WHOLE, Classes, Family
from tritier.errors import InputError, UsageError, did_you_mean
from tritier.workflow.family_generate import DEFAULT_CLASS
from tritier.workflow.family_plan import PlannedFamily

DEFAULT_FOLDER = Path("family")
_FLAGS = ("hedge", "default")
# Short names on the command line -> keys of a classes file.
_KEYS = {
    "noise": "noise",
    "deadline": "deadline_ms",
    "objective": "objective",
    "latency-weight": "latency_weight",
}


def check_family_options(
    alternatives: bool,
    classes: Path | None,
    specs: list[str] | None,
    whole: bool,
    assignment: Path | None,
    report: Path | None,
) -> None:
    """Raise UsageError for options of families with those of one plan."""
    if not alternatives and (classes is not None or specs or not whole):
        raise UsageError("--classes, --class and --no-whole are of a family: give --alternatives")
    if alternatives and assignment is not None:
        raise UsageError("--alternatives plans by --timing profiles; an --assignment is one plan")
    if alternatives and report is not None:
        raise UsageError("--report is of one plan; of a family --json prints all reports")


def read_classes(file: Path | None, specs: Sequence[str]) -> Classes:
    """The classes of a file or of --class options; without either one class for all requests.

    Raises UsageError for both, InputError with all faults of a class.
    """
    if file is not None:
        if specs:
            raise UsageError("--classes and --class both say which classes there are: give one")
        return Classes.load(file)
    if not specs:
        return Classes.from_data({"classes": {DEFAULT_CLASS: {}}})
    classes: dict[str, Any] = {}
    defaults = []
    for spec in specs:
        name, _, rest = spec.partition(":")
        if name in classes:
            raise UsageError(f"--class {spec}: '{name}' stands twice; give each class once")
        classes[name] = _class(spec, [part for part in rest.split(",") if part])
        if classes[name].pop("default", False):
            defaults.append(name)
    if len(defaults) > 1:
        raise UsageError(f"--class: {' and '.join(defaults)} are all the default: choose one")
    data = {"classes": classes, **({"default": defaults[0]} if defaults else {})}
    try:
        return Classes.from_data(data)
    except InputError as error:
        raise InputError(error.faults, "--class") from None


def _class(spec: str, parts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if key in _FLAGS and not equals:
            found[key] = True
            continue
        if key not in _KEYS or not text:
            known = ", ".join([*(f"{x}=..." for x in _KEYS), *_FLAGS])
            hint = did_you_mean(key, [*_KEYS, *_FLAGS])
            raise UsageError(f"--class {spec}: '{part}'{hint}; allowed are {known}")
        found[_KEYS[key]] = _value(key, text)
    return found


def _value(key: str, text: str) -> object:
    if key == "objective":
        return text
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text  # which is no number, as the document will say


def show_family(planned: PlannedFamily, json: bool) -> None:
    """Plans and classes as tables, or the documents; warnings in any case."""
    for warning in planned.warnings:
        say(f"warning: {warning}")
    if json:
        reports = {
            key: item.model_dump(mode="json", by_alias=True, exclude_none=True)
            for key, item in planned.reports.items()
        }
        family = planned.family.model_dump(mode="json", by_alias=True, exclude_none=True)
        show_json({"family": family, "reports": reports})
        return
    show_plans(planned.family)
    show_classes(planned.family)


def show_plans(family: Family) -> None:
    """A row per plan."""
    show_table(
        f"plans of {family.model.name} (predicted)",
        ["plan", "servers", "if lost", "latency ms", "energy J", "noise"],
        [
            (
                item.id,
                " ".join(item.servers),
                " ".join(item.without) or "-",
                "?" if item.latency_ms is None else f"{item.latency_ms:.4g}",
                "?" if item.energy_joule is None else f"{item.energy_joule:.4g}",
                _noise_text(item.noise),
            )
            for item in family.plans
        ],
    )


def show_classes(family: Family) -> None:
    """A row per class: which plans answer it, in their order."""
    show_table(
        "classes of requests",
        ["class", "plans, in this order", "deadline ms", "hedge", "most noise"],
        [
            (
                item.name + (" (default)" if item.name == family.default_class else ""),
                " ".join(item.plans),
                item.deadline_ms,
                "yes" if item.hedge else "no",
                _noise_text(item.noise_limits) if item.noise_limits else "any",
            )
            for item in family.classes
        ],
    )
    if not family.serves_whole:
        say(f"'{WHOLE}' is in no class: if the entry alone is left, requests fail")


def _noise_text(noise: dict[str, float]) -> str:
    values = set(noise.values())
    if not values:
        return "?"
    if len(values) == 1:
        return f"{values.pop():.4g}"
    return " ".join(f"{name}={value:.4g}" for name, value in noise.items())
