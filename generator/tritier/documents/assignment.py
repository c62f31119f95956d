"""An assignment of layers to servers, written by a person or another tool."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tritier.documents.base import Document


class Assignment(Document):
    """Layer name or pattern -> server. Exact names go before patterns, earlier patterns before
    later ones; what nothing names goes to `default`."""

    title: ClassVar[str] = "assignment"

    layers: dict[str, str] = Field(
        default={}, description="layer name or shell pattern (*, ?, [..]) -> server name"
    )
    default: str | None = Field(default=None, description="server of the layers not named above")
