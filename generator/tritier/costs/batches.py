"""Images on accelerators under a deadline: what one accelerator can do, and how work is spread
(docs/costs.md, section 6). Which accelerators are used is decided in `batch_program`.

An accelerator takes W(b) for its first run of mini-batch b and L(b) for each of t more: it does
(t + 1) b images in W(b) + t L(b). W and L are measured over mini-batches; b is one of those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tritier.documents.costs import BatchUse
from tritier.documents.workload import AcceleratorKind, BatchTable, BatchTiming
from tritier.errors import InputError

_MIB = 1 << 20
# A run that ends this share of the deadline after it ends in time: sums of times are rounded.
_EPS = 1e-9


@dataclass(frozen=True)
class Option:
    """A mini-batch: time of the first run and of each later one."""

    mini_batch: int
    warmup_ms: float
    latency_ms: float

    def uses(self, deadline_ms: float, most: int) -> int | None:
        """t: runs after the first by the deadline, at most `most`; None if even the first ends too
        late."""
        left = deadline_ms * (1 + _EPS) - self.warmup_ms
        if left < 0:
            return None
        return math.floor(min(float(most), left / self.latency_ms))

    def images(self, uses: int) -> int:
        """How many are done in the first and so many later runs."""
        return (uses + 1) * self.mini_batch

    def finished_ms(self, uses: int) -> float:
        """When the last of them is done."""
        return self.warmup_ms + uses * self.latency_ms


@dataclass(frozen=True)
class Kind:
    """Accelerators of one kind: how many there are, the mini-batches that fit into the memory of
    each, M, and the price of an hour if it is known."""

    name: str
    count: int
    options: tuple[Option, ...]
    max_uses: int
    usd_per_hour: float | None = None

    def best(self, deadline_ms: float) -> tuple[Option, int] | None:
        """The mini-batch and uses that do most images by a deadline; of equals the one that is
        done first. None if no first run ends by then."""
        found = [
            (option, uses)
            for option in self.options
            if (uses := option.uses(deadline_ms, self.max_uses)) is not None
        ]
        return max(found, key=_worth, default=None)

    def most_images(self, deadline_ms: float) -> int:
        """By a deadline, on one of them."""
        found = self.best(deadline_ms)
        return found[0].images(found[1]) if found else 0


def largest_mini_batch(memory_bytes: float, model_bytes: int, image_bytes: int) -> int:
    """MB: how many images fit beside the model; 0 if not even one does."""
    return max(0, math.floor((memory_bytes - model_bytes) / image_bytes))


def kind_of(
    item: AcceleratorKind, table: BatchTable, times: str, usd_per_hour: float | None = None
) -> Kind:
    """An accelerator of a scenario with its measured table; `times` is 'median', 'p95' or 'max'.

    Raises InputError if no measured mini-batch fits into its memory, or the table says nothing
    about the memory of an image and the accelerator's is limited.
    """
    rows = sorted(table.rows, key=lambda row: row.mini_batch)
    if item.memory_mib is not None:
        if table.image_bytes is None:
            raise InputError(
                f"accelerator '{item.name}': memory_mib needs the memory of an image: give "
                f"image_bytes in the batch table '{item.table}'"
            )
        most = largest_mini_batch(item.memory_mib * _MIB, table.model_bytes, table.image_bytes)
        smallest = rows[0].mini_batch
        rows = [row for row in rows if row.mini_batch <= most]
        if not rows:
            need = (table.model_bytes + smallest * table.image_bytes) / _MIB
            raise InputError(
                f"accelerator '{item.name}': no measured mini-batch fits into {item.memory_mib:g} "
                f"MiB; the smallest, {smallest}, needs {need:.1f} MiB"
            )
    options = (
        Option(row.mini_batch, _time(row.warmup, times), _time(row.latency, times)) for row in rows
    )
    return Kind(item.name, item.count, tuple(options), item.max_uses, usd_per_hour)


def without_spread(table: BatchTable, times: str) -> bool:
    """Whether the table lacks the asked-for times somewhere, so that medians stand in."""
    if times == "median":
        return False
    timings = [timing for row in table.rows for timing in (row.warmup, row.latency)]
    return any(getattr(timing, f"{times}_ms") is None for timing in timings)


def most_images(used: Iterable[Kind], deadline_ms: float) -> int:
    """By a deadline, on one accelerator of each kind given; a kind may stand several times."""
    return sum(kind.most_images(deadline_ms) for kind in used)


def all_of(kinds: Iterable[Kind]) -> list[Kind]:
    """A kind for each accelerator."""
    return [kind for kind in kinds for _ in range(kind.count)]


def least_deadline_ms(used: Sequence[Kind], images: int) -> float | None:
    """The earliest time by which these accelerators can do so many images, exactly: it is the end
    of a run. None if they never can, by M."""
    if most_images(used, math.inf) < images:
        return None
    high = max(option.finished_ms(kind.max_uses) for kind in used for option in kind.options)
    # Halving, then the end of the last run that is needed by then.
    low = 0.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if most_images(used, middle) >= images:
            high = middle
        else:
            low = middle
    ends = [found[0].finished_ms(found[1]) for kind in used if (found := kind.best(high))]
    return max(end for end in ends if end <= high * (1 + 2 * _EPS))


def spread(used: Sequence[Kind], images: int | None, deadline_ms: float) -> tuple[BatchUse, ...]:
    """What each accelerator does so that all is done as early as possible, or most images by the
    deadline if none are asked for. Accelerators of a kind are numbered from 1."""
    end = deadline_ms
    if images is not None:
        end = least_deadline_ms(used, images) or deadline_ms
    numbers: dict[str, int] = {}
    rows = []
    for kind in used:
        found = kind.best(end)
        if found is None:  # the others are enough
            continue
        option, uses = found
        numbers[kind.name] = numbers.get(kind.name, 0) + 1
        rows.append(
            BatchUse(
                accelerator=f"{kind.name} {numbers[kind.name]}",
                mini_batch=option.mini_batch,
                uses=uses,
                images=option.images(uses),
                finished_ms=option.finished_ms(uses),
            )
        )
    return tuple(rows)


def _worth(found: tuple[Option, int]) -> tuple[int, float]:
    option, uses = found
    return option.images(uses), -option.finished_ms(uses)


def _time(timing: BatchTiming, times: str) -> float:
    value = getattr(timing, f"{times}_ms")
    return timing.median_ms if value is None else float(value)
