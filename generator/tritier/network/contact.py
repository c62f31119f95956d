"""One attempt to reach each server: what Triton says of itself and what the agent finds there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tritonclient.utils import InferenceServerException

from tritier.deployment.access import connect, explained, is_of_protection
from tritier.deployment.client import TritonServer
from tritier.documents import Figure, HostFacts, PowerFacts, TritonFacts
from tritier.errors import InputError, ServerError, TritierError
from tritier.network.agent import AGENT_NAME, Agent, AgentLimits, running_agent

State = Literal["ready", "not_ready", "unreachable"]
DEFAULT_TIMEOUT_S = 5.0
# Counters of energy are read twice, so far apart.
_POWER_S = 0.5
_CLOCK_CALLS = 5


@dataclass(frozen=True)
class AgentAnswer:
    """What the agent of a server found."""

    host: HostFacts
    clock_offset_ms: Figure
    power: tuple[PowerFacts, ...]


@dataclass(frozen=True)
class Contact:
    """What came of one attempt to reach a server."""

    url: str
    at: str
    state: State
    triton: TritonFacts | None = None
    agent: AgentAnswer | None = None
    # Why the server could not be reached or its agent not asked.
    failure: str = ""
    # Somebody else had loaded the agent; it stays loaded.
    found_agent: bool = False


def timestamp() -> str:
    """Now, as documents have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def contact_all(
    urls: Mapping[str, str],
    timeout_s: float = DEFAULT_TIMEOUT_S,
    ask_agent: bool = True,
    report: Callable[[str], None] = lambda _: None,
) -> dict[str, Contact]:
    """Contact servers (name -> address) side by side.

    `timeout_s` is what each call of Triton may take. With `ask_agent` the agent is loaded on each
    server, asked and unloaded again. No failure of a server is raised: it is in its Contact.
    """

    def one(name: str) -> Contact:
        found = contact(name, urls[name], timeout_s, ask_agent)
        report(f"{name}: {found.state.replace('_', ' ')}")
        return found

    with ThreadPoolExecutor(max(1, len(urls))) as executor:
        return dict(zip(urls, executor.map(one, urls), strict=True))


def contact(name: str, url: str, timeout_s: float, ask_agent: bool) -> Contact:
    """Contact one server; see `contact_all`."""
    found = _ask_triton(url, timeout_s)
    if found.state == "unreachable" or not ask_agent:
        return found
    try:
        with TritonServer(name, url) as server:
            limits = AgentLimits(time_limit_s=timeout_s)
            # Another command may be measuring with the agent that is there: it must not lose it.
            opened = (
                closing(Agent(server, limits))
                if found.found_agent
                else running_agent(server, {}, limits)
            )
            with opened as agent:
                found = replace(found, agent=_question(agent))
    except (ServerError, InputError) as error:  # also when it could not be unloaded
        found = replace(found, failure=_shortened(error))
    return found


def clock_offset(samples: Sequence[tuple[float, float, float]]) -> Figure:
    """Clock of a server minus the clock here (ms), from (sent, clock there, answered) in seconds.

    The clock there was read at some time of the call, so the shortest call tells most, and the
    interval is as long as that call.
    """
    sent, there, answered = min(samples, key=lambda sample: sample[2] - sample[0])
    value, half = there - (sent + answered) / 2, (answered - sent) / 2
    low, high = value - half, value + half
    return Figure(value=value * 1e3, low=low * 1e3, high=high * 1e3, n=len(samples))


def _ask_triton(url: str, timeout_s: float) -> Contact:
    client = connect(url)
    try:
        metadata = client.get_server_metadata(client_timeout=timeout_s)
        ready = client.is_server_ready(client_timeout=timeout_s)
        # The index of the repository does not list models that were pushed.
        has_agent = client.is_model_ready(AGENT_NAME, client_timeout=timeout_s)
    except InferenceServerException as error:
        return Contact(url, timestamp(), "unreachable", failure=_reason(error, url, timeout_s))
    finally:
        client.close()
    facts = TritonFacts(
        name=metadata.name, version=metadata.version, extensions=tuple(metadata.extensions)
    )
    state: State = "ready" if ready else "not_ready"
    return Contact(url, timestamp(), state, facts, found_agent=has_agent)


def _question(agent: Agent) -> AgentAnswer:
    facts = agent.facts(_POWER_S)
    samples = []
    for _ in range(_CLOCK_CALLS):
        sent, started = time.time(), time.perf_counter()
        there = agent.facts()["clock_s"]
        samples.append((sent, there, sent + time.perf_counter() - started))
    power = tuple(_power(row) for row in facts["power"])
    return AgentAnswer(HostFacts.from_data(facts["host"]), clock_offset(samples), power)


def _power(row: Mapping[str, Any]) -> PowerFacts:
    return PowerFacts(what=row["what"], watt=Figure(value=row["watt"], n=1))


def _reason(error: InferenceServerException, url: str, timeout_s: float) -> str:
    if "DEADLINE_EXCEEDED" in str(error.status()):
        return f"no answer within {timeout_s:g} s"
    if is_of_protection(error, url):
        return " ".join(explained(error, url).split())
    return " ".join(str(error.message()).split())


def _shortened(error: TritierError) -> str:
    """One line, without the place in the agent's code where it was raised."""
    lines = str(error).splitlines()
    first = lines[0].removesuffix("; the reason is in the server's log")
    return first if len(lines) == 1 else f"{first} ({lines[-1]})"
