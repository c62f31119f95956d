"""The tool's own load: its figures from given times, and its senders at a small server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest

from tritier.bench import generator
from tritier.bench.generator import OwnFigures, OwnLoad, _figures, _Found, compared, run_own_load
from tritier.deployment.access import connect
from tritier.errors import ServerError

SAMPLE = {"x": np.zeros((1, 2), np.float32)}


def load(arrivals: Any = "closed", offered: float = 1, **changes: Any) -> OwnLoad:
    given = {"requests": 30, "most_s": 5.0, **changes}
    return OwnLoad("127.0.0.1:1", "m", (SAMPLE,), arrivals, offered, **given)


def queued(rng: np.random.Generator, count: int, busy: float) -> _Found:
    """Requests at random times at a server that takes 0.1 s for each; `busy`: share of its time."""
    free, times = 0.0, []
    for due in np.cumsum(rng.exponential(0.1 / busy, count)):
        free = max(free, float(due)) + 0.1
        times.append((float(due), free))
    return _Found(times)


def verdicts(count: int, busy: float) -> list[bool | None]:
    rng = np.random.default_rng(3)
    found = [_figures(queued(rng, count, busy)) for _ in range(60)]
    return [compared(load("poisson"), own, 1, 9.0, None).agrees for own in found]


def test_a_check_with_failures_does_not_agree() -> None:
    own = OwnFigures(30, ("refused",), 1.0, 50.0, 0.0, None, 10, 10, 10)
    assert compared(load(), own, 1, 50.0, 10.0).agrees is False
    assert compared(load("poisson"), own, 1, 50.0, None).agrees is False


def test_of_random_arrivals_it_is_asked_whether_they_are_kept_up_with() -> None:
    # 100 requests in 10 s, answered after 50 ms each, or ever later.
    steady = _figures(_Found([(k / 10, k / 10 + 0.05) for k in range(100)]))
    late = _figures(_Found([(k / 10, k / 10 + 0.05 + k / 50) for k in range(100)]))
    assert steady.growth == pytest.approx(0, abs=1e-9)
    assert late.growth == pytest.approx(0.2)
    assert compared(load("poisson"), steady, 1, 99.0, None).agrees is True
    assert compared(load("poisson"), late, 1, 99.0, None).agrees is False


def test_a_queue_that_comes_and_goes_is_no_reason_for_an_alarm() -> None:
    assert verdicts(12, 0.7).count(False) == 0, "few requests say nothing"
    assert set(verdicts(99, 1.5)) == {None}
    assert verdicts(150, 0.7).count(False) == 0
    assert verdicts(150, 0.7).count(True) > 55
    assert verdicts(150, 1.5).count(False) > 55, "the control: it is not kept up with"


@pytest.mark.parametrize("rounds", [4, 10, 40])
def test_answers_in_bunches_make_no_higher_throughput(rounds: int) -> None:
    # 8 requests in flight that are answered together, each 0.1 s: 80 per second.
    times = [
        (0.1 * k + 1e-6 * n, 0.1 * (k + 1) + 1e-6 * n) for k in range(rounds) for n in range(8)
    ]
    found = _figures(_Found(times), 8)
    assert found.rate_per_s == pytest.approx(80, rel=1e-3)


def test_one_after_the_other_are_counted_right() -> None:
    times = [(0.1 * k + 1e-5, 0.1 * (k + 1)) for k in range(20)]
    assert _figures(_Found(times), 1).rate_per_s == pytest.approx(10, rel=1e-3)
    assert _figures(_Found(times[:1]), 1).rate_per_s == pytest.approx(10, rel=1e-3)


def test_the_first_request_of_each_sender_is_left_out_of_percentiles() -> None:
    first = [(0.0, 1.0)] * 4
    later = [(1.0 + 0.1 * (k // 4), 1.1 + 0.1 * (k // 4)) for k in range(16)]
    found = _figures(_Found(first + later), 4)
    assert (found.requests, round(found.p95_ms)) == (20, 100)
    assert _figures(_Found(first), 4).p50_ms == 1000, "if there are no others they count"


class Server:
    """Answers bytes with bytes; remembers who asked, and how many at a time."""

    def __init__(self, answer: Callable[[], bytes]) -> None:
        self.peers: list[str] = []
        self._answer = answer
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8))
        own: Any = grpc.unary_unary_rpc_method_handler(self._infer)
        calls = {"ModelInfer": own}
        handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", calls)
        self._server.add_generic_rpc_handlers((handler,))
        self.url = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _infer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        with self._lock:
            self.peers.append(context.peer())
        return self._answer()

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(lambda: b"")
    yield made
    made.stop()


def at(url: str, **changes: Any) -> OwnLoad:
    given: dict[str, Any] = {"arrivals": "closed", "offered": 4, "requests": 40, "most_s": 20.0}
    return OwnLoad(url, "m", (SAMPLE,), **{**given, **changes})


def test_each_sender_has_a_connection_and_one_warms_up(server: Server) -> None:
    found = run_own_load(at(server.url, warmup=2))
    assert (found.requests, found.failures) == (40, ())
    assert len(server.peers) == 42
    assert len(set(server.peers)) <= 4
    assert len(set(server.peers[:2])) == 1


@pytest.mark.parametrize(("own", "connections"), [(True, 5), (False, 1)])
def test_clients_of_users_have_connections_of_their_own(
    server: Server, own: bool, connections: int
) -> None:
    clients = [connect(server.url, own=own) for _ in range(5)]
    for client in clients:
        client.infer("m", [])
    for client in clients:
        client.close()
    assert len(server.peers) == 5
    assert len(set(server.peers)) == connections


def test_an_open_loop_has_no_more_senders_than_requests(server: Server) -> None:
    few = at(server.url, arrivals="constant", offered=200.0, requests=5)
    assert few.senders == 5
    assert run_own_load(few).requests == 5
    assert load("poisson", 9.0, requests=1000).senders == 64


def test_requests_are_encoded_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    own = generator._encoded

    def counted(model: str, sample: Any) -> bytes:
        done.append(model)
        return own(model, sample)

    monkeypatch.setattr(generator, "_encoded", counted)
    run_own_load(at(server.url))
    assert done == ["m"]


def test_a_sender_that_breaks_off_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise ValueError("of no use")

    monkeypatch.setattr(generator, "_asker", broken)
    with pytest.raises(ServerError, match="broke off: ValueError: of no use"):
        run_own_load(at(server.url))


def test_nobody_there_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "_CONNECT_S", 0.3)
    with pytest.raises(ServerError, match=r"can't connect to 127\.0\.0\.1:1 "):
        run_own_load(at("127.0.0.1:1"))


def test_a_request_without_an_answer_ends_at_its_deadline() -> None:
    def late() -> bytes:
        time.sleep(0.5)
        return b""

    made = Server(late)
    try:
        with pytest.raises(ServerError, match="DEADLINE_EXCEEDED"):
            run_own_load(at(made.url, offered=1, requests=1, warmup=1, deadline_s=0.05))
    finally:
        made.stop()
