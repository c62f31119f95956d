"""Speed and noise of int8 formats on this machine, for whole models with every Conv quantized.

    python -m benchmarks.int8_formats ppocr yolo11n_640_rescaled.onnx=yolo [--runs 30] [--threads 1]

`ppocr` is the trained text detector that ships in rapidocr, at 320 x 640 pixels, on photographs
with lines of text. Others are ONNX files with a preprocessing, a preset or a file. Ranges and noise
come from different photographs (see photographs.py). Random weights carry no signal: rescale their
statistics first, and call them that. Times of all formats are taken in turn; measure when nothing
else runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import onnxruntime

from benchmarks.subjects import HELP, Subject, subject
from tritier.calibration import calibrate
from tritier.cli.formats import show_formats, verdict
from tritier.graph import (
    Quantizable,
    build_layer_graph,
    profile_model,
)
from tritier.workflow import Runs
from tritier.workflow.formats import FormatsRequest, formats_here
from tritier.workflow.formats_layers import averages_of, with_layers
from tritier.workflow.formats_report import FormatsReport
from tritier.workflow.processor import processor_facts


def main() -> int:
    """Print a table per model; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help=HELP)
    parser.add_argument("--runs", type=int, default=30, help="of each format (default 30)")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--calibration", type=int, default=40, help="pictures (default 40)")
    parser.add_argument("--noise", type=int, default=20, help="pictures (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--markdown", action="store_true", help="print tables for the docs")
    options = parser.parse_args()
    reports = []
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as name:
        folder = Path(name)
        for number, model in enumerate(options.models):
            found = subject(
                model, folder / str(number), options.calibration, options.noise, options.seed
            )
            request = _request(found, options, folder)
            version, cpu = str(onnxruntime.__version__), processor_facts()
            reports.append(formats_here(request, options.threads, cpu, version, _tell))
            if not options.json:
                (_show_markdown if options.markdown else show_formats)(reports[-1])
                sys.stdout.flush()
    if options.json:
        sys.stdout.write(json.dumps([report.to_data() for report in reports], indent=2) + "\n")
    return 0


def _request(found: Subject, options: argparse.Namespace, folder: Path) -> FormatsRequest:
    model, calibration = found.model, found.calibration
    profile = profile_model(model, {}, Quantizable(len(model.proto.graph.node)))
    ends = averages_of(build_layer_graph(model.proto))
    _tell(f"ranges of {model.default_name} over {len(calibration)} pictures")
    return FormatsRequest(
        model,
        with_layers(profile, set(profile.quantizable_layers) - ends),
        calibrate(model, calibration),
        list(found.noise),
        folder / "timing",
        Runs(options.warmup, options.runs),
    )


def _show_markdown(report: FormatsReport) -> None:
    print(f"\n{report.model}: {report.processor}, ONNX Runtime {report.onnxruntime}")
    print(f"{report.threads} thread(s), n = {report.rows[0].time.n}, {report.inputs} pictures\n")
    columns = ("format", "layers", "as int8", "median ms", "times as fast (95 %)", "real noise",
               "simulated")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for row in report.rows:
        speed = f"{row.speedup.value:.2f} ({row.speedup.low:.2f} to {row.speedup.high:.2f})"
        real, simulated = (
            ", ".join(f"{getattr(item, kind).value:.3g}" for item in row.noise)
            for kind in ("real", "simulated")
        )
        cells = (row.name, len(row.layers), len(row.int8_layers or ()),
                 f"{row.time.median_ms:.1f}", speed, real, simulated)  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")
    signal = ", ".join(f"{item.signal.value:.3g}" for item in report.rows[0].noise)
    print(f"\nmean abs of the output: {signal}")
    for line in verdict(report):
        print(line)


def _tell(step: str) -> None:
    sys.stderr.write(f"{step}\n")


if __name__ == "__main__":
    sys.exit(main())
