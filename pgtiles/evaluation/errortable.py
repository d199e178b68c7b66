"""How wrong a model is on each tile, kept as rows: what a query for tiles, or for their weights, asks in the next round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, LoadError
from ..loading.newtable import explained
from ..postgres import catalog
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles

CHUNK = 8192  # tiles whose values one statement brings
COLUMNS = {"run": "text", "tile": "int8", "col": "int8", "row": "int8", "value": "float8", "geom": "geometry"}


def keep_errors(
    db: Database, table: str, tiles: Tiles, values: Mapping[int, float] | Sequence[float] | NDArray[Any], *, run: str
) -> int:
    """Keep a value for each tile in a table, all of it or nothing; gives how many. `Tiles.query` reads them back.

    table: ``table`` or ``schema.table``; it is made where there is none, with the columns run, tile, col, row, value and geom.
    tiles: which tiles, of one grid.
    values: a number each, such as the loss, in the tiles' order; or by their ids: tiles without one are left out.
    run: tells one model, or one round, from others. What the run kept of a tile before is replaced.
    """
    if not isinstance(run, str) or not run:
        raise ConfigError(f"run={run!r}: expected a name, such as 'round 1'")
    if tiles.zone is not None:
        raise ConfigError(
            "tiles: they lie on several grids, and a table's geometries in one SRID: keep each of tiles.by_grid()"
        )
    tiles, own = _beside(tiles, values)
    *schemas, name = catalog.parts(table)
    if len(name.encode()) > 63:
        raise ConfigError(f"table {name!r} has a name of {len(name.encode())} bytes: PostgreSQL allows 63")
    with db.connection() as conn:
        try:
            with conn.transaction():
                place = _place(conn, db.name, schemas[0] if schemas else None, name, tiles.grid.srid)
                for start in range(0, len(tiles), CHUNK):
                    conn.execute(_statement(place, tiles[start : start + CHUNK], own[start : start + CHUNK], run))
        except psycopg.errors.InsufficientPrivilege as error:
            said = (
                f"{error.diag.message_primary}: have its owner GRANT SELECT, INSERT, UPDATE ON {table}, or CREATE ON its schema"
            )
            raise LoadError(f"{db.name}: {said}, to this user; the database is as it was before") from error
        except psycopg.Error as error:
            raise explained(error, f"the values of {len(tiles)} tiles were not kept in {table} of {db.name}") from error
    return len(tiles)


def _beside(tiles: Tiles, values: Mapping[int, float] | Sequence[float] | NDArray[Any]) -> tuple[Tiles, NDArray[np.float64]]:
    """The tiles that have a value, and the values."""
    if isinstance(values, Mapping):
        if unknown := values.keys() - set(tiles.ids.tolist()):
            raise ConfigError(f"values: {len(unknown)} ids are of none of these {len(tiles)} tiles, such as {min(unknown)}")
        tiles = tiles[np.flatnonzero(np.isin(tiles.ids, list(values)))]
        values = [values[tile] for tile in tiles.ids.tolist()]
    try:
        own = np.asarray(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # torch's, of a tensor that needs a gradient, says what to do
        raise ConfigError(f"values: expected numbers, found {type(values).__name__}: {error}") from error
    if own.shape != (len(tiles),):
        raise ConfigError(f"values: expected a number for each of {len(tiles)} tiles, found an array {own.shape}")
    if not np.isfinite(own).all():
        odd = tiles.ids[~np.isfinite(own)]
        raise DataError(f"values: {len(odd)} are infinite or no numbers, the first that of tile {odd[0]}: leave such tiles out")
    return tiles, own


def _place(conn: psycopg.Connection[Any], where: str, schema: str | None, name: str, srid: int) -> sql.Identifier:
    """The table, which is made if need be."""
    conn.execute(compose("lock_name", name=f"{schema or ''}.{name}"))  # as many ranks of a training come at once
    known_schema, known, text, kind = conn.execute(compose("new_table", schema=schema, name=name)).fetchone()  # type: ignore[misc]
    if known_schema is None or not known:
        raise ConfigError(f"{where} has no schema {schema!r} for {name}: make it with CREATE SCHEMA, or name another")
    place = sql.Identifier(known_schema, name)
    if not kind:
        for statement in _definition(known_schema, name, srid):
            conn.execute(statement)
        return place
    table = catalog.relation(lambda statement: conn.execute(statement).fetchall(), known_schema, name)
    there = {column.name: column.type for column in table.columns} if table else {}
    if odd := [column for column, kind in COLUMNS.items() if there.get(column) != kind]:
        raise ConfigError(
            f"{text} is there already, and has no column {odd[0]} of type {COLUMNS[odd[0]]}: it keeps no values of tiles, so "
            "name another"
        )
    return place


def _definition(schema: str, name: str, srid: int) -> list[bytes]:
    """CREATE TABLE and CREATE INDEX."""
    import sqlalchemy as sa
    from geoalchemy2 import Geometry
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable

    kinds: dict[str, Any] = {"text": sa.Text(), "int8": sa.BigInteger(), "float8": sa.Double()}
    columns: list[sa.Column[Any]] = [
        sa.Column(column, kinds[kind], primary_key=column in ("run", "tile"), autoincrement=False, nullable=False)
        for column, kind in COLUMNS.items()
        if kind in kinds
    ]
    shape: Any = sa.Column("geom", Geometry("POLYGON", srid, spatial_index=False, nullable=False))
    table = sa.Table(name, sa.MetaData(), *columns, shape, schema=schema)
    index = CreateIndex(sa.Index(None, shape, postgresql_using="gist"))
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # as named, it doubles no percent sign
    return [str(statement.compile(dialect=dialect)).encode() for statement in (CreateTable(table), index)]


def _statement(place: sql.Identifier, tiles: Tiles, values: NDArray[np.float64], run: str) -> sql.Composed:
    bounds = tiles.bounds.T.tolist()
    return compose(
        "tile_errors", table=place, run=run, tiles=tiles.ids.tolist(), cols=tiles.cols.tolist(), rows=tiles.rows.tolist(),
        values=values.tolist(), xmins=bounds[0], ymins=bounds[1], xmaxs=bounds[2], ymaxs=bounds[3], srid=tiles.grid.srid,
    )  # fmt: skip
