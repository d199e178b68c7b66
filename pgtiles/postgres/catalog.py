"""What the server knows of a table: its columns, key, indexes, and the lattice of its rasters.

Functions take `query`, which runs a statement and gives its rows, so that nothing here opens a connection.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from psycopg import sql

from ..errors import ConfigError, DataError, MissingError
from ..template import compose
from .usersql import UNKNOWN

Query = Callable[[sql.Composed], list[tuple[Any, ...]]]

NAME = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
TABLE_NAME = re.compile(rf"\s*({NAME})(?:\.({NAME}))?\s*")
FOLDED = str.maketrans(ascii_uppercase, ascii_lowercase)  # PostgreSQL leaves other letters alone
# What AddRasterConstraints says of all rasters of a table, by which PostGIS's own raster_columns knows it.
ALIKE = ("srid", "scalex", "scaley", "same_alignment", "num_bands", "pixel_types", "nodata_values", "out_db")
SAMPLE = 1000  # rows whose headers are looked at; every fragment that is ever read is checked again on arrival


@dataclass(frozen=True)
class Column:
    """A column: its type as in ``pg_type``, the SRID of a geometry or geography column (0 unknown), and what COMMENT says."""

    name: str
    type: str
    srid: int
    comment: str | None


@dataclass(frozen=True)
class Table:
    """A table, view, materialized view, partitioned or foreign table."""

    schema: str
    name: str
    kind: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[str, ...]  # what its spatial indexes are on: columns or expressions
    root: tuple[str, str]  # schema and name of the partitioned table that it is a part of; else its own
    server: str | None  # of a foreign table
    options: tuple[str, ...]  # of that server, name=value

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, qualified name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, kind: str, wanted: str | None = None) -> str:
        """The column of this type (geometry, and with it geography, or raster): the one wanted, or the only one."""
        types = {"geometry", "geography"} if kind == "geometry" else {kind}
        found = [c.name for c in self.columns if c.type in types]
        if wanted is not None:
            if wanted in found:
                return wanted
            raise MissingError(f"column={wanted!r}: {self} has {_listed(found)} of type {kind}")
        if len(found) == 1:
            return found[0]
        if not found:
            names = [f"{c.name} ({c.type})" for c in self.columns]
            raise MissingError(f"{self} has no {kind} column; its columns are {_listed(names)}")
        raise ConfigError(f"{self} has {len(found)} {kind} columns, {_listed(found)}: say which with column=")

    def require(self, name: str) -> Column:
        """The column of this name."""
        for column in self.columns:
            if column.name == name:
                return column
        near = difflib.get_close_matches(name, [c.name for c in self.columns], 3)
        raise MissingError(f"{self} has no column {name!r}; {'near are' if near else 'there are'} "
                           f"{_listed(near or [c.name for c in self.columns])}")  # fmt: skip

    def indexed(self, column: Column) -> bool:
        """Whether a spatial index of its own is on the column, or on its rasters' hulls."""
        bare = [re.sub(r'"|^\w+\.(?=st_convexhull\()', "", index) for index in self.indexes]
        return (f"st_convexhull({column.name})" if column.type == "raster" else column.name).replace('"', "") in bare

    def give_srid(self, column: str) -> str:
        """What to do where geometries or rasters have SRID 0."""
        if self.kind in {"r", "p"}:
            what = "Raster" if self.require(column).type == "raster" else "Geometry"
            slots = map(sql.Literal, (self.schema, self.name, column))
            return (
                sql.SQL("say so once with SELECT Update{}SRID({}, {}, {}, <srid>)")
                .format(sql.SQL(what), *slots)
                .as_string(None)
            )
        where = "on its server" if self.kind == "f" else "in its definition"
        return f"say so {where}, or in a query: ST_SetSRID({sql.Identifier(column).as_string(None)}, <srid>)"


@dataclass(frozen=True)
class Header:
    """What rasters of one kind have in common, how many of a sample are so, and where one of them lies."""

    srid: int
    scale: tuple[float, float]
    skew: tuple[float, float]
    pixel_types: tuple[str, ...]
    nodata: tuple[float | None, ...]
    rows: int
    upper_left: tuple[float, float]
    row: str | None  # that one, by its key, where it has one
    out_db: bool


def is_table_name(text: str) -> bool:
    """Whether the text is one name (``table``, ``schema.table``, quoted or not), and not a query."""
    return TABLE_NAME.fullmatch(text) is not None


def parts(name: str) -> list[str]:
    """A table name's parts as SQL reads them: folded to lower case unless quoted."""
    match = TABLE_NAME.fullmatch(name)
    if odd := UNKNOWN.search(name):
        raise ConfigError(f"the table name {name!r} holds {odd[0]!r}, which no name in a database can")
    if not match:
        raise ConfigError(f'{name!r} is no table name: expected table, schema.table, or quoted as in "My Schema"."T"')
    return [p[1:-1].replace('""', '"') if p[0] == '"' else p.translate(FOLDED) for p in match.groups() if p]


def table(query: Query, name: str) -> Table:
    """The table of this name, found as SQL would find it, on the search path where no schema is named."""
    wanted = parts(name)
    found = _table(query, sql.SQL("c.oid = to_regclass({})").format(sql.Identifier(*wanted).as_string(None)))
    if found:
        return found
    known: dict[str, list[str]] = {}  # each name with its schema and without, in lower case: as one writes it
    for schema, table, written in query(compose("table_names")):
        for key in (f"{schema}.{table}", table):
            known.setdefault(key.lower(), []).append(written)
    near = difflib.get_close_matches(".".join(wanted).lower(), known, 4, 0.6)
    listed = list(dict.fromkeys(written for n in near or sorted(known)[:8] for written in known[n]))
    raise MissingError(
        f"there is no table {name!r}; {'there are' if listed else 'the database holds no table'} {_listed(listed)}"
    )


def relation(query: Query, schema: str, name: str) -> Table | None:
    """The table of exactly these names, also where this user may not use its schema: a view's owner may."""
    return _table(query, sql.SQL("n.nspname = {} AND c.relname = {}").format(schema, name))


def _table(query: Query, which: sql.Composed) -> Table | None:
    rows = query(compose("table", which=which))
    if not rows:
        return None
    schema, name, kind, columns, key, indexes, root, server, options = rows[0]
    columns = tuple(Column(**c) for c in columns or ())
    return Table(schema, name, kind, columns, tuple(key), tuple(indexes), tuple(root), server, tuple(options))


def srid(query: Query, of: Table, column: str) -> int | None:
    """The SRID of a geometry column: as declared, else that of a first row; None where no row is there to ask."""
    if declared := of.require(column).srid:
        return declared
    name = sql.Identifier(column)
    rows = query(sql.SQL("SELECT ST_SRID({0}::geometry) FROM {1} WHERE {0} IS NOT NULL LIMIT 1").format(name, of.identifier))
    return int(rows[0][0]) if rows else None


def in_degrees(query: Query, srid: int) -> bool:
    """Whether a CRS's units are degrees."""
    rows = query(sql.SQL("SELECT srtext LIKE 'GEOG%' FROM spatial_ref_sys WHERE srid = {}").format(srid))
    return bool(rows and rows[0][0])


def headers(query: Query, relation: sql.Composable, column: str, key: sql.Composable | None = None) -> list[Header]:
    """The kinds of raster among the first thousand rows of a relation, the commonest first; the key names a row in text.

    One, of one row, where a table's constraints say that there are no others.
    """
    name, key = sql.Identifier(column), key or sql.SQL("NULL::text")
    table = relation.as_string(None) if isinstance(relation, sql.Identifier) else None
    constraints: list[str | None] = [f"enforce_{what}_{column}" for what in ALIKE]
    return [
        Header(srid, (sx, sy), (kx, ky), tuple(types or ()), tuple(nodata or ()), n, (x, y), row, bool(out_db))
        for srid, sx, sy, kx, ky, types, nodata, n, x, y, row, out_db in query(
            compose(
                "raster_headers", relation=relation, column=name, key=key, sample=SAMPLE, name=table, constraints=constraints
            )
        )
    ]


def one_kind(what: str, found: list[Header]) -> Header:
    """The header of rasters that differ in nodata at most: of each band, the commonest kind that has a nodata value says it.

    Raises `DataError` where they differ in more, with one that differs, and where nobody knows where they lie.
    """
    if not found:
        raise DataError(f"{what} holds no raster")
    first = found[0]
    for other in found[1:]:
        if (other.srid, other.scale, other.skew, other.pixel_types) != (first.srid, first.scale, first.skew, first.pixel_types):
            row = f" (such as {other.row})" if other.row else ""
            raise DataError(
                f"{what} holds rasters of several kinds: {first.rows} rows of {in_words(first)}, and {other.rows} of "
                f"{in_words(other)}{row}: select the ones of one kind in a query"
            )
    if first.srid == 0:
        raise DataError(
            f"{what} has SRID 0, so nobody knows where it lies: say so, UpdateRasterSRID for a table, ST_SetSRID in a query"
        )
    if 0 in first.scale:
        raise DataError(f"{what} is stored turned by a right angle (skew {first.skew}): turn it with gdalwarp")
    if not first.pixel_types:
        raise DataError(f"{what} holds rasters without bands")
    columns = zip(*(header.nodata for header in found), strict=True)
    return replace(first, nodata=tuple(next((value for value in band if value is not None), None) for band in columns))


def overviews(query: Query, schema: str, name: str, column: str | None = None) -> list[tuple[str, str, str, int]]:
    """Schema, table, column and factor of a raster table's overviews that this user may read, the coarsest first."""
    rows = query(compose("overviews", schema=schema, table=name, column=column))
    return [(schema, name, raster, factor) for schema, name, raster, factor in rows]


def in_words(header: Header) -> str:
    """What kind of raster it is, in words."""
    count = len(header.pixel_types)
    bands = f"{count} band{'' if count == 1 else 's'} {', '.join(header.pixel_types)}".rstrip()
    return f"SRID {header.srid}, scale {header.scale}, skew {header.skew}, {bands}"


def lattice(query: Query, of: Table, column: str) -> tuple[int, tuple[float, float], tuple[float, float]]:
    """SRID, resolution and origin of the one north-up lattice on which a raster table's pixels lie."""
    found = headers(query, of.identifier, column)
    if not found:
        raise DataError(f"{of}.{column} holds no raster, so it has no lattice")
    kinds = {(h.srid, h.scale, h.skew) for h in found}
    if len(kinds) > 1:
        listed = "; ".join(f"SRID {srid}, scale {scale}, skew {skew}" for srid, scale, skew in sorted(kinds)[:3])
        raise DataError(f"{of}.{column} holds rasters of {len(kinds)} kinds ({listed}): give the Grid yourself")
    first = found[0]
    if first.srid == 0:
        raise DataError(f"{of}.{column} has SRID 0, so nobody knows where it lies: {of.give_srid(column)}")
    if first.skew != (0, 0) or first.scale[0] <= 0 or first.scale[1] >= 0:
        raise DataError(f"{of}.{column} is not north-up (scale {first.scale}, skew {first.skew}): give the Grid yourself")
    return first.srid, (first.scale[0], -first.scale[1]), first.upper_left


def extent(query: Query, of: Table, column: str, srid: int) -> tuple[float, float, float, float]:
    """xmin, ymin, xmax, ymax in an SRID of what a table holds: of rasters to the pixel, of geometries as far as is known."""
    file = "raster_extent" if of.require(column).type == "raster" else "feature_extent"
    box = query(compose(file, table=of.identifier, column=sql.Identifier(column), srid=srid))[0]
    if box[0] is None:
        raise DataError(f"{of}.{column} holds nothing, so it has no extent")
    return box


def rasters(query: Query, of: Table, column: str) -> list[tuple[int, float, float, int, int]]:
    """Key, upper left x and y, width and height of each raster of a table, by key."""
    if len(of.primary_key) != 1 or of.require(of.primary_key[0]).type not in {"int2", "int4", "int8"}:
        key = f"its primary key is {_listed(list(of.primary_key))}" if of.primary_key else "it has no primary key"
        raise DataError(f"{of}: {key}; expected one column of whole numbers, by which its rasters are called")
    slots = {"column": sql.Identifier(column), "key": sql.Identifier(of.primary_key[0])}
    return query(compose("raster_places", table=of.identifier, **slots))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"
