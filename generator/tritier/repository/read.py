"""Read generated repositories back: plan, manifest, sub-models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tritier.documents import Manifest, ManifestModel, Plan
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.repository.write import MANIFEST_NAME, PLAN_NAME


@dataclass(frozen=True)
class Repositories:
    """A folder that `generate` has written."""

    path: Path
    plan: Plan
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> Repositories:
        """Read plan and manifest; raises InputError when the folder was not generated, or when a
        file is missing or is not the one that was."""
        if not (path / MANIFEST_NAME).is_file():
            raise InputError(
                f"has no {MANIFEST_NAME}: give the folder that `tritier generate` wrote", str(path)
            )
        manifest = Manifest.load(path / MANIFEST_NAME)
        faults = []
        for file in manifest.files:
            if not (path / file.path).is_file():
                faults.append(f"{file.path} is missing: generate again")
            elif sha256_file(path / file.path) != file.sha256:
                faults.append(f"{file.path} is not the file that was generated: generate again")
        if faults:
            raise InputError(faults, str(path))
        return cls(path, Plan.load(path / PLAN_NAME), manifest)

    def sub_models(self) -> dict[str, Path]:
        """Component -> path of its ONNX file."""
        return {
            model.component: self.folder(model) / "1" / "model.onnx"
            for model in self.manifest.models
            if model.kind == "component" and model.component is not None
        }

    def folder(self, model: ManifestModel) -> Path:
        """The folder of a Triton model."""
        return self.path / model.server / model.name

    def servers(self) -> list[str]:
        """Servers that have models, the entry last: the order in which to deploy."""
        entry = self.plan.entry.name
        used = dict.fromkeys(model.server for model in self.manifest.models)
        return [name for name in used if name != entry] + [entry]

    def models_of(self, server: str) -> list[ManifestModel]:
        """The models of a server in the order in which they can be loaded."""
        return [model for model in self.manifest.models if model.server == server]
