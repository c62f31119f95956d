"""The machine and the programs with which something was measured."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import Timestamp


class Environment(Document):
    """What one needs to know to judge a measurement, and to repeat it."""

    title: ClassVar[str] = "measuring environment"

    measured_at: Timestamp
    tritier: str = Field(description="version of this tool")
    python: str
    platform: str = Field(description="system, kernel and machine type of the client")
    processor: str = Field(description="model name of the client's processor")
    cores: int = Field(ge=1, description="that the client may use")
    memory_bytes: int = Field(ge=0, description="of the client's machine; 0 if it is unknown")
    load_averages: tuple[float, ...] = Field(
        default=(), description="of the client's machine over 1, 5 and 15 minutes, at the start"
    )
    perf_analyzer: str | None = Field(default=None, description="version, if it was used")
    servers: dict[str, str] = Field(default_factory=dict, description="server -> Triton's version")
