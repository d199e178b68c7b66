"""The commonest of so many times so many pixels, for classes in larger ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 1024  # whole numbers within so many of each other are counted as they are, all others are numbered first
CHUNK = 2048  # columns that are counted at a time, so that what there may be to count stays small


def commonest(pixels: NDArray[Any], valid: NDArray[np.bool_], side: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Of each side × side pixels (row, column) the commonest that is valid, the least of those that are equally common; and
    whether there is one.
    """
    shape = (pixels.shape[0] // side, pixels.shape[1] // side)
    found, there = np.zeros(shape, pixels.dtype), np.zeros(shape, np.bool_)
    step = max(1, CHUNK // side)
    for row in range(shape[0]):
        for left in range(0, shape[1], step):
            count = min(step, shape[1] - left)
            at = slice(row * side, (row + 1) * side), slice(left * side, (left + count) * side)
            known = valid[at]
            every = bool(known.all())
            block = np.broadcast_to(np.repeat(np.arange(count), side), known.shape)
            values, block = (pixels[at].ravel(), block.ravel()) if every else (pixels[at][known], block[known])
            if len(values):
                table, codes = _coded(values)
                counts = np.bincount(block * len(table) + codes, minlength=count * len(table)).reshape(count, -1)
                best = counts.argmax(axis=1)  # the first of equals, and the table ascends
                found[row, left : left + count] = table[best]
                there[row, left : left + count] = counts[np.arange(count), best] > 0
    return found, there


def _coded(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A table that ascends and holds all the values, and the place of each in it."""
    low, high = values.min(), values.max()
    if values.dtype.kind in "iu" and int(high) - int(low) < NEAR:
        table = np.arange(int(low), int(high) + 1).astype(values.dtype)
        return table, values.astype(np.intp) - int(low)
    table, codes = np.unique(values, return_inverse=True)
    return table, codes.reshape(-1)
