"""What the planner is given in experiments: a lab's servers profiled, its links measured, noise.

Everything is measured on the running lab by the tool's own stages and kept in a folder, so that a
run that was cut off goes on with it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.kept import tell
from benchmarks.lab_runs import Request, Stage
from benchmarks.photographs import CALIBRATION, write_photographs
from benchmarks.subjects import subject
from tritier.calibration import ImageInputs, calibrate, find_images
from tritier.deployment.client import TritonServer
from tritier.divider import Arrays
from tritier.documents import (
    NetworkState,
    NoiseModel,
    Plan,
    Preprocessing,
    Quantization,
    Ranges,
    ServersSpec,
    TimingProfile,
)
from tritier.files import write_file
from tritier.graph import (
    LoadedModel,
    Quantizable,
    build_layer_graph,
    load_model,
    profile_model,
)
from tritier.network.monitor import Pair, all_pairs, measure_round
from tritier.noise import built_in
from tritier.resources import example_dir
from tritier.workflow import (
    NoiseFit,
    NoiseRequest,
    ProfileRequest,
    Runs,
    learn_noise,
    profile_on_servers,
)
from tritier.workflow.compare import Known
from tritier.workflow.noise_wires import CodedTensor, wire_noise
from tritier.workflow.timing_run import without_unquantizable

# The fastest way to quantize on x86 processors without VNNI.
QUANTIZATION = Quantization(activation_type="uint8", per_channel=True, reduce_range=True)
_SENT = len(CALIBRATION)
_GREY = Preprocessing(color="gray", resize="stretch")


@dataclass(frozen=True)
class Subject:
    """A model, what is sent to it, and pictures for ranges and for noise. All three are of
    different photographs: neither ranges nor noise are fitted to what is sent."""

    name: str
    model: LoadedModel
    dims: Mapping[str, int]
    arrays: Arrays
    calibration: ImageInputs
    noise: ImageInputs

    @property
    def key(self) -> str:
        """The name for files."""
        return self.name.replace(" ", "_")

    @property
    def prefix(self) -> str:
        """With which names of its Triton models begin."""
        return self.key[:5]


def super_resolution(folder: Path, pictures: int) -> Subject:
    """The trained super-resolution network, a tile of 224 x 224."""
    model = load_model(example_dir("super_resolution") / "espcn_x3.onnx")
    places = write_photographs(folder / "sr", pictures, pictures, force=True)
    (more, _) = write_photographs(folder / "sr_sent", _SENT, 1, force=True)
    sets = [ImageInputs.of(model, find_images([place]), _GREY) for place in (*places, more)]
    arrays = _sent(sets[2], pictures)
    return Subject("super-resolution", model, {"batch": 1}, arrays, sets[0], sets[1])


def text_detection(folder: Path, pictures: int) -> Subject:
    """The trained text detector that ships in rapidocr, 320 x 640."""
    found = subject("ppocr", folder, pictures, pictures)
    arrays = _sent(subject("ppocr", folder / "sent", _SENT, 1).calibration, pictures)
    return Subject("text detection", found.model, {}, arrays, found.calibration, found.noise)


def _sent(inputs: ImageInputs, pictures: int) -> Arrays:
    """The last of a larger set for ranges: its photograph is in no smaller set."""
    assert pictures < _SENT
    return {k: np.ascontiguousarray(v) for k, v in list(inputs)[-1].items()}


@dataclass(frozen=True)
class Store:
    """Where documents of an experiment are kept, by name."""

    folder: Path

    def ranges(self, item: Subject) -> Ranges:
        """Calibrated once."""
        path = self.folder / f"ranges_{item.model.default_name}.json"
        if not path.exists():
            tell(f"{item.name}: ranges")
            write_file(path, calibrate(item.model, item.calibration).to_json())
        return Ranges.load(path)

    def noise(self, item: Subject, ranges: Ranges, wires: Iterable[str] = ()) -> NoiseModel:
        """Learned once; with what tensors lose in fp16 and in 8 bits."""
        path = self.folder / f"noise_{item.model.default_name}.json"
        if not path.exists():
            tell(f"{item.name}: noise")
            layers = profile_model(item.model, item.dims, Quantizable()).quantizable_layers
            fit = NoiseFit(exhaustive=len(layers) <= 5)
            request = NoiseRequest(
                item.model, layers, item.noise, ranges, self.folder / "store", QUANTIZATION,
                fit=fit, keep_sensitive=True,
            )  # fmt: skip
            noise = learn_noise(request)
            dtype = next(iter(item.arrays.values())).dtype.name
            coded = [CodedTensor(n, dtype, c) for n in wires for c in ("fp16", "int8")]
            found = wire_noise(item.model, coded, item.noise, ranges, built_in("mean_abs"))
            write_file(path, noise.with_wires(found).to_json())
        return NoiseModel.load(path)

    def timings(
        self, item: Subject, stage: Stage, runs: int, key: str = "", servers: Sequence[str] = ()
    ) -> dict[str, TimingProfile]:
        """Timing profiles of servers (all if none is named), measured where they are missing."""
        found = {}
        for server in stage.spec.servers:
            if servers and server.name not in servers:
                continue
            path = self.folder / f"timing_{item.model.default_name}_{server.name}{key}.json"
            if not path.exists():
                tell(f"{item.name}: profile of {server.name}{key}")
                loaded = profile_model(item.model, item.dims, Quantizable())
                profile, _ = without_unquantizable(item.model, loaded)
                request = ProfileRequest(
                    item.model, profile, self.folder / "store", runs=Runs(10, runs), components=0,
                    ranges=self.ranges(item), fresh=True,
                )  # fmt: skip
                (timing,) = profile_on_servers(request, [server], stage.urls)
                write_file(path, timing.to_json())
            found[server.name] = TimingProfile.load(path)
        return found

    def network(
        self, stage: Stage, key: str = "", pairs: Sequence[Pair] | None = None,
        previous: NetworkState | None = None,
    ) -> NetworkState:  # fmt: skip
        """The links (all, or some), measured once; of the others what was known before."""
        path = self.folder / f"network{key}.json"
        if not path.exists():
            chosen = all_pairs(stage.spec) if pairs is None else pairs
            tell(f"monitor of {len(chosen)} links{key}")
            found = measure_round(previous or NetworkState(), stage.spec, stage.urls, chosen)
            if found.failures:
                raise SystemExit(f"not measured: {found.failures}")
            write_file(path, found.state.to_json())
        return NetworkState.load(path)


def scaled(timing: TimingProfile, factor: float) -> TimingProfile:
    """A profile of the same server when it is slower by a factor. What serving adds is left as it
    is, for a declared slow-down does not slow it down."""

    def layer(item: object) -> object:
        times = {k: getattr(item, k) for k in ("float_ms", "int8_ms")}
        new = {k: None if v is None else v * factor for k, v in times.items()}
        return item.model_copy(update=new)  # type: ignore[attr-defined]

    borders = tuple(
        item.model_copy(
            update={
                "making_ms": item.making_ms * factor,
                "reading_ms": item.reading_ms * factor,
            }
        )
        for item in timing.borders
    )
    codings = tuple(
        item.model_copy(
            update={k: v * factor for k, v in item.model_dump(exclude={"codec"}).items()}
        )
        for item in timing.codings or ()
    )
    return timing.model_copy(
        update={
            "layers": tuple(map(layer, timing.layers)),
            "borders": borders,
            "codings": codings or None,
        }
    )


def drifted(known: Known, factors: Mapping[str, float]) -> Known:
    """What predictions are made from, had servers been slower by these factors when profiled."""
    timings = {name: scaled(x, factors.get(name, 1.0)) for name, x in known.timings.items()}
    return replace(known, timings=timings)


class References:
    """The whole model on each server, as the profile measured it, run again beside the plans: by
    how much servers are faster or slower than when they were profiled.

    The plans must have one component each, on their server.
    """

    def __init__(
        self, stage: Stage, plans: Mapping[str, Plan], timings: Mapping[str, TimingProfile],
        arrays: Arrays,
    ) -> None:  # fmt: skip
        self._timings = timings
        self._requests: dict[str, Request] = {}
        self._servers = {n: TritonServer(n, stage.urls[n]) for n in plans}
        self._models = {}
        self.times: dict[str, list[float]] = {name: [] for name in plans}
        for name, plan in plans.items():
            (part,) = plan.components
            self._models[name] = f"{plan.model.name}__{plan.id}__{part.id}"
            ids = {plan.tensor(t).name: t for t in part.inputs}
            fed = {ids[tensor]: array for tensor, array in arrays.items()}
            self._requests[name] = Request(stage.urls[name], self._models[name], fed)

    def round(self, number: int) -> None:
        """One request to each, timed by Triton; those before round 0 don't count."""
        for name, request in self._requests.items():
            before = self._count(name)
            request()
            # An answer may be here before it is counted.
            while (after := self._count(name))[0] == before[0]:
                time.sleep(0.001)
            if number >= 0:
                self.times[name].append((after[1] - before[1]) / (after[0] - before[0]) / 1e6)

    def factors(self) -> dict[str, float]:
        """Measured now over profiled, by server."""
        return {
            name: statistics.median(values) / self._timings[name].whole.median_ms
            for name, values in self.times.items()
            if values
        }

    def begin_anew(self) -> None:
        """Forget the rounds so far."""
        self.times = {name: [] for name in self.times}

    def close(self) -> None:
        """Close the connections."""
        for request in self._requests.values():
            request.close()
        for server in self._servers.values():
            server.close()

    def _count(self, name: str) -> tuple[int, int]:
        """Requests and ns of input, inference and output: what a profile counts, too."""
        found = self._servers[name].statistics(self._models[name])
        parts = (found.compute_input, found.compute_infer, found.compute_output)
        return found.success.count, sum(part.ns for part in parts)


def known(
    item: Subject, spec: ServersSpec, timings: Mapping[str, TimingProfile], network: NetworkState
) -> Known:
    """For `predict_plan`."""
    return Known(item.model, spec, timings, network)


def layer_names(item: Subject) -> list[str]:
    """In the model's order."""
    return [layer.name for layer in build_layer_graph(item.model.proto).layers]


def tensors_between(item: Subject) -> list[str]:
    """All tensors of a model that may cross between servers."""
    graph = build_layer_graph(item.model.proto)
    return [*graph.inputs, *(t for layer in graph.layers for t in layer.outputs)]
