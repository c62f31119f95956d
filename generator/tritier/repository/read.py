"""Read generated repositories back: plans, manifest, sub-models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tritier.documents import Family, Manifest, ManifestModel, Plan, Tolerance
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.repository.family import FAMILY_NAME
from tritier.repository.write import MANIFEST_NAME, PLAN_NAME

# Kinds that are loaded after all others, in this order: each uses those before it.
_LAST_KINDS = ("stage", "entry", "router")


@dataclass(frozen=True)
class PlanPart:
    """One plan of a generated folder: the Triton model that runs it, what rule R4 allows, and its
    sub-models by component."""

    plan: Plan
    entry_model: str
    tolerances: tuple[Tolerance, ...]
    sub_models: dict[str, Path]


@dataclass(frozen=True)
class Repositories:
    """A folder that `generate` has written: of one plan, or of a family of plans with a router.

    `plan` is the only plan or the first of the family, whose model, entry, inputs and outputs are
    those of all. `family` is None for one plan.
    """

    path: Path
    plan: Plan
    manifest: Manifest
    plans: tuple[Plan, ...] = ()
    family: Family | None = None

    @classmethod
    def open(cls, path: Path) -> Repositories:
        """Read plans and manifest; raises InputError when the folder was not generated, or when a
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
        if not manifest.plans:
            plan = Plan.load(path / PLAN_NAME)
            return cls(path, plan, manifest, (plan,))
        plans = tuple(Plan.load(path / item.file) for item in manifest.plans)
        return cls(path, plans[0], manifest, plans, Family.load(path / FAMILY_NAME))

    @property
    def id(self) -> str:
        """Id of the plan, or of the family."""
        return self.manifest.family_id or self.plan.id

    @property
    def title(self) -> str:
        """What is deployed, for messages."""
        return f"family {self.id}" if self.family else f"plan {self.id}"

    def parts(self) -> list[PlanPart]:
        """Each plan by itself."""
        if not self.manifest.plans:
            name = self.plan.model.name
            return [PlanPart(self.plan, name, self.manifest.tolerances, self.sub_models())]
        return [
            PlanPart(plan, item.entry, item.tolerances, self.sub_models(plan.id))
            for plan, item in zip(self.plans, self.manifest.plans, strict=True)
        ]

    def sub_models(self, plan_id: str | None = None) -> dict[str, Path]:
        """Component -> path of its ONNX file; of one plan of a family."""
        return {
            model.component: self.folder(model) / "1" / "model.onnx"
            for model in self.manifest.models
            if model.kind == "component" and model.component is not None and model.plan == plan_id
        }

    def plan_id_of(self, model: ManifestModel) -> str:
        """The parameter `plan_id` in the config of a Triton model."""
        return model.plan or self.plan.id

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

    def phases(self) -> list[list[ManifestModel]]:
        """All models in the order of loading: what one phase has may be loaded side by side. The
        router, if there is one, is the last phase."""
        models = self.manifest.models
        first = [model for model in models if model.kind not in _LAST_KINDS]
        return [first, *([m for m in models if m.kind == kind] for kind in _LAST_KINDS)]
