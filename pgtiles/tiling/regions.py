"""What the database knows of where tiles shall be: the land of a query, a table or imagery, and the rows of a query with their
middles. What Tiles needs of a database is said here, so that Tiles stands below it.
"""

from __future__ import annotations

import datetime
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
import shapely
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, QueryError
from ..postgres import catalog
from ..postgres.usersql import pointer, text_of
from ..template import compose
from .grid import Bounds, Grid

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

Query: TypeAlias = "str | Select[Any] | TextClause"
Within: TypeAlias = "Bounds | shapely.Geometry | Query"

ROWS = "the query for tiles:"  # what an error begins with
NEAR = 1e-3  # px: imagery that ends no further inside a tile's edge ends at it


class Answers(Protocol):
    """What sampling by SQL needs of a `Database`."""

    def table(self, name: str) -> catalog.Table:
        """A table by its name."""

    def describe(self, statement: sql.Composable) -> dict[str, str]:
        """Names and types of the columns that a SELECT would give: the gate."""

    def ask(self, statement: sql.Composable) -> list[tuple[Any, ...]]:
        """All rows of it, in a READ ONLY transaction."""


def region(db: Answers | None, grid: Grid, within: Within | None, imagery: str | None) -> Bounds | shapely.Geometry:
    """The land where tiles shall be, in the grid's CRS: what `within` says, as far as there is imagery."""
    plain = (
        within is None or isinstance(within, shapely.Geometry) or not (isinstance(within, str) or hasattr(within, "compile"))
    )
    if db is None and (imagery is not None or not plain):
        raise ConfigError(f"{'within' if imagery is None else 'imagery'}= names what a database holds: give db= too")
    if within is None and imagery is None:
        raise ConfigError(
            "within=: expected xmin, ymin, xmax, ymax, a shapely polygon, a query, a table's name; or imagery= alone"
        )
    land = within if plain else _land(cast("Answers", db), grid, cast("Query", within))
    if imagery is None:
        return cast("Bounds | shapely.Geometry", land)
    table = cast("Answers", db).table(imagery)
    ground = _footprint(cast("Answers", db), grid, table)
    if land is None:
        return ground
    own = land if isinstance(land, shapely.Geometry) else shapely.box(*cast("Bounds", land))
    both = areas(shapely.intersection(own, ground))
    if both.is_empty:
        raise ConfigError(f"within= and the imagery of {table} share no land: are both in SRID {grid.srid}?")
    return both


def areas(shape: shapely.Geometry) -> shapely.Geometry:
    """The areas of a geometry, without the lines and points where others touch."""
    parts = shapely.get_parts(shape)
    return shapely.union_all(parts[shapely.get_dimensions(parts) == 2])


def _land(db: Answers, grid: Grid, source: Query) -> shapely.Geometry:
    if isinstance(source, str) and catalog.is_table_name(source):
        table = db.table(source)
        if not any(column.type in {"geometry", "geography"} for column in table.columns):
            return _footprint(db, grid, table)
    rows, _ = relation(db, source, "within=")
    [(wkb, count, invalid, flat)] = db.ask(compose("region", rows=rows, srid=grid.srid))
    for odd, what in (
        (invalid, "are not valid: ST_MakeValid(geom) mends them"),
        (flat, "are no areas: ST_Buffer(geom, 100) makes some"),
    ):
        if odd:
            raise DataError(f"within=: {odd} of {count} geometries {what}, in the query; or leave them out")
    if wkb is None:
        raise DataError("within=: the query gives no geometry")
    return shapely.from_wkb(bytes(wkb))


def _footprint(db: Answers, grid: Grid, table: catalog.Table) -> shapely.Geometry:
    column = sql.Identifier(table.column("raster"))
    [(wkb,)] = db.ask(compose("footprint", table=table.identifier, column=column, srid=grid.srid))
    if wkb is None:
        raise DataError(f"{table} holds no raster")
    # a little wider, so that roundings neither part neighbouring rasters nor push out a tile at the imagery's very edge
    return shapely.buffer(shapely.from_wkb(bytes(wkb)), NEAR * min(grid.pixel), join_style="mitre")


def relation(db: Answers, source: Query, what: str) -> tuple[sql.Composed, dict[str, str]]:
    """A query or a table as the relation u with the column geom, and the types of its other columns, which a table has not."""
    if isinstance(source, str) and catalog.is_table_name(source):
        table = db.table(source)
        text = (
            sql.SQL("SELECT {} AS geom FROM {}")
            .format(sql.Identifier(table.column("geometry")), table.identifier)
            .as_string(None)
        )
    else:
        text = text_of(source)
    rows = compose("user_rows", query=sql.SQL(text))
    statement = sql.SQL("SELECT u.* FROM {}").format(rows)
    try:
        types = db.describe(statement)
    except QueryError as error:
        at = (error.position or 0) - 1 - statement.as_string(None).find(text)
        said = f"{what} {error}" + (f"\n{pointer(text, at + 1)}" if error.position and 0 <= at <= len(text) else "")
        if re.search('relation "tile" does not exist', said):
            said += "\nthere is no tile yet: this query says where tiles shall be"
        raise QueryError(said) from None
    if types.pop("geom", None) not in {"geometry", "geography"}:
        raise QueryError(f"{what} the query gives {', '.join(types) or 'nothing'}: expected a geometry column called geom")
    return rows, types


def centres(db: Answers, grid: Grid, source: Query) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]]]:
    """(N, 2) the middles of a query's geometries in the grid's CRS, and its other columns, by name."""
    rows, types = relation(db, source, ROWS)
    listed = sql.SQL("").join(sql.SQL(", u.") + sql.Identifier(name) for name in types)
    found = db.ask(compose("centres", rows=rows, columns=listed, srid=grid.srid))
    if not found:
        raise MissingError("the query for tiles gives no row, so there is no place for a tile")
    x, y, *others = zip(*found, strict=True)
    if lost := sum(value is None for value in x):
        raise DataError(f"the query for tiles: {lost} of {len(found)} rows have no geometry: WHERE geom IS NOT NULL")
    middles = np.stack([np.array(x, float), np.array(y, float)], axis=1)
    if not np.isfinite(middles).all():
        raise DataError(f"the query for tiles: a geometry has no place in SRID {grid.srid} (an infinite coordinate)")
    return middles, {name: column_of(ROWS, name, types[name], values) for name, values in zip(types, others, strict=True)}


def column_of(what: str, name: str, kind: str, values: tuple[Any, ...]) -> NDArray[Any]:
    """Values of a column as a tile can carry them: numbers, truths, texts or times."""
    known = next((value for value in values if value is not None), None)
    missing = sum(value is None for value in values)
    if isinstance(known, datetime.date) or kind in {"date", "timestamp", "timestamptz"}:
        return np.array([_utc(value) for value in values], "datetime64[us]")
    if isinstance(known, float | Decimal) or kind in {"float4", "float8", "numeric"}:
        return np.array([np.nan if value is None else float(value) for value in values])
    if not isinstance(known, bool | int | str | None):
        raise DataError(
            f"{what} its column {name} is {kind}; a tile carries numbers, truths, texts and times: "
            f"leave it out, or cast it, {name}::text"
        )
    if missing:
        raise DataError(f"{what} {name} is NULL in {missing} of {len(values)} rows: COALESCE({name}, …) says what it shall be")
    return np.array(values, None if values else {"bool": bool, "text": str, "varchar": str}.get(kind, np.int64))


def _utc(value: datetime.date | None) -> datetime.date | None:
    if isinstance(value, datetime.datetime) and value.tzinfo:
        return value.astimezone(datetime.UTC).replace(tzinfo=None)
    return value
