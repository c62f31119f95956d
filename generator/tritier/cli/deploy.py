"""`tritier deploy` and `tritier undeploy`."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from tritier.cli.common import DryRunFlag, ReposArgument, ServersOption, load_servers, workspace
from tritier.cli.output import progress, say
from tritier.deployment.deploy import deploy, find_addresses, undeploy
from tritier.errors import ServerError
from tritier.repository import Repositories


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
    dry_run: DryRunFlag = False,
) -> None:
    """Load a generated plan into its servers, in the order of dependency, and wait until ready.

    Servers must run with --model-control-mode=explicit. If a model fails to load, all that this
    command loaded is unloaded again.

    \b
    Example:
        tritier deploy repos/ --servers servers.yaml
    """
    repositories = Repositories.open(repos)
    lab = workspace(context).running_lab()
    addresses = find_addresses(repositories, load_servers(servers), lab)
    plan = repositories.plan
    if dry_run:
        for name in repositories.servers():
            for model in repositories.models_of(name):
                say(f"would load {model.name} into '{name}' at {addresses.urls[name]}")
        return
    with progress(f"deploying plan {plan.id}") as report:
        deploy(repositories, addresses, push.value, report)
    say(
        f"plan {plan.id} is deployed: apps call model '{plan.model.name}' at "
        f"{addresses.urls[plan.entry.name]} (gRPC)"
    )


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
    with progress(f"unloading plan {repositories.plan.id}") as report:
        failures = undeploy(repositories, addresses, report)
    if failures:
        raise ServerError("\n".join(failures))
    say(f"plan {repositories.plan.id} is unloaded")
