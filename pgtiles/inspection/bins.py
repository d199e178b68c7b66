"""How often which values were met: whole numbers one by one, floats in buckets. No I/O.

Buckets of floats narrow with their size, so that a quantile is off by a share of itself at most, and counts of two parts are
just added: DDSketch, Masson, Rim and Lee, PVLDB 12 (2019). The bucket is read off the float's own bits, which the authors call
linear interpolation.
"""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

PLACES = 13  # lowest bits of a float32 that its bucket leaves out, of 23 behind the point
PAGE = 2 ** (23 - PLACES)  # buckets between two powers of two
ERROR = 2.0 ** (PLACES - 24)  # of a float's quantile, relative: half a bucket's width

Counts = NDArray[np.int64]


class Bins(Protocol):
    """How often which values were met."""

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values, at least one."""

    def merge(self, other: Self) -> None:
        """Take in what others counted."""

    def met(self) -> tuple[Counts, Counts]:
        """The places that have counts, in ascending order of their values, and the counts."""

    def values(self, places: Counts) -> NDArray[np.float64]:
        """What stands for the counts at these places."""

    def ends(self, places: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Between which values those counted at these places lie."""


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
        places = values.astype(np.int64) - self.low
        first = int(places.min())
        found = np.bincount(places - first)
        self.counts[first : first + len(found)] += found

    def merge(self, other: WholeBins) -> None:
        """Take in what others counted."""
        self.counts += other.counts

    def met(self) -> tuple[Counts, Counts]:
        """The places that have counts, and the counts."""
        places = np.flatnonzero(self.counts)
        return places, self.counts[places]

    def values(self, places: Counts) -> NDArray[np.float64]:
        """The numbers counted at these places."""
        return (places + self.low).astype(np.float64)

    def ends(self, places: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The numbers, twice: there is nothing between."""
        return self.values(places), self.values(places)


class FloatBins:
    """Floats, each counted with those within `ERROR` of the bucket's middle.

    Of 2^19 buckets a band meets few, so they are kept by pages, those between two powers of two.
    """

    def __init__(self) -> None:
        self.pages: dict[int, Counts] = {}

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values, at least one; beyond float32 they count as its greatest."""
        largest = np.finfo(np.float32).max
        bits = np.ascontiguousarray(np.clip(values, -largest, largest), np.float32).view(np.uint32)
        ascending = np.where(bits >> 31, ~bits, bits | np.uint32(2**31))  # as unsigned numbers these order as the floats do
        places = (ascending >> PLACES).astype(np.int64)
        first, last = int(places.min()) // PAGE, int(places.max()) // PAGE
        found = np.bincount(places - first * PAGE, minlength=(last + 1 - first) * PAGE).reshape(-1, PAGE)
        for page in np.flatnonzero(found.any(axis=1)).tolist():
            self._add(first + page, found[page])

    def _add(self, page: int, counts: Counts) -> None:
        if page in self.pages:
            self.pages[page] += counts
        else:
            self.pages[page] = counts.copy()

    def merge(self, other: FloatBins) -> None:
        """Take in what others counted."""
        for page, counts in other.pages.items():
            self._add(page, counts)

    def met(self) -> tuple[Counts, Counts]:
        """The places that have counts, in ascending order of their values, and the counts."""
        own = {page: np.flatnonzero(self.pages[page]) for page in sorted(self.pages)}
        none = [np.empty(0, np.int64)]
        places = np.concatenate(none + [page * PAGE + there for page, there in own.items()])
        return places, np.concatenate(none + [self.pages[page][there] for page, there in own.items()])

    def values(self, places: Counts) -> NDArray[np.float64]:
        """The middle of the buckets at these places; 0 where it is too small for float32 to be precise."""
        low, high = self._bounds(places)
        middle = (low + high) / 2
        return np.where(np.abs(middle) < np.finfo(np.float32).tiny, 0.0, middle)

    def ends(self, places: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The buckets' own ends; what is beyond float32 is in its last ones."""
        low, high = self._bounds(places)
        largest = np.finfo(np.float32).max
        return np.where(low <= -largest, -np.inf, low), np.where(high >= largest, np.inf, high)

    @staticmethod
    def _bounds(places: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        first = places.astype(np.uint32) << PLACES
        ends = []
        for ascending in (first, first | np.uint32(2**PLACES - 1)):
            bits = np.where(ascending >> 31, ascending & np.uint32(2**31 - 1), ~ascending)
            ends.append(bits.view(np.float32).astype(np.float64))
        return ends[0], ends[1]
