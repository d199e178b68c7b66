"""How far a share or a mean over a sample of tiles may be from that over all of them. No I/O.

Pixels of one tile resemble one another: what was drawn are tiles, not pixels. So the margin is that of a ratio over clusters of
unequal size: Cochran, "Sampling Techniques", 3rd edition (1977), chapters 6 and 9A.
"""

from __future__ import annotations

import math
from fractions import Fraction
from statistics import NormalDist

CONFIDENCE = 0.95


class Ratio:
    """A sum over another one, and how far that of a sample of the tiles may be from that of all."""

    def __init__(self) -> None:
        self.tiles = self.below = self.below2 = 0
        self.above = self.above2 = self.across = Fraction(0)

    def add(self, above: Fraction | int, below: int) -> None:
        """A tile's sum, and how many pixels it is of."""
        self.tiles += 1
        self.below += below
        self.below2 += below * below
        self.above += above
        self.above2 += above * above
        self.across += above * below

    def merge(self, other: Ratio) -> None:
        """Take in what others counted."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def value(self) -> float:
        """The ratio; NaN where there is nothing below."""
        return float(Fraction(self.above) / self.below) if self.below else math.nan

    def interval(self, of: float) -> tuple[float, float]:
        """Where the ratio over all of so many tiles lies, by `CONFIDENCE`; NaN where fewer than two tiles say something.

        of: infinite where tiles are drawn without end.
        """
        if not self.below or (self.tiles < 2 and self.tiles < of):
            return math.nan, math.nan
        if self.tiles >= of:
            return self.value, self.value
        ratio = Fraction(self.above) / self.below
        squares = self.above2 - 2 * ratio * self.across + ratio * ratio * self.below2  # of what each tile has too much
        left = 1 - Fraction(self.tiles, int(of)) if of < math.inf else 1
        variance = left * squares * self.tiles / ((self.tiles - 1) * Fraction(self.below) ** 2)
        margin = student(CONFIDENCE, self.tiles - 1) * math.sqrt(variance)
        return self.value - margin, self.value + margin


def unmet(tiles: int) -> float:
    """The greatest share of tiles that may have what so many of them, drawn at random, have not, by `CONFIDENCE`."""
    return 1 - math.pow(1 - CONFIDENCE, 1 / tiles)


def student(confidence: float, freedom: int) -> float:
    """How many standard errors to either side a confidence takes in, of so many degrees of freedom.

    By Student's distribution: exactly for one and two degrees of freedom, to 0.2 % for more at 95 % (Abramowitz and Stegun,
    "Handbook of Mathematical Functions", 26.7.5).
    """
    if freedom == 1:
        return math.tan(math.pi * confidence / 2)
    if freedom == 2:
        return confidence * math.sqrt(2 / (1 - confidence**2))
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / float(freedom**power) for power, term in enumerate(terms))
