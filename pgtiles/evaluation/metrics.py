"""How far a prediction agrees with the truth: shares of counted pixels and objects, for each class and over all. No I/O.

All that is counted is which class was found how often where which class is. Counts of parts are added, in any order, so that a
map of any size is scored a tile at a time, and whatever is asked of the counts is the same for any cut into tiles.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALL = 256  # different values up to which pairs of them are counted without being sorted


class Tally:
    """How many pixels have which true and which predicted class."""

    def __init__(self) -> None:
        self.pairs: Counter[tuple[int, int]] = Counter()

    def add(self, truth: Ints, predicted: Ints) -> None:
        """Pixels, one by one in both."""
        if truth.size:
            self.pairs.update(_pairs(truth.reshape(-1), predicted.reshape(-1)))

    def merge(self, other: Tally) -> None:
        """Take in what others counted."""
        self.pairs.update(other.pairs)

    @property
    def true(self) -> set[int]:
        """The classes that were met in the truth."""
        return {true for true, _ in self.pairs}

    @property
    def predicted(self) -> set[int]:
        """The classes that were met in the prediction."""
        return {found for _, found in self.pairs}

    def confusion(self, values: Iterable[int] = ()) -> Confusion:
        """The counts as a matrix of the classes that were met, and of these."""
        known = sorted({*self.true, *self.predicted, *values})
        place = {value: number for number, value in enumerate(known)}
        counts = np.zeros((len(known), len(known)), np.int64)
        for (true, found), count in self.pairs.items():
            counts[place[true], place[found]] = count
        return Confusion(tuple(known), counts)


def _pairs(truth: Ints, predicted: Ints) -> dict[tuple[int, int], int]:
    low = min(int(truth.min()), int(predicted.min()))
    side = max(int(truth.max()), int(predicted.max())) - low + 1
    if side <= SMALL:
        values, true, found = np.arange(low, low + side), truth - low, predicted - low
    else:
        values, places = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
        true, found = np.split(places, 2)
    both = true * len(values) + found
    met, counts = np.unique(both, return_counts=True) if len(values) > SMALL else _counted(both)
    pairs = zip(values[met // len(values)].tolist(), values[met % len(values)].tolist(), strict=True)
    return dict(zip(pairs, counts.tolist(), strict=True))


def _counted(numbers: Ints) -> tuple[Ints, Ints]:
    """Which small numbers there are, and how often."""
    counts = np.bincount(numbers)
    met = np.flatnonzero(counts)
    return met, counts[met]


@dataclass(frozen=True, eq=False)
class Confusion:
    """Pixels by their true and their predicted class.

    Of each class there are `iou`, `f1`, `precision` and `recall`, (K,) in the order of `values`: NaN for one that is neither in
    the truth nor in the prediction, which is then in no mean either; 0 where there is none to share among. So has torchmetrics
    them.
    """

    values: tuple[int, ...]
    """The classes, ascending."""
    counts: Ints
    """(K, K): rows are the true class, columns the predicted one."""

    @property
    def pixels(self) -> int:
        """All that were compared."""
        return int(self.counts.sum())

    @property
    def right(self) -> Ints:
        """Pixels of each class that are found as it."""
        return np.diagonal(self.counts)

    @property
    def truth(self) -> Ints:
        """Pixels of each class in the truth."""
        return cast("Ints", self.counts.sum(axis=1))

    @property
    def predicted(self) -> Ints:
        """Pixels of each class in the prediction."""
        return cast("Ints", self.counts.sum(axis=0))

    @property
    def iou(self) -> Floats:
        """Intersection over union: pixels right, of those that are the class in the truth or in the prediction."""
        return self._of(self.right, self.truth + self.predicted - self.right)

    @property
    def f1(self) -> Floats:
        """The harmonic mean of precision and recall."""
        return self._of(2 * self.right, self.truth + self.predicted)

    @property
    def precision(self) -> Floats:
        """Of what is predicted as the class, the share that is it."""
        return self._of(self.right, self.predicted)

    @property
    def recall(self) -> Floats:
        """Of what is the class, the share that is predicted as it."""
        return self._of(self.right, self.truth)

    @property
    def accuracy(self) -> float:
        """The share of pixels that are right."""
        return share(int(self.right.sum()), self.pixels)

    @property
    def kappa(self) -> float:
        """Cohen's: how much of the way from what chance gives to perfect agreement; NaN where chance alone is perfect."""
        pixels = self.pixels
        chance = sum(a * b for a, b in zip(self.truth.tolist(), self.predicted.tolist(), strict=True))  # whole, and too large
        return share(pixels * int(self.right.sum()) - chance, pixels * pixels - chance)

    def mean(self, what: str) -> float:
        """The mean over classes, of those that are in the truth or in the prediction: of ``"iou"``, ``"f1"`` and so on."""
        each: Floats = getattr(self, what)
        return float(np.mean(each[~np.isnan(each)])) if not np.isnan(each).all() else math.nan

    def _of(self, above: Ints, below: Ints) -> Floats:
        there = self.truth + self.predicted > 0
        return np.where(there, above / np.maximum(below, 1), math.nan)


@dataclass(frozen=True)
class Found:
    """How much of what was predicted is right, and how much of what there is was found: of objects, or of boundaries."""

    truth: int
    """How much there is."""
    predicted: int
    """How much was predicted."""
    recalled: int
    """Of what there is, how much was found."""
    right: int
    """Of what was predicted, how much is right; of objects, which are matched one to one, the same number."""

    @property
    def precision(self) -> float:
        """Of what was predicted, the share that is right; 0 where nothing was."""
        return share(self.right, self.predicted) if self.predicted else (0.0 if self.truth else math.nan)

    @property
    def recall(self) -> float:
        """Of what there is, the share that was found; 0 where there is nothing to find."""
        return share(self.recalled, self.truth) if self.truth else (0.0 if self.predicted else math.nan)

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        both = self.precision + self.recall
        return 0.0 if both == 0 else 2 * self.precision * self.recall / both


def share(part: int, whole: int) -> float:
    """A share; NaN of nothing."""
    return part / whole if whole else math.nan


def matched(pairs: Sequence[tuple[str, str, float]]) -> list[float]:
    """IoU of the objects that belong together, of pairs (truth, prediction, IoU): one to one, the best pair first.

    Above an IoU of one half, and where objects of one side don't overlap, there is only one way to match them.
    """
    taken, found = (set[str](), set[str]()), list[float]()
    for true, predicted, iou in sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1])):
        if true not in taken[0] and predicted not in taken[1]:
            taken[0].add(true)
            taken[1].add(predicted)
            found.append(iou)
    return found
