"""Prices by name: from a price book, or given with a run, and noted for the report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from tritier.documents.costs import PriceUsed
from tritier.documents.prices import EgressPrice, EnergyPrice, MachinePrice, PriceBook
from tritier.errors import InputError, did_you_mean

_Row = TypeVar("_Row", MachinePrice, EgressPrice, EnergyPrice)
_GIVEN = "given by hand"


def starter_book() -> PriceBook:
    """The dated price book that comes with this package."""
    return PriceBook.load(Path(__file__).with_name("prices.yaml"))


class Prices:
    """Looks prices up, and remembers those that were asked for."""

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._used: dict[PriceUsed, None] = {}

    @property
    def used(self) -> tuple[PriceUsed, ...]:
        """All prices that were asked for, in that order."""
        return tuple(self._used)

    def usd_per_hour(self, name: str, given: float | None = None) -> float:
        """Price of an hour of a machine, always on; `given` goes before the price book.

        Raises InputError for a name that is not in the book, or is serverless there.
        """
        if given is not None:
            return self._note(PriceUsed(name=name, usd=given, unit="hour", source=_GIVEN))
        row = self._machine(name)
        if row.serverless:
            raise InputError(
                f"machine '{name}' is serverless in the price book: give a machine that is always "
                "on, or put the run under `serverless`"
            )
        return self._note(
            PriceUsed(
                name=name, usd=row.usd_per_hour, unit="hour", source=row.source, date=row.date
            )
        )

    def usd_per_second(self, name: str, given: float | None = None) -> float:
        """Price of a second of a serverless worker; else as `usd_per_hour`."""
        if given is not None:
            return self._note(PriceUsed(name=name, usd=given, unit="second", source=_GIVEN))
        row = self._machine(name)
        if not row.serverless:
            raise InputError(
                f"machine '{name}' is not serverless in the price book: give one that is, or "
                "price_per_second_usd with the run"
            )
        return self._note(
            PriceUsed(
                name=name, usd=row.usd_per_second, unit="second", source=row.source, date=row.date
            )
        )

    def billing_step_s(self, name: str) -> float | None:
        """To multiples of what billed time is rounded up; None if it is not, or not known."""
        found = next((row for row in self.book.machines if row.name == name), None)
        return found.billing_step_s if found else None

    def usd_per_gb(self, name: str, server: str) -> float:
        """Egress price of 10^9 bytes that leave a server: a name in the book, or a number. Raises
        InputError."""
        if (given := _number(name)) is not None:
            own = f"egress of {server}"
            return self._note(PriceUsed(name=own, usd=given, unit="GB", source=_GIVEN))
        row = _named(self.book.egress, name, "egress price")
        return self._note(
            PriceUsed(
                name=name, usd=row.price_per_gb_usd, unit="GB", source=row.source, date=row.date
            )
        )

    def usd_per_kwh(self, name: str) -> float:
        """Price of electricity: a name in the book, or a number. Raises InputError."""
        if (given := _number(name)) is not None:
            return self._note(PriceUsed(name="electricity", usd=given, unit="kWh", source=_GIVEN))
        row = _named(self.book.energy, name, "energy price")
        return self._note(
            PriceUsed(
                name=name, usd=row.price_per_kwh_usd, unit="kWh", source=row.source, date=row.date
            )
        )

    def noted(self, name: str) -> PriceUsed:
        """The last price that was asked for of a machine; KeyError if none was."""
        found = [x for x in self._used if (x.unit, x.name) == ("hour", name)]
        if not found:
            raise KeyError(name)
        return found[-1]

    def _machine(self, name: str) -> MachinePrice:
        return _named(self.book.machines, name, "machine")

    def _note(self, price: PriceUsed) -> float:
        """The same price once, and as the last one."""
        self._used.pop(price, None)
        self._used[price] = None
        return price.usd


def _named(rows: Iterable[_Row], name: str, what: str) -> _Row:
    known = {row.name: row for row in rows}
    if name in known:
        return known[name]
    raise InputError(
        f"{what} '{name}' is not in the price book{did_you_mean(name, known)}; known are "
        f"{', '.join(known) or 'none'}"
    )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not 0 <= value < float("inf"):
        raise InputError(f"price {text}: allowed are numbers from 0")
    return value
