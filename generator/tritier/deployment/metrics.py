"""What Triton's metrics endpoint tells."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 5.0


def gpu_energy_joule(metrics_url: str) -> float | None:
    """Energy that all GPUs of a server have used since it started (`nv_energy_consumption`).

    None where there is no GPU, its metrics are off, or the endpoint (host:port) does not answer.
    """
    try:
        with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=_TIMEOUT_S) as answer:
            return energy_of(answer.read().decode("utf-8", errors="replace"))
    except (OSError, urllib.error.URLError, ValueError):
        return None


def energy_of(text: str) -> float | None:
    """The sum of `nv_energy_consumption` (joules) over GPUs in a text of metrics; None without."""
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        # The parser gives counters the suffix that newer formats ask for.
        if sample.name.removesuffix("_total") == "nv_energy_consumption"
    ]
    return sum(values) if values else None


def metric_value(metrics_url: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The sum of a metric's samples that carry these labels, from the endpoint at host:port.

    None if there are none, or the endpoint does not answer.
    """
    try:
        with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=_TIMEOUT_S) as answer:
            return value_of(answer.read().decode("utf-8", errors="replace"), name, labels)
    except (OSError, urllib.error.URLError, ValueError):
        return None


def value_of(text: str, name: str, labels: Mapping[str, str]) -> float | None:
    """The sum of a metric's samples with these labels in a text of metrics; None without."""
    values = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in (name, f"{name}_total") and labels.items() <= sample.labels.items()
    ]
    return sum(values) if values else None
