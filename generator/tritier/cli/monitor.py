"""`tritier monitor`."""

from __future__ import annotations

import json as jsonlib
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import DryRunFlag, JsonFlag, load_servers, workspace
from tritier.cli.output import progress, say, show_json, show_table, show_text, size_text
from tritier.documents import Figure, LinkState, NetworkState, ServersSpec
from tritier.errors import ServerError, UsageError
from tritier.files import write_file
from tritier.network.changes import DEFAULT_THRESHOLD, find_changes
from tritier.network.metrics import DEFAULT_HOST, MonitorMetrics, served
from tritier.network.monitor import Pair, Round, all_pairs, measure_round
from tritier.network.registry import server_urls

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


@dataclass(frozen=True)
class _Job:
    """What one call of the command measures, and where it writes."""

    spec: ServersSpec
    urls: Mapping[str, str]
    pairs: Sequence[Pair]
    output: Path
    threshold: float
    json: bool


def monitor_command(
    context: typer.Context,
    servers: Annotated[Path, typer.Argument(metavar="SERVERS", help="The servers file.")],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="The network state, which is updated or made."),
    ] = Path("network.json"),
    every: Annotated[
        str | None,
        typer.Option("--every", metavar="TIME", help="Go on: a round each 30s, 5m, 1h ..."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help="End after N rounds.")
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option("--link", metavar="A:B", help="Only this link; may be repeated."),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option("--metrics-port", min=0, max=65535, help="Serve metrics for Prometheus."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option("--metrics-host", help="Where the metrics can be asked for.")
    ] = DEFAULT_HOST,
    change_threshold: Annotated[
        float,
        typer.Option("--change-threshold", min=0, help="Smallest share that is told as a change."),
    ] = DEFAULT_THRESHOLD,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Measure bandwidth and round trip of every link, from server to server, and write them down.

    An agent on each server, loaded for the time of a round, sends messages to those of the others
    as the proxies of a plan do. A link takes about 10 s, and is kept busy for a third of it; links
    are measured one after another. With --every rounds go on until Ctrl-C, changes are told and
    the file is updated after each round. Exit code 4 if a link could not be measured in the last
    round; its former figures stay.

    \b
    Examples:
        tritier monitor servers.yaml -o network.json
        tritier monitor servers.yaml --link device:edge --json
        tritier monitor servers.yaml --every 5m --metrics-port 9105
    """
    pause_s = None if every is None else parse_duration_s(every)
    spec = load_servers(servers)
    pairs = parse_links(link, spec)
    urls = server_urls(spec, workspace(context).running_lab())
    state = NetworkState.load(output) if output.exists() else NetworkState()
    if dry_run:
        for name in [x for x in spec.names if any(x in pair for pair in pairs)]:
            say(f"would load the agent on '{name}' at {urls[name]}")
        for source, target in pairs:
            say(f"would measure {source} -> {target}")
        say(f"would write {output}")
        return
    job = _Job(spec, urls, pairs, output, change_threshold, json)
    limit = rounds or (None if every else 1)
    failed = _run(job, state, pause_s or 0.0, limit, (metrics_port, metrics_host))
    if failed:
        raise ServerError(failed)


def parse_duration_s(text: str, option: str = "--every") -> float:
    """Seconds of a text like 500ms, 30s, 5m or 1h; raises UsageError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(
            f"{option} {text}: allowed is a number above 0 with a unit: 500ms, 30s, 5m, 1h"
        )
    return float(match[1]) * _UNITS_S[match[2]]


def parse_links(items: Sequence[str] | None, spec: ServersSpec) -> list[Pair]:
    """`A:B` options as pairs, all pairs of servers without any; raises UsageError."""
    known = all_pairs(spec)
    if not known:
        raise UsageError("the servers file has one server: a link needs two")
    pairs = []
    for item in items or ():
        source, _, target = item.partition(":")
        if (source, target) not in known:
            raise UsageError(
                f"--link {item}: allowed is A:B with two different servers of "
                f"{', '.join(spec.names)}"
            )
        pairs.append((source, target))
    return list(dict.fromkeys(pairs)) or known


def link_rows(state: NetworkState, pairs: Sequence[Pair], spec: ServersSpec) -> list[list[str]]:
    """Rows of the table: figures with intervals, and beside them what servers.yaml sets."""
    set_of = {(x.source, x.target): x for x in spec.links}
    rows = []
    for source, target in pairs:
        link = state.link(source, target)
        if link is None:
            continue
        given, back = set_of.get((source, target)), set_of.get((target, source))
        trip = (given.latency_ms if given else 0) + (back.latency_ms if back else 0)
        rows.append(
            [
                f"{source} -> {target}",
                _interval(link.bandwidth_mib_s),
                _against(link.bandwidth_mib_s, given.bandwidth_mib_s if given else None),
                _interval(link.round_trip_ms),
                _against(link.round_trip_ms, trip or None),
                f"{link.call_ms.value:.2f}",
                f"{link.copy_ms_per_mib.value:.2f}",
                _idle(link),
                f"{link.bandwidth_mib_s.n}/{link.round_trip_ms.n}/{link.call_ms.n}",
            ]
        )
    return rows


def _run(
    job: _Job,
    state: NetworkState,
    pause_s: float,
    limit: int | None,
    metrics: tuple[int | None, str],
) -> str:
    """Do rounds; returns what failed in the last one."""
    failed = ""
    with ExitStack() as stack:
        shown = MonitorMetrics()
        if metrics[0] is not None:
            port = stack.enter_context(served(shown, metrics[0], metrics[1]))
            say(f"metrics at http://{metrics[1]}:{port}/metrics")
        done = 0
        try:
            while True:
                started_s = time.monotonic()
                found = _one_round(job, state, continuous=limit != 1)
                shown.update(found.state, [(x.source, x.target) for x in found.failures])
                state, done = found.state, done + 1
                failed = "\n".join(f"{x.source} -> {x.target}: {x.reason}" for x in found.failures)
                if done == limit:
                    return failed
                if failed:
                    say(f"not measured:\n{failed}")
                time.sleep(max(0.0, pause_s - (time.monotonic() - started_s)))
        except KeyboardInterrupt:
            if limit == 1:
                raise
            said = f"the state of the last one is in {job.output}" if done else "nothing is written"
            say(f"ended after {done} rounds; {said}")
            return ""


def _one_round(job: _Job, before: NetworkState, continuous: bool) -> Round:
    """Measure, write, show."""
    with progress(f"measuring links ({len(job.pairs)})") as report:
        found = measure_round(before, job.spec, job.urls, job.pairs, report)
    write_file(job.output, found.state.to_json())
    changes = find_changes(before, found.state, job.threshold)
    if continuous:
        for change in changes:
            if job.json:
                show_text(jsonlib.dumps(asdict(change), ensure_ascii=False))
            else:
                show_text(f"{time.strftime('%H:%M:%S')}  {change.text}")
        return found
    if job.json:
        show_json(jsonlib.loads(found.state.to_json()))
    else:
        _show(found, job.spec)
    say(f"measured {len(found.measured)} of {len(job.pairs)} links; written to {job.output}")
    return found


def _show(found: Round, spec: ServersSpec) -> None:
    show_table(
        "links (95 % intervals)",
        [
            "link",
            "MiB/s",
            "set",
            "round trip ms",
            "set",
            "per call ms",
            "per MiB ms",
            "after idle ms",
            "n",
        ],
        link_rows(found.state, found.measured, spec),
    )
    show_table(
        "servers",
        ["server", "state", "memory available", "power W"],
        [
            (
                server.name,
                server.state.replace("_", " "),
                size_text(server.host.memory_available_bytes) if server.host else "?",
                ", ".join(f"{p.what} {p.watt.value:.1f} ({p.watt.source})" for p in server.power)
                or "-",
            )
            for server in found.state.servers
        ],
    )


def _interval(figure: Figure) -> str:
    text = f"{figure.value:.4g}"
    return text if figure.low is None else f"{text} ({figure.low:.4g} - {figure.high:.4g})"


def _against(figure: Figure, given: float | None) -> str:
    if not given:
        return "-"
    return f"{given:.4g} ({100 * (figure.value / given - 1):+.1f} %)"


def _idle(link: LinkState) -> str:
    if link.after_idle_ms is None:
        return "-"
    return f"{link.after_idle_ms.value:.1f} of {size_text(link.after_idle_message_bytes)}"
