"""Rasters as they come in: copied onto the tiles, with what has no data; or counted for the commonest. No database, no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tiling.tiles import Tiles
from .canvas import Arrays, Ground, Page, Window, Zeros, filled
from .commonest import commonest
from .wkb import LIMITS, PIXEL_TYPES, Layout, Raster, decode

EDGED, UNITED = 2, 3  # values of warped rows: with a last band that is 0 where there is no source; joined by ST_Union
REFUSED = {  # values of warped rows that bring no pixels, but what is wrong
    4: "a raster {said}: the rows differ in kind. Select rows of one kind in a query, or move the others to a table of their "
    "own",
    5: "the tile needs {said} pixels of the imagery at once, and a raster holds at most 65535 a side: take smaller tiles, or "
    "make overviews of the imagery (ST_CreateOverview), which are read where they suffice",
    6: "the tile lies across the antimeridian, and so on both ends of imagery that is stored in degrees: it needs {said} "
    "pixels of it at once, and a raster holds at most 65535 a side. Bring the imagery into the tiles' CRS, gdalwarp -t_srs "
    "EPSG:{srid}, and load that",
}


@dataclass(frozen=True)
class Pixels:
    """Rasters, copied: a tile is (bands, height, width), or (height, width)."""

    shape: tuple[int, ...]
    dtype: str
    fill: float | tuple[float, ...]  # where nothing is pasted: one value, or one a band
    holes: bool  # pixels without data become the fill in any case; else a nodata value that is the fill is just copied
    valid: bool = False  # whether the batch says, too, which pixels have data
    stored: tuple[str, ...] = ()  # the bands' pixel types, to which what ST_Union widened is brought back
    counted: int = 1  # each pixel is the commonest of so many times so many that are read

    @property
    def filled(self) -> str:
        """The fill in words, one value where all bands have the same."""
        values = [f"{value:g}" for value in (self.fill if isinstance(self.fill, tuple) else (self.fill,))]
        return values[0] if len(set(values)) == 1 else ", ".join(values)

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> Page:
        """An empty page for these tiles."""
        return _CountedPage(self, tiles, zeros) if self.counted > 1 else _PixelsPage(self, tiles, zeros)


class _PixelsPage:
    def __init__(self, sheet: Pixels, tiles: Tiles, zeros: Zeros) -> None:
        self.ground, self.sheet = Ground(tiles), sheet
        shape = len(tiles), *sheet.shape[:-2], *self.ground.shape
        self.array = filled(zeros(shape, sheet.dtype), sheet.fill)
        self.bands = self.array if len(sheet.shape) == 3 else self.array[:, None]  # the same pixels, (tile, band, row, column)
        self.fill = sheet.fill if isinstance(sheet.fill, tuple) else (sheet.fill,) * self.bands.shape[1]
        self.data = np.zeros(self.bands.shape, np.bool_) if sheet.valid else None  # where there are some
        self.careful = sheet.holes or self.data is not None  # about nodata values that are the fill anyway
        self.layout: Layout | None = None  # of the last raster
        self.plain = False  # whether such rasters are just copied
        self.tile, self.painted = -1, list[Window]()  # what the rasters before have covered, in this tile

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        if tile != self.tile:
            self.tile, self.painted = tile, []
        if value in REFUSED:
            raise DataError(REFUSED[int(value)].format(said=str(data, "utf-8"), srid=self.ground.srid))
        raster = decode(data)
        if not (window := self.ground.window(raster, tile)):
            return False
        if raster.layout is not self.layout:
            self.layout, self.plain = raster.layout, self._is_plain(raster)
        (y0, y1, x0, x1), (top, left) = window
        below = _meets(window[0], self.painted)
        self.painted.append(window[0])
        target = self.bands[tile, :, y0:y1, x0:x1]
        pixels = raster.pixels[:, y0 - top : y1 - top, x0 - left : x1 - left]
        if self.plain and not (value or below):
            target[...] = pixels  # the hot path: all bands in one copy
            return True
        there = None
        if value == EDGED:
            pixels, there = pixels[:-1], pixels[-1] != 0
        if pixels.shape[0] != target.shape[0]:
            raise DataError(f"a raster of {len(pixels)} bands, the first rows had {self.bands.shape[1]}")
        for number, (into, band, nodata) in enumerate(zip(target, pixels, raster.nodata, strict=False)):
            where = there
            if nodata is not None and (below or self.careful or not _same(nodata, self.fill[number])):
                data = ~np.isnan(band) if nodata != nodata else band != nodata
                where = data if there is None else data & there
            kind = raster.pixel_types[number]
            if value and self.sheet.stored and self.sheet.stored[number] != kind:
                band = _narrowed(band, self.sheet.stored[number])
            _copy(into, band, where, kind)
            if self.data is not None:
                self.data[tile, number, y0:y1, x0:x1] |= np.True_ if where is None else where
        return True

    def _is_plain(self, raster: Raster) -> bool:
        """Whether pixels can be copied without a look at them: they fit, and their nodata values, if any, are the fill."""
        stored, into = raster.pixels.dtype, self.array.dtype
        if self.careful or raster.bands != self.bands.shape[1]:
            return False
        if not (np.can_cast(stored, into, "safe") or (into.kind == "f" and not overflows(stored, into))):
            return False
        return all(hole is None or _same(hole, fill) for hole, fill in zip(raster.nodata, self.fill, strict=True))

    def arrays(self, name: str) -> Arrays:
        if self.array.dtype.kind == "f" and self.careful:  # a pixel that is not a number is no data, whatever nodata is
            absent = np.isnan(self.bands)
            if self.sheet.holes and absent.any():
                np.copyto(self.bands, np.array(self.fill, self.array.dtype)[:, None, None], where=absent)
            if self.data is not None:
                self.data &= ~absent
        arrays: Arrays = {name: self.array}
        if self.data is not None:
            arrays[f"{name}_valid"] = np.asarray(self.data.all(axis=1))
        return arrays


class _CountedPage:
    """A band whose pixels are counted a tile at a time: so many more come in that no batch of them should be in memory."""

    def __init__(self, sheet: Pixels, tiles: Tiles, zeros: Zeros) -> None:
        shape = tuple(side // sheet.counted for side in tiles.grid.shape)
        self.tiles, self.side = tiles, sheet.counted
        self.array = filled(zeros((len(tiles), *shape), sheet.dtype), sheet.fill)
        kind = np.result_type(*(PIXEL_TYPES[kind] for kind in sheet.stored))
        small = kind.name if np.can_cast(kind, sheet.dtype, "safe") else sheet.dtype  # what does not fit is said as it comes
        self.fine = replace(sheet, shape=tiles.grid.shape, dtype=small, fill=0, valid=True, counted=1)
        self.tile, self.page = -1, self.fine.page(tiles[:0])

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        if tile != self.tile:
            self._count()
            self.tile, self.page = tile, self.fine.page(self.tiles[tile])
        return self.page.paste(0, n, value, data)

    def arrays(self, name: str) -> Arrays:
        self._count()
        return {name: self.array}

    def _count(self) -> None:
        if self.tile >= 0:
            pixels, valid = self.page.arrays("a").values()
            found, there = commonest(pixels[0], valid[0], self.side)
            np.copyto(self.array[self.tile], found, where=there, casting="unsafe")  # it fits, or was refused before
            self.tile = -1


def overflows(stored: np.dtype[Any], into: np.dtype[Any]) -> bool:
    """Whether a finite value of one type can be infinite in the other one, a float's."""
    most = np.finfo(stored).max if stored.kind == "f" else np.iinfo(stored).max
    return float(most) > float(np.finfo(into).max)


def _copy(into: NDArray[Any], band: NDArray[Any], where: NDArray[np.bool_] | None, kind: str) -> None:
    """Copy a band's pixels, or those that a mask says, certain to fit the dtype."""
    with np.errstate(invalid="ignore", over="ignore"):
        if overflows(band.dtype, into.dtype) if into.dtype.kind == "f" else not np.can_cast(band.dtype, into.dtype, "safe"):
            cast = band.astype(into.dtype)
            wrong = np.isinf(cast) & np.isfinite(band) if into.dtype.kind == "f" else cast != band
            if where is not None:
                wrong &= where
            if wrong.any():
                raise DataError(f"pixel value {band[wrong][0]} of type {kind} does not fit dtype={into.dtype.name!r}")
            band = cast
        np.copyto(into, band, where=np.True_ if where is None else where, casting="unsafe")


def _narrowed(band: NDArray[Any], kind: str) -> NDArray[Any]:
    """A band of a wider type as GDAL would have given it in this one: rounded, and clamped where a kernel overshoots."""
    if kind not in LIMITS:
        return band
    narrowed: NDArray[Any] = np.clip(np.rint(band) if band.dtype.kind == "f" else band, *LIMITS[kind])
    return narrowed


def _meets(window: Window, painted: Sequence[Window]) -> bool:
    """Whether the window shares a pixel with one of those."""
    y0, y1, x0, x1 = window
    for a, b, c, d in painted:  # noqa: SIM110, a generator takes longer
        if y0 < b and a < y1 and x0 < d and c < x1:
            return True
    return False


def _same(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)
