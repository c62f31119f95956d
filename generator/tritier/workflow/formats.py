"""Which int8 format gains on a server: speed and noise of really quantized whole models."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tritier.deployment.client import TritonServer
from tritier.divider import Array, Arrays
from tritier.documents import (
    Figure,
    HostFacts,
    ModelProfile,
    Quantization,
    Ranges,
    Server,
)
from tritier.errors import InputError
from tritier.graph import LayerGraph, LoadedModel, build_layer_graph
from tritier.network.agent import AgentLimits, running_agent
from tritier.timing import duration
from tritier.workflow.formats_layers import int8_layers, layers_of_all_types, with_layers
from tritier.workflow.formats_places import Here, OnServer, Place, answers_here
from tritier.workflow.formats_report import (
    AS_FAST,
    FormatNoise,
    FormatRow,
    FormatsReport,
    ratio,
    relative_noise,
)
from tritier.workflow.timing_bench import Runs
from tritier.workflow.timing_pieces import Piece, PieceMaker
from tritier.workflow.timing_store import Store

FLOAT = "float"
ALL_OPS = "all ops"
_U8: dict[str, str] = {"activation_type": "uint8"}
FORMATS: Mapping[str, Quantization] = {
    "S8S8": Quantization(),
    "U8S8": Quantization.model_validate(_U8),
    "U8S8 per_channel": Quantization.model_validate({**_U8, "per_channel": True}),
    "U8S8 per_channel reduce_range": Quantization.model_validate(
        {**_U8, "per_channel": True, "reduce_range": True}
    ),
    "U8U8": Quantization.model_validate({**_U8, "weight_type": "uint8"}),
    "U8U8 per_channel": Quantization.model_validate(
        {**_U8, "weight_type": "uint8", "per_channel": True}
    ),
}
# How many formats are tried on the other types of layers too, after some first runs.
_BEST = 2
_FIRST_RUNS = 5
_SPARE_BYTES = 64 << 20
Report = Callable[[str], None]


@dataclass(frozen=True)
class FormatsRequest:
    """What is to be compared. `profile` marks the layers that are quantized; `inputs` are those
    that noise is measured on, the first one also gives the sizes."""

    model: LoadedModel
    profile: ModelProfile
    ranges: Ranges
    inputs: Sequence[Arrays]
    store: Path
    runs: Runs = field(default_factory=Runs)

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InputError("no inputs to measure noise on: give at least one")
        if not self.profile.quantizable_layers:
            raise InputError("no layer can be quantized: choose others, of float32")


def formats_here(
    request: FormatsRequest,
    threads: int,
    processor: str,
    onnxruntime: str,
    report: Report = lambda _: None,
) -> FormatsReport:
    """Compare the formats on this machine, in this process."""
    server = Server(name="here", tier="device", entry=True, threads=threads)
    comparison = _Comparison(request, server, report)
    rows = comparison.rows(lambda runs: Here(threads, runs.warmup, runs.runs))
    return comparison.finished("this machine", processor, onnxruntime, rows)


def formats_on_server(
    request: FormatsRequest, server: Server, url: str, report: Report = lambda _: None
) -> FormatsReport:
    """Compare the formats on a server, as its Triton serves them; raises ServerError."""
    comparison = _Comparison(request, server, report)
    limits = AgentLimits(max_payload_bytes=comparison.largest_bytes + _SPARE_BYTES)
    with TritonServer(server.name, url) as triton, running_agent(triton, {}, limits) as agent:
        host = HostFacts.from_data(agent.facts()["host"])
        # Nothing is taken from earlier runs: all formats are to be measured side by side.
        store = Store(request.store, fresh=True)

        def place(runs: Runs) -> Place:
            return OnServer(server, triton, agent, host, store, runs, lambda text, _: report(text))

        rows = comparison.rows(place)
    return comparison.finished(server.name, host.cpu_model, host.onnxruntime or "", rows)


@dataclass(frozen=True)
class _Candidate:
    """A model that is compared, and what makes it."""

    name: str
    piece: Piece
    settings: Quantization | None
    layers: tuple[str, ...]
    maker: PieceMaker


class _Comparison:
    """One model on one server."""

    def __init__(self, request: FormatsRequest, server: Server, report: Report) -> None:
        self._request = request
        self._server = server
        self._report = report
        self._graph: LayerGraph = build_layer_graph(request.model.proto)
        chosen = request.profile.quantizable_layers
        self._float = self._candidate(FLOAT, None, ())
        self._formats = [
            self._candidate(name, settings, chosen) for name, settings in FORMATS.items()
        ]
        self._noise: dict[str, tuple[FormatNoise, ...]] = {}

    @property
    def largest_bytes(self) -> int:
        """Of the models, which go to the server."""
        return max(len(item.piece.data) for item in (self._float, *self._formats))

    def rows(self, place: Callable[[Runs], Place]) -> list[FormatRow]:
        """Some first runs tell which formats are tried on all types of layers; then all are
        measured, in turn."""
        runs = self._request.runs
        candidates = [self._float, *self._formats]
        first = place(replace(runs, warmup=min(runs.warmup, 2), runs=min(runs.runs, _FIRST_RUNS)))
        self._report(f"first runs of {len(candidates)} models")
        times = self._times(first, candidates)
        medians = {name: statistics.median(found) for name, found in times.items()}
        self._measure_noise(first, candidates)
        more = self._all_ops(medians)
        self._measure_noise(first, [self._float, *more])
        candidates += more
        self._report(f"timing {len(candidates)} models")
        times = self._times(place(runs), candidates)
        self._report("looking for int8 kernels")
        return [self._row(first, item, times) for item in candidates]

    def finished(
        self, place: str, processor: str, onnxruntime: str, rows: Iterable[FormatRow]
    ) -> FormatsReport:
        """The rows and where they come from."""
        return FormatsReport(
            self._request.profile.model.name,
            place,
            processor,
            onnxruntime,
            self._server.threads,
            len(self._request.inputs),
            tuple(rows),
        )

    def _candidate(
        self, name: str, settings: Quantization | None, layers: Collection[str]
    ) -> _Candidate:
        server = self._server
        if settings is not None:
            server = server.model_copy(update={"quantization": settings})
        request = self._request
        profile = with_layers(request.profile, layers)
        maker = PieceMaker(request.model, self._graph, profile, server, request.ranges)
        piece = maker.whole(settings is not None)
        return _Candidate(name, replace(piece, name=_safe(name)), settings, tuple(layers), maker)

    def _all_ops(self, medians: Mapping[str, float]) -> list[_Candidate]:
        """The best formats on all types of layers: the fastest, and of those that are as fast, the
        ones with less noise."""
        layers = layers_of_all_types(self._request.model, self._graph, self._request.profile)
        left = {name: medians[_safe(name)] for name in FORMATS}
        best: list[str] = []
        while len(best) < _BEST:
            limit = min(left.values()) / (1 - AS_FAST)
            near = [name for name, median in left.items() if median <= limit]
            best.append(min(near, key=lambda name: relative_noise(self._noise[_safe(name)])))
            del left[best[-1]]
        return [self._candidate(f"{name}, {ALL_OPS}", FORMATS[name], layers) for name in best]

    def _times(self, place: Place, candidates: Sequence[_Candidate]) -> dict[str, list[float]]:
        return place.times_ns([item.piece for item in candidates], self._request.inputs[0])

    def _measure_noise(self, place: Place, candidates: Sequence[_Candidate]) -> None:
        """Of all candidates, the first of which is the float model."""
        inputs, pieces = self._request.inputs, [item.piece for item in candidates]
        self._report(f"noise of {len(pieces) - 1} models (inputs: {len(inputs)})")
        real = _errors(place.answers(pieces, inputs), pieces)
        here = answers_here(pieces, inputs, "disabled", self._server.threads)
        simulated = _errors(here, pieces)
        n = len(inputs)
        for piece in pieces:
            self._noise[piece.name] = tuple(
                FormatNoise(
                    output,
                    Figure(value=error, n=n),
                    Figure(value=simulated[piece.name][output][0], n=n),
                    Figure(value=signal, n=n),
                )
                for output, (error, signal) in real[piece.name].items()
            )

    def _row(
        self, place: Place, item: _Candidate, times: Mapping[str, Sequence[float]]
    ) -> FormatRow:
        found = times[item.piece.name]
        kernels: tuple[str, ...] | None = ()
        if item.settings is not None:
            profiled = item.maker.profiled(quantized=True)
            graph = place.optimised(profiled)
            kernels = None if graph is None else int8_layers(profiled.nodes, graph, item.layers)
        return FormatRow(
            item.name,
            item.settings,
            item.layers,
            kernels,
            duration(found),
            ratio(times[_safe(FLOAT)], found),
            self._noise[item.piece.name],
        )


def _errors(
    answers: Iterable[Sequence[Arrays]], pieces: Sequence[Piece]
) -> dict[str, dict[str, tuple[float, float]]]:
    """By piece and output: mean over inputs of mean |difference to the first piece|, and of mean
    |what the first piece gives|. Only float outputs count."""
    exact: Sequence[Arrays] = ()
    found = {}
    for piece, outputs in zip(pieces, answers, strict=True):
        exact = exact or outputs
        names = [name for name, array in exact[0].items() if array.dtype.kind == "f"]
        found[piece.name] = {
            name: (
                statistics.fmean(map(_distance, _column(exact, name), _column(outputs, name))),
                statistics.fmean(_distance(array) for array in _column(exact, name)),
            )
            for name in names
        }
    return found


def _column(outputs: Iterable[Arrays], name: str) -> list[Array]:
    return [arrays[name] for arrays in outputs]


def _distance(array: Array, other: Array | None = None) -> float:
    """Mean |array - other|, or mean |array|."""
    exact = array.astype(np.float64)
    gap = exact if other is None else exact - other.astype(np.float64)
    return float(np.abs(gap).mean()) if gap.size else 0.0


def _safe(name: str) -> str:
    """As part of a name in Triton."""
    return name.replace(", ", ".").replace(" ", "-")
