"""What an inference is paid for, from prices of servers: the money of a placement problem."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tritier.costs.split import GB, HOUR_MS, KWH_JOULE, PlanUse, plan_cost
from tritier.planner.evaluate import Costs
from tritier.planner.problem import Floats, Money, Problem
from tritier.workflow.problem_links import TensorCosts, Transfers
from tritier.workflow.problem_request import Findings, PlanningRequest, listed


def check_prices(request: PlanningRequest, findings: Findings) -> None:
    """A fault for each server without a price, if prices count; a warning for free machine time."""
    prices = request.prices
    if prices is None:
        return
    for name in request.planned_servers:
        if name not in prices.machines and name not in prices.pays_energy:
            findings.faults.append(
                f"the price of '{name}' is unknown, and what an inference costs is asked for: give "
                "price_per_hour_usd in the servers file (0 if it is free), or --machine "
                f"{name}=MACHINE of the price book; of machines of your own, which cost their "
                "electricity, the price of that with --energy-price"
            )
    own = [name for name in request.planned_servers if name in prices.pays_energy]
    if own:
        findings.warnings.append(
            f"machine time of {listed(own)} is free, its electricity is paid: give --machine, or "
            "price_per_hour_usd in the servers file, unless it is your own"
        )


def money_of(request: PlanningRequest, tensors: TensorCosts, moving: Transfers) -> Money | None:
    """Prices as the planner counts them; None if they are not known."""
    prices = request.prices
    if prices is None:
        return None
    names = request.planned_servers
    per_ms, per_joule = np.zeros(len(names)), np.zeros(len(names))
    for k, name in enumerate(names):
        if name in prices.machines:
            per_ms[k] = prices.machines[name].usd / HOUR_MS
        if name in prices.pays_energy:
            per_joule[k] = prices.usd_per_kwh / KWH_JOULE
    per_byte = np.array([prices.egress.get(name, 0.0) / GB for name in names])
    plain = _crossing_bytes(tensors, moving)
    coded = np.where(tensors.paired[:, None, None], tensors.coded_bytes[:, None, None], plain)
    leaving = np.where(np.eye(len(names), dtype=bool), 0.0, per_byte[:, None])
    return Money(per_ms, per_joule, plain * leaving, coded * leaving)


def moved(
    problem: Problem, request: PlanningRequest, tensors: TensorCosts, moving: Transfers
) -> Problem:
    """The problem with other times of tensors, and what these cost."""
    return replace(
        problem,
        transfer_ms=moving.transfer_ms,
        coded_ms=moving.coded_ms,
        money=money_of(request, tensors, moving),
    )


def usd_of(
    request: PlanningRequest, problem: Problem, costs: Costs, sizes: Floats, coded: Floats
) -> float | None:
    """What `tritier cost --plan` says of a placement; None without prices. Bytes of tensors as they
    cross are `sizes` [m], and `coded` [m] in 8 bits."""
    if request.prices is None:
        return None
    sent: dict[tuple[str, str], float] = {}
    for flow, source, target, in_8_bits, _ in costs.crossings:
        link = problem.servers[source], problem.servers[target]
        sent[link] = sent.get(link, 0.0) + float((coded if in_8_bits else sizes)[flow])
    use = PlanUse(
        busy_ms=dict(zip(problem.servers, costs.server_ms, strict=True)),
        joule=dict(zip(problem.servers, costs.server_energy_joule, strict=True)),
        link_bytes={link: round(count) for link, count in sent.items()},
    )
    return plan_cost("", "", use, request.prices).usd_per_inference


def _crossing_bytes(tensors: TensorCosts, moving: Transfers) -> Floats:
    """Bytes of each tensor from server to server in its codec there; [m, n, n]. 0 where it has
    none that suits: it can't go there."""
    sizes = np.where(np.isfinite(tensors.sizes), tensors.sizes, 0.0)
    found: Floats = sizes[moving.codecs, np.arange(sizes.shape[1])[:, None, None]]
    return found
