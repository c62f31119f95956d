"""`tritier bench`."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tritier.bench.fetch import provide
from tritier.bench.fetch_libraries import FetchError
from tritier.bench.level import level_command, remove_raw
from tritier.bench.loads import parse_loads
from tritier.bench.perf_analyzer import find_program, shown
from tritier.bench.prepare import BenchRequest, Prepared, prepare, result_file
from tritier.bench.sweep import Loads, Sweep, resumed
from tritier.cli.bench_servers import find_entry
from tritier.cli.bench_show import show_result
from tritier.cli.common import DryRunFlag, JsonFlag, load_servers, workspace
from tritier.cli.output import say, show_json, show_text
from tritier.documents import BenchResult
from tritier.errors import CheckFailed, UsageError
from tritier.files import write_file


class Percentile(enum.StrEnum):
    """Percentiles that are kept."""

    p50 = "50"
    p90 = "90"
    p95 = "95"
    p99 = "99"

    @property
    def number(self) -> Literal[50, 90, 95, 99]:
        """As documents have it."""
        numbers: dict[str, Literal[50, 90, 95, 99]] = {"50": 50, "90": 90, "95": 95, "99": 99}
        return numbers[self.value]


class Arrivals(enum.StrEnum):
    """When requests come, of --request-rate."""

    constant = "constant"
    poisson = "poisson"


def _fetch(destination: Path | None) -> None:
    if destination is not None:
        try:
            show_text(provide(destination.resolve(), sys.executable, force=False))
        except OSError as error:
            raise FetchError(
                f"--fetch {error.filename or destination}: {error.strerror or error}; give a "
                "folder that can be written and renamed (no mount point), on a disk with 60 MB free"
            ) from None
        raise typer.Exit


def bench_command(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The Triton model to call.")],
    url: Annotated[
        str | None, typer.Option("--url", metavar="HOST:PORT", help="gRPC address of the model.")
    ] = None,
    servers: Annotated[
        Path | None,
        typer.Option(
            "--servers", help="The servers file: its entry is called, all are asked what they did."
        ),
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency",
            metavar="LOADS",
            help="Requests in flight: FIRST:LAST[:STEP], or a list A,B,C; 1 if left out.",
        ),
    ] = None,
    request_rate: Annotated[
        str | None,
        typer.Option(
            "--request-rate", metavar="LOADS", help="Requests per second instead, in the same form."
        ),
    ] = None,
    arrivals: Annotated[
        Arrivals, typer.Option("--arrivals", help="Of --request-rate: evenly, or at random.")
    ] = Arrivals.constant,
    batch: Annotated[
        str, typer.Option("--batch", metavar="SIZES", help="Batch sizes, in the same form.")
    ] = "1",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            metavar="NAME:D,D,...",
            help="Shape of an input with open dimensions, without Triton's batch dimension; may be "
            "repeated.",
        ),
    ] = None,
    input_data: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="zero|random|FILE",
            help="What is sent: a file is .npy, .npz or perf_analyzer's .json.",
        ),
    ] = "random",
    percentile: Annotated[
        Percentile, typer.Option("--percentile", help="That has to be stable and under the limit.")
    ] = Percentile.p95,
    latency_limit_ms: Annotated[
        float | None,
        typer.Option("--latency-limit-ms", min=0.001, help="Measure no load over this latency."),
    ] = None,
    search: Annotated[
        bool,
        typer.Option("--search", help="Search the highest of the loads that keeps the limit."),
    ] = False,
    requests: Annotated[
        int, typer.Option("--requests", min=5, help="Least requests of a window.")
    ] = 50,
    max_requests: Annotated[
        int, typer.Option("--max-requests", min=5, help="Windows of unstable loads grow to this.")
    ] = 400,
    max_windows: Annotated[
        int, typer.Option("--max-windows", min=3, help="Windows before they grow.")
    ] = 8,
    stability: Annotated[
        float,
        typer.Option("--stability", min=0.1, help="Percent that three windows may be apart."),
    ] = 10.0,
    check_s: Annotated[
        float,
        typer.Option("--check-s", min=0, help="Longest time of tritier's own load; 0 for none."),
    ] = 15.0,
    level_limit_s: Annotated[
        float, typer.Option("--level-limit-s", min=1, help="Longest run of perf_analyzer.")
    ] = 1800.0,
    perf_analyzer: Annotated[
        Path | None,
        typer.Option("--perf-analyzer", help="The program; else .tools/perf_analyzer, then PATH."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder, or .json file; bench_MODEL if left out."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Measure anew what has been measured.")
    ] = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
    fetch: Annotated[  # noqa: ARG001 - its callback does the work
        Path | None,
        typer.Option(
            "--fetch",
            metavar="FOLDER",
            callback=_fetch,
            is_eager=True,
            help="Get perf_analyzer into a folder (.tools/perf_analyzer), and end.",
        ),
    ] = None,
) -> None:
    """Measure latency and throughput of a deployed model with perf_analyzer, load by load.

    Every load is measured until it is stable, with larger windows if need be; those that are not
    are kept and marked. All servers are asked what they did meanwhile, and each load is sent by
    tritier itself too, as a check. What is measured is not repeated: run it again to go on.

    \b
    Examples:
        tritier bench espcn_x3 --servers servers.yaml --concurrency 1:16 --batch 1,8 -o sweep
        tritier bench espcn_x3 --url 10.0.0.7:8001 --request-rate 5:50:5 --arrivals poisson
        tritier bench espcn_x3 --servers servers.yaml --concurrency 1:64 \\
            --latency-limit-ms 200 --search
        tritier bench --fetch .tools/perf_analyzer
    """
    if concurrency is not None and request_rate is not None:
        raise UsageError("--concurrency and --request-rate exclude each other: bench twice")
    if search and latency_limit_ms is None:
        raise UsageError("--search needs --latency-limit-ms, the limit that is to be kept")
    rates = request_rate is not None
    offered = (
        parse_loads(request_rate, "--request-rate", whole=False)
        if request_rate is not None
        else parse_loads(concurrency or "1", "--concurrency", whole=True)
    )
    batches = [int(size) for size in parse_loads(batch, "--batch", whole=True)]
    place = find_entry(url, load_servers(servers) if servers else None, workspace(context))
    file = result_file(output or Path(f"bench_{model}"))
    request = BenchRequest(
        model=model,
        url=place.url,
        urls=place.urls,
        program=find_program(perf_analyzer, (Path(), workspace(context).folder.resolve().parent)),
        file=file,
        batches=batches,
        arrivals=arrivals.value if rates else "closed",
        shapes=_shapes(shape or ()),
        input=input_data,
        percentile=percentile.number,
        window_requests=requests,
        max_window_requests=max_requests,
        max_windows=max_windows,
        stability_percent=stability,
        latency_limit_ms=latency_limit_ms,
        check_s=check_s,
        level_limit_s=level_limit_s,
        warnings=place.warnings,
        tell=say,
    )
    loads = Loads(offered, batches, search)
    with ExitStack() as closing:
        prepared = prepare(request, closing)
        for warning in prepared.result.warnings:
            say(f"warning: {warning}")
        if dry_run:
            _show_commands(prepared, loads)
            return
        result = _measured(prepared, loads, file, force)
    for warning in result.warnings:
        say(f"warning: {warning}")
    if json:
        show_json(result.model_dump(mode="json", exclude_none=True))
    else:
        show_result(result)
    say(f"result {file}, what perf_analyzer left {file.parent / prepared.bench.raw}")
    require_found(result)


def _measured(prepared: Prepared, loads: Loads, file: Path, force: bool) -> BenchResult:
    result = prepared.result
    if file.is_file() and not force:
        result = resumed(BenchResult.load(file), result)
        known = sum(result.level(*pair) is not None for pair in loads.all())
        if known:
            say(f"{known} levels are in {file} and are not repeated (--force measures them anew)")
    if force:
        remove_raw(prepared.bench, file)
    sweep = Sweep(prepared.bench, result, lambda done: write_file(file, done.to_json()))
    try:
        return sweep.run(loads)
    except BaseException:
        if kept := len(sweep.result.levels):
            say(f"{kept} levels are kept in {file}; the same command goes on after them")
        raise


def require_found(result: BenchResult) -> None:
    """Raise CheckFailed if a search found no load that keeps the limit."""
    search = result.search
    none = [item.batch for item in search.found if item.offered is None] if search else []
    if search and none:
        raise CheckFailed(
            f"no load from {search.lowest:g} on keeps p{search.percentile} under "
            f"{search.limit_ms:g} ms with batch {', '.join(map(str, none))}: ask for lower loads "
            "or a higher --latency-limit-ms"
        )


def _show_commands(prepared: Prepared, loads: Loads) -> None:
    for batch, offered in loads.all():
        show_text(shown(level_command(prepared.bench, batch, offered)))


def _shapes(items: Sequence[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, Any] = {}
    for item in items:
        name, colon, text = item.rpartition(":")
        parts = text.split(",")
        if not name or not colon or not all(part.isdigit() and int(part) for part in parts):
            raise UsageError(f"--shape {item}: allowed is NAME:D1,D2,... with whole numbers from 1")
        found[name] = tuple(map(int, parts))
    return found
