"""Targets that are no picture: boxes, instances, values. Their rows are records, or fragments with a record in front.

Pure: no database, no I/O. What rows there are, and what their data hold, stands in the SQL file of each layer.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..tiling.tiles import Tiles
from .canvas import EXACT, Arrays, Ground, Zeros, fits
from .wkb import decode

BOX, CORNERS, ID, NUMBER = struct.Struct(">4dq"), struct.Struct(">4d"), struct.Struct(">q"), struct.Struct(">i")


@dataclass(frozen=True)
class BoxSheet:
    """Boxes, as x0, y0, x1, y1 in pixels: a tile is (N, 4)."""

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Of one tile."""
        return (None, 4)

    @property
    def dtype(self) -> str:
        """Of the boxes; their labels and ids are int64."""
        return "float32"

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> BoxPage:
        """An empty page for these tiles."""
        return BoxPage(len(tiles))


@dataclass(frozen=True)
class InstanceSheet:
    """Features burned one by one: a tile is (height, width), numbered from 1 without a gap."""

    shape: tuple[int, int]

    @property
    def dtype(self) -> str:
        """Of the map, the labels and the ids."""
        return "int64"

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> InstancePage:
        """An empty page for these tiles."""
        return InstancePage(tiles, zeros)


@dataclass(frozen=True)
class ValueSheet:
    """Numbers: a tile is one, or `length` of them."""

    length: int | None
    dtype: str
    missing: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one tile."""
        return () if self.length is None else (self.length,)

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> ValuePage:
        """An empty page for these tiles."""
        return ValuePage(self, len(tiles))


class BoxPage:
    """Boxes, labels and ids while they come in."""

    def __init__(self, count: int) -> None:
        self.boxes = [list[tuple[float, ...]]() for _ in range(count)]
        self.named = [list[tuple[int, int]]() for _ in range(count)]  # label and id

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        """Take a row: value is the label, data the box and its id."""
        if len(data) != BOX.size:
            raise _no_id(value) if len(data) == CORNERS.size else DataError(f"a box of {len(data)} bytes, expected {BOX.size}")
        *corners, id_ = BOX.unpack(data)
        self.boxes[tile].append(tuple(corners))
        self.named[tile].append((_label(value), id_))
        return True

    def arrays(self, name: str) -> Arrays:
        """Boxes, labels and ids: an array each for every tile."""
        boxes = [np.array(found, "float32").reshape(-1, 4) for found in self.boxes]
        return {name: boxes, **_named(name, self.named)}


class InstancePage:
    """A map, labels and ids while they come in."""

    def __init__(self, tiles: Tiles, zeros: Zeros) -> None:
        self.ground = Ground(tiles)
        self.map = zeros((len(tiles), *tiles.grid.shape), "int64")
        self.named = [dict[int, tuple[int, int]]() for _ in range(len(tiles))]  # label and id, by the feature's number

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        """Take a row: n is the feature's number times 3, with the dimension of what is burned; data the id and a fragment."""
        if len(data) < ID.size:
            raise _no_id(value)
        (id_,), raster = ID.unpack_from(data), decode(data[ID.size :])
        if not (window := self.ground.window(raster, tile)):
            return False
        (y0, y1, x0, x1), (top, left) = window
        burned = raster.pixels[0, y0 - top : y1 - top, x0 - left : x1 - left].view(np.bool_)
        np.copyto(self.map[tile, y0:y1, x0:x1], n // 3, where=burned)
        self.named[tile][n // 3] = _label(value), id_
        return True

    def arrays(self, name: str) -> Arrays:
        """The map, numbered anew without those of which no pixel is left, and their labels and ids."""
        named = []
        for map_, found in zip(self.map, self.named, strict=True):
            numbers = np.unique(map_)
            numbers = numbers[numbers > 0]
            new = np.zeros(max(found, default=0) + 1, "int64")
            new[numbers] = np.arange(1, len(numbers) + 1)
            map_[...] = new[map_]
            named.append([found[number] for number in numbers.tolist()])
        return {name: self.map, **_named(name, named)}


class ValuePage:
    """Numbers while they come in."""

    def __init__(self, sheet: ValueSheet, count: int) -> None:
        self.array = np.full((count, *sheet.shape), sheet.missing, sheet.dtype)
        self.length, self.met = sheet.length, set[tuple[int, int]]()

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        """Take a row: data is its place, then a byte where the value is NULL."""
        if len(data) < NUMBER.size:
            raise DataError(f"a row's n is NULL: expected 0 to {(self.length or 1) - 1}")
        (place,) = NUMBER.unpack_from(data)
        if (tile, place) in self.met:
            if self.length is None:
                raise DataError("the query gives more than one row: aggregate, or give a column n and say length=")
            raise DataError(f"the query gives more than one row with n = {place}")
        if not 0 <= place < (self.length or 1):
            raise DataError(f"n = {place}: expected 0 to {(self.length or 1) - 1}, as length={self.length} says")
        self.met.add((tile, place))
        if len(data) > NUMBER.size:
            return False  # NULL: it stays what is missing
        dtype = self.array.dtype
        if dtype.kind == "f":  # a measure, as exact as floats are
            held = not math.isfinite(value) or abs(value) <= np.finfo(dtype).max
        else:
            held = fits(value, dtype) and abs(value) <= EXACT
        if not held:
            raise DataError(f"value {value:g} does not fit dtype={dtype.name!r}")
        self.array[tile, ... if self.length is None else place] = value
        return True

    def arrays(self, name: str) -> Arrays:
        """One array: a number, or a row of them, for every tile."""
        return {name: self.array}


def _named(name: str, found: list[list[tuple[int, int]]]) -> Arrays:
    """Labels and ids by their keys."""
    columns: list[NDArray[Any]] = [np.array(tile, "int64").reshape(-1, 2).T.copy() for tile in found]
    return {f"{name}_label": [labels for labels, _ in columns], f"{name}_id": [ids for _, ids in columns]}


def _label(value: float) -> int:
    if not value.is_integer() or abs(value) > EXACT:
        raise DataError(f"value {value:.17g} is no label: expected a whole number (±2^53 at most)")
    return int(value)


def _no_id(value: float) -> DataError:
    return DataError(f"the id of a row with value {value:g} is NULL: expected a whole number, or a query without a column id")
