"""How overlapping tiles become one picture: windows by which their pixels count, and a strip in which they are summed. No I/O.

A window is of whole numbers, so a sum of pixels times weights is exact as long as it has no more than 53 bits: what all tiles
agree on comes out as it went in, to the last bit, in whatever order they came, and a pixel's shares sum to 1 at the edges, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

BLENDS = ("cosine", "linear", "crop")
UNITS = 1 << 10  # the weight of a window's middle, along each side

Floats = NDArray[np.float64]


def window(shape: tuple[int, int], blend: str) -> Floats:
    """How much each pixel of a tile counts: whole numbers, at least 1, most in the middle.  → (height, width)

    cosine: a bell, which reaches the tile's edge without a bend. linear: a pyramid. crop: how deep a pixel lies in the tile,
    for only the tile in which it lies deepest is taken.
    """
    if blend not in BLENDS:
        raise ConfigError(f"blend={blend!r}: expected one of {', '.join(BLENDS)}")
    down, right = (_side(length, blend) for length in shape)
    weights: Floats = np.outer(down, right)
    return weights


def _side(length: int, blend: str) -> Floats:
    middles: Floats = (np.arange(length) + 0.5) / length
    if blend == "cosine":
        weights = np.sin(np.pi * middles) ** 2
    elif blend == "linear":
        weights = 1 - np.abs(2 * middles - 1)
    else:
        return np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    whole: Floats = np.maximum(np.rint(UNITS * weights), 1)
    return whole


def depth(height: int, block: int) -> int:
    """Rows of pixels that a strip holds: the blocks that one row of tiles can reach into."""
    return (-(-(height - 1) // block) + 1) * block


class Strip:
    """Rows of pixels into which tiles are blended from the top down. It holds only those that another tile may still reach.

    bands: of what is blended.
    shape: height and width of a tile.
    width: pixels, across.
    block: pixels a side; rows come out so many at a time.
    top: the row with which it begins, a multiple of `block`.
    """

    def __init__(self, bands: int, shape: tuple[int, int], width: int, block: int, top: int, blend: str) -> None:
        self.window, self.crop, self.block, self.top = window(shape, blend), blend == "crop", block, top
        self.sums = np.zeros((bands, depth(shape[0], block), width))
        self.weights = np.zeros(self.sums.shape[1:])

    @property
    def nbytes(self) -> int:
        """Of memory, whatever is blended."""
        return self.sums.nbytes + self.weights.nbytes

    def add(self, row: int, col: int, values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> None:
        """A tile, (bands, height, width), whose upper left pixel is here; columns beyond the strip are left out.

        valid: (height, width), where it is to count; everywhere unless given.
        """
        height, width = self.window.shape
        down, first, end = row - self.top, max(col, 0), min(col + width, self.weights.shape[1])
        if not 0 <= down <= self.weights.shape[0] - height:
            raise ValueError(f"row {row} is not among those that are held, from {self.top} on: tiles come from the top down")
        there = (slice(down, down + height), slice(first, end))
        here = (slice(None), slice(first - col, end - col))
        weights, values = self.window[here], values[:, here[0], here[1]]
        if valid is not None:
            weights = np.where(valid[here], weights, 0)
            values = np.where(valid[here], values, 0)  # NaN there is no number of ours
        sums, total = self.sums[:, *there], self.weights[there]
        if self.crop:
            deeper = weights > total
            np.copyto(sums, values, where=deeper)
            np.maximum(total, weights, out=total)
        else:
            sums += values.astype(np.float64) * weights
            total += weights

    def finished(self, before: int) -> Iterator[tuple[int, Floats, NDArray[np.bool_]]]:
        """Rows of blocks that no tile beginning in this row of pixels, or below it, reaches: each once.

        Gives a row's number (its first row of pixels / block), what was blended, (bands, block, width), and where anything
        came to, (block, width).
        """
        while self.top + self.block <= before:
            sums, weights = self.sums[:, : self.block], self.weights[: self.block]
            covered = weights > 0
            yield self.top // self.block, sums.copy() if self.crop else sums / np.where(covered, weights, 1), covered
            for array in (self.sums, self.weights):
                for row in range(self.block, array.shape[-2], self.block):  # NumPy would copy what overlaps
                    array[..., row - self.block : row, :] = array[..., row : row + self.block, :]
                array[..., -self.block :, :] = 0
            self.top += self.block
