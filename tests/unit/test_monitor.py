"""Changes between states of the network, metrics, and the options and table of the monitor."""

from __future__ import annotations

import urllib.request

import pytest

from tritier.cli.monitor import link_rows, parse_duration_s, parse_links
from tritier.documents import Figure, LinkState, NetworkState, ServersSpec, ServerState
from tritier.errors import ServerError, UsageError
from tritier.network import monitor
from tritier.network.agent import Agent
from tritier.network.changes import find_changes
from tritier.network.contact import Contact
from tritier.network.metrics import MonitorMetrics, served

NAMES = ("device", "edge", "cloud")
SPEC = ServersSpec.from_data(
    {
        "servers": [{"name": name, "tier": name, "entry": name == "device"} for name in NAMES],
        "links": [
            {"from": "device", "to": "edge", "bandwidth_mib_s": 20.0, "latency_ms": 4.0},
            {"from": "edge", "to": "device", "latency_ms": 6.0},
        ],
    }
)


def figure(value: float, spread: float = 0.02) -> Figure:
    return Figure(value=value, low=value * (1 - spread), high=value * (1 + spread), n=20)


def link(source: str, target: str, mib_s: float = 20.0, trip_ms: float = 10.0) -> LinkState:
    return LinkState.model_validate(
        {
            "from": source,
            "to": target,
            "measured_at": "2026-01-02T03:04:05Z",
            "bandwidth_mib_s": figure(mib_s),
            "round_trip_ms": figure(trip_ms),
            "call_ms": figure(2.0),
            "copy_ms_per_mib": figure(1.0),
            "after_idle_ms": figure(3.0),
            "after_idle_message_bytes": 4096,
        }
    )


def server(name: str, state: str = "ready") -> ServerState:
    data = {"name": name, "id": name.encode().hex()[:8], "url": "h:1", "state": state}
    data["checked_at"] = "2026-01-02T03:04:05Z"
    return ServerState.model_validate(data)


def state(*links: LinkState, servers: tuple[ServerState, ...] | None = None) -> NetworkState:
    known = servers if servers is not None else tuple(server(name) for name in NAMES)
    return NetworkState(servers=known, links=links)


class TestChanges:
    def test_the_same_state_has_none(self) -> None:
        both = state(link("device", "edge"))
        assert find_changes(both, both) == []

    def test_a_large_clear_change_is_told(self) -> None:
        changes = find_changes(
            state(link("device", "edge")), state(link("device", "edge", mib_s=15.0))
        )
        assert [change.text for change in changes] == [
            "device -> edge: bandwidth_mib_s 20 -> 15 MiB/s (-25 %)"
        ]
        assert (changes[0].before, changes[0].after) == (20.0, 15.0)

    def test_a_change_below_the_threshold_is_not(self) -> None:
        before, after = state(link("device", "edge")), state(link("device", "edge", mib_s=18.5))
        assert find_changes(before, after, 0.1) == []
        assert len(find_changes(before, after, 0.05)) == 1

    def test_a_change_within_the_intervals_is_not(self) -> None:
        after = link("device", "edge").model_copy(update={"bandwidth_mib_s": figure(15.0, 0.4)})
        assert find_changes(state(link("device", "edge")), state(after)) == []

    def test_a_figure_without_interval_is_a_point(self) -> None:
        after = link("device", "edge").model_copy(update={"round_trip_ms": Figure(value=20.0)})
        texts = [x.text for x in find_changes(state(link("device", "edge")), state(after))]
        assert texts == ["device -> edge: round_trip_ms 10 -> 20 ms (+100 %)"]

    def test_a_tiny_round_trip_may_double(self) -> None:
        before = state(link("device", "edge", trip_ms=0.2))
        assert find_changes(before, state(link("device", "edge", trip_ms=0.4))) == []

    def test_what_was_zero_has_no_share(self) -> None:
        before, after = link("device", "edge", trip_ms=0.0), link("device", "edge", trip_ms=3.0)
        assert [x.text for x in find_changes(state(before), state(after))] == [
            "device -> edge: round_trip_ms 0 -> 3 ms"
        ]

    def test_servers_and_links_come_and_go(self) -> None:
        before = state(link("device", "edge"), servers=(server("device"), server("edge")))
        after = state(
            link("device", "cloud"),
            servers=(server("device", "unreachable"), server("cloud", "not_ready")),
        )
        found = {(x.subject, x.what) for x in find_changes(before, after)}
        assert found == {
            ("device", "state"),
            ("cloud", "appeared"),
            ("edge", "vanished"),
            ("device -> cloud", "appeared"),
            ("device -> edge", "vanished"),
        }


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("500ms", 0.5), ("1h", 3600), ("1.5s", 1.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "0s", "5 min", "1e3s", "nans"])
def test_bad_durations_say_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="500ms, 30s, 5m, 1h"):
        parse_duration_s(text)


def test_links_are_pairs_of_known_servers() -> None:
    assert len(parse_links(None, SPEC)) == 6
    assert parse_links(["edge:cloud", "edge:cloud"], SPEC) == [("edge", "cloud")]
    for bad in ("edge", "edge:edge", "edge:moon", ":", "edge:cloud:device"):
        with pytest.raises(UsageError, match="allowed is A:B"):
            parse_links([bad], SPEC)


def test_the_table_compares_with_what_is_set() -> None:
    known = state(link("device", "edge", mib_s=19.0, trip_ms=11.0), link("edge", "cloud"))
    first, second = link_rows(known, [("device", "edge"), ("edge", "cloud")], SPEC)
    assert first == [
        "device -> edge",
        "19 (18.62 - 19.38)",
        "20 (-5.0 %)",
        "11 (10.78 - 11.22)",
        "10 (+10.0 %)",
        "2.00",
        "1.00",
        "3.0 of 4096 B",
        "20/20/20",
    ]
    assert second[2] == second[4] == "-"
    assert link_rows(known, [("cloud", "edge")], SPEC) == []


class TestRounds:
    """`measure_round` with servers that are not there."""

    def test_a_link_that_fails_keeps_its_figures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        contacts = {n: Contact("h:1", "2026-01-02T03:04:05Z", "unreachable") for n in NAMES}
        monkeypatch.setattr(monitor, "contact_all", lambda *_: contacts)
        before = state(link("device", "edge", mib_s=7.0))
        urls = dict.fromkeys(NAMES, "127.0.0.1:1")
        found = monitor.measure_round(before, SPEC, urls, [("device", "edge")])
        assert found.measured == ()
        assert [(x.source, x.target, x.reason) for x in found.failures] == [
            ("device", "edge", "server 'device' can't be reached")
        ]
        assert found.state.links == before.links
        assert {x.state for x in found.state.servers} == {"unreachable"}

    def test_a_source_that_does_not_reach_itself_is_measured(self) -> None:
        class Lonely:
            def ping_ns(self, peer: str, repeats: int) -> list[int]:
                raise ServerError(f"{peer} {repeats}")

        agent: Agent = Lonely()  # type: ignore[assignment]
        assert monitor._own_pings_ms(agent, "edge", 0.0) == []


class TestMetrics:
    def test_they_are_served_and_forget_what_is_gone(self) -> None:
        metrics = MonitorMetrics()
        metrics.update(state(link("device", "edge"), link("edge", "device")), [("edge", "cloud")])
        metrics.update(state(link("device", "edge", mib_s=12.5)))
        with served(metrics, 0) as port:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
            with pytest.raises(UsageError, match=f"--metrics-port {port}"), served(metrics, port):
                pass
        ends = '{source="device",target="edge"}'
        assert f"tritier_link_bandwidth_mib_per_second{ends} 12.5" in lines
        assert 'tritier_server_up{server="cloud"} 1.0' in lines
        assert "tritier_monitor_rounds_total 2.0" in lines
        failures = 'tritier_monitor_link_failures_total{source="edge",target="cloud"} 1.0'
        assert failures in lines
        assert not any("_bandwidth_" in x and 'source="edge"' in x for x in lines)
        age = next(x for x in lines if x.startswith("tritier_link_age_seconds{"))
        assert float(age.split()[-1]) > 1e6
