"""`tritier pool list | gc`."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from tritier.cli.common import DryRunFlag, JsonFlag, workspace
from tritier.cli.output import say, show_json, show_table, size_text

pool_app = typer.Typer(
    help="The local store of models, sub-models, plans and profiles.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@pool_app.command("list")
def list_command(context: typer.Context, json: JsonFlag = False) -> None:
    """Show what the pool holds.

    \b
    Example:
        tritier pool list
    """
    entries = workspace(context).pool.entries()
    if json:
        show_json([entry.model_dump(mode="json") for entry in entries])
        return
    show_table(
        "model pool",
        ["kind", "name", "sha256", "size", "last used (UTC)"],
        [(e.kind, e.name, e.sha256[:12], size_text(e.bytes), _when(e.used_at)) for e in entries],
    )


@pool_app.command("gc")
def gc_command(
    context: typer.Context,
    unused_days: Annotated[
        float, typer.Option("--unused-days", min=0, help="Remove what was not used for so long.")
    ] = 30.0,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Remove entries that were not used for a while, and content that nothing names.

    \b
    Example:
        tritier pool gc --unused-days 7
    """
    garbage = workspace(context).pool.collect(unused_days, dry_run)
    if json:
        show_json(
            {
                "entries": [entry.model_dump(mode="json") for entry in garbage.entries],
                "objects": garbage.objects,
                "bytes": garbage.bytes,
            }
        )
    verb = "would remove" if dry_run else "removed"
    say(
        f"{verb} {len(garbage.entries)} entries and {garbage.objects} objects of "
        f"{size_text(garbage.bytes)}"
    )


def _when(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M")
