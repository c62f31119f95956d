"""Small load jobs for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tritier.bench.locust_job import Allowed, LoadJob, Questions
from tritier.bench.locust_shapes import Level, levels_of
from tritier.divider import Arrays
from tritier.documents.load import LoadSettings


def settings(**changed: Any) -> LoadSettings:
    """As of a test with two random inputs."""
    values: dict[str, Any] = {
        "inputs": "2 random inputs, seed 0", "inputs_sha256": "00", "batch": 1, "seed": 0,
        "timeout_ms": 1000, "pause_ms": 0.0, "tls": False, "workers": 1, "locust": "unknown",
    }  # fmt: skip
    return LoadSettings(**values | changed)


def questions(*plans: str) -> Questions:
    """Two questions; the answer of the n-th plan is x + n."""
    inputs: list[Arrays] = [{"x": np.full(3, k, np.float32)} for k in range(2)]
    answers: dict[str, list[Arrays]] = {
        plan: [{"y": np.full(3, k + n, np.float32)} for k in range(2)]
        for n, plan in enumerate(plans)
    }
    return Questions(inputs, answers)


def job(
    plans: tuple[str, ...] = ("aaaaaaaa",),
    classes: Mapping[str, tuple[str, ...]] | None = None,
    levels: tuple[Level, ...] | None = None,
    **changed: Any,
) -> LoadJob:
    """A load job that allows a difference of 0.01."""
    values: dict[str, Any] = {
        "model": "m", "url": "127.0.0.1:1", "shape": "steps",
        "levels": levels or levels_of("steps", (1, 2), 20), "settings": settings(),
        "input_names": ("x",), "output_names": ("y",), "questions": 2,
        "plans": {plan: Allowed(absolute=0.01, relative=0.0) for plan in plans},
        "class_plans": dict(classes or {"": plans}),
    }  # fmt: skip
    return LoadJob(**values | changed)
