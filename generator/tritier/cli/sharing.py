"""`tritier share`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tritier.cli.common import ForceFlag, JsonFlag
from tritier.cli.cost_inputs import OutputOption, PricesOption, load_prices
from tritier.cli.cost_show import show_prices, show_streams
from tritier.cli.output import say, show_json, show_table
from tritier.costs.sharing import level, share
from tritier.costs.sharing_config import settings_of
from tritier.documents.sharing import (
    MachineSharing,
    SharingLevel,
    SharingMachine,
    SharingReport,
    SharingScenario,
)
from tritier.errors import InfeasibleError, InputError, UsageError, did_you_mean
from tritier.files import check_replaceable, replaced_dir, write_document_file


def share_command(
    scenario: Annotated[
        Path, typer.Argument(metavar="SCENARIO", help="Models, machines, limits (YAML or JSON).")
    ],
    latency_ms: Annotated[
        float | None,
        typer.Option("--latency-ms", min=0.001, help="Instead of the scenario's limit."),
    ] = None,
    sharers: Annotated[
        int | None,
        typer.Option("--sharers", metavar="N", min=1, max=256, help="Also look at so many."),
    ] = None,
    discipline: Annotated[
        str | None,
        typer.Option("--discipline", help="fifo, turns or sliced, instead of the scenario's."),
    ] = None,
    prices: PricesOption = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            metavar="FOLDER",
            help="Write settings of Triton and of NVIDIA's device plugin for the safe number.",
        ),
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option("--machine", help="For which machine; the best one if left out."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the simulation.")] = 1,
    output: OutputOption = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Say how many may share an accelerator by turns, and what each then costs a month.

    From service times that were measured with a single sharer, a queueing model gives latencies for
    any number; the largest number that keeps the limits of latency and memory is safe. Exit code 5
    if not even one sharer keeps them on any machine.

    \b
    Examples:
        tritier share examples/costs/camera_sharing.yaml
        tritier share examples/costs/camera_sharing.yaml --latency-ms 100 --settings sharing/
    """
    if output is not None and output.exists() and not force:
        raise InputError(f"{output} exists: choose another name or pass --force to replace it")
    if machine is not None and settings is None:
        raise UsageError("--machine says for which machine --settings are: give --settings FOLDER")
    if settings is not None:
        check_replaceable(settings, force)
    asked = _asked(SharingScenario.load(scenario), latency_ms, discipline)
    if machine is not None:
        _known(asked, machine)
    found = share(asked, load_prices(prices), seed)
    if sharers is not None:
        found = _with_level(asked, found, sharers)
    if output is not None:
        write_document_file(output, found.to_json(), force)
        say(f"sharing written to {output}")
    if settings is not None:
        _write_settings(asked, found, machine, settings, force)
    if json:
        show_json(found.model_dump(mode="json", by_alias=True, exclude_none=True))
    else:
        _show(found)
    if not any(row.safe_sharers for row in found.machines):
        raise InfeasibleError(
            "not even one sharer keeps the limits on any machine: "
            + "; ".join(f"{row.name}: {row.limited_by}" for row in found.machines)
        )


def _asked(
    scenario: SharingScenario, latency_ms: float | None, discipline: str | None
) -> SharingScenario:
    """The scenario with what the options say instead."""
    data: dict[str, Any] = scenario.model_dump(mode="json", exclude_none=True)
    if latency_ms is not None:
        data["latency_limit_ms"] = latency_ms
    if discipline is not None:
        data["discipline"] = discipline
    return SharingScenario.from_data(data, "options")


def _with_level(scenario: SharingScenario, report: SharingReport, sharers: int) -> SharingReport:
    """The report with a number of sharers that was asked for."""
    rows = []
    for machine, row in zip(scenario.machines, report.machines, strict=True):
        known = {item.sharers: item for item in row.levels}
        if sharers not in known:
            known[sharers] = level(scenario, machine, sharers, report.seed)
        levels = tuple(known[number] for number in sorted(known))
        rows.append(row.model_copy(update={"levels": levels}))
    return report.model_copy(update={"machines": tuple(rows)})


def _write_settings(
    scenario: SharingScenario, report: SharingReport, name: str | None, folder: Path, force: bool
) -> None:
    machine, row = _chosen(scenario, report, name)
    if not row.safe_sharers:
        raise InfeasibleError(f"no settings for '{row.name}': not even one sharer keeps the limits")
    files = settings_of(scenario, machine, row.safe_sharers)
    with replaced_dir(folder, force) as fresh:
        for path, text in files.items():
            (fresh / path).parent.mkdir(parents=True, exist_ok=True)
            (fresh / path).write_text(text, encoding="utf-8")
    say(f"settings of {row.safe_sharers} sharers on '{row.name}' written to {folder}")


def _known(scenario: SharingScenario, name: str) -> None:
    names = [machine.label for machine in scenario.machines]
    if name not in names:
        raise InputError(
            f"--machine {name}: is not in the scenario{did_you_mean(name, names)}; known are "
            f"{', '.join(names)}"
        )


def _chosen(
    scenario: SharingScenario, report: SharingReport, name: str | None
) -> tuple[SharingMachine, MachineSharing]:
    """The machine that was named, or the one with the cheapest way, or that bears most."""
    pairs = list(zip(scenario.machines, report.machines, strict=True))
    for machine, row in pairs:
        if row.name == name or (name is None and (report.best or "").startswith(f"{row.name}: ")):
            return machine, row
    return max(pairs, key=lambda pair: pair[1].safe_sharers)


def _show(report: SharingReport) -> None:
    columns = ["sharers", "load", "memory MiB", "mean ms", "p50 ms", "p95 ms", "p99 ms", "by",
               "slowest model", "note"]  # fmt: skip
    for row in report.machines:
        show_table(
            f"{row.name}: {row.safe_sharers} may share ({report.discipline}); one more: "
            f"{row.limited_by}",
            columns,
            [_cells(item) for item in row.levels],
        )
    show_streams(report.costs)
    for line in report.assumptions:
        say(f"assumed: {line}")
    show_prices(report.prices)
    for warning in report.warnings:
        say(f"warning: {warning}")
    if report.best is not None:
        say(f"cheapest within {report.latency_limit_ms:g} ms: {report.best}")


def _cells(item: SharingLevel) -> tuple[object, ...]:
    times = (item.mean_ms, item.p50_ms, item.p95_ms, item.p99_ms)
    shown = ("-" if x is None else f"{x:,.1f}" for x in times)
    note = "; ".join(item.broken) or "keeps the limits"
    return (item.sharers, f"{item.utilisation:.0%}", f"{item.memory_mib:,.0f}", *shown,
            item.method or "-", item.slowest or "-", note)  # fmt: skip
