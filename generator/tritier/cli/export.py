"""`tritier export`: what its commands share. Each kind of export is a command of its own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import load_servers
from tritier.export import Tiers, read_tiers
from tritier.export.tiers import IMAGE
from tritier.repository import Repositories

export_app = typer.Typer(
    help="Files with which container engines run the servers of a plan.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ImageOption = Annotated[
    str, typer.Option("--image", help="Image of the servers, see docker/tritonserver.Dockerfile.")
]
DEFAULT_IMAGE = IMAGE


def tiers_of(repos: Path, servers: Path, image: str, reserved: Collection[str] = ()) -> Tiers:
    """The containers of what the command line names."""
    return read_tiers(Repositories.open(repos), load_servers(servers), image, reserved)
