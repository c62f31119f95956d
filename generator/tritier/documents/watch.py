"""What `tritier watch` noticed and decided: one JSON object a line, the oldest first."""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.figures import Timestamp

WatchEvent = Literal[
    "started",  # what is watched
    "change",  # of a server, a link or the latency; a new plan is looked for
    "reconciled",  # what a server lacked was loaded again
    "superseded",  # a search was given up for a newer need
    "keep",  # what is deployed stays
    "hold",  # another plan is better, but the last switch was too short ago
    "switch",  # another family is deployed
    "failed",  # something could not be done; what is deployed stays
    "ended",
]


class WatchRecord(Document):
    """One line of the log."""

    title: ClassVar[str] = "watch record"

    format: Literal["tritier/watch/1"] = "tritier/watch/1"
    at: Timestamp
    since_start_s: float = Field(ge=0, description="by a clock that is never set")
    event: WatchEvent
    text: str = Field(min_length=1, description="a sentence with its figures")
    subject: str | None = Field(default=None, description="'edge', 'edge -> cloud' or 'latency'")
    deployed: str | None = Field(default=None, description="id of the family that serves then")
    offered: str | None = Field(default=None, description="id of the plan that was found")
    deployed_ms: float | None = Field(
        default=None, ge=0, description="predicted of the deployed plan as things are"
    )
    offered_ms: float | None = Field(default=None, ge=0, description="predicted of the offered one")
    took_s: float | None = Field(default=None, ge=0, description="what was done took so long")

    def to_line(self) -> str:
        """The record as a line of the log."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return json.dumps(data, ensure_ascii=False) + "\n"
