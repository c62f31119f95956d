"""Measures links: drives the agents of servers, one link after another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tritier.deployment.client import TritonServer
from tritier.documents import LinkState, NetworkState, ServersSpec
from tritier.errors import TritierError
from tritier.network.agent import Agent, Message, running_agent
from tritier.network.contact import contact_all, timestamp
from tritier.network.fit import (
    LinkSamples,
    bandwidth_mib_s,
    fit_link,
    message_ms,
    round_trip_ms,
)
from tritier.network.registry import merge

Pair = tuple[str, str]
Report = Callable[[str], None]
_KIB, _MIB = 1 << 10, 1 << 20

_PING_S, _MIN_PINGS, _MAX_PINGS = 0.8, 10, 60
_OWN_PINGS = 30
_MAX_OWN_PAUSE_S = 0.01
# Messages that grow until one takes this long give the first guess of the bandwidth.
_GUESS_MS, _FIRST_BYTES, _LAST_BYTES = 40.0, 16 * _KIB, 4 * _MIB
# The first stream warms the connection up; from the second on it is repeated while it is faster.
_WARM_STREAM_S, _STREAM_S, _MAX_STREAMS, _FASTER = 0.7, 2.5, 5, 1.25
_STREAM_MESSAGE_S, _MOST_IN_FLIGHT, _LEAST_IN_FLIGHT = 0.025, 16, 4
_MIN_MESSAGE_BYTES, _MAX_MESSAGE_BYTES, _MAX_STREAM_BYTES = 16 * _KIB, 4 * _MIB, 256 * _MIB
_ALONE_S, _MIN_ALONE, _MAX_ALONE = 1.5, 4, 12
_IDLE_S, _IDLE_MESSAGES = 1.5, 2


@dataclass(frozen=True)
class Stream:
    """Messages of one size, `in_flight` of them under way at once."""

    message_bytes: int
    count: int
    in_flight: int


@dataclass(frozen=True)
class Failure:
    """A link that could not be measured; what was known of it stays."""

    source: str
    target: str
    reason: str


@dataclass(frozen=True)
class Round:
    """A state after a round, the links that were measured in it, and those that were not."""

    state: NetworkState
    measured: tuple[Pair, ...]
    failures: tuple[Failure, ...]


def all_pairs(spec: ServersSpec) -> list[Pair]:
    """Every ordered pair of servers."""
    return [(k, h) for k in spec.names for h in spec.names if k != h]


def measure_round(
    previous: NetworkState,
    spec: ServersSpec,
    urls: Mapping[str, str],
    pairs: Sequence[Pair] | None = None,
    report: Report = lambda _: None,
) -> Round:
    """Contact every server, measure links (all without `pairs`) and return what is known then.

    `urls` are addresses for this tool and, where a server's environment says nothing else, for
    the servers among each other. No failure of a server or a link is raised.
    """
    pairs = all_pairs(spec) if pairs is None else pairs
    report("contacting the servers")
    state = merge(previous, spec, contact_all(urls)).state
    found: dict[Pair, LinkState] = {}
    failures: list[Failure] = []
    needed = [name for name in spec.names if any(name in pair for pair in pairs)]
    reachable = [x.name for x in state.servers if x.name in needed and x.state != "unreachable"]
    with _agents({name: urls[name] for name in reachable}, report) as (agents, refusals):
        refusals |= {x: f"server '{x}' can't be reached" for x in needed if x not in reachable}
        for source, target in pairs:
            if missing := [refusals[x] for x in (source, target) if x in refusals]:
                failures.append(Failure(source, target, missing[0]))
                continue
            report(f"measuring {source} -> {target}")
            try:
                found[source, target] = measure_link(agents[source], source, target)
            except TritierError as error:
                failures.append(Failure(source, target, str(error)))
    return Round(_with_links(state, spec, found), tuple(found), tuple(failures))


def measure_link(agent: Agent, source: str, target: str) -> LinkState:
    """Measure one link from the agent of its source; about 8 s. Raises ServerError."""
    figures = fit_link(sample_link(agent, source, target))
    return LinkState.model_validate(
        {"from": source, "to": target, "measured_at": timestamp(), **vars(figures)}
    )


def sample_link(agent: Agent, source: str, target: str) -> LinkSamples:
    """All samples of a link, in amounts that follow what the first of them show."""
    first_ms = min(_ms(agent.ping_ns(target, 3)))
    own_ms = _own_pings_ms(agent, source, first_ms / 1e3)
    count = round(min(max(_PING_S * 1e3 / first_ms, _MIN_PINGS), _MAX_PINGS))
    pings_ms = _ms(agent.ping_ns(target, count))
    if own_ms:  # before and after: the machine may be busier at one of both times
        own_ms += _own_pings_ms(agent, source, first_ms / 1e3)
    trip_s = round_trip_ms(pings_ms, own_ms) / 1e3
    stream, messages, rate = _stream(agent, target, trip_s)
    sizes = alone_sizes(rate)
    each_s = sum(trip_s + size / rate for size in sizes)
    repeats = int(min(max(_ALONE_S / each_s, _MIN_ALONE), _MAX_ALONE))
    alone = agent.probe(target, sizes * repeats)
    idle = agent.probe(target, [max(sizes)] * _IDLE_MESSAGES, idle_s=_IDLE_S)
    return LinkSamples(pings_ms, own_ms, messages, stream.in_flight, alone, idle)


def plan_stream(rate: float, trip_s: float, length_s: float) -> Stream:
    """A stream that keeps a link of `rate` bytes/s busy for about `length_s`.

    What is under way exceeds rate x round trip by half at least, up to a round trip of 64 MiB.
    """
    wanted = rate * max(_STREAM_MESSAGE_S, trip_s / 10)
    size = int(min(max(wanted, _MIN_MESSAGE_BYTES), _MAX_MESSAGE_BYTES))
    total = min(rate * length_s, _MAX_STREAM_BYTES)
    in_flight = int(min(max(total / size / 2, _LEAST_IN_FLIGHT), _MOST_IN_FLIGHT))
    return Stream(size, max(math.ceil(total / size), 3 * in_flight), in_flight)


def alone_sizes(rate: float) -> list[int]:
    """Bytes of messages to send alone over a link of `rate` bytes/s: almost none, 10 and 30 ms."""
    sizes = {_KIB, *(int(min(max(rate * x, _KIB), _MAX_MESSAGE_BYTES)) for x in (0.01, 0.03))}
    return sorted(sizes)


def _stream(agent: Agent, target: str, trip_s: float) -> tuple[Stream, list[Message], float]:
    """(the last stream, its messages, its rate in bytes/s)."""
    rate = _guess(agent, target, trip_s)
    for index in range(_MAX_STREAMS):
        stream = plan_stream(rate, trip_s, _STREAM_S if index else _WARM_STREAM_S)
        messages = agent.probe(target, [stream.message_bytes] * stream.count, stream.in_flight)
        before, rate = rate, bandwidth_mib_s(messages, stream.in_flight) * _MIB
        # A stream that was planned for a much slower link may not have filled this one.
        if index and rate < _FASTER * before:
            break
    return stream, messages, rate


def _guess(agent: Agent, target: str, trip_s: float) -> float:
    """Bytes/s of a message alone. It is too low: the connection is new and nothing overlaps."""
    size = _FIRST_BYTES
    while True:
        took_ms = min(message_ms(x) for x in agent.probe(target, [size] * 2)) - trip_s * 1e3
        if took_ms >= _GUESS_MS or size >= _LAST_BYTES:
            return size / max(took_ms, 1.0) * 1e3
        size *= 4


def _own_pings_ms(agent: Agent, name: str, trip_s: float) -> list[float]:
    """Pings of a server to itself, at about the pace of pings over a link: a processor that has
    slept for a moment is slower. None where the server does not reach itself."""
    found: list[float] = []
    try:
        for _ in range(_OWN_PINGS):
            time.sleep(min(trip_s, _MAX_OWN_PAUSE_S))
            found += _ms(agent.ping_ns(name, 1))
    except TritierError:
        return []
    return found[1:]  # the first one connects


def _ms(times_ns: Sequence[int]) -> list[float]:
    return [x / 1e6 for x in times_ns]


@contextmanager
def _agents(
    urls: Mapping[str, str], report: Report
) -> Iterator[tuple[dict[str, Agent], dict[str, str]]]:
    """(agents by server, why there is none by server). A server that fails when its agent is
    unloaded is reported, and the others are still unloaded."""
    agents: dict[str, Agent] = {}
    refusals: dict[str, str] = {}
    with ExitStack() as stack:
        for name, url in urls.items():
            report(f"loading the agent on {name}")
            server = stack.enter_context(TritonServer(name, url))
            try:
                manager = running_agent(server, urls)
                agents[name] = manager.__enter__()
            except TritierError as error:
                refusals[name] = str(error)
            else:
                stack.callback(_leave, manager, report)
        yield agents, refusals


def _leave(manager: Any, report: Report) -> None:
    try:
        manager.__exit__(None, None, None)
    except TritierError as error:
        report(str(error))


def _with_links(
    state: NetworkState, spec: ServersSpec, found: Mapping[Pair, LinkState]
) -> NetworkState:
    """The state with the links that were found, in the order of the servers file."""
    known = {(link.source, link.target): link for link in state.links} | dict(found)
    links = tuple(known[pair] for pair in all_pairs(spec) if pair in known)
    return state.model_copy(update={"links": links})
