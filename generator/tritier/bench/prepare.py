"""From what is asked for to a bench that can start: all checks that need the server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tritier.bench import environment
from tritier.bench.inputs import InputData, find_inputs
from tritier.bench.level import Bench
from tritier.bench.perf_analyzer import Program
from tritier.bench.statistics import Scraper
from tritier.bench.target import Target, check_batches, find_target
from tritier.bench.trial import Trial, try_request
from tritier.documents import BenchResult, BenchSettings
from tritier.documents.bench import Arrivals
from tritier.errors import ServerError, UsageError

RESULT = "bench.json"


@dataclass(frozen=True)
class BenchRequest:
    """What is asked for. `url` is the entry's, `urls` those of all servers of the plan. `warnings`
    are known before, and stand in the result."""

    model: str
    url: str
    urls: Mapping[str, str]
    program: Program
    file: Path
    batches: Sequence[int] = (1,)
    arrivals: Arrivals = "closed"
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    input: str = "random"
    percentile: Literal[50, 90, 95, 99] = 95
    window_requests: int = 50
    max_window_requests: int = 400
    max_windows: int = 8
    stability_percent: float = 10.0
    latency_limit_ms: float | None = None
    check_s: float = 15.0
    level_limit_s: float = 1800.0
    warnings: Sequence[str] = ()
    tell: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Prepared:
    """A bench, and the result that it fills."""

    bench: Bench
    result: BenchResult


def result_file(output: Path) -> Path:
    """File of the result: the path itself if it ends in .json, else bench.json in that folder."""
    return output if output.suffix == ".json" else output / RESULT


def raw_folder(file: Path) -> str:
    """Name of the folder beside the result that keeps what perf_analyzer left."""
    return "raw" if file.name == RESULT else f"{file.stem}_raw"


def prepare(request: BenchRequest, closing: ExitStack) -> Prepared:
    """Check model, batches, input and servers. What has to be closed goes to `closing`.

    Raises InputError, UsageError or ServerError if it can't be measured.
    """
    target = find_target(request.url, request.model, request.shapes)
    check_batches(target, request.batches)
    data = find_inputs(request.input, target)
    _check_rows(target, data, request.batches)
    trials = _tried(target, data, request.batches)
    urls, versions, warnings = _servers(request)
    warnings = [*request.warnings, *warnings]
    settings = BenchSettings(
        percentile=request.percentile,
        window_requests=request.window_requests,
        max_window_requests=max(request.window_requests, request.max_window_requests),
        max_windows=request.max_windows,
        stability_percent=request.stability_percent,
        arrivals=request.arrivals,
        input=data.name,
        input_sha256=data.sha256,
        shapes={tensor.name: target.shape(tensor, 1) for tensor in target.inputs},
        batching=target.batched,
        latency_limit_ms=request.latency_limit_ms,
    )
    if data.samples is None and request.check_s:
        warnings.append("a JSON input goes to perf_analyzer alone: tritier's own load is left out")
    result = BenchResult(
        model=request.model,
        url=str(request.url),
        plan_id=target.plan_id,
        mode="concurrency" if request.arrivals == "closed" else "request_rate",
        settings=settings,
        environment=environment.current(versions, request.program.version),
        warnings=tuple(warnings),
    )
    bench = Bench(
        target=target,
        settings=settings,
        program=request.program,
        data=data,
        scraper=closing.enter_context(Scraper(urls)),
        folder=request.file.parent,
        raw=raw_folder(request.file),
        trials=trials,
        check_s=request.check_s,
        level_limit_s=request.level_limit_s,
        tell=request.tell,
    )
    return Prepared(bench, result)


def _check_rows(target: Target, data: InputData, batches: Sequence[int]) -> None:
    """Refuse batches of which nobody knows that they are sent: a JSON file goes out as it is."""
    largest = max(batches)
    if data.samples is None and target.batched == "first_dimension" and largest > 1:
        raise UsageError(
            f"--batch {largest}: --input {data.name} goes to perf_analyzer as it is, and the batch "
            f"of model '{target.model}' would be the first dimension of the shapes in it; give a "
            ".npy or .npz file, or use --batch 1"
        )


def _tried(target: Target, data: InputData, batches: Sequence[int]) -> dict[int, Trial]:
    found = {}
    for batch in batches:
        samples = data.batch(target, batch)
        if samples:
            found[batch] = try_request(target, samples[0], batch)
    return found


def _servers(request: BenchRequest) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """(addresses of the servers that can be asked, their versions, warnings about the others)."""
    with Scraper(request.urls) as scraper:
        versions, failures = scraper.versions()
    if not versions:
        raise ServerError("; ".join(failures.values()))
    warnings = [f"not asked for its statistics: {why}" for why in failures.values()]
    return {name: url for name, url in request.urls.items() if name in versions}, versions, warnings
