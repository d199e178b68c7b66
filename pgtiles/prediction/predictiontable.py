"""A table of predictions: blocks of rasters, each of a run, that QGIS, GDAL and `Imagery` read like any imagery.

What all blocks have in common is declared before there are any, so each that comes is held against it. A row of blocks is one
transaction, in which the run notes how far it is: so none is there by half, and none is written by two processes.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from .. import runs
from ..errors import ConfigError, LoadError, MissingError, PgtilesWarning
from ..layers import legend, wkb
from ..layers.describing import Json, differences
from ..postgres import catalog
from ..postgres.connecting import Connection
from ..postgres.database import Database
from ..runs import Run
from ..template import compose
from ..tiling.grid import Bounds, Grid
from ..tiling.tiles import Tiles
from .kinds import Kind
from .overviews import Overviews, overview_of
from .strips import BLOCK, Area
from .writing import again, worded


@dataclass(frozen=True)
class PredictionTable:
    """The table, and the run that is under way."""

    db: Database
    schema: str
    name: str
    run: Run
    kind: Kind
    grid: Grid
    area: Area

    @property
    def table(self) -> sql.Identifier:
        """The name, quoted."""
        return sql.Identifier(self.schema, self.name)

    @property
    def runs(self) -> sql.Identifier:
        """The table of runs, quoted."""
        return sql.Identifier(self.schema, runs.NAME)

    @property
    def overviews(self) -> Overviews:
        """What it has of them."""
        return Overviews(self.schema, self.name, BLOCK)

    @property
    def text(self) -> str:
        """Schema and name, quoted where SQL needs it."""
        return self.table.as_string(None)

    def write(self, number: int, row: int, first: int, pixels: NDArray[Any], covered: NDArray[np.bool_]) -> None:
        """A row of blocks, and that it is done; nothing, where another process has done it meanwhile.

        number: of the row among those of all strips. row, first: of the row and of its first block, of pixels, in the area.
        """
        blocks = list(self._blocks(row, first, pixels, covered))
        again(self.db, lambda: self._write(number, blocks), f"writing {self.text}")

    def _write(self, number: int, blocks: Sequence[tuple[int, bytes]]) -> None:
        with self.db.connection() as conn, worded(conn, self.text), conn.transaction():
            done = conn.execute(compose("run_locked", runs=self.runs, id=self.run.id)).fetchone()
            if done is None:
                raise self._dropped()
            if done[0] > number:
                return
            if done[0] < number:
                raise LoadError(f"the run {self.run.name!r} was begun anew by another process: this one stops")
            if blocks:
                conn.execute(
                    compose("prediction_drop", table=self.table, run=self.run.id, blocks=[block for block, _ in blocks])
                )
                with conn.cursor() as cursor, cursor.copy(compose("prediction_copy", table=self.table)) as copy:
                    for block, raster in blocks:
                        copy.write_row((self.run.id, block, raster.hex()))
            conn.execute(compose("run_on", runs=self.runs, id=self.run.id, done=number + 1))

    def _blocks(self, row: int, first: int, pixels: NDArray[Any], covered: NDArray[np.bool_]) -> Iterator[tuple[int, bytes]]:
        """Numbers and rasters of the blocks of a row to which anything came."""
        for col in range(pixels.shape[-1] // BLOCK):
            across = slice(col * BLOCK, (col + 1) * BLOCK)
            if covered[:, across].any():
                yield self.area.block(row, first + col), self.raster(row, first + col, pixels[:, :, across])

    def raster(self, row: int, col: int, pixels: NDArray[Any]) -> bytes:
        """A block as raster WKB."""
        (rx, ry), (x, y), (left, top) = self.grid.pixel, self.grid.origin, self.area.corner
        corner = x + (left + col * BLOCK) * rx, y - (top + row * BLOCK) * ry
        nodata = self.kind.nodata
        return wkb.encode(pixels, upper_left=corner, scale=(rx, -ry), srid=self.grid.srid, nodata=nodata)

    def _dropped(self) -> LoadError:
        return LoadError(f"the run {self.run.name!r} was dropped from {self.runs.as_string(None)} while it was under way")

    def finish(self, overviews: Sequence[int]) -> int:
        """Make the overviews, those that are there anew, and note that the run has ended: how many blocks it has."""
        return again(self.db, lambda: self._finish(overviews), f"finishing {self.text}")

    def _finish(self, overviews: Sequence[int]) -> int:
        with self.db.connection() as conn, worded(conn, self.text), conn.transaction():
            conn.execute(compose("lock_name", name=self.text))  # another process may have come to its end, too
            run, there = runs.found(conn, self.runs, self.run.name), self.overviews.there(conn)
            if run is None or run.id != self.run.id:
                raise self._dropped()
            if run.ended is None or not {*overviews} <= there.keys():
                self.overviews.make(conn, overviews, smooth=self.kind.name != "classes")
                conn.execute(sql.SQL("ANALYZE {}").format(self.table))
                conn.execute(compose("run_ended", runs=self.runs, id=self.run.id))
            [(count,)] = conn.execute(compose("prediction_count", table=self.table, run=self.run.id)).fetchall()
        return int(count)


def require_names(into: str, run: str | None, overviews: Sequence[int]) -> None:
    """`ConfigError` where a run can't be called so, or a table, which PostgreSQL would cut short, or an overview of it."""
    if run is not None and not (isinstance(run, str) and run and "\0" not in run):
        raise ConfigError(f"run={run!r}: expected a name")
    own = catalog.parts(into)[-1]
    for name in (own, *(overview_of(own, factor) for factor in overviews)):
        if len(name.encode()) > 63:
            raise ConfigError(f"table {name!r} would have a name of {len(name.encode())} bytes: PostgreSQL allows 63")


def prepare(
    db: Database, into: str, *, name: str | None, replace: bool, kind: Kind, model: str, layers: Json, settings: Json,
    classes: Mapping[int, str], tiles: Tiles, area: Area, box: Bounds, overviews: Sequence[int],
) -> PredictionTable:  # fmt: skip
    """Have the table there, and the run noted; the run of this name that is there goes on, if it is the same.

    Raises `ConfigError` where it is another, and `LoadError` where the tables hold something else or may not be written to.
    """
    *schemas, own = catalog.parts(into)
    with db.connection() as conn, worded(conn, into), conn.transaction():
        schema, known, text, _ = conn.execute(
            compose("new_table", schema=schemas[0] if schemas else None, name=own)
        ).fetchall()[0]
        if schema is None or not known:
            make = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(*schemas or ["public"])).as_string(None)
            raise MissingError(f"{into}: {db.name} has no such schema; make it with: {make}")
        run_table, name = runs.have_table(conn, schema), name or own
        run = runs.found(conn, run_table, name)
        if run and replace:
            conn.execute(compose("run_drop", runs=run_table, id=run.id))
        if run and not replace:
            _require_same(run, {"model": model, "layers": layers, "settings": settings, "classes": dict(classes)}, tiles)
        else:
            run = runs.new(
                conn, run_table, name=name, model=model, layers=layers, settings=settings, classes=classes, tiles=tiles, box=box
            )
        wanted = PredictionTable(db, schema, own, run, kind, tiles.grid, area)
        made = _make(conn, wanted, text)
        [(empty,)] = conn.execute(compose("prediction_empty", table=wanted.table, run=run.id)).fetchall()
        if (made or empty) and run.done:  # the table was dropped, or emptied, since
            conn.execute(compose("run_on", runs=run_table, id=run.id, done=0))
            wanted = dataclasses.replace(wanted, run=dataclasses.replace(run, done=0, ended=None))
        if kind.name == "classes":
            _say_names(conn, wanted)
        wanted.overviews.require(conn, overviews)
    return wanted


def _make(conn: Connection, wanted: PredictionTable, text: str) -> bool:
    """Whether the table had to be made; raises where one is there that can't hold the run."""
    relkind, columns, lacking, user = runs.there(conn, text)
    sample = np.full((wanted.kind.stored, BLOCK, BLOCK), wanted.kind.nodata, wanted.kind.dtype)
    like = wanted.raster(0, 0, sample).hex()
    if relkind:
        if not {"run", "block", "rast"} <= set(columns):
            raise LoadError(f"{text} is there already and holds no predictions: name another table, or drop this one")
        runs.require_rights(text, relkind, lacking, user, wanted.table)
    else:
        named = wanted.runs.as_string(None)
        runs.require_rights(named, "r", runs.there(conn, named, ["REFERENCES"])[2], user, wanted.runs)
        conn.execute(compose("prediction_table", table=wanted.table, runs=wanted.runs))
        conn.execute(compose("raster_storage", table=wanted.table))
    with conn.transaction() as trial:
        try:
            conn.execute(compose("prediction_like", table=wanted.table, run=wanted.run.id, rast=like))
        except psycopg.errors.CheckViolation as error:
            bands = f"{wanted.kind.stored} band{'s' * (wanted.kind.stored > 1)} of {wanted.kind.dtype}"
            raise LoadError(
                f"{text} holds predictions of another kind (its constraint {error.diag.constraint_name}): this run has {bands} "
                f"in SRID {wanted.grid.srid}, {wanted.grid.pixel[0]:g} CRS units a pixel. Predict into "
                "another table, or drop this one"
            ) from error
        if relkind:
            raise psycopg.Rollback(trial)
    if relkind:
        return False
    conn.execute(compose("raster_constraints", schema=wanted.schema, name=wanted.name))
    conn.execute(compose("prediction_drop", table=wanted.table, run=wanted.run.id, blocks=[-1]))
    conn.execute(compose("raster_index", table=wanted.table))
    return True


def _say_names(conn: Connection, wanted: PredictionTable) -> None:
    """Have the table say what its numbers mean, in all of its runs; `ConfigError` where another one has other names."""
    table = catalog.table(lambda statement: conn.execute(statement).fetchall(), wanted.text)
    comment = next(column.comment for column in table.columns if column.name == "rast")
    names, there = dict(wanted.run.classes), legend.names_in(comment)
    if comment and not comment.startswith(legend.PREFIX):
        return  # the user's own
    [(others,)] = conn.execute(compose("prediction_others", table=wanted.table, runs=wanted.runs, run=wanted.run.id)).fetchall()
    if others:
        if odd := [value for value in names if there.get(value, names[value]) != names[value]]:
            raise ConfigError(
                f"classes: {odd[0]} is {names[odd[0]]!r}, and in other runs of {wanted.text} {there[odd[0]]!r}: a table has "
                "one name for a number. Predict into another table"
            )
        names = there | names
    if legend.names_in(said := legend.comment(names)) != there:
        statement = compose("class_names", table=wanted.table, column=sql.Identifier("rast"), comment=said if names else None)
        try:
            with conn.transaction():
                conn.execute(statement)
        except psycopg.errors.InsufficientPrivilege:
            text = f"{wanted.text} does not name its classes, for only its owner can: {statement.as_string(None)}"
            warnings.warn(text, PgtilesWarning, stacklevel=4)


def _require_same(run: Run, wanted: Mapping[str, Any], tiles: Tiles) -> None:
    """`ConfigError` where a run of this name has another model, or other settings or tiles."""
    there = {key: getattr(run, key) for key in wanted}
    differ = list(differences(there, wanted))
    if run.tiles != runs.fingerprint(tiles):
        differ.append("the tiles are others")
    if differ:
        raise ConfigError(
            f"there is a run {run.name!r} already, and it is another: {'; '.join(differ[:3])}. Give this one a name of its own "
            "with run= (--run), or have it take that one's place with replace=True (--replace)"
        )
