"""All levels of a bench, one after the other; what is finished is kept, whatever comes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tritier.bench.generator import TOLERANCE
from tritier.bench.level import Bench, level_name, measure_level, reached, sustained, sustained_rate
from tritier.bench.loads import grid, highest_that_keeps, smallest_step
from tritier.documents import BenchLevel, BenchResult, SloFound, SloSearch
from tritier.errors import InputError, ServerError

Save = Callable[[BenchResult], None]


@dataclass(frozen=True)
class Loads:
    """What is asked for: all loads of all batches, or with `search`, per batch, the highest of them
    that keeps the latency limit."""

    offered: Sequence[float]
    batches: Sequence[int]
    search: bool = False

    def all(self) -> list[tuple[int, float]]:
        """(batch, load) in the order in which they are measured."""
        return [(batch, load) for batch in sorted(set(self.batches)) for load in grid(self.offered)]


class Sweep:
    """Measures levels into a result. `save` gets it after every level."""

    def __init__(self, bench: Bench, result: BenchResult, save: Save) -> None:
        self._bench = bench
        self._save = save
        self._open_failed: dict[int, str] = {}
        self.result = result

    def run(self, loads: Loads) -> BenchResult:
        """Measure what is not in the result yet."""
        found = []
        for batch in sorted(set(loads.batches)):
            offered = grid(loads.offered)
            if loads.search:
                found.append(self._search(batch, offered))
            else:
                self._all(batch, offered)
            self._sustain(batch)
        if loads.search and self._bench.settings.latency_limit_ms is not None:
            search = SloSearch(
                limit_ms=self._bench.settings.latency_limit_ms,
                percentile=self._bench.settings.percentile,
                lowest=min(loads.offered),
                highest=max(loads.offered),
                step=smallest_step(loads.offered),
                found=tuple(found),
            )
            self._update(search=search)
        return self.result

    def _all(self, batch: int, offered: Sequence[float]) -> None:
        """Upwards; a level over the limit is the last: more load would only be slower."""
        for load in offered:
            level = self._level(batch, load)
            if level.limit_kept is False:
                self._bench.tell(
                    f"p{self._bench.settings.percentile} under "
                    f"{self._bench.settings.latency_limit_ms:g} ms is not kept: no higher load is "
                    "measured"
                )
                return

    def _search(self, batch: int, offered: Sequence[float]) -> SloFound:
        index = highest_that_keeps(
            len(offered), lambda index: bool(self._level(batch, offered[index]).limit_kept)
        )
        if index is None:
            return SloFound(batch=batch, bounded_by="limit")
        best = self._level(batch, offered[index])
        return SloFound(
            batch=batch,
            offered=offered[index],
            infer_per_s=best.infer_per_s,
            stable=best.stable,
            latency_ms=best.quantile_ms(self._bench.settings.percentile),
            bounded_by="range" if index == len(offered) - 1 else "limit",
        )

    def _level(self, batch: int, load: float) -> BenchLevel:
        known = self.result.level(batch, load)
        if known is not None:
            return known
        name = level_name(self._bench.settings, batch, load)
        self._bench.tell(f"level {name}")
        level = measure_level(self._bench, batch, load)
        self._update(levels=tuple(sorted([*self.result.levels, level], key=lambda i: i.key)))
        self._bench.tell(
            f"{level.infer_per_s:.2f} infer/s, p50 {level.p50_ms:.1f} ms, p95 {level.p95_ms:.1f} "
            f"ms, {'stable' if level.stable else 'NOT stable'}"
        )
        return level

    def _sustain(self, batch: int) -> None:
        """Once per batch, at the stable level with the highest throughput."""
        if self.result.mode != "concurrency":
            return
        best = self.result.best(batch)
        known = [item for item in self.result.sustained if item.batch == batch]
        if any(math.isclose(item.offered, sustained_rate(best)) for item in known):
            return
        try:
            done = sustained(self._bench, best)
        except ServerError as error:  # the levels are measured
            self._open_failed[batch] = str(error)
            self._update()
            return
        if done is not None:
            others = [item for item in self.result.sustained if item.batch != batch]
            self._update(sustained=tuple(sorted([*others, done], key=lambda item: item.batch)))

    def _update(self, **changes: object) -> None:
        result = self.result.model_copy(update=changes)
        own = [text for text in result.warnings if not text.startswith(_PREFIXES)]
        failed = [
            f"batch {batch}: no open loop at random times: {why}"
            for batch, why in self._open_failed.items()
        ]
        warnings = (*own, *_warnings(result), *failed)
        self.result = result.model_copy(update={"warnings": warnings})
        self._save(self.result)


_PREFIXES = ("level ", "batch ")


def _warnings(result: BenchResult) -> list[str]:
    found = []
    for level in result.levels:
        name = f"level {level_name(result.settings, level.batch, level.offered)}: "
        if level.unstable_because:
            found.append(f"{name}unstable: {level.unstable_because}")
        if not reached(result.settings, level):
            found.append(
                f"{name}{level.infer_per_s / level.batch:.2f} requests per second were answered of "
                f"{level.offered:g} that were to be sent"
            )
        if level.failures:
            found.append(f"{name}{level.failures} requests failed")
        if level.check_failed:
            found.append(f"{name}not checked: {level.check_failed}")
        if level.check is not None and level.check.agrees is False:
            found.append(
                f"{name}tritier's own load of the same kind differs by "
                f"{level.check.difference:.0%} ({level.check.infer_per_s:.2f} infer/s, p50 "
                f"{level.check.p50_ms:.1f} ms; perf_analyzer {level.infer_per_s:.2f} infer/s, p50 "
                f"{level.p50_ms:.1f} ms), over {TOLERANCE:.0%}"
            )
    found += [
        f"batch {item.batch}: {item.offered:.2f} requests per second, 70 % of the highest "
        f"throughput, are not kept up with: latency grows by {item.difference * 1000:.0f} ms per "
        f"second, {item.failures} requests failed"
        for item in result.sustained
        if item.agrees is False
    ]
    return found


def resumed(old: BenchResult, new: BenchResult) -> BenchResult:
    """`new` with what `old` has measured; raises InputError if it was measured in another way."""
    differences = [
        f"{what} was {before} and is {now}"
        for what, before, now in (
            ("model", old.model, new.model),
            ("plan", old.plan_id, new.plan_id),
            ("mode", old.mode, new.mode),
            *_settings(old, new),
            *(_environment(old, new) if old.levels else ()),
        )
        if before != now
    ]
    if differences:
        raise InputError(
            f"the result that is there was measured in another way ({'; '.join(differences)}): "
            "measure all anew with --force, or choose another --output"
        )
    return new.model_copy(
        update={
            "levels": old.levels,
            "sustained": old.sustained,
            "warnings": tuple(dict.fromkeys([*old.warnings, *new.warnings])),
            "environment": old.environment if old.levels else new.environment,
        }
    )


def _environment(old: BenchResult, new: BenchResult) -> list[tuple[str, object, object]]:
    """What figures depend on; that of a result is of all its levels."""
    return [
        (words, getattr(old.environment, name), getattr(new.environment, name))
        for name, words in (
            ("tritier", "version of tritier"),
            ("perf_analyzer", "perf_analyzer"),
            ("processor", "processor of this machine"),
            ("cores", "number of cores"),
            ("servers", "Triton of the servers"),
        )
    ]


def _settings(old: BenchResult, new: BenchResult) -> list[tuple[str, object, object]]:
    before, now = old.settings.model_dump(), new.settings.model_dump()
    return [(name, before[name], now[name]) for name in now]
