"""Tiles as a table of PostGIS: a polygon a tile, which QGIS opens, and in its COMMENT what makes it tiles again."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import psycopg
import shapely
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, LoadError, MissingError
from ..postgres import catalog
from ..postgres.usersql import UNKNOWN
from ..template import compose
from .keeping import ID, ORDER, OURS, Json, Kept, as_it_was, is_ours, noted_in, own_columns
from .regions import Answers, column_of


class Keeps(Answers, Protocol):
    """What a table of tiles needs of a `Database`."""

    name: Any

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        """A connection that nobody else uses meanwhile."""


def write(db: Keeps, table: str, tiles: Kept, replace: bool) -> None:
    """Make the table, in one transaction."""
    *schemas, name = catalog.parts(table)
    if len(name.encode()) > 63:
        raise ConfigError(f"table {name!r} has a name of {len(name.encode())} bytes: PostgreSQL allows 63")
    if odd := [column for column in tiles.columns if UNKNOWN.search(column) or len(column.encode()) > 63]:
        raise ConfigError(f"column {odd[0]!r}: PostgreSQL allows names of 63 bytes, in UTF-8")
    with db.connection() as conn, conn.transaction():
        row = conn.execute(compose("new_table", schema=schemas[0] if schemas else None, name=name)).fetchone()
        schema, known, text, kind = row  # type: ignore[misc]  # always one row
        if schema is None or not known:
            raise MissingError(f"{db.name} has no schema {schema!r} for {table}: make it with CREATE SCHEMA, or name another")
        if kind and not replace:
            raise LoadError(f"{text} is there already: replace=True drops it first")
        if kind and kind != "r":
            raise LoadError(f"{text} is there already, and no table: name another, or drop it")
        place = sql.Identifier(schema, name)
        if kind:
            (comment,) = conn.execute(compose("baked_comment", table=place.as_string(None))).fetchone()  # type: ignore[misc]
            if not is_ours(comment):
                raise LoadError(
                    f"{text} holds no tiles that to_table wrote, as its COMMENT would say, and stays as it is, replace or not: "
                    "name another, or drop it"
                )
            conn.execute(sql.SQL("DROP TABLE {}").format(place))
        create, *indexes = _definition(schema, name, tiles)
        conn.execute(create)
        names = sql.SQL(", ").join(map(sql.Identifier, (*tiles.columns, *tiles.envelopes)))
        with conn.cursor() as cursor, cursor.copy(compose("kept_copy", table=place, columns=names)) as copy:
            for values in zip(*_values(tiles), strict=True):
                copy.write_row(values)
        for statement in indexes:
            conn.execute(statement)
        conn.execute(compose("kept_comment", table=place, text=json.dumps(tiles.noted)))


def _definition(schema: str, name: str, tiles: Kept) -> list[bytes]:
    """CREATE TABLE, and CREATE INDEX for each geometry."""
    import sqlalchemy as sa
    from geoalchemy2 import Geometry
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateIndex, CreateTable

    def kind(column: str, array: NDArray[Any]) -> Any:
        if array.dtype.kind == "u" and array.size and array.max() > np.iinfo(np.int64).max:
            raise ConfigError(f"column {column!r}: {array.max()} is too large for a table's whole numbers")
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            raise ConfigError(f"column {column!r} is {array.dtype}, for which PostgreSQL has no type: float64 has one")
        real = sa.REAL if array.dtype.itemsize <= 4 else sa.Double
        return {"b": sa.Boolean, "i": sa.BigInteger, "u": sa.BigInteger, "f": real, "U": sa.Text, "M": sa.TIMESTAMP(True)}[
            array.dtype.kind
        ]

    columns = [
        sa.Column(column, kind(column, array), primary_key=column == ID, autoincrement=False, nullable=array.dtype.kind in "fM")
        for column, array in tiles.columns.items()
    ]
    shapes = [
        sa.Column(column, Geometry("POLYGON", srid, spatial_index=False, nullable=len(tiles.envelopes) > 1))
        for column, (srid, _) in tiles.envelopes.items()
    ]
    table = sa.Table(name, sa.MetaData(), *columns, *shapes, schema=schema)
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # as named, it doubles no percent sign
    indexes = [CreateIndex(sa.Index(None, column, postgresql_using="gist")) for column in shapes]
    statements: list[Any] = [CreateTable(table), *indexes]
    return [str(statement.compile(dialect=dialect)).encode() for statement in statements]


def _values(tiles: Kept) -> list[list[Any]]:
    """The columns as COPY takes them."""
    found = []
    for array in tiles.columns.values():
        if array.dtype.kind == "M":
            texts = np.datetime_as_string(array, timezone="UTC").tolist()
            found.append([None if text == "NaT" else text for text in texts])
        else:
            found.append(array.tolist())
    for srid, boxes in tiles.envelopes.values():
        found.append(shapely.to_wkb(shapely.set_srid(boxes, srid), hex=True, include_srid=True).tolist())
    return found


def read(db: Keeps, name: str) -> tuple[Json, dict[str, NDArray[Any]]]:
    """What was noted, and the columns, in the tiles' order."""
    table = db.table(name)
    [(comment,)] = db.ask(compose("baked_comment", table=table.identifier.as_string(None)))
    noted = noted_in(comment, str(table))
    kinds = {column.name: column.type for column in table.columns if column.type not in {"geometry", "geography"}}
    if ORDER not in kinds:
        raise MissingError(f"{table} has no column {ORDER} any more, which tiles.to_table gave it")
    names = [column for column in kinds if column in OURS] + own_columns(noted, kinds)
    listed = sql.SQL(", ").join(sql.SQL("t.") + sql.Identifier(column) for column in names)
    rows = db.ask(compose("kept_rows", table=table.identifier, columns=listed))
    values = zip(*rows, strict=True) if rows else ((),) * len(names)
    found = {column: column_of(f"{table}:", column, kinds[column], each) for column, each in zip(names, values, strict=True)}
    return noted, {column: as_it_was(noted, column, array) for column, array in found.items()}
