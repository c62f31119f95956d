"""`tritier watch`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tritier.cli.common import (
    DryRunFlag,
    JsonFlag,
    ReposArgument,
    ServersOption,
    Workspace,
    load_servers,
    workspace,
)
from tritier.cli.deploy import Push, entry_metrics
from tritier.cli.monitor import parse_duration_s
from tritier.cli.output import say, show_text
from tritier.cli.plan_solve import SolveOptions, planning_of
from tritier.deployment.switch import has_router
from tritier.documents import Classes, LabState, NetworkState, Ranges, WatchRecord
from tritier.errors import UsageError
from tritier.network.monitor import all_pairs
from tritier.network.registry import server_urls
from tritier.repository import Repositories
from tritier.workflow import model_of_plan
from tritier.workflow.family_classes import class_task
from tritier.workflow.watch import Watcher, WatchSettings
from tritier.workflow.watch_act import Actor, classes_of, with_alternatives
from tritier.workflow.watch_look import LinkProber, Looker
from tritier.workflow.watch_loop import WatchLoop
from tritier.workflow.watch_plan import Replanner, expected_figures

_DEFAULTS = WatchSettings()
_FOLDER = "watch"


def watch_command(
    context: typer.Context,
    repos: ReposArgument,
    servers: ServersOption,
    timing: Annotated[
        list[Path],
        typer.Option(
            "--timing", metavar="FILE-OR-FOLDER", help="Timing profiles, from `tritier profile`."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option("--model", help="The ONNX model; from the pool if left out.")
    ] = None,
    network: Annotated[
        Path | None, typer.Option("--network", help="Measured links, from `tritier monitor`.")
    ] = None,
    noise: Annotated[
        list[Path] | None, typer.Option("--noise", help="As of `tritier plan`.")
    ] = None,
    max_noise: Annotated[
        list[str] | None, typer.Option("--max-noise", help="As of `tritier plan`.")
    ] = None,
    unlimited_noise: Annotated[
        bool, typer.Option("--unlimited-noise", help="As of `tritier plan`.")
    ] = False,
    ranges: Annotated[Path | None, typer.Option("--ranges", help="As of `tritier plan`.")] = None,
    objective: Annotated[
        str, typer.Option("--objective", help="As of `tritier plan`.")
    ] = "latency",
    pin: Annotated[list[str] | None, typer.Option("--pin", help="As of `tritier plan`.")] = None,
    forbid: Annotated[
        list[str] | None, typer.Option("--forbid", help="As of `tritier plan`.")
    ] = None,
    keep_local: Annotated[
        list[str] | None, typer.Option("--keep-local", help="As of `tritier plan`.")
    ] = None,
    close_link: Annotated[
        list[str] | None, typer.Option("--close-link", help="As of `tritier plan`.")
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option("--classes", help="Classes file; as the folder has them if left out."),
    ] = None,
    time_limit: Annotated[
        float, typer.Option("--time-limit", metavar="S", min=0.1, help="Of a search.")
    ] = 10.0,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="Between two looks at the servers.")
    ] = "1s",
    links_every: Annotated[
        str, typer.Option("--links-every", metavar="TIME", help="Between probes of two links.")
    ] = "1s",
    no_links: Annotated[
        bool, typer.Option("--no-links", help="Load no agent and probe no link.")
    ] = False,
    min_gain: Annotated[
        float, typer.Option("--min-gain", min=0, max=1, help="Share of latency to be saved.")
    ] = _DEFAULTS.min_gain,
    hold_s: Annotated[
        float, typer.Option("--hold-s", min=10, help="Least time between two switches.")
    ] = _DEFAULTS.hold_s,
    link_factor: Annotated[
        float, typer.Option("--link-factor", min=1.05, help="What counts as another bandwidth.")
    ] = _DEFAULTS.link_factor,
    latency_factor: Annotated[
        float, typer.Option("--latency-factor", min=1.05, help="What counts as mispredicted.")
    ] = _DEFAULTS.latency_factor,
    log: Annotated[
        Path | None,
        typer.Option("--log", help="Decisions, JSON lines; in the workspace if left out."),
    ] = None,
    push: Annotated[Push, typer.Option("--push", help="As of `tritier deploy`.")] = Push.auto,
    once: Annotated[bool, typer.Option("--once", help="One look at everything, then end.")] = False,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
) -> None:
    """Keep the best plans deployed: load what a restarted server lacks, plan again when servers or
    links change, and switch without downtime where that gains enough.

    REPOS is a generated folder with a router (`tritier plan --alternatives`). It is deployed first,
    unless it is already. Then every server is looked at each second, and one link probed, for which
    an agent is loaded. Each decision is told in a sentence and written to the log. Ctrl-C ends it;
    what serves then stays. With --dry-run nothing but the agent is loaded; --no-links does without.

    \b
    Examples:
        tritier watch repos/ --servers servers.yaml --timing profiles/ --network network.json
        tritier watch repos/ --servers servers.yaml --timing profiles/ --once --dry-run
    """
    options = SolveOptions(
        timing=tuple(timing), network=network, noise=tuple(noise or ()),
        max_noise=tuple(max_noise or ()), unlimited_noise=unlimited_noise, objective=objective,
        pin=tuple(pin or ()), forbid=tuple(forbid or ()), keep_local=tuple(keep_local or ()),
        close_link=tuple(close_link or ()), time_limit=time_limit, explain=False,
    )  # fmt: skip
    settings = WatchSettings(
        link_factor=link_factor, latency_factor=latency_factor, min_gain=min_gain, hold_s=hold_s,
        confirm=1 if once else _DEFAULTS.confirm,
    )  # fmt: skip
    repositories = Repositories.open(repos)
    if not has_router(repositories):
        raise UsageError(
            f"{repos} is of one plan without a router, which can't be changed without downtime: "
            "make a family with `tritier plan --alternatives` and generate that"
        )
    own = workspace(context)
    with tempfile.TemporaryDirectory(prefix="tritier-") as scratch:
        spec, lab = load_servers(servers), _lab(own)
        actor = Actor(
            repositories, servers, spec, lab,
            model_of_plan(repositories.plan, model, own.pool, Path(scratch)),
            own.folder / "watch", push.value, entry_metrics(spec, lab), own.pool,
        )  # fmt: skip
        tell = Teller(log or own.folder / "watch" / "decisions.jsonl", json)
        replanner = _replanner(actor, options, classes, ranges)
        links_every_s = parse_duration_s(links_every, "--links-every")
        pace = _Pace(parse_duration_s(every), links_every_s, once, dry_run)
        _watch(actor, replanner, settings, pace, tell, not no_links)


@dataclass(frozen=True)
class _Pace:
    """How often to look and to probe a link, and whether anything is done at all."""

    every_s: float
    links_every_s: float
    once: bool
    dry_run: bool


class Teller:
    """Shows decisions and appends them to the log."""

    def __init__(self, path: Path, json: bool) -> None:
        self.path, self._json = path, json
        path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, record: WatchRecord) -> None:
        """One decision."""
        line = record.to_line()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line)
        if self._json:
            show_text(line.rstrip())
        else:
            took = "" if record.took_s is None else f" ({record.took_s:.1f} s)"
            show_text(f"{time.strftime('%H:%M:%S')}  {record.event:<10}  {record.text}{took}")


def _lab(own: Workspace) -> LabState | None:
    """The lab if any of its servers runs: the others may have died, and come back."""
    state = own.lab.state()
    if state is None or not any(own.lab.is_running(x.process) for x in state.servers):
        return None
    return state


def _watch(
    actor: Actor,
    replanner: Replanner,
    settings: WatchSettings,
    pace: _Pace,
    tell: Teller,
    with_links: bool,
) -> None:
    urls = server_urls(actor.spec, actor.lab)
    planned = set(replanner.request.planned_servers)
    pairs = [pair for pair in all_pairs(actor.spec) if with_links and planned >= {*pair}]
    network = replanner.request.network or NetworkState()
    watcher = Watcher(settings, expected_figures(network, pairs), actor.predicted_ms())
    prober = LinkProber(urls, pairs, pace.links_every_s, lambda: watcher.suspects)
    looker = Looker(urls, prober.round if pace.once else prober.news)
    loop = WatchLoop(watcher, looker, replanner, actor, network, tell, pace.dry_run)
    try:
        if not pace.dry_run:
            loop.begin()
        if pace.once:
            loop.once()
        else:
            prober.start()
            loop.run(pace.every_s)
    except KeyboardInterrupt:
        say(f"ended; decisions are in {tell.path}")
    finally:
        prober.stop()


def _replanner(
    actor: Actor, options: SolveOptions, classes: Path | None, ranges: Path | None
) -> Replanner:
    """Plans the default class; the others are planned when a family is made."""
    measured = None if ranges is None else Ranges.load(ranges)
    request, goals = planning_of(actor.model, actor.spec, measured, options)
    family = actor.repositories.family
    assert family is not None
    chosen = Classes.load(classes) if classes else classes_of(family)
    actor.make_family = with_alternatives(chosen, request, goals)
    actor.dims = {name: size for x in request.timings.values() for name, size in x.dims.items()}
    name = chosen.default_class
    task = class_task(name, chosen.classes[name], request, goals, can_measure=False)
    return Replanner(task.request, task.goals, family.model.name)
