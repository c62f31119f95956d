"""What wire codecs cost and save: bytes on the link, noise in the outputs, time of a request.

A model is cut in two (device -> edge) at some layers, each cut with the wires as they are, as fp16
and as int8. All plans are served at once by two Tritons on this machine, the link emulated, and
asked in turn. Noise is the difference of each output from the uncut float model, both at the
optimisation level that is served. Usage:

    python -m benchmarks.wire_codecs ppocr
    python -m benchmarks.wire_codecs MODEL.onnx --images DIR --preprocessing yolo --cut LAYER ...

`ppocr` is the text detector of the package rapidocr, trained, on a photograph of a printed page
from scikit-image; it also counts the text boxes and how far they move.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from rich.console import Console
from rich.table import Table

from tests.helpers import ocr
from tritier.calibration import ImageInputs, calibrate, find_images, load_preprocessing
from tritier.deployment.deploy import Addresses, deploy, find_addresses
from tritier.deployment.lab import Lab
from tritier.divider import Arrays, WholeModel
from tritier.documents import Codec, Plan, Ranges, ServersSpec
from tritier.graph import LoadedModel, build_layer_graph, load_model
from tritier.repository import GenerateOptions, Repositories, write_files
from tritier.workflow import code_plan, generate, infer, plan_from_placement

CODECS: tuple[Codec, ...] = ("as_is", "fp16", "int8")
_WARM_UP = 3
# Layers after which the text detector is cut: early, middle, late.
_PPOCR_CUTS = (29, 58, 200)
Remark = Callable[[Arrays], str]


@dataclass(frozen=True)
class Row:
    """One cut with one codec."""

    after_layer: str
    codec: str
    wire_tensors: int
    wire_bytes: int
    max_abs_difference: float
    mean_abs_difference: float
    request_ms: float
    slowest_ms: float
    n: int
    remark: str


@dataclass(frozen=True)
class Case:
    """A model, inputs to compare, ranges, where to cut, and what else to say of the outputs."""

    model: LoadedModel
    inputs: list[Arrays]
    ranges: Ranges
    cuts: tuple[str, ...]
    remark: Remark


def main() -> int:
    """Print the table; exit code 0."""
    arguments = _arguments()
    case = _ppocr() if arguments.model == "ppocr" else _of_file(arguments)
    link = {"bandwidth_mib_s": arguments.bandwidth_mib_s, "latency_ms": arguments.latency_ms}
    spec = ServersSpec.from_data({
        "servers": [
            {"name": "device", "tier": "device", "entry": True},
            {"name": "edge", "tier": "edge"},
        ],
        "links": [
            {"from": "device", "to": "edge", **link},
            {"from": "edge", "to": "device", **link},
        ],
    })  # fmt: skip
    rows = measure(case, spec, arguments.requests)
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    else:
        show(rows, arguments)
    return 0


def measure(case: Case, spec: ServersSpec, requests: int) -> list[Row]:
    """A row for each cut and codec; requests of all plans in turn."""
    plans = [(cut, codec) for cut in case.cuts for codec in CODECS]
    whole = WholeModel(case.model.path, "all")
    expected = [whole.run(arrays) for arrays in case.inputs]
    with (
        tempfile.TemporaryDirectory(prefix="tritier-bench-") as name,
        _served(case, spec, plans, Path(name)) as (made, addresses),
    ):
        client = triton.InferenceServerClient(addresses.urls["device"])
        answers = [[infer(client, p.model.name, x) for x in case.inputs] for p in made]
        times: list[list[float]] = [[] for _ in made]
        for number in range(-_WARM_UP, requests):
            for index, plan in enumerate(made):
                start = time.perf_counter()
                infer(client, plan.model.name, case.inputs[number % len(case.inputs)])
                if number >= 0:
                    times[index].append((time.perf_counter() - start) * 1e3)
        client.close()
    return [
        _row(case, *chosen, plan, expected, answer, spent)
        for chosen, plan, answer, spent in zip(plans, made, answers, times, strict=True)
    ]


def show(rows: Sequence[Row], arguments: argparse.Namespace) -> None:
    """The table."""
    table = Table(
        title=f"cuts of {Path(arguments.model).stem}, device -> edge over "
        f"{arguments.bandwidth_mib_s:g} MiB/s and {arguments.latency_ms:g} ms one way (measured)",
        title_justify="left",
    )
    columns = ("after layer", "codec", "tensors", "wire bytes", "max |diff|", "mean |diff|",
               "request ms", "slowest ms", "n", "")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in ("after layer", "codec") else "right")
    for row in rows:
        table.add_row(
            row.after_layer,
            row.codec,
            str(row.wire_tensors),
            f"{row.wire_bytes:,}",
            f"{row.max_abs_difference:.3g}",
            f"{row.mean_abs_difference:.3g}",
            f"{row.request_ms:.0f}",
            f"{row.slowest_ms:.0f}",
            str(row.n),
            row.remark,
        )
    Console(width=150).print(table)


@contextmanager
def _served(
    case: Case, spec: ServersSpec, plans: Sequence[tuple[str, Codec]], folder: Path
) -> Iterator[tuple[list[Plan], Addresses]]:
    """All plans on two servers at once, each under its own name."""
    lab = Lab(folder / "lab")
    lab.up(spec, None)
    try:
        made = []
        for index, (cut, codec) in enumerate(plans):
            plan = plan_of(case, spec, cut, codec, f"cut{index}")
            files, _ = generate(plan, case.model, GenerateOptions(deadline_ms=60_000))
            write_files(files, folder / f"repos{index}", force=False)
            repositories = Repositories.open(folder / f"repos{index}")
            addresses = find_addresses(repositories, spec, lab.state())
            deploy(repositories, addresses, push="always")
            made.append(plan)
        yield made, addresses
    finally:
        lab.down()


def plan_of(case: Case, spec: ServersSpec, cut: str, codec: Codec, name: str) -> Plan:
    """The layers up to `cut` on the device, the rest on the edge."""
    graph = build_layer_graph(case.model.proto)
    last = graph.by_name[cut].index
    where = {x.name: "device" if x.index <= last else "edge" for x in graph.layers}
    plan = plan_from_placement(case.model, graph, where, spec, name)
    # The way back is the model's own output, which keeps its type.
    outgoing = {plan.tensor(w.tensor).name: codec for w in plan.wires if w.source == "device"}
    return code_plan(plan, case.model, graph, (), case.ranges, None, outgoing)


def _row(
    case: Case,
    cut: str,
    codec: Codec,
    plan: Plan,
    expected: Sequence[Arrays],
    answers: Sequence[Arrays],
    times_ms: Sequence[float],
) -> Row:
    gaps = [
        np.abs(whole[name].astype(np.float64) - split[name].astype(np.float64))
        for whole, split in zip(expected, answers, strict=True)
        for name in whole
    ]
    outgoing = [wire for wire in plan.wires if wire.source == "device"]
    sizes = [_bytes(plan, wire.tensor, plan.wire_dtype(wire), case) for wire in outgoing]
    return Row(
        after_layer=cut,
        codec=codec,
        wire_tensors=len(outgoing),
        wire_bytes=sum(sizes),
        max_abs_difference=max(float(gap.max()) for gap in gaps),
        mean_abs_difference=float(np.mean([gap.mean() for gap in gaps])),
        request_ms=statistics.median(times_ms),
        slowest_ms=max(times_ms),
        n=len(times_ms),
        remark=case.remark(answers[0]),
    )


def _bytes(plan: Plan, tensor: str, dtype: str, case: Case) -> int:
    """Bytes on the wire of the first input; sizes that hang on the input are looked up."""
    found = plan.tensor(tensor)
    shape = found.shape
    if any(isinstance(dim, str) for dim in shape):
        shape = _shapes(case, plan)[found.name]
    return int(np.prod([int(dim) for dim in shape])) * np.dtype(dtype).itemsize


def _shapes(case: Case, plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shapes of the plan's tensors for the first input, by running the model with them as
    outputs."""
    graph = build_layer_graph(case.model.proto)
    probe = type(case.model.proto)()
    probe.CopyFrom(case.model.proto)
    names = [t.name for t in plan.tensors if t.name in graph.source and t.name not in graph.outputs]
    for name in names:
        probe.graph.output.add().name = name
    found = WholeModel(probe.SerializeToString(), "basic").run(case.inputs[0])
    return {name: array.shape for name, array in found.items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="`ppocr`, or an ONNX file with one image input")
    parser.add_argument("--images", type=Path, help="photographs: half for ranges, half to compare")
    parser.add_argument("--preprocessing", default="yolo", help="preset or file")
    parser.add_argument("--cut", nargs="+", default=[], help="layers after which to cut")
    parser.add_argument("--requests", type=int, default=20, help="timed requests of each plan")
    parser.add_argument("--bandwidth-mib-s", type=float, default=12.0, help="about 100 Mbit/s")
    parser.add_argument("--latency-ms", type=float, default=5.0, help="one way")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


def _of_file(arguments: argparse.Namespace) -> Case:
    model = load_model(Path(arguments.model))
    paths = find_images([arguments.images])
    steps = load_preprocessing(arguments.preprocessing)
    ranges = calibrate(model, ImageInputs.of(model, paths[::2], steps))
    inputs = list(ImageInputs.of(model, paths[1::2], steps))
    return Case(model, inputs, ranges, tuple(arguments.cut), lambda _: "")


def _ppocr() -> Case:
    model = load_model(ocr.DETECTION)
    image = ocr.page()
    inputs = [{"x": ocr.detection_input(image)}]
    pages = [{"x": ocr.detection_input(other, 320)} for other in ocr.calibration_pages()]
    whole = WholeModel(model.path, "all").run(inputs[0])
    expected = ocr.boxes_of(whole["fetch_name_0"], image)

    def boxes(answer: Arrays) -> str:
        found = ocr.boxes_of(answer["fetch_name_0"], image)
        if found.shape != expected.shape:
            return f"{len(found)} boxes, the whole model finds {len(expected)}"
        moved = float(np.abs(found - expected).max())
        return f"{len(found)} boxes, moved {moved:g} px"

    layers = build_layer_graph(model.proto).layers
    cuts = tuple(layers[index].name for index in _PPOCR_CUTS)
    return Case(model, inputs, calibrate(model, pages), cuts, boxes)


if __name__ == "__main__":
    sys.exit(main())
