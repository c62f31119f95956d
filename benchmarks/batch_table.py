"""What the super-resolution model takes over mini-batches: the table of batch sizing.

In this process, with ONNX Runtime on one thread: for each mini-batch, in turn, a new session runs
once (W, the warm-up: the first run of a loaded model) and then several times more (L, the latency).
Rounds over all mini-batches are repeated, so that a disturbance of the machine hits all alike.
The memory of an image is counted, not measured: the most bytes of activations alive at once. Usage:

    python -m benchmarks.batch_table [--model FILE] [--most 16] [--rounds 7] [--runs 3] [-o FILE]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from tritier.bench.environment import current
from tritier.documents import (
    BatchRow,
    BatchTable,
    BatchTiming,
    activation_peak_bytes,
    weight_bytes,
)
from tritier.files import write_file
from tritier.graph import load_model, profile_model
from tritier.resources import example_dir

_SEED = 0


def main() -> None:
    """Measure, and write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, default=example_dir("super_resolution") / "espcn_x3.onnx",
        help="with a symbolic first size of its one input",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=16, help="largest mini-batch")
    parser.add_argument("--rounds", type=int, default=7, help="new sessions of each mini-batch")
    parser.add_argument("--runs", type=int, default=3, help="runs after the first, each round")
    parser.add_argument("-o", "--output", type=Path, help="JSON; else it is printed")
    asked = parser.parse_args()
    table = measure(asked.model, asked.most, asked.rounds, asked.runs)
    if asked.output is None:
        sys.stdout.write(table.to_json())
    else:
        write_file(asked.output, table.to_json())


def measure(path: Path, most: int, rounds: int, runs: int) -> BatchTable:
    """Times for 1 to `most` images at once."""
    environment = current()
    first: dict[int, list[float]] = {size: [] for size in range(1, most + 1)}
    later: dict[int, list[float]] = {size: [] for size in range(1, most + 1)}
    for _ in range(rounds):
        for size in first:
            times = _session_times(path, size, 1 + runs)
            first[size].append(times[0])
            later[size] += times[1:]
    profile = profile_model(load_model(path))
    names = [layer.name for layer in profile.layers]
    return BatchTable(
        model=path.stem,
        accelerator="one thread of ONNX Runtime on the processor",
        model_bytes=weight_bytes(profile, names),
        image_bytes=activation_peak_bytes(profile, names),
        memory_note="counted: weights, and the most bytes of activations alive at once",
        environment=environment,
        rows=tuple(
            BatchRow(mini_batch=size, warmup=timing(first[size]), latency=timing(later[size]))
            for size in first
        ),
    )


def timing(times_ms: Sequence[float]) -> BatchTiming:
    """Median and spread."""
    values = np.array(times_ms)
    return BatchTiming(
        median_ms=_rounded(np.median(values)),
        mean_ms=_rounded(values.mean()),
        std_ms=_rounded(values.std(ddof=1)) if len(values) > 1 else None,
        p95_ms=_rounded(np.percentile(values, 95)),
        max_ms=_rounded(values.max()),
        n=len(values),
    )


def _session_times(path: Path, size: int, runs: int) -> list[float]:
    """A new session, each of its runs timed, in ms."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    shape = (size, *entry.shape[1:])
    feed = {entry.name: np.random.default_rng(_SEED).random(shape, np.float32)}
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - start) * 1000.0)
    return times


def _rounded(value: float) -> float:
    return round(float(value), 3)


if __name__ == "__main__":
    main()
