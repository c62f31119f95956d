"""Which subsets of the layers to measure. A subset is a bit mask: bit i is layer i of the model.

The design tells what the fit needs: the singles give the first order, 20 random subsets of rising
size how layers add up. Nested chains (the first k layers, the last k) share more work, but tell
less: see decision 016. It has 33 subsets or so for 12 layers and 109 for 88.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from tritier.errors import InputError

# Of so few layers nested chains are measured, which leaves some subsets to verify with.
_FEW = 4
_RANDOM = 20
_TRIES = 50  # to draw a subset of some size that is not there yet
# Streams of a seed: what is drawn for one use must not tell of another.
_DESIGN, _MORE, _VERIFICATION = range(3)


def design(count: int, seed: int = 0, more: int = 0) -> list[int]:
    """The subsets to fit to: all singles, all layers, and random ones of rising size, drawn by the
    seed; and `more` random ones of all sizes. Raises InputError without layers."""
    every = _every(count)
    found = dict.fromkeys([*(1 << i for i in range(count)), every])
    if count <= _FEW:
        found |= dict.fromkeys([every >> (count - k) for k in range(2, count)])
        found |= dict.fromkeys([every ^ (every >> k) for k in range(2, count)])
    else:
        draw = np.random.default_rng((seed, _DESIGN))
        for step in range(1, _RANDOM + 1):
            size = min(max(round(count * step / (_RANDOM + 1)), 2), count - 1)
            tries = (_drawn(draw, count, size) for _ in range(_TRIES))
            found |= dict.fromkeys([mask for mask in tries if mask not in found][:1])
    return [*found, *_of_all_sizes(count, more, np.random.default_rng((seed, _MORE)), found)]


def verification(count: int, number: int, seed: int, without: Collection[int]) -> list[int]:
    """Distinct random subsets, neither empty nor in `without`; fewer where there are not as many.

    All sizes are equally likely, from one layer to all: a plan quantizes few layers under a strict
    limit and many under a loose one. If all subsets were equally likely, nearly all would be half
    full, and figures and margin would say nothing of the others.
    """
    return _of_all_sizes(count, number, np.random.default_rng((seed, _VERIFICATION)), without)


def _of_all_sizes(
    count: int, number: int, draw: np.random.Generator, without: Collection[int]
) -> list[int]:
    every = _every(count)
    taken = {mask for mask in without if 0 < mask <= every}
    if number >= every - len(taken):
        left = [mask for mask in range(1, every + 1) if mask not in taken]
        return [left[i] for i in draw.permutation(len(left))]
    found: dict[int, None] = {}  # keeps the order
    while len(found) < number:
        mask = _drawn(draw, count, int(draw.integers(1, count + 1)))
        if mask not in taken:
            found[mask] = None
    return list(found)


def random_design(count: int, number: int, seed: int) -> list[int]:
    """The subsets of the published way: distinct, all equally likely, and so many (1000) that a
    regression needs no others. Fewer where there are not as many."""
    every = _every(count)
    draw = np.random.default_rng(seed)
    found: dict[int, None] = {}
    while len(found) < min(number, every):
        mask = int.from_bytes(draw.bytes(-(-count // 8)), "little") & every
        if mask:
            found[mask] = None
    return list(found)


def layers_of(layers: Sequence[str], mask: int) -> tuple[str, ...]:
    """Names of the layers that are in a subset, in their order."""
    return tuple(name for index, name in enumerate(layers) if mask >> index & 1)


def subset_of(layers: Sequence[str], names: Iterable[str]) -> int:
    """The subset that holds the layers of these names, each given once."""
    return sum(1 << layers.index(name) for name in names)


def in_prefix_order(subsets: Iterable[int], count: int) -> list[int]:
    """The order in which an executor that caches what the first layers computed reuses most:
    neighbours differ as late in the model as can be. The earliest layer is most significant."""
    return sorted(subsets, key=lambda mask: [mask >> i & 1 for i in range(count)])


def _every(count: int) -> int:
    if count < 1:
        raise InputError(f"{count} layers to measure the noise of: 1 at least is needed")
    return (1 << count) - 1


def _drawn(draw: np.random.Generator, count: int, size: int) -> int:
    """A random subset of that size."""
    return sum(1 << int(i) for i in draw.choice(count, size, replace=False))
