"""Sets of tiles: which places of a grid, in which order, and how they are dealt to training and tests. No I/O."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
import shapely
from numpy.typing import NDArray

from .errors import ConfigError, DataError, PgtilesWarning
from .grid import Bounds, Grid, HasLattice, pair, whole

ON_LATTICE = 1e-3  # px: stored rasters that are no further off are read as they are


class HasRasters(HasLattice, Protocol):
    """What `Tiles.stored` needs of a `Database`."""

    def rasters(self, table: str, column: str | None) -> list[tuple[int, float, float, int, int]]:
        """Key, upper left x and y, width and height of each raster of a table, by key."""


def instant(value: str | date | np.datetime64 | None) -> np.datetime64:
    """A date or time in UTC, to the microsecond; text is ISO 8601. What has no zone is in UTC already."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(time, datetime) and time.tzinfo:
            time = time.astimezone(UTC).replace(tzinfo=None)
        if time is None or isinstance(time, date | np.datetime64):
            return cast("np.datetime64", np.array(time, "datetime64[us]")[()])
    except ValueError:
        pass
    raise ConfigError(
        f"{value!r} is no time: expected a date or a time such as '2024-03-01' or '2024-03-01T10:30Z', or a datetime"
    )


@dataclass(frozen=True, eq=False)
class Tiles:
    """A set of tiles on one grid, in an order of its own: a small table of arrays, with a row a tile.

    cols, rows: of the place where each tile begins, its upper left corner, in steps of the lattice, int64; rows count
    southwards.
    ids: what a batch calls its tiles, int64, unique; 0 to N - 1 unless given.
    times: each tile's own time in UTC, datetime64[us], NaT where one has none; None where none has (see `timed`).
    columns: what else is known of each tile, by name: arrays of N numbers, truths, texts or times (see `with_columns`).
    """

    grid: Grid
    cols: NDArray[np.int64]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64] = field(default=cast("NDArray[np.int64]", None))
    times: NDArray[np.datetime64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids = np.arange(len(self.cols)) if self.ids is None else self.ids
        for name, value in (("cols", self.cols), ("rows", self.rows), ("ids", ids)):
            array = np.ascontiguousarray(value)
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                raise ConfigError(f"{name}: expected N integers, found an array of {array.dtype} {array.shape}")
            object.__setattr__(self, name, array.astype(np.int64))
        if not len(self.cols) == len(self.rows) == len(self.ids):
            raise ConfigError(f"{len(self.cols)} cols, {len(self.rows)} rows, {len(self.ids)} ids: expected equal numbers")
        if len(np.unique(self.ids)) != len(self.ids):
            values, counts = np.unique(self.ids, return_counts=True)
            raise ConfigError(
                f"{(counts > 1).sum()} tile ids are there twice (the first: {values[counts > 1][0]}): "
                "an id must name one tile; number the second set from elsewhere with first_id="
            )
        if self.times is not None:
            array = np.asarray(self.times)
            if array.dtype.kind != "M" or array.shape != (len(self),):
                raise ConfigError(f"times: expected {len(self)} of datetime64, found an array of {array.dtype} {array.shape}")
            object.__setattr__(self, "times", array.astype("datetime64[us]"))
        columns = {name: np.asarray(values) for name, values in self.columns.items()}
        for name, array in columns.items():
            if not (isinstance(name, str) and name) or array.dtype.kind not in "biufUM" or array.shape != (len(self),):
                raise ConfigError(
                    f"column {name!r}: expected {len(self)} numbers, truths, texts or times under a name, found an array of "
                    f"{array.dtype} {array.shape}"
                )
        object.__setattr__(self, "columns", MappingProxyType(columns))

    def __reduce__(self) -> tuple[Any, ...]:
        return Tiles, (self.grid, self.cols, self.rows, self.ids, self.times, dict(self.columns))  # a proxy does not pickle

    @classmethod
    def random(cls, grid: Grid, *, within: Bounds | shapely.Geometry, count: int, seed: int = 0, first_id: int = 0) -> Tiles:
        """`count` tiles drawn uniformly from all places on the lattice where a tile lies wholly within the region.

        within: xmin, ymin, xmax, ymax or a shapely (multi)polygon, in the grid's CRS.
        Places are drawn with replacement, so tiles overlap and may repeat. The same seed gives the same tiles.
        Raises `ConfigError` where no tile fits, or where too little of the region can hold one.
        """
        whole("count", count, 1)
        whole("seed", seed, 0)
        region, (c0, c1, r0, r1) = _region(grid, within)
        rng = np.random.default_rng(seed)
        cols, rows, drawn = np.empty(0, np.int64), np.empty(0, np.int64), 0
        while len(cols) < count:
            some = max(1024, 2 * (count - len(cols)))
            c, r = rng.integers(c0, c1 + 1, some), rng.integers(r0, r1 + 1, some)
            keep = _inside(grid, region, c, r)
            cols, rows, drawn = np.append(cols, c[keep]), np.append(rows, r[keep]), drawn + some
            if drawn > 100_000 and len(cols) < drawn / 10_000:
                raise ConfigError(
                    f"within=: of {drawn} random places only {len(cols)} hold a whole tile of {_metres(grid)}: "
                    "make the tiles smaller or the region wider"
                )
        return cls(grid, cols[:count], rows[:count], np.arange(first_id, first_id + count))

    @classmethod
    def sliding(
        cls, grid: Grid, *, within: Bounds | shapely.Geometry, stride: int | tuple[int, int] | None = None, first_id: int = 0
    ) -> Tiles:
        """All tiles that lie wholly within the region, row by row from the north-west, `stride` pixels apart.

        within: xmin, ymin, xmax, ymax or a shapely (multi)polygon, in the grid's CRS.
        stride: pixels, one number or (down, right); the tile's own size unless given, so that tiles just touch.
        A rest at the eastern and southern edge that is narrower than a tile is not covered.
        Raises `ConfigError` where no tile fits.
        """
        down, right = grid.in_steps(*pair("stride", grid.shape if stride is None else stride, int))
        if not all(isinstance(n, int) and n >= 1 for n in (down, right)):
            raise ConfigError(f"stride={stride!r}: expected at least one pixel, and whole steps of the grid, of {grid.step}")
        region, (c0, c1, r0, r1) = _region(grid, within)
        rows, cols = (a.ravel() for a in np.mgrid[r0 : r1 + 1 : down, c0 : c1 + 1 : right])
        keep = _inside(grid, region, cols, rows)
        if not keep.any():
            raise ConfigError(f"within=: no tile of {_metres(grid)} lies wholly within the region at this stride")
        return cls(grid, cols[keep], rows[keep], np.arange(first_id, first_id + int(keep.sum())))

    @classmethod
    def stored(cls, db: HasRasters, table: str, *, column: str | None = None) -> Tiles:
        """One tile for each raster of a table, on its very pixels: of a table of chips or patches, all of one size.

        The ids are the table's primary key, in whose order they come.
        Raises `DataError` where the rasters differ in size or lattice, two lie at one place, or no whole number is the key.
        """
        srid, resolution, origin = db.lattice(table, column)
        keys, x, y, widths, heights = (np.array(values) for values in zip(*db.rasters(table, column), strict=True))
        sizes, counts = np.unique(np.stack([heights, widths], axis=1), axis=0, return_counts=True)
        if len(sizes) > 1:
            (height, width), odd = sizes[counts.argmax()], sizes[counts.argmin()]
            key = keys[(heights == odd[0]) & (widths == odd[1])][0]
            raise DataError(
                f"{table} holds rasters of {len(sizes)} sizes: most have {width} × {height} px, that of key {key} has "
                f"{odd[1]} × {odd[0]}. Tiles are all of one size: Tiles.sliding lays them over the table's extent"
            )
        grid = Grid(srid=srid, resolution=resolution, size=(int(heights[0]), int(widths[0])), origin=origin)
        places = np.stack([(x - origin[0]) / resolution[0], (origin[1] - y) / resolution[1]])
        cols, rows = whole = np.rint(places).astype(np.int64)
        if len(off := keys[(np.abs(places - whole) > ON_LATTICE).any(axis=0)]):
            raise DataError(f"{table}: the raster of key {off[0]} is not on the lattice of the others: give the Grid yourself")
        found, many = np.unique(whole, axis=1, return_counts=True)
        if (many > 1).any():
            same = (whole == found[:, [int(many.argmax())]]).all(axis=0)
            raise DataError(
                f"{table}: the rasters of keys {' and '.join(map(str, keys[same][:2]))} lie at one place, and a tile shows the "
                "upper one: keep them in tables of their own"
            )
        return cls(grid, cols, rows, keys.astype(np.int64))

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(N, 4) xmin, ymin, xmax, ymax in CRS units."""
        return self.grid.bounds(self.cols, self.rows)

    def at(self, resolution: float | tuple[float, float] | None) -> Tiles:
        """The same tiles, in the same bounds, in pixels of another size; as they are where it is None."""
        return self if resolution is None else replace(self, grid=self.grid.at(resolution))

    def __len__(self) -> int:
        return len(self.cols)

    def __repr__(self) -> str:
        return f"Tiles({len(self)} on {self.grid})"

    def __getitem__(self, which: int | slice | NDArray[Any] | Sequence[int]) -> Tiles:
        """The tiles at these positions (an int, a slice, integers or a boolean mask), in that order."""
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"tile {which} of {len(self)}")
            which = [int(which)]
        times = None if self.times is None else self.times[which]
        columns = {name: array[which] for name, array in self.columns.items()}
        return Tiles(self.grid, self.cols[which], self.rows[which], self.ids[which], times, columns)

    def __add__(self, other: Tiles) -> Tiles:
        """Both sets, one after the other; they must lie on the same grid, share no id and have the same columns."""
        if self.grid != other.grid:
            raise ConfigError(f"tiles of two grids can't be added: {self.grid} and {other.grid}")
        if odd := sorted(self.columns.keys() ^ other.columns.keys()):
            raise ConfigError(f"tiles can't be added: only one of both has the column {odd[0]!r}; with_columns gives it to all")
        cols, rows, ids = (np.concatenate([getattr(t, name) for t in (self, other)]) for name in ("cols", "rows", "ids"))
        columns = {name: np.concatenate([array, other.columns[name]]) for name, array in self.columns.items()}
        added = Tiles(self.grid, cols, rows, ids, columns=columns)
        if self.times is None and other.times is None:
            return added
        own = [np.full(len(t), "NaT", "datetime64[us]") if t.times is None else t.times for t in (self, other)]
        return replace(added, times=np.concatenate(own))

    def with_columns(self, **columns: Any) -> Tiles:
        """The same tiles with more columns, or others of the same names: N values each, or one for all."""
        given = {name: np.asarray(values) for name, values in columns.items()}
        own = {name: np.broadcast_to(array, len(self)) if not array.ndim else array for name, array in given.items()}
        return replace(self, columns={**self.columns, **own})

    def timed(self, times: Any) -> Tiles:
        """The same tiles with times of their own: ``tile.time`` in SQL, and what ``TimeSeries(nearest="tile")`` is near to.

        times: one for all or one a tile: text in ISO 8601, `datetime.date`, `datetime.datetime` or NumPy's datetime64; None or
        NaT for a tile that has none. Without a zone they are UTC.
        """
        given = np.asarray(times)
        if given.ndim and given.shape != (len(self),):
            raise ConfigError(f"times: expected one, or one for each of {len(self)} tiles, found an array {given.shape}")
        if given.dtype.kind != "M":
            each = [instant(time) for time in given.reshape(-1).tolist()]
            given = np.array(each, "datetime64[us]").reshape(given.shape)
        return replace(self, times=np.broadcast_to(given, len(self)))

    def split(
        self, *, train: float = 0.0, val: float = 0.0, test: float = 0.0, block: float, gap: float, seed: int = 0
    ) -> Split:
        """Deal square blocks of land to train, val and test, and drop the tiles that come too near to another split.

        train, val, test: shares of the tiles, of which at least two are positive; they are scaled to sum to 1.
        block, gap: CRS units of the grid. No pixel of one split lies within `gap` of a pixel of another.
        Says how many tiles were dropped, and warns above a fifth of them.
        """
        shares = {"train": train, "val": val, "test": test}
        if any(s < 0 or not math.isfinite(s) for s in shares.values()) or sum(s > 0 for s in shares.values()) < 2:
            raise ConfigError(f"split shares {shares}: expected at least two positive numbers")
        (rx, ry), (h, w) = self.grid.pixel, self.grid.shape
        widest = max(rx * w, ry * h) + gap
        whole("seed", seed, 0)
        if not 0 <= gap < math.inf or not widest <= block < math.inf:
            raise ConfigError(f"block={block!r}, gap={gap!r}: expected gap >= 0 and block >= tile + gap, here {widest:g}")
        return Split._deal(self, shares, block, gap, seed)


@dataclass(frozen=True, eq=False)
class Split:
    """Three tile sets, apart on the ground; ``dropped`` tiles lay too near to a border between two of them."""

    train: Tiles
    val: Tiles
    test: Tiles
    dropped: int

    @classmethod
    def _deal(cls, tiles: Tiles, shares: Mapping[str, float], block: float, gap: float, seed: int) -> Split:
        bounds, names = tiles.bounds, list(shares)
        home = np.floor((bounds[:, :2] + bounds[:, 2:]) / 2 / block)  # (N, 2) the block that holds the centre
        # A tile grown by half the gap must touch blocks of one split only; as block >= tile + gap, its corners tell all.
        # Two grown tiles of different splits then share no ground, so that the tiles are at least a gap apart.
        grown = bounds + np.array([-1, -1, 1, 1]) * gap / 2
        corners = np.floor(np.stack([grown[:, [0, 1]], grown[:, [2, 1]], grown[:, [0, 3]], grown[:, [2, 3]]]) / block)
        blocks, where = np.unique(np.concatenate([home[None], corners]).reshape(-1, 2), axis=0, return_inverse=True)
        where = where.reshape(5, -1)  # (5, N): the home block and the four corners' blocks of each tile
        weight = np.bincount(where[0], minlength=len(blocks))
        want = np.array([shares[name] for name in names], float) / sum(shares.values()) * max(len(tiles), 1)
        side, have = np.empty(len(blocks), int), np.zeros(len(names))
        for b in np.random.default_rng(seed).permutation(len(blocks)):
            side[b] = np.argmax((want - have) / np.maximum(want, 1e-9) - (want == 0) * 1e9)
            have[side[b]] += max(weight[b], 1e-3)  # empty blocks are dealt too: tiles of two splits may reach into them
        sides = side[where]
        kept = (sides == sides[0]).all(axis=0)
        train, val, test = (tiles[kept & (sides[0] == i)] for i in range(len(names)))
        dropped = len(tiles) - int(kept.sum())
        if lost := [name for name, part in (("train", train), ("val", val), ("test", test)) if shares[name] and not len(part)]:
            warnings.warn(
                f"no tile is left for {' and '.join(lost)}: the land has {len(blocks)} blocks of {block:g}; smaller ones give "
                "each split its share",
                PgtilesWarning,
                stacklevel=3,
            )
        if dropped > len(tiles) / 5:
            warnings.warn(
                f"{dropped} of {len(tiles)} tiles were dropped because they lie within gap={gap:g} of another split: "
                f"a larger block than {block:g}, a smaller gap or smaller tiles lose fewer",
                PgtilesWarning,
                stacklevel=3,
            )
        return cls(train, val, test, dropped)


def _region(grid: Grid, within: Bounds | shapely.Geometry) -> tuple[shapely.Geometry | None, tuple[int, int, int, int]]:
    """The region as a geometry (None where its bounding box is the region), and the places in its bounding box."""
    region = within if isinstance(within, shapely.Geometry) else None
    if region is not None:
        if region.is_empty or region.area == 0:
            raise ConfigError(f"within=: expected a polygon with an area, found {region.geom_type} of area {region.area:g}")
        if not region.is_valid:
            raise ConfigError(f"within=: the polygon is not valid: {shapely.is_valid_reason(region)}")
        box = region.bounds
    else:
        box = tuple(float(v) for v in cast("Bounds", within))
    if len(box) != 4 or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
        raise ConfigError(f"within={box!r}: expected xmin < xmax and ymin < ymax, four finite CRS coordinates")
    c0, c1, r0, r1 = places = grid.places(cast("Bounds", box))
    if c1 < c0 or r1 < r0:
        raise ConfigError(
            f"within=: no tile of {_metres(grid)} fits into {box[2] - box[0]:g} × {box[3] - box[1]:g} CRS units: "
            "make the tiles smaller or the region larger"
            + (f" (a region in degrees? Say it in units of SRID {grid.srid})" if max(map(abs, box)) <= 180 else "")
        )
    return region, places


def _inside(grid: Grid, region: shapely.Geometry | None, cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    if region is None:
        return np.ones(len(cols), bool)
    shapely.prepare(region)
    return cast("NDArray[np.bool_]", shapely.covers(region, shapely.box(*grid.bounds(cols, rows).T)))


def _metres(grid: Grid) -> str:
    (rx, ry), (h, w) = grid.pixel, grid.shape
    return f"{w} × {h} px ({w * rx:g} × {h * ry:g} CRS units)"
