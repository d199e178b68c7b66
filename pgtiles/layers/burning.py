"""Vectors on their way into pixels: the parts of a layer, each asked of the server, and the one SELECT that burns them all.

A part is a class of a mask, a band of an image, or all that a single query gives; or what is ignored in a mask (`ignoring`).
What is wrong with one is said with its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, QueryError
from ..postgres.database import Database
from ..postgres.usersql import UNKNOWN
from ..template import compose
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles
from . import features, query
from .canvas import STRIDE

if TYPE_CHECKING:
    from .features import Source

MOST = 2**31 // STRIDE - 1  # parts of a layer: n is an int4
MOST_AREAS = 4000  # of which small areas are counted
LARGE = 16  # pixels: an area as large as this covers a centre, if it is not far thinner than any feature
EXPECTED = "neither geom nor rast{hint}. Expected geom, with value and priority if wanted, or rast"


@dataclass(frozen=True)
class Part:
    """What is burned together: where it comes from, and what it burns."""

    source: Source
    value: float | str = 1  # a number, or a table's column; a query's own column value goes before it, but not in a class
    where: tuple[str, ...] = ()  # conditions on a table's columns, all of which hold
    kind: str = ""  # class, band or coverage; none where the layer has but one part
    name: str = ""
    value_of_all: float | None = None  # what all of it burns, whatever the query says of value and priority

    @property
    def called(self) -> str:
        """As an error names it."""
        return f"{self.kind} {self.name!r}" if self.name else self.kind

    @property
    def is_table(self) -> bool:
        """Whether the source is a table's name."""
        return features.is_table(self.source)


@dataclass(frozen=True)
class Wish:
    """What a layer wants of all its parts."""

    srid: int | None = None
    column: str | None = None
    buffer: float | None = None
    all_touched: bool = False


@dataclass(frozen=True)
class Found:
    """A part as the server knows it."""

    part: Part
    rows: features.Rows
    buffer: float | None  # ground metres
    again: bool = False  # the query of another part, whose plan and errors are told there

    @property
    def is_raster(self) -> bool:
        """Whether it gives rasters, and no geometries."""
        return "geom" not in self.rows.columns and "rast" in self.rows.columns


def parts_of(given: Mapping[str, Any], kind: str) -> list[tuple[str, int | None, Any]]:
    """Name, number (None where it has none of its own) and source of each class or band of a mapping."""
    if not 0 < len(given) <= MOST:
        raise ConfigError(f"{len(given)} {'classes' if kind == 'class' else 'bands'}: expected from 1 to {MOST}")
    found = []
    for name, said in given.items():
        number, source = said if isinstance(said, tuple) and len(said) == 2 and kind == "class" else (None, said)
        whole = number is None or (isinstance(number, int) and not isinstance(number, bool))
        named = isinstance(name, str) and name and not UNKNOWN.search(name)
        if not named or not whole or not (isinstance(source, str) or hasattr(source, "compile")):
            numbered = ", or (value, SQL) with a whole number" if kind == "class" else ""
            raise ConfigError(f"{kind} {name!r}: {said!r:.80}: expected a name, and for it SQL or a table{numbered}")
        found.append((name, number, source))
    return found


def ask(db: Database, tiles: Tiles, part: Part, wish: Wish) -> Found:
    """Have the server check a part's query, or make one for its table."""
    try:
        return _ask(db, tiles, part, wish)
    except (QueryError, DataError, MissingError, ConfigError) as error:
        raise type(error)(_named(part, str(error))) from error


def burn(
    db: Database, tiles: Tiles, number: int, found: Sequence[Found], wish: Wish
) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """The SELECT that burns the parts, the first one lowest (or as the first band); the same for each class or band alone, by
    its name; and what their plans say against them.
    """
    rows, alone, warnings = [], {}, []
    for rank, one in enumerate(found):
        try:
            rows.append(_select(one, rank, tiles.grid, alone=len(found) == 1))
            select = _burnt(number, rows[-1:], tiles.grid, wish)
            said = [] if one.again else query.findings(db, tiles, one.rows.text, select, one.rows.srid)
        except (QueryError, DataError, MissingError, ConfigError) as error:
            raise type(error)(_named(one.part, str(error))) from error
        warnings += [_named(one.part, text) for text in said]
        if one.part.kind and not one.again:
            alone[one.part.called] = select.as_string(None)
    return _burnt(number, rows, tiles.grid, wish).as_string(None), alone, tuple(warnings)


def small(found: Sequence[Found], grid: Grid) -> str:
    """The SELECT that counts the areas on the relation tiles, and those of them that cover no pixel's centre."""
    sx, sy = grid.pixel
    select = compose(
        "small_areas", features=rows_of(found, grid), singles=features.singles("r"), most=MOST_AREAS,
        large=LARGE * sx * sy,
    )  # fmt: skip
    return select.as_string(None)


def given(found: Sequence[Found], grid: Grid) -> str:
    """The SELECT that gives the features of the parts on the relation tiles, one by one, to explain a tile."""
    every = (
        features.given(one.rows, grid, _value(one)[1], _geometry(one, grid), one.part.name) for one in found if not one.again
    )
    return "\nUNION ALL\n".join(every)


def rows_of(found: Sequence[Found], grid: Grid) -> sql.Composed:
    """The features of the parts on the relation tiles, one part after the other, as features.sql gives them."""
    rows = [_select(one, rank, grid, alone=len(found) == 1) for rank, one in enumerate(found)]
    return sql.SQL("\nUNION ALL\n").join(rows)


def where_of(found: Sequence[Found], grid: Grid) -> str:
    """Where the features lie, in words."""
    return features.where_it_lies((one.rows.srid for one in found), grid, "burned on the tile's pixels")


def _named(part: Part, said: str) -> str:
    return f"{part.called}: {said}" if part.kind else said


def _ask(db: Database, tiles: Tiles, part: Part, wish: Wish) -> Found:
    srid = wish.srid or tiles.grid.srid
    if part.is_table:
        table = db.table(str(part.source))
        kinds = {c.type for c in table.columns if wish.column in (None, c.name)}
        if "raster" in kinds and not kinds & {"geometry", "geography"}:
            return _held(Found(part, features.Rows("", srid, sql.Composed([]), {"rast": "raster"}), None))
        key = table.primary_key[0] if len(table.primary_key) == 1 else None  # names a row, to explain a tile; nothing reads it
        srid, text = features.of_table(db, table, value=part.value, where=part.where, column=wish.column, id_=key)
    else:
        text = query.text_of(part.source)
    rows = features.rows(db, tiles, text, srid, reach=None if wish.buffer is None else max(wish.buffer, 0))
    return _held(Found(part, rows, wish.buffer))


def _held(found: Found) -> Found:
    """The part, certain to give what it should."""
    part, columns = found.part, found.rows.columns
    if found.is_raster:
        if part.kind:
            raise QueryError(f"it gives rasters, and a {part.kind} is burned from geometries: expected a column geom")
        return found
    features.need_geometry(columns, EXPECTED)
    if part.kind == "class" and "value" in columns and not part.is_table:
        raise QueryError(
            f"the query gives a column value, but all of a class burns the class's own value, here {part.value}: leave the "
            "column out, or give Labels one query, without classes, that says each row's value"
        )
    return found


def _select(found: Found, rank: int, grid: Grid, *, alone: bool) -> sql.Composed:
    columns, value = _value(found)
    priority: sql.Composable = sql.SQL("0::int8")
    if "priority" in columns:
        priority = sql.SQL("u.priority") if alone else compose("features_priority")
    return compose(
        "features", rank=rank, source=found.rows.source, geometry=_geometry(found, grid), value=value, priority=priority,
    )  # fmt: skip


def _value(found: Found) -> tuple[dict[str, str], sql.Composable]:
    """The columns that say what a row burns, and what it burns."""
    if found.part.value_of_all is None:
        return found.rows.columns, features.value(found.rows.columns, found.part.value)
    return {}, sql.Literal(found.part.value_of_all)


def _geometry(found: Found, grid: Grid) -> sql.Composed:
    return widened(features.geometry(grid), found.buffer)


def widened(geometry: sql.Composed, buffer: float | None) -> sql.Composed:
    """A row's geometry, in the tiles' SRID, widened by ground metres at the tile's own scale."""
    if buffer is None:
        return geometry
    metres = "ST_Scale(ST_Buffer(ST_Scale({}, tile.metre_x, tile.metre_y), {}::float8), 1 / tile.metre_x, 1 / tile.metre_y)"
    return sql.SQL(metres).format(geometry, buffer)


def _burnt(number: int, rows: Sequence[sql.Composed], grid: Grid, wish: Wish) -> sql.Composed:
    sx, sy = grid.pixel
    return compose(
        "labels", layer=number, features=sql.SQL("\nUNION ALL\n").join(rows), stride=STRIDE,
        singles=features.singles("r"), clipped=features.clipped(grid, all_touched=wish.all_touched), touched=wish.all_touched,
        beyond_x=1.5 * sx, beyond_y=1.5 * sy,
    )  # fmt: skip
