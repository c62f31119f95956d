"""Decisions of `tritier watch`, whatever it sees: hold times, gains, no flapping."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.examples import examples
from tritier.workflow.watch import Offer, Seen, Watcher, WatchSettings

PLANS = ("aaaaaaaa", "bbbbbbbb", "cccccccc")
times_ms = st.floats(1, 1e4) | st.just(math.inf)
# (seconds since the last, plan, its ms, the deployed plan's ms)
offers = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(PLANS), st.floats(1, 1e4), times_ms), max_size=60
)
choices = st.builds(
    WatchSettings, min_gain=st.floats(0, 0.9), hold_s=st.floats(0.1, 60), confirm=st.integers(1, 4)
)


@given(choices, offers)
def test_switches_keep_the_hold_time_and_gain(
    chosen: WatchSettings, found: list[tuple[float, str, float, float]]
) -> None:
    watcher, now_s, deployed = Watcher(chosen), 0.0, PLANS[0]
    switched_s: list[float] = []
    for pause_s, plan, plan_ms, deployed_ms in found:
        now_s += pause_s
        offer = Offer(plan, plan_ms, deployed, deployed_ms)
        verdict = watcher.weigh(offer, now_s)
        if verdict.kind == "switch":
            assert plan != deployed
            assert plan_ms < (1 - chosen.min_gain) * deployed_ms
            assert not switched_s or now_s - switched_s[-1] >= chosen.hold_s * (1 - 1e-9)
            watcher.switched(deployed, plan, plan_ms, now_s)
            switched_s.append(now_s)
            deployed = plan
        elif verdict.kind == "hold":
            # When it is asked again after that time, the same offer is taken.
            assert watcher.weigh(offer, now_s + verdict.wait_s + 1e-6).kind == "switch"
        else:
            assert plan == deployed or offer.gain <= chosen.min_gain


@settings(max_examples=examples(10))
@given(st.floats(0.5, 5), st.integers(2, 3))
def test_what_swings_for_ever_is_followed_less_and_less(pause_s: float, plans: int) -> None:
    """Each plan is by far the best in its turn; the length of the watch is 10,000 s."""
    watcher, deployed, count, now_s = Watcher(WatchSettings()), PLANS[0], 0, 0.0
    turn = 0
    while now_s < 10_000:
        best = PLANS[turn % plans]
        offer = Offer(best, 10, deployed, 10 if best == deployed else 1000)
        if watcher.weigh(offer, now_s).kind == "switch":
            watcher.switched(deployed, best, 10, now_s)
            deployed, count = best, count + 1
        now_s, turn = now_s + pause_s, turn + 1
    # Without the growing hold time there would be up to 1,000; it ends at 640 s.
    assert count <= 26


@given(
    st.integers(1, 4),
    st.lists(st.floats(0.7, 1.4), min_size=1, max_size=40),
)
def test_a_link_that_swings_within_the_factor_calls_for_nothing(
    confirm: int, figures: list[float]
) -> None:
    watcher = Watcher(WatchSettings(link_factor=2.1, confirm=confirm), {("a", "b"): 10.0})
    for figure in figures:
        seen = Seen({"a": True, "b": True}, links_mib_s={("a", "b"): 10 * figure})
        assert watcher.see(seen).needs == ()


@given(st.integers(1, 5), st.floats(2.0, 1e3), st.booleans(), st.integers(6, 30))
def test_a_step_calls_for_one_plan(confirm: int, factor: float, falls: bool, looks: int) -> None:
    watcher = Watcher(WatchSettings(confirm=confirm), {("a", "b"): 10.0})
    figure = 10 / factor if falls else 10 * factor
    needs = [
        need
        for _ in range(looks)
        for need in watcher.see(Seen({}, links_mib_s={("a", "b"): figure})).needs
    ]
    assert [need.subject for need in needs] == ["a -> b"]
    assert ("fell" if falls else "rose") in needs[0].text


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 4))
def test_servers_are_lost_and_join_in_turns(answers: list[bool], confirm: int) -> None:
    watcher = Watcher(WatchSettings(confirm=confirm))
    kinds = [need.kind for x in answers for need in watcher.see(Seen({"a": x})).needs]
    assert kinds == ["server_lost", "server_joined"] * (len(kinds) // 2) + ["server_lost"] * (
        len(kinds) % 2
    )
    runs = "".join("x" if x else "." for x in answers)
    assert bool(kinds) == ("." * confirm in runs)
