"""`tritier doctor`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import JsonFlag, workspace
from tritier.cli.output import progress, say, show_json, show_table
from tritier.documents import DoctorReport, PortabilityReport
from tritier.errors import CheckFailed, UsageError

ReposArgument = Annotated[
    Path | None,
    typer.Argument(metavar="[REPOS]", help="Folder that `tritier generate` wrote, with --target."),
]
TargetOption = Annotated[
    str | None,
    typer.Option("--target", metavar="RELEASE", help="Release of Triton's container, as 26.06."),
]


def doctor_command(
    context: typer.Context,
    repos: ReposArgument = None,
    target: TargetOption = None,
    json: JsonFlag = False,
) -> None:
    """Say what is missing on this machine, or what would stop repositories on a stock Triton.

    Without arguments: each thing that commands need, what was found, and the command that fixes it.
    Exit code 1 if `tritier demo` can't run; warnings don't count.

    With REPOS and --target: generated repositories against the container of that release, by a
    table of what releases have. Nothing is started. Exit code 1 if there are errors.

    \b
    Examples:
        tritier doctor
        tritier doctor repos/ --target 26.06
    """
    if repos is None and target is None:
        _machine(context, json)
    elif repos is None:
        raise UsageError("--target is for repositories: tritier doctor REPOS --target RELEASE")
    elif target is None:
        raise UsageError(
            "REPOS needs the release that shall serve them: tritier doctor REPOS --target RELEASE"
        )
    else:
        _repositories(repos, target, json)


def _machine(context: typer.Context, json: bool) -> None:
    from tritier.doctor import machine_report
    from tritier.doctor.report import blocking

    with progress("looking at this machine"):
        report = machine_report((Path(), workspace(context).folder.resolve().parent))
    if json:
        show_json(json_module.loads(report.to_json()))
    else:
        show_machine(report)
    if not report.can_run_demo:
        names = ", ".join(check.name for check in blocking(report.checks))
        raise CheckFailed(f"`tritier demo` can't run here: {names}; see the fixes above")


def show_machine(report: DoctorReport) -> None:
    """The checks as a table, and the fixes as lines that can be copied."""
    show_table(
        "this machine",
        ["check", "status", "found", "needed for"],
        [
            (check.name, _status(check.status, check.demo), check.found, check.needed_for)
            for check in report.checks
        ],
    )
    fixes: dict[str, list[str]] = {}
    for check in report.checks:
        if check.fix:
            fixes.setdefault(check.fix, []).append(check.name)
    for fix, names in fixes.items():
        say(f"{', '.join(names)}:\n    {fix}")
    verdict = "can run" if report.can_run_demo else "can NOT run"
    say(f"`tritier demo` {verdict} here")


def _status(status: str, demo: bool) -> str:
    return "MISSING" if status == "missing" and demo else status


def _repositories(repos: Path, target: str, json: bool) -> None:
    from tritier.doctor import check_repositories

    report = check_repositories(repos, target)
    if json:
        show_json(json_module.loads(report.to_json()))
    else:
        show_portability(report)
    if report.errors:
        raise CheckFailed(
            f"{report.errors} x error: these repositories would not run on {target}; nothing was "
            "tried, it is what the release table says"
        )


def show_portability(report: PortabilityReport) -> None:
    """The facts of the release and the findings as tables."""
    facts = report.target
    show_table(
        f"container {facts.release} (from the release table; nothing was run there)",
        ["Triton", "ONNX Runtime", "newest opset", "newest IR", "Python", "CUDA"],
        [
            (facts.triton, facts.onnxruntime, facts.max_opset, facts.max_ir, facts.python,
             facts.cuda)
        ],
    )  # fmt: skip
    show_table(
        f"repositories {report.repositories}: {report.models} models, {report.fields} fields",
        ["level", "server", "model", "field", "why", "fix"],
        [
            (x.level, x.server or "all", x.model or "", x.field, x.why, x.fix)
            for x in report.findings
        ],
    )
    counts = {level: sum(x.level == level for x in report.findings) for level in
              ("error", "warning", "info")}  # fmt: skip
    say(", ".join(f"{count} x {level}" for level, count in counts.items()))
