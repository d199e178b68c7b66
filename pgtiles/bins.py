"""How often which values were met: whole numbers one by one, floats in buckets. No I/O.

Buckets of floats narrow with their size, so that a quantile is off by a share of itself at most, and counts of two parts are
just added: DDSketch, Masson, Rim and Lee, PVLDB 12 (2019). The bucket is read off the float's own bits, which the authors call
linear interpolation.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

PLACES = 13  # lowest bits of a float32 that its bucket leaves out, of 23 behind the point
ERROR = 2.0 ** (PLACES - 24)  # of a float's quantile, relative: half a bucket's width

Counts = NDArray[np.int64]


class Bins(Protocol):
    """How often which values were met."""

    counts: Counts

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values, at least one."""

    def values(self, places: Counts) -> NDArray[np.float64]:
        """What stands for the counts at these places, in ascending order."""


class WholeBins:
    """Whole numbers from `low` to `high`, each counted by itself."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.counts = low, np.zeros(high - low + 1, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values, at least one. Raises `DataError` where one is not whole, or lies outside."""
        high = self.low + len(self.counts) - 1
        if not (self.low <= values.min() and values.max() <= high and (np.rint(values) == values).all()):
            outside = (values < self.low) | (values > high) | (np.rint(values) != values)
            raise DataError(
                f"pixel value {values[outside][0]:g}: expected whole numbers from {self.low} to {high}, the first rows' type. "
                "Select rows of one pixel type in a query"
            )
        _count(self.counts, values.astype(np.int64) - self.low)

    def values(self, places: Counts) -> NDArray[np.float64]:
        """The numbers counted at these places."""
        return (places + self.low).astype(np.float64)


class FloatBins:
    """Floats, each counted with those within `ERROR` of the bucket's middle."""

    def __init__(self) -> None:
        self.counts = np.zeros(2 ** (32 - PLACES), np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values, at least one; beyond float32 they count as its greatest."""
        largest = np.finfo(np.float32).max
        bits = np.ascontiguousarray(np.clip(values, -largest, largest), np.float32).view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))  # as unsigned numbers these order as the floats do
        _count(self.counts, (ascending >> PLACES).astype(np.int64))

    def values(self, places: Counts) -> NDArray[np.float64]:
        """The middle of the buckets at these places; 0 where it is too small for float32 to be precise."""
        first = places.astype(np.uint32) << PLACES
        ends = []
        for ascending in (first, first | np.uint32(2**PLACES - 1)):
            bits = np.where(ascending >> 31, ascending & np.uint32(2**31 - 1), ~ascending)
            ends.append(bits.view(np.float32).astype(np.float64))
        middle = (ends[0] + ends[1]) / 2
        return np.where(np.abs(middle) < np.finfo(np.float32).tiny, 0.0, middle)


def _count(counts: Counts, places: Counts) -> None:
    """Count places, of which there is one at least, without a look at the many that a tile does not reach."""
    first = int(places.min())
    found = np.bincount(places - first)
    counts[first : first + len(found)] += found
