"""Energy of an inference: from a counter where there is one, else power times time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritier.documents import Duration, EnergyFigures, Figure
from tritier.workflow.timing_bench import ServerBench
from tritier.workflow.timing_pieces import Piece

# Counters that tell of the processor that a provider uses.
_COUNTERS = {"cpu": "rapl", "openvino": "rapl", "cuda": "nvml"}


def energy_of_models(
    bench: ServerBench,
    pieces: Sequence[Piece],
    alone: Sequence[Mapping[str, Any]],
    served: Sequence[Duration],
) -> EnergyFigures:
    """Figures of the whole model and, if there is one, the mixed: what the agent said of each when
    it ran alone, and its times in Triton."""
    watt = bench.server.compute_power_watt
    counter, counted = _counted(bench, pieces, alone)
    if counted:
        figures = [Figure(value=joule, n=runs) for joule, runs in counted]
    elif watt is not None:
        figures = [Figure(value=watt * x.median_ms / 1e3, source="predicted") for x in served]
    else:
        return EnergyFigures()
    return EnergyFigures(
        compute_power_watt=None if watt is None else Figure(value=watt, source="configured"),
        whole_joule=figures[0],
        mixed_joule=figures[1] if len(figures) > 1 else None,
        counter=counter,
    )


def _counted(
    bench: ServerBench, pieces: Sequence[Piece], alone: Sequence[Mapping[str, Any]]
) -> tuple[str | None, list[tuple[float, int]]]:
    """(name of the counter, joules of an inference and runs of each model); Triton's own counter
    first, then those of the host, whose energy includes what else runs there."""
    by_triton = bench.gpu_joule(pieces)
    if by_triton is not None:
        return "nv_energy_consumption", [by_triton[piece.name] for piece in pieces]
    kind = _COUNTERS[bench.server.execution_provider]
    counted = [
        {name: joule for name, joule in answer["energy_joule"].items() if name.startswith(kind)}
        for answer in alone
    ]
    if not all(counted):
        return None, []
    runs = [len(answer["runs_ns"]) for answer in alone]
    per_run = [(sum(x.values()) / n, n) for x, n in zip(counted, runs, strict=True)]
    return " + ".join(sorted(counted[0])), per_run
