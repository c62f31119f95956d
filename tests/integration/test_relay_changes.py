"""Links of a running relay that change: slower, stalled, cut, and as they were before."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_relay import TIMEOUT_S, free_port, in_thread, port_of, receive
from tritier.deployment import lab_links
from tritier.deployment.lab_links import links_now, restore_link, set_link
from tritier.deployment.process import start_ticks
from tritier.deployment.relay_config import RelayConfigError, load_changes, parse_config
from tritier.deployment.relay_link import MIB
from tritier.documents import LabProcess, LabState
from tritier.errors import InputError, ServerError


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


class Relay:
    """A relay of one pair of servers, as the lab starts it."""

    def __init__(self, folder: Path, target: socket.socket) -> None:
        self.port = free_port()
        self._target = target
        config = folder / "relay.json"
        config.write_text(json.dumps(_document(self.port, port_of(target))))
        command = [sys.executable, "-m", "tritier.deployment.relay", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        pid = self.process.pid
        (folder / "logs").mkdir()
        self.state = LabState(
            servers=(),
            relay=LabProcess(pid=pid, started_ticks=start_ticks(pid) or 0),
            relay_log_file=str(folder / "logs" / "relay.log"),
        )

    @contextlib.contextmanager
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """The two ends of a connection over the links."""
        with self.connect() as client, self._target.accept()[0] as server:
            server.settimeout(TIMEOUT_S)
            yield client, server

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT_S)

    def close(self) -> None:
        self.process.terminate()
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert (self.process.returncode, errors) == (0, b"")


def _document(listen_port: int, target_port: int) -> dict[str, Any]:
    relay = {"listen_port": listen_port, "target_port": target_port}
    return {
        "links": [
            {"name": "a->b", "bandwidth_mib_s": None, "latency_ms": 0},
            {"name": "b->a", "bandwidth_mib_s": None, "latency_ms": 0},
        ],
        "relays": [relay | {"forward_link": "a->b", "reverse_link": "b->a"}],
    }


@pytest.fixture
def relay(tmp_path: Path, target: socket.socket) -> Iterator[Relay]:
    started = Relay(tmp_path, target)
    try:
        yield started
    finally:
        started.close()


def test_a_black_hole_stops_both_ways_and_gives_back_what_it_swallowed(relay: Relay) -> None:
    with relay.pair() as (client, server):
        set_link(relay.state, "a", "b", state="black_hole")
        for sender, other in ((client, server), (server, client)):
            sender.sendall(b"lost?")
            other.settimeout(0.2)
            with pytest.raises(TimeoutError):
                other.recv(1)
            other.settimeout(TIMEOUT_S)
        restore_link(relay.state, "b", "a")
        assert receive(server, 5) == receive(client, 5) == b"lost?"


def test_a_cut_resets_connections_and_new_ones_until_it_ends(relay: Relay) -> None:
    with relay.pair() as (client, server):
        set_link(relay.state, "a", "b", state="cut")
        for end in (client, server):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        with pytest.raises(ConnectionResetError), relay.connect() as refused:
            refused.recv(1)
    set_link(relay.state, "a", "b", state="open")
    with relay.pair() as (client, server):
        client.sendall(b"again")
        assert receive(server, 5) == b"again"


def test_bandwidth_changes_under_an_open_connection(relay: Relay) -> None:
    with relay.pair() as (client, server):
        set_link(relay.state, "a", "b", bandwidth_mib_s=2)
        assert [link.bandwidth_mib_s for link in links_now(relay.state)] == [2, None]
        started_s = time.monotonic()
        sending = in_thread(client.sendall, bytes(MIB))
        receive(server, MIB // 2)
        assert time.monotonic() - started_s > 0.2
        restore_link(relay.state, "a", "b")
        assert len(receive(server, MIB // 2)) == MIB // 2
        sending.join(TIMEOUT_S)
        data = os.urandom(3 * MIB)
        in_thread(client.sendall, data)
        assert receive(server, len(data)) == data


def test_latency_that_shrinks_keeps_the_order(relay: Relay) -> None:
    with relay.pair() as (client, server):
        set_link(relay.state, "a", "b", latency_ms=300)
        client.sendall(b"first")
        time.sleep(0.05)
        restore_link(relay.state, "a", "b")
        client.sendall(b"second")
        assert receive(server, 11) == b"firstsecond"


def test_what_can_not_be_is_refused_and_changes_nothing(relay: Relay) -> None:
    with pytest.raises(InputError, match=r"no link a->c; it emulates a->b, b->a"):
        set_link(relay.state, "a", "c", state="cut")
    for bad in ({"bandwidth_mib_s": 0}, {"state": "broken"}, {"latency_ms": -1}):
        with pytest.raises(InputError, match="allowed"):
            set_link(relay.state, "a", "b", **bad)
    assert {link.state for link in links_now(relay.state)} == {"open"}
    with pytest.raises(InputError, match="emulates no links"):
        set_link(LabState(servers=()), "a", "b", state="cut")


def test_changes_of_an_earlier_relay_do_not_count(relay: Relay, tmp_path: Path) -> None:
    old = {"relay": [1, 1], "links": [_document(1, 2)["links"][0] | {"latency_ms": 7}]}
    (tmp_path / "relay.changes.json").write_text(json.dumps(old))
    assert [link.latency_ms for link in links_now(relay.state)] == [0, 0]
    set_link(relay.state, "b", "a", latency_ms=3)
    assert [link.latency_ms for link in links_now(relay.state)] == [0, 3]


def test_a_relay_that_ended_is_an_error(tmp_path: Path, target: socket.socket) -> None:
    relay = Relay(tmp_path, target)
    relay.close()
    with pytest.raises(ServerError, match="has ended"):
        set_link(relay.state, "a", "b", state="cut")


def test_a_relay_that_does_not_answer_is_an_error(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_links, "_ANSWER_TIMEOUT_S", 0.2)
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(ServerError, match="did not answer"):
        set_link(relay.state, "a", "b", state="cut")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "the value is []"),
        ('{"links": 3}', "a list"),
        ('{"links": [{"name": "c", "bandwidth_mib_s": 1, "latency_ms": 0}]}', "a->b, b->a"),
        ('{"links": [{"name": "a->b", "bandwidth_mib_s": 1}]}', "keys name"),
    ],
)
def test_bad_changes_are_named(text: str, words: str) -> None:
    with pytest.raises(RelayConfigError, match=r"allowed|not JSON") as caught:
        load_changes(text.encode(), parse_config(_document(1, 2)))
    assert words in str(caught.value)
