"""The link relay: its arithmetic with a fake clock, its sockets without tight timing."""

from __future__ import annotations

import contextlib
import json
import math
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritier.deployment import relay
from tritier.deployment.relay import (
    MIB,
    LinkShaper,
    LinkSpec,
    RelayConfig,
    RelayConfigError,
    RelayListenError,
    RelayServer,
    RelaySpec,
    load_config,
    parse_config,
)

TIMEOUT_S = 5.0
NO_DELAY = LinkSpec("open", None, 0.0)
RATES_MIB_S = st.floats(0.01, 10_000)
GAPS_AND_SIZES = st.lists(
    st.tuples(st.floats(0, 0.1), st.integers(1, 1_000_000)), min_size=1, max_size=50
)

# ---------------------------------------------------------------- the arithmetic of a link


@given(RATES_MIB_S, GAPS_AND_SIZES)
def test_a_link_serialises_at_its_bandwidth_and_never_bursts(
    rate_mib_s: float, sends: list[tuple[float, int]]
) -> None:
    shaper = LinkShaper(rate_mib_s, 5.0)
    now_s, free_at_s = 100.0, 0.0
    for gap_s, size_bytes in sends:
        now_s += gap_s
        free_at_s = max(free_at_s, now_s) + size_bytes / (rate_mib_s * MIB)
        assert shaper.depart(size_bytes, now_s) == pytest.approx(free_at_s, abs=1e-6)


@given(RATES_MIB_S, GAPS_AND_SIZES)
def test_no_credit_lets_any_stretch_of_bytes_exceed_the_bandwidth(
    rate_mib_s: float, sends: list[tuple[float, int]]
) -> None:
    shaper = LinkShaper(rate_mib_s, 0.0)
    now_s, previous_s = 100.0, -math.inf
    for gap_s, size_bytes in sends:
        now_s += gap_s
        departure_s = shaper.depart(size_bytes, now_s, waiting_since_s=100.0)
        assert departure_s - previous_s >= size_bytes / (rate_mib_s * MIB) - 1e-9
        previous_s = departure_s


def test_five_mib_at_five_mib_s_take_one_second_in_whatever_pieces() -> None:
    shaper = LinkShaper(5.0, 50.0)
    departures_s = [shaper.depart(16 * 1024, 7.0) for _ in range(5 * 64)]
    assert departures_s[-1] == pytest.approx(8.0)
    assert shaper.latency_s == pytest.approx(0.05)


def test_data_that_waited_for_cpu_departs_as_if_it_had_been_read_in_time() -> None:
    shaper = LinkShaper(1.0, 0.0)
    first_s = shaper.depart(MIB // 1000, 10.0)
    assert shaper.depart(MIB // 100, 10.015, waiting_since_s=10.0) == pytest.approx(first_s + 0.01)


def test_what_may_be_made_up_for_is_limited() -> None:
    shaper = LinkShaper(1.0, 0.0)
    departure_s = shaper.depart(MIB, 10.0, waiting_since_s=1.0)
    assert departure_s == pytest.approx(11.0 - relay.CATCH_UP_MS / 1e3)


def test_an_unlimited_link_departs_at_once() -> None:
    shaper = LinkShaper(None, 5.0)
    assert shaper.depart(10**9, 3.0, waiting_since_s=1.0) == 3.0
    assert shaper.may_read(3.0)


@given(st.none() | RATES_MIB_S, st.floats(0, 1000))
def test_memory_is_bounded_and_suffices_for_the_bandwidth(
    rate_mib_s: float | None, latency_ms: float
) -> None:
    shaper = LinkShaper(rate_mib_s, latency_ms)
    rate = min(math.inf if rate_mib_s is None else rate_mib_s, 1024.0) * MIB
    on_the_way_bytes = rate * latency_ms / 1e3
    assert on_the_way_bytes + 2.5 * shaper.quantum_bytes <= shaper.window_bytes
    slack_bytes = rate * relay.CATCH_UP_MS / 1e3 + 3 * shaper.quantum_bytes
    assert shaper.window_bytes <= on_the_way_bytes + max(slack_bytes, relay.MIN_WINDOW_BYTES) + 1


@given(st.floats(0.01, 100), st.integers(1, 20))
def test_reading_stops_a_few_quanta_ahead_and_resumes_before_the_link_is_idle(
    rate_mib_s: float, rounds: int
) -> None:
    shaper = LinkShaper(rate_mib_s, 0.0)
    now_s = 50.0
    for _ in range(rounds):
        free_at_s = now_s
        while shaper.may_read(now_s):
            free_at_s = shaper.depart(shaper.quantum_bytes, now_s)
        ahead_bytes = (free_at_s - now_s) * rate_mib_s * MIB
        assert ahead_bytes <= 2.5 * shaper.quantum_bytes + 1
        assert now_s < shaper.read_due_s() < free_at_s
        now_s = shaper.read_due_s()
        assert shaper.may_read(now_s)


# ---------------------------------------------------------------- sockets


@pytest.fixture
def target() -> Iterator[socket.socket]:
    """A listening socket, for a relay to lead to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)
        yield listener


def port_of(listener: socket.socket) -> int:
    port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return port_of(listener)


@contextlib.contextmanager
def relaying(links: list[LinkSpec], *relays: RelaySpec) -> Iterator[None]:
    server = RelayServer(RelayConfig(tuple(links), relays))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join(TIMEOUT_S)
        server.close()
    assert not thread.is_alive()


@contextlib.contextmanager
def pair(
    target: socket.socket, forward: LinkSpec = NO_DELAY, reverse: LinkSpec = NO_DELAY
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection through a relay of its own: the socket of the client, that of the server."""
    spec = RelaySpec(free_port(), port_of(target), forward.name, reverse.name)
    with relaying(list({forward.name: forward, reverse.name: reverse}.values()), spec):
        client = connect(spec)
        server, _ = target.accept()
        server.settimeout(TIMEOUT_S)
        with client, server:
            yield client, server


def connect(spec: RelaySpec) -> socket.socket:
    return socket.create_connection(("127.0.0.1", spec.listen_port), TIMEOUT_S)


def receive(sock: socket.socket, size_bytes: int) -> bytes:
    parts = []
    while size_bytes and (part := sock.recv(min(size_bytes, MIB))):
        parts.append(part)
        size_bytes -= len(part)
    return b"".join(parts)


def in_thread(work: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def send_for_ever(sock: socket.socket) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        sock.send(b"x")
        time.sleep(0.005)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize(
    "link",
    [NO_DELAY, LinkSpec("far", None, 20.0), LinkSpec("slow", 40.0, 3.0)],
    ids=lambda link: link.name,
)
def test_bytes_pass_unchanged_and_in_order_both_ways(target: socket.socket, link: LinkSpec) -> None:
    there, back = (random.Random(seed).randbytes(3 * MIB + 17) for seed in (1, 2))
    with pair(target, link, link) as (client, server):
        sending = [in_thread(client.sendall, there), in_thread(server.sendall, back)]
        received: list[bytes] = []
        receiving = in_thread(lambda: received.append(receive(client, len(back))))
        assert receive(server, len(there)) == there
        receiving.join(TIMEOUT_S)
        assert received == [back]
        for thread in sending:
            thread.join(TIMEOUT_S)


def test_many_small_messages_of_many_connections_stay_apart(target: socket.socket) -> None:
    link = LinkSpec("l", 50.0, 2.0)
    spec = RelaySpec(free_port(), port_of(target), "l", "l")
    with relaying([link], spec), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(spec)) for _ in range(20)]
        servers = [stack.enter_context(target.accept()[0]) for _ in clients]
        for round_ in range(10):
            for number, client in enumerate(clients):
                client.sendall(struct.pack("ii", number, round_))
        for server in servers:
            server.settimeout(TIMEOUT_S)
        got = [list(struct.iter_unpack("ii", receive(server, 80))) for server in servers]
    assert sorted(got) == [[(n, round_) for round_ in range(10)] for n in range(len(clients))]


def test_a_half_close_follows_the_data_and_leaves_the_other_direction_open(
    target: socket.socket,
) -> None:
    with pair(target, LinkSpec("there", 50.0, 5.0), LinkSpec("back", 50.0, 5.0)) as (
        client,
        server,
    ):
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert receive(server, 100) == b"question"
        server.sendall(b"answer" * 1000)
        server.close()
        assert receive(client, 10_000) == b"answer" * 1000


def test_a_reset_passes_in_both_directions_after_the_data(target: socket.socket) -> None:
    for who in (0, 1):
        with pair(target, LinkSpec("there", None, 5.0), LinkSpec("back", None, 5.0)) as ends:
            ends[who].sendall(b"last words")
            time.sleep(0.03)  # a reset overtakes what the kernel has not handed to the relay
            reset(ends[who])
            assert receive(ends[1 - who], 10) == b"last words"
            with pytest.raises(ConnectionResetError):
                ends[1 - who].recv(1)


def test_a_reset_after_a_half_close_passes_too(target: socket.socket) -> None:
    with pair(target) as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        reset(client)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            send_for_ever(server)


def test_a_target_that_refuses_closes_the_accepted_connection() -> None:
    spec = RelaySpec(free_port(), free_port(), "open", "open")
    with relaying([NO_DELAY], spec):
        for _ in range(3):
            # The reset may come before `connect` has returned.
            with pytest.raises(ConnectionResetError), connect(spec) as client:
                client.recv(1)


def test_a_sender_is_stopped_when_the_receiver_does_not_read(target: socket.socket) -> None:
    link = LinkSpec("l", None, 0.0)
    with pair(target, link, link) as (client, server):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.settimeout(0.3)
        data = bytes(MIB)
        sent_bytes = 0
        with contextlib.suppress(TimeoutError):
            while sent_bytes < 512 * MIB:
                sent_bytes += client.send(data)
        assert sent_bytes < 512 * MIB
        client.shutdown(socket.SHUT_WR)
        received_bytes = 0
        while part := server.recv(MIB):
            received_bytes += len(part)
        assert received_bytes == sent_bytes


def seconds_of(work: Callable[[], object]) -> float:
    start_s = time.monotonic()
    work()
    return time.monotonic() - start_s


def test_bandwidth_and_latency_are_emulated_each_way(target: socket.socket) -> None:
    forward, reverse = LinkSpec("there", 2.0, 40.0), LinkSpec("back", 8.0, 60.0)
    with pair(target, forward, reverse) as (client, server):
        in_thread(client.sendall, bytes(MIB // 2))
        assert 0.28 < seconds_of(lambda: receive(server, MIB // 2)) < 2
        in_thread(server.sendall, bytes(MIB // 2))
        assert 0.11 < seconds_of(lambda: receive(client, MIB // 2)) < 2


def test_two_connections_share_the_bandwidth_of_a_link(target: socket.socket) -> None:
    spec = RelaySpec(free_port(), port_of(target), "l", "open")
    with relaying([LinkSpec("l", 4.0, 0.0), NO_DELAY], spec), contextlib.ExitStack() as stack:
        pairs = [
            (stack.enter_context(connect(spec)), stack.enter_context(target.accept()[0]))
            for _ in range(2)
        ]
        for client, _ in pairs:
            in_thread(client.sendall, bytes(MIB // 2))
        ends_s: list[float] = []
        start_s = time.monotonic()

        def drain(server: socket.socket) -> None:
            server.settimeout(TIMEOUT_S)
            receive(server, MIB // 2)
            ends_s.append(time.monotonic() - start_s)

        for thread in [in_thread(drain, server) for _, server in pairs]:
            thread.join(TIMEOUT_S)
    assert max(ends_s) > 0.22  # alone, each would take 0.125 s
    assert min(ends_s) > 0.18  # in turns, so that neither waits for the other's end


def test_a_link_is_shared_by_the_requests_of_one_relay_and_the_responses_of_another(
    target: socket.socket,
) -> None:
    there = RelaySpec(free_port(), port_of(target), "k->h", "h->k")
    back = RelaySpec(free_port(), port_of(target), "h->k", "k->h")
    links = [LinkSpec("k->h", 4.0, 0.0), LinkSpec("h->k", None, 0.0)]
    with relaying(links, there, back), contextlib.ExitStack() as stack:
        client = stack.enter_context(connect(there))
        server = stack.enter_context(target.accept()[0])
        other_client = stack.enter_context(connect(back))
        other_server = stack.enter_context(target.accept()[0])
        server.settimeout(TIMEOUT_S)
        start_s = time.monotonic()
        for sender in (client, other_server):
            in_thread(sender.sendall, bytes(MIB // 2))
        receiving = in_thread(receive, other_client, MIB // 2)
        receive(server, MIB // 2)
        receiving.join(TIMEOUT_S)
        assert time.monotonic() - start_s > 0.22


# ---------------------------------------------------------------- configuration and command line


def document(**changes: Any) -> dict[str, Any]:
    """A valid configuration, with changes of its first link, its first relay or the whole."""
    whole: dict[str, Any] = {
        "links": [
            {"name": "a", "bandwidth_mib_s": 5, "latency_ms": 1.5},
            {"name": "b", "bandwidth_mib_s": None, "latency_ms": 0},
        ],
        "relays": [
            {"listen_port": 9001, "target_port": 8001, "forward_link": "a", "reverse_link": "b"}
        ],
    }
    parts = (whole["links"][0], whole["relays"][0], whole)
    for key, value in changes.items():
        for part in parts:
            if key in part:
                part[key] = value
                break
    return whole


def test_a_valid_document_is_read(tmp_path: Path) -> None:
    path = tmp_path / "links.json"
    path.write_text(json.dumps(document()))
    assert load_config(path) == RelayConfig(
        (LinkSpec("a", 5, 1.5), LinkSpec("b", None, 0)), (RelaySpec(9001, 8001, "a", "b"),)
    )


RELAY = document()["relays"][0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bandwidth_mib_s": 0}, ["link 'a'", "bandwidth_mib_s is 0", "above 0"]),
        ({"bandwidth_mib_s": -1}, ["link 'a'", "-1"]),
        ({"bandwidth_mib_s": math.nan}, ["link 'a'", "nan"]),
        ({"bandwidth_mib_s": "5"}, ["link 'a'", "'5'"]),
        ({"bandwidth_mib_s": True}, ["link 'a'", "True"]),
        ({"latency_ms": -0.1}, ["link 'a'", "latency_ms is -0.1", "from 0 to 60000"]),
        ({"latency_ms": math.inf}, ["link 'a'", "inf"]),
        ({"latency_ms": None}, ["link 'a'", "None"]),
        ({"name": ""}, ["link", "name is ''", "not empty"]),
        ({"name": "b"}, ["name is 'b'", "once"]),
        ({"listen_port": 0}, ["relay 0->8001", "listen_port is 0", "1 to 65535"]),
        ({"target_port": 70000}, ["relay 9001->70000", "target_port is 70000"]),
        ({"target_port": True}, ["target_port is True"]),
        ({"target_port": 9001}, ["relay 9001->9001", "leads back"]),
        ({"forward_link": "c"}, ["relay 9001->8001", "forward_link is 'c'", "(a, b)"]),
        ({"reverse_link": ["a"]}, ["relay 9001->8001", "reverse_link is ['a']"]),
        ({"links": []}, ["relay 9001->8001", "forward_link is 'a'", "links is empty"]),
        ({"links": {}}, ["links is {}", "a list"]),
        ({"links": [{"name": "a"}]}, ["links[0]", "name, bandwidth_mib_s, latency_ms"]),
        ({"relays": []}, ["relays is []", "at least one"]),
        ({"relays": [7]}, ["relays[0]", "7", "listen_port"]),
        ({"relays": [RELAY, RELAY]}, ["relay 9001->8001", "listen_port is 9001", "once"]),
        (
            {"relays": [RELAY, RELAY | {"listen_port": 8001, "target_port": 9001}]},
            ["relay 9001->8001", "target_port is 8001", "leads back"],
        ),
    ],
)
def test_a_fault_is_named_with_its_place_and_what_is_allowed(
    changes: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(RelayConfigError) as caught:
        parse_config(document(**changes))
    message = str(caught.value)
    assert all(word in message for word in [*words, "allowed: "]), message
    assert "\n" not in message


@pytest.mark.parametrize("whole", [None, [], {}, document() | {"more": 1}])
def test_a_document_of_another_shape_is_refused(whole: object) -> None:
    with pytest.raises(RelayConfigError, match=r"config: .* keys links, relays"):
        parse_config(whole)


SHORT_TEXTS = st.text("ab\n", max_size=3)  # all of Unicode takes seconds to set up
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SHORT_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT_TEXTS, inner, max_size=3),
    max_leaves=5,
)
KEYS = ["links", "relays", *document()["links"][0], *RELAY]


@settings(max_examples=100)
@given(st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=3))
def test_any_document_is_either_read_or_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(RelayConfigError):
        assert parse_config(document(**changes)).relays


def test_a_relay_that_goes_through_another_is_no_loop() -> None:
    chain = [RELAY, RELAY | {"listen_port": 9002, "target_port": 9001}]
    assert len(parse_config(document(relays=chain)).relays) == 2


def test_a_port_in_use_is_named_and_leaves_no_other_open(target: socket.socket) -> None:
    first = RelaySpec(free_port(), 1, "open", "open")
    second = RelaySpec(port_of(target), 1, "open", "open")
    with pytest.raises(RelayListenError, match=rf"relay {second.listen_port}->1: .*in use"):
        RelayServer(RelayConfig((NO_DELAY,), (first, second)))
    with pytest.raises(ConnectionRefusedError):
        connect(first)


def test_the_command_line_reports_faults_in_one_line(
    tmp_path: Path, target: socket.socket, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "links.json"
    assert relay.main([str(path)]) == relay.EXIT_BAD_INPUT
    for text in ("{", "\xff", json.dumps(document(latency_ms=-1)), "1" * 5000, "[" * 100_000):
        path.write_bytes(text.encode("latin-1"))
        assert relay.main([str(path)]) == relay.EXIT_BAD_INPUT, text[:10]
    path.write_text(json.dumps(document(listen_port=port_of(target))))
    assert relay.main([str(path)]) == relay.EXIT_CANNOT_LISTEN
    with pytest.raises(SystemExit, match=str(relay.EXIT_BAD_INPUT)):
        relay.main([])
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert len(lines) == 8
    assert all(line.startswith("relay: ") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_runs_until_a_signal(
    tmp_path: Path, target: socket.socket, number: signal.Signals
) -> None:
    path = tmp_path / "links.json"
    whole = document(listen_port=free_port(), target_port=port_of(target))
    path.write_text(json.dumps(whole))
    command = [sys.executable, "-m", "tritier.deployment.relay", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        spec = RelaySpec(**whole["relays"][0])
        with connect(spec) as client, target.accept()[0] as server:
            server.settimeout(TIMEOUT_S)
            client.sendall(b"hello")
            assert receive(server, 5) == b"hello"
            process.send_signal(number)
            assert process.wait(TIMEOUT_S) == 0
            assert server.recv(1) == b""
        assert process.stderr.read() == b""
        with pytest.raises(ConnectionRefusedError):
            connect(spec)
