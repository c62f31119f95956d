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
from tritier.documents.profile import (
    GENERATOR,
    RECEIVER,
    LayerProfile,
    ModelProfile,
    ProfileTotals,
    SharedWeight,
    TensorProfile,
    activation_peak_bytes,
    weight_bytes,
)
from tritier.documents.servers import Link, Server, ServersSpec

__all__ = [
    "GENERATOR",
    "RECEIVER",
    "Assignment",
    "Batching",
    "Component",
    "Document",
    "LabProcess",
    "LabServer",
    "LabState",
    "LayerProfile",
    "Link",
    "Manifest",
    "ManifestFile",
    "ManifestModel",
    "ManifestTensor",
    "ModelProfile",
    "Optimisation",
    "Plan",
    "PlanModel",
    "PlanServer",
    "PlanTensor",
    "Predictions",
    "ProfileTotals",
    "Server",
    "ServersSpec",
    "SharedWeight",
    "TensorProfile",
    "Tolerance",
    "Wire",
    "activation_peak_bytes",
    "read_data",
    "required_wires",
    "weight_bytes",
]
