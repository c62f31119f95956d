"""`tritier servers check`."""

from __future__ import annotations

import json as jsonlib
import shlex
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DryRunFlag,
    JsonFlag,
    ServersOption,
    load_servers,
    named_servers,
    workspace,
)
from tritier.cli.output import progress, say, show_json, show_table, show_text
from tritier.deployment.security import peer_credentials, protected, server_options
from tritier.deployment.versions import warnings_of
from tritier.documents import NetworkState, ServerState
from tritier.errors import CheckFailed
from tritier.files import write_file
from tritier.network.contact import DEFAULT_TIMEOUT_S, contact_all
from tritier.network.registry import Merged, merge, server_urls

servers_app = typer.Typer(
    help="The servers of a servers file: whether they can do what Tritier needs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@servers_app.command("check")
def check(
    context: typer.Context,
    servers: ServersOption,
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The network state, which is updated or made."),
    ] = Path("network.json"),
    no_agent: Annotated[
        bool, typer.Option("--no-agent", help="Load nothing: ask for what Triton itself tells.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout-s", min=0.1, max=600, help="What each call may take, in seconds."),
    ] = DEFAULT_TIMEOUT_S,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Contact every server and write down what it is: Triton, processor, memory, clock, power.

    The facts of the host come from an agent that is loaded for a moment through model control.
    Exit code 1 if a server can't be reached, is not ready or lacks what Tritier needs.

    \b
    Example:
        tritier servers check --servers servers.yaml -o network.json
    """
    spec = load_servers(servers)
    previous = NetworkState.load(output) if output.exists() else NetworkState()
    lab = workspace(context).running_lab()
    urls = server_urls(spec, lab)
    if dry_run:
        for name, url in urls.items():
            say(f"would contact '{name}' at {url}{'' if no_agent else ' and load the agent there'}")
        say(f"would write {output}")
        return
    with progress(f"contacting {len(urls)} servers") as report:
        contacts = contact_all(urls, timeout_s, not no_agent, report)
    merged = merge(previous, spec, contacts)
    write_file(output, merged.state.to_json())
    _say_changes(merged, output)
    found = {s.name: s.triton.version for s in merged.state.servers if s.triton is not None}
    for warning in warnings_of(found, lab.urls if lab else ()):
        say(f"WARNING: {warning}")
    if json:
        show_json(jsonlib.loads(merged.state.to_json()))
    else:
        _show(merged.state)
    if bad := [server.name for server in merged.state.servers if server.problems]:
        raise CheckFailed(f"{len(bad)} of {len(urls)} servers have problems: {', '.join(bad)}")


@servers_app.command("flags")
def flags(
    servers: ServersOption,
    server: Annotated[str, typer.Option("--server", metavar="NAME", help="Which server.")],
    peers_file: Annotated[
        Path | None,
        typer.Option("--peers-file", help="Write the file that TRITIER_TLS is to name there."),
    ] = None,
) -> None:
    """Print the options of tritonserver that protect a server as the servers file says.

    The key of the administrative APIs is not among them: @KEY@ stands for it, and the command that
    is printed puts it in without showing it to other users.

    \b
    Example:
        tritier servers flags --servers servers.yaml --server edge --peers-file edge_tls.json
    """
    spec = load_servers(servers)
    named_servers(spec, [server])
    security = spec.security_of(server)
    options = server_options(server, security)
    content = peer_credentials({name: spec.security_of(name) for name in spec.names}, server)
    if content is not None and peers_file is None:
        say("other servers are called with TLS: pass --peers-file for what TRITIER_TLS must name")
    elif content is not None and peers_file is not None:
        write_file(peers_file, content)
        say(f"wrote {peers_file}: start the server with TRITIER_TLS={peers_file.absolute()}")
    show_text(shlex.join(protected(["tritonserver", *options], security, python="python3")))


def _say_changes(merged: Merged, output: Path) -> None:
    for old, new in merged.renamed:
        say(f"'{old}' is called '{new}' now")
    for name in merged.joined:
        say(f"'{name}' joined")
    for name in merged.left:
        say(f"'{name}' left: it is not in the servers file any more")
    say(f"wrote {output}")


def _show(state: NetworkState) -> None:
    show_table(
        "servers",
        [
            "server", "id", "url", "state", "Triton", "cores", "free / total MiB", "providers",
            "clock ms", "problems", "warnings",
        ],
        [_row(server) for server in state.servers],
    )  # fmt: skip
    found = [
        (server.name, kind, text)
        for server in state.servers
        for kind, texts in (("problem", server.problems), ("warning", server.warnings))
        for text in texts
    ]
    if found:
        show_table("problems and warnings", ["server", "kind", "what"], found)


def _row(server: ServerState) -> tuple[object, ...]:
    host, clock = server.host, server.clock_offset_ms
    return (
        server.name,
        server.id,
        server.url,
        server.state.replace("_", " "),
        server.triton.version if server.triton else "?",
        host.cores if host else "?",
        _memory(host.memory_available_bytes, host.memory_total_bytes) if host else "?",
        " ".join(x.removesuffix("ExecutionProvider") for x in host.providers) if host else "?",
        f"{clock.value:+.1f}" if clock else "?",
        len(server.problems),
        len(server.warnings),
    )


def _memory(available_bytes: int, total_bytes: int) -> str:
    return f"{available_bytes / 2**20:,.0f} / {total_bytes / 2**20:,.0f}"
