"""`tritier deploy` and `tritier undeploy`."""

from __future__ import annotations

import enum
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DimOption,
    DryRunFlag,
    ReposArgument,
    ServersOption,
    Workspace,
    load_servers,
    parse_dims,
    workspace,
)
from tritier.cli.output import progress, say
from tritier.deployment.addresses import Addresses, find_addresses
from tritier.deployment.deploy import deploy, undeploy
from tritier.deployment.lock import deployment_lock
from tritier.deployment.switch import Switched, SwitchOptions, has_router, switch
from tritier.deployment.versions import readable_warnings, version_warnings
from tritier.documents import LabState, ServersSpec
from tritier.errors import InputError, ServerError, UsageError
from tritier.repository import Repositories
from tritier.workflow import gather_inputs, model_of_plan
from tritier.workflow.live import LiveCheck


class Push(enum.StrEnum):
    """How models reach a server."""

    auto = "auto"
    always = "always"
    never = "never"


def deploy_command(
    context: typer.Context,
    repos: ReposArgument,
    servers: ServersOption,
    push: Annotated[
        Push,
        typer.Option(
            "--push",
            help="Send the bytes through model control: auto (to servers that don't see the "
            "folder), always, or never.",
        ),
    ] = Push.auto,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The whole ONNX model to check with; from the pool."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare answers before and after the switch."),
    ] = True,
    dim: DimOption = None,
    dry_run: DryRunFlag = False,
) -> None:
    """Load what was generated into its servers, in the order of dependency, and wait until ready.

    Servers must run with --model-control-mode=explicit. If a model fails to load, all that this
    command loaded is unloaded again.

    A folder of several plans with a router is deployed without downtime: beside what serves now,
    its answers compared with the whole model's, then the router is switched, and what only the old
    plans used is unloaded when their last request was answered. If anything fails before that, apps
    notice nothing. Where it is deployed already, its answers are checked and nothing is done.

    \b
    Example:
        tritier deploy repos/ --servers servers.yaml
    """
    repositories = Repositories.open(repos)
    lab, spec = workspace(context).running_lab(), load_servers(servers)
    addresses = find_addresses(repositories, spec, lab)
    routed = has_router(repositories)
    if not routed and (model is not None or not check or dim):
        raise UsageError(
            f"--model, --no-check and --dim are for folders with a router; {repos} is of one plan: "
            "check it with `tritier verify --live`"
        )
    if dry_run:
        for name in repositories.servers():
            for item in repositories.models_of(name):
                say(f"would load {item.name} into '{name}' at {addresses.urls[name]}")
        return
    title, plan = repositories.title, repositories.plan
    _warn({name: addresses.urls[name] for name in repositories.servers()}, lab)
    with deployment_lock(servers), progress(f"deploying {title}") as report:
        if routed:
            options = SwitchOptions(
                push=push.value,
                check=_check(workspace(context), repositories, model, dim) if check else None,
                metrics_url=entry_metrics(spec, lab),
                report=report,
            )
            done = switch(repositories, addresses, options)
        else:
            deploy(repositories, addresses, push.value, report)
            done = None
    if done is not None:
        _tell(done, check)
    _say_where(title, plan.model.name, addresses, plan.entry.name)


def _warn(urls: Mapping[str, str], lab: LabState | None) -> None:
    """Say what is wrong with the protection of these servers, before anything is sent to them."""
    for warning in readable_warnings(urls):
        say(f"WARNING: {warning}")
    for warning in version_warnings(urls, lab.urls if lab else ()):
        say(f"WARNING: {warning}")


def entry_metrics(spec: ServersSpec, lab: LabState | None) -> str | None:
    """host:port of the entry's metrics, if it is known."""
    name = spec.entry.name
    known = {server.name: server.metrics_url for server in lab.servers} if lab else {}
    return known.get(name) or spec.entry.metrics_url


def _check(
    workspace: Workspace, repositories: Repositories, model: Path | None, dim: list[str] | None
) -> LiveCheck:
    """Holds all that it needs: the file of the model may go."""
    with tempfile.TemporaryDirectory(prefix="tritier-") as scratch:
        try:
            loaded = model_of_plan(repositories.plan, model, workspace.pool, Path(scratch))
        except InputError as error:
            raise InputError(
                [f"{fault}; or deploy unchecked with --no-check" for fault in error.faults],
                error.source,
            ) from None
        inputs = gather_inputs(repositories.plan, 1, 0, dims=parse_dims(dim))
        return LiveCheck(repositories, loaded, inputs)


def _tell(done: Switched, checked: bool) -> None:
    for warning in done.warnings:
        say(f"warning: {warning}")
    answers = "answers right" if checked else "was not checked"
    if not done.changed:
        say(f"family {done.family} was deployed already and {answers}; nothing was done")
        return
    before = f"family {done.before}" if done.before else "nothing with a router"
    say(
        f"family {done.family} {answers}; {len(done.loaded)} models were loaded, "
        f"{len(done.unloaded)} old ones unloaded, in {done.took_s:.1f} s; before it was {before}"
    )


def _say_where(title: str, model: str, addresses: Addresses, entry: str) -> None:
    say(f"{title} is deployed: apps call model '{model}' at {addresses.urls[entry]} (gRPC)")


def undeploy_command(
    context: typer.Context,
    repos: ReposArgument,
    servers: ServersOption,
    dry_run: DryRunFlag = False,
) -> None:
    """Unload a plan from its servers, the entry first.

    \b
    Example:
        tritier undeploy repos/ --servers servers.yaml
    """
    repositories = Repositories.open(repos)
    lab = workspace(context).running_lab()
    addresses = find_addresses(repositories, load_servers(servers), lab)
    if dry_run:
        say(f"would unload {len(repositories.manifest.models)} models")
        return
    with deployment_lock(servers), progress(f"unloading {repositories.title}") as report:
        failures = undeploy(repositories, addresses, report)
    if failures:
        raise ServerError("\n".join(failures))
    say(f"{repositories.title} is unloaded")
