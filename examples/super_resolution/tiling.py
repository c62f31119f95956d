"""Cuts a picture of any size into the fixed tiles of the network, and joins the answers.

Neighbouring tiles overlap by the context the network looks at, so the joined picture shows no
seams: it equals one run of the network over the whole picture, padded by reflection.
"""

from dataclasses import dataclass

import numpy as np
from photographs import UPSCALE, Plane

TILE = 224
"""Height and width of one tile that enters the network, in pixels."""

CONTEXT = 5
"""How far the network looks around a pixel, in pixels of the small picture: five convolutions of
3x3 look one pixel further each. Results nearer than this to the border of a tile are dropped."""

CORE = TILE - 2 * CONTEXT
"""Height and width of the part of a tile whose result is kept: 214 pixels."""


@dataclass(frozen=True)
class Grid:
    """How a picture of ``height`` x ``width`` pixels was cut into ``rows`` x ``columns`` tiles."""

    height: int
    width: int

    @property
    def rows(self) -> int:
        """Number of tiles from top to bottom."""
        return -(-self.height // CORE)

    @property
    def columns(self) -> int:
        """Number of tiles from left to right."""
        return -(-self.width // CORE)


def split(plane: Plane) -> tuple[Plane, Grid]:
    """Cut a plane ``(height, width)`` into tiles ``(rows * columns, 1, 224, 224)``, row by row."""
    grid = Grid(*plane.shape)
    below = CONTEXT + grid.rows * CORE - grid.height
    right = CONTEXT + grid.columns * CORE - grid.width
    padded = np.pad(plane, ((CONTEXT, below), (CONTEXT, right)), mode="reflect")
    tiles = [
        padded[row * CORE : row * CORE + TILE, column * CORE : column * CORE + TILE]
        for row in range(grid.rows)
        for column in range(grid.columns)
    ]
    return np.stack(tiles)[:, np.newaxis], grid


def join(tiles: Plane, grid: Grid) -> Plane:
    """Join enlarged tiles ``(rows * columns, 1, 672, 672)`` to ``(3 * height, 3 * width)``."""
    inner = slice(CONTEXT * UPSCALE, (CONTEXT + CORE) * UPSCALE)
    cores = tiles[:, 0, inner, inner]
    side = CORE * UPSCALE
    table = cores.reshape(grid.rows, grid.columns, side, side).transpose(0, 2, 1, 3)
    whole = table.reshape(grid.rows * side, grid.columns * side)
    return np.ascontiguousarray(whole[: grid.height * UPSCALE, : grid.width * UPSCALE])
