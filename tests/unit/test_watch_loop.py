"""The loop of `tritier watch` with scripted looks, searches and deployments."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, cast

from tritier.deployment.switch import Cancelled, Switched
from tritier.documents import NetworkState, WatchRecord
from tritier.errors import ServerError
from tritier.workflow.watch import Offer, Seen, Watcher, WatchSettings
from tritier.workflow.watch_loop import WatchLoop
from tritier.workflow.watch_plan import Found


class Entry:
    """Stands for folder, plan and server: it has the names that the loop asks for."""

    name = id = "first"
    title = "family first"
    plans = ("p",)

    @property
    def plan(self) -> Entry:
        return self

    entry = plan


class FakeActor:
    """Deploys what it is told, or fails, or waits until it is cancelled."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.repositories = Entry()
        self.spec = None
        self.switched: list[str] = []
        self.reconciled: list[str] = []
        self.failure = failure
        self.waits = False

    def wanted(self) -> dict[str, frozenset[str]]:
        return {}

    def measured_model(self) -> str:
        return "m"

    def deployed_plans(self) -> list[None]:
        return [None]

    def reconcile(self, names: Sequence[str]) -> list[str]:
        if self.failure:
            raise self.failure
        self.reconciled += names
        return ["edge/m"]

    def switch(self, planned: Any, cancelled: Any) -> Switched:
        if self.waits:
            waiting = threading.Event()
            while not cancelled():
                waiting.wait(0.01)
        if cancelled():
            raise Cancelled("given up")
        if self.failure:
            raise self.failure
        self.switched.append(planned)
        return Switched("next", "first", ("a",), ("b",), True, (), 0.1)


class FakeSearch:
    """Finds a plan for each call; the first waits until `go`."""

    def __init__(self, go: threading.Event) -> None:
        self.go, self.calls = go, 0

    def find(self, _network: Any, absent: frozenset[str], _deployed: Any) -> Found:
        self.calls += 1
        if self.calls == 1:
            assert self.go.wait(5)
        plan = f"without {','.join(sorted(absent))}"
        return Found(cast(Any, plan), Offer(plan, 10, "first", 100))


class Script:
    """Looks that are given."""

    def __init__(self, *looks: Seen) -> None:
        self.looks = list(looks)

    def look(self, *_: object) -> Seen:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


def loop_of(actor: FakeActor, search: FakeSearch, *looks: Seen) -> tuple[WatchLoop, list[Any]]:
    told: list[WatchRecord] = []
    watcher = Watcher(WatchSettings(confirm=1))
    made = WatchLoop(
        watcher, cast(Any, Script(*looks)), cast(Any, search), cast(Any, actor), NetworkState(),
        told.append,
    )  # fmt: skip
    return made, told


def run_until(loop: WatchLoop, told: list[Any], event: str, text: str = "") -> None:
    pause = threading.Event()
    for _ in range(300):
        loop.step()
        if any(x.event == event and text in x.text for x in told):
            return
        pause.wait(0.01)
    raise AssertionError([f"{x.event}: {x.text}" for x in told])


def test_a_newer_need_supersedes_the_search_under_way() -> None:
    go, actor = threading.Event(), FakeActor()
    looks = [Seen({"a": False, "b": True}), Seen({"a": False, "b": False})]
    loop, told = loop_of(actor, FakeSearch(go), *looks)
    loop.step()
    loop.step()
    go.set()
    run_until(loop, told, "switch", "serves")
    loop.close()
    assert actor.switched == ["without a,b"]
    assert [x.event for x in told] == ["change", "change", "superseded", "switch", "switch"]
    assert "'a' did not answer" in told[2].text
    assert "'a'" in told[3].text
    assert "'b'" in told[3].text


def test_a_newer_need_gives_up_a_deployment_before_its_switch() -> None:
    go, actor = threading.Event(), FakeActor()
    go.set()
    actor.waits = True
    loop, told = loop_of(actor, FakeSearch(go), Seen({"a": False, "b": True}))
    run_until(loop, told, "switch")
    cast(Any, loop)._looker.looks = [Seen({"a": False, "b": False})]
    run_until(loop, told, "superseded")
    actor.waits = False
    run_until(loop, told, "switch", "serves")
    loop.close()
    assert actor.switched == ["without a,b"]


def test_a_failed_switch_is_told_and_the_loop_goes_on() -> None:
    go, actor = threading.Event(), FakeActor(ServerError("edge is full"))
    go.set()
    loop, told = loop_of(actor, FakeSearch(go), Seen({"a": False}))
    run_until(loop, told, "failed", "edge is full")
    loop.close()
    assert "what serves stays" in told[-1].text


def test_what_can_not_be_loaded_is_told_once() -> None:
    actor = FakeActor(ServerError("no room"))
    loop, told = loop_of(actor, FakeSearch(threading.Event()), Seen({"a": True}, {"a": 2}))
    for _ in range(5):
        loop.step()
    actor.failure = None
    loop.step()
    loop.close()
    assert [x.event for x in told] == ["failed", "reconciled"]
    assert actor.reconciled == ["a"]


def test_ending_gives_up_a_search() -> None:
    go, actor = threading.Event(), FakeActor()
    loop, _ = loop_of(actor, FakeSearch(go), Seen({"a": False}))
    loop.step()
    threading.Timer(0.05, go.set).start()
    loop.close()
    assert actor.switched == []
