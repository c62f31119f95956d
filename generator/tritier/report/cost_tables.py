"""Tables that reports of costs, capacity and sharing have in common."""

from __future__ import annotations

from collections.abc import Sequence

from tritier.documents.costs import PriceUsed, ServerlessCost, StreamCost
from tritier.report.parts import Evidence, Table, number, table


def prices_table(name: str, prices: Sequence[PriceUsed], key: str) -> Table:
    """Prices with their sources."""
    return table(
        f"{key}-prices", f"{name}: prices that were used",
        ("name", "USD", "per", "from", "as of"),
        [(x.name, number(x.usd), x.unit, x.source, str(x.date or "")) for x in prices],
        Evidence("USD", "configured"),
        folded=True,
    )  # fmt: skip


def streams_table(title: str, streams: Sequence[StreamCost], key: str) -> Table:
    """Ways to serve streams."""
    return table(
        f"{key}-streams", title,
        ("way", "machine", "sharers", "machines", "USD per stream and month", "USD per month",
         "latency ms", "note"),
        [(x.name, x.machine, str(x.sharers), str(x.machines), number(x.usd_per_stream),
          number(x.usd_per_month), number(x.latency_ms),
          "; ".join([*(["cheapest within the limits"] if x.best else []), *x.broken]))
         for x in streams],
        Evidence("USD, ms", "predicted from configured prices"),
    )  # fmt: skip


def break_even_table(name: str, costs: Sequence[ServerlessCost], key: str) -> Table:
    """Serverless beside machines that are always on."""
    return table(
        f"{key}-break-even",
        f"{name}: requests per hour below which serverless is cheaper",
        ("serverless", "always on", "all cold", "all warm", "at random", "machine can do"),
        [(x.name, y.machine, number(y.cold_per_hour), number(y.warm_per_hour),
          "never" if y.per_hour is None else number(y.per_hour), number(y.infer_per_hour))
         for x in costs for y in x.break_even],
        Evidence("requests per hour", "predicted from given times and configured prices"),
    )  # fmt: skip
