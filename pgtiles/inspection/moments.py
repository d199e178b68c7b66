"""What is counted of bands and of masks, tile by tile, to be merged in any order. No I/O.

A tile is added whole. All that is kept are integers and exact fractions, so that the same tiles give the same bits, however
they were dealt to threads. That a mean and a spread can be put together from parts is due to Chan, Golub and LeVeque,
"Algorithms for computing the sample variance", The American Statistician 37 (1983).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .bins import Bins, Counts, FloatBins, WholeBins
from .clusters import Ratio

BINS = 256  # of a histogram, at most
LARGEST = 1e100  # whose square is added up without end, and far beyond what float32 holds
SMALL = 2**16  # classes up to here are counted without being sorted


class BandTally:
    """What is counted of a band. limits: of its whole numbers, where they are so few that each can be counted; else None."""

    def __init__(self, limits: tuple[int, int] | None) -> None:
        self.whole = limits is not None
        self.bins: Bins = WholeBins(*limits) if limits else FloatBins()
        self.absent = self.infinite = 0
        self.least, self.most = math.inf, -math.inf
        self.sum = Ratio()
        self.within = Fraction(0)  # squared distances from each tile's own mean
        self.between = Fraction(0)  # the tiles' squared means, as often as they have pixels

    def add(self, tile: NDArray[Any]) -> None:
        """A tile's pixels, floats, NaN where there is no data. Raises `DataError` where one can't be squared."""
        finite = np.isfinite(tile)
        values = tile if finite.all() else tile[finite]
        count = values.size
        infinite = int(np.isinf(tile).sum()) if count < tile.size else 0
        self.infinite += infinite
        self.absent += tile.size - count - infinite
        if not count:
            self.sum.add(0, 0)
            return
        low, high = float(values.min()) + 0.0, float(values.max()) + 0.0  # no -0.0, which equals 0.0 and prints otherwise
        if max(-low, high) > LARGEST:
            raise DataError(
                f"pixel value {high if high > LARGEST else low:g}: expected numbers up to {LARGEST:g}. If it is nodata, say so "
                "in the rasters: ST_SetBandNoDataValue"
            )
        self.least, self.most = min(self.least, low), max(self.most, high)
        self.bins.add(values)
        if self.whole:
            self.sum.add(int(values.sum(dtype=np.float64)), count)  # exact: below 2^53
            return
        mean = float(values.mean(dtype=np.float64))
        self.sum.add(count * Fraction(mean), count)
        self.within += Fraction(float(np.square(values.astype(np.float64) - mean).sum()))
        self.between += count * Fraction(mean) ** 2

    def merge(self, other: BandTally) -> None:
        """Take in what others counted."""
        self.bins.merge(other.bins)
        self.sum.merge(other.sum)
        self.absent, self.infinite = self.absent + other.absent, self.infinite + other.infinite
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)
        self.within, self.between = self.within + other.within, self.between + other.between

    @property
    def count(self) -> int:
        """Pixels with data."""
        return self.sum.below

    @property
    def std(self) -> float:
        """The standard deviation over all pixels, as of a whole population."""
        if not self.count:
            return math.nan
        if self.least == self.most:  # which the tiles' means, rounded, may miss
            return 0.0
        squares = self.within + self.between
        if self.whole:
            places, counts = self.bins.met()
            met = zip(self.bins.values(places).tolist(), counts.tolist(), strict=True)
            squares = Fraction(sum(int(value) ** 2 * count for value, count in met))
        return math.sqrt(max(Fraction(0), squares / self.count - (Fraction(self.sum.above) / self.count) ** 2))

    def quantiles(self, shares: tuple[float, ...]) -> tuple[float, ...]:
        """For each share the least value that so much of the pixels does not exceed; NaN without data."""
        if not self.count:
            return (math.nan,) * len(shares)
        places, counts = self.bins.met()
        ranks = [min(max(math.ceil(Fraction(str(share)) * self.count), 1), self.count) for share in shares]
        found = self.bins.values(places[np.searchsorted(np.cumsum(counts), ranks)])
        return tuple(np.clip(found, self.least, self.most).tolist())

    def histogram(self) -> tuple[list[int], list[float]]:
        """Counts between least and greatest value, and the edges, one more than counts; an edge belongs to the bin above it.

        Of floats, what a bucket counts is spread evenly over the edges between its ends, where it spans some.
        """
        if not self.count:
            return [], []
        places, met = self.bins.met()
        if self.whole:
            numbers = self.most - self.least + 1
            width = math.ceil(numbers / BINS)
            edges = self.least + width * np.arange(math.ceil(numbers / width) + 1.0)
        elif self.least == self.most:
            edges = np.array([self.least, np.nextafter(self.least, np.inf)])
        else:
            edges = np.linspace(self.least, self.most, BINS + 1)
        reached = np.append(0, np.cumsum(met))
        if self.whole:
            below = reached[np.searchsorted(self.bins.values(places), edges)]
        else:
            ends = np.clip(np.stack(self.bins.ends(places), axis=1), self.least, self.most).reshape(-1)
            below = np.rint(np.interp(edges, ends, np.repeat(reached, 2)[1:-1])).astype(np.int64)
        below[0], below[-1] = 0, self.count
        return np.diff(below).tolist(), edges.tolist()


class ClassTally:
    """What is counted of a mask. ignored: the value of pixels that are no class."""

    def __init__(self, ignored: float | None) -> None:
        self.ignored_value, self.ignored = ignored, 0
        self.pixels, self.tiles, self.pixels2 = 0, 0, 0  # of pixels that are not ignored
        self.classes: dict[int, ClassCount] = {}

    def add(self, tile: NDArray[np.integer[Any]], pixel: float) -> None:
        """A tile's pixels. pixel: what one of them is of the ground."""
        values, counts = _distinct(tile)
        kept = np.ones(len(values), bool) if self.ignored_value is None else values != self.ignored_value
        self.ignored += int(counts[~kept].sum())
        whole = int(counts[kept].sum())
        self.tiles += 1
        self.pixels += whole
        self.pixels2 += whole * whole
        for value, count in zip(values[kept].tolist(), counts[kept].tolist(), strict=True):
            self.classes.setdefault(value, ClassCount()).add(count, whole, pixel)

    def merge(self, other: ClassTally) -> None:
        """Take in what others counted."""
        for name in ("ignored", "pixels", "tiles", "pixels2"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for value, count in other.classes.items():
            self.classes.setdefault(value, ClassCount()).merge(count)

    def count_of(self, value: int) -> ClassCount:
        """What is counted of one class, nothing where it was not met."""
        return self.classes.get(value, ClassCount())

    def share(self, value: int) -> Ratio:
        """A class's share of the pixels that are not ignored."""
        met, ratio = self.count_of(value), Ratio()
        ratio.tiles, ratio.below, ratio.below2 = self.tiles, self.pixels, self.pixels2
        ratio.above, ratio.above2, ratio.across = Fraction(met.pixels), Fraction(met.pixels2), Fraction(met.across)
        return ratio


class ClassCount:
    """What is counted of one class."""

    def __init__(self) -> None:
        self.pixels = self.pixels2 = self.tiles = 0
        self.beside = 0  # pixels of the tiles in which the class is, whatever their class
        self.across = 0
        self.ground = Fraction(0)

    def add(self, count: int, whole: int, pixel: float) -> None:
        """So many of a tile's pixels."""
        self.tiles += 1
        self.pixels += count
        self.pixels2 += count * count
        self.beside += whole
        self.across += count * whole
        self.ground += count * Fraction(pixel)

    def merge(self, other: ClassCount) -> None:
        """Take in what others counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def _distinct(tile: NDArray[np.integer[Any]]) -> tuple[NDArray[Any], Counts]:
    """The values there are, and how often."""
    flat = tile.reshape(-1)
    if flat.min() < 0 or flat.max() >= SMALL:
        values, counts = np.unique(flat, return_counts=True)
        return values, counts.astype(np.int64)
    counts = np.bincount(flat)
    values = np.flatnonzero(counts)
    return values, counts[values].astype(np.int64)
