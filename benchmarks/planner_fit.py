"""Which machines and links the published planner saw, fitted to what it predicted.

    python -m benchmarks.planner_fit [--kind average|median]

Latency, energy and device energy of a recorded plan are linear in: the time of the whole model and
the gain of quantization on each server, and on each link seconds per MiB and seconds per tensor.
The plans of one set of measurements give these by least squares, each equation relative to its
value. What the plans can't tell is held at the value given in `HELD`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from tests.helpers.published import ALPHA, NOMINAL, Kind, Link, Recorded, fixture, recorded_plans

LINKS: tuple[Link, ...] = ((0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1))
# Seconds per tensor. No plan tells those of device and edge apart from bandwidths. One tensor goes
# from cloud to edge, always the same way: it is given what device and cloud were fitted to.
_NEAR: dict[Name, float] = {("wait", (0, 1)): 0.005, ("wait", (1, 0)): 0.005}
Name = tuple[str, int | Link]
HELD: dict[str, dict[Name, float]] = {
    "Device": {},
    "DeviceEdge-1cpu": dict(_NEAR),
    "DeviceEdge-2cpu": dict(_NEAR),
    "DeviceEdgeCloud": _NEAR
    | {("whole", 1): 2.1930, ("gain", 1): 1.1232, ("wait", (1, 2)): 0.135, ("wait", (2, 1)): 0.135},
}


class Terms:
    """What each parameter is multiplied by, in the predictions of one plan."""

    def __init__(self, plan: Recorded, kind: Kind) -> None:
        data = fixture()["models"][plan.model]
        quantizable = data["quantizable"]
        bits = {layer: 1 << bit for bit, layer in enumerate(quantizable)}
        mask = plan.placement.quantized
        servers = plan.placement.servers
        self.of: dict[Name, float] = {}
        for k, server in enumerate(NOMINAL.servers):
            times = data["times"][server][kind]
            raw = np.array(times["float_s"])
            gains = raw[quantizable] - np.array(times["int8_s"])
            here = np.array(servers) == k
            int8 = [here[layer] and bool(mask & bits[layer]) for layer in quantizable]
            self.of["whole", k] = float(raw[here].sum() / raw.sum())
            self.of["gain", k] = -float(gains[int8].sum() / gains.sum())
        for source, consumers, mib in data["flows"]:
            coded = mask & bits.get(source, 0)
            for target in {servers[x] for x in consumers} - {servers[source]}:
                link = (servers[source], target)
                self._add(("per_mib", link), mib / (ALPHA if coded else 1.0))
                self._add(("wait", link), 1.0)

    def _add(self, name: Name, value: float) -> None:
        self.of[name] = self.of.get(name, 0.0) + value

    def weighted(self, compute: Sequence[float], send: Sequence[float]) -> dict[Name, float]:
        """With the worth of a second on each server, of computing and of sending."""
        return {
            (what, where): value * (send[where[0]] if isinstance(where, tuple) else compute[where])
            for (what, where), value in self.of.items()
        }


def powers(plan: Recorded) -> tuple[list[float], tuple[float, ...]]:
    """Watt of computing and of sending; a CPU has its own share."""
    cpus = [*plan.cpus, 1.0, 1.0][:3]
    compute = [x * (c or 1.0) for x, c in zip(NOMINAL.compute_watt, cpus, strict=True)]
    return compute, NOMINAL.send_watt


def equations(plans: Sequence[Recorded], kind: Kind) -> list[tuple[dict[Name, float], float]]:
    """(coefficients, value) of each prediction: seconds, joule, joule on the device."""
    found = []
    for plan in plans:
        terms = Terms(plan, kind)
        compute, send = powers(plan)
        device = [compute[0], 0.0, 0.0], [send[0], 0.0, 0.0]
        found += [
            (terms.weighted([1.0] * 3, [1.0] * 3), plan.latency_ms / 1000.0),
            (terms.weighted(compute, send), plan.energy_joule),
            (terms.weighted(*device), plan.device_energy_joule),
        ]
    return found


def fit(
    plans: Sequence[Recorded], kind: Kind, held: Mapping[Name, float]
) -> tuple[dict[Name, float], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Parameters, and the relative error of each equation."""
    found = equations(plans, kind)
    used = {name for terms, _ in found for name, value in terms.items() if value}
    names = sorted(used - set(held), key=str)
    rows, values = [], []
    for terms, value in found:
        rest = value - sum(terms.get(name, 0.0) * x for name, x in held.items())
        rows.append([terms.get(name, 0.0) / value for name in names])
        values.append(rest / value)
    matrix, right = np.array(rows), np.array(values)
    solved, _, rank, _ = np.linalg.lstsq(matrix, right, rcond=None)
    assert rank == len(names), f"{len(names)} parameters, rank {rank}"
    return dict(zip(names, map(float, solved), strict=True)), matrix @ solved - right


def show(case: str, plans: Sequence[Recorded], kind: Kind) -> None:
    """Print one fit."""
    held = HELD[case]
    found, errors = fit(plans, kind, held)
    print(
        f"{case}: {len(plans)} plans, {len(found)} parameters, {kind} times; relative error "
        f"{np.sqrt(np.mean(errors**2)):.3%} (root mean square), {np.abs(errors).max():.3%} at most"
    )
    for k, server in enumerate(NOMINAL.servers):
        parts = [(w, found.get((w, k), held.get((w, k)))) for w in ("whole", "gain")]
        if any(value is not None for _, value in parts):
            print(f"  {server}: " + ", ".join(f"{w} {v:.5f} s" for w, v in parts if v is not None))
    for a, b in LINKS:
        per_mib = found.get(("per_mib", (a, b)))
        if per_mib is not None:
            key: Name = ("wait", (a, b))
            wait = found.get(key, held.get(key, 0.0))
            fixed = " (held)" if key in held else ""
            print(
                f"  {NOMINAL.servers[a]} -> {NOMINAL.servers[b]}: {1 / per_mib:.3f} MiB/s, "
                f"{wait * 1000:.1f} ms per tensor{fixed}"
            )


def main() -> None:
    """Fit each set of plans."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kind", choices=["average", "median"], default="average")
    options = parser.parse_args()
    groups: dict[str, list[Recorded]] = {}
    for plan in recorded_plans():
        groups.setdefault(plan.case, []).append(plan)
    for case, plans in groups.items():
        show(case, plans, options.kind)


if __name__ == "__main__":
    main()
