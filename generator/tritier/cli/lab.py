"""`tritier lab up | status | down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tritier.cli.common import DryRunFlag, JsonFlag, ServersOption, load_servers, workspace
from tritier.cli.output import progress, say, show_json, show_table
from tritier.deployment.client import TritonServer
from tritier.deployment.lab import Lab
from tritier.deployment.links import relay_pairs
from tritier.documents import LabServer, LabState
from tritier.errors import CheckFailed, ServerError

lab_app = typer.Typer(
    help="A lab: one real Triton per server on this machine, with emulated links.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@lab_app.command("up")
def up(
    context: typer.Context,
    servers: ServersOption,
    repos: Annotated[
        Path | None,
        typer.Option("--repos", help="Folder that `tritier generate` wrote; models can be pushed."),
    ] = None,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Start one embedded Triton per server on 127.0.0.1 and return when all are live.

    The servers go on running until `tritier lab down`. Links with a bandwidth or latency in the
    servers file are emulated; apps and deployment reach the servers past the emulation.

    \b
    Example:
        tritier lab up --servers servers.yaml --repos repos/
    """
    spec = load_servers(servers)
    if dry_run:
        say(f"would start {len(spec.servers)} servers and {len(relay_pairs(spec))} emulated links")
        return
    with progress("starting the lab") as report:
        state = workspace(context).lab.up(spec, repos, report)
    if json:
        show_json(state.model_dump(mode="json"))
        return
    show_table(
        "lab",
        ["server", "gRPC", "HTTP", "metrics", "pid", "log"],
        [
            (s.name, s.grpc_url, s.http_url, s.metrics_url, s.process.pid, s.log_file)
            for s in state.servers
        ],
    )


@lab_app.command("status")
def status(context: typer.Context, json: JsonFlag = False) -> None:
    """Show whether the servers of the lab run and what they serve. Exit code 1 if one does not.

    \b
    Example:
        tritier lab status
    """
    lab = workspace(context).lab
    state = lab.state()
    if state is None:
        raise CheckFailed(
            "no lab is up in this workspace: start one with `tritier lab up --servers FILE`"
        )
    rows = [_status(server, lab.is_running(server.process)) for server in state.servers]
    relay = _relay_status(lab, state)
    if json:
        show_json({"servers": rows, "relay": relay})
    else:
        show_table(
            "lab",
            ["server", "state", "gRPC", "models ready", "models not ready", "log"],
            [
                (
                    r["name"],
                    r["state"],
                    r["grpc_url"],
                    len(r["ready"]),
                    len(r["not_ready"]),
                    r["log"],
                )
                for r in rows
            ],
        )
        say(f"relay: {relay}")
    if any(row["state"] != "live" for row in rows) or relay == "ended":
        raise CheckFailed("part of the lab does not run: `tritier lab down`, then up again")


@lab_app.command("down")
def down(context: typer.Context) -> None:
    """Stop all servers and links of the lab.

    \b
    Example:
        tritier lab down
    """
    with progress("stopping the lab") as report:
        was_up = workspace(context).lab.down(report)
    say("the lab is down" if was_up else "no lab was up in this workspace")


def _status(server: LabServer, running: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": server.name,
        "pid": server.process.pid,
        "grpc_url": server.grpc_url,
        "log": server.log_file,
        "state": "ended",
        "ready": [],
        "not_ready": [],
    }
    if not running:
        return row
    try:
        with TritonServer(server.name, server.grpc_url) as client:
            index = client.index()
    except ServerError:
        return {**row, "state": "does not answer"}
    loaded = {name: state for name, state in index.items() if state}
    return {
        **row,
        "state": "live",
        "ready": sorted(name for name, state in loaded.items() if state == "READY"),
        "not_ready": sorted(name for name, state in loaded.items() if state != "READY"),
    }


def _relay_status(lab: Lab, state: LabState) -> str:
    if state.relay is None:
        return "none, no link is emulated"
    return "running" if lab.is_running(state.relay) else "ended"
