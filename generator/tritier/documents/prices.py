"""The price book: what machines, egress and electricity cost, each with its source and date."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tritier.documents.base import Document

Usd = Annotated[float, Field(ge=0)]
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
PriceName = Annotated[str, Field(pattern=NAME_PATTERN)]
# A day, a month or a year: as precise as the source is.
Date = Annotated[str, Field(pattern=r"^(\d{4}(-\d{2}(-\d{2})?)?|unknown)$")]
_SOURCE = Field(min_length=1, description="where the price was read")
_DATE = Field(description="when it was valid there: YYYY-MM-DD, YYYY-MM, YYYY or unknown")
_HOUR_S = 3600.0


class MachinePrice(Document):
    """A machine that can be rented: always on, or serverless (paid while requests run)."""

    name: PriceName = Field(description="how workloads and options call it")
    provider: str = Field(min_length=1)
    machine: str | None = Field(default=None, description="how the provider calls it")
    gpu: str | None = Field(default=None, description="left out if it has none")
    gpus: int = Field(default=0, ge=0, description="that the price is for, all together")
    gpu_memory_gb: float | None = Field(default=None, gt=0, description="of each GPU, as sold")
    memory_gb: float | None = Field(default=None, gt=0, description="of the host, as sold")
    vcpus: int | None = Field(default=None, ge=1)
    price_per_hour_usd: Usd | None = Field(default=None, description="either this")
    price_per_second_usd: Usd | None = Field(default=None, description="or this")
    serverless: bool = False
    billing_step_s: float | None = Field(
        default=None, gt=0, description="serverless: billed time is rounded up to multiples of it"
    )
    source: str = _SOURCE
    date: Date = _DATE
    note: str | None = None

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Two prices or none, GPUs without a name."""
        faults = []
        given = [k for k in ("price_per_hour_usd", "price_per_second_usd") if _is_set(data, k)]
        name = data.get("name", "?")
        if len(given) != 1:
            faults.append(
                f"machine '{name}': has {len(given)} prices; give price_per_hour_usd or "
                "price_per_second_usd"
            )
        if (data.get("gpu") is None) != (data.get("gpus", 0) == 0):
            faults.append(f"machine '{name}': gpu and gpus go together; give both or neither")
        if _is_set(data, "billing_step_s") and data.get("serverless") is not True:
            faults.append(f"machine '{name}': billing_step_s is for serverless machines only")
        return faults

    @property
    def usd_per_hour(self) -> float:
        """The price of an hour."""
        if self.price_per_hour_usd is not None:
            return self.price_per_hour_usd
        return (self.price_per_second_usd or 0.0) * _HOUR_S

    @property
    def usd_per_second(self) -> float:
        """The price of a second."""
        if self.price_per_second_usd is not None:
            return self.price_per_second_usd
        return (self.price_per_hour_usd or 0.0) / _HOUR_S


class EgressPrice(Document):
    """What it costs to send bytes out of a provider's network."""

    name: PriceName
    provider: str = Field(min_length=1)
    price_per_gb_usd: Usd = Field(description="a GB is 10^9 bytes")
    source: str = _SOURCE
    date: Date = _DATE
    note: str | None = None


class EnergyPrice(Document):
    """What electricity costs."""

    name: PriceName
    price_per_kwh_usd: Usd
    source: str = _SOURCE
    date: Date = _DATE
    note: str | None = None


class PriceBook(Document):
    """Prices in US dollars, without taxes."""

    title: ClassVar[str] = "price book"

    format: Literal["tritier/prices/1"] = "tritier/prices/1"
    hours_per_month: float = Field(default=730.0, gt=0, le=744, description="8760 / 12")
    machines: tuple[MachinePrice, ...] = ()
    egress: tuple[EgressPrice, ...] = ()
    energy: tuple[EnergyPrice, ...] = ()

    @classmethod
    def cross_faults(cls, data: dict[str, Any]) -> list[str]:
        """Names that stand twice, and the faults of its rows."""
        faults = []
        for key in ("machines", "egress", "energy"):
            rows = data.get(key)
            rows = [x for x in rows if isinstance(x, dict)] if isinstance(rows, list) else []
            counts = Counter(str(row["name"]) for row in rows if "name" in row)
            faults += [f"{key}: '{x}' stands {n} times; give it once" for x, n in counts.items()
                       if n > 1]  # fmt: skip
            if key == "machines":
                faults += [fault for row in rows for fault in MachinePrice.cross_faults(row)]
        return faults


def _is_set(data: dict[str, Any], key: str) -> bool:
    return data.get(key) is not None
