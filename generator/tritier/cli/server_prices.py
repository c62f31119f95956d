"""Prices of a plan's servers, as options of `tritier cost` and `tritier plan` give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from tritier.cli.cost_inputs import pairs_of
from tritier.costs import PlanPrices, Prices
from tritier.documents import PriceUsed, ServersSpec
from tritier.errors import InputError, did_you_mean

EgressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--egress",
        metavar="SERVER=PRICE",
        help="What leaves a server costs so much: a name in the price book or USD per GB.",
    ),
]


@dataclass(frozen=True)
class PriceOptions:
    """`--machine SERVER=MACHINE`, `--egress SERVER=PRICE`, the price of electricity; `whose` says
    in messages what the servers are of."""

    machine: Sequence[str] = ()
    egress: Sequence[str] = ()
    energy: str | None = None
    whose: str = "these servers"


def server_prices(
    names: Sequence[str], prices: Prices, spec: ServersSpec | None, options: PriceOptions
) -> PlanPrices:
    """Prices of servers: `--machine` before `price_per_hour_usd`. Who has neither pays electricity,
    if it has a price. Raises InputError for other servers, and names that are not in the book."""
    machines = dict(pairs_of("--machine", options.machine, "SERVER=MACHINE"))
    egress = dict(pairs_of("--egress", options.egress, "SERVER=PRICE"))
    for option, given in (("--machine", machines), ("--egress", egress)):
        for name in given:
            if name not in names:
                raise InputError(
                    f"{option} {name}: is none of {options.whose}{did_you_mean(name, names)}; "
                    f"these are {', '.join(names)}"
                )
    found = {
        name: price
        for name in names
        if (price := _machine_price(name, machines, prices, spec)) is not None
    }
    paid = options.energy is not None
    return PlanPrices(
        machines=found,
        egress={name: prices.usd_per_gb(price, name) for name, price in egress.items()},
        usd_per_kwh=prices.usd_per_kwh(options.energy) if options.energy is not None else 0.0,
        pays_energy=frozenset(name for name in names if paid and name not in found),
    )


def _machine_price(
    name: str, machines: dict[str, str], prices: Prices, spec: ServersSpec | None
) -> PriceUsed | None:
    if name in machines:
        prices.usd_per_hour(machines[name])
        return prices.noted(machines[name])
    given = None
    if spec is not None and name in spec.names:
        given = spec.server(name).price_per_hour_usd
    if given is None:
        return None
    prices.usd_per_hour(name, given)
    return prices.noted(name)
