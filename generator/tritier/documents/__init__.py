"""The frozen, strict types that cross the borders between stages."""

from tritier.documents.assignment import Assignment
from tritier.documents.base import Document, read_data
from tritier.documents.codecs import (
    FLOAT_CODECS,
    NARROWING,
    QUANTIZING,
    WIRE_DTYPES,
    Codec,
    suiting,
    suits,
)
from tritier.documents.lab import LabProcess, LabServer, LabState
from tritier.documents.manifest import (
    Batching,
    Manifest,
    ManifestFile,
    ManifestModel,
    ManifestTensor,
    ManifestWire,
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
)
from tritier.documents.plan_faults import required_wires
from tritier.documents.preprocessing import Preprocessing
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
from tritier.documents.ranges import Range, Ranges, range_faults
from tritier.documents.servers import Link, Quantization, Server, ServersSpec
from tritier.documents.wired import WiredComponent, WiredPlan, wire_up

__all__ = [
    "FLOAT_CODECS",
    "GENERATOR",
    "NARROWING",
    "QUANTIZING",
    "RECEIVER",
    "WIRE_DTYPES",
    "Assignment",
    "Batching",
    "Codec",
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
    "ManifestWire",
    "ModelProfile",
    "Optimisation",
    "Plan",
    "PlanModel",
    "PlanServer",
    "PlanTensor",
    "Predictions",
    "Preprocessing",
    "ProfileTotals",
    "Quantization",
    "Range",
    "Ranges",
    "Server",
    "ServersSpec",
    "SharedWeight",
    "TensorProfile",
    "Tolerance",
    "Wire",
    "WiredComponent",
    "WiredPlan",
    "activation_peak_bytes",
    "range_faults",
    "read_data",
    "required_wires",
    "suiting",
    "suits",
    "weight_bytes",
    "wire_up",
]
