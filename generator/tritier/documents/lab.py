"""State of a running lab: which processes there are and where they listen."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document
from tritier.documents.security import Security


class LabProcess(Document):
    """A process, identified by pid and start time (clock ticks since boot)."""

    pid: int = Field(gt=0)
    started_ticks: int = Field(ge=0)


class LabServer(Document):
    """A Triton server of the lab."""

    name: str
    process: LabProcess
    grpc_url: str
    http_url: str | None = None
    metrics_url: str
    repository: str
    log_file: str
    shm_prefix: str
    security: Security = Security()
    environment: dict[str, str] = Field(
        default_factory=dict, description="variables that the lab set for it, without secrets"
    )


class LabState(Document):
    """Everything that `lab status`, `lab down` and `deploy` need to know."""

    title: ClassVar[str] = "lab state"

    format: Literal["tritier/lab/1"] = "tritier/lab/1"
    servers: tuple[LabServer, ...]
    relay: LabProcess | None = None
    relay_log_file: str | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Server name -> gRPC address for apps and deployment (past the relays)."""
        return {server.name: server.grpc_url for server in self.servers}
