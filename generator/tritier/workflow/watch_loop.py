"""The loop of `tritier watch`: look, decide, plan again, switch; every step is told.

Looking goes on while a plan is looked for or deployed. A newer need gives up the search under way,
and a deployment that has not come to its switch yet.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tritier.deployment.switch import Cancelled
from tritier.documents import NetworkState, WatchRecord
from tritier.errors import TritierError
from tritier.network.contact import timestamp
from tritier.workflow.watch import Need, Pair, Watcher, reasons
from tritier.workflow.watch_act import Actor
from tritier.workflow.watch_look import Looker
from tritier.workflow.watch_plan import Found, Replanner, with_bandwidths

Tell = Callable[[WatchRecord], None]


@dataclass
class _Job:
    """A search or a deployment in the background, for some needs."""

    what: str
    future: Future[Any]
    cancel: threading.Event
    needs: tuple[Need, ...]
    found: Found | None = None
    started_s: float = field(default_factory=time.monotonic)


class WatchLoop:
    """One watch. With `dry_run` nothing is loaded or switched, only told."""

    def __init__(
        self,
        watcher: Watcher,
        looker: Looker,
        replanner: Replanner,
        actor: Actor,
        network: NetworkState,
        tell: Tell,
        dry_run: bool = False,
    ) -> None:
        self._watcher, self._looker, self._replanner = watcher, looker, replanner
        self._actor, self._network, self._tell_record = actor, network, tell
        self._dry_run = dry_run
        self._links: dict[Pair, float] = {}
        self._changed: set[Pair] = set()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="watch")
        self._job: _Job | None = None
        self._pending: tuple[Need, ...] = ()
        self._not_before_s = 0.0
        self._started_s = time.monotonic()
        self._failed_servers: dict[str, str] = {}

    def begin(self) -> None:
        """Deploy what is to be watched, or check it; where that fails, watching may still help."""
        started = time.monotonic()
        try:
            if self._actor.adopt():
                self._watcher.expect(self._actor.predicted_ms())
                self._tell("started", "an earlier watch has deployed this family: going on with it")
                return
            done = self._actor.deploy()
        except TritierError as error:
            self._tell("failed", f"{self._actor.repositories.title} can't be deployed: {error}")
            return
        what = "was deployed" if done.changed else "was deployed already"
        text = f"{self._actor.repositories.title} {what} and answers right"
        self._tell("started", text, took_s=time.monotonic() - started)

    def run(self, interval_s: float, stop: Callable[[], bool] = lambda: False) -> None:
        """Until `stop` says so or KeyboardInterrupt comes; then what is under way is ended."""
        plans = len(self._actor.repositories.plans)
        what = f"{plans} plan{'' if plans == 1 else 's'}, a look every {interval_s:g} s"
        self._tell("started", f"watching {self._actor.repositories.title}: {what}")
        try:
            while not stop():
                next_s = time.monotonic() + interval_s
                self.step()
                time.sleep(max(0.0, next_s - time.monotonic()))
        finally:
            self.close()
            self._tell("ended", f"{self._actor.repositories.title} stays deployed")

    def once(self) -> None:
        """One look, and what follows from it, to its end."""
        self.step()
        while self._job is not None:
            with suppress(Exception):  # which is told by `step`
                self._job.future.result()
            self._advance()
        self.close()

    def close(self) -> None:
        """Give up a search, wait for a deployment that can't be given up any more."""
        self._pending = ()
        if self._job is not None:
            self._job.cancel.set()
        self._executor.shutdown(wait=True)
        self._advance()

    def step(self) -> None:
        """One look and what follows from it."""
        self._advance()
        actor = self._actor
        entry = actor.repositories.plan.entry.name
        seen = self._looker.look(actor.wanted(), entry, actor.measured_model())
        self._links |= seen.links_mib_s
        todo = self._watcher.see(seen)
        deploying = self._job is not None and self._job.what == "switch"
        if todo.reconcile and not deploying:
            self._reconcile(todo.reconcile)
        if todo.needs:
            self._need(todo.needs)
        self._advance()

    # -- needs and jobs -----------------------------------------------------------------------

    def _need(self, needs: tuple[Need, ...]) -> None:
        for need in needs:
            self._tell("change", f"{need.text}: looking for a plan", subject=need.subject)
            if need.kind == "link":
                source, _, target = need.subject.partition(" -> ")
                self._changed.add((source, target))
        if self._job is not None:
            self._job.cancel.set()
            needs = (*self._job.needs, *needs)
            if not self._job.future.done():
                text = f"given up what was begun for: {reasons(self._job.needs)}"
                self._tell("superseded", text)
        self._pending = (*self._pending, *needs)
        self._not_before_s = 0.0

    def _advance(self) -> None:
        """Take up what is done, begin what is due."""
        job = self._job
        if job is not None and job.future.done():
            self._job = None
            self._take_up(job)
        if self._job is None and self._pending and time.monotonic() >= self._not_before_s:
            needs, self._pending = self._pending, ()
            self._begin_search(needs)

    def _begin_search(self, needs: tuple[Need, ...]) -> None:
        actor, absent = self._actor, self._watcher.absent
        changed = {pair: self._links[pair] for pair in self._changed if pair in self._links}
        network = with_bandwidths(self._network, actor.spec, changed)
        deployed = actor.deployed_plans()
        future = self._executor.submit(self._replanner.find, network, absent, deployed)
        self._job = _Job("search", future, threading.Event(), needs)

    def _take_up(self, job: _Job) -> None:
        try:
            result = job.future.result()
        except Cancelled:
            return  # which was told when it was given up
        except (TritierError, OSError) as error:
            what = "no plan was found" if job.what == "search" else "the switch failed"
            self._tell("failed", f"{reasons(job.needs)}: {what}, what serves stays: {error}",
                       took_s=time.monotonic() - job.started_s)  # fmt: skip
            return
        if job.what == "search":
            if not job.cancel.is_set():
                self._weigh(job, result)
        else:
            self._switched(job, result)

    def _weigh(self, job: _Job, found: Found) -> None:
        offer = found.offer
        verdict = self._watcher.weigh(offer, time.monotonic())
        finite = offer.deployed_ms if offer.deployed_ms < float("inf") else None
        more = {"offered": offer.plan, "offered_ms": offer.plan_ms, "deployed_ms": finite}
        text = f"{reasons(job.needs)}: {verdict.text}"
        took_s = time.monotonic() - job.started_s
        if verdict.kind == "hold":
            self._tell("hold", text, took_s=took_s, **more)
            self._pending = (*job.needs, *self._pending)
            self._not_before_s = time.monotonic() + verdict.wait_s
        elif verdict.kind == "keep" or self._dry_run:
            said = text.replace(": switching", ": would switch")
            self._tell("keep", said, took_s=took_s, **more)
        else:
            self._tell("switch", text, took_s=took_s, **more)
            cancel = threading.Event()
            future = self._executor.submit(self._actor.switch, found.planned, cancel.is_set)
            self._job = _Job("switch", future, cancel, job.needs, found)

    def _switched(self, job: _Job, done: Any) -> None:
        assert job.found is not None
        offer = job.found.offer
        self._watcher.switched(offer.deployed, offer.plan, offer.plan_ms, time.monotonic())
        for warning in done.warnings:
            self._tell("failed", f"after the switch: {warning}")
        text = (
            f"plan {offer.plan} serves: {len(done.loaded)} models were loaded, "
            f"{len(done.unloaded)} old ones unloaded"
        )
        self._tell("switch", text, offered=offer.plan, took_s=time.monotonic() - job.started_s)

    # -- restarted servers --------------------------------------------------------------------

    def _reconcile(self, names: tuple[str, ...]) -> None:
        if self._dry_run:
            if names != tuple(self._failed_servers):
                self._tell("reconciled", f"would load what {', '.join(names)} lacks")
                self._failed_servers = dict.fromkeys(names, "")
            return
        started = time.monotonic()
        for name in names:
            try:
                loaded = self._actor.reconcile([name])
            except TritierError as error:
                if self._failed_servers.get(name) != str(error):  # once, not at each look
                    self._failed_servers[name] = str(error)
                    text = f"server '{name}' lacks models and can't load them: {error}"
                    self._tell("failed", text, subject=name)
                continue
            self._failed_servers.pop(name, None)
            self._tell(
                "reconciled",
                f"server '{name}' lacked {len(loaded)} models, as after a restart: they are loaded",
                subject=name,
                took_s=time.monotonic() - started,
            )

    def _tell(self, event: Any, text: str, **more: Any) -> None:
        self._tell_record(
            WatchRecord(
                at=timestamp(),
                since_start_s=time.monotonic() - self._started_s,
                event=event,
                text=text,
                deployed=self._actor.repositories.id,
                **more,
            )
        )
