"""`tritier lab link`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tritier.cli.common import JsonFlag, workspace
from tritier.cli.output import show_json, show_table
from tritier.deployment.lab_links import links_now, restore_link, set_link
from tritier.errors import CheckFailed, UsageError


def link_command(
    context: typer.Context,
    source: Annotated[str | None, typer.Argument(metavar="[FROM]", help="A server.")] = None,
    target: Annotated[str | None, typer.Argument(metavar="[TO]", help="Another server.")] = None,
    bandwidth_mib_s: Annotated[
        float | None, typer.Option("--bandwidth-mib-s", help="MiB/s from FROM to TO.")
    ] = None,
    latency_ms: Annotated[
        float | None, typer.Option("--latency-ms", help="One way, from FROM to TO.")
    ] = None,
    black_hole: Annotated[
        bool, typer.Option("--black-hole", help="Bytes stop, both ways; connections stay.")
    ] = False,
    cut: Annotated[
        bool, typer.Option("--cut", help="Connections are reset, both ways, and new ones too.")
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="As in the servers file again, both ways.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Change an emulated link of the running lab, or show all.

    \b
    Example:
        tritier lab link device edge --bandwidth-mib-s 0.5
        tritier lab link device edge --restore
    """
    state = workspace(context).lab.state()
    if state is None:
        raise CheckFailed(
            "no lab is up in this workspace: start one with `tritier lab up --servers FILE`"
        )
    changes = _changes(bandwidth_mib_s, latency_ms, black_hole, cut)
    if source is None or target is None:
        if source is not None or changes or restore:
            raise UsageError("a change needs two servers: tritier lab link FROM TO ...")
    elif restore == bool(changes):
        raise UsageError(
            "give either --restore or one or more of --bandwidth-mib-s, --latency-ms, --black-hole "
            "and --cut"
        )
    elif restore:
        restore_link(state, source, target)
    else:
        set_link(state, source, target, **changes)
    rows = [
        {"link": item.name, "bandwidth_mib_s": item.bandwidth_mib_s}
        | {"latency_ms": item.latency_ms, "state": item.state}
        for item in links_now(state)
    ]
    if json:
        show_json({"links": rows})
    else:
        show_table(
            "links",
            ["link", "MiB/s", "ms one way", "state"],
            [
                (r["link"], r["bandwidth_mib_s"] or "unlimited", r["latency_ms"], r["state"])
                for r in rows
            ],
        )


def _changes(
    bandwidth_mib_s: float | None, latency_ms: float | None, black_hole: bool, cut: bool
) -> dict[str, Any]:
    if black_hole and cut:
        raise UsageError("a link is either a --black-hole or --cut")
    wanted = {
        "bandwidth_mib_s": bandwidth_mib_s,
        "latency_ms": latency_ms,
        "state": "black_hole" if black_hole else "cut" if cut else None,
    }
    return {key: value for key, value in wanted.items() if value is not None}
