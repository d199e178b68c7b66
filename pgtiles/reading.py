"""The one read path: tiles and layers go in, one statement a batch, fragments come out and are pasted. No torch.

Each row of a batch is (tile, layer, n, value, fragment) in PostgreSQL's binary COPY format. A fragment is a raster that
already lies on its tile's pixels; all that is left to do is to decode it without a copy, and to paste it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from .database import Database
from .errors import ConfigError, DataError, MissingError, PgtilesError, QueryError
from .grid import Grid, Tiles
from .layers import Layer, fits, open_layers
from .query import ALIGNED, OpenLayer, over
from .wkb import Raster, decode

Sample = dict[str, NDArray[Any]]
Window = tuple[int, int, int, int]  # first and last row, first and last column, the last ones excluded

ROW = struct.Struct(">hiiihiiidi")  # 5 fields, each with its length in front: int4, int2, int4, float8, bytea
ROW_LENGTHS = (5, 4, 2, 4, 8)
RESERVED = ("bounds", "tile_id")


@dataclass(frozen=True)
class Plan:
    """The layers as the server agreed to them: what reading a batch needs besides the tiles. Pickles small."""

    grid: Grid
    layers: tuple[OpenLayer, ...]

    @classmethod
    def open(cls, db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> Plan:
        """Check the layers against the database and decide how each is read.

        Raises `ConfigError`, `MissingError`, `QueryError` or `DataError`, with the layer's name; warns of what will be slow.
        """
        if not layers:
            raise ConfigError("layers={}: expected at least one, such as {'image': Imagery('schema.table')}")
        if taken := [name for name in layers if name in RESERVED]:
            raise ConfigError(f"layers: the key {taken[0]!r} is taken by what every batch carries")
        if not len(tiles):
            raise ConfigError("tiles: there is no tile to read")
        db.require_postgis()
        return cls(tiles.grid, open_layers(db, tiles, dict(layers)))

    def statement(self, tiles: Tiles) -> sql.Composed:
        """The statement that reads these tiles."""
        body = "\nUNION ALL\n".join(f"(\n{layer.select}\n)" for layer in self.layers)
        return over(tiles, sql.SQL(body))  # composed when the layers were opened


class Batch(NamedTuple):
    """What one statement gave."""

    sample: Sample
    empty: tuple[int, ...]  # of each layer, how many tiles no fragment reached


def read(db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> Sample:
    """One batch of all these tiles as NumPy arrays, without torch.

    Gives a dict with an array per layer, (N, bands, height, width) or (N, height, width), and ``bounds`` (N, 4) float64
    and ``tile_id`` (N,) int64.
    """
    return read_batch(db, Plan.open(db, tiles, layers), tiles).sample


def read_batch(db: Database, plan: Plan, tiles: Tiles) -> Batch:
    """One batch, by a plan that was opened before."""
    canvas = _Canvas(plan, tiles)
    try:
        for row in db.copy(plan.statement(tiles)):
            canvas.paste(row)
    except (QueryError, MissingError) as error:
        raise _located(db, plan, tiles, error) from error
    sample = {layer.name: array for layer, array in zip(plan.layers, canvas.arrays, strict=True)}
    empty = tuple(len(tiles) - reached for reached in canvas.reached)
    return Batch(sample | {"bounds": tiles.bounds, "tile_id": tiles.ids.copy()}, empty)


def _located(db: Database, plan: Plan, tiles: Tiles, error: PgtilesError) -> PgtilesError:
    """The error with the layer and the tile in front, found by reading them one by one until it comes again."""
    for layer in plan.layers:
        for tile in range(len(tiles)):
            try:
                for _ in db.copy(Plan(plan.grid, (layer,)).statement(tiles[tile])):
                    pass
            except (QueryError, MissingError) as again:
                said = f"layer {layer.name!r}, tile {tiles.ids[tile]} at {_bounds(tiles, tile)}: {again}"
                if isinstance(again, MissingError) and layer.files:
                    found = [path for (path,) in db.query(over(tiles[tile], sql.SQL(layer.files))) if path]
                    said += f"\nthe files there: {', '.join(sorted(found))}"
                return type(again)(said)
    return error


class _Canvas:
    """The arrays of one batch while fragments are pasted into them, tile by tile and layer by layer."""

    def __init__(self, plan: Plan, tiles: Tiles) -> None:
        self.layers, self.tiles = plan.layers, tiles
        self.arrays = [_filled(len(tiles), layer) for layer in plan.layers]
        self.reached = [0] * len(plan.layers)
        bounds = tiles.bounds
        self.corners = list(zip(bounds[:, 0].tolist(), bounds[:, 3].tolist(), strict=True))  # x, y of the upper left
        self.scale = (plan.grid.pixel[0], -plan.grid.pixel[1])
        self.at = (-1, -1, 0)  # layer, tile and n of the last row
        self.met = False  # whether anything of this layer has come into this tile
        self.painted: list[Window] = []  # what the rasters before have covered, in this tile and layer

    def paste(self, row: bytes) -> None:
        """Decode one row, check that it lies on its tile's pixels, and paste it."""
        *head, length = ROW.unpack_from(row) if len(row) >= ROW.size else (0,) * 10
        fields, l1, tile, l2, number, l3, n, l4, value = head
        if (fields, l1, l2, l3, l4) != ROW_LENGTHS or length != len(row) - ROW.size:
            raise self._null(row)
        if (number, tile) != self.at[:2]:
            self.met, self.painted = False, []
        elif n <= self.at[2]:
            raise DataError(f"{self._where(number, tile)}: the server sent raster {n} after {self.at[2]}")
        self.at = (number, tile, n)
        raster = decode(memoryview(row)[ROW.size :])
        window = self._window(raster, number, tile)
        if window is None:
            return
        self.reached[number] += not self.met
        self.met = True
        (y0, y1, x0, x1), (top, left) = window
        target = self.arrays[number][tile, ..., y0:y1, x0:x1]
        pixels = raster.pixels[:, y0 - top : y1 - top, x0 - left : x1 - left]
        layer = self.layers[number]
        if layer.burned:
            if not fits(value, target.dtype):
                raise DataError(f"{self._where(number, tile)}: value {value:g} does not fit dtype={layer.dtype!r}")
            np.copyto(target, target.dtype.type(value), where=pixels[0].view(np.bool_))
            return
        if pixels.shape[0] != (target.shape[0] if target.ndim == 3 else 1):
            raise DataError(
                f"{self._where(number, tile)}: a raster of {len(pixels)} bands, the first rows had {layer.shape[0]}"
            )
        pixels = self._cast(pixels, target.dtype, raster, number, tile)
        below = layer.holes or any(y0 < b and a < y1 and x0 < d and c < x1 for a, b, c, d in self.painted)
        if below and any(nodata is not None for nodata in raster.nodata):
            _paste_data(target if target.ndim == 3 else target[None], pixels, raster.nodata)
        else:
            target[...] = pixels if target.ndim == 3 else pixels[0]
        self.painted.append((y0, y1, x0, x1))

    def _window(self, raster: Raster, number: int, tile: int) -> tuple[Window, tuple[int, int]] | None:
        """Where in the tile the raster lies, and the row and column of the tile at which it begins."""
        (x, y), (sx, sy), (height, width) = self.corners[tile], self.scale, self.tiles.grid.shape
        across, down = (raster.upper_left[0] - x) / sx, (raster.upper_left[1] - y) / sy
        left, top = round(across), round(down)
        slip = max(abs(across - left), abs(down - top))
        if raster.scale != self.scale:
            slip += max(abs(raster.scale[0] / sx - 1) * raster.width, abs(raster.scale[1] / sy - 1) * raster.height)
        if raster.srid != self.tiles.grid.srid or slip > ALIGNED or raster.skew != (0, 0):
            raise DataError(
                f"{self._where(number, tile)}: a raster of SRID {raster.srid}, scale {raster.scale}, skew {raster.skew} does "
                f"not lie on the tile's pixels, SRID {self.tiles.grid.srid}, scale {self.scale} ({slip:.3g} px off)"
            )
        y0, y1 = max(top, 0), min(top + raster.height, height)
        x0, x1 = max(left, 0), min(left + raster.width, width)
        return ((y0, y1, x0, x1), (top, left)) if y0 < y1 and x0 < x1 and raster.bands else None

    def _cast(self, pixels: NDArray[Any], dtype: np.dtype[Any], raster: Raster, number: int, tile: int) -> NDArray[Any]:
        """The pixels, certain to fit the layer's dtype."""
        if dtype.kind == "f" or np.can_cast(pixels.dtype, dtype, "safe"):
            return pixels
        with np.errstate(invalid="ignore"):
            cast = pixels.astype(dtype)
        if not (cast == pixels).all():
            found = pixels[cast != pixels][0]
            raise DataError(
                f"{self._where(number, tile)}: pixel value {found} of type {raster.pixel_types[0]} does not fit "
                f"dtype={dtype.name!r}"
            )
        return cast

    def _null(self, row: bytes) -> PgtilesError:
        tile, number = struct.unpack_from(">i", row, 6)[0], struct.unpack_from(">h", row, 14)[0]
        return DataError(
            f"{self._where(number, tile)}: a row's value is NULL: say what it shall be, COALESCE(…, 0) AS value, "
            "or leave the row out with WHERE"
        )

    def _where(self, number: int, tile: int) -> str:
        return f"layer {self.layers[number].name!r}, tile {self.tiles.ids[tile]} at {_bounds(self.tiles, tile)}"


def _filled(n: int, layer: OpenLayer) -> NDArray[Any]:
    if layer.fill == 0:
        return np.zeros((n, *layer.shape), layer.dtype)
    return np.full((n, *layer.shape), layer.fill, layer.dtype)


def _paste_data(target: NDArray[Any], pixels: NDArray[Any], nodata: Sequence[float | None]) -> None:
    """Copy all pixels but those of each band's nodata value."""
    for into, band, hole in zip(target, pixels, nodata, strict=True):
        where = np.True_ if hole is None else ~np.isnan(band) if hole != hole else band != hole
        np.copyto(into, band, where=where, casting="unsafe")


def _bounds(tiles: Tiles, tile: int) -> str:
    return f"({', '.join(f'{v:.10g}' for v in tiles.bounds[tile])})"
