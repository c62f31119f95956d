"""`tritier export compose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DryRunFlag,
    ForceFlag,
    JsonFlag,
    ReposArgument,
    ServersOption,
    require_file,
)
from tritier.cli.export import DEFAULT_IMAGE, ImageOption, tiers_of
from tritier.cli.output import say, show_json
from tritier.documents import NetworkState
from tritier.export.compose import RESERVED, compose_files
from tritier.export.compose_services import SECRETS, ComposeOptions, secret_files
from tritier.export.write import refuse_output, write_export


def compose_command(
    repos: ReposArgument,
    servers: ServersOption,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to fill; nothing else belongs in it.")
    ],
    image: ImageOption = DEFAULT_IMAGE,
    shm_mib: Annotated[
        int,
        typer.Option("--shm-mib", min=64, help="Shared memory of each container, MiB."),
    ] = ComposeOptions.shm_mib,
    network: Annotated[
        Path | None,
        typer.Option("--network", help="Measured links (network.json) to emulate on demand."),
    ] = None,
    force: ForceFlag = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Write a folder with which Docker Compose runs all servers of a plan on one machine.

    It holds the repositories, which the servers load when they start, Prometheus and Grafana. No
    certificate and no key is copied: what belongs into its folder `secrets` is told.

    \b
    Example:
        tritier export compose repos/ --servers servers.yaml -o compose/
    """
    tiers = tiers_of(repos, servers, image, RESERVED)
    state = NetworkState.load(require_file(network, "a network state")) if network else None
    files, copies = compose_files(tiers, ComposeOptions(shm_mib, state))
    if dry_run:
        refuse_output(tiers, output, force)
    else:
        write_export("compose", tiers, files, output, force, copies, kept=[SECRETS])
    names = sorted([*files, *copies])
    say(f"{'would write' if dry_run else 'wrote'} {len(names) + 1} files to {output}")
    for item in secret_files(tiers):
        say(f"put {item.origin} into {output / SECRETS / item.name}")
    if json:
        show_json({"files": names})
