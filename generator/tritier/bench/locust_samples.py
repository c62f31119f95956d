"""Every request of a load test, kept as it was: figures come from the samples themselves."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

RIGHT, FAILED, WRONG = 0, 1, 2
OUTCOMES = ("right", "failed", "wrong")
# Different messages that are kept; what comes later is counted together.
_MESSAGES = 20
OTHER_MESSAGES = "other messages"
_MESSAGE_LONGEST = 300
_FIELDS = (("sent_s", "d"), ("ms", "d"), ("outcome", "B"), ("tag", "H"))

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Tag:
    """What requests are told apart by; empty where it is not known."""

    request_class: str = ""
    plan: str = ""


@dataclass
class Samples:
    """Requests in the order in which they ended. `sent_s` counts from the start of the test,
    `ms` to the answer or the failure."""

    sent_s: array[float] = field(default_factory=lambda: array("d"))
    ms: array[float] = field(default_factory=lambda: array("d"))
    outcome: array[int] = field(default_factory=lambda: array("B"))
    tag: array[int] = field(default_factory=lambda: array("H"))
    tags: dict[Tag, int] = field(default_factory=dict)
    messages: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.ms)

    def add(self, sent_s: float, ms: float, outcome: int, tag: Tag, message: str = "") -> None:
        """One request that has ended."""
        self.sent_s.append(sent_s)
        self.ms.append(ms)
        self.outcome.append(outcome)
        self.tag.append(self._number(tag))
        if message:
            self._tell(message, 1)

    def merge(self, other: Samples) -> None:
        """Add the requests of another process."""
        numbers = [self._number(tag) for tag in other.tags]
        self.sent_s.extend(other.sent_s)
        self.ms.extend(other.ms)
        self.outcome.extend(other.outcome)
        self.tag.extend(numbers[number] for number in other.tag)
        for message, count in other.messages.items():
            self._tell(message, count)

    def shift(self, later_s: float) -> None:
        """Count from a start that was so much earlier."""
        if later_s:
            self.sent_s = array("d", (sent_s + later_s for sent_s in self.sent_s))

    def take(self) -> Samples:
        """What is here, which is then empty."""
        taken = Samples(self.sent_s, self.ms, self.outcome, self.tag, self.tags, self.messages)
        fresh = Samples()
        for name in ("sent_s", "ms", "outcome", "tag", "tags", "messages"):
            setattr(self, name, getattr(fresh, name))
        return taken

    def to_data(self) -> dict[str, Any]:
        """For a message between processes: numbers as bytes, texts and counts."""
        return {
            **{name: getattr(self, name).tobytes() for name, _ in _FIELDS},
            "tags": [[tag.request_class, tag.plan] for tag in self.tags],
            "messages": dict(self.messages),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Samples:
        """What `to_data` made; raises ValueError if it is damaged."""
        try:
            made = cls()
            for name, kind in _FIELDS:
                setattr(made, name, array(kind, data[name]))
            made.tags = {Tag(str(a), str(b)): k for k, (a, b) in enumerate(data["tags"])}
            made.messages = Counter({str(text): int(n) for text, n in data["messages"].items()})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"samples are damaged: {error}") from None
        lengths = {len(getattr(made, name)) for name, _ in _FIELDS}
        if len(lengths) != 1 or len(made.tags) != len(data["tags"]):
            raise ValueError("samples are damaged: their parts have different lengths")
        if any(n >= len(made.tags) for n in made.tag) or any(n > WRONG for n in made.outcome):
            raise ValueError("samples are damaged: a number is out of its range")
        return made

    def to_csv(self) -> str:
        """A line per request, by the time at which it was sent."""
        tags = list(self.tags)
        rows = sorted(zip(self.sent_s, self.ms, self.outcome, self.tag, strict=True))
        lines = ["sent_s,ms,outcome,class,plan"]
        lines += [
            f"{sent:.6f},{ms:.6f},{OUTCOMES[o]},{tags[t].request_class},{tags[t].plan}"
            for sent, ms, o, t in rows
        ]
        return "\n".join(lines) + "\n"

    def _number(self, tag: Tag) -> int:
        return self.tags.setdefault(tag, len(self.tags))

    def _tell(self, message: str, count: int) -> None:
        short = message[:_MESSAGE_LONGEST]
        known = short in self.messages or len(self.messages) < _MESSAGES
        self.messages[short if known else OTHER_MESSAGES] += count


def percentile(ordered: Sequence[float] | Times, percent: int) -> float:
    """The time of the one request that `percent` of 100 took as long as or less (nearest rank).

    `ordered` goes up and has at least one item; nothing is rounded or interpolated.
    """
    rank = -(-percent * len(ordered) // 100)
    return float(ordered[max(rank, 1) - 1])


def figures(ms: Times, outcome: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """The fields of LoadTimes of these requests."""
    right = np.sort(ms[outcome == RIGHT])
    found: dict[str, Any] = {
        "requests": len(ms),
        "failures": int((outcome == FAILED).sum()),
        "wrong": int((outcome == WRONG).sum()),
    }
    if len(right) == 0:
        return found
    found["mean_ms"] = math.fsum(right) / len(right)
    if len(right) > 1:
        found["std_ms"] = float(right.std(ddof=1))
    found |= {f"p{p}_ms": percentile(right, p) for p in (50, 90, 95, 99)}
    return found | {"max_ms": float(right[-1])}
