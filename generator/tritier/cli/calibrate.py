"""`tritier calibrate`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tritier.bench.environment import current
from tritier.cli.common import (
    DimOption,
    ForceFlag,
    JsonFlag,
    ServersOption,
    load_servers,
    parse_dims,
    workspace,
)
from tritier.cli.compare import (
    InputOption,
    RoundsOption,
    TracesOption,
    WarmupOption,
    app_ms_of,
)
from tritier.cli.output import progress, say, show_json, show_table
from tritier.cli.plan_solve import SolveOptions, planning_of
from tritier.documents import Plan, Ranges
from tritier.errors import CheckFailed, InputError
from tritier.files import write_file
from tritier.graph import LoadedModel, load_model
from tritier.network.registry import server_urls
from tritier.repository import GenerateOptions
from tritier.workflow import gather_inputs
from tritier.workflow.calibrate_lab import Stage
from tritier.workflow.calibrate_loop import Calibration, Calibrator, Step
from tritier.workflow.compare import Known
from tritier.workflow.compare_app import check_shapes
from tritier.workflow.compare_measure import Counts
from tritier.workflow.compare_rounds import interval_text
from tritier.workflow.planning import make_plan
from tritier.workflow.planning_goals import Goals
from tritier.workflow.problem_request import PlanningRequest

_AS_PLAN = "As of `tritier plan`."


def calibrate_command(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX model.")],
    servers: ServersOption,
    timing: Annotated[
        list[Path],
        typer.Option(
            "--timing", metavar="FILE-OR-FOLDER", help="Timing profiles, from `tritier profile`."
        ),
    ],
    network: Annotated[
        Path, typer.Option("--network", help="Measured links, from `tritier monitor`.")
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for plans, comparisons, corrected documents."),
    ] = Path("calibrated"),
    plan: Annotated[
        Path | None, typer.Option("--plan", help="Begin with this plan, not with the best one.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option("--tolerance", metavar="SHARE", min=0.001, max=1, help="Of the latency."),
    ] = 0.05,
    iterations: Annotated[
        int, typer.Option("--iterations", metavar="N", min=1, max=50, help="Plans at most.")
    ] = 5,
    rounds: RoundsOption = 30,
    warmup: WarmupOption = 5,
    traces: TracesOption = 10,
    inputs: InputOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of random inputs.")] = 0,
    name: Annotated[
        str | None, typer.Option("--name", help="What apps call the model; the file's stem.")
    ] = None,
    objective: Annotated[str, typer.Option("--objective", help=_AS_PLAN)] = "latency",
    latency_weight: Annotated[
        float, typer.Option("--latency-weight", min=0, max=1, help=_AS_PLAN)
    ] = 0.5,
    noise: Annotated[list[Path] | None, typer.Option("--noise", help=_AS_PLAN)] = None,
    max_noise: Annotated[list[str] | None, typer.Option("--max-noise", help=_AS_PLAN)] = None,
    unlimited_noise: Annotated[bool, typer.Option("--unlimited-noise", help=_AS_PLAN)] = False,
    ranges: Annotated[Path | None, typer.Option("--ranges", help=_AS_PLAN)] = None,
    pin: Annotated[list[str] | None, typer.Option("--pin", help=_AS_PLAN)] = None,
    forbid: Annotated[list[str] | None, typer.Option("--forbid", help=_AS_PLAN)] = None,
    keep_local: Annotated[list[str] | None, typer.Option("--keep-local", help=_AS_PLAN)] = None,
    close_link: Annotated[list[str] | None, typer.Option("--close-link", help=_AS_PLAN)] = None,
    allow_wire: Annotated[list[str] | None, typer.Option("--allow-wire", help=_AS_PLAN)] = None,
    int8_tensor: Annotated[list[str] | None, typer.Option("--int8-tensor", help=_AS_PLAN)] = None,
    int8_everywhere: Annotated[bool, typer.Option("--int8-everywhere", help=_AS_PLAN)] = False,
    memory: Annotated[list[str] | None, typer.Option("--memory", help=_AS_PLAN)] = None,
    energy: Annotated[float | None, typer.Option("--energy", min=0, help=_AS_PLAN)] = None,
    device_energy: Annotated[
        float | None, typer.Option("--device-energy", min=0, help=_AS_PLAN)
    ] = None,
    max_components: Annotated[
        int | None, typer.Option("--max-components", min=1, help=_AS_PLAN)
    ] = None,
    time_limit: Annotated[float, typer.Option("--time-limit", min=0.1, help=_AS_PLAN)] = 60.0,
    dim: DimOption = None,
    deadline_ms: Annotated[
        int | None,
        typer.Option("--deadline-ms", min=1, help="As of `tritier generate`, for plans put there."),
    ] = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Correct profiles and links by what plans really take, and plan again, until both agree.

    The best plan is deployed, predicted and measured as by `tritier compare`. If the latency is off
    by more than the tolerance, times of components correct the timing profiles, times of messages
    the links, and the best plan is found anew. In the lab plans are deployed by this command, and
    the last one stays; elsewhere it says what to deploy. Exit code 1 if prediction and measurement
    don't agree in the end, with the reason.

    \b
    Example:
        tritier calibrate model.onnx --servers servers.yaml --timing profiles/model \\
            --network network.json -o calibrated/
    """
    options = SolveOptions(
        timing=tuple(timing), network=network, noise=tuple(noise or ()),
        max_noise=tuple(max_noise or ()), unlimited_noise=unlimited_noise, objective=objective,
        latency_weight=latency_weight, device_energy=device_energy, energy=energy,
        memory=tuple(memory or ()), pin=tuple(pin or ()), forbid=tuple(forbid or ()),
        keep_local=tuple(keep_local or ()), close_link=tuple(close_link or ()),
        allow_wire=tuple(allow_wire or ()), int8_tensor=tuple(int8_tensor or ()),
        int8_everywhere=int8_everywhere, max_components=max_components, time_limit=time_limit,
        explain=False, dims=parse_dims(dim),
    )  # fmt: skip
    _check_folder(output, force)
    loaded, spec = load_model(model), load_servers(servers)
    measured_ranges = None if ranges is None else Ranges.load(ranges)
    request, goals = planning_of(loaded, spec, measured_ranges, options)
    planner = _Planner(request, goals, name)
    known = Known(loaded, spec, request.timings, request.network)
    first = Plan.load(plan) if plan is not None else planner.best(known)
    arrays = gather_inputs(first, 0 if inputs else 1, seed, inputs or (), options.dims)
    check_shapes(first, known, arrays)
    lab = workspace(context).running_lab()
    urls = server_urls(spec.model_copy(update={"servers": (spec.entry,)}), lab)
    known = dataclasses.replace(known, app_ms=app_ms_of(known, first, urls, arrays))
    stage = Stage(
        servers, lab, output, arrays, Counts(rounds, warmup, traces),
        _generating(options, deadline_ms), environment=current,
    )  # fmt: skip
    stage.clear(known)
    try:
        with progress("calibrating") as report:
            stage.report = report
            calibrator = Calibrator(
                planner.best, stage.measure, tolerance, iterations,
                lambda found: _write_documents(output, found),
            )  # fmt: skip
            found = calibrator.run(known, first)
    finally:
        _say_deployed(stage, servers)
    _write_documents(output, found.known)
    write_file(output / "plan.json", found.plan.to_json())
    _show(found, output, loaded, json)
    if not found.agrees:
        raise CheckFailed(found.why)


def _generating(options: SolveOptions, deadline_ms: int | None) -> GenerateOptions:
    if deadline_ms is None:
        return GenerateOptions(dims=options.dims)
    return GenerateOptions(dims=options.dims, deadline_ms=deadline_ms)


def _say_deployed(stage: Stage, servers: Path) -> None:
    """What was put on servers and is there now, however the command ends."""
    for plan_id in stage.found_there:
        say(f"plan {plan_id} was deployed before, and is not taken away")
    if stage.deployed_folder is not None:
        say(
            f"plan {stage.deployed_plan} stays deployed: take it away with `tritier undeploy "
            f"{stage.deployed_folder} --servers {servers}`"
        )


@dataclasses.dataclass(frozen=True)
class _Planner:
    """Plans with the same goals by other documents."""

    request: PlanningRequest
    goals: Goals
    name: str | None

    def best(self, known: Known) -> Plan:
        """The best plan; errors as of `make_plan`."""
        changed = dataclasses.replace(self.request, timings=known.timings, network=known.network)
        return make_plan(changed, self.goals, self.name).plan


def _check_folder(output: Path, force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file: give a folder with -o")
    if output.is_dir() and any(output.iterdir()) and not force:
        raise InputError(f"{output} is not empty: choose another folder or pass --force")


def _write_documents(output: Path, known: Known) -> None:
    for server, timing in known.timings.items():
        write_file(output / "profiles" / f"{server}.json", timing.to_json())
    if known.network is not None:
        write_file(output / "network.json", known.network.to_json())


def _show(found: Calibration, output: Path, model: LoadedModel, json: bool) -> None:
    if json:
        show_json({
            "outcome": found.outcome,
            "why": found.why,
            "plan_id": found.plan.id,
            "steps": [_data(step) for step in found.steps],
        })  # fmt: skip
        return
    show_table(
        f"{model.default_name}: plans that were measured",
        ["plan", "components", "predicted ms", "measured ms (95 % interval)", "error %"],
        [_row(step) for step in found.steps],
    )
    for step in found.steps:
        for note in step.notes:
            say(f"after plan {step.plan_id}: {note}")
    say(f"the last plan, and documents as corrected, are in {output}")
    if found.agrees:
        say(found.why)


def _row(step: Step) -> tuple[object, ...]:
    comparison = step.comparison
    assert comparison.measured is not None
    x = comparison.measured.latency
    return (
        step.plan_id,
        len(comparison.plan.components),
        f"{comparison.predicted.latency_ms:.2f}",
        f"{x.median_ms:.2f} ({interval_text(x.n, x.low_ms, x.high_ms)})",
        f"{100 * step.error:+.1f}",
    )


def _data(step: Step) -> dict[str, object]:
    assert step.comparison.measured is not None
    return {
        "plan_id": step.plan_id,
        "predicted_ms": step.comparison.predicted.latency_ms,
        "measured": step.comparison.measured.latency.model_dump(mode="json"),
        "error": step.error,
        "corrections": list(step.notes),
    }
