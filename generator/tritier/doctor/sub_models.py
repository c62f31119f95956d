"""ONNX sub-models against the ONNX Runtime of a release."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError

from tritier.doctor.subjects import Subject
from tritier.documents import PortabilityFinding, ReleaseFacts

# Domains whose operators every build of ONNX Runtime has.
_OWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")
_FILE = "1/model.onnx"


def onnx_findings(subject: Subject, facts: ReleaseFacts) -> list[PortabilityFinding]:
    """Versions that are too new, operators of others, weights at places of this machine."""
    try:
        model = onnx.load(subject.folder / _FILE, load_external_data=False)
    except (OSError, DecodeError):
        why = "is not there, or is no ONNX model"
        return [subject.says("error", _FILE, why, "tritier generate, again")]
    return [
        *_version_findings(subject, model, facts),
        *_domain_findings(subject, model),
        *_external_findings(subject, model),
    ]


def _version_findings(
    subject: Subject, model: onnx.ModelProto, facts: ReleaseFacts
) -> list[PortabilityFinding]:
    opsets = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    rows = [("IR version", model.ir_version, facts.max_ir)]
    rows += [("opset", version, facts.max_opset) for version in opsets]
    findings = []
    for what, found, most in rows:
        at = f"{_FILE}: {what}"
        runtime = f"ONNX Runtime {facts.onnxruntime} of {facts.release}"
        if most == "unknown":
            why = f"is {found}, and how far {runtime} goes is not known"
            fix = "try the model with that version of ONNX Runtime"
            findings.append(subject.says("warning", at, why, fix))
        elif found > most:
            why = f"is {found}; {runtime} takes {most} at most"
            fix = "export the model with an older opset, or take a newer container"
            if what == "IR version":
                fix = (
                    "convert the model before planning (its ir_version), or take a newer container"
                )
            findings.append(subject.says("error", at, why, fix))
    return findings


def _domain_findings(subject: Subject, model: onnx.ModelProto) -> list[PortabilityFinding]:
    own = {function.domain for function in model.functions}
    others = sorted({node.domain for node in model.graph.node} - set(_OWN_DOMAINS) - own)
    return [
        subject.says(
            "error",
            f"{_FILE}: domain {domain}",
            "its operators are not part of ONNX Runtime",
            "put a library of them into the container (model_operations), or replace them",
        )
        for domain in others
    ]


def _external_findings(subject: Subject, model: onnx.ModelProto) -> list[PortabilityFinding]:
    places = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return [
        subject.says(
            "error",
            f"{_FILE}: external data",
            f"'{place}' is a path of this machine",
            "tritier generate, again: it writes weights beside the sub-model",
        )
        for place in sorted(places)
        if PurePosixPath(place).is_absolute() or PureWindowsPath(place).is_absolute()
    ]
