"""The chapters of drawings: layers, components, and the way of one request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tritier.report.commands import compare_command, model_file, report_command
from tritier.report.component_graph import component_graph
from tritier.report.layer_graph import layer_graph
from tritier.report.material import Material
from tritier.report.parts import Evidence, Missing, Section, spanned
from tritier.report.timeline import timeline

_ONE_PREDICTED = Evidence(
    "ms from the start of the request", "predicted (simulator of the data plane)"
)


def layers_section(material: Material) -> Section:
    """Every layer with its server and precision."""
    title = "Layer graph"
    if material.profile is None:
        command = report_command(replace(material.paths, model=Path(model_file(material))))
        missing = Missing("the graph of layers", command)
        return Section("layers", title, missing=(missing,))
    timings = {read.document.server: read.document for read in material.timing}
    drawing = layer_graph(material.plan, material.profile, timings)
    counts = [x.settings.runs for x in timings.values()]
    evidence = Evidence("ms; FLOPs; bytes", "configured (the plan); FLOPs and bytes from the model")
    if counts:
        evidence = Evidence(
            "ms; FLOPs; bytes",
            "configured (the plan); FLOPs and bytes from the model; times measured and corrected",
            spanned(counts, "runs per layer"),
            "standard deviation, in the timing profiles",
        )
    return Section("layers", title, (drawing, evidence))


def components_section(material: Material) -> Section:
    """Components on their servers, and what each wire carries."""
    predicted = material.comparison.document.predicted if material.comparison else None
    drawing = component_graph(
        material.plan,
        material.profile,
        {read.document.server: read.document for read in material.timing},
        # The time of a message is that of its tensor if it carries only one.
        {(x.tensors[0], x.source, x.target): x.ms for x in predicted.messages
         if len(x.tensors) == 1} if predicted else {},
        {x.id: x.ms for x in predicted.components} if predicted else {},
    )  # fmt: skip
    source = "bytes predicted from the plan's shapes and codecs"
    if predicted or material.timing:
        source += "; times predicted from timing profiles"
    return Section(
        "components",
        "Components and wires",
        (drawing, Evidence("bytes and ms per request, one input", source)),
    )


def timeline_section(material: Material) -> Section:
    """One request over servers and links, predicted above measured."""
    title = "Timeline of one request"
    command = compare_command(material)
    found = material.comparison.document if material.comparison else None
    if found is None or not (found.timeline_predicted or found.timeline_measured):
        missing = Missing("when what happens in a request", command)
        return Section("timeline", title, missing=(missing,))
    drawing = timeline(
        material.plan, found.timeline_predicted, found.timeline_measured, "request-timeline"
    )
    if not found.timeline_measured:
        missing = Missing("the measured timeline (the command, with a lab that is up)", command)
        return Section("timeline", title, (drawing, _ONE_PREDICTED), missing=(missing,))
    requests = found.measured.latency.n if found.measured else 0
    evidence = Evidence(
        "ms from the start of the request",
        "predicted (simulator of the data plane) and measured (traces)",
        f"1 request, the one nearest to the median of {requests}",
        "none of a single request; the tables of predictions against measurements have it",
    )
    return Section("timeline", title, (drawing, evidence))
