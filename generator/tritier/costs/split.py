"""What an inference of a split model costs: machine time on every server, electricity, egress
(docs/costs.md, section 5). Pure functions of figures that were predicted or measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tritier.costs.inference import HOUR_S
from tritier.documents.comparison import Comparison
from tritier.documents.costs import EgressCost, PlanCost, PriceUsed, ServerCost
from tritier.documents.figures import Source
from tritier.documents.planning import PlanReport
from tritier.errors import InputError

HOUR_MS = HOUR_S * 1000.0
KWH_JOULE = 3.6e6
GB = 1e9
# A rate that is that much too high is rounded.
_EPS = 1e-9


@dataclass(frozen=True)
class PlanUse:
    """What one inference of a plan takes: ms and joule on each server, bytes over each link.

    `busy_ms` has the servers that take part: those with layers, and the entry. `bottleneck_ms` is
    the time of the busiest server or link, None if it is not known; `infer_per_s` what the plan can
    do in all where servers compute for several requests at once, 0 if that is not known.
    `assumed` names what was only predicted although figures are measured.
    """

    busy_ms: Mapping[str, float]
    joule: Mapping[str, float] = field(default_factory=dict)
    link_bytes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    bottleneck_ms: float | None = None
    figures: Source = "predicted"
    infer_per_s: float = 0.0
    assumed: tuple[str, ...] = ()

    @property
    def most_per_hour(self) -> float | None:
        """The highest rate; None if it is not known."""
        if not self.bottleneck_ms:
            return None
        return max(HOUR_MS / self.bottleneck_ms, self.infer_per_s * HOUR_S)


@dataclass(frozen=True)
class PlanPrices:
    """Machines by server (in USD per hour, left out where time is free), egress by server (per
    10^9 bytes that leave it), electricity (per kWh) and the servers whose electricity is paid
    besides: what is rented contains it."""

    machines: Mapping[str, PriceUsed] = field(default_factory=dict)
    egress: Mapping[str, float] = field(default_factory=dict)
    usd_per_kwh: float = 0.0
    pays_energy: frozenset[str] = frozenset()


def plan_cost(
    plan_id: str, model: str, use: PlanUse, prices: PlanPrices, per_hour: float | None = None
) -> PlanCost:
    """Cost of an inference.

    Besides, what it costs if the servers serve nothing else: at `per_hour` requests, at most what
    the plan can do (InputError above that), or at the highest rate if that is left out.
    """
    servers = tuple(_server(name, use, prices) for name in use.busy_ms)
    links = tuple(_link(pair, count, prices) for pair, count in use.link_bytes.items())
    machine = sum(item.machine_usd for item in servers)
    energy = sum(item.energy_usd for item in servers)
    egress = sum(item.usd for item in links)
    rate = _rate(use, per_hour)
    hourly = sum(prices.machines[name].usd for name in use.busy_ms if name in prices.machines)
    return PlanCost(
        plan_id=plan_id,
        model=model,
        figures=use.figures,
        servers=servers,
        links=links,
        machine_usd=machine,
        energy_usd=energy,
        egress_usd=egress,
        usd_per_inference=machine + energy + egress,
        alone_usd=None if rate is None else hourly / rate + energy + egress,
        alone_per_hour=rate,
    )


def use_of_report(report: PlanReport, entry: str) -> PlanUse:
    """What the planner predicted. It may have looked at servers that got no layers: they take no
    part, but for the entry, which apps call."""
    servers = [item for item in report.servers if item.layers or item.server == entry]
    return PlanUse(
        busy_ms={item.server: item.compute_ms for item in servers},
        joule={item.server: item.energy_joule for item in servers},
        link_bytes={(item.source, item.target): item.bytes for item in report.links},
        bottleneck_ms=report.figures.bottleneck_ms,
        infer_per_s=max((item.infer_per_s for item in report.throughput), default=0.0),
    )


def use_of_comparison(comparison: Comparison, entry: str) -> PlanUse:
    """What was measured, or predicted if nothing was. A server is busy while it serves components:
    copies in and out, as Triton counts them, included. Bytes that were not measured are those
    that were predicted. Energy of each server is not known here."""
    busy: dict[str, float] = {}
    assumed: list[str] = []
    measured = comparison.measured
    for row in comparison.components:
        time = row.predicted_ms if row.measured is None else row.measured.mean_ms
        busy[row.server] = busy.get(row.server, 0.0) + time
        assumed += [f"component '{row.id}'"] if row.measured is None else []
    sent: dict[tuple[str, str], int] = {}
    for wire in comparison.wires:
        count = wire.predicted_bytes if wire.measured_bytes is None else wire.measured_bytes
        pair = (wire.source, wire.target)
        sent[pair] = sent.get(pair, 0) + count
        if wire.measured_bytes is None:
            assumed.append(f"bytes from '{wire.source}' to '{wire.target}'")
    figures: Source = "predicted" if measured is None else "measured"
    if measured is None:
        assumed = []
    busy.setdefault(entry, 0.0)
    return PlanUse(busy, link_bytes=sent, figures=figures, assumed=tuple(dict.fromkeys(assumed)))


def _server(name: str, use: PlanUse, prices: PlanPrices) -> ServerCost:
    price = prices.machines.get(name)
    joule = use.joule.get(name, 0.0)
    paid = name in prices.pays_energy
    return ServerCost(
        server=name,
        price=price,
        busy_ms=use.busy_ms[name],
        machine_usd=use.busy_ms[name] / HOUR_MS * (price.usd if price else 0.0),
        energy_joule=joule,
        energy_usd=joule / KWH_JOULE * prices.usd_per_kwh if paid else 0.0,
    )


def _link(pair: tuple[str, str], count: int, prices: PlanPrices) -> EgressCost:
    source, target = pair
    usd = count / GB * prices.egress.get(source, 0.0)
    return EgressCost.model_validate({"from": source, "to": target, "bytes": count, "usd": usd})


def _rate(use: PlanUse, per_hour: float | None) -> float | None:
    most = use.most_per_hour
    if per_hour is None or most is None:
        return most if per_hour is None else per_hour
    if per_hour > most * (1 + _EPS):
        raise InputError(
            f"--rate {per_hour:g}: the plan can do {most:.4g} inferences an hour; its busiest "
            f"server or link takes {use.bottleneck_ms:.4g} ms of each: lower the rate"
        )
    return per_hour
