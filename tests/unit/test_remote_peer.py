"""Which failed calls may be made again."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest

from tests.helpers.shared_models import load_flat

peer_module: Any = load_flat("peer", "models/remote", "shared")
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: refused"


class Failed(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        ("UNAVAILABLE", REFUSED, True),
        ("UNAVAILABLE", "DNS resolution failed for edge:8001: not known", True),
        ("UNAVAILABLE", "This protocol is restricted, expecting header 'x'", False),
        ("UNAVAILABLE", "Socket closed", False),
        ("UNAVAILABLE", "in ensemble 'm', failed to connect to all addresses", False),
        ("UNAVAILABLE", None, False),
        ("INVALID_ARGUMENT", REFUSED, False),
        ("UNAUTHENTICATED", REFUSED, False),
        ("DEADLINE_EXCEEDED", REFUSED, False),
    ],
)
def test_only_what_was_surely_not_sent(code: str, details: str | None, expected: bool) -> None:
    error = Failed(getattr(grpc.StatusCode, code), details)
    assert peer_module.nothing_was_sent(error) is expected


def test_a_lost_connection_is_waited_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Channel:
        def close(self) -> None:
            pass

    monkeypatch.setattr(peer_module.peers, "open_channel", lambda *_: (Channel(), None))
    peer, states = peer_module.Peer("nowhere:1"), grpc.ChannelConnectivity
    error = Failed(grpc.StatusCode.UNAVAILABLE, REFUSED)
    assert not peer.is_back(error, 10)  # never was there
    peer._on_state(states.READY)
    assert peer.is_ready
    peer._on_state(states.IDLE)
    assert not peer.is_ready
    started = time.monotonic()
    assert not peer.is_back(error, 10)
    assert 0.15 < time.monotonic() - started < 1
    peer._on_state(states.READY)
    assert peer.is_back(error, 10)
    peer._on_state(states.IDLE)
    assert not peer.is_back(error, -1)
    monkeypatch.setattr(peer, "_lost_at", time.monotonic() - 5)
    started = time.monotonic()
    assert not peer.is_back(error, 10)  # gone for long: no wait
    assert time.monotonic() - started < 0.15
