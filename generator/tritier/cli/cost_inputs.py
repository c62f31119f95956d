"""What `tritier cost` and `tritier capacity` read: prices, workloads, measurements by machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import refuse_files
from tritier.costs import Prices, run_of_timing, runs_of_bench, starter_book
from tritier.documents import BenchResult, MachineRun, PriceBook, TimingProfile, Workload
from tritier.documents.prices import NAME_PATTERN
from tritier.errors import InputError, UsageError

_NAME = re.compile(NAME_PATTERN)

WorkloadArgument = Annotated[
    Path | None,
    typer.Argument(metavar="WORKLOAD", help="Run times on machines, by hand (YAML or JSON)."),
]
PricesOption = Annotated[
    Path | None,
    typer.Option("--prices", help="The price book; the one that comes along if left out."),
]
BenchOption = Annotated[
    list[str] | None,
    typer.Option(
        "--bench",
        metavar="MACHINE=FILE",
        help="A bench result, and the machine in the price book; may be repeated.",
    ),
]
TimingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--timing",
        metavar="MACHINE=FILE",
        help="A timing profile, and the machine in the price book; may be repeated.",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option("--rate", metavar="R", help="Also at this rate of inferences per hour."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", help="Where to draw a picture (.png or .svg).")
]
OutputOption = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where to write the result (JSON).")
]


def load_prices(path: Path | None) -> Prices:
    """The price book of a file, or the one that comes along."""
    return Prices(starter_book() if path is None else PriceBook.load(path))


def pairs_of(option: str, items: Sequence[str] | None, what: str) -> list[tuple[str, str]]:
    """`NAME=VALUE` options; raises UsageError for others."""
    found = []
    for item in items or ():
        name, equals, value = item.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{option} {item}: allowed is {what}")
        found.append((name, value))
    return found


def read_workload(
    path: Path | None, bench: Sequence[str] | None, timing: Sequence[str] | None
) -> Workload | None:
    """All run times that the options name, as one workload; None if there are none."""
    written = None if path is None else Workload.load(path)
    runs: list[MachineRun] = [] if written is None else list(written.runs)
    names = [] if written is None else [written.name]
    for machine, file in _machine_files("--bench", bench):
        result = BenchResult.load(Path(file))
        runs += runs_of_bench(machine, result)
        names.append(result.model)
    for machine, file in _machine_files("--timing", timing):
        profile = TimingProfile.load(Path(file))
        if profile.whole.mean_ms <= 0:
            raise InputError("has a mean of 0 ms of the whole model: profile it again", file)
        runs.append(run_of_timing(machine, profile))
        names.append(profile.model.name)
    serverless = () if written is None else written.serverless
    if not runs and not serverless:
        return None
    name = ", ".join(dict.fromkeys(names))
    try:
        return Workload(name=name, runs=tuple(runs), serverless=serverless)
    except ValueError as error:  # one machine stands for several measurements of one name
        raise UsageError(f"runs can't be told apart: {error}") from error


def _machine_files(option: str, items: Sequence[str] | None) -> list[tuple[str, str]]:
    """Raises UsageError for what can't be a name in a price book."""
    found = pairs_of(option, items, "MACHINE=FILE")
    for machine, file in found:
        if not _NAME.fullmatch(machine):
            raise UsageError(
                f"{option} {machine}={file}: '{machine}' is no name in a price book: these have "
                "lower-case letters, digits and any of . _ -; `tritier cost --show-prices` shows "
                "them"
            )
    return found


def refuse_existing(paths: Iterable[Path | None], force: bool) -> None:
    """Raise, before anything is computed, for what can't be written: InputError for files that
    exist, unless they may be replaced, and for folders; UsageError for two of one name."""
    given = [path for path in paths if path is not None]
    refuse_files(given, force)
    if len({path.resolve() for path in given}) < len(given):
        raise UsageError(f"-o and --plot are both {given[0]}: give two names")


def positive_rate(rate: float | None) -> float | None:
    """The rate, if it is one. Raises UsageError."""
    if rate is not None and not 0 < rate < float("inf"):
        raise UsageError(f"--rate {rate}: allowed are numbers above 0, inferences per hour")
    return rate
