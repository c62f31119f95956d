"""What `tritier doctor` says: of this machine, or of generated repositories on a stock Triton."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document

CheckStatus = Literal["ok", "warning", "missing"]
FindingLevel = Literal["error", "warning", "info"]
UNKNOWN = "unknown"


class MachineCheck(Document):
    """One thing that is looked for on this machine."""

    name: str
    status: CheckStatus
    found: str
    needed_for: str
    fix: str | None = Field(
        default=None, description="the command that puts it right; left out where nothing has to be"
    )
    demo: bool = Field(default=False, description="whether `tritier demo` needs it")


class DoctorReport(Document):
    """All checks of this machine."""

    title: ClassVar[str] = "doctor report"

    format: Literal["tritier/doctor/1"] = "tritier/doctor/1"
    tool_version: str
    can_run_demo: bool
    checks: tuple[MachineCheck, ...]


class ReleaseFacts(Document):
    """What the release table says of a container; `unknown` where no source was found."""

    release: str = Field(pattern=r"^\d\d\.\d\d$")
    triton: str = UNKNOWN
    onnxruntime: str = UNKNOWN
    max_opset: int | Literal["unknown"] = Field(
        default="unknown", description="of the operators of ONNX itself"
    )
    max_ir: int | Literal["unknown"] = "unknown"
    python: str = UNKNOWN
    cuda: str = UNKNOWN


class PortabilityFinding(Document):
    """One thing to know before these repositories are served by that container. A finding without
    a server holds for all of them."""

    level: FindingLevel
    server: str | None = None
    model: str | None = None
    field: str
    why: str
    fix: str


class PortabilityReport(Document):
    """Generated repositories against one release of the container. Nothing of it was run there."""

    title: ClassVar[str] = "portability report"

    format: Literal["tritier/portability/1"] = "tritier/portability/1"
    tool_version: str
    repositories: str = Field(description="id of the plan or of the family")
    target: ReleaseFacts
    models: int = Field(ge=0)
    fields: int = Field(ge=0, description="different fields that the configs use")
    errors: int = Field(ge=0)
    findings: tuple[PortabilityFinding, ...]
