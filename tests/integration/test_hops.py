"""One hop at a time: budgets, second tries, bounds, and what goes on to the next server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import tritonclient.grpc as triton

from tests.helpers.hops import Gate, ask, load_echo, load_proxy, refusal
from tests.helpers.shared_models import load_flat
from tests.integration.conftest import Bench
from tritier.deployment.client import TritonServer

pytestmark = pytest.mark.integration
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def gate(bench: Bench) -> Iterator[Gate]:
    """The way from the proxies on the device to `echo` on the edge."""
    urls = {server.name: server.grpc_url for server in bench.state.servers}
    gate = Gate(urls["edge"])
    try:
        with (
            TritonServer("edge", urls["edge"]) as edge,
            TritonServer("device", urls["device"]) as device,
        ):
            load_echo(edge)
            load_proxy(device, "far", gate.url)
            load_proxy(device, "narrow", gate.url, max_in_flight="2")
            load_proxy(device, "short", gate.url, deadline_ms="700")
            yield gate
            for name in ("far", "narrow", "short"):
                device.unload(name)
            edge.unload("echo")
    finally:
        gate.close()


@pytest.fixture
def client(bench: Bench, gate: Gate) -> Iterator[triton.InferenceServerClient]:  # noqa: ARG001
    url = next(s.grpc_url for s in bench.state.servers if s.name == "device")
    client = triton.InferenceServerClient(url)
    yield client
    client.close()


def in_ns(seconds: float) -> str:
    return str(time.monotonic_ns() + int(seconds * 1e9))


class TestBudget:
    def test_what_goes_on(self, client: triton.InferenceServerClient) -> None:
        said = ask(
            client,
            "far",
            request_id="mine",
            timeout=5_000_000,
            parameters={
                "tritier_deadline_ns": in_ns(3),
                "tritier_request": "ab12",
                "tritier_attempt": 2,
                "class": "low",
            },
            headers={"traceparent": PARENT},
        )
        assert 1_000_000 < said["timeout_us"] < 3_000_000
        assert said["id"] == "mine"
        assert said["parameters"] == {
            "tritier_request": "ab12",
            "tritier_attempt": 2,
            "traceparent": PARENT,
        }

    def test_a_plain_request_gets_the_configured_deadline(
        self, client: triton.InferenceServerClient
    ) -> None:
        said = ask(client, "far")
        assert 7_000_000 < said["timeout_us"] <= 8_000_000
        assert said["parameters"] == {}

    def test_nothing_expired_is_sent(
        self, bench: Bench, client: triton.InferenceServerClient
    ) -> None:
        before = _requests(bench)
        parameters = {"tritier_deadline_ns": in_ns(-1), "tritier_attempt": 2}
        text, _ = refusal(client, "far", parameters=parameters)
        assert "StatusCode.UNAVAILABLE" in text
        assert "server 'far', component c9, plan 0badcafe, attempt 2: deadline exceeded" in text
        assert "nothing was sent" in text
        assert _requests(bench) == before
        assert refusal(client, "far")[0] == ""
        assert _requests(bench) == before + 1

    @pytest.mark.parametrize(
        ("model", "options"),
        [
            ("short", {}),
            ("far", {"timeout": 700_000}),
            ("far", {"deadline": 0.7}),
        ],
    )
    def test_the_wait_ends_with_the_budget(
        self, client: triton.InferenceServerClient, model: str, options: dict[str, float]
    ) -> None:
        chosen = dict(options)
        if "deadline" in chosen:
            chosen = {"parameters": {"tritier_deadline_ns": in_ns(chosen["deadline"])}}  # type: ignore[dict-item]
        text, seconds = refusal(client, model, 2.0, **chosen)
        assert "attempt 1: DEADLINE_EXCEEDED after" in text
        assert 0.6 < seconds < 1.9

    def test_nonsense_is_refused_by_name(self, client: triton.InferenceServerClient) -> None:
        text, _ = refusal(client, "far", parameters={"tritier_deadline_ns": "soon"})
        assert "INVALID_ARGUMENT" in text
        assert "'tritier_deadline_ns' is 'soon'; allowed is a whole number" in text


class TestSecondTry:
    def test_a_connection_that_comes_back_at_once(
        self, client: triton.InferenceServerClient, gate: Gate
    ) -> None:
        """Each time the call finds no connection; a busy machine may miss the moment."""
        texts = []
        for _ in range(4):
            _until_answered(client)
            gate.shut()
            timer = threading.Timer(0.03, gate.open)
            timer.start()
            try:
                texts.append(refusal(client, "far")[0])
            finally:
                timer.join()
        assert "" in texts

    def test_a_server_that_is_gone_is_known_as_gone(
        self, client: triton.InferenceServerClient, gate: Gate
    ) -> None:
        ask(client, "far")
        gate.shut()
        try:
            found = [refusal(client, "far") for _ in range(3)]
            time.sleep(1.1)
            found.append(refusal(client, "far"))
        finally:
            gate.open()
        assert all("attempt 1: UNAVAILABLE" in text for text, _ in found)
        assert all(seconds < 1.0 for _, seconds in found)
        _until_answered(client)

    def test_what_was_sent_is_not_sent_again(
        self, bench: Bench, client: triton.InferenceServerClient, gate: Gate
    ) -> None:
        before = _requests(bench)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(refusal, client, "far", 0.5)
            time.sleep(0.25)
            gate.shut()
            gate.open()
            text, _ = asked.result(timeout=10)
        assert "UNAVAILABLE" in text
        _until_answered(client)
        assert _requests(bench) == before + 2


def test_no_more_calls_in_flight_than_allowed(client: triton.InferenceServerClient) -> None:
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(refusal, client, "narrow", 0.5) for _ in range(6)]
        found = [job.result(timeout=20) for job in jobs]
    refused = [(text, seconds) for text, seconds in found if text]
    assert len(refused) == 4
    for text, seconds in refused:
        assert "StatusCode.UNAVAILABLE" in text
        assert "2 calls are in flight and no more are allowed; nothing was sent" in text
        assert seconds < 0.5
    assert refusal(client, "narrow")[0] == ""


class TestCancellation:
    def test_the_word_of_the_router_ends_a_call(self, client: triton.InferenceServerClient) -> None:
        withdrawal = load_flat("withdrawal", "shared")
        with ThreadPoolExecutor(2) as pool:
            options = {"parameters": {"tritier_request": "f00d"}}
            asked = pool.submit(refusal, client, "far", 2.0, **options)
            other = pool.submit(refusal, client, "far", 0.0)
            time.sleep(0.4)
            assert withdrawal.withdraw("edge", "0badcafe", "f00d") == 0
            assert withdrawal.withdraw("device", "0badcafe", "f00d") == 3
            text, seconds = asked.result(timeout=10)
            assert "CANCELLED" in text
            assert seconds < 1.5
            assert other.result(timeout=10)[0] == ""


def _requests(bench: Bench) -> int:
    """How many requests `echo` has had."""
    url = next(s.grpc_url for s in bench.state.servers if s.name == "edge")
    with TritonServer("edge", url) as edge:
        return int(edge.statistics("echo").success.count)


def _until_answered(client: triton.InferenceServerClient) -> None:
    deadline = time.monotonic() + 10
    while (text := refusal(client, "far")[0]) != "":
        assert time.monotonic() < deadline, text
        time.sleep(0.1)
