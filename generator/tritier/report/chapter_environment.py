"""The chapters that say where figures are from: machines and programs, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable

import tritier
from tritier.documents import Figure, HostFacts
from tritier.documents.environment import Environment
from tritier.report.commands import (
    bench_command,
    compare_command,
    generate_commands,
    load_command,
    monitor_command,
    noise_command,
    plan_command,
    profile_commands,
    report_command,
)
from tritier.report.cost_commands import made_costs
from tritier.report.material import Material
from tritier.report.parts import (
    Block,
    Commands,
    Evidence,
    Facts,
    Missing,
    Section,
    Table,
    number,
    size,
    spanned,
    table,
)

_SHORT = 12


def environment_section(material: Material) -> Section:
    """Servers, links, hosts, and the machines of measurements."""
    blocks: list[Block] = [_servers(material)]
    missing = []
    if material.network is not None:
        blocks += _network(material)
    else:
        missing.append(Missing("what links were measured to do", monitor_command()))
    blocks += _measuring(material)
    return Section("environment", "Environment", tuple(blocks), missing=tuple(missing))


def _servers(material: Material) -> Table:
    hosts = _hosts(material)
    rows = []
    for server in material.plan.servers:
        host = hosts.get(server.name)
        rows.append((
            server.name + (" (entry)" if server.entry else ""),
            server.execution_provider,
            str(server.threads),
            str(server.instances),
            host.cpu_model if host else "",
            str(host.cores) if host else "",
            size(host.memory_total_bytes) if host else "",
            number(host.slowdown) if host and host.slowdown != 1 else "",
        ))  # fmt: skip
    return table(
        "servers", "Servers",
        ("server", "provider", "threads", "instances", "processor", "cores", "memory", "slow-down"),
        rows, Evidence("as said in the head", "configured; processor, cores and memory as the "
                       "server's machine says"),
    )  # fmt: skip


def _hosts(material: Material) -> dict[str, HostFacts]:
    found = {read.document.server: read.document.host for read in material.timing}
    for server in material.network.document.servers if material.network else ():
        if server.host is not None:
            found[server.name] = server.host
    return found


def _network(material: Material) -> Iterable[Table]:
    assert material.network is not None
    links = material.network.document.links
    if not links:
        return
    counts = [x.n for link in links for x in (link.bandwidth_mib_s, link.round_trip_ms) if x.n]
    sources = {x.source for link in links for x in (link.bandwidth_mib_s, link.round_trip_ms)}
    yield table(
        "links", "Links",
        ("from", "to", "bandwidth MiB/s", "round trip ms", "call ms", "copy ms/MiB", "as of"),
        [
            (x.source, x.target, _figure(x.bandwidth_mib_s), _figure(x.round_trip_ms),
             _figure(x.call_ms), _figure(x.copy_ms_per_mib), x.measured_at)
            for x in links
        ],
        Evidence("as said in the head", " and ".join(sorted(sources)),
                 spanned(counts, "messages") if counts else "not given",
                 "95 % interval, in brackets where it is known"),
    )  # fmt: skip


def _figure(figure: Figure) -> str:
    text = number(figure.value)
    if figure.low is not None and figure.high is not None:
        text += f" [{number(figure.low)}, {number(figure.high)}]"
    return text


def _measuring(material: Material) -> Iterable[Table]:
    runs = [(f"bench ({x.path.name})", x.document.environment) for x in material.bench]
    runs += [
        (f"load ({x.path.name})", environment)
        for x in material.load
        if (environment := x.document.environment)
    ]
    comparison = material.comparison
    if comparison and comparison.document.environment:
        runs.append((f"comparison ({comparison.path.name})", comparison.document.environment))
    if not runs:
        return
    yield table(
        "measured-on", "Machines that measured",
        ("measurement", "at", "processor", "cores", "memory", "platform", "Python", "tritier",
         "perf_analyzer", "Tritons", "load averages"),
        [(name, *_environment(item)) for name, item in runs],
        Evidence("as said in the head", "read from the machine at the start of the measurement"),
    )  # fmt: skip


def _environment(item: Environment) -> tuple[str, ...]:
    return (
        item.measured_at,
        item.processor,
        str(item.cores),
        size(item.memory_bytes) if item.memory_bytes else "unknown",
        item.platform,
        item.python,
        item.tritier,
        item.perf_analyzer or "",
        ", ".join(f"{name} {version}" for name, version in sorted(item.servers.items())),
        " ".join(f"{x:.2f}" for x in item.load_averages),
    )


def reproduce_section(material: Material, title: str | None) -> Section:
    """Commands, hashes and seeds: what one needs to make the same again."""
    plan = material.plan
    blocks: list[Block] = [
        Facts("identity", "What this is of", (
            ("Model", plan.model.name),
            ("SHA-256 of the model", plan.model.sha256),
            ("Plan", plan.id),
            *_family(material),
            *_seeds(material),
            ("Tritier", tritier.__version__),
        )),
        table("documents", "Files behind this report", ("what", "file", "SHA-256"),
              [(what, path.name, digest) for what, path, digest in material.documents]),
        Commands("make-commands", "To make these files again", tuple(_commands(material))),
        Commands("report-command", "This report", (report_command(material.paths, title),)),
    ]  # fmt: skip
    levels = [level.command for read in material.bench for level in read.document.levels]
    if levels:
        blocks.append(
            Commands("perf-analyzer", "perf_analyzer, level by level", tuple(dict.fromkeys(levels)))
        )
    return Section("reproduce", "How to reproduce", tuple(blocks))


def _family(material: Material) -> Iterable[tuple[str, str]]:
    if material.manifest is not None:
        yield "Generated by", f"tritier {material.manifest.tool_version}"


def _seeds(material: Material) -> Iterable[tuple[str, str]]:
    if material.noise is not None:
        yield "Seed of the noise model", str(material.noise.document.settings.seed)
    for read in material.bench:
        settings = read.document.settings
        inputs = settings.input
        if settings.input_sha256:
            inputs += f" (SHA-256 {settings.input_sha256[:_SHORT]}...)"
        yield f"Input of {read.path.name}", inputs


def _commands(material: Material) -> Iterable[str]:
    """Those of the parts that are there, in the order of the work."""
    paths = material.paths
    if paths.network:
        yield monitor_command(paths.network)
    yield from profile_commands(material)
    if paths.noise:
        yield noise_command(material, paths.noise)
    yield plan_command(material)
    yield from generate_commands(material)
    for read in material.bench:
        yield bench_command(material, read)
    for load in material.load:
        yield load_command(material, load)
    if paths.comparison:
        yield compare_command(material)
    yield from made_costs(material)
