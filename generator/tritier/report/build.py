"""A report from what is known: its chapters in order."""

from __future__ import annotations

from typing import Any

import tritier
from tritier.report.chapter_bench import bench_section
from tritier.report.chapter_compare import comparison_section
from tritier.report.chapter_cost import cost_section
from tritier.report.chapter_environment import environment_section, reproduce_section
from tritier.report.chapter_graphs import components_section, layers_section, timeline_section
from tritier.report.chapter_load import load_section
from tritier.report.chapter_noise import noise_section
from tritier.report.chapter_planning import baselines_section, front_section
from tritier.report.material import Material
from tritier.report.parts import Report, Section
from tritier.report.summary import summary_section


def build_report(material: Material, title: str | None = None) -> Report:
    """All chapters; those without material say which command makes it."""
    plan = material.plan
    sections = (
        summary_section(material),
        layers_section(material),
        components_section(material),
        timeline_section(material),
        bench_section(material),
        load_section(material),
        front_section(material),
        noise_section(material),
        baselines_section(material),
        comparison_section(material),
        cost_section(material),
        environment_section(material),
        reproduce_section(material, title),
    )
    servers = ", ".join(dict.fromkeys(component.server for component in plan.components))
    return Report(
        title or f"{plan.model.name} on {servers}",
        f"Plan {plan.id} of {plan.model.name} (SHA-256 {plan.model.sha256[:12]}...)",
        sections,
        tritier.__version__,
    )


def contents(report: Report) -> dict[str, Any]:
    """What a report has and what is missing, for programs."""
    return {
        "title": report.title,
        "sections": [_contents(section) for section in report.sections],
        "figures": [figure.id for figure in report.figures],
        "missing": [{"what": x.what, "command": x.command} for x in report.missing],
    }


def _contents(section: Section) -> dict[str, Any]:
    return {
        "id": section.id,
        "title": section.title,
        "figures": [figure.id for figure in section.figures],
        "missing": [item.what for item in section.missing],
    }
