"""`tritier load`."""

from __future__ import annotations

import json as jsonlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tritier.bench.locust_job import SAMPLES_NAME, LoadJob, Questions, write_job
from tritier.bench.locust_run import (
    LOOPBACK,
    MASTER_PORT,
    LoadProcesses,
    Processes,
    check_locust,
)
from tritier.bench.locust_shapes import levels_of, parse_users
from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    EntryUrlOption,
    ForceFlag,
    JsonFlag,
    parse_dims,
    workspace,
)
from tritier.cli.load_prepare import (
    Asked,
    InputOptions,
    Tls,
    check_classes,
    check_ready,
    environment_of,
    find_asked,
    make_job,
    read_subject,
    router_counts,
)
from tritier.cli.load_show import show_plan, show_prepared, show_result, summary
from tritier.cli.monitor import parse_duration_s
from tritier.cli.output import progress, say, show_json
from tritier.cli.ranges import DataOption, ImagesOption, LimitOption, PreprocessingOption
from tritier.documents.load import UNKNOWN_PLAN, LoadResult, LoadShape
from tritier.errors import CheckFailed, InputError, UsageError
from tritier.files import replaced_dir, write_document_file, write_file
from tritier.repository import Repositories

_WEB_PORT = 8089


def load_command(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Triton model that apps call, as it is served.")
    ],
    repos: Annotated[
        Path, typer.Option("--repos", help="Folder that `tritier generate` wrote, of that model.")
    ],
    model_file: Annotated[
        Path | None,
        typer.Option("--model", help="The whole ONNX model to compare with; from the pool."),
    ] = None,
    url: EntryUrlOption = None,
    servers: Annotated[
        Path | None,
        typer.Option("--servers", help="The servers file: address and certificates of the entry."),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option("--tls-ca", help="TLS with --url: certificates of authorities.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", help="Mutual TLS: certificate of the client.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", help="Mutual TLS: file of its private key.")
    ] = None,
    tls_server_name: Annotated[
        str | None, typer.Option("--tls-server-name", help="Name in the server's certificate.")
    ] = None,
    shape: Annotated[
        LoadShape, typer.Option("--shape", help="How the number of users changes.")
    ] = "constant",
    users: Annotated[
        str,
        typer.Option(
            "--users",
            metavar="N",
            help="N, LOW:HIGH (steps double), LOW:HIGH:STEP or a list A,B,C.",
        ),
    ] = "1",
    duration: Annotated[
        str, typer.Option("--duration", metavar="TIME", help="Of the whole test: 60s, 5m ...")
    ] = "60s",
    request_class: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="NAME=WEIGHT",
            help="Request class of the router and how often it is asked, a whole number; may be "
            "repeated.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", min=1, help="Number of random inputs; 5 if left out."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of inputs and of their order.")] = 0,
    images: ImagesOption = None,
    preprocessing: PreprocessingOption = None,
    data: DataOption = None,
    limit: LimitOption = None,
    dim: DimOption = None,
    timeout_ms: Annotated[
        int, typer.Option("--timeout-ms", min=1, help="A request that takes longer has failed.")
    ] = 30_000,
    pause_ms: Annotated[
        float, typer.Option("--pause-ms", min=0, help="Of a user after each answer.")
    ] = 0.0,
    max_failures: Annotated[
        float,
        typer.Option(
            "--max-failures", min=0, max=1, help="Share of requests that may fail, 0 to 1."
        ),
    ] = 0.0,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes on this machine that ask; 1 if left out."),
    ] = None,
    expect_workers: Annotated[
        int,
        typer.Option(
            "--expect-workers", metavar="N", min=0, help="Wait for N workers on other machines."
        ),
    ] = 0,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ADDRESS", help="Where those workers reach this one.")
    ] = LOOPBACK,
    master_host: Annotated[
        str | None,
        typer.Option(
            "--master-host",
            metavar="HOST",
            help="Only be workers of the test that another machine leads.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help="Of the master, for other machines: 5557."),
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="Locust's web page, on 127.0.0.1.")] = False,
    web_port: Annotated[
        int | None,
        typer.Option("--web-port", min=1, max=65535, help="Of that page; 8089 if left out."),
    ] = None,
    prepare: Annotated[
        Path | None,
        typer.Option("--prepare", help="Only write a folder for Locust and say how to start it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where to write the result.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option("--samples", help="Where to write each request, as CSV.")
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Put users on a deployed model: each asks again when it is answered, and compares the answer.

    What the whole model answers is computed before, by ONNX Runtime; every answer must be within
    the tolerance of the manifest. Shapes: constant; steps (each number of users for the same
    time); spike (LOW, HIGH for a fifth of the time, LOW); ramp (from LOW to HIGH). Percentiles are
    exact, from every request. Exit code 1 if an answer is wrong or more than --max-failures fail.

    \b
    Examples:
        tritier load espcn_x3 --repos repos/ --shape steps --users 1:16 --duration 60s -o load.json
        tritier load yolo --repos repos/ --servers servers.yaml --users 8 --workers 2 \\
            --class critical=1 --class low=4 --images photos/ --preprocessing yolo
    """
    check_locust()
    _check_outputs([output, samples], force)
    levels = levels_of(shape, parse_users(users), parse_duration_s(duration, "--duration"))
    if web_port is not None and not web:
        raise UsageError("--web-port: is that of --web; give --web or leave it out")
    if prepare is not None and (output or samples or json):
        raise UsageError("--prepare measures nothing: leave out -o, --samples and --json")
    page = (web_port or _WEB_PORT) if web else None
    how = _processes(workers, expect_workers, bind, port, master_host, page)
    if master_host is not None and (output or samples or web or json):
        raise UsageError("--master-host: the result is on that machine; leave out -o, --samples, "
                         "--web and --json")  # fmt: skip
    place = workspace(context)
    repositories = Repositories.open(repos)
    tls = Tls(tls_ca, tls_cert, tls_key, tls_server_name)
    asked = find_asked(place, repositories, model, url, servers, tls)
    classes = parse_classes(request_class)
    check_classes(repositories, asked, classes)
    options = InputOptions(count, seed, images, preprocessing, data, limit, parse_dims(dim))
    with tempfile.TemporaryDirectory(prefix="tritier-load-") as name:
        scratch = Path(name)
        with progress("computing what the whole model answers"):
            subject = read_subject(place, repositories, model_file, options, scratch)
            job, questions = make_job(
                repositories, asked, subject, classes, (shape, levels), (seed, timeout_ms, pause_ms)
            )
        if dry_run:
            show_plan(job, how)
            return
        if prepare is not None:
            with replaced_dir(prepare, force) as fresh:
                write_job(fresh, job, questions)
            show_prepared(prepare, job, how)
            return
        result = _run(asked, job, questions, how, scratch / "run")
        if result is None:
            say("the master has ended the test; it has the result")
            return
        if samples is not None:
            write_file(samples, (scratch / "run" / SAMPLES_NAME).read_bytes())
    if output is not None:
        write_document_file(output, result.to_json(), force)
    if json:
        show_json(jsonlib.loads(result.to_json()))
    else:
        show_result(result)
    _judge(result, max_failures, web)


def _run(
    asked: Asked, job: LoadJob, questions: Questions, how: Processes, folder: Path
) -> LoadResult | None:
    check_ready(asked)
    write_job(folder, job, questions)
    environment = environment_of(asked)
    before = router_counts(asked, job)
    if how.web_port is not None:
        say(f"web page: http://{LOOPBACK}:{how.web_port} (Ctrl-C ends the test and shows figures)")
    with progress(f"load test of '{job.model}' at {job.url}") as report:
        result = LoadProcesses(folder, job, how, report).run()
    if result is None:
        return None
    answered = result.answered_by
    if set(answered) == {UNKNOWN_PLAN} and before:  # the router counts what answers don't say
        after = router_counts(asked, job)
        counted = {plan: after.get(plan, 0) - n for plan, n in before.items()}
        answered = {plan: n for plan, n in counted.items() if n > 0} or answered
    return result.model_copy(update={"environment": environment, "answered_by": answered})


def _judge(result: LoadResult, max_failures: float, web: bool) -> None:
    """Say how it went; raise if it went wrong."""
    if result.wrong:
        raise CheckFailed(
            f"{result.wrong} of {result.requests} answers are not those of the whole model: "
            f"{summary(result)}"
        )
    if not result.requests and not result.interrupted:
        raise CheckFailed("no request was sent: give --duration more than a moment")
    if result.failure_share > max_failures:
        raise CheckFailed(
            f"{result.failure_share:.2%} of all requests failed, allowed are {max_failures:.2%} "
            f"(--max-failures): {summary(result)}"
        )
    if any("is not counted" in warning for warning in result.warnings):
        raise CheckFailed("not all workers asked the same: start them with the same options")
    say(summary(result))
    if result.interrupted and not web:
        say("the test was interrupted: figures are of what there was until then")
        raise KeyboardInterrupt


def parse_classes(items: Sequence[str] | None) -> dict[str, int]:
    """`NAME=WEIGHT` options; raises UsageError."""
    found: dict[str, int] = {}
    for item in items or ():
        name, equals, weight = item.partition("=")
        if not name or not equals or not weight.isdigit() or not 1 <= int(weight) <= 1000:
            raise UsageError(f"--class {item}: allowed is NAME=WEIGHT, a whole number of 1 to 1000")
        if name in found:
            raise UsageError(f"--class {name}: stands twice; give each class once")
        found[name] = int(weight)
    return found


def _processes(
    workers: int | None,
    expect: int,
    bind: str,
    port: int | None,
    master: str | None,
    web_port: int | None,
) -> Processes:
    if master is not None:
        if expect or workers == 0:
            raise UsageError("--master-host: needs --workers of 1 or more, and no --expect-workers")
        return Processes(workers or 1, 0, LOOPBACK, port or MASTER_PORT, master)
    if bind != LOOPBACK and not expect:
        raise UsageError(f"--bind {bind}: is for --expect-workers; give it or leave --bind out")
    if workers == 0 and not expect:
        raise UsageError("--workers 0: nobody would ask; give --expect-workers for other machines")
    if expect and bind == LOOPBACK:
        say(f"WARNING: --bind is {LOOPBACK}: workers of other machines can't reach this one")
    # A machine that leads others asks nothing itself, unless it is told to.
    own = workers if workers is not None else 0 if expect else 1
    return Processes(own, expect, bind, port or (MASTER_PORT if expect else 0), None, web_port)


def _check_outputs(paths: Sequence[Path | None], force: bool) -> None:
    """Before a long test rather than after it."""
    for path in paths:
        if path is not None and path.exists() and not force:
            raise InputError(f"{path} exists: choose another name or pass --force to replace it")
