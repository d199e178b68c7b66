"""Vectors as a layer asks for them: a query that gives ``geom``, or a table, which becomes such a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import sql

from ..errors import DataError, QueryError
from ..postgres import catalog
from ..postgres.database import Database
from ..template import compose
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles
from . import query

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

    Source = str | Select[Any] | TextClause

WHOLE = frozenset({"int2", "int4", "int8"})
MOST = 1000  # features that are told one by one
NUMBERS = WHOLE | {"float4", "float8", "numeric", "bool"}


class Rows(NamedTuple):
    """A query that the server has agreed to."""

    text: str
    srid: int  # in which it searches
    source: sql.Composed  # the same beside the relation tile, with the guard
    columns: dict[str, str]  # that it gives: name and type


def is_table(source: object) -> bool:
    """Whether it names a table, and is not a query."""
    return isinstance(source, str) and catalog.is_table_name(source)


def rows(db: Database, tiles: Tiles, text: str, srid: int, *, reach: float | None = None) -> Rows:
    """Have the server check a query. reach: ground metres by which it looks beyond the tile."""
    source = query.guarded(text, query.relation(srid, tiles.grid.srid, reach))
    return Rows(text, srid, source, query.gate(db, tiles, text, source))


def of_table(
    db: Database, table: catalog.Table, *, value: float | str, where: Sequence[str], column: str | None, id_: str | None = None
) -> tuple[int, str]:
    """SRID of a table's geometries, and the query that gives its rows."""
    column = table.column("geometry", column)
    if not (srid := catalog.srid(db.query, table, column)):
        has = "has SRID 0" if srid == 0 else "is empty and declares no SRID"
        raise DataError(f"{table}.{column} {has}, so nobody knows where it lies: {table.give_srid(column)}")

    def own(name: str) -> sql.Composed:
        return sql.SQL("t.") + sql.Identifier(table.require(name).name)

    text = compose(
        "features_of_table", column=sql.Identifier(column), table=table.identifier,
        value=own(value) if isinstance(value, str) else sql.Literal(value),
        more=sql.SQL(", {} AS id").format(own(id_)) if id_ else sql.SQL(""),
        condition=sql.SQL("\n) AND (".join(query.text_of(text) for text in where or ("true",))),  # the user's own text
    )  # fmt: skip
    return srid, text.as_string(None)


def need_geometry(columns: dict[str, str], expected: str) -> None:
    """Raise `QueryError` where a query gives no geom; expected says what the layer takes instead or besides."""
    if "geom" in columns:
        return
    geometries = [name for name, kind in columns.items() if kind in {"geometry", "geography", "bytea"}]
    hint = f": write {geometries[0]} AS geom" if len(geometries) == 1 else ""
    raise QueryError(f"the query gives the columns {', '.join(columns) or 'none'}, but {expected.format(hint=hint)}")


def value(columns: dict[str, str], constant: float | str) -> sql.Composable:
    """What a row burns or is: its column value, or this number where the query has none."""
    kind = columns.get("value")
    if kind is None:
        return sql.SQL("{}::float8").format(constant if not isinstance(constant, str) else 1)
    if kind not in NUMBERS:
        raise QueryError(
            f"the query's column value is of type {kind}: expected a number. "
            "Map it: CASE highway WHEN 'primary' THEN 2 ELSE 1 END AS value"
        )
    return sql.SQL("u.value::int4") if kind == "bool" else sql.SQL("u.value")


def whole(columns: dict[str, str], name: str) -> sql.Composable | None:
    """A column of whole numbers; None where the query has none of this name."""
    if name not in columns:
        return None
    if columns[name] not in WHOLE:
        raise QueryError(f"the query's column {name} is of type {columns[name]}: expected a whole number, such as {name}::int8")
    return sql.SQL("u.") + sql.Identifier(name)


def geometry(grid: Grid) -> sql.Composed:
    """A row's geometry in the tiles' SRID."""
    return sql.SQL("ST_Transform(ST_Force2D(u.geom::geometry), {}::int4)").format(grid.srid)


def given(rows: Rows, grid: Grid, value: sql.Composable, shape: sql.Composable | None = None, part: str = "") -> str:
    """The SELECT that gives a query's features on the relation tiles, one by one, to explain a tile."""
    named = [name for name, kind in rows.columns.items() if kind not in {"geometry", "geography", "raster", "bytea"}]
    row = sql.SQL(", ").join(sql.SQL("{}, u.{}").format(name, sql.Identifier(name)) for name in named[:40])
    return compose(
        "why_features", part=part, row=sql.SQL("jsonb_build_object({})").format(row), value=value, source=rows.source,
        geometry=shape or geometry(grid), most=MOST,
    ).as_string(None)  # fmt: skip


def singles(row: str) -> sql.Composed:
    """The single geometries of the geometry of a row by this name."""
    return compose("singles", geometry=sql.SQL("{}.geom").format(sql.SQL(row)))


def clipped(grid: Grid, *, all_touched: bool = False) -> sql.Composed:
    """As much of a geometry as has to be burned on a tile; all_touched: its areas for two pixels more."""
    (sx, sy), envelope = grid.pixel, sql.SQL("g.envelope")
    wider = sql.SQL("ST_Expand({}, {}::float8, {}::float8)").format(envelope, 2 * sx, 2 * sy)
    area_box = wider if all_touched else envelope
    return compose("clipped", area_box=area_box, cut=cut(area_box), line_box=wider)


def cut(box: sql.Composable) -> sql.Composed:
    """The part of the area g.geom inside a box."""
    return compose("cut", box=box)


def where_it_lies(srids: Iterable[int], grid: Grid, done: str) -> str:
    """What `pgtiles check` says of vectors."""
    found = sorted(set(srids))
    if found == [grid.srid]:
        return f"vectors in the tiles' SRID {grid.srid}, {done}"
    return f"vectors in SRID {' and '.join(map(str, found))}, searched there and {done} in SRID {grid.srid}"
