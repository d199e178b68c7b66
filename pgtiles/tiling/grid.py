"""A pixel lattice in a CRS, and the size of the tiles on it. No I/O.

Positions are integers, columns and rows of the lattice, and become floats only at the edge, by one multiplication. So two
tiles that share a border share it exactly, and a tile's bounds are the same in every process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

Bounds = tuple[float, float, float, float]

LARGEST = 65535  # pixels along one side: the raster format counts in 16 bits, and PostGIS wraps around in silence
ON_LINE = 1e-6  # px: a coordinate this near to a lattice line lies on it


class HasLattice(Protocol):
    """What `Grid.like` needs of a `Database`."""

    def lattice(self, table: str, column: str | None) -> tuple[int, tuple[float, float], tuple[float, float]]:
        """SRID, resolution and origin of a raster table."""


def pair(name: str, value: object, kind: type) -> tuple[Any, Any]:
    """Two numbers of a kind, from one or from a pair; `ConfigError`, with the name, of anything else."""
    pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    number = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    if len(pair) != 2 or not all(isinstance(v, number) and not isinstance(v, bool) for v in pair):
        raise ConfigError(f"{name}={value!r}: expected one {kind.__name__}, or a pair of them")
    return kind(pair[0]), kind(pair[1])


def whole(name: str, value: object, least: int) -> None:
    """Raise `ConfigError`, with the name, of what is no whole number, or less than the least."""
    if not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name}={value!r}: expected a whole number, {least} or more")


def _divided(way: str, extent: float, resolution: float) -> int:
    """How many pixels of this resolution a tile is wide or high."""
    if not 0 < resolution <= extent * (1 + ON_LINE):
        raise ConfigError(f"resolution={resolution!r}: expected positive CRS units per pixel, at most a tile's {extent:g}")
    count = extent / resolution
    if abs(count - round(count)) > ON_LINE * count:
        few, many = math.floor(count), math.floor(count) + 1
        raise ConfigError(
            f"resolution={resolution!r}: a tile is {extent:g} CRS units {way}, {count:.4f} such pixels; expected whole ones: "
            f"{extent / many:.6g} gives {many}, {extent / few:.6g} gives {few}"
        )
    return round(count)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A north-up pixel lattice and the size of the tiles on it.

    srid: EPSG code of the CRS, as in ``spatial_ref_sys``.
    resolution: CRS units per pixel, one number or (x, y), positive.
    size: pixels, one number or (height, width), 1 to 65535.
    origin: CRS coordinates of any one corner shared by four pixels; the lattice goes on in all directions from it.
    step: CRS units between the places where a tile may begin, one number or (x, y), counted from the origin; the resolution
    unless given. A step of 60 has tiles of 10 m begin where the pixels of 20 m and of 60 m begin, too.
    """

    srid: int
    resolution: float | tuple[float, float]
    size: int | tuple[int, int] = 256
    origin: tuple[float, float] = (0.0, 0.0)
    step: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        resolution = pair("resolution", self.resolution, float)
        size = pair("size", self.size, int)
        origin = pair("origin", self.origin, float)
        step = resolution if self.step is None else pair("step", self.step, float)
        if not isinstance(self.srid, int | np.integer) or self.srid <= 0:
            raise ConfigError(f"srid={self.srid!r}: expected the positive EPSG code of a CRS, such as 3857")
        if not all(math.isfinite(r) and r > 0 for r in resolution):
            raise ConfigError(f"resolution={self.resolution!r}: expected positive CRS units per pixel")
        if not all(1 <= s <= LARGEST for s in size):
            raise ConfigError(f"size={self.size!r}: expected 1 to {LARGEST} pixels, the most that a raster holds")
        if not all(map(math.isfinite, origin)):
            raise ConfigError(f"origin={self.origin!r}: expected two finite CRS coordinates")
        if not all(math.isfinite(s) and s > 0 for s in step):
            raise ConfigError(f"step={self.step!r}: expected positive CRS units between the places of tiles")
        checked = {"srid": int(self.srid), "resolution": resolution, "size": size, "origin": origin, "step": step}
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def like(
        cls,
        db: HasLattice,
        table: str,
        *,
        size: int | tuple[int, int] = 256,
        column: str | None = None,
        step: float | tuple[float, float] | None = None,
    ) -> Grid:
        """The lattice on which a raster table's pixels lie, so that its imagery is read without resampling.

        Raises `MissingError` where there is no such table and `DataError` where its pixels lie on no north-up lattice.
        """
        srid, resolution, origin = db.lattice(table, column)
        return cls(srid=srid, resolution=resolution, size=size, origin=origin, step=step)

    def at(self, resolution: float | tuple[float, float]) -> Grid:
        """The same tiles in pixels of another size, which begin anew at each tile's upper left corner.

        Raises `ConfigError` where a tile does not divide into whole pixels of this size.
        """
        (rx, ry), (h, w) = self.pixel, self.shape
        x, y = pair("resolution", resolution, float)
        width, height = _divided("wide", w * rx, x), _divided("high", h * ry, y)
        own = (rx * w / width, ry * h / height)
        return Grid(srid=self.srid, resolution=own, size=(height, width), origin=self.origin, step=self.step)

    @property
    def pixel(self) -> tuple[float, float]:
        """Width and height of a pixel in CRS units."""
        return cast("tuple[float, float]", self.resolution)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return cast("tuple[int, int]", self.size)

    def in_steps(self, down: int, right: int) -> tuple[float, float]:
        """So many pixels in steps of the lattice: integers where they are whole."""
        sizes = (n * r / s for n, r, s in zip((down, right), self.pixel[::-1], self._step[::-1], strict=True))
        down_, right_ = (round(size) if abs(size - round(size)) < ON_LINE else size for size in sizes)
        return down_, right_

    @property
    def _step(self) -> tuple[float, float]:
        return cast("tuple[float, float]", self.step)

    def bounds(self, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 4) xmin, ymin, xmax, ymax of the tiles at these places."""
        (sx, sy), (down, right), (x, y) = self._step, self.in_steps(*self.shape), self.origin
        edges = x + cols * sx, y - (rows + down) * sy, x + (cols + right) * sx, y - rows * sy
        return np.stack(edges, axis=-1).astype(np.float64)

    def span(self, within: Bounds) -> tuple[float, float, float, float]:
        """Where a box lies, in steps of the lattice: its west and east counted in columns, its north and south in rows."""
        (sx, sy), (x, y), (xmin, ymin, xmax, ymax) = self._step, self.origin, within
        return (xmin - x) / sx, (xmax - x) / sx, (y - ymax) / sy, (y - ymin) / sy

    def places(self, within: Bounds) -> tuple[int, int, int, int]:
        """First and last column, first and last row at which a tile wholly within may begin.

        A last below its first says that no tile fits.
        """
        (down, right), (west, east, north, south) = self.in_steps(*self.shape), self.span(within)
        return (
            math.ceil(west - ON_LINE),
            math.floor(east - right + ON_LINE),
            math.ceil(north - ON_LINE),
            math.floor(south - down + ON_LINE),
        )
