"""How well timing profiles predict components, and how long profiling takes, by both methods.

Models are profiled on servers of the lab (real Tritons, declared slow-down, no emulated links), and
random contiguous components, float and with every layer quantized that can be, are cut out and
measured as Triton serves them, in turn with the whole model. Usage:

    python -m benchmarks.profile_accuracy ppocr yolo11n.onnx [--components 20] [--server cloud]

`ppocr` is the text detector that ships in rapidocr, at 320 x 640 pixels. Others are ONNX files;
random weights do, only times are looked at.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.ocr import DETECTION
from tritier.deployment.lab import Lab
from tritier.documents import ComponentCheck, Server, ServersSpec, TimingProfile
from tritier.graph import PrepareOptions, load_model, prepare_model, profile_model
from tritier.workflow import Method, ProfileRequest, Runs, profile_on_servers

_OCR = PrepareOptions(shapes={"x": (1, 3, 320, 640)}, opset=17)
_SLOWDOWNS = {"device": 4.0, "edge": 2.0, "cloud": 1.0}
# The fastest way to quantize on x86 processors without VNNI.
_QUANTIZATION = {"activation_type": "uint8", "per_channel": True, "reduce_range": True}
_LARGE = 0.05  # of the model's time: components above it are also looked at alone


@dataclass(frozen=True)
class Row:
    """Errors in %, of `n` components; `layers_over_whole` is what the layers add up to."""

    model: str
    server: str
    method: str
    precision: str
    profiling_s: float
    layers_over_whole: float
    whole_ms: float
    n: int
    mean: float
    p95: float
    largest: float
    n_large: int
    mean_large: float
    p95_large: float
    memory_mean: float


def main() -> int:
    """Print the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="ppocr, or paths of ONNX files")
    parser.add_argument("--components", type=int, default=20)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--server", action="append", choices=list(_SLOWDOWNS), help="all if none")
    parser.add_argument("--method", action="append", choices=["profiler", "layers"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, help="folder of results; a new one if left out")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="tritier-bench-") as name:
        lab = Lab(Path(name) / "lab")
        spec = _spec(options.server or list(_SLOWDOWNS))
        urls = lab.up(spec, None).urls
        try:
            for model in options.models:
                for method in options.method or ["profiler", "layers"]:
                    request = _request(model, method, options, Path(name))
                    for found in profile_on_servers(request, spec.servers, urls, _tell):
                        rows += _rows(found)
        finally:
            lab.down()
    if options.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        show(rows)
    return 0


def _spec(names: list[str]) -> ServersSpec:
    servers = tuple(
        Server.from_data(
            {
                "name": name,
                "tier": name,
                "entry": index == 0,
                "slowdown": _SLOWDOWNS[name],
                "quantization": _QUANTIZATION,
            }
        )
        for index, name in enumerate(names)
    )
    return ServersSpec(servers=servers)


def _request(
    model: str, method: Method, options: argparse.Namespace, folder: Path
) -> ProfileRequest:
    path = Path(model)
    if model == "ppocr":
        path = folder / "ppocr_det.onnx"
        if not path.exists():
            prepare_model(DETECTION, _OCR).write(path)
    loaded = load_model(path)
    return ProfileRequest(
        loaded,
        profile_model(loaded),
        options.store or folder / "timing",
        method=method,
        runs=Runs(10, options.runs),
        components=options.components,
        seed=options.seed,
    )


_last: dict[str, str] = {}


def _tell(server: str, step: str, _share: float) -> None:
    if _last.get(server) != step:
        _last[server] = step
        sys.stderr.write(f"{server}: {step}\n")


def _rows(found: TimingProfile) -> list[Row]:
    rows = []
    for quantized in (False, True):
        checks = [check for check in found.components if check.quantized == quantized]
        whole = found.mixed if quantized else found.whole
        if not checks or whole is None:
            continue
        large = [c for c in checks if c.measured.median_ms >= _LARGE * whole.median_ms]
        errors, large_errors = _errors(checks), _errors(large)
        rows.append(
            Row(
                model=found.model.name,
                server=found.server,
                method=found.settings.method,
                precision="int8" if quantized else "float",
                profiling_s=found.profiling_s,
                layers_over_whole=found.sum_over_whole,
                whole_ms=whole.median_ms,
                n=len(errors),
                mean=_mean(errors),
                p95=_p95(errors),
                largest=max(errors),
                n_large=len(large_errors),
                mean_large=_mean(large_errors),
                p95_large=_p95(large_errors),
                memory_mean=_memory_error(checks),
            )
        )
    return rows


def _errors(checks: list[ComponentCheck]) -> list[float]:
    return [abs(check.error) * 100 for check in checks]


def _mean(values: list[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _p95(values: list[float]) -> float:
    if len(values) < 2:
        return _mean(values)
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def _memory_error(checks: list[ComponentCheck]) -> float:
    return _mean(
        [
            abs(check.predicted_bytes / check.measured_bytes - 1) * 100
            for check in checks
            if check.predicted_bytes and check.measured_bytes
        ]
    )


def show(rows: list[Row]) -> None:
    """The table."""
    table = Table(title="components: |predicted - measured| / measured, %", title_justify="left")
    for column in ("model", "server", "method", "precision", "profiling s", "layers / whole",
                   "whole ms", "n", "mean", "p95", "max", "n large", "mean", "p95",
                   "memory mean"):  # fmt: skip
        table.add_column(column)
    for row in rows:
        cells = [f"{x:.2f}" if isinstance(x, float) else str(x) for x in asdict(row).values()]
        table.add_row(*cells)
    Console(width=170).print(table)


if __name__ == "__main__":
    sys.exit(main())
