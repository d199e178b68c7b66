"""Rasters of classes, and of what was thought of them, read strip by strip from north to south as they are stored."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError
from ..layers.imagery import Imagery
from ..layers.query import OpenLayer
from ..layers.rastersource import off_lattice
from ..postgres import catalog
from ..postgres.catalog import Table
from ..postgres.database import Database
from ..streaming.ahead import ahead
from ..streaming.reading import Plan, read_batch
from ..template import compose
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles

STRIP = 2**19  # pixels of a strip, about
BLOCK = 128  # rows of which strips are made; a raster so wide that a strip has fewer is read in strips that divide them
TALLEST, WIDEST = 8192, 2048  # rows and columns of a tile that is read
TOP = 254  # what a probability of 1 is in 8 bits


@dataclass(frozen=True)
class Rasters:
    """A raster table, or what one run has written into it."""

    table: Table
    column: str
    run: int | None  # its id
    said: str

    @classmethod
    def of(cls, db: Database, name: str, run: str | None, argument: str) -> Rasters:
        """Those that are meant; raises where there are none, or several runs and none is named."""
        table = db.table(name)
        column = table.column("raster")
        if "run" not in {c.name for c in table.columns} or not catalog.relation(db.query, table.schema, "run"):
            if run is not None:
                raise ConfigError(
                    f"{argument}={run!r}: {table} has no column run that refers to a table run beside it, so it is one raster: "
                    "leave the run out"
                )
            return cls(table, column, None, str(table))
        runs = {own: (id_, ended) for id_, own, ended in _runs(db, table)}
        listed = ", ".join(map(repr, runs)) or "none"
        if run is None and len(runs) != 1:
            raise ConfigError(f"{table} holds predictions of {len(runs)} runs: say which with {argument}=; there are {listed}")
        if run is not None and run not in runs:
            raise MissingError(f"{argument}={run!r}: {table} holds nothing of such a run; there are {listed}")
        own = run or next(iter(runs))
        if not runs[own][1]:
            raise ConfigError(f"the run {own!r} of {table} has not ended: call predict as before, which goes on with it")
        return cls(table, column, runs[own][0], f"{table}, run {own!r}")

    def require_there(self, db: Database) -> None:
        """`DataError` where the run was dropped while it was read, or begun anew, which gives it another id."""
        if self.run is not None and self.run not in {id_ for id_, _, ended in _runs(db, self.table) if ended}:
            raise DataError(f"{self.said} was predicted anew, or dropped, while it was read: nothing was written; call again")

    def off(self, db: Database, tiles: Tiles) -> str | None:
        """Why they do not lie on the tiles' pixels; None where they do."""
        headers = catalog.headers(db.query, self.table.identifier, self.column)
        return off_lattice(catalog.one_kind(self.said, headers), tiles)

    def layer(self, grid: Grid) -> Imagery:
        """The rasters as they are stored."""
        source = self.table.identifier.as_string(None)
        if self.run is not None:
            slots = {"table": self.table.identifier, "column": sql.Identifier(self.column)}
            shrink = {"shrink_x": -grid.pixel[0] / 10, "shrink_y": -grid.pixel[1] / 10}
            source = compose("traced_run", run=self.run, **slots, **shrink).as_string(None)
            return Imagery(source, resampling="nearest", dtype="native", valid=True)
        return Imagery(source, column=self.column, resampling="nearest", overviews=False, dtype="native", valid=True)


@dataclass(frozen=True)
class Strips:
    """A raster, from its northern edge to the southern one."""

    grid: Grid  # a tile is as high as a strip
    left: int  # the first column, and the first row
    top: int
    width: int
    height: int
    least: int  # what is taken off class numbers, so that 0 is none
    classes: NDArray[Any] | None  # those wanted
    plan: Plan
    said: str
    thought: str  # the same of the probabilities

    @classmethod
    def open(cls, db: Database, source: Rasters, weighed: Rasters | None, classes: Sequence[int] | None) -> Strips:
        """Look at the rasters; raises where they hold no classes, or do not lie on the same pixels."""
        name = source.table.identifier.as_string(None)
        lattice = Grid.like(db, name, column=source.column)
        (rx, ry), (x, y) = lattice.pixel, lattice.origin
        xmin, ymin, xmax, ymax = db.extent(name, lattice.srid, column=source.column)
        left, right = round((xmin - x) / rx), round((xmax - x) / rx)
        top, bottom = round((y - ymax) / ry), round((y - ymin) / ry)
        size = (min(_rows(right - left), TALLEST, bottom - top), min(right - left, WIDEST))
        grid = Grid(srid=lattice.srid, resolution=lattice.pixel, size=size, origin=lattice.origin)
        layers = {"class": source.layer(grid)} | ({"probability": weighed.layer(grid)} if weighed else {})
        tiles = _tiles(grid, left, top, right - left, bottom - top)
        if weighed and (why := weighed.off(db, tiles)):
            raise ConfigError(
                f"{weighed.said} does not lie on the pixels of {source.said}: {why}. Polygons follow pixels as they are "
                "stored: bring it onto them first, with gdalwarp, and load that"
            )
        plan = Plan.open(db, tiles, layers)
        least = _require_classes(plan.layers[0], source.said)
        if weighed:
            _require_probabilities(plan.layers[1], weighed.said)
        wanted = None if classes is None else np.array(_whole(classes), np.int64)
        thought = weighed.said if weighed else ""
        return cls(grid, left, top, right - left, bottom - top, least, wanted, plan, source.said, thought)

    @property
    def count(self) -> int:
        """How many strips there are."""
        return math.ceil(self.height / self.grid.shape[0])

    @property
    def top_weight(self) -> float:
        """What stands for a probability of 1."""
        return 1.0 if self.plan.layers[-1].sheet.dtype.startswith("float") else float(TOP)

    def read(self, db: Database) -> Generator[tuple[NDArray[np.int64], NDArray[np.float64] | None]]:
        """Strip by strip: class numbers less ``least``, 0 where there is none; and what was thought of each pixel's, or NaN."""
        yield from ahead(lambda number: self._strip(db, number), range(self.count), threads=1, interrupt=db.interrupt)

    def _strip(self, db: Database, number: int) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
        rows = self.grid.shape[0]
        height = min(rows, self.height - number * rows)
        tiles = _tiles(self.grid, self.left, self.top + number * rows, self.width, height)
        sample = db.retry(lambda: read_batch(db, self.plan, tiles), lambda: f"rows of {self.said}").sample
        values, there = self._joined(sample["class"], height)[0], self._joined(sample["class_valid"], height)
        codes = np.where(there, values.astype(np.int64) - self.least, 0)
        if self.classes is not None:
            codes[~np.isin(codes, self.classes - self.least)] = 0
        if "probability" not in sample:
            return codes, None
        bands, known = self._joined(sample["probability"], height), self._joined(sample["probability_valid"], height)
        return codes, self._weights(codes, bands, known & (codes != 0))

    def _joined(self, tiles: NDArray[Any], height: int) -> NDArray[Any]:
        """Tiles side by side as one array."""
        side_by_side = np.concatenate(list(tiles), axis=-1)
        whole: NDArray[Any] = side_by_side[..., :height, : self.width]
        return whole

    def _weights(self, codes: NDArray[np.int64], bands: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What was thought of each pixel's class."""
        classes = codes + self.least
        most, weights = (len(bands) if len(bands) > 1 else 2), np.full(codes.shape, np.nan)
        if (beyond := known & ((classes < 0) | (classes >= most))).any():
            raise DataError(
                f"{self.thought} has {len(bands)} band{'s' * (len(bands) > 1)}, of the classes 0 to {most - 1}: none for class "
                f"{classes[beyond][0]}; say with classes= which ones are wanted"
            )
        for value in np.unique(classes[known]).tolist():
            mine = known & (classes == value)
            thought = bands[value if len(bands) > 1 else 0][mine].astype(np.float64)
            weights[mine] = self.top_weight - thought if len(bands) == 1 and value == 0 else thought
        if (wrong := known & ~((weights >= 0) & (weights <= self.top_weight))).any():
            raise DataError(f"{self.thought} holds {weights[wrong][0]:g}: expected probabilities, 0 to {self.top_weight:g}")
        return weights


def _runs(db: Database, table: Table) -> list[tuple[int, str, bool]]:
    """Runs of which the table has blocks: id, name, whether it has ended."""
    return db.query(compose("traced_runs", table=table.identifier, runs=sql.Identifier(table.schema, "run")))


def _rows(width: int) -> int:
    """How many rows a strip has: whole blocks, or a part of one that divides it."""
    rows = max(STRIP // width, 1)
    return rows // BLOCK * BLOCK if rows >= BLOCK else 2 ** (rows.bit_length() - 1)


def _tiles(grid: Grid, left: int, top: int, width: int, height: int) -> Tiles:
    """All tiles of some rows, from west to east and from north to south."""
    high, wide = grid.shape
    rows, columns = np.meshgrid(np.arange(top, top + height, high), np.arange(left, left + width, wide), indexing="ij")
    return Tiles(grid, columns.ravel(), rows.ravel())


def _require_classes(layer: OpenLayer, said: str) -> int:
    """What is to be taken off class numbers, so that none is 0; `ConfigError` where the rasters hold no class numbers."""
    bands, dtype = layer.sheet.shape[0], np.dtype(layer.sheet.dtype)
    if bands != 1 or dtype.kind == "f":
        raise ConfigError(
            f"{said} has {bands} band{'s' * (bands != 1)} of {dtype}: expected one of whole numbers, the classes. Of "
            "probabilities take the likeliest class first, as predict does"
        )
    return int(np.iinfo(dtype).min) - 1


def _require_probabilities(layer: OpenLayer, said: str) -> None:
    if layer.sheet.dtype not in ("uint8", "float32", "float64"):
        raise ConfigError(f"{said} has pixels of {layer.sheet.dtype}: expected probabilities as floats, or in 8 bits of 254")


def _whole(classes: Sequence[int]) -> list[int]:
    if isinstance(classes, int | str) or not classes or not all(type(value) is int for value in classes):
        raise ConfigError(f"classes={classes!r}: expected class numbers, such as (1, 2)")
    return list(classes)
