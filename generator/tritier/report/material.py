"""The documents behind a report, read and checked to be of one plan and one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tritier.documents import (
    WHOLE,
    BenchResult,
    Document,
    Manifest,
    ModelProfile,
    NetworkState,
    NoiseModel,
    Plan,
    PlanReport,
    TimingProfile,
)
from tritier.documents.comparison import Comparison
from tritier.documents.costs import CapacityReport, CostReport
from tritier.documents.load import LoadResult
from tritier.documents.sharing import SharingReport
from tritier.errors import InputError
from tritier.files import sha256_file
from tritier.graph import LoadedModel, load_model, profile_model
from tritier.repository.read import Repositories
from tritier.repository.write import MANIFEST_NAME, PLAN_NAME

D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class Read(Generic[D]):
    """A document with the file that it comes from."""

    path: Path
    sha256: str
    document: D


@dataclass(frozen=True)
class Paths:
    """The files that a report is made of; only the plan is needed."""

    plan: Path
    model: Path | None = None
    planning: Path | None = None
    timing: tuple[Path, ...] = ()
    network: Path | None = None
    noise: Path | None = None
    bench: tuple[Path, ...] = ()
    load: tuple[Path, ...] = ()
    comparison: Path | None = None
    cost: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Material:
    """What is known of a plan. A part that was not given is None or empty."""

    paths: Paths
    plan_file: Path
    plan_sha256: str
    plan: Plan
    manifest: Manifest | None = None
    model: LoadedModel | None = None
    profile: ModelProfile | None = None
    planning: Read[PlanReport] | None = None
    timing: tuple[Read[TimingProfile], ...] = ()
    network: Read[NetworkState] | None = None
    noise: Read[NoiseModel] | None = None
    bench: tuple[Read[BenchResult], ...] = ()
    load: tuple[Read[LoadResult], ...] = ()
    comparison: Read[Comparison] | None = None
    cost: tuple[Read[CostReport], ...] = ()
    capacity: tuple[Read[CapacityReport], ...] = ()
    sharing: tuple[Read[SharingReport], ...] = ()

    @property
    def documents(self) -> tuple[tuple[str, Path, str], ...]:
        """What, file and SHA-256 of everything that was read, the plan first."""
        rows = [("plan", self.plan_file, self.plan_sha256)]
        if self.model is not None:
            rows.append(("model", self.model.path, self.model.sha256))
        single: list[Read[Any] | None] = [self.planning, *self.timing, self.network, self.noise]
        single += [*self.bench, *self.load, self.comparison, *self.cost, *self.capacity,
                   *self.sharing]  # fmt: skip
        rows += [(x.document.title, x.path, x.sha256) for x in single if x is not None]
        return tuple(rows)

    def is_split(self, model_name: str) -> bool:
        """Whether a Triton model runs this plan, not the whole model."""
        return not model_name.endswith("__whole")


def collect(paths: Paths) -> Material:
    """Read everything. Raises InputError, with all that does not fit told at once, when a file is
    bad or is of another plan or model."""
    plan_file, manifest = _find_plan(paths.plan)
    plan = Plan.load(plan_file)
    model = load_model(paths.model) if paths.model else None
    costs = [_cost(path) for path in paths.cost]
    found = Material(
        paths, plan_file, sha256_file(plan_file), plan, manifest, model,
        planning=_read(PlanReport, paths.planning),
        timing=_all(TimingProfile, _timing_files(paths.timing)),
        network=_read(NetworkState, paths.network),
        noise=_read(NoiseModel, paths.noise),
        bench=_all(BenchResult, paths.bench),
        load=_all(LoadResult, paths.load),
        comparison=_read(Comparison, paths.comparison),
        cost=tuple(x for x in costs if isinstance(x.document, CostReport)),
        capacity=tuple(x for x in costs if isinstance(x.document, CapacityReport)),
        sharing=tuple(x for x in costs if isinstance(x.document, SharingReport)),
    )  # fmt: skip
    if faults := list(_faults(found)):
        raise InputError(faults)
    if model is None:
        return found
    dims = found.timing[0].document.dims if found.timing else {}
    return Material(**{**vars(found), "profile": profile_model(model, dims)})


def _find_plan(path: Path) -> tuple[Path, Manifest | None]:
    """The plan's file, and the manifest if a generated folder was given."""
    if not path.is_dir():
        return path, None
    if (path / MANIFEST_NAME).is_file():
        folder = Repositories.open(path)
        if folder.family is None:
            return path / PLAN_NAME, folder.manifest
        files = ", ".join(str(path / item.file) for item in folder.manifest.plans or ())
        raise InputError(f"holds several plans; give one of {files}", str(path))
    files = ", ".join(str(item) for item in sorted(path.glob("plan*.json")))
    raise InputError(
        f"is no folder that `tritier generate` wrote; give {files or 'a plan (JSON)'}", str(path)
    )


def _read(kind: type[D], path: Path | None) -> Read[D] | None:
    if path is None:
        return None
    document = kind.load(path)
    return Read(path, sha256_file(path), document)


def _all(kind: type[D], paths: Iterable[Path]) -> tuple[Read[D], ...]:
    return tuple(item for path in paths if (item := _read(kind, path)) is not None)


def _cost(path: Path) -> Read[Any]:
    """A report of costs, of capacity or of sharing, whichever it says it is."""
    kinds: tuple[type[Document], ...] = (CostReport, CapacityReport, SharingReport)
    faults: list[InputError] = []
    for kind in kinds:
        try:
            return Read(path, sha256_file(path), kind.load(path))
        except InputError as error:
            faults.append(error)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", str(path)) from None
    raise faults[_said_format(path, kinds)]


def _said_format(path: Path, kinds: Sequence[type[Document]]) -> int:
    """Which of these kinds the file says it is, the first if none: its faults are told."""
    text = path.read_text(encoding="utf-8", errors="replace")
    names = [str(kind.model_fields["format"].default) for kind in kinds]
    return next((k for k, name in enumerate(names) if f'"{name}"' in text), 0)


def _timing_files(paths: Sequence[Path]) -> list[Path]:
    """A folder stands for the files in it."""
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise InputError(
                "has no timing profiles (*.json): make some with `tritier profile`", str(path)
            )
        files += found
    return files


def _faults(material: Material) -> Iterable[str]:
    """What is of another plan or another model."""
    plan = material.plan
    if material.model is not None and material.model.sha256 != plan.model.sha256:
        yield _other_model(material.model.path, material.model.sha256, plan)
    of_model: list[Read[Any]] = [*material.timing, *([material.noise] if material.noise else [])]
    for read in of_model:
        if read.document.model.sha256 != plan.model.sha256:
            yield _other_model(read.path, read.document.model.sha256, plan)
    yield from _repeated(material.timing)
    if material.planning and material.planning.document.plan_id != plan.id:
        yield _other_plan(material.planning, material.planning.document.plan_id, plan)
    if material.comparison and material.comparison.document.plan_id != plan.id:
        yield _other_plan(material.comparison, material.comparison.document.plan_id, plan)
    if material.network:
        names = {item.name for item in material.network.document.servers}
        if missing := [server.name for server in plan.servers if server.name not in names]:
            yield (
                f"{material.network.path}: does not know {', '.join(missing)} of plan {plan.id}; "
                f"it has {', '.join(sorted(names))}: give the network.json of these servers"
            )
    runs: list[Read[Any]] = [*material.bench, *material.load]
    for run in runs:
        yield from _fault_of_run(run, run.document.model, run.document.plan_id, plan)


def _fault_of_run(read: Read[Any], model: str, plan_id: str | None, plan: Plan) -> Iterable[str]:
    """A measurement of the plan, or of its whole model beside it."""
    name = plan.model.name
    if model not in (name, f"{name}__whole", f"{name}__{plan.id}"):
        yield (
            f"{read.path}: measured the Triton model '{model}'; the plan is of '{name}' (allowed "
            f"are {name}, {name}__{plan.id} and {name}__whole)"
        )
    elif plan_id not in (None, plan.id, WHOLE) and not model.endswith("__whole"):
        yield _other_plan(read, str(plan_id), plan)


def _repeated(timing: Sequence[Read[TimingProfile]]) -> Iterable[str]:
    seen: dict[str, Path] = {}
    for read in timing:
        server = read.document.server
        if server in seen:
            yield f"{read.path}: is a second timing profile of '{server}' beside {seen[server]}"
        seen[server] = read.path


def _other_model(path: Path, sha256: str, plan: Plan) -> str:
    return (
        f"{path}: is of another model ({sha256[:12]}...) than plan {plan.id}, which is of "
        f"'{plan.model.name}' ({plan.model.sha256[:12]}...): leave it out or make it again"
    )


def _other_plan(read: Read[Any], plan_id: str, plan: Plan) -> str:
    return (
        f"{read.path}: is of plan {plan_id}, the report is of plan {plan.id}: leave it out or make "
        "it again"
    )
