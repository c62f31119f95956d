"""A family as a folder: `family.json` and the plans that it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tritier.documents import Family, Plan
from tritier.errors import InputError
from tritier.files import replaced_dir
from tritier.repository import FAMILY_NAME


def check_folder(folder: Path, force: bool) -> None:
    """Raise InputError if a family could not be written there; before anything is solved."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: a family needs a folder")
    for parent in folder.parents:
        if parent.is_file():
            raise InputError(f"{folder}: {parent} is a file, not a folder; choose another name")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / FAMILY_NAME).is_file() or (folder / "manifest.json").exists():
        raise InputError(
            f"{folder} holds files and is no family of plans, so it is never replaced: choose "
            "another folder"
        )
    if not force:
        raise InputError(f"{folder} is not empty: choose another folder or pass --force")


def write_family(folder: Path, family: Family, plans: Sequence[Plan], force: bool) -> None:
    """Write family and plans, all or nothing; `force` replaces a family that is there."""
    check_folder(folder, force)
    with replaced_dir(folder, force) as fresh:
        (fresh / FAMILY_NAME).write_text(family.to_json(), encoding="utf-8")
        for item, plan in zip(family.plans, plans, strict=True):
            path = fresh / item.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(plan.to_json(), encoding="utf-8")
