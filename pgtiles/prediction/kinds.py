"""What predictions are, and how they are stored as pixels. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .blending import Floats

KINDS = {"classes": ("uint8",), "probabilities": ("uint8", "float32"), "values": ("float32",)}  # and types of their pixels
TOP = 254  # what a probability of 1 becomes in 8 bits
EMPTY = 255  # nodata in 8 bits


@dataclass(frozen=True)
class Kind:
    """What the pixels of a run are.

    name: classes (the likeliest one's number), probabilities (a band for each class), or values, as the model gives them.
    bands: that the model gives.
    dtype: uint8, with 255 where nothing is predicted, and probabilities times 254; or float32, with NaN there.
    """

    name: str
    bands: int
    dtype: str

    @classmethod
    def of(cls, name: str, bands: int, dtype: str | None) -> Kind:
        """What is stored of a model that gives so many bands; `ConfigError` where that can't be."""
        if name not in KINDS:
            raise ConfigError(f"kind={name!r}: expected one of {', '.join(KINDS)}")
        allowed = KINDS[name]
        if dtype not in (None, *allowed):
            raise ConfigError(f"dtype={dtype!r}: expected {' or '.join(allowed)} for {name}")
        if name == "classes" and bands > EMPTY:
            raise ConfigError(f"the model gives {bands} classes: 8 bits hold {EMPTY}, as {EMPTY} is nodata")
        return cls(name, bands, dtype or allowed[0])

    @property
    def stored(self) -> int:
        """Bands of the table."""
        return 1 if self.name == "classes" else self.bands

    @property
    def nodata(self) -> float:
        """The value of pixels to which nothing was predicted."""
        return EMPTY if self.dtype == "uint8" else np.nan

    def pixels(self, blended: Floats, covered: NDArray[np.bool_]) -> NDArray[Any]:
        """What was blended, (bands, …), as it is stored."""
        stored: NDArray[Any] = blended
        if self.name == "classes":
            stored = blended > 0.5 if self.bands == 1 else blended.argmax(axis=0)[None]
        elif self.dtype == "uint8":
            stored = np.rint(blended * TOP)
        return np.where(covered, stored.astype(self.dtype), np.dtype(self.dtype).type(self.nodata))
