"""What `tritier watch` decides, without any input or output: times and figures are arguments.

`Watcher.see` turns what was measured into needs: a server was lost or came back, a link changed by
a factor, requests take much longer or shorter than predicted. A need calls for a new plan.
`Watcher.weigh` decides whether what was found is worth a switch.

No flapping: a change counts when it was seen several times in a row; a need changes what later
measurements are compared with, so that it comes once; a switch must gain; between two switches lies
the hold time, which doubles each time that a switch leads back to a plan that was left of late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Pair = tuple[str, str]
NeedKind = Literal["server_lost", "server_joined", "link", "latency"]
# A plan is remembered for so many hold times after it was left; the hold time grows by at most 2^6.
_REMEMBERED_HOLDS, _MOST_DOUBLINGS = 10, 6


@dataclass(frozen=True)
class WatchSettings:
    """When to act.

    - `link_factor`, `latency_factor`: how far a figure is from what it was, either way.
    - `confirm`: how often in a row a change must be seen.
    - `min_requests`: fewer tell nothing of latency.
    - `min_gain`: share of the predicted latency that a switch must save.
    - `hold_s`: least time between two switches.
    """

    link_factor: float = 1.5
    latency_factor: float = 2.0
    confirm: int = 2
    min_requests: int = 10
    min_gain: float = 0.10
    hold_s: float = 10.0


@dataclass(frozen=True)
class Seen:
    """What one look found.

    - `live`: whether each server that was asked answered.
    - `missing`: how many models of what is deployed a live server lacks.
    - `links_mib_s`: bandwidth of those links that were probed in this look.
    - `latency_ms`: mean of `requests` requests since the last look, None if there was none.
    """

    live: Mapping[str, bool]
    missing: Mapping[str, int] = field(default_factory=dict)
    links_mib_s: Mapping[Pair, float] = field(default_factory=dict)
    latency_ms: float | None = None
    requests: int = 0


@dataclass(frozen=True)
class Need:
    """Why a new plan is looked for."""

    kind: NeedKind
    subject: str
    text: str


@dataclass(frozen=True)
class Todo:
    """What follows from a look: servers to load what they lack, and needs of a new plan."""

    reconcile: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True)
class Offer:
    """The best plan as things are, beside the deployed one; ms as predicted for things as they are.
    `deployed_ms` is infinite if the deployed plan can't work."""

    plan: str
    plan_ms: float
    deployed: str
    deployed_ms: float

    @property
    def gain(self) -> float:
        """Share of the latency that a switch saves; negative if it costs."""
        if math.isinf(self.deployed_ms):
            return 1.0
        return 1 - self.plan_ms / self.deployed_ms if self.deployed_ms > 0 else 0.0


@dataclass(frozen=True)
class Verdict:
    """What to do with an offer; after `hold`, ask again in `wait_s`."""

    kind: Literal["switch", "keep", "hold"]
    text: str
    wait_s: float = 0.0


class Watcher:
    """The state of a watch."""

    def __init__(
        self,
        settings: WatchSettings,
        links_mib_s: Mapping[Pair, float] | None = None,
        predicted_ms: float | None = None,
    ) -> None:
        self.settings = settings
        self.absent: frozenset[str] = frozenset()
        self._links = dict(links_mib_s or {})
        self._predicted_ms = predicted_ms
        self._usual_ratio = 1.0
        self._streaks: dict[object, int] = {}
        self._hold_until_s = -math.inf
        self._doublings = 0
        self._left_s: dict[str, float] = {}

    @property
    def suspects(self) -> tuple[Pair, ...]:
        """Links whose last figure was off: the next to probe."""
        return tuple(pair for pair in self._links if self._streaks.get(pair))

    def see(self, seen: Seen) -> Todo:
        """What follows from a look."""
        needs = [*self._servers(seen), *self._link_needs(seen), *self._latency(seen)]
        reconcile = tuple(name for name, count in seen.missing.items() if count)
        return Todo(reconcile, tuple(needs))

    def weigh(self, offer: Offer, now_s: float) -> Verdict:
        """What to do with an offer; `switched` is to be called when a switch was made."""
        settings = self.settings
        said = f"plan {offer.plan} is predicted to take {_ms(offer.plan_ms)}"
        if offer.plan == offer.deployed:
            return Verdict("keep", f"{said} and is deployed already: no switch")
        now = (
            f"{offer.deployed}, which is deployed, can't work now"
            if math.isinf(offer.deployed_ms)
            else f"{offer.deployed}, which is deployed, {_ms(offer.deployed_ms)}"
        )
        gain = f"{100 * offer.gain:.1f} %"
        if offer.gain <= settings.min_gain:
            least = f"{100 * settings.min_gain:g} %"
            return Verdict("keep", f"{said}, {now}: a gain of {gain}, not above {least}: no switch")
        if now_s < self._hold_until_s:
            wait_s = self._hold_until_s - now_s
            text = f"{said}, {now}: a gain of {gain}, but the last switch was a short time ago"
            return Verdict("hold", f"{text}: planning again in {wait_s:.1f} s", wait_s)
        return Verdict("switch", f"{said}, {now}: a gain of {gain}: switching")

    def switched(self, left: str, to: str, predicted_ms: float | None, now_s: float) -> None:
        """A switch was made from one plan to another, which is predicted to take so long."""
        hold_s = self.settings.hold_s * 2**self._doublings
        gone_s = now_s - self._left_s.get(to, -math.inf)
        if gone_s <= _REMEMBERED_HOLDS * hold_s:
            self._doublings = min(self._doublings + 1, _MOST_DOUBLINGS)
        elif now_s - self._hold_until_s > _REMEMBERED_HOLDS * hold_s:
            self._doublings = 0
        self._left_s[left] = now_s
        self._hold_until_s = now_s + self.settings.hold_s * 2**self._doublings
        self.expect(predicted_ms)

    def expect(self, predicted_ms: float | None) -> None:
        """What requests should take from now on."""
        self._predicted_ms, self._usual_ratio = predicted_ms, 1.0
        self._streaks.pop("latency", None)

    # -- needs --------------------------------------------------------------------------------

    def _servers(self, seen: Seen) -> list[Need]:
        needs = []
        for name, live in seen.live.items():
            if not self._confirmed(name, live == (name in self.absent)):
                continue
            if live:
                self.absent -= {name}
                needs.append(Need("server_joined", name, f"server '{name}' answers again"))
            else:
                self.absent |= {name}
                text = f"server '{name}' did not answer {self.settings.confirm} times"
                needs.append(Need("server_lost", name, text))
        return needs

    def _link_needs(self, seen: Seen) -> list[Need]:
        needs = []
        for pair, now in seen.links_mib_s.items():
            before = self._links.get(pair)
            if before is None or self.absent & {*pair}:
                self._links[pair] = now
                continue
            if self._confirmed(pair, _is_off(now, before, self.settings.link_factor)):
                self._links[pair] = now
                verb = "fell" if now < before else "rose"
                name = f"{pair[0]} -> {pair[1]}"
                text = f"{name} {verb} from {before:.3g} to {now:.3g} MiB/s"
                needs.append(Need("link", name, text))
        return needs

    def _latency(self, seen: Seen) -> list[Need]:
        if (
            seen.latency_ms is None
            or seen.requests < self.settings.min_requests
            or not self._predicted_ms
        ):
            return []
        ratio = seen.latency_ms / self._predicted_ms
        if not self._confirmed(
            "latency", _is_off(ratio, self._usual_ratio, self.settings.latency_factor)
        ):
            return []
        self._usual_ratio = ratio
        text = (
            f"{seen.requests} requests took {_ms(seen.latency_ms)} on average, "
            f"{_ms(self._predicted_ms)} were predicted"
        )
        return [Need("latency", "latency", text)]

    def _confirmed(self, subject: object, is_so: bool) -> bool:
        """Whether it was so for the last `confirm` times; then counting starts anew."""
        count = self._streaks.get(subject, 0) + 1 if is_so else 0
        self._streaks[subject] = 0 if count >= self.settings.confirm else count
        return count >= self.settings.confirm


def reasons(needs: Sequence[Need]) -> str:
    """All needs in one sentence, the newest word on each subject."""
    return " and ".join({need.subject: need.text for need in needs}.values())


def _is_off(now: float, before: float, factor: float) -> bool:
    if now <= 0 or before <= 0:
        return now != before
    return max(now / before, before / now) >= factor


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"
