"""How fast a link is now, from a few messages: for watching, where little may be sent."""

from __future__ import annotations

from contextlib import suppress

from tritier.errors import ServerError
from tritier.network.agent import Agent, Message
from tritier.network.fit import message_ms

_KIB, _MIB = 1 << 10, 1 << 20
# A message is as large as the link carries in so long, by what is known of it.
_MESSAGE_S = 0.05
_LEAST_BYTES, _MOST_BYTES, _SMALL = 32 * _KIB, 4 * _MIB, 4
# A link that is faster than it was known to be carries a message in so little time that this is
# lost in how much round trips differ: then a larger one is sent.
_TELLING_MS, _TELLING_SHARE, _GROWTH, _LEAST_MS = 20.0, 0.25, 4, 0.1
# Beyond that the software at both ends decides, and it varies more than any link.
FASTEST_MIB_S = 100.0
# A link on which small messages take longer is taken for one that carries nothing.
LIMIT_S = 4.0


def quick_bandwidth_mib_s(agent: Agent, target: str, known_mib_s: float | None) -> float:
    """Bandwidth from the agent's server to another, at most `FASTEST_MIB_S`; 0 if not even
    small messages arrive in `LIMIT_S`. About 0.1 s, or some round trips; the link is kept busy for
    half of it.

    What software costs is in it, so compare with figures of this function only. Raises ServerError
    where an agent does not answer.
    """
    with suppress(_TooLate):
        small_ms = min(map(message_ms, _send(agent, target, [_KIB] * _SMALL)))
        if known_mib_s:
            with suppress(_TooLate):
                return _found_mib_s(agent, target, known_mib_s, small_ms)
        # Nothing is known, or what is known is far from it: small messages do arrive.
        return _found_mib_s(agent, target, 0.0, small_ms)
    return 0.0


class _TooLate(Exception):
    """A message did not arrive in `LIMIT_S`."""


def _found_mib_s(agent: Agent, target: str, known_mib_s: float, small_ms: float) -> float:
    # Behind a long round trip a message that is carried in no time would tell little.
    wanted_s = max(_MESSAGE_S, small_ms / 1e3)
    size = _within(min(known_mib_s, FASTEST_MIB_S) * _MIB * wanted_s)
    carried_ms = _carried_ms(agent, target, size, small_ms)
    while size < _MOST_BYTES and carried_ms < max(_TELLING_MS, _TELLING_SHARE * small_ms):
        size = _within(_GROWTH * size)
        carried_ms = _carried_ms(agent, target, size, small_ms)
    return min(size / _MIB / max(carried_ms, _LEAST_MS) * 1e3, FASTEST_MIB_S)


def _within(size: float) -> int:
    return int(min(max(size, _LEAST_BYTES), _MOST_BYTES))


def _carried_ms(agent: Agent, target: str, size: int, small_ms: float) -> float:
    """What a message takes longer than a small one: the less of two, unless the first has been so
    slow that it is seen at once."""
    carried_ms = message_ms(_send(agent, target, [size])[0]) - small_ms
    if carried_ms < 3e3 * _MESSAGE_S:
        carried_ms = min(carried_ms, message_ms(_send(agent, target, [size])[0]) - small_ms)
    return carried_ms


def _send(agent: Agent, target: str, sizes: list[int]) -> list[Message]:
    order = {
        "op": "probe", "server": target, "bytes": sizes, "in_flight": 1, "idle_s": 0.0,
        "limit_s": LIMIT_S,
    }  # fmt: skip
    try:
        answer, _ = agent.ask(order)
    except ServerError as error:
        if any(word in str(error).lower() for word in ("deadline", "time limit")):
            raise _TooLate from error
        raise
    return [Message(*row) for row in answer["messages"]]
