"""Generated repositories against a stock container of Triton: what would stop them there."""

from __future__ import annotations

from pathlib import Path

import tritier
from tritier.deployment.security import server_options
from tritier.deployment.versions import SECURITY_RELEASE
from tritier.doctor.fields import field_findings, field_paths
from tritier.doctor.python_models import python_findings
from tritier.doctor.releases import ReleaseTable, has, release_table, since
from tritier.doctor.settings import setting_findings
from tritier.doctor.sub_models import onnx_findings
from tritier.doctor.subjects import Subject, Subjects, read_subjects
from tritier.documents import PortabilityFinding, PortabilityReport, ReleaseFacts, Security
from tritier.documents.doctor import FindingLevel
from tritier.errors import InputError
from tritier.repository.check import check_wiring

# With everything that may be turned on, for the names of all options.
_PROTECTED = Security(
    tls=True, mutual=True, ca="ca", server_cert="cert", server_key="key", admin_key_variable="KEY"
)
_ORDER: dict[FindingLevel, int] = {"error": 0, "warning": 1, "info": 2}


def check_repositories(
    path: Path, target: str, table: ReleaseTable | None = None
) -> PortabilityReport:
    """Check a folder that `tritier generate` wrote against the container of that release. Nothing
    is started: it is compared with the release table.

    Raises InputError for a release that is not in the table, or a folder that can't be read.
    """
    table = table or release_table()
    facts = table.facts(target)
    subjects = read_subjects(path)
    findings = [*subjects.findings, *_wiring_findings(subjects)]
    for subject in subjects.models:
        if subject.config is not None:
            findings += _model_findings(subject, table, facts)
    findings += python_findings(subjects.models, table, facts)
    findings += _server_findings(table, facts)
    findings.sort(key=lambda item: _ORDER[item.level])
    used = {name for x in subjects.models if x.config is not None for name in field_paths(x.config)}
    return PortabilityReport(
        tool_version=tritier.__version__,
        repositories=subjects.id,
        target=facts,
        models=len(subjects.models),
        fields=len(used),
        errors=sum(item.level == "error" for item in findings),
        findings=tuple(findings),
    )


def _model_findings(
    subject: Subject, table: ReleaseTable, facts: ReleaseFacts
) -> list[PortabilityFinding]:
    findings = field_findings(subject, table, facts.release)
    if subject.config.name not in ("", subject.row.name):
        why = f"is '{subject.config.name}', and its folder '{subject.row.name}': Triton refuses it"
        findings.append(subject.says("error", "name", why, "tritier generate, again"))
    if subject.backend == "onnxruntime":
        findings += onnx_findings(subject, facts)
    return findings + setting_findings(subject, table, facts)


def _wiring_findings(subjects: Subjects) -> list[PortabilityFinding]:
    """Ensembles whose steps do not fit the models of their server."""
    configs = {
        (item.row.server, item.row.name): item.config
        for item in subjects.models
        if item.config is not None
    }
    try:
        check_wiring(configs)
    except InputError as error:
        fix = "tritier generate, again"
        return [_general("error", "ensemble_scheduling", fault, fix) for fault in error.faults]
    return []


def _server_findings(table: ReleaseTable, facts: ReleaseFacts) -> list[PortabilityFinding]:
    """What holds for every server of that release, whatever it serves."""
    target, findings = facts.release, []
    if not has(SECURITY_RELEASE, target):
        why = f"{target} lacks security fixes of 2025 and 2026"
        fix = f"take {SECURITY_RELEASE} or newer in production (docs/security.md)"
        findings.append(_general("warning", "release", why, fix))
    for option in server_options("", _PROTECTED):
        name = option.partition("=")[0]
        first = since(table.server_options, name)
        if first is None or not has(first, target):
            why = f"{name}, which `tritier servers flags` gives, is not known of {target}"
            findings.append(_general("warning", name, why, "look it up in `tritonserver --help`"))
    unknown = sorted(name for name, value in facts if value == "unknown")
    if unknown:
        why = f"the release table has no source for its {', '.join(unknown)}"
        findings.append(_general("info", "release table", why, "see NVIDIA's release notes"))
    why = "models are loaded in an order, and configs are whole"
    fix = "start with --model-control-mode=explicit --disable-auto-complete-config"
    findings.append(_general("info", "model control", why, fix))
    why = f"sub-models run in Triton's own ONNX Runtime backend ({facts.onnxruntime})"
    fix = "leave the Python backend `onnxruntime` of the embedded server out of the container"
    findings.append(_general("info", "backend", why, fix))
    return findings


def _general(level: FindingLevel, at: str, why: str, fix: str) -> PortabilityFinding:
    return PortabilityFinding(level=level, server=None, model=None, field=at, why=why, fix=fix)
