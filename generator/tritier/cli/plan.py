"""`tritier plan`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    ServersOption,
    load_servers,
    parse_dims,
    workspace,
)
from tritier.cli.cost_inputs import PricesOption
from tritier.cli.output import progress, say, show_json
from tritier.cli.plan_assigned import assigned_plan
from tritier.cli.plan_family import (
    DEFAULT_FOLDER,
    check_family_options,
    read_classes,
    show_family,
)
from tritier.cli.plan_show import show_plan, show_report
from tritier.cli.plan_solve import SolveOptions, solve_family, solve_plan
from tritier.cli.ranges import DataOption, ImagesOption, PreprocessingOption
from tritier.cli.server_prices import EgressOption
from tritier.documents import Plan, PlanReport, Ranges
from tritier.errors import InputError, UsageError
from tritier.files import write_document_file
from tritier.graph import load_model
from tritier.workflow import remember
from tritier.workflow.family_files import check_folder, write_family


def plan_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    servers: ServersOption,
    assignment: Annotated[
        Path | None,
        typer.Option("--assignment", help="Layers and their servers (YAML or JSON), by hand."),
    ] = None,
    timing: Annotated[
        list[Path] | None,
        typer.Option(
            "--timing",
            metavar="FILE-OR-FOLDER",
            help="Timing profiles, from `tritier profile`: the planner places the layers.",
        ),
    ] = None,
    network: Annotated[
        Path | None,
        typer.Option("--network", help="Measured links, from `tritier monitor`."),
    ] = None,
    noise: Annotated[
        list[Path] | None,
        typer.Option("--noise", help="Noise model, from `tritier noise`; may be repeated."),
    ] = None,
    max_noise: Annotated[
        list[str] | None,
        typer.Option(
            "--max-noise",
            metavar="[OUTPUT=]X",
            help="Most noise of an output, or of all, with its margin; may be repeated.",
        ),
    ] = None,
    unlimited_noise: Annotated[
        bool, typer.Option("--unlimited-noise", help="Quantize whatever gains.")
    ] = False,
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    noise_runs: Annotated[
        int,
        typer.Option(
            "--noise-runs",
            metavar="N",
            min=1,
            help="With --images or --data, those of the noise model: measure the noise of the "
            "choice, of at most N.",
        ),
    ] = 6,
    objective: Annotated[
        str,
        typer.Option(
            "--objective", help="latency, energy, cost, weighted, throughput or makespan."
        ),
    ] = "latency",
    latency_weight: Annotated[
        float,
        typer.Option("--latency-weight", min=0, max=1, help="Of latency, for weighted."),
    ] = 0.5,
    device_energy: Annotated[
        float | None,
        typer.Option("--device-energy", metavar="JOULE", min=0, help="Limit of the entry."),
    ] = None,
    server_energy: Annotated[
        list[str] | None,
        typer.Option("--server-energy", metavar="NAME=JOULE", help="Limit of a server."),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option("--energy", metavar="JOULE", min=0, help="Limit of all servers together."),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option("--max-latency", metavar="MS", min=0, help="Limit of the sum of all times."),
    ] = None,
    memory: Annotated[
        list[str] | None,
        typer.Option("--memory", metavar="NAME=MIB", help="Instead of memory_mib of a server."),
    ] = None,
    pin: Annotated[
        list[str] | None,
        typer.Option("--pin", metavar="LAYER=SERVER", help="Name or pattern; may be repeated."),
    ] = None,
    forbid: Annotated[
        list[str] | None,
        typer.Option("--forbid", metavar="LAYER=SERVER", help="Name or pattern; not there."),
    ] = None,
    keep_local: Annotated[
        list[str] | None,
        typer.Option(
            "--keep-local",
            metavar="TENSOR",
            help="Must not leave the server where it is made, e.g. the model's input.",
        ),
    ] = None,
    close_link: Annotated[
        list[str] | None,
        typer.Option("--close-link", metavar="FROM:TO", help="No tensor may go there."),
    ] = None,
    allow_wire: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-wire",
            metavar="[FROM:TO=]CODEC",
            help="fp16, or int8 for tensors named by --int8-tensor, where it is faster.",
        ),
    ] = None,
    int8_tensor: Annotated[
        list[str] | None,
        typer.Option("--int8-tensor", metavar="TENSOR", help="May cross in int8; not in noise."),
    ] = None,
    int8_everywhere: Annotated[
        bool, typer.Option("--int8-everywhere", help="Also where it does not gain time (R7).")
    ] = False,
    alternatives: Annotated[
        bool,
        typer.Option(
            "--alternatives",
            help="A family: a plan for each class of requests, and for each server that is lost.",
        ),
    ] = False,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", help="Classes of requests (YAML or JSON), for --alternatives."),
    ] = None,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            envvar="TRITIER_PLAN_CLASS",
            metavar="NAME[:KEY=VALUE,...]",
            help="A class: noise=X, deadline=MS, objective=..., latency-weight=W, hedge, default; "
            "for --alternatives, may be repeated, the most important first.",
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole/--no-whole", help="Of a family: the whole model on the entry, if plans fail."
        ),
    ] = True,
    prices: PricesOption = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(
            "--machine",
            metavar="SERVER=MACHINE",
            help="The machine in the price book that a server is, instead of price_per_hour_usd; "
            "may be repeated.",
        ),
    ] = None,
    egress: EgressOption = None,
    energy_price: Annotated[
        str | None,
        typer.Option(
            "--energy-price",
            metavar="PRICE",
            help="Electricity of servers without a price per hour: a name or USD per kWh.",
        ),
    ] = None,
    max_components: Annotated[
        int | None, typer.Option("--max-components", metavar="N", min=1, help="At most so many.")
    ] = None,
    pareto: Annotated[
        int | None,
        typer.Option(
            "--pareto",
            metavar="N",
            min=0,
            help="Also show all best compromises of latency and energy, and N between them.",
        ),
    ] = None,
    solver: Annotated[
        str,
        typer.Option("--solver", help="auto, or an integer program by HiGHS, CBC, ... (PuLP)."),
    ] = "auto",
    formulation: Annotated[
        str,
        typer.Option("--formulation", help="Of the integer program: labels, or thesis (slow)."),
    ] = "labels",
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", min=0.1, help="Of a search.")
    ] = 60.0,
    explain: Annotated[
        bool,
        typer.Option("--explain/--no-explain", help="Solve other plans and better links, too."),
    ] = True,
    report: Annotated[
        Path | None, typer.Option("--report", help="Where to write the planning report (JSON).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Where to write the plan, plan.json if left out, or the folder of a family, "
            "family.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="What apps call the model; the file's stem if left out."),
    ] = None,
    ranges: Annotated[
        Path | None,
        typer.Option("--ranges", help="Calibration ranges, from `tritier ranges`."),
    ] = None,
    quantize: Annotated[
        list[str] | None,
        typer.Option("--quantize", help="With --assignment: layer to quantize, name or pattern."),
    ] = None,
    wire_codec: Annotated[
        str | None,
        typer.Option("--wire-codec", help="With --assignment: as_is, fp16, int8 or uint8."),
    ] = None,
    dim: DimOption = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Find the best plan, or make one from an assignment of layers to servers.

    With timing profiles, the planner places every layer and chooses those that compute in int8, and
    explains: baselines, limits, what better links would bring.

    \b
    Example:
        tritier plan model.onnx --servers servers.yaml --timing profiles/model \\
            --network network.json -o plan.json

    The assignment maps layer names or patterns to servers:

    \b
        default: device
        layers:
          "conv1": device
          "block2.*": edge
        quantized_layers: ["block2.*"]
        wire_codec: fp16

    \b
    Example:
        tritier plan model.onnx --assignment split.yaml --servers servers.yaml -o plan.json

    A family, for `tritier generate family/` and its router:

    \b
    Example:
        tritier plan model.onnx --servers servers.yaml --timing profiles/model \\
            --noise noise.json --ranges ranges.json --alternatives \\
            --class critical:noise=0,deadline=500 --class low:noise=0.1,default -o family
    """
    options = SolveOptions(
        timing=tuple(timing or ()), network=network, noise=tuple(noise or ()),
        max_noise=tuple(max_noise or ()), unlimited_noise=unlimited_noise, objective=objective,
        latency_weight=latency_weight, device_energy=device_energy,
        server_energy=tuple(server_energy or ()), energy=energy, max_latency=max_latency,
        memory=tuple(memory or ()), pin=tuple(pin or ()), forbid=tuple(forbid or ()),
        keep_local=tuple(keep_local or ()), close_link=tuple(close_link or ()),
        allow_wire=tuple(allow_wire or ()), int8_tensor=tuple(int8_tensor or ()),
        int8_everywhere=int8_everywhere, max_components=max_components, pareto=pareto,
        solver=solver, formulation=formulation, time_limit=time_limit, explain=explain,
        images=tuple(images or ()), preprocessing=preprocessing, data=tuple(data or ()),
        noise_runs=noise_runs, prices=prices, machine=tuple(machine or ()),
        egress=tuple(egress or ()), energy_price=energy_price, dims=parse_dims(dim),
    )  # fmt: skip
    _check_options(options, assignment, quantize, wire_codec, report)
    check_family_options(alternatives, classes, class_, whole, assignment, report)
    wanted = read_classes(classes, class_ or ()) if alternatives else None
    output = output or (DEFAULT_FOLDER if alternatives else Path("plan.json"))
    if not dry_run and alternatives:
        check_folder(output, force)
    elif not dry_run:
        _check_files(output, report, force)
    loaded = load_model(model)
    spec = load_servers(servers)
    measured = None if ranges is None else Ranges.load(ranges)
    store = workspace(context).folder / "noise"
    if wanted is not None:
        with progress("planning") as tell:
            family = solve_family(loaded, spec, measured, name, options, wanted, whole, store, tell)
        if not dry_run:
            write_family(output, family.family, family.plans, force)
            for item in family.plans:
                remember(workspace(context).pool, item, loaded)
            say(f"{len(family.plans)} plans written to {output}")
        show_family(family, json)
        return
    found: PlanReport | None = None
    if assignment is not None:
        plan = assigned_plan(loaded, assignment, spec, name, measured, quantize, wire_codec)
    else:
        with progress("planning") as tell:
            planned = solve_plan(loaded, spec, measured, name, options, store, tell)
        plan, found = planned.plan, planned.report
    if not dry_run:
        _write(output, plan, report, found, force)
        remember(workspace(context).pool, plan, loaded)
        say(f"plan {plan.id} written to {output}")
    if json:
        data_of_plan = plan.model_dump(mode="json", by_alias=True, exclude_none=True)
        show_json(data_of_plan if found is None else {
            "plan": data_of_plan,
            "report": found.model_dump(mode="json", by_alias=True, exclude_none=True),
        })  # fmt: skip
    else:
        show_plan(plan)
        if found is not None:
            show_report(found)


def _check_files(output: Path, report: Path | None, force: bool) -> None:
    """Before anything is solved, so that both files are written or none."""
    paths = [output, *([] if report is None else [report])]
    faults = [f"{path} is a folder: give a file" for path in paths if path.is_dir()]
    faults += [
        f"{path}: {parent} is a file, not a folder; choose another name"
        for path in paths
        for parent in path.parents
        if parent.is_file()
    ]
    faults += [
        f"{path} exists: choose another name or pass --force to replace it"
        for path in paths
        if path.is_file() and not force
    ]
    if faults:
        raise InputError(faults)
    if report is not None and report.resolve() == output.resolve():
        raise UsageError(f"--output and --report are both {output}: give two names")


def _write(
    output: Path, plan: Plan, report: Path | None, found: PlanReport | None, force: bool
) -> None:
    write_document_file(output, plan.to_json(), force)
    if report is not None and found is not None:
        write_document_file(report, found.to_json(), force)


def _check_options(
    options: SolveOptions,
    assignment: Path | None,
    quantize: list[str] | None,
    wire_codec: str | None,
    report: Path | None,
) -> None:
    """Either by hand or solved; options of the other kind would be silently without effect."""
    if (assignment is None) == (not options.timing):
        raise UsageError(
            "give either --timing profiles, for the planner to place the layers, or an --assignment"
        )
    if assignment is None and (quantize or wire_codec):
        raise UsageError(
            "--quantize and --wire-codec go with --assignment; the planner chooses layers within "
            "--max-noise and wires within --allow-wire"
        )
    if assignment is not None:
        stated = SolveOptions(dims=options.dims)
        given = [
            "--" + f.name.replace("_", "-")
            for f in dataclasses.fields(SolveOptions)
            if getattr(options, f.name) != getattr(stated, f.name)
        ]
        given += ["--report"] if report is not None else []
        if given:
            raise UsageError(
                f"only the planner, with --timing, knows {', '.join(given)}; an --assignment is "
                "taken as it is"
            )
