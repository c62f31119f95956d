"""Python packages of this distribution and of its extras, by its own metadata."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Sequence

from packaging.requirements import InvalidRequirement, Requirement

from tritier.doctor.fixes import pip_install
from tritier.documents import MachineCheck

DISTRIBUTION = "tritier"
CORE = "core"
# Extra -> what it is for. One that is not named here is shown all the same.
_USES = {
    CORE: "every command",
    "embedded": "the lab, the demo and the tests: a real tritonserver without a container",
    "demo": "the photographs of `tritier demo`",
    "gpu": "memory and power of NVIDIA GPUs",
    "loadtest": "`tritier load`",
    "dask": "`tritier noise --backend dask`",
    "docs": "`make docs` in a checkout",
    "vision": "YOLO models: pre- and postprocessing, drawn boxes",
    "plots": "pictures of --plot and of `tritier report --figures`",
    "report": "charts of `tritier report`",
    "dev": "the tests and `make check` of a checkout",
}
_DEMO = (CORE, "embedded", "demo")
VersionOf = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """The version of an installed distribution; None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def own_requirements() -> list[str] | None:
    """Requirements of this distribution with their markers; None if it runs without having been
    installed, by PYTHONPATH."""
    try:
        return importlib.metadata.distribution(DISTRIBUTION).requires or []
    except importlib.metadata.PackageNotFoundError:
        return None


def check_packages(
    requirements: Sequence[str] | None,
    version_of: VersionOf = installed_version,
    python: str = "python",
) -> list[MachineCheck]:
    """A check of the core and of each extra that `requirements` name; one that says that nothing is
    known if they are None."""
    if requirements is None:
        return [
            MachineCheck(
                name="packages",
                status="warning",
                found="tritier is not installed, it runs from its sources: its needs are unknown",
                needed_for="knowing what is missing",
                fix=pip_install(python, ".[embedded,demo]"),
            )
        ]
    groups = _groups(requirements)
    return [
        _check(extra, items, version_of, python)
        for extra, items in groups.items()
        if extra == CORE or items
    ]


def _groups(requirements: Iterable[str]) -> dict[str, list[Requirement]]:
    """Extra -> what it adds; what is always needed stands under `core`, which comes first."""
    groups: dict[str, list[Requirement]] = {CORE: []}
    for text in requirements:
        try:
            item = Requirement(text)
        except InvalidRequirement:
            continue  # written by a newer packaging standard than this one reads
        if item.name == DISTRIBUTION:
            continue  # an extra made of others, which have checks of their own
        marker = str(item.marker) if item.marker else ""
        named = re.findall(r"extra == [\"']([^\"']+)[\"']", marker)
        for extra in named or [CORE]:
            if item.marker is None or item.marker.evaluate({"extra": extra}):
                groups.setdefault(extra, []).append(item)
    return {extra: groups[extra] for extra in sorted(groups, key=_order)}


def _order(extra: str) -> tuple[int, str]:
    known = list(_USES)
    return (known.index(extra) if extra in known else len(known), extra)


def _check(
    extra: str, items: Sequence[Requirement], version_of: VersionOf, python: str
) -> MachineCheck:
    faults, wanted = [], []
    for item in items:
        version = version_of(item.name)
        if version is None:
            faults.append(f"{item.name} is not installed")
        elif not item.specifier.contains(version, prereleases=True):
            faults.append(f"{item.name} {version} does not fit {item.specifier}")
        else:
            continue
        wanted.append(_specified(item))
    return MachineCheck(
        name=f"packages: {extra}",
        status="missing" if faults else "ok",
        found="; ".join(faults) or f"all {len(items)} are installed",
        needed_for=_USES.get(extra, f"the extra '{extra}'"),
        fix=pip_install(python, *wanted) if faults else None,
        demo=extra in _DEMO,
    )


def _specified(item: Requirement) -> str:
    extras = f"[{','.join(sorted(item.extras))}]" if item.extras else ""
    return f"{item.name}{extras}{item.specifier}"
