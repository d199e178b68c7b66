"""What a layer's rows become: the arrays of a batch, and how each row is pasted into them. Pure: no database, no I/O.

A `Sheet` says what a layer gives for each tile, and travels with it to the workers. A `Page` is the sheet for one batch while
its rows come in. A row is (tile, n, value, data), in the order in which rows are pasted; data is a fragment, a raster that
already lies on the tile's pixels, or what else the layer's own SQL makes of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..tiling.tiles import Tiles
from .wkb import Layout, Raster, decode

EXACT = 2**53  # rows bring values as float8, which holds whole numbers below it
STRIDE = 2**20  # n of a burned row: its class's or band's place, from 0, times this, and the row's own number there
UNBOUNDED = (
    "a geometry has a coordinate that is not a number, infinite or far beyond the Earth, so nobody knows what it covers: mend "
    "it in its table, or leave it out of the query"
)
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64")
ALIGNED = 1e-3  # px: what lies nearer than this to the lattice lies on it; ST_Union's own tolerance

Window = tuple[int, int, int, int]  # first and last row, first and last column, the last ones excluded
Arrays = dict[str, NDArray[Any] | list[NDArray[Any]]]
Zeros = Callable[[tuple[int, ...], str], NDArray[Any]]  # of a shape and a dtype, as np.zeros


class Page(Protocol):
    """A layer's arrays for the tiles of one batch."""

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        """Paste a row; whether anything of it lies in the tile. Raises `DataError` where it does not fit."""

    def arrays(self, name: str) -> Arrays:
        """What the batch holds, by its keys: an array with a row a tile, or a list with an array a tile where it is ragged."""


class Sheet(Protocol):
    """What a layer gives for each tile: its shape (None where it is ragged) and dtype."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one tile."""

    @property
    def dtype(self) -> str:
        """By NumPy's name."""

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> Page:
        """An empty page for these tiles. zeros: makes the arrays that the batch will hold."""


@dataclass(frozen=True)
class Mask:
    """Burned features: a tile is (height, width), or (bands, height, width). A fragment says where, the row's value says what,
    and its n, where there are bands, in which; else of which part it is.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: float
    ignored: float = 0  # the value of pixels beyond the coverage
    beneath: int = 0  # how many parts, the first ones, are no features, but what is ignored around them
    coverage: int | None = None  # the part that says where anything is known

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> Page:
        """An empty page for these tiles."""
        return _MaskPage(self, tiles, zeros)


class Ground:
    """Where the tiles of a batch lie, for fragments that lie on their pixels."""

    def __init__(self, tiles: Tiles) -> None:
        bounds = tiles.bounds
        self.srid, self.shape = tiles.grid.srid, tiles.grid.shape
        self.scale = (tiles.grid.pixel[0], -tiles.grid.pixel[1])
        self.corners = list(zip(bounds[:, 0].tolist(), bounds[:, 3].tolist(), strict=True))  # x, y of the upper left
        self.layout: Layout | None = (
            None  # of the last raster, and by how many pixels such rasters miss the lattice at their end
        )
        self.stretch = 0.0

    def window(self, raster: Raster, tile: int) -> tuple[Window, tuple[int, int]] | None:
        """Where in the tile the raster lies, and the row and column of the tile at which it begins; None where it misses it."""
        (x, y), (sx, sy), (height, width), layout = self.corners[tile], self.scale, self.shape, raster.layout
        across, down = (raster.upper_left[0] - x) / sx, (raster.upper_left[1] - y) / sy
        left, top = round(across), round(down)
        if layout is not self.layout:
            self.layout, self.stretch = layout, self._stretch(layout)
        slip = max(abs(across - left), abs(down - top)) + self.stretch
        if slip > ALIGNED:
            raise DataError(
                f"a raster of SRID {raster.srid}, scale {raster.scale}, skew {raster.skew} does not lie on the tile's pixels, "
                f"SRID {self.srid}, scale {self.scale} ({slip:.3g} px off)"
            )
        y0, y1 = max(top, 0), min(top + layout.height, height)
        x0, x1 = max(left, 0), min(left + layout.width, width)
        return ((y0, y1, x0, x1), (top, left)) if y0 < y1 and x0 < x1 and layout.bands else None

    def _stretch(self, layout: Layout) -> float:
        """By how many pixels more than its first one a raster's last pixel is off; infinite where it is of another kind."""
        if layout.srid != self.srid or layout.skew != (0, 0):
            return math.inf
        (sx, sy), (x, y) = self.scale, layout.scale
        return max(abs(x / sx - 1) * layout.width, abs(y / sy - 1) * layout.height)


class _MaskPage:
    def __init__(self, sheet: Mask, tiles: Tiles, zeros: Zeros) -> None:
        self.ground = Ground(tiles)
        self.array = filled(zeros((len(tiles), *sheet.shape), sheet.dtype), sheet.fill)
        self.sheet, self.covered = sheet, None if sheet.coverage is None else np.zeros(self.array.shape, np.bool_)

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        if not data:
            raise DataError(UNBOUNDED)
        raster = decode(data)
        if not (window := self.ground.window(raster, tile)):
            return False
        (y0, y1, x0, x1), (top, left) = window
        part = n // STRIDE
        burned = raster.pixels[0, y0 - top : y1 - top, x0 - left : x1 - left].view(np.bool_)
        if self.covered is not None and part == self.sheet.coverage:
            self.covered[tile, y0:y1, x0:x1] |= burned
            return False
        band = (part,) if self.array.ndim == 4 else ()
        target = self.array[(tile, *band, slice(y0, y1), slice(x0, x1))]
        if not fits(value, target.dtype) or (abs(value) >= EXACT and target.dtype.kind != "f"):
            raise DataError(
                f"{f'band {band[0] + 1}: ' if band else ''}value {_plainly(value)} does not fit dtype={target.dtype.name!r}"
                f"{': from 2^53 on, whole numbers are not exact' if fits(value, target.dtype) else ''}"
            )
        np.copyto(target, target.dtype.type(value), where=burned)
        return part >= self.sheet.beneath

    def arrays(self, name: str) -> Arrays:
        if self.covered is not None:
            np.copyto(self.array, self.array.dtype.type(self.sheet.ignored), where=~self.covered)
        return {name: self.array}


def check_dtype(dtype: str | None, *more: str) -> None:
    """Raise `ConfigError` where a layer can't have this dtype. more: names that the layer takes besides."""
    if dtype is not None and dtype not in (*DTYPES, *more):
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join((*DTYPES, *more))}")


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether the dtype can hold the value: to the unit where that is whole, and less than 2^53."""
    if dtype.kind == "f":
        if not math.isfinite(value):
            return True
        with np.errstate(over="ignore"):
            held = float(dtype.type(value))
        return math.isfinite(held) and (held == value or value != int(value) or abs(value) >= EXACT)
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _plainly(value: float) -> str:
    """With all its digits, but none that say nothing."""
    return str(value).removesuffix(".0")


def filled(array: NDArray[Any], fill: float | tuple[float, ...]) -> NDArray[Any]:
    """The array, of zeros so far, with the fill in each of its pixels: one value, or one a band."""
    if np.any(fill):
        array[...] = np.reshape(fill, (-1, 1, 1)) if isinstance(fill, tuple) else fill
    return array
