"""The work of measuring inputs, as it goes to other processes and machines."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tritier
from tritier.calibration import Arrays
from tritier.errors import InputError
from tritier.files import sha256_bytes
from tritier.noise import Executor, InputScores, Metric, Program, load_metric, measure_input
from tritier.workflow.processor import processor_name


@dataclass(frozen=True)
class Work:
    """What is the same for all inputs. Copies give the same scores, bit for bit, where
    `worker_facts` are the same."""

    executor: Executor
    program: Program
    metric: Metric
    outputs: tuple[str, ...]

    def measure(self, arrays: Arrays, number: int) -> InputScores:
        """Scores of one input. Raises InputError as `measure_input` does."""
        return measure_input(self.executor, self.program, self.metric, self.outputs, arrays, number)


@dataclass(frozen=True)
class Packed:
    """Work as bytes. Metrics, which are functions, go by their names: a worker that has another
    file, or none, at the place of a user's metric raises InputError."""

    data: bytes
    digest: str

    @classmethod
    def of(cls, work: Work) -> Packed:
        """Pack; another process unpacks it once for all of its inputs."""
        metric = work.metric
        path, colon, function = metric.name.rpartition(":")
        name = f"{Path(path).resolve()}:{function}" if colon else metric.name
        data = pickle.dumps((work.executor, work.program, work.outputs, name, metric.identity))
        return cls(data, sha256_bytes(data))

    def unpack(self) -> Work:
        """The work, for this process."""
        # Made by `of`, and brought by a pool or cluster that the user chose.
        executor, program, outputs, name, identity = pickle.loads(self.data)  # noqa: S301
        metric = load_metric(name)
        if metric.identity != identity:
            raise InputError(
                f"the metric {name} is another file where it is to be measured: bring all to the "
                "same, or measure with --backend threading"
            )
        return Work(executor, program, metric, outputs)


_lock = threading.Lock()
_unpacked: dict[str, Work] = {}  # at most one: sessions and models take memory


def measure_packed(packed: Packed, arrays: Arrays, number: int) -> tuple[int, InputScores]:
    """(number, scores) of one input, in a worker."""
    with _lock:  # several threads of a worker share the sessions
        if packed.digest not in _unpacked:
            _unpacked.clear()
            _unpacked[packed.digest] = packed.unpack()
        work = _unpacked[packed.digest]
    return number, work.measure(arrays, number)


def worker_facts() -> Mapping[str, str]:
    """What scores hang on besides the work: sums of floats differ in their last bits between
    processors and releases."""
    return {
        "tritier": tritier.__version__,
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
        "processor": processor_name(),
    }
