"""What the server knows of a table: its columns, key, indexes, and the lattice of its rasters.

Functions take `query`, which runs a statement and gives its rows, so that nothing here opens a connection.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from .errors import ConfigError, DataError, MissingError
from .template import compose

Query = Callable[[sql.Composed], list[tuple[Any, ...]]]

NAME = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'
TABLE_NAME = re.compile(rf"\s*({NAME})(?:\.({NAME}))?\s*")
SAMPLE = 1000  # rows whose headers are looked at; every fragment that is ever read is checked again on arrival


@dataclass(frozen=True)
class Column:
    """A column: its type as in ``pg_type``, and the SRID of a geometry column (0 unknown)."""

    name: str
    type: str
    srid: int


@dataclass(frozen=True)
class Table:
    """A table, view, materialized view, partitioned or foreign table."""

    oid: int
    schema: str
    name: str
    kind: str
    estimated_rows: float
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[str, ...]

    @property
    def identifier(self) -> sql.Identifier:
        """The quoted, qualified name."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, kind: str, wanted: str | None = None) -> str:
        """The column of this type (geometry or raster): the one wanted, or the only one there is."""
        found = [c.name for c in self.columns if c.type == kind]
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
    out_db: bool


def is_table_name(text: str) -> bool:
    """Whether the text is one name (``table``, ``schema.table``, quoted or not), and not a query."""
    return TABLE_NAME.fullmatch(text) is not None


def parts(name: str) -> list[str]:
    """A table name's parts as SQL reads them: folded to lower case unless quoted."""
    match = TABLE_NAME.fullmatch(name)
    if not match:
        raise ConfigError(f'{name!r} is no table name: expected table, schema.table, or quoted as in "My Schema"."T"')
    return [p[1:-1].replace('""', '"') if p[0] == '"' else p.lower() for p in match.groups() if p]


def table(query: Query, name: str) -> Table:
    """The table of this name, found as SQL would find it, on the search path where no schema is named."""
    wanted = parts(name)
    rows = query(compose("table", name=sql.Identifier(*wanted).as_string(None)))
    if not rows:
        known = query(compose("table_names"))
        full = [f"{schema}.{table}" for schema, table, _ in known]
        short = {t: f"{s}.{t}" for s, t, _ in known}
        near = difflib.get_close_matches(".".join(wanted), full + list(short), 4, 0.6)
        near = list(dict.fromkeys(short.get(n, n) for n in near)) or sorted(full)[:8]
        raise MissingError(
            f"there is no table {name!r}; {'there are' if near else 'the database holds no table'} {_listed(near)}"
        )
    oid, schema, relname, kind, estimate, columns, key, indexes = rows[0]
    return Table(oid, schema, relname, kind, estimate, tuple(Column(**c) for c in columns or ()), tuple(key), tuple(indexes))


def srid(query: Query, of: Table, column: str) -> int:
    """The SRID of a geometry column: as declared, else that of a first row; 0 where neither knows."""
    if declared := of.require(column).srid:
        return declared
    name = sql.Identifier(column)
    rows = query(sql.SQL("SELECT ST_SRID({0}) FROM {1} WHERE {0} IS NOT NULL LIMIT 1").format(name, of.identifier))
    return int(rows[0][0]) if rows else 0


def headers(query: Query, relation: sql.Composable, column: str) -> list[Header]:
    """The kinds of raster among the first thousand rows of a relation, the commonest first."""
    rows = query(compose("raster_headers", relation=relation, column=sql.Identifier(column), sample=SAMPLE))
    return [
        Header(srid, (sx, sy), (kx, ky), tuple(types or ()), tuple(nodata or ()), n, (x, y), bool(out_db))
        for srid, sx, sy, kx, ky, types, nodata, n, x, y, out_db in rows
    ]


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
        raise DataError(f"{of}.{column} has SRID 0: say where it lies, SELECT UpdateRasterSRID('{of.schema}', '{of.name}', "
                        f"'{column}', <srid>)")  # fmt: skip
    if first.skew != (0, 0) or first.scale[0] <= 0 or first.scale[1] >= 0:
        raise DataError(f"{of}.{column} is not north-up (scale {first.scale}, skew {first.skew}): give the Grid yourself")
    return first.srid, (first.scale[0], -first.scale[1]), first.upper_left


def extent(query: Query, of: Table, column: str, srid: int) -> tuple[float, float, float, float]:
    """xmin, ymin, xmax, ymax of a raster table's imagery in an SRID."""
    box = query(compose("raster_extent", table=of.identifier, column=sql.Identifier(column), srid=srid))[0]
    if box[0] is None:
        raise DataError(f"{of}.{column} holds no raster, so it has no extent")
    return box


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if names else "none"
