"""The frozen, strict types that cross the borders between stages."""

from tritier.documents.assignment import Assignment
from tritier.documents.base import Document, read_data
from tritier.documents.lab import LabProcess, LabServer, LabState
from tritier.documents.manifest import (
    Batching,
    Manifest,
    ManifestFile,
    ManifestModel,
    ManifestTensor,
    Optimisation,
    Tolerance,
)
from tritier.documents.plan import (
    Component,
    Plan,
    PlanModel,
    PlanServer,
    PlanTensor,
    Predictions,
    Wire,
    required_wires,
)
from tritier.documents.servers import Link, Server, ServersSpec

__all__ = [
    "Assignment",
    "Batching",
    "Component",
    "Document",
    "LabProcess",
    "LabServer",
    "LabState",
    "Link",
    "Manifest",
    "ManifestFile",
    "ManifestModel",
    "ManifestTensor",
    "Optimisation",
    "Plan",
    "PlanModel",
    "PlanServer",
    "PlanTensor",
    "Predictions",
    "Server",
    "ServersSpec",
    "Tolerance",
    "Wire",
    "read_data",
    "required_wires",
]
