"""The release table: what is known of each container of Triton, and from where."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tritier.documents import Document, ReleaseFacts
from tritier.documents.base import read_data
from tritier.documents.doctor import UNKNOWN
from tritier.errors import InputError

_FILE = Path(__file__).with_name("releases.yaml")
_NEAREST = 3


class ReleaseRow(Document):
    """One container; what has no source is `unknown`."""

    triton: str = UNKNOWN
    onnxruntime: str = UNKNOWN
    python: str = UNKNOWN
    cuda: str = UNKNOWN


class RuntimeLimits(Document):
    """The newest models that a version of ONNX Runtime takes."""

    max_opset: int = Field(ge=1)
    max_ir: int = Field(ge=1)


class KnownPackage(Document):
    """A module that the models import."""

    distribution: str = Field(description="what pip installs, with its limits")
    in_image: bool = Field(description="whether the stock image has it for Python models")
    in_dockerfile: bool = Field(description="whether this project's image of a server has it")


# The first release that is *known* to have something, which may be older -> what has been there
# since then.
Since = dict[str, tuple[str, ...]]


class ReleaseTable(Document):
    """All that the portability check knows."""

    title: ClassVar[str] = "release table"

    sources: dict[str, str]
    releases: dict[str, ReleaseRow]
    onnxruntime: dict[str, RuntimeLimits] = Field(description="by major.minor")
    fields: Since = Field(description="fields of configs")
    backends: Since = Field(description="backends and platforms")
    python_api: Since = Field(description="names that Python models use")
    python_types: Since = Field(description="types of tensors of Python models")
    server_options: Since = Field(description="options of tritonserver")
    onnxruntime_parameters: tuple[str, ...]
    image_recipe: str = Field(description="release whose recipe says what is in the image")
    packages: dict[str, KnownPackage]

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Every version of ONNX Runtime in a release has a row of limits."""
        limits = data.get("onnxruntime") or {}
        rows = data.get("releases") or {}
        wanted = {name: (row or {}).get("onnxruntime", UNKNOWN) for name, row in rows.items()}
        return [
            f"releases.{name}: ONNX Runtime {version} has no row under onnxruntime"
            for name, version in wanted.items()
            if version != UNKNOWN and minor_of(version) not in limits
        ]

    def facts(self, target: str) -> ReleaseFacts:
        """What is known of that release; raises InputError, with the nearest ones, for others."""
        row = self.releases.get(target)
        if row is None:
            raise InputError(self._refusal(target))
        limits = self.onnxruntime.get(minor_of(row.onnxruntime))
        known = {"max_opset": limits.max_opset, "max_ir": limits.max_ir} if limits else {}
        return ReleaseFacts.from_data({"release": target, **row.model_dump(), **known})

    def _refusal(self, target: str) -> str:
        known = sorted(self.releases)
        try:
            months = _months(target)
            nearest = sorted(known, key=lambda name: abs(_months(name) - months))[:_NEAREST]
            hint = f"the nearest are {', '.join(sorted(nearest))}"
        except ValueError:
            hint = f"a container release is written YEAR.MONTH, such as {known[-1]}"
        return (
            f"--target {target}: is not in the release table, which goes from {known[0]} to "
            f"{known[-1]}; {hint}"
        )


def since(known: Since, name: str) -> str | None:
    """The first release that is known to have it; None if nothing is known of it."""
    return next((release for release in sorted(known) if name in known[release]), None)


def has(first: str, target: str) -> bool:
    """Whether a release has what is there since another one."""
    return _months(target) >= _months(first)


def minor_of(version: str) -> str:
    """`1.23` of `1.23.2`."""
    return ".".join(version.split(".")[:2])


@functools.cache
def release_table() -> ReleaseTable:
    """The table that comes with this package."""
    data: Mapping[str, Any] = read_data(_FILE)
    return ReleaseTable.from_data(data, _FILE.name)


def _months(release: str) -> int:
    """Months since 2000; raises ValueError for what is no release."""
    year, _, month = release.partition(".")
    if not (len(year) == len(month) == 2 and (year + month).isdecimal() and 1 <= int(month) <= 12):
        raise ValueError(f"{release} is no release")
    return int(year) * 12 + int(month)
