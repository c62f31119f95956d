"""Limits of noise as rows of a program, from sets of layers that may be quantized, or term by term.

By sets: a weight for each of some allowed sets, which add up to 1. A layer is quantized only as far
as sets that contain it have weight. If every subset of an allowed set is allowed too, the largest
sets are enough: where all layers of a choice are quantized entirely, each set with weight holds all
of them. Else every allowed set gets a weight, and a layer is quantized exactly as far as its sets
have weight, so that whole choices leave one set only. Either way the weights may be fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tritier.planner.noise_sets import TOLERANCE, NoiseLimit, NoiseRow
from tritier.planner.pulp_rows import Rows, Sum, safe

# More sets than this make a larger program than terms do.
MOST_SETS = 4096


def add_noise(
    rows: Rows, noise: NoiseLimit, quantized: Sequence[Sum], masks: Sequence[int] | None = None
) -> None:
    """Allow the masks of quantized layers that `noise` allows, `quantized[i]` being bit i.

    `masks` are those to choose from, if others are known to be of no use; where every subset of an
    allowed mask is allowed, a subset of one of them may be chosen too.
    """
    if not noise.limits and masks is None:
        return
    closed = noise.is_tabulated and is_closed(noise)
    if masks is None and noise.is_tabulated:
        sets = noise.largest if closed else tuple(int(s) for s in np.flatnonzero(noise.feasible))
        masks = sets if len(sets) <= MOST_SETS else None
    if masks is not None:
        _add_sets(rows, masks, quantized, exact=not closed)
    else:
        add_terms(rows, noise, quantized)


def useful_masks(noise: NoiseLimit, largest: Sequence[int]) -> list[int] | None:
    """The masks to choose from, if all that is useful lies in some of the largest allowed ones;
    None if there is no table of masks, or it is too large."""
    if not (noise.limits and noise.is_tabulated):
        return None
    if is_closed(noise):
        return list(largest)
    inside = np.zeros(1 << noise.count, dtype=bool)
    masks = np.arange(1 << noise.count)
    for mask in largest:
        inside |= masks & ~mask == 0
    found = [int(mask) for mask in np.flatnonzero(noise.feasible & inside)]
    return found if len(found) <= MOST_SETS else None


def is_closed(noise: NoiseLimit) -> bool:
    """Whether every subset of an allowed mask is allowed."""
    masks = np.arange(1 << noise.count)
    return all(
        not np.any(noise.feasible[masks[masks >> bit & 1 == 1]] & ~noise.feasible[low])
        for bit in range(noise.count)
        for low in [masks[masks >> bit & 1 == 0]]
    )


def add_terms(
    rows: Rows, noise: NoiseLimit, quantized: Sequence[Sum], *, published: bool = False
) -> None:
    """One row per output, and one for each refused mask; see `load_sum` for `published`."""
    for index, given in enumerate(noise.rows):
        row, name = given, f"noise_{index}_{safe(given.output)}"
        padded = row.budget + TOLERANCE * abs(row.budget)
        if row.budget < 0:  # nothing quantized is allowed by any budget
            row = replace(row, constant=row.constant - padded)
        load = load_sum(rows, row, quantized, name, published=published)
        rows.limit(name, load, 0.0 if row.budget < 0 else padded)
    for mask in sorted(noise.refused):
        refuse(rows, mask, quantized, f"refused_{mask}")


def refuse(rows: Rows, mask: int, quantized: Sequence[Sum], name: str) -> None:
    """Forbid exactly this mask: at least one layer differs from it."""
    if not mask:
        return
    differing = Sum()
    for bit, layer in enumerate(quantized):
        if mask >> bit & 1:
            differing.constant += 1.0
            differing.add(layer, -1.0)
        else:
            differing.add(layer)
    rows.at_least(name, differing, 1.0)


def load_sum(
    rows: Rows, row: NoiseRow, quantized: Sequence[Sum], name: str, *, published: bool = False
) -> Sum:
    """The noise of one output, where less is better, as a sum with new variables for products.

    A product is held from the side only from which a solver would draw it away: from below if its
    factor is positive, from above if it is negative. `published`: from both, as whole numbers.
    """
    load = Sum()
    constant = row.constant
    for term, value in sorted(row.terms.items()):
        bits = [bit for bit in range(len(quantized)) if term >> bit & 1]
        if not bits:
            constant += value
        elif len(bits) == 1:
            load.add(quantized[bits[0]], value)
        elif value:
            product = _product(rows, f"{name}_q{'_'.join(map(str, bits))}",
                               [quantized[bit] for bit in bits],
                               above=published or value > 0, below=published or value < 0,
                               binary=published)  # fmt: skip
            load.add(product, value)
    if constant > 0 or published:
        load.add(_at_least_each(rows, quantized, f"{name}_any", published), constant)
    elif constant < 0:
        some = rows.variable(f"{name}_some")
        rows.at_most(f"{name}_some_of", some, Sum.of(quantized))
        load.add(some, constant)
    return load


def _at_least_each(rows: Rows, quantized: Sequence[Sum], name: str, both: bool) -> Sum:
    some = rows.variable(name, binary=both)
    for bit, layer in enumerate(quantized):
        rows.at_least(f"{name}_{bit}", some, layer)
    if both:
        rows.at_most(f"{name}_of", some, Sum.of(quantized))
    return some


def _product(
    rows: Rows, name: str, factors: Sequence[Sum], *, above: bool, below: bool, binary: bool
) -> Sum:
    """A variable that is at least the product (`above`), at most the product (`below`)."""
    product = rows.variable(name, binary=binary)
    if above:
        least = Sum.of(factors)
        least.constant -= len(factors) - 1
        rows.at_least(f"{name}_all", product, least)
    if below:
        for index, factor in enumerate(factors):
            rows.at_most(f"{name}_each{index}", product, factor)
    return product


def _add_sets(rows: Rows, masks: Sequence[int], quantized: Sequence[Sum], *, exact: bool) -> None:
    weights = {mask: rows.variable(f"set_{mask}") for mask in dict.fromkeys(masks)}
    rows.equal("sets", Sum.of(weights.values()), 1.0)
    for bit, layer in enumerate(quantized):
        holding = Sum.of(weight for mask, weight in weights.items() if mask >> bit & 1)
        if exact:
            rows.equal(f"sets_{bit}", layer, holding)
        else:
            rows.at_most(f"sets_{bit}", layer, holding)
