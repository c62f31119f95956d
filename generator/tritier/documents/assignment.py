"""An assignment of layers to servers, written by a person or another tool."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.codecs import Codec


class Assignment(Document):
    """Layer name or pattern -> server. Exact names go before patterns, earlier patterns before
    later ones; what nothing names goes to `default`."""

    title: ClassVar[str] = "assignment"

    layers: dict[str, str] = Field(
        default={}, description="layer name or shell pattern (*, ?, [..]) -> server name"
    )
    default: str | None = Field(default=None, description="server of the layers not named above")
    quantized_layers: tuple[str, ...] = Field(
        default=(), description="names or patterns of the layers to quantize"
    )
    wire_codec: Codec | None = Field(
        default=None,
        description="of the tensors that cross a link, where it suits their type; if left out, "
        "what quantized layers read and make crosses as they compute with it, all else as it is",
    )
    wire_codecs: dict[str, Codec] = Field(
        default={}, description="tensor name or shell pattern -> codec, before `wire_codec`"
    )
