"""Calibration ranges: the least and greatest value of each tensor over real inputs."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document

Range = tuple[float, float]


class InputFile(Document):
    """A file whose content was fed to a model."""

    name: str = Field(min_length=1, description="without its folder")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the file")


class Ranges(Document):
    """Computed once for a model, used for any choice of quantized layers and wire codecs."""

    title: ClassVar[str] = "ranges file"

    format: Literal["tritier/ranges/1"] = "tritier/ranges/1"
    model_sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of the model they are for")
    method: Literal["minmax", "entropy", "percentile"]
    samples: Annotated[int, Field(ge=1)] = Field(description="number of inputs that were run")
    source: str = Field(default="", description="where the inputs came from, in words")
    inputs: tuple[InputFile, ...] = Field(
        default=(), description="the files that were run, so that noise is measured on others"
    )
    ranges: dict[str, Range] = Field(description="tensor -> least and greatest value")

    @property
    def sha256(self) -> str:
        """Of the document."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Ranges the wrong way round."""
        try:
            return range_faults(data["ranges"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return []  # a field has a wrong shape, which is reported where it stands


def range_faults(ranges: dict[str, Any]) -> list[str]:
    """Ranges whose least value is above the greatest."""
    return [
        f"ranges: '{name}' goes from {low} to {high}; the least value comes first"
        for name, (low, high) in ranges.items()
        if low > high
    ]
