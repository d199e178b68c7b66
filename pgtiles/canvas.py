"""What a layer's rows become: the arrays of a batch, and how each row is pasted into them. Pure: no database, no I/O.

A `Sheet` says what a layer gives for each tile, and travels with it to the workers. A `Page` is the sheet for one batch while
its rows come in. A row is (tile, n, value, data), in the order in which rows are pasted; data is a fragment, a raster that
already lies on the tile's pixels, or what else the layer's own SQL makes of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .grid import Tiles
from .wkb import Raster, decode

STRIDE = 2**20  # n of a burned row: its class's or band's place, from 0, times this, and the row's own number there
ALIGNED = 1e-3  # px: what lies nearer than this to the lattice lies on it; ST_Union's own tolerance

Window = tuple[int, int, int, int]  # first and last row, first and last column, the last ones excluded
Arrays = dict[str, NDArray[Any] | list[NDArray[Any]]]


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

    def page(self, tiles: Tiles) -> Page:
        """An empty page for these tiles."""


@dataclass(frozen=True)
class Pixels:
    """Rasters, copied: a tile is (bands, height, width), or (height, width)."""

    shape: tuple[int, ...]
    dtype: str
    fill: float  # where nothing is pasted
    holes: bool  # pixels of the nodata value always show what lies below; else only where rasters overlap

    def page(self, tiles: Tiles) -> Page:
        """An empty page for these tiles."""
        return _PixelsPage(self, tiles)


@dataclass(frozen=True)
class Mask:
    """Burned features: a tile is (height, width), or (bands, height, width). A fragment says where, the row's value says what,
    and its n, where there are bands, in which.
    """

    shape: tuple[int, ...]
    dtype: str
    fill: float

    def page(self, tiles: Tiles) -> Page:
        """An empty page for these tiles."""
        return _MaskPage(self, tiles)


class Ground:
    """Where the tiles of a batch lie, for fragments that lie on their pixels."""

    def __init__(self, tiles: Tiles) -> None:
        bounds = tiles.bounds
        self.srid, self.shape = tiles.grid.srid, tiles.grid.shape
        self.scale = (tiles.grid.pixel[0], -tiles.grid.pixel[1])
        self.corners = list(zip(bounds[:, 0].tolist(), bounds[:, 3].tolist(), strict=True))  # x, y of the upper left

    def window(self, raster: Raster, tile: int) -> tuple[Window, tuple[int, int]] | None:
        """Where in the tile the raster lies, and the row and column of the tile at which it begins; None where it misses it."""
        (x, y), (sx, sy), (height, width) = self.corners[tile], self.scale, self.shape
        across, down = (raster.upper_left[0] - x) / sx, (raster.upper_left[1] - y) / sy
        left, top = round(across), round(down)
        slip = max(abs(across - left), abs(down - top))
        if raster.scale != self.scale:
            slip += max(abs(raster.scale[0] / sx - 1) * raster.width, abs(raster.scale[1] / sy - 1) * raster.height)
        if raster.srid != self.srid or slip > ALIGNED or raster.skew != (0, 0):
            raise DataError(
                f"a raster of SRID {raster.srid}, scale {raster.scale}, skew {raster.skew} does not lie on the tile's pixels, "
                f"SRID {self.srid}, scale {self.scale} ({slip:.3g} px off)"
            )
        y0, y1 = max(top, 0), min(top + raster.height, height)
        x0, x1 = max(left, 0), min(left + raster.width, width)
        return ((y0, y1, x0, x1), (top, left)) if y0 < y1 and x0 < x1 and raster.bands else None


class _MaskPage:
    def __init__(self, sheet: Mask, tiles: Tiles) -> None:
        self.ground, self.array = Ground(tiles), _filled(len(tiles), sheet.shape, sheet.dtype, sheet.fill)

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        raster = decode(data)
        if not (window := self.ground.window(raster, tile)):
            return False
        (y0, y1, x0, x1), (top, left) = window
        band = (n // STRIDE,) if self.array.ndim == 4 else ()
        target = self.array[(tile, *band, slice(y0, y1), slice(x0, x1))]
        if not fits(value, target.dtype):
            raise DataError(
                f"{f'band {band[0] + 1}: ' if band else ''}value {value:g} does not fit dtype={target.dtype.name!r}"
            )
        burned = raster.pixels[0, y0 - top : y1 - top, x0 - left : x1 - left].view(np.bool_)
        np.copyto(target, target.dtype.type(value), where=burned)
        return True

    def arrays(self, name: str) -> Arrays:
        return {name: self.array}


class _PixelsPage:
    def __init__(self, sheet: Pixels, tiles: Tiles) -> None:
        self.ground, self.array = Ground(tiles), _filled(len(tiles), sheet.shape, sheet.dtype, sheet.fill)
        self.holes = sheet.holes
        self.tile, self.painted = -1, list[Window]()  # what the rasters before have covered, in this tile

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        if tile != self.tile:
            self.tile, self.painted = tile, []
        raster = decode(data)
        if not (window := self.ground.window(raster, tile)):
            return False
        (y0, y1, x0, x1), (top, left) = window
        target = self.array[tile, ..., y0:y1, x0:x1]
        pixels = raster.pixels[:, y0 - top : y1 - top, x0 - left : x1 - left]
        if pixels.shape[0] != (target.shape[0] if target.ndim == 3 else 1):
            raise DataError(f"a raster of {len(pixels)} bands, the first rows had {self.array.shape[1]}")
        pixels = _cast(pixels, target.dtype, raster)
        below = self.holes or any(y0 < b and a < y1 and x0 < d and c < x1 for a, b, c, d in self.painted)
        if below and any(nodata is not None for nodata in raster.nodata):
            _paste_data(target if target.ndim == 3 else target[None], pixels, raster.nodata)
        else:
            target[...] = pixels if target.ndim == 3 else pixels[0]
        self.painted.append((y0, y1, x0, x1))
        return True

    def arrays(self, name: str) -> Arrays:
        return {name: self.array}


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether the dtype can hold the value, to the unit where it is an integer type."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _cast(pixels: NDArray[Any], dtype: np.dtype[Any], raster: Raster) -> NDArray[Any]:
    """The pixels, certain to fit the dtype."""
    if dtype.kind == "f" or np.can_cast(pixels.dtype, dtype, "safe"):
        return pixels
    with np.errstate(invalid="ignore"):
        cast = pixels.astype(dtype)
    if not (cast == pixels).all():
        found = pixels[cast != pixels][0]
        raise DataError(f"pixel value {found} of type {raster.pixel_types[0]} does not fit dtype={dtype.name!r}")
    return cast


def _filled(n: int, shape: tuple[int, ...], dtype: str, fill: float) -> NDArray[Any]:
    return np.zeros((n, *shape), dtype) if fill == 0 else np.full((n, *shape), fill, dtype)


def _paste_data(target: NDArray[Any], pixels: NDArray[Any], nodata: Sequence[float | None]) -> None:
    """Copy all pixels but those of each band's nodata value."""
    for into, band, hole in zip(target, pixels, nodata, strict=True):
        where = np.True_ if hole is None else ~np.isnan(band) if hole != hole else band != hole
        np.copyto(into, band, where=where, casting="unsafe")
