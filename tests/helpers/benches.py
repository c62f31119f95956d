"""Parts of a bench with plain values, for tests that change one of them."""

from __future__ import annotations

from typing import Any

from tritier.bench.target import InputTensor, Target
from tritier.documents import BenchLevel, BenchSettings


def target(max_batch_size: int = 0, first: bool = False, *tensors: InputTensor) -> Target:
    """A model with one input x of 1 x 2 numbers, unless others are given."""
    inputs = tensors or (InputTensor("x", "FP32", (1, 2)),)
    return Target("m", "127.0.0.1:1", inputs, max_batch_size, first, "0123abcd", ())


def settings(**changes: Any) -> BenchSettings:
    """Those of a closed loop."""
    given = {
        "window_requests": 50, "max_window_requests": 400, "max_windows": 8,
        "stability_percent": 10.0, "arrivals": "closed", "input": "zero", "shapes": {"x": (1, 2)},
        "batching": "none",
    }  # fmt: skip
    return BenchSettings(**{**given, **changes})


def level(batch: int, load: float, p95_ms: float = 10.0, **changes: Any) -> BenchLevel:
    """A stable one, whose requests all took as long."""
    given: dict[str, Any] = {
        "batch": batch, "offered": load, "stable": True, "runs": 1, "window_requests": 50,
        "windows": 3, "requests": 150, "duration_s": 3.0, "infer_per_s": 50.0 * batch,
        "mean_ms": p95_ms, "std_ms": 0.0, "p50_ms": p95_ms, "p90_ms": p95_ms, "p95_ms": p95_ms,
        "p99_ms": p95_ms, "low_ms": p95_ms, "high_ms": p95_ms, "command": "perf_analyzer",
    }  # fmt: skip
    return BenchLevel(**{**given, **changes})
