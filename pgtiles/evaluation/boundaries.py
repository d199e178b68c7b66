"""Boundaries of classes, and whether a predicted one lies near a true one. No I/O.

A pixel of a class is boundary where one of its four neighbours is known to be of another class. Near means that the two
pixels' centres are no further apart than the tolerance. A tile comes with a margin, so that its own edge is no boundary.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .metrics import Found, Ints

Truths = NDArray[np.bool_]
Reach = tuple[float, float]  # the tolerance in pixels: down, across

ROUNDED = 1e-9  # of the tolerance: by so much a distance may be above it


class BoundaryTally:
    """For each class: boundary pixels in the truth, in the prediction, and how many of each lie near one of the other."""

    def __init__(self) -> None:
        self.counts: dict[int, Ints] = {}

    def add(self, truth: Ints, predicted: Ints, known: Truths, reach: Reach, margin: tuple[int, int]) -> None:
        """A tile and a margin of so many pixels around it, (height, width). known: where both say which class it is."""
        inner = tuple(slice(m, size - m) for m, size in zip(margin, known.shape, strict=True))
        for value in np.union1d(truth[known], predicted[known]).tolist():
            true, found = (boundary(array == value, known) for array in (truth, predicted))
            sides = (true[inner], found[inner], (true & near(found, reach))[inner], (found & near(true, reach))[inner])
            counted = np.array([np.count_nonzero(side) for side in sides], np.int64)
            self.counts[value] = self.counts.get(value, np.zeros(4, np.int64)) + counted

    def merge(self, other: BoundaryTally) -> None:
        """Take in what others counted."""
        for value, counts in other.counts.items():
            self.counts[value] = self.counts.get(value, np.zeros(4, np.int64)) + counts

    def found(self) -> dict[int, Found]:
        """What follows for each class that was met."""
        return {value: Found(*counts.tolist()) for value, counts in sorted(self.counts.items())}


def margin_of(reach: Reach) -> tuple[int, int]:
    """How many pixels around a tile are to be known: as far as the tolerance reaches, and one that tells a boundary."""
    return math.floor(reach[0] * (1 + ROUNDED)) + 1, math.floor(reach[1] * (1 + ROUNDED)) + 1


def boundary(inside: Truths, known: Truths) -> Truths:
    """Pixels inside, with a neighbour that is known and outside."""
    inside = inside & known
    outside = known & ~inside
    beside = np.zeros_like(outside)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    return inside & beside


def near(there: Truths, reach: Reach) -> Truths:
    """Pixels no further from one that is there than the reach, from centre to centre.  (H, W) → (H, W)"""
    found = np.zeros_like(there)
    if not there.any():
        return found
    down, across = (side * (1 + ROUNDED) for side in reach)
    height, width = there.shape
    before = np.zeros((height, width + 1), np.int32)
    np.cumsum(there, axis=1, out=before[:, 1:])
    columns = np.arange(width)
    for step in range(-min(math.floor(down), height - 1), min(math.floor(down), height - 1) + 1):
        half = math.floor(across * math.sqrt(max(0.0, 1 - (step / down) ** 2))) if step else math.floor(across)
        low, high = np.maximum(columns - half, 0), np.minimum(columns + half + 1, width)
        wide = before[:, high] > before[:, low]
        found[max(step, 0) : height + min(step, 0)] |= wide[max(-step, 0) : height - max(step, 0)]
    return found
