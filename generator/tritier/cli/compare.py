"""`tritier compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tritier.bench.environment import current
from tritier.cli.common import (
    ForceFlag,
    JsonFlag,
    ServersOption,
    load_servers,
    parse_dims,
    workspace,
)
from tritier.cli.compare_show import show_comparison
from tritier.cli.output import progress_of_several, say, show_json
from tritier.cli.plan_solve import load_timings
from tritier.divider import Arrays
from tritier.documents import Comparison, NetworkState, Plan, ServersSpec
from tritier.errors import CheckFailed, InputError, ServerError
from tritier.graph import load_model
from tritier.network.registry import server_urls
from tritier.repository import Repositories
from tritier.workflow import gather_inputs
from tritier.workflow.compare import Known, predict_plan
from tritier.workflow.compare_app import app_bytes, check_shapes, measure_app_ms
from tritier.workflow.compare_files import (
    app_ms_written,
    find_deployed,
    triton_versions,
    written_measurement,
    written_prediction,
)
from tritier.workflow.compare_measure import Counts, Deployed, measure_plan

PlanArgument = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, plan.json.")]
TimingOption = Annotated[
    list[Path],
    typer.Option(
        "--timing", metavar="FILE-OR-FOLDER", help="Timing profiles, from `tritier profile`."
    ),
]
NetworkOption = Annotated[
    Path | None, typer.Option("--network", help="Measured links, from `tritier monitor`.")
]
RoundsOption = Annotated[
    int, typer.Option("--rounds", min=3, max=100_000, help="Requests that are timed.")
]
WarmupOption = Annotated[
    int, typer.Option("--warmup", min=0, max=10_000, help="Requests before those.")
]
TracesOption = Annotated[
    int,
    typer.Option("--traces", min=0, max=1000, help="Requests with a trace, between the others."),
]
InputOption = Annotated[
    list[Path] | None,
    typer.Option("--input", help="Input file, .npz or .npy; may be repeated. Random if left out."),
]


def compare_command(
    context: typer.Context,
    plan: PlanArgument,
    servers: ServersOption,
    model: Annotated[Path, typer.Option("--model", help="The whole ONNX model.")],
    timing: TimingOption,
    network: NetworkOption = None,
    repos: Annotated[
        Path | None,
        typer.Option("--repos", help="The generated folder: checked to be of this plan."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Where the comparison is written.")
    ] = Path("comparison.json"),
    predict_only: Annotated[
        bool, typer.Option("--predict-only", help="Write the prediction, measure nothing.")
    ] = False,
    rounds: RoundsOption = 30,
    warmup: WarmupOption = 5,
    traces: TracesOption = 10,
    inputs: InputOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of random inputs.")] = 0,
    max_error: Annotated[
        float | None,
        typer.Option(
            "--max-error", metavar="SHARE", min=0, help="Exit code 1 if latency is off by more."
        ),
    ] = None,
    dim: Annotated[
        list[str] | None,
        typer.Option("--dim", help="Size of a symbolic dimension of the inputs, NAME=N."),
    ] = None,
    force: ForceFlag = False,
    json: JsonFlag = False,
) -> None:
    """Predict what a deployed plan takes, write that down, then measure it.

    Latency of whole requests, times of components and messages, bytes and memory, side by side. The
    prediction is on disk before the first request is sent; a file that was completed is not used
    again. With --predict-only the same command without it measures later. --force replaces another
    prediction that was not measured yet.

    \b
    Examples:
        tritier compare plan.json --servers servers.yaml --model model.onnx \\
            --timing profiles/model --network network.json -o comparison.json
        tritier compare plan.json --servers servers.yaml --model model.onnx \\
            --timing profiles/model --rounds 100 --max-error 0.05
    """
    wanted = Plan.load(plan)
    spec = load_servers(servers)
    state = None if network is None else NetworkState.load(network)
    known = Known(load_model(model), spec, load_timings(timing), state)
    _check_repositories(repos, wanted)
    arrays = gather_inputs(wanted, 0 if inputs else 1, seed, inputs or (), parse_dims(dim))
    check_shapes(wanted, known, arrays)
    predict_plan(wanted, known)  # what is wrong with documents is said before servers are asked
    deployed = None if predict_only else _deployed(context, wanted, spec)
    there, app_ms = app_ms_written(output, wanted)
    if deployed is not None and (force or not there):
        app_ms = app_ms_of(known, wanted, deployed.urls, arrays)
    predicted = predict_plan(wanted, replace(known, app_ms=app_ms))
    found = written_prediction(output, wanted, predicted, force)
    say(f"prediction of plan {wanted.id} of {found.predicted_at} is in {output}")
    if deployed is not None:
        with progress_of_several("comparing", [f"plan {wanted.id}"]) as report:
            measured = measure_plan(
                deployed,
                arrays,
                Counts(rounds, warmup, traces),
                lambda step, share: report(f"plan {wanted.id}", step, share),
            )
        environment = current(triton_versions(deployed.urls))
        found = written_measurement(output, found, measured, environment)
        say(f"measured; the comparison is in {output}")
    show(found, json)
    _check_error(found, max_error)


def show(found: Comparison, json: bool) -> None:
    """As tables, or all of it with its tables as JSON."""
    if not json:
        show_comparison(found)
        return
    data = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    tables = {
        name: [row.model_dump(mode="json", by_alias=True, exclude_none=True) for row in rows]
        for name, rows in (
            ("components", found.components),
            ("wires", found.wires),
            ("memory", found.memory),
        )
    }
    errors = {name: x.model_dump(mode="json") for name, x in found.errors.items()}
    show_json({**data, "tables": {**tables, "errors": errors, "latency": found.latency_error}})


def app_ms_of(
    known: Known, plan: Plan, urls: Mapping[str, str], inputs: Sequence[Arrays]
) -> float | None:
    """What the app's own connection takes; None, with a warning, where that can't be measured."""
    entry = plan.entry.name
    try:
        return measure_app_ms(entry, urls[entry], *app_bytes(known, inputs))
    except ServerError as error:
        say(f"the prediction is without the app's own connection to the entry: {error}")
        return None


def _deployed(context: typer.Context, plan: Plan, spec: ServersSpec) -> Deployed:
    """Before anything is written: is it there at all?"""
    lab = workspace(context).running_lab()
    used = {plan.entry.name, *(part.server for part in plan.components)}
    chosen = tuple(server for server in spec.servers if server.name in used)
    urls = server_urls(spec.model_copy(update={"servers": chosen}), lab)
    return find_deployed(plan, urls, lab)


def _check_repositories(repos: Path | None, plan: Plan) -> None:
    if repos is None:
        return
    found = [item.id for item in Repositories.open(repos).plans]
    if plan.id not in found:
        raise InputError(
            f"is of plan {' and '.join(found)}, not of {plan.id}: generate it from this plan",
            str(repos),
        )


def _check_error(found: Comparison, limit: float | None) -> None:
    error = found.latency_error
    if limit is not None and error is not None and abs(error) > limit:
        raise CheckFailed(
            f"the predicted latency is off by {100 * error:+.1f} %, allowed are "
            f"{100 * limit:g} %: `tritier calibrate` takes measured times back"
        )
