"""`classes.yaml`: classes of requests, and what each of them may expect."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.planning import Objective
from tritier.errors import did_you_mean

ClassName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Noise = Annotated[float, Field(ge=0)]
# The longest that a request of a class may take, if nothing else is said.
DEFAULT_DEADLINE_MS = 10_000


class RequestClass(Document):
    """Requests that want the same: so much noise at most, an answer by then."""

    noise: Noise | dict[str, Noise] | None = Field(
        default=None,
        description="most noise of every output, or of the named ones; 0: nothing is quantized or "
        "coded; what the command line says if left out",
    )
    deadline_ms: int = Field(default=DEFAULT_DEADLINE_MS, ge=1, description="of a request")
    hedge: bool = Field(
        default=False, description="ask the next plan too when the first is slower than usual"
    )
    objective: Objective | None = Field(
        default=None, description="of its plan; that of the command line if left out"
    )
    latency_weight: float | None = Field(default=None, ge=0, le=1, description="for weighted")


class Classes(Document):
    """Request classes, the most important first."""

    title: ClassVar[str] = "classes file"

    classes: dict[ClassName, RequestClass] = Field(min_length=1)
    default: str | None = Field(
        default=None, description="class of requests that name none; the first if left out"
    )

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """The default is one of the classes."""
        classes, default = data.get("classes"), data.get("default")
        if default is None or not isinstance(classes, dict) or default in classes:
            return []
        hint = did_you_mean(str(default), classes)
        return [f"default: '{default}' is no class{hint}; known are {', '.join(map(str, classes))}"]

    @property
    def default_class(self) -> str:
        """The class of requests that name none."""
        return self.default or next(iter(self.classes))
