"""How fast a link is now, from a few messages: for watching, where little may be sent."""

from __future__ import annotations

from tritier.errors import ServerError
from tritier.network.agent import Agent, Message
from tritier.network.fit import message_ms

_KIB, _MIB = 1 << 10, 1 << 20
# A message is as large as the link carries in so long, by what is known of it.
_MESSAGE_S = 0.05
_LEAST_BYTES, _MOST_BYTES, _SMALL = 32 * _KIB, 4 * _MIB, 4
# Beyond that the software at both ends decides, and it varies more than any link.
FASTEST_MIB_S = 100.0
# A link that did not carry its message until then is taken for one that carries nothing.
LIMIT_S = 4.0


def quick_bandwidth_mib_s(agent: Agent, target: str, known_mib_s: float | None) -> float:
    """Bandwidth from the agent's server to another, at most `FASTEST_MIB_S`; 0 if nothing arrives
    in `LIMIT_S`. About 0.1 s; the link is kept busy for half of it.

    What software costs is in it, so compare with figures of this function only. Raises ServerError
    where an agent does not answer.
    """
    rate = min(known_mib_s or 1.0, FASTEST_MIB_S) * _MIB
    try:
        small_ms = min(map(message_ms, _send(agent, target, [_KIB] * _SMALL)))
        # Behind a long round trip a small message would tell little.
        wanted = rate * max(_MESSAGE_S, small_ms / 1e3)
        size = int(min(max(wanted, _LEAST_BYTES), _MOST_BYTES))
        large_ms = message_ms(_send(agent, target, [size])[0])
        if large_ms < 3e3 * _MESSAGE_S + small_ms:  # else it is slow enough to be seen at once
            large_ms = min(large_ms, message_ms(_send(agent, target, [size])[0]))
    except ServerError as error:
        if any(word in str(error).lower() for word in ("deadline", "time limit")):
            return 0.0
        raise
    # On a busy machine small messages take long at times: they don't explain all of a large one.
    carried_ms = max(large_ms - small_ms, large_ms / 2)
    return min(size / _MIB / carried_ms * 1e3, FASTEST_MIB_S)


def _send(agent: Agent, target: str, sizes: list[int]) -> list[Message]:
    order = {
        "op": "probe", "server": target, "bytes": sizes, "in_flight": 1, "idle_s": 0.0,
        "limit_s": LIMIT_S,
    }  # fmt: skip
    return [Message(*row) for row in agent.ask(order)[0]["messages"]]
