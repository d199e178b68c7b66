"""Tiles: where they come from, what is known of them before they are read, and how they are dealt and kept."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from . import draws, geoparquet, grouping, keeping, splitting, tiletable, webmap
from .draws import Draws
from .grid import Bounds, Grid, HasLattice, pair, whole
from .places import EDGES, Places, around, said, weighted
from .regions import Answers, Query, Within, centres, region
from .splits import Split
from .tileset import TileSet
from .tiletable import Keeps

D = TypeVar("D", contravariant=True)

ON_LATTICE = 1e-3  # px: stored rasters that are no further off are read as they are


class HasRasters(HasLattice, Protocol):
    """What `Tiles.stored` needs of a `Database`."""

    def rasters(self, table: str, column: str | None) -> list[tuple[int, float, float, int, int]]:
        """Key, upper left x and y, width and height of each raster of a table, by key."""


class Measures(Protocol[D]):
    """What `Tiles.describe` needs of a layer; D is a `Database`."""

    def measure(
        self, db: D, tiles: Tiles, name: str, progress: Callable[[int, int], None] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """Columns of what the layer shows on each tile. name: its key in a dict of layers, or nothing."""


@dataclass(frozen=True, eq=False)
class Tiles(TileSet):
    """A set of tiles on one grid, in an order of its own: a small table of arrays, with a row a tile.

    cols, rows: of the place where each tile begins, its upper left corner, in steps of the lattice, int64; rows count
    southwards.
    ids: what a batch calls its tiles, int64, unique; 0 to N - 1 unless given.
    times: each tile's own time in UTC, datetime64[us], NaT where one has none; None where none has (see `timed`).
    columns: what else is known of each tile, by name: arrays of N numbers, truths, texts or times (see `with_columns`).
    made: the call that made the tiles, or those that they were taken from, with its settings, ready for JSON.
    zone: of tiles on several grids (`Zones`, as `+` makes them), the number of each one's grid; None where there is one.
    """

    @classmethod
    def random(
        cls,
        grid: Grid,
        *,
        within: Within | None = None,
        count: int,
        seed: int = 0,
        first_id: int = 0,
        min_coverage: float = 1.0,
        imagery: str | None = None,
        db: Answers | None = None,
    ) -> Tiles:
        """`count` tiles drawn uniformly from all places on the lattice where a tile lies in the region.

        within: xmin, ymin, xmax, ymax or a shapely (multi)polygon, in the grid's CRS; or a query that gives ``geom``, or a
        table's name, of areas in any SRID, for which `db` is needed.
        imagery: a raster table: the region ends where it does. Alone, without `within`, it is the region.
        min_coverage: the share of a tile that must lie in the region: 1, all of it, unless given.
        Places are drawn with replacement, so tiles overlap and may repeat. The same seed gives the same tiles.
        Raises `ConfigError` where no tile fits, or where too little of the region can hold one.
        """
        whole("count", count, 1)
        whole("seed", seed, 0)
        places, made = _everywhere(grid, within=within, min_coverage=min_coverage, imagery=imagery, db=db)
        return cls._drawn(places, made, count, seed=seed, first_id=first_id)

    @classmethod
    def _drawn(cls, places: Places, made: Mapping[str, Any], count: int, *, seed: int, first_id: int) -> Tiles:
        cols, rows = places.draw(count, seed)
        ids = np.arange(first_id, first_id + count)
        return cls(places.grid, cols, rows, ids, made={**made, "count": int(count), "seed": int(seed)})

    @classmethod
    def sliding(
        cls,
        grid: Grid,
        *,
        within: Within | None = None,
        stride: int | tuple[int, int] | None = None,
        overlap: int | tuple[int, int] | None = None,
        edge: str = "drop",
        first_id: int = 0,
        min_coverage: float | None = None,
        imagery: str | None = None,
        db: Answers | None = None,
    ) -> Tiles:
        """All tiles that lie in the region, row by row from the north-west, `stride` pixels apart.

        within, imagery, min_coverage: as for `random`.
        stride: pixels, one number or (down, right); the tile's own size unless given, so that tiles just touch.
        overlap: pixels that neighbours share, in place of a stride.
        edge: what becomes of a rest at the eastern and southern edge of the region's box that is narrower than a tile:
        ``"drop"`` leaves it uncovered, ``"shift"`` moves the last column and row back inside, ``"beyond"`` lets tiles reach
        beyond the region, and takes all that share any land with it unless `min_coverage` is given.
        Raises `ConfigError` where no tile fits.
        """
        if stride is not None and overlap is not None:
            raise ConfigError(f"stride={stride!r}, overlap={overlap!r}: expected one of both, as stride = size - overlap")
        height, width = grid.shape
        shared = (0, 0) if overlap is None else pair("overlap", overlap, int)
        own = (height - shared[0], width - shared[1]) if stride is None else stride
        down, right = grid.in_steps(*pair("stride", own, int))
        if not all(isinstance(n, int) and n >= 1 for n in (down, right)) or min(shared) < 0:
            given = f"stride={stride!r}" if overlap is None else f"overlap={overlap!r}"
            raise ConfigError(
                f"{given}: expected a stride of at least one pixel, in whole steps of the grid, of {grid.step}, and tiles of "
                f"{grid.shape} px that overlap by less than that"
            )
        if edge not in EDGES:
            raise ConfigError(f"edge={edge!r}: expected one of {', '.join(EDGES)}")
        land = region(db, grid, within, imagery)
        share = None if min_coverage is None else _share(min_coverage)
        cols, rows = Places.spaced(grid, land, (int(down), int(right)), edge, share).all()
        steps = pair("stride", own, int)
        made = {"by": "sliding", "within": said(within), "stride": steps, "edge": edge, "min_coverage": share}
        ids = np.arange(first_id, first_id + len(cols))
        return cls(grid, cols, rows, ids, made=made | ({"imagery": imagery} if imagery else {}))

    @classmethod
    def query(
        cls,
        db: Answers,
        grid: Grid,
        query: Query,
        *,
        jitter: float = 0.0,
        count: int | None = None,
        seed: int = 0,
        first_id: int = 0,
    ) -> Tiles:
        """A tile for each geometry that a query gives, the middle of its bounding box in the tile's middle.

        query: gives ``geom``, in any SRID; or a table's name, of which the geometries are taken and nothing else. Its other
        columns become columns of the tiles, but `time`, which becomes their times, and `id`, their ids.
        jitter: pixels by which a tile is moved at most, to either side and up or down, uniformly.
        count: draw so many tiles, with replacement, each row as likely as its column `weight` says, or all alike. As a row may
        come twice, tiles are then numbered, and `id` is a column.
        Tiles come in the query's order, so give it an ORDER BY where that, or a draw by the seed, shall be the same again.
        """
        whole("seed", seed, 0)
        if not 0 <= jitter < math.inf:
            raise ConfigError(f"jitter={jitter!r}: expected pixels, 0 or more")
        middles, columns = centres(db, grid, query)
        rng = np.random.default_rng(seed)
        if count is not None:
            whole("count", count, 1)
            drawn = weighted(rng, len(middles), columns.get("weight"), count)
            middles, columns = middles[drawn], {name: values[drawn] for name, values in columns.items()}
        cols, rows = around(grid, middles, jitter, rng)
        times, ids = columns.pop("time", None), np.arange(first_id, first_id + len(cols))
        if times is not None and times.dtype.kind != "M":
            raise ConfigError("the query for tiles: its column time is no date or timestamp: call it otherwise, or cast it")
        if count is None and "id" in columns:
            ids = columns.pop("id")
            if ids.dtype.kind not in "iu" or len(np.unique(ids)) < len(ids):
                raise ConfigError(
                    "the query for tiles: its column id becomes the tiles' ids, which are whole numbers, each there once: "
                    "give it another name, or number the rows, row_number() OVER () AS id"
                )
        made = {"by": "query", "query": said(query), "jitter": float(jitter), "count": count and int(count), "seed": int(seed)}
        return cls(grid, cols, rows, ids, times, columns, made)

    @classmethod
    def slippy(cls, zoom: int, *, within: Bounds, size: int = 256, first_id: int = 0) -> Tiles:
        """The tiles of a web map at a zoom level, on a grid in EPSG:3857, with the columns x, y and z.

        within: west, south, east, north in degrees; all tiles that share any land with it come, row by row from the north-west.
        size: pixels of a tile: 256, or 512 where maps have tiles of twice the resolution.
        """
        grid = webmap.grid(zoom, size)
        x, y = webmap.numbers(zoom, within)
        columns = {"x": x, "y": y, "z": np.full(len(x), zoom)}
        made = {"by": "slippy", "zoom": int(zoom), "within": said(within), "size": int(size)}
        return cls(grid, x * size, y * size, np.arange(first_id, first_id + len(x)), None, columns, made)

    @classmethod
    def fresh(cls, grid: Grid, *, count: int, **where: Any) -> Draws[Tiles]:
        """`count` random tiles, others in each epoch, for a dataset's ``tiles``: no epoch has an id of another one.

        where: the arguments of `Tiles.random`, but seed and first_id, which come of the dataset's seed and the epoch.
        The region is read once, here: what changes in the database later, changes no epoch, and `db` is not asked again.
        """
        if own := {"seed", "first_id"} & where.keys():
            raise ConfigError(f"{sorted(own)[0]}= can't be given: it comes of the dataset's seed and of the epoch")
        whole("count", count, 1)
        return draws.fresh(partial(cls._drawn, *_everywhere(grid, **where), count), count)

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

    def save(self, path: str | os.PathLike[str], *, replace: bool = False) -> None:
        """Keep the tiles in a GeoParquet file, all of it or nothing: places, ids, times, columns, the grid and what made them.

        Needs pyarrow and pyproj: ``pip install 'pgtiles[parquet]'``. `load` gives the same tiles again. A file that is there is
        refused unless `replace` is given, so that a split that was saved is never drawn anew unnoticed; one that `save` did not
        write stays as it is in any case.
        """
        geoparquet.write(Path(path), self._kept(), replace)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tiles:
        """The tiles that `save` wrote to this file."""
        return cls._from(*geoparquet.read(Path(path)))

    def to_table(self, db: Keeps, table: str, *, replace: bool = False) -> None:
        """Keep the tiles in a new table of the database, all of it or nothing; QGIS shows their envelopes.

        `from_table` gives the same tiles again. A table that is there is refused unless `replace` is given; one
        that `to_table` did not write stays as it is in any case.
        """
        tiletable.write(db, table, self._kept(), replace)

    @classmethod
    def from_table(cls, db: Keeps, table: str) -> Tiles:
        """The tiles that `to_table` wrote to this table; columns that were added to it since come with them."""
        return cls._from(*tiletable.read(db, table))

    def _kept(self) -> keeping.Kept:
        ours = (np.arange(len(self)), self.ids, self.cols, self.rows, self.zone, self.times)
        named = dict(zip(keeping.OURS, ours, strict=True))
        return keeping.kept(self.grid, named, self.columns, self.bounds, self.srids, self.made)

    @classmethod
    def _from(cls, noted: keeping.Json, columns: Mapping[str, NDArray[Any]]) -> Tiles:
        ids, cols, rows = (columns[name] for name in (keeping.ID, keeping.COL, keeping.ROW))
        own = {name: columns[name] for name in keeping.own_columns(noted, columns)}
        times, zone = columns.get(keeping.TIME), columns.get(keeping.GRID)
        return cls(keeping.grid_in(noted), cols, rows, ids, times, own, noted["made"], zone)

    def describe(
        self, db: D, layers: Measures[D] | Mapping[str, Measures[D]], *, progress: Callable[[int, int], None] | None = None
    ) -> Tiles:
        """The same tiles with columns of what vectors show on them: no tile is read, and no pixel made.

        layers: `Labels` or `Vectors` with classes or bands by name, or a dict of such layers.
        progress: is told how many tiles of all are done.

        Each class gives two columns. ``<class>``: the share of the tile that its features cover, 0 to 1, as the exact area
        of the vectors (widened by ``buffer=``), where what overlaps within the class counts once; what another class covers
        counts too. ``<class>_count``: how many features have a part inside the tile; bare lines and points have no area, but
        count. A layer without classes is a class of its key's name.
        """
        columns: dict[str, NDArray[Any]] = {}
        for name, layer in (layers if isinstance(layers, Mapping) else {"": layers}).items():
            if not hasattr(layer, "measure"):
                raise ConfigError(f"{type(layer).__name__} burns no vectors: expected Labels or Vectors, or a dict of them")
            more = self._measured(db, layer, name, progress)
            if twice := sorted(columns.keys() & more.keys()):
                raise ConfigError(f"two of the layers give a column {twice[0]!r}: rename a class, or describe them one by one")
            columns |= more
        return self.with_columns(**columns)

    def _measured(
        self, db: D, layer: Measures[D], name: str, progress: Callable[[int, int], None] | None
    ) -> dict[str, NDArray[Any]]:
        """The columns that a layer adds, asked for the tiles of each grid."""
        columns, done = dict[str, NDArray[Any]](), 0
        for _, where, part in self.zones():

            def tell(n: int, _: int, before: int = done) -> None:
                if progress:
                    progress(before + n, len(self))

            for key, values in layer.measure(db, part, name, tell).items():
                columns.setdefault(key, np.zeros(len(self), values.dtype))[where] = values
            done += len(part)
        return columns

    def filter(
        self, keep: Callable[[Mapping[str, NDArray[Any]]], NDArray[np.bool_]], *, negatives: float = 0.0, seed: int = 0
    ) -> Tiles:
        """The tiles that meet a condition, in their order: ``tiles.filter(lambda tile: tile["road"] > 0.01)``.

        keep: takes all columns by name, ``id`` among them, and gives a truth for each tile.
        negatives: of the tiles that do not meet it, this share is kept too, 0 to 1, rounded to whole tiles: drawn by the seed.
        """
        return self[draws.kept(self, keep, negatives, seed)]

    def weighted(self, weights: str | Sequence[float] | NDArray[Any], *, count: int | None = None) -> Draws[Tiles]:
        """Tiles drawn by weight, others in each epoch, for a dataset's ``tiles``; a tile may come more than once in an epoch.

        weights: one for each tile, 0 or more, or a column's name. A tile comes count × its share of all weights times in an
        epoch, rounded up or down by chance.
        count: how many tiles an epoch reads; as many as there are unless given.
        """
        return draws.weighted(self, weights, count)

    def balanced(self, by: str, *, share: float | None = None, count: int | None = None) -> Draws[Tiles]:
        """Tiles drawn so that a column is balanced, others in each epoch, for a dataset's ``tiles``: see `weighted`.

        by: a column of categories (texts, truths, whole numbers or times), each of which comes equally often; or, with
        ``share=``, of shares of a class, as `describe` gives them.
        share: the mean share of the class over the tiles of an epoch.
        count: as for `weighted`.

        Raises `ConfigError`, with what can be reached, where no weights give the share; warns where few tiles do.
        """
        return draws.balanced(self, by, share, count)

    def density(self, radius: float) -> NDArray[np.int64]:
        """How many tiles have their centre within the radius of each tile's centre, itself included: ``1 / density`` as weights
        keeps a place of many tiles from outweighing others.

        radius: CRS units; tiles on another grid are no neighbours. Distances north to south are told to a 16th of it.
        """
        density = np.zeros(len(self), np.int64)
        for _, where, part in self.zones():
            density[where] = draws.density(part, radius)
        return density

    def split(
        self, *, train: float = 0.0, val: float = 0.0, test: float = 0.0, block: float | None = None, by: str | None = None,
        polygons: Query | None = None, gap: float, seed: int = 0, stratify: str | Sequence[str] = (), tolerance: float = 0.05,
        db: Any = None,
    ) -> Split[Tiles]:  # fmt: skip
        """Deal whole groups of tiles to train, val and test, and drop the tiles that come too near to another split.

        train, val, test: shares of the tiles, of which at least two are positive; they are scaled to sum to 1.
        block: tiles whose centres lie in one block of land go together; its side in ground metres, at the least.
        by: instead, a column: tiles of one value go together.
        polygons: instead, a table or a query in ``db`` that gives ``geom`` and ``id``: a tile goes with the polygon that holds
        its centre, and a tile outside all of them is left out.
        gap: ground metres. No pixel of one split lies within them of a pixel of another. Train gives way to val and test, and
        val to test.
        stratify: columns of which each split gets its share too: amounts, such as the area of a class, or names.
        tolerance: by how much shares may be off; more is warned of where there is ``stratify``.
        Says what was dropped and reached (`Split.report`), and warns above a fifth that is dropped.
        """
        shares = {"train": train, "val": val, "test": test}
        if any(s < 0 or not math.isfinite(s) for s in shares.values()) or sum(s > 0 for s in shares.values()) < 2:
            raise ConfigError(f"split shares {shares}: expected at least two positive numbers")
        groups, land, made = grouping.group(self, {"block": block, "by": by, "polygons": polygons}, gap, seed, tolerance, db)
        named = (stratify,) if isinstance(stratify, str) else tuple(stratify)
        return splitting.split(
            self, shares, groups, land, gap=gap, seed=seed, stratify=named, tolerance=tolerance, settings=made
        )

    def folds(
        self, k: int, *, block: float | None = None, by: str | None = None, polygons: Query | None = None, gap: float,
        seed: int = 0, db: Any = None,
    ) -> list[Split[Tiles]]:  # fmt: skip
        """Splits into train and val, k of them, for cross-validation: each tile is in val of one.

        block, by, polygons, gap, seed, db: as for `split`. In each fold, train gives way to val.
        """
        whole("k", k, 2)
        groups, land, made = grouping.group(self, {"block": block, "by": by, "polygons": polygons}, gap, seed, 1, db)
        return splitting.folds(self, k, groups, land, gap=gap, seed=seed, settings=made)


def _everywhere(
    grid: Grid,
    *,
    within: Within | None = None,
    min_coverage: float = 1.0,
    imagery: str | None = None,
    db: Answers | None = None,
) -> tuple[Places, dict[str, Any]]:
    """All places in a region, and what to note of how they were asked for."""
    share = _share(min_coverage)
    made = {"by": "random", "within": said(within), "min_coverage": share} | ({"imagery": imagery} if imagery else {})
    return Places.every(grid, region(db, grid, within, imagery), share), made


def _share(min_coverage: float) -> float:
    if not isinstance(min_coverage, int | float | np.integer | np.floating) or not 0 < min_coverage <= 1:
        raise ConfigError(
            f"min_coverage={min_coverage!r}: expected the share of a tile that must lie in the region, above 0, at most 1"
        )
    return float(min_coverage)
