"""Mean noise of subsets over inputs: stored, resumed, and run side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime as ort

from tritier.calibration import Arrays, Inputs, calibrate, input_files
from tritier.documents import Ranges
from tritier.files import sha256_bytes
from tritier.graph import LoadedModel
from tritier.noise import (
    Executor,
    InputScores,
    Metric,
    Program,
    in_prefix_order,
)
from tritier.workflow.noise_spread import Where, measured_side_by_side
from tritier.workflow.noise_work import Work
from tritier.workflow.processor import processor_name
from tritier.workflow.timing_store import Store

Report = Callable[[str], None]


@dataclass(frozen=True)
class NoiseMeans:
    """Mean noise by subset and output; `design` are the subsets to fit to, `inputs` how many
    inputs are behind each."""

    design: frozenset[int]
    noise: dict[int, dict[str, float]]
    inputs: dict[int, int]


@dataclass
class Measurer:
    """Measures subsets of one executor on the same inputs."""

    executor: Executor
    metric: Metric
    outputs: tuple[str, ...]
    inputs: Inputs
    store: Path
    fresh: bool = False
    where: Where = field(default_factory=Where)
    report: Report = lambda _: None
    _digests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._store = Store(self.store, self.fresh)
        self._ranges_sha256 = self.executor.ranges.sha256  # of a long document: once
        self._every = (1 << len(self.executor.layers)) - 1

    def means(
        self, design: Sequence[int], others: Sequence[int], shape_inputs: int | None
    ) -> NoiseMeans:
        """The design on the first `shape_inputs` inputs, scaled to all inputs by how much noise all
        layers together make there and here; the others on all inputs."""
        total = len(self.inputs)
        few = min(shape_inputs or total, total)
        shape = self.scores([*design, self._every], few, "fitted subsets")
        found = {subset: self._mean(shape, subset, few) for subset in design}
        used = dict.fromkeys(design, few)
        if few < total:
            whole = self.scores([self._every], total, "all layers")
            scale = self._scale(shape, whole, few)
            found = {s: {k: x * scale[k] for k, x in noise.items()} for s, noise in found.items()}
            if self._every in found:
                found[self._every] = self._mean(whole, self._every, total)
                used[self._every] = total
        if others:
            held = self.scores(others, total, "verification subsets")
            found |= {subset: self._mean(held, subset, total) for subset in others}
            used |= dict.fromkeys(others, total)
        return NoiseMeans(frozenset(design), found, used)

    def mean(self, subset: int) -> dict[str, float]:
        """Noise of one subset over all inputs."""
        total = len(self.inputs)
        return self._mean(self.scores([subset], total, "one subset"), subset, total)

    def scores(self, subsets: Sequence[int], count: int, what: str) -> list[InputScores]:
        """Scores of the subsets on each of the first `count` inputs. What is stored is taken from
        there; each input is stored as soon as it is done."""
        ordered = in_prefix_order(dict.fromkeys(subsets), len(self.executor.layers))
        found: dict[int, InputScores] = {}
        missing = []
        for number in range(count):
            # What a function of the user reads besides its inputs is not known.
            known = self.metric.by_output
            stored = self._store.find(self._key(ordered, number)) if known else None
            if stored is None:
                missing.append(number)
            else:
                found[number] = {int(k, 16): scores for k, scores in stored.result.items()}
        if missing:
            self.report(f"{len(ordered)} {what}: quantizing")
            program = self.executor.compile([0, *ordered])
            measured = self._measured(program, missing, f"{len(ordered)} {what}")
            with closing(measured):
                for number, scores in measured:
                    found[number] = scores
                    self._keep(ordered, number, scores)
        return [found[number] for number in range(count)]

    def _measured(
        self, program: Program, numbers: Sequence[int], what: str
    ) -> Generator[tuple[int, InputScores], None, None]:
        started = time.monotonic()
        self.report(f"{what} on {len(numbers)} inputs")
        wanted = set(numbers)
        work = Work(self.executor, program, self.metric, self.outputs)
        inputs = (item for item in enumerate(self.inputs) if item[0] in wanted)
        with closing(measured_side_by_side(work, inputs, self.where)) as results:
            for done, (number, scores) in enumerate(results, 1):
                yield number, scores
                left = (time.monotonic() - started) / done * (len(numbers) - done)
                self.report(f"{what}: {done} of {len(numbers)} inputs, about {left:.0f} s left")

    def _scale(
        self, shape: Sequence[InputScores], whole: Sequence[InputScores], few: int
    ) -> dict[str, float]:
        here = self._mean(whole, self._every, len(whole))
        there = self._mean(shape, self._every, few)
        return {name: here[name] / there[name] if there[name] else 1.0 for name in here}

    def _mean(self, scores: Sequence[InputScores], subset: int, count: int) -> dict[str, float]:
        names = list(scores[0][subset])
        return {
            name: self.metric.combine([scores[i][subset][name] for i in range(count)])
            for name in names
        }

    def _keep(self, subsets: Sequence[int], number: int, scores: InputScores) -> None:
        if not self.metric.by_output:
            return
        result = {f"{subset:x}": scores[subset] for subset in subsets}
        self._store.keep(self._key(subsets, number), result, 0.0)

    def _key(self, subsets: Sequence[int], number: int) -> Mapping[str, Any]:
        """All that the scores of an input hang on."""
        executor = self.executor
        return {
            "what": "noise",
            "model": executor.model.sha256,
            "layers": list(executor.layers),
            "ranges": self._ranges_sha256,
            "settings": executor.settings.model_dump(),
            "kernels": executor.kernels,
            "memoise": executor.memoise,
            # By which kernels there are, sums differ in their last bits, or more.
            "processor": processor_name(),
            "metric": self.metric.identity,
            "outputs": list(self.outputs),
            "subsets": [f"{subset:x}" for subset in subsets],
            "number": number,
            "input": self._digest(number),
            "onnxruntime": ort.__version__,
        }

    def _digest(self, number: int) -> str:
        if not self._digests:
            self._digests = [_digest(arrays) for arrays in self.inputs]
        return self._digests[number]


def stored_ranges(
    model: LoadedModel,
    inputs: Inputs,
    source: str,
    store: Path,
    fresh: bool,
    report: Report,
) -> Ranges:
    """Ranges over all inputs; what was calibrated on the same before is taken from the store."""
    key = {
        "what": "ranges",
        "model": model.sha256,
        "inputs": [_digest(arrays) for arrays in inputs],
        "files": [item.model_dump() for item in input_files(inputs)],
        "source": source,
        "onnxruntime": ort.__version__,
    }

    def measure() -> object:
        report(f"ranges over {len(inputs)} inputs")
        return json.loads(calibrate(model, inputs, source=source).to_json())

    return Ranges.from_data(Store(store, fresh).get_or_measure(key, measure).result)


def _digest(arrays: Arrays) -> str:
    parts = [
        f"{name} {array.dtype} {array.shape}".encode() + array.tobytes()
        for name, array in arrays.items()
    ]
    return sha256_bytes(b"\0".join(parts))
