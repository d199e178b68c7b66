"""Which places of a lattice hold a tile of a region, and uniform draws from them. No I/O.

Where a good part of the places in a region's box will do, they are drawn by trial, at once. A region of small polygons in a
wide box has few places among very many. So there, and where all places are wanted, rectangles of places are cut in four, again
and again: one whose tiles all lie in the region is taken whole, one of which none can is forgotten, and only what the border
runs through is cut further. What is left is few rectangles, of which a uniform draw hits and misses at most as often, and
which, cut to single places, are all there are.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, cast

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import ConfigError
from ..postgres.usersql import text_of
from .grid import ON_LINE, Bounds, Grid

Ints = NDArray[np.int64]

TRIES = 1024  # random places in a region's box, by which is judged how many of them count
OFTEN = 0.05  # of the places in a region's box: if more count, they are drawn by trial
VERTICES = 100  # of a piece of a region
CELLS = 300_000  # rectangles that are cut further; beyond it, a draw may miss more often
LONG = 10_000  # characters of a shape that is noted as it is
EDGES = ("drop", "shift", "beyond")


@dataclass(frozen=True)
class Axis:
    """Places along one side, in steps of the lattice: from the first, `step` apart, and none beyond the last."""

    first: int
    count: int
    step: int = 1
    last: int = 2**62

    def at(self, index: Ints) -> Ints:
        """The column or row of the n-th place."""
        return np.minimum(self.first + index * self.step, self.last)

    def between(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> tuple[Ints, Ints]:
        """The first of the places from low on, and the first beyond high."""
        end = self.first + (self.count - 1) * self.step
        last = min(end, self.last)
        begin = np.minimum(np.ceil((low - self.first) / self.step), np.where(low <= last, self.count - 1, self.count))
        beyond = np.where(high >= last, self.count, np.floor((high - self.first) / self.step) + 1)
        return np.clip(begin, 0, self.count).astype(np.int64), np.clip(beyond, 0, self.count).astype(np.int64)


@dataclass(frozen=True)
class Places:
    """Places on a grid, of which those count whose tiles lie in a region.

    region: None where all of them do.
    share: of a tile's area that must lie in the region; 1 is a tile wholly within, 0 one that shares any area with it.
    """

    grid: Grid
    cols: Axis
    rows: Axis
    region: shapely.Geometry | None
    share: float

    @classmethod
    def every(cls, grid: Grid, within: Bounds | shapely.Geometry, share: float) -> Places:
        """Each place of the lattice."""
        region, (west, east, north, south) = _region(grid, within, share)
        return cls(grid, Axis(west, east - west + 1), Axis(north, south - north + 1), region, share)

    @classmethod
    def spaced(
        cls, grid: Grid, within: Bounds | shapely.Geometry, stride: tuple[int, int], edge: str, share: float | None
    ) -> Places:
        """Places that are a stride apart (in steps: down, right), from the north-west; see `Tiles.sliding` for the edges."""
        beyond, wanted = edge == "beyond", 1.0 if share is None else share
        region, (west, east, north, south) = _region(grid, within, 0.0 if beyond else wanted)
        box = region.bounds if region is not None else cast("Bounds", tuple(float(v) for v in cast("Bounds", within)))
        span, sides = grid.span(box), grid.in_steps(*grid.shape)
        axes = []
        limits = (west, east), (north, south)
        for begin, end, (least, last), step, side in zip(span[::2], span[1::2], limits, stride[::-1], sides[::-1], strict=True):
            if beyond:
                first = math.floor(begin + ON_LINE)
                count = max(math.ceil((end - ON_LINE - side - first) / step), 0) + 1
                axes.append(Axis(first, count, step))
            else:
                first = min(math.ceil(begin - ON_LINE), last)
                first -= 0 if edge == "shift" else (first - least) // step * step  # tiles may stick out on all sides
                count = (-(-(last - first) // step) if edge == "shift" else (last - first) // step) + 1
                axes.append(Axis(first, count, step, last))
        if beyond and share is None:
            region = region if isinstance(within, shapely.Geometry) else None  # all places over a box share area with it
        return cls(grid, axes[0], axes[1], region, 0.0 if beyond and share is None else wanted)

    def draw(self, count: int, seed: int) -> tuple[Ints, Ints]:
        """Columns and rows of `count` places drawn uniformly, with replacement, from all that count."""
        rng = np.random.default_rng(seed)
        if self.region is None:
            some = max(1024, 2 * count)
            drawn = [rng.integers(axis.first, axis.first + axis.count, some) for axis in (self.cols, self.rows)]
            return drawn[0][:count], drawn[1][:count]
        if (found := self._by_trial(count, rng)) is not None:
            return found
        whole, mixed, lands = self._some_cells
        cells = np.concatenate([whole, mixed])
        ends = np.cumsum(_sizes(cells))
        cols, rows, tried = np.empty(0, np.int64), np.empty(0, np.int64), 0
        while len(cols) < count:
            if not len(ends) or (tried > 100_000 and len(cols) < tried / 10_000):
                raise self._no_room(f"of {tried} random places {len(cols)} do; " if tried else "")
            some = max(1024, 2 * (count - len(cols)))
            number = rng.integers(0, ends[-1], some)
            cell = np.searchsorted(ends, number, side="right")
            c, r = self._numbered(cells[cell], number - (ends - _sizes(cells))[cell])
            keep = cell < len(whole)
            if not keep.all():
                keep[~keep] = self._hold(c[~keep], r[~keep], lands[cell[~keep] - len(whole)])
            cols, rows, tried = np.append(cols, c[keep]), np.append(rows, r[keep]), tried + some
        return cols[:count], rows[:count]

    def _by_trial(self, count: int, rng: np.random.Generator) -> tuple[Ints, Ints] | None:
        """So many of the places in the region's box as do; None where few of them do."""
        shapely.prepare(self.region)
        cols, rows, tried, some = np.empty(0, np.int64), np.empty(0, np.int64), 0, TRIES
        while len(cols) < count:
            c, r = self.cols.at(rng.integers(0, self.cols.count, some)), self.rows.at(rng.integers(0, self.rows.count, some))
            keep = self._hold(c, r, self.region) if self.share == 1 else self._share_in(self._pieces, c, r)
            cols, rows, tried = np.append(cols, c[keep]), np.append(rows, r[keep]), tried + some
            if len(cols) < OFTEN * tried:
                return None
            some = min(max(TRIES, int(1.1 * (count - len(cols)) * tried / len(cols))), CELLS)
        return cols[:count], rows[:count]

    def all(self) -> tuple[Ints, Ints]:
        """Columns and rows of all places that count, row by row from the north-west."""
        if self.region is None:
            i, j = np.arange(self.cols.count), np.arange(self.rows.count)
            return np.tile(self.cols.at(i), len(j)), np.repeat(self.rows.at(j), len(i))
        cells, *_ = self._cells(all_of_them=True)
        if not len(cells):
            raise self._no_room()
        sizes = _sizes(cells)
        begin = np.cumsum(sizes) - sizes
        cols, rows = self._numbered(cells.repeat(sizes, axis=0), np.arange(sizes.sum()) - begin.repeat(sizes))
        order = np.lexsort((cols, rows))
        return cols[order], rows[order]

    def _numbered(self, cells: Ints, number: Ints) -> tuple[Ints, Ints]:
        """Column and row of the n-th place in each rectangle."""
        down, right = np.divmod(number, cells[:, 1] - cells[:, 0])
        return self.cols.at(cells[:, 0] + right), self.rows.at(cells[:, 2] + down)

    def _hold(self, cols: Ints, rows: Ints, lands: Any) -> NDArray[np.bool_]:
        """Whether the tiles at these places lie in the region, of which the part around each is given."""
        if self.share == 1:
            return cast("NDArray[np.bool_]", shapely.covers(lands, self._inner(self.grid.bounds(cols, rows))))
        boxes = shapely.box(*self.grid.bounds(cols, rows).T)
        return cast("NDArray[np.bool_]", shapely.area(shapely.intersection(lands, boxes)) >= self._least)

    def _share_in(self, tree: Any, cols: Ints, rows: Ints) -> NDArray[np.bool_]:
        """Whether the tiles at these places have their share of the region, whose pieces the tree holds."""
        boxes = shapely.box(*self.grid.bounds(cols, rows).T)
        tile, piece = tree.query(boxes)
        land = shapely.area(shapely.intersection(tree.geometries[piece], boxes[tile]))
        return np.bincount(tile, land, len(boxes)) >= self._least

    def _inner(self, bounds: NDArray[np.float64]) -> Any:
        """Boxes smaller by what is on a line of the lattice, lest a rounding of their sides or the region's parts them."""
        (x, y), (west, south, east, north) = self.grid.pixel, bounds.T
        return shapely.box(west + ON_LINE * x, south + ON_LINE * y, east - ON_LINE * x, north - ON_LINE * y)

    @property
    def _least(self) -> float:
        """The area that a tile must have in the region; a rounding below it is enough."""
        (rx, ry), (height, width) = self.grid.pixel, self.grid.shape
        return max(self.share * (1 - 1e-9), 1e-9) * rx * width * ry * height

    @cached_property
    def _pieces(self) -> Any:
        return shapely.STRtree(_pieces(self.region))

    @cached_property
    def _some_cells(self) -> tuple[Ints, Ints, Any]:
        return self._cells(all_of_them=False)

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what is worked out of them is much more."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _cells(self, *, all_of_them: bool) -> tuple[Ints, Ints, Any]:
        """Rectangles of places, (n, 4) as west, east, north, south, ends excluded: those that count wholly, and those that do
        in part, with the land around each of these. Of the latter there is none if all are wanted, else they hold no more
        places than the former, if that can be had.
        """
        # A tile that lies in a region lies in one of its parts, as these touch in points at most; others may lie in several.
        cells, lands = self._parts() if self.share == 1 else self._blocks()
        found: list[Ints] = []
        inside = 0
        while True:
            around, core = self._spans(cells)
            whole, part, lands = self._judged(around, core, lands)
            found.append(cells[whole])
            inside += int(_sizes(cells[whole]).sum())
            border = part & ~whole & (_sizes(cells) > 1)
            cells, lands = cells[border], lands[border]
            enough = len(cells) > (CELLS if self.share == 1 else CELLS // 5) or int(_sizes(cells).sum()) <= inside
            if not len(cells) or (enough and not all_of_them):
                return np.concatenate(found), cells, lands
            cells, lands = _quartered(cells, lands)

    def _parts(self) -> tuple[Ints, Any]:
        """The polygons that the region consists of, with room for a tile, and the rectangle of places in the box of each."""
        parts = shapely.get_parts(self.region)
        (down, right), (west, east, north, south) = (
            self.grid.in_steps(*self.grid.shape),
            map(np.asarray, self.grid.span(shapely.bounds(parts).T)),
        )
        cols = self.cols.between(west - ON_LINE, east - right + ON_LINE)
        rows = self.rows.between(north - ON_LINE, south - down + ON_LINE)
        some = (cols[0] < cols[1]) & (rows[0] < rows[1])
        shapely.prepare(parts)
        return np.stack([*cols, *rows], axis=1)[some], parts[some]

    def _blocks(self) -> tuple[Ints, Any]:
        """Blocks of places, some for each of the region's polygons, and the polygons whose boxes meet each block's."""
        parts = shapely.get_parts(self.region)
        side = min(4 * math.isqrt(len(parts) - 1) + 1, 1000)
        cuts = [np.unique(np.linspace(0, axis.count, side + 1).astype(np.int64)) for axis in (self.cols, self.rows)]
        west, north = (grid.ravel() for grid in np.meshgrid(*(cut[:-1] for cut in cuts)))
        east, south = (grid.ravel() for grid in np.meshgrid(*(cut[1:] for cut in cuts)))
        cells = np.stack([west, east, north, south], axis=1)
        block, part = shapely.STRtree(parts).query(self._spans(cells)[0])
        order = np.argsort(block, kind="stable")
        there, number = np.unique(block[order], return_inverse=True)
        return cells[there], shapely.multipolygons(parts[part[order]], indices=number)

    def _spans(self, cells: Ints) -> tuple[Any, NDArray[np.float64]]:
        """The box around all tiles of a rectangle, and the box that they have in common, which may be turned inside out."""
        west, north = self.cols.at(cells[:, 0]), self.rows.at(cells[:, 2])
        first = self.grid.bounds(west, north)
        last = self.grid.bounds(self.cols.at(cells[:, 1] - 1), self.rows.at(cells[:, 3] - 1))
        around = np.stack([first[:, 0], last[:, 1], last[:, 2], first[:, 3]], axis=1)
        return self._inner(around) if self.share == 1 else shapely.box(*around.T), np.stack(
            [last[:, 0], first[:, 1], first[:, 2], last[:, 3]], axis=1
        )

    def _judged(self, around: Any, core: NDArray[np.float64], lands: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Any]:
        """Of each rectangle whether all its tiles lie in the region, whether any may, and the land around it.

        Each tile holds the core and lies in the box around: so what they have of the region bounds what a tile has.
        """
        some = (core[:, 0] < core[:, 2]) & (core[:, 1] < core[:, 3])
        cores = (self._inner if self.share == 1 else lambda bounds: shapely.box(*bounds.T))(core[some])
        if self.share == 1:
            part = np.empty(len(lands), bool)
            part[some], part[~some] = shapely.covers(lands[some], cores), shapely.intersects(lands[~some], around[~some])
            return shapely.covers(lands, around), part, lands
        lands = shapely.intersection(lands, around)
        (rx, ry), (height, width) = self.grid.pixel, self.grid.shape
        tile = rx * width * ry * height
        most = shapely.area(lands)
        least = np.maximum(tile - (shapely.area(around) - most), 0)
        common = shapely.area(shapely.intersection(lands[some], cores))
        least[some] = np.maximum(least[some], common)
        most[some] = np.minimum(most[some], tile - shapely.area(cores) + common)
        return least >= self._least, most >= self._least, lands

    def _no_room(self, tried: str = "") -> ConfigError:
        share = "lies wholly" if self.share == 1 else f"lies to {self.share:g} of its area"
        return ConfigError(
            f"within=: no tile of {in_words(self.grid)} {share} within the region{'' if self._every else ' at this stride'}: "
            f"{tried}make the tiles smaller, the region wider, or let them stick out with min_coverage="
        )

    @property
    def _every(self) -> bool:
        return self.cols.step == self.rows.step == 1


def _sizes(cells: Ints) -> Ints:
    """How many places each rectangle holds."""
    return (cells[:, 1] - cells[:, 0]) * (cells[:, 3] - cells[:, 2])


def _quartered(cells: Ints, lands: Any) -> tuple[Ints, Any]:
    """Rectangles cut in four; in two, or not at all, where they are one place wide or high."""
    west, east, north, south = cells.T
    x, y = (west + east + 1) // 2, (north + south + 1) // 2
    four = [(west, x, north, y), (x, east, north, y), (west, x, y, south), (x, east, y, south)]
    parts = np.concatenate([np.stack(sides, axis=1) for sides in four])
    there = _sizes(parts) > 0
    return parts[there], np.tile(lands, 4)[there]


def _pieces(region: shapely.Geometry | None) -> Any:
    """A region cut in halves until each has few vertices, as what a tile has of it is found by looking at all of them."""
    parts, done = shapely.get_parts(region), []
    while len(parts):
        many = shapely.get_num_coordinates(parts) > VERTICES
        done.append(parts[~many])
        parts = parts[many]
        west, south, east, north = shapely.bounds(parts).T
        wide = east - west > north - south
        x, y = np.where(wide, (west + east) / 2, east), np.where(wide, north, (south + north) / 2)
        halves = shapely.box(west, south, x, y), shapely.box(np.where(wide, x, west), np.where(wide, south, y), east, north)
        parts = shapely.get_parts(np.concatenate([shapely.intersection(parts, half) for half in halves]))
        parts = parts[shapely.area(parts) > 0]
    return np.concatenate(done)


def _region(
    grid: Grid, within: Bounds | shapely.Geometry, share: float
) -> tuple[shapely.Geometry | None, tuple[int, int, int, int]]:
    """The region as a geometry (None where a tile wholly in its bounding box is in it), and the places in its bounding box."""
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
    (rx, ry), (h, w) = grid.pixel, grid.shape
    x, y = (1 - share) * rx * w, (1 - share) * ry * h  # how far a tile may stick out, if it does on one side only
    c0, c1, r0, r1 = places = grid.places((box[0] - x, box[1] - y, box[2] + x, box[3] + y))
    if c1 < c0 or r1 < r0:
        raise ConfigError(
            f"within=: no tile of {in_words(grid)} fits into {box[2] - box[0]:g} × {box[3] - box[1]:g} CRS units: "
            "make the tiles smaller or the region larger"
            + (f" (a region in degrees? Say it in units of SRID {grid.srid})" if max(map(abs, box)) <= 180 else "")
        )
    return region if region is not None or share == 1 else shapely.box(*box), places


def in_words(grid: Grid) -> str:
    """How large its tiles are."""
    (rx, ry), (h, w) = grid.pixel, grid.shape
    return f"{w} × {h} px ({w * rx:g} × {h * ry:g} CRS units)"


def around(grid: Grid, middles: NDArray[np.float64], jitter: float, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """Columns and rows of the places whose tiles have these points, (N, 2), nearest to their middles.

    jitter: pixels by which each is moved at most, to either side and up or down.
    """
    (rx, ry), (down, right) = grid.pixel, grid.in_steps(*grid.shape)
    moved = middles + rng.uniform(-jitter, jitter, middles.shape) * [rx, ry]
    x, _, y, _ = grid.span((moved[:, 0], moved[:, 1], moved[:, 0], moved[:, 1]))  # type: ignore[arg-type]
    return np.rint(x - right / 2).astype(np.int64), np.rint(y - down / 2).astype(np.int64)


def weighted(rng: np.random.Generator, rows: int, weight: NDArray[Any] | None, count: int) -> Ints:
    """The numbers of `count` rows, drawn with replacement: each as likely as its weight says, or all alike."""
    if weight is None:
        return rng.integers(0, rows, count)
    if weight.dtype.kind not in "biuf" or not np.isfinite(weight).all() or (weight < 0).any() or not weight.any():
        raise ConfigError("weight: expected numbers, 0 or more, and one above 0: COALESCE(…, 0) AS weight")
    return rng.choice(rows, count, p=weight / weight.sum())


def said(value: Any) -> Any:
    """What a region or query was, ready for JSON: of a long shape only what tells it from others."""
    if isinstance(value, shapely.Geometry):
        text = value.wkt
        told = {"bounds": value.bounds, "area": value.area, "sha256": hashlib.sha256(value.wkb).hexdigest()}
        return text if len(text) <= LONG else told
    return (
        value
        if value is None or isinstance(value, str)
        else text_of(value)
        if hasattr(value, "compile")
        else [float(v) for v in value]
    )
