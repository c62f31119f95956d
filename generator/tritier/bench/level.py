"""One level: one load, measured until it is stable, beside what the servers counted."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritier.bench.figures import latency_figures
from tritier.bench.generator import LEAST_DECIDED, OwnLoad, compared, run_own_load
from tritier.bench.inputs import InputData
from tritier.bench.loads import first_window, most_window, next_window
from tritier.bench.perf_analyzer import (
    PROFILE,
    Ended,
    LevelRun,
    Program,
    command_line,
    run_program,
    shown,
)
from tritier.bench.results import (
    STABLE_WINDOWS,
    composing_models,
    failure,
    late_because,
    printed_figures,
    read_requests,
    strip_profile,
    unstable_because,
)
from tritier.bench.statistics import Counts, Scraper, cached, shares
from tritier.bench.target import Target
from tritier.bench.trial import Trial
from tritier.documents import BenchLevel, BenchResult, BenchSettings, ModelShare, OpenLoopCheck
from tritier.errors import CheckFailed, ServerError, TritierError

STABLE, UNSTABLE = 0, 2
_LEAST_CHECKED = 30
_LEAST_AT_RANDOM = 2 * LEAST_DECIDED
_CHECK_ROUNDS = 10
# A closed loop is counted without its first and its last round.
_LEAST_ROUNDS = 4
# Of a rate of requests, at least so much has to be answered.
_REACHED = 0.95
_FEW = 12  # of slow models, so many requests are sent however long they take
# A profile export holds all numbers of all requests as text, and perf_analyzer makes it in memory.
_BYTES_PER_VALUE = 40
_MOST_EXPORTED_BYTES = 512 << 20


@dataclass(frozen=True)
class Bench:
    """What all levels share.

    `folder` is that of the result; raw files go into `raw` in it. `trials`: batch -> what a
    request told, if one was sent. `check_s`: longest time of the own load, 0 for
    none. `level_limit_s`: longest time of a run of perf_analyzer.
    """

    target: Target
    settings: BenchSettings
    program: Program
    data: InputData
    scraper: Scraper
    folder: Path
    raw: str = "raw"
    trials: Mapping[int, Trial] = field(default_factory=dict)
    check_s: float = 15.0
    level_limit_s: float = 1800.0
    tell: Callable[[str], None] = lambda _: None


def level_name(settings: BenchSettings, batch: int, offered: float) -> str:
    """Folder of a level's files: b8_c4 or b1_r2.5."""
    return f"b{batch}_{'c' if settings.arrivals == 'closed' else 'r'}{offered:.12g}"


def remove_raw(bench: Bench, file: Path) -> None:
    """Remove what perf_analyzer left of the levels of a result that is to be measured anew; a file
    that is no result is left alone."""
    try:
        old = BenchResult.load(file)
    except TritierError:
        return
    for level in old.levels:
        name = level_name(old.settings, level.batch, level.offered)
        shutil.rmtree(bench.folder / bench.raw / name, ignore_errors=True)


def level_command(
    bench: Bench, batch: int, offered: float, window: int | None = None, stable: bool = True
) -> list[str]:
    """The command of a level, by default with the windows of the first run."""
    settings = bench.settings
    first = first_window(settings.window_requests, offered, settings.arrivals == "closed")
    window = window or first
    return command_line(
        bench.program.path,
        bench.target,
        settings,
        LevelRun(
            batch=batch,
            offered=offered,
            window=window,
            data=f"../../{_input_name(batch)}",
            stable=stable,
            exported=_is_exported(bench, batch, offered, window),
        ),
    )


def _is_exported(bench: Bench, batch: int, offered: float, window: int) -> bool:
    """Whether the export of a run surely is of bearable size. perf_analyzer looks once a second
    whether a window is full: what is answered in that time is in it too."""
    trial = bench.trials.get(batch)
    if trial is None:
        return False
    closed = bench.settings.arrivals == "closed"
    per_second = offered / max(trial.latency_s, 1e-6) if closed else offered
    requests = (window + per_second) * bench.settings.max_windows
    return trial.values * requests * _BYTES_PER_VALUE <= _MOST_EXPORTED_BYTES


def measure_level(bench: Bench, batch: int, offered: float) -> BenchLevel:
    """Measure a load: again with larger windows until it is stable. If they can't grow any more,
    once more for figures, whatever they are, which are marked unstable.

    Raises ServerError if the load fails, CheckFailed if a response cache answered.
    """
    settings, closed = bench.settings, bench.settings.arrivals == "closed"
    folder = bench.folder / bench.raw / level_name(settings, batch, offered)
    shutil.rmtree(folder, ignore_errors=True)  # of a level that was interrupted
    write_input(bench, batch)
    window = first_window(settings.window_requests, offered, closed)
    most = most_window(settings.window_requests, settings.max_window_requests, window)
    for number in itertools.count(1):
        found = _run(bench, batch, offered, window, folder / f"run{number}")
        if found.ended.status == STABLE:
            return _checked(bench, _level(bench, batch, offered, found, number, window))
        reason = unstable_because(found.ended.log, settings.stability_percent)
        larger = next_window(window, most)
        if larger is None:
            break
        bench.tell(f"not stable: {reason}; again with windows of {larger} requests")
        window = larger
    bench.tell(f"not stable: {reason}; once more to have its figures")
    found = _run(bench, batch, offered, window, folder / f"run{number + 1}", stable=False)
    if found.ended.status != STABLE:
        raise ServerError(f"perf_analyzer gave no figures: {failure(found.ended.log)}")
    level = _level(bench, batch, offered, found, number + 1, window, reason)
    return _checked(bench, level)


@dataclass(frozen=True)
class _Run:
    ended: Ended
    command: list[str]
    servers: Mapping[str, tuple[ModelShare, ...]]


def _run(
    bench: Bench, batch: int, offered: float, window: int, folder: Path, stable: bool = True
) -> _Run:
    command = level_command(bench, batch, offered, window, stable)
    before = bench.scraper.read()
    ended = run_program(command, folder, bench.level_limit_s, bench.tell)
    after = bench.scraper.read()
    if ended.status not in (STABLE, UNSTABLE):
        raise ServerError(
            f"perf_analyzer failed (exit status {ended.status}): {failure(ended.log)}; see {folder}"
        )
    _refuse_cached(before, after)
    servers = {name: shares(before[name], after[name]) for name in after}
    return _Run(ended, command, servers)


def _refuse_cached(before: Mapping[str, Counts], after: Mapping[str, Counts]) -> None:
    found = {name: cached(before[name], after[name]) for name in after}
    answered = [f"{model} on '{name}'" for name, models in found.items() for model in models]
    if answered:
        raise CheckFailed(
            f"a response cache answered for {', '.join(answered)}: a bench sends the same input "
            "again and would measure the cache; deploy without response_cache, or start the server "
            "without --cache-config"
        )


def _level(
    bench: Bench,
    batch: int,
    offered: float,
    found: _Run,
    runs: int,
    window: int,
    reason: str | None = None,
) -> BenchLevel:
    settings, folder = bench.settings, found.ended.folder
    reason = reason or late_because(found.ended.log)
    level = BenchLevel(
        batch=batch,
        offered=offered,
        stable=reason is None,
        unstable_because=reason,
        runs=runs,
        window_requests=window,
        composing=composing_models(found.ended.log),
        servers={name: items for name, items in found.servers.items() if items},
        command=shown(found.command),
        **_figures(bench, batch, found.ended),
        raw=tuple(sorted(str(path.relative_to(bench.folder)) for path in folder.iterdir())),
    )
    limit_ms = settings.latency_limit_ms
    if limit_ms is None:
        return level
    kept = level.quantile_ms(settings.percentile) <= limit_ms and not level.failures
    return level.model_copy(update={"limit_kept": kept and keeps_up(settings, level)})


def _figures(bench: Bench, batch: int, ended: Ended) -> dict[str, Any]:
    """The fields of a level that were measured."""
    if (ended.folder / PROFILE).is_file():
        strip_profile(ended.folder / PROFILE)
        requests = read_requests(ended.folder / PROFILE)
        answered = len(requests.times_ns)
        return {
            "times_from": "timestamps",
            "stable_by": f"p{bench.settings.percentile}",
            "windows": requests.windows,
            "requests": answered,
            "failures": requests.failures,
            "duration_s": requests.duration_s,
            "infer_per_s": answered * batch / requests.duration_s,
            **dataclasses.asdict(latency_figures(requests.latencies_ms)),
        }
    printed = printed_figures(ended.log)
    # perf_analyzer counts one inference per request where it does not know of the batch.
    rate = printed.infer_per_s * (1 if bench.target.max_batch_size else batch)
    return {
        "times_from": "perf_analyzer",
        "stable_by": "mean",
        "windows": STABLE_WINDOWS,
        "requests": printed.requests,
        "duration_s": printed.requests * batch / rate,
        "infer_per_s": rate,
        **dataclasses.asdict(printed.figures),
    }


def keeps_up(settings: BenchSettings, level: BenchLevel) -> bool:
    """Whether a level's latency is that of its load: of requests that come in time, a queue may
    still grow, or they may not be sent at all."""
    if settings.arrivals == "closed":
        return True
    return level.stable and reached(settings, level)


def reached(settings: BenchSettings, level: BenchLevel) -> bool:
    """Whether as much was answered as was offered, where that is no matter of chance."""
    if settings.arrivals != "constant":
        return True
    return level.infer_per_s / level.batch >= _REACHED * level.offered


def _checked(bench: Bench, level: BenchLevel) -> BenchLevel:
    samples = bench.data.batch(bench.target, level.batch)
    if not bench.check_s or not samples:
        return level
    bench.tell("the same load by tritier itself")
    closed = bench.settings.arrivals == "closed"
    least = max(_FEW, _LEAST_ROUNDS * level.offered if closed else 0)
    load = OwnLoad(
        url=bench.target.url,
        model=bench.target.model,
        samples=samples,
        arrivals=bench.settings.arrivals,
        offered=level.offered,
        requests=max(
            _LEAST_CHECKED, level.requests, round(level.offered * _CHECK_ROUNDS) if closed else 0
        ),
        most_s=max(bench.check_s, least * level.batch / level.infer_per_s),
        deadline_s=_deadline_s(level),
    )
    try:
        own = run_own_load(load)
    except ServerError as error:  # the level itself is measured
        return level.model_copy(update={"check_failed": str(error)})
    check = compared(load, own, level.batch, level.infer_per_s, level.p50_ms)
    return level.model_copy(update={"check": check})


def _deadline_s(level: BenchLevel) -> float:
    """After that a request of the own load has failed."""
    return max(60.0, 10 * level.p99_ms / 1000)


def sustained_rate(level: BenchLevel) -> float:
    """Requests per second that a server should keep up with: 70 % of a level's."""
    return 0.7 * level.infer_per_s / level.batch


def sustained(bench: Bench, level: BenchLevel) -> OpenLoopCheck | None:
    """Requests at random times, at that rate: whether they are answered as fast as they come. None
    if the own load is off."""
    samples = bench.data.batch(bench.target, level.batch)
    if not bench.check_s or not samples or not level.infer_per_s:
        return None
    rate = sustained_rate(level)
    bench.tell(f"an open loop of {rate:.2f} requests per second by tritier itself")
    load = OwnLoad(
        url=bench.target.url,
        model=bench.target.model,
        samples=samples,
        arrivals="poisson",
        offered=rate,
        requests=max(_LEAST_AT_RANDOM, level.requests),
        most_s=max(bench.check_s, _FEW / rate),
        deadline_s=_deadline_s(level),
    )
    own = run_own_load(load)
    return compared(load, own, level.batch, level.infer_per_s, None)


def _input_name(batch: int) -> str:
    return f"input_b{batch}.json"


def write_input(bench: Bench, batch: int) -> None:
    bench.data.write(bench.target, batch, bench.folder / bench.raw / _input_name(batch))
