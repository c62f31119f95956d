"""What changed between two states of the network, beyond what their intervals explain."""

from __future__ import annotations

from dataclasses import dataclass

from tritier.documents import Figure, LinkState, NetworkState

DEFAULT_THRESHOLD = 0.1
# Field of LinkState -> its unit, and the least difference that is worth a word: what software costs
# varies more from round to round than within one.
_FIGURES = {
    "bandwidth_mib_s": ("MiB/s", 0.0),
    "round_trip_ms": ("ms", 0.5),
    "call_ms": ("ms", 5.0),
    "copy_ms_per_mib": ("ms", 5.0),
}


@dataclass(frozen=True)
class Change:
    """One thing that changed: `subject` is 'edge' or 'edge -> cloud', `what` a field or a verb."""

    subject: str
    what: str
    before: float | str | None
    after: float | str | None
    text: str


def find_changes(
    before: NetworkState, after: NetworkState, threshold: float = DEFAULT_THRESHOLD
) -> list[Change]:
    """Changes in the order of `after`, what is gone at the end.

    A figure changed if its intervals do not overlap and it differs by more than the share
    `threshold` of what it was.
    """
    return [*_server_changes(before, after), *_link_changes(before, after, threshold)]


def _server_changes(before: NetworkState, after: NetworkState) -> list[Change]:
    found = []
    for server in after.servers:
        old = before.server(server.name)
        if old is None:
            text = f"server '{server.name}' is new: {_words(server.state)}"
            found.append(Change(server.name, "appeared", None, server.state, text))
        elif old.state != server.state:
            text = f"server '{server.name}': {_words(old.state)} -> {_words(server.state)}"
            found.append(Change(server.name, "state", old.state, server.state, text))
    for server in before.servers:
        if after.server(server.name) is None:
            text = f"server '{server.name}' is gone"
            found.append(Change(server.name, "vanished", server.state, None, text))
    return found


def _link_changes(before: NetworkState, after: NetworkState, threshold: float) -> list[Change]:
    found = []
    for link in after.links:
        old = before.link(link.source, link.target)
        if old is None:
            text = f"{_name(link)} is measured for the first time"
            found.append(Change(_name(link), "appeared", None, "measured", text))
        else:
            found += [x for x in _figure_changes(old, link, threshold) if x is not None]
    for link in before.links:
        if after.link(link.source, link.target) is None:
            text = f"{_name(link)} is gone"
            found.append(Change(_name(link), "vanished", "measured", None, text))
    return found


def _figure_changes(old: LinkState, new: LinkState, threshold: float) -> list[Change | None]:
    return [_figure_change(_name(new), field, getattr(old, field), getattr(new, field), threshold)
            for field in _FIGURES]  # fmt: skip


def _figure_change(
    subject: str, field: str, old: Figure, new: Figure, threshold: float
) -> Change | None:
    unit, least = _FIGURES[field]
    difference = abs(new.value - old.value)
    if difference <= max(threshold * abs(old.value), least) or _overlap(old, new):
        return None
    share = f" ({100 * (new.value / old.value - 1):+.0f} %)" if old.value else ""
    text = f"{subject}: {field} {old.value:.4g} -> {new.value:.4g} {unit}{share}"
    return Change(subject, field, old.value, new.value, text)


def _overlap(a: Figure, b: Figure) -> bool:
    return _low(a) <= _high(b) and _low(b) <= _high(a)


def _low(figure: Figure) -> float:
    return figure.value if figure.low is None else figure.low


def _high(figure: Figure) -> float:
    return figure.value if figure.high is None else figure.high


def _name(link: LinkState) -> str:
    return f"{link.source} -> {link.target}"


def _words(state: str) -> str:
    return state.replace("_", " ")
