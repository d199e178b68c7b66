"""In which order an area is worked through that is larger than memory: strips of blocks, from the top of each down. No I/O.

A strip is no wider than what memory holds. Tiles that reach into two of them are read for both. A row of blocks of a strip is
what is finished at once; these rows have numbers, so that work that was cut off goes on with the first that is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..tiling.grid import ON_LINE, Grid
from .blending import depth

BLOCK = 128  # pixels a side of what is written
HELD = 128_000_000  # bytes that a strip may hold while it is blended; but it is at least four tiles wide
WIDEST = 64  # blocks across a strip

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """A strip: blocks from one column to another (excluded), and the tiles that reach into it."""

    first: int
    end: int
    tiles: Ints
    """Positions of the tiles, row by row from the top, and in a row from the left."""
    top: int
    """The first row of blocks that a tile reaches into."""
    bottom: int
    """The first below all tiles."""
    number: int
    """Of its first row, among those of all strips."""


@dataclass(frozen=True, eq=False)
class Area:
    """Tiles, and the blocks that they reach into.

    cols, rows: of each tile's upper left pixel, counted from the first block's.
    size: a tile's height and width.
    corner: column and row of the first block's upper left pixel on the grid.
    across, down: numbers of blocks.
    """

    cols: Ints
    rows: Ints
    size: tuple[int, int]
    corner: tuple[int, int]
    across: int
    down: int

    @classmethod
    def of(cls, grid: Grid, cols: Ints, rows: Ints) -> Area:
        """The area of tiles at these places of a grid. Blocks are counted from the grid's origin."""
        x, y = (_in_pixels(place, ratio) for place, ratio in zip((cols, rows), _ratios(grid), strict=True))
        height, width = grid.shape
        left, top = (int(one.min()) // BLOCK * BLOCK for one in (x, y))
        right, bottom = int(x.max()) + width, int(y.max()) + height
        return cls(x - left, y - top, (height, width), (left, top), -(-(right - left) // BLOCK), -(-(bottom - top) // BLOCK))

    def parts(self, bands: int) -> list[Part]:
        """The strips, from the west, for so many bands."""
        wide, found, number = self.widest(bands), list[Part](), 0
        height, width = self.size
        order = np.lexsort((self.cols, self.rows))
        for first in range(0, self.across, wide):
            end = min(first + wide, self.across)
            cols = self.cols[order]
            tiles = order[(cols < end * BLOCK) & (cols + width > first * BLOCK)]
            if not len(tiles):
                continue
            top, bottom = int(self.rows[tiles[0]]) // BLOCK, -(-(int(self.rows[tiles[-1]]) + height) // BLOCK)
            found.append(Part(first, end, tiles, top, bottom, number))
            number += bottom - top
        return found

    def widest(self, bands: int) -> int:
        """Blocks across a strip, for so many bands."""
        height, width = self.size
        column = 8 * (bands + 1) * depth(height, BLOCK) * BLOCK  # bytes
        return int(min(max(HELD // column, -(-4 * width // BLOCK)), max(WIDEST, -(-4 * width // BLOCK))))

    def block(self, row: int, col: int) -> int:
        """The number of a block."""
        return row * self.across + col


def _ratios(grid: Grid) -> Iterator[float]:
    height, width = grid.shape
    down, right = grid.in_steps(*grid.shape)
    yield width / right
    yield height / down


def _in_pixels(places: Ints, ratio: float) -> Ints:
    """Places in steps of the lattice as pixels."""
    pixels = np.rint(places * ratio)
    if (np.abs(places * ratio - pixels) > ON_LINE * np.maximum(1, np.abs(pixels))).any():
        raise ConfigError(
            f"the grid's steps are {ratio:g} pixels wide, so that the pixels of overlapping tiles lie between each other's: "
            "tiles that are blended have to share their pixels (Grid(step=…) of whole pixels)"
        )
    whole: Ints = pixels.astype(np.int64)
    return whole
