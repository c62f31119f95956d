"""How photographs become the input of a model."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document

Positive = Annotated[float, Field(gt=0)]


class Preprocessing(Document):
    """What happens to an image of 8-bit pixels, in this order: colour, resize, then
    (pixel * scale - mean) / std per channel, then layout. A model whose input is uint8 gets the
    pixels as they are: for it, scale, mean and std do nothing."""

    title: ClassVar[str] = "preprocessing file"

    format: Literal["tritier/preprocessing/1"] = "tritier/preprocessing/1"
    input: str | None = Field(
        default=None, description="the model's image input; may be left out if it has only one"
    )
    color: Literal["rgb", "bgr", "gray"] = Field(
        default="rgb", description="order of the channels in the model's input"
    )
    resize: Literal["stretch", "letterbox", "line", "crop", "none"] = Field(
        default="stretch",
        description="letterbox keeps the proportions and fills the borders; line keeps them at the "
        "given height, and the width is the given one, filled on the right, or more; crop covers "
        "the size and cuts the centre out; none takes images as they are, cut to a multiple",
    )
    size: Annotated[tuple[int, int], Field(description="height, width")] | None = Field(
        default=None, description="height and width; those of the model's input if left out"
    )
    multiple: int = Field(
        default=1, ge=1, description="with resize none: height and width are multiples of this"
    )
    fill: int = Field(default=114, ge=0, le=255, description="grey of filled borders")
    scale: Positive = Field(default=1 / 255, description="factor on pixels from 0 to 255")
    mean: tuple[float, ...] = Field(
        default=(0.0,), description="per channel, in the order of `color`, after the scale"
    )
    std: tuple[Positive, ...] = Field(default=(1.0,), description="per channel")
    layout: Literal["nchw", "nhwc"] = "nchw"

    @property
    def channels(self) -> int:
        """Number of channels of the model's input."""
        return 1 if self.color == "gray" else 3

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Values per channel that are too many or too few, and settings that would do nothing."""
        channels = 1 if data.get("color") == "gray" else 3
        faults = [
            f"{name}: has {len(values)} values; give 1 or {channels}, one per channel"
            for name in ("mean", "std")
            if isinstance(values := data.get(name), list) and len(values) not in (1, channels)
        ]
        size = data.get("size")
        if isinstance(size, list) and any(isinstance(n, int) and n < 1 for n in size):
            faults.append(f"size: {size}: height and width are from 1")
        is_none = data.get("resize") == "none"
        if is_none and size is not None:
            faults.append("size: does nothing with resize none: leave it out, or choose a resize")
        if not is_none and data.get("multiple", 1) != 1:
            faults.append("multiple: does nothing without resize none: leave it out")
        return faults
