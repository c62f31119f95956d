"""Exported folders: written whole or not at all, and only ever replaced if they were exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import tritier
from tritier.errors import InputError
from tritier.export.tiers import Tiers
from tritier.files import check_replaceable, replaced_dir

# What says that a folder was exported.
MARKER_NAME = "export.json"
Files = Mapping[str, bytes | str]


def write_export(
    kind: str,
    tiers: Tiers,
    files: Files,
    output: Path,
    force: bool,
    copies: Mapping[str, Path] | None = None,
    kept: Collection[str] = (),
) -> None:
    """Fill `output` with `files` (relative path -> content), with `copies` (relative path -> file
    of this machine), and with a marker that says what was exported.

    `force` replaces a folder that was exported, and no other: all in it is lost, but for what lies
    in its folders `kept`, where the user has put files. Raises InputError for a folder that was not
    exported, and for one that lies among the repositories.
    """
    refuse_output(tiers, output, force)
    with replaced_dir(output, force) as folder:
        for name, source in (copies or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
        for name, data in {**files, MARKER_NAME: marker(kind, tiers)}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.encode() if isinstance(data, str) else data)
        _make_readable(folder)
        for name in kept:
            _carry_over(output / name, folder / name)


def refuse_output(tiers: Tiers, output: Path, force: bool) -> None:
    """Raise InputError if `write_export` would refuse the folder."""
    repositories = tiers.repositories.path.resolve()
    if output.resolve().is_relative_to(repositories):
        raise InputError(
            f"{output} lies in the generated folder {tiers.repositories.path}, which must stay as "
            "it is: choose another folder"
        )
    if output.is_dir() and any(output.iterdir()) and not (output / MARKER_NAME).is_file():
        raise InputError(
            f"{output} holds files and no {MARKER_NAME}, so it was not exported and is never "
            "replaced: choose another folder"
        )
    check_replaceable(output, force)


def _make_readable(folder: Path) -> None:
    """Containers run as other users: whatever the umask says, they read what is written here."""
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _carry_over(old: Path, new: Path) -> None:
    """Copy the files of a folder that are not written anew into one that only this user can read;
    links stay links, modes stay."""
    new.mkdir(parents=True, exist_ok=True)
    new.chmod(0o700)
    for path in sorted(old.iterdir()) if old.is_dir() else ():
        if not path.is_dir() and not (new / path.name).exists():
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def marker(kind: str, tiers: Tiers) -> str:
    """Content of the marker: format, what was exported and of what, no clock and no path."""
    repositories = tiers.repositories
    data = {
        "format": "tritier/export/1",
        "kind": kind,
        "tool_version": tritier.__version__,
        "family_id" if repositories.family else "plan_id": repositories.id,
        "model": repositories.plan.model.name,
        "services": {tier.server: tier.name for tier in tiers.tiers},
    }
    return json.dumps(data, indent=2) + "\n"
