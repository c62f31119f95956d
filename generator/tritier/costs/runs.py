"""Run times on a machine from what was measured: bench results and timing profiles."""

from __future__ import annotations

from tritier.documents.bench import BenchResult
from tritier.documents.timing import TimingProfile
from tritier.documents.workload import MachineRun
from tritier.errors import InputError


def runs_of_bench(machine: str, result: BenchResult) -> tuple[MachineRun, ...]:
    """A run for each stable level of a sweep: its latency, and the throughput at that load.

    A request there is one inference: with a batch, the request's latency holds for all its
    inferences, and throughput counts each. Raises InputError if no level is stable.
    """
    levels = [level for level in result.levels if level.stable and level.infer_per_s > 0]
    if not levels:
        raise InputError(
            f"the bench result of '{result.model}' has no stable level: measure again with larger "
            "windows, or on an idle machine"
        )
    what = "concurrency" if result.mode == "concurrency" else "requests/s"
    return tuple(
        MachineRun(
            machine=machine,
            name=f"{machine}, {what} {level.offered:g}, batch {level.batch}",
            mean_s=level.mean_ms / 1000.0,
            std_s=level.std_ms / 1000.0,
            p95_s=level.p95_ms / 1000.0,
            n=level.requests,
            infer_per_s=level.infer_per_s,
        )
        for level in levels
    )


def run_of_timing(machine: str, profile: TimingProfile) -> MachineRun:
    """The whole model, served, one request after the other, as the profile measured it."""
    whole = profile.whole
    return MachineRun(
        machine=machine,
        name=f"{machine}, {profile.model.name} on {profile.server}",
        mean_s=whole.mean_ms / 1000.0,
        std_s=whole.std_ms / 1000.0,
        n=whole.n,
    )
