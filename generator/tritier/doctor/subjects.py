"""What is checked: the models of generated repositories, read as they are.

Files that were changed after they were generated are read too: saying what a change means for a
container is what the check is for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritier.documents import Family, Manifest, ManifestModel, Plan, PlanServer, PortabilityFinding
from tritier.documents.doctor import FindingLevel
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.repository import FAMILY_NAME, MANIFEST_NAME, PLAN_NAME, parse_config


@dataclass(frozen=True)
class Subject:
    """One Triton model: its folder, its config (None if it can't be parsed), the modules beside it
    and the server on which the plan has it."""

    row: ManifestModel
    folder: Path
    config: Any
    server: PlanServer | None
    modules: tuple[Path, ...] = ()

    @property
    def backend(self) -> str:
        """`onnxruntime`, `python`, `ensemble`, or whatever stands there."""
        return str(self.config.backend or self.config.platform)

    def says(self, level: FindingLevel, at: str, why: str, fix: str) -> PortabilityFinding:
        """A finding of this model at a field of its config or a file of its folder."""
        return PortabilityFinding(
            level=level, server=self.row.server, model=self.row.name, field=at, why=why, fix=fix
        )


@dataclass(frozen=True)
class Subjects:
    """All models of a folder, and what was found while they were read."""

    id: str
    models: tuple[Subject, ...]
    findings: tuple[PortabilityFinding, ...] = field(default=())

    @property
    def servers(self) -> list[str]:
        """Names of the servers that have models, in the order of the manifest."""
        return list(dict.fromkeys(model.row.server for model in self.models))


def read_subjects(path: Path) -> Subjects:
    """Read a folder that `tritier generate` wrote, of one plan or of a family.

    Raises InputError if it is none, or if plan or manifest can't be read.
    """
    if not (path / MANIFEST_NAME).is_file():
        raise InputError(
            f"has no {MANIFEST_NAME}: give the folder that `tritier generate` wrote", str(path)
        )
    manifest = Manifest.load(path / MANIFEST_NAME)
    servers = {server.name: server for plan in _plans(path, manifest) for server in plan.servers}
    findings, models = _changed(path, manifest), []
    for row in manifest.models:
        subject, fault = _read(path, row, servers.get(row.server))
        models.append(subject)
        findings += fault
    return Subjects(manifest.family_id or str(manifest.plan_id), tuple(models), tuple(findings))


def _plans(path: Path, manifest: Manifest) -> list[Plan]:
    if not manifest.plans:
        return [Plan.load(path / PLAN_NAME)]
    Family.load(path / FAMILY_NAME)
    return [Plan.load(path / item.file) for item in manifest.plans]


def _read(
    path: Path, row: ManifestModel, server: PlanServer | None
) -> tuple[Subject, list[PortabilityFinding]]:
    folder = path / row.server / row.name
    modules = tuple(sorted((folder / "1").glob("*.py")))
    subject = Subject(row, folder, None, server, modules)
    file = folder / "config.pbtxt"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        why = "can't be read: without it Triton would have to guess the config"
        return subject, [subject.says("error", file.name, why, "tritier generate, again")]
    try:
        config = parse_config(text, row.name)
    except InputError as error:
        why = f"Triton's schema refuses it: {error}"
        return subject, [subject.says("error", file.name, why, "tritier generate, again")]
    return Subject(row, folder, config, server, modules), []


def _changed(path: Path, manifest: Manifest) -> list[PortabilityFinding]:
    """Files that are not those that were generated: `deploy` and `verify` refuse them."""
    found = []
    for file in manifest.files:
        place = path / file.path
        if not place.is_file():
            state = "is missing"
        elif sha256_file(place) != file.sha256:
            state = "is not the file that was generated"
        else:
            continue
        found.append(
            PortabilityFinding(
                level="warning",
                server=None,
                model=None,
                field=file.path,
                why=f"{state}: `tritier deploy` refuses the whole folder",
                fix="tritier generate, again",
            )
        )
    return found
