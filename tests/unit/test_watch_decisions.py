"""What `tritier watch` decides, and how it says so."""

from __future__ import annotations

import math

import pytest

from tritier.workflow.watch import Need, Offer, Seen, Watcher, WatchSettings, reasons


def test_a_gain_below_the_threshold_keeps_the_plan() -> None:
    verdict = Watcher(WatchSettings()).weigh(Offer("1a2b3c4d", 412, "5e6f7a8b", 430), 0)
    assert verdict.kind == "keep"
    assert verdict.text == (
        "plan 1a2b3c4d is predicted to take 412 ms, 5e6f7a8b, which is deployed, 430 ms: a gain of "
        "4.2 %, not above 10 %: no switch"
    )


def test_a_plan_that_cannot_work_is_left_for_any_other() -> None:
    verdict = Watcher(WatchSettings()).weigh(Offer("1a2b3c4d", 900, "5e6f7a8b", math.inf), 0)
    assert verdict.kind == "switch"
    assert "can't work now" in verdict.text


def test_within_the_hold_time_the_offer_waits() -> None:
    watcher = Watcher(WatchSettings(hold_s=10))
    watcher.switched("aaaaaaaa", "bbbbbbbb", 50, 100)
    verdict = watcher.weigh(Offer("cccccccc", 10, "bbbbbbbb", 50), 104)
    assert (verdict.kind, verdict.wait_s) == ("hold", 6)
    assert watcher.weigh(Offer("cccccccc", 10, "bbbbbbbb", 50), 110).kind == "switch"


def test_going_back_doubles_the_hold_time_and_calm_resets_it() -> None:
    watcher = Watcher(WatchSettings(hold_s=10))
    watcher.switched("a", "b", 50, 0)
    watcher.switched("b", "a", 50, 10)
    assert watcher.weigh(Offer("b", 10, "a", 50), 20).wait_s == pytest.approx(10)
    watcher.switched("a", "c", 50, 1000)
    assert watcher.weigh(Offer("b", 10, "c", 50), 1001).wait_s == pytest.approx(9)


def test_a_restarted_server_is_loaded_at_once_and_needs_no_plan() -> None:
    watcher = Watcher(WatchSettings())
    todo = watcher.see(Seen({"device": True, "edge": True}, missing={"device": 0, "edge": 3}))
    assert (todo.reconcile, todo.needs) == (("edge",), ())


def test_latency_far_off_the_prediction_is_told_once() -> None:
    watcher = Watcher(WatchSettings(), predicted_ms=100)
    slow = Seen({}, latency_ms=250, requests=40)
    found = [need.text for _ in range(5) for need in watcher.see(slow).needs]
    assert found == ["40 requests took 250 ms on average, 100 ms were predicted"]
    usual = Seen({}, latency_ms=110, requests=40)
    assert [n.kind for _ in range(3) for n in watcher.see(usual).needs] == ["latency"]


def test_few_requests_tell_nothing_of_latency() -> None:
    watcher = Watcher(WatchSettings(), predicted_ms=100)
    assert not any(watcher.see(Seen({}, latency_ms=900, requests=3)).needs for _ in range(5))


def test_links_of_a_lost_server_are_not_compared() -> None:
    watcher = Watcher(WatchSettings(confirm=1), {("a", "b"): 10.0})
    assert [n.kind for n in watcher.see(Seen({"b": False})).needs] == ["server_lost"]
    assert watcher.see(Seen({"b": False}, links_mib_s={("a", "b"): 0.1})).needs == ()


def test_a_suspect_is_the_next_to_be_probed() -> None:
    watcher = Watcher(WatchSettings(), {("a", "b"): 10.0, ("b", "a"): 10.0})
    watcher.see(Seen({}, links_mib_s={("b", "a"): 1.0}))
    assert watcher.suspects == (("b", "a"),)


def test_reasons_have_the_newest_word_on_each_subject() -> None:
    needs = [Need("link", "a -> b", "old"), Need("server_lost", "c", "gone"),
             Need("link", "a -> b", "new")]  # fmt: skip
    assert reasons(needs) == "new and gone"
