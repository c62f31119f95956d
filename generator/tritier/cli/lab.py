"""`tritier lab up | status | down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tritier.cli.common import DryRunFlag, JsonFlag, ServersOption, load_servers, workspace
from tritier.cli.output import progress, say, show_json, show_table
from tritier.deployment.access import lab_addresses
from tritier.deployment.client import TritonServer
from tritier.deployment.lab import Lab
from tritier.deployment.links import relay_pairs
from tritier.deployment.security import LabProtection, possible_protection
from tritier.documents import LabServer, LabState, Security
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
    tls: Annotated[
        bool, typer.Option("--tls", help="TLS, with certificates made for this lab alone.")
    ] = False,
    mutual_tls: Annotated[
        bool, typer.Option("--mutual-tls", help="TLS, and clients need certificates too.")
    ] = False,
    no_admin_key: Annotated[
        bool,
        typer.Option("--no-admin-key", help="Let everybody load models, read statistics, ..."),
    ] = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Start one embedded Triton per server on 127.0.0.1 and return when all are live.

    The servers go on running until `tritier lab down`. Links with a bandwidth or latency in the
    servers file are emulated; apps and deployment reach the servers past the emulation. Model
    control and the like need a key that is made anew each time and that all commands find by
    themselves; inferences need none. Where this machine forbids what hides the key (ptrace), the
    lab runs without one and says so.

    \b
    Examples:
        tritier lab up --servers servers.yaml --repos repos/
        tritier lab up --servers servers.yaml --mutual-tls
    """
    spec = load_servers(servers)
    if dry_run:
        say(f"would start {len(spec.servers)} servers and {len(relay_pairs(spec))} emulated links")
        return
    with progress("starting the lab") as report:
        wanted = LabProtection(tls, mutual_tls, not no_admin_key)
        protection, warning = possible_protection(spec, wanted)
        state = workspace(context).lab.up(spec, repos, report, protection)
    if warning:
        say(f"WARNING: {warning}")
    if json:
        show_json(state.model_dump(mode="json"))
    else:
        _show_started(state)


def _show_started(state: LabState) -> None:
    show_table(
        "lab",
        ["server", "gRPC", "protection", "HTTP", "metrics", "pid", "log"],
        [
            (
                s.name, s.grpc_url, _protection(s.security), s.http_url or "off", s.metrics_url,
                s.process.pid, s.log_file,
            )
            for s in state.servers
        ],
    )  # fmt: skip
    if security := next((s.security for s in state.servers if s.security.tls), None):
        cert = f", {security.client_cert}, {security.client_key}" if security.mutual else ""
        say(f"apps need TLS with {security.ca}{cert}")


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
    addresses = lab_addresses(state)
    rows = [
        _status(server, addresses[server.name], lab.is_running(server.process))
        for server in state.servers
    ]
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


@lab_app.command("restart")
def restart(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A server of the lab.")],
) -> None:
    """Start a server of the lab again, empty, on its ports; it may have died or still run.

    \b
    Example:
        tritier lab restart edge
    """
    with progress(f"restarting {name}") as report:
        workspace(context).lab.restart(name, report)
    say(f"server '{name}' is live, and nothing is loaded in it: `tritier deploy` loads it")


def _protection(security: Security) -> str:
    found = ["mutual TLS" if security.mutual else "TLS"] if security.tls else []
    return " + ".join(found + ["admin key"] * security.restricted) or "none"


def _status(server: LabServer, url: str, running: bool) -> dict[str, Any]:
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
        with TritonServer(server.name, url) as client:
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
