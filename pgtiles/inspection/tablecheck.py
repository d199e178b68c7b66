"""What is wrong with a table that a layer reads: with its statistics, constraints, kinds of raster, geometries.

Each `Finding` says what was wrong, the value, and what to do about it: mostly the SQL to run.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from psycopg import sql

from ..errors import MissingError, QueryError
from ..layers.query import nodes, over
from ..layers.rastersource import named
from ..postgres import catalog
from ..postgres.catalog import Column, Header, Table
from ..postgres.database import Database
from ..template import Slot, compose
from ..tiling.tiles import Tiles

SURVEYED = 200_000  # geometries of a table that are looked at
FEW = 8  # invalid rows that are named
FORCED = {"Z": "ST_Force3DZ", "M": "ST_Force3DM", "ZM": "ST_Force4D"}  # ST_MakeValid may drop what a column has to have
CHANGED = 0.2  # of the rows: so many changed since ANALYZE that the server knows the table badly; autovacuum waits for 0.1


@dataclass(frozen=True)
class Finding:
    """Something that is worth doing something about.

    severity: ``problem``, which makes training wrong or slow, or ``note``.
    layer: its key; empty where it is the tiles' or the server's.
    what: what is wrong.
    value: what was found.
    mend: what to do: SQL where SQL does it.
    """

    severity: str
    layer: str
    what: str
    value: str
    mend: str


def problem(layer: str, what: str, value: str, mend: str) -> Finding:
    """What makes training wrong or slow."""
    return Finding("problem", layer, what, value, mend)


def note(layer: str, what: str, value: str, mend: str) -> Finding:
    """What is good to know."""
    return Finding("note", layer, what, value, mend)


@dataclass(frozen=True)
class Used:
    """A table that a layer reads, the column by which it is searched, and the indexes that serve it."""

    table: Table
    column: Column
    indexes: tuple[str, ...] = ()

    @property
    def is_raster(self) -> bool:
        """Whether the column holds rasters."""
        return self.column.type == "raster"

    @property
    def hull(self) -> sql.Composed:
        """What stands for a row s in a search."""
        form = {"raster": "ST_ConvexHull(s.{})", "geography": "s.{}::geometry"}.get(self.column.type, "s.{}")
        return sql.SQL(form).format(sql.Identifier(self.column.name))

    @property
    def name(self) -> str:
        """As SQL names it."""
        return self.table.identifier.as_string(None)


def used(db: Database, tiles: Tiles, select: str) -> list[Used]:
    """The tables with rasters or geometries that a layer's SELECT reads, as its plan tells them; of partitions their whole."""
    found = dict[tuple[str, str], Used]()
    for node in nodes(db.explain(over(tiles[:1], sql.SQL(select)))):
        if "Relation Name" not in node or not (table := catalog.relation(db.query, node["Schema"], node["Relation Name"])):
            continue
        if table.root != (table.schema, table.name):
            table = catalog.relation(db.query, *table.root) or table
        spatial = [c for c in table.columns if c.type in {"geometry", "geography", "raster"}]
        if not spatial:
            continue
        said = " ".join(str(text) for key, text in node.items() if key.endswith(("Cond", "Filter")))
        column = next((c for c in spatial if c.name in said), spatial[0])
        before = found.get((table.schema, table.name), Used(table, column))
        index = (node["Index Name"],) if "Index Name" in node else ()
        more = tuple(dict.fromkeys((*before.indexes, *index, *_bitmaps(node))))
        found[table.schema, table.name] = Used(table, before.column, more)
    return list(found.values())


def _bitmaps(node: dict[str, Any]) -> list[str]:
    return [below["Index Name"] for below in nodes(node) if below["Node Type"] == "Bitmap Index Scan"]


def named_table(db: Database, source: object, column: str | None) -> list[Used]:
    """The table that a layer names as its source, where it names one: what is known of a layer that can't be opened."""
    if not isinstance(source, str) or not catalog.is_table_name(source):
        return []
    table = db.table(source)
    spatial = [c for c in table.columns if c.type in {"geometry", "geography", "raster"} and column in (None, c.name)]
    return [Used(table, spatial[0])] if spatial else []


def check_table(db: Database, layer: str, one: Used) -> list[Finding]:
    """What is wrong with a table, as one layer reads it."""
    found = _statistics(db, layer, one.table)
    with suppress(QueryError, MissingError):  # this user may not look into it: a view does it for her
        found += _rasters(db, layer, one) if one.is_raster else _features(db, layer, one)
    return found


def _statistics(db: Database, layer: str, table: Table) -> list[Finding]:
    if table.kind not in {"r", "m", "p"}:
        return []
    found = []
    whole = table.identifier.as_string(None)
    for schema, name, known, rows, changed in db.query(compose("check_statistics", table=whole)):
        analyze = f"ANALYZE {sql.Identifier(schema, name).as_string(None)};"
        if not known:
            text = "was never analyzed: the server plans blindly"
            found.append(note(layer, f"{schema}.{name} {text}", "no statistics", analyze))
        elif changed > max(CHANGED * rows, 1000):
            value = f"{changed:,} rows changed since, of {rows:,}"
            found.append(note(layer, f"the statistics of {schema}.{name} are stale", value, analyze))
    return found


def _rasters(db: Database, layer: str, one: Used) -> list[Finding]:
    table, column = one.table, sql.Identifier(one.column.name)
    kinds = catalog.headers(db.query, table.identifier, one.column.name, named(table))
    found = list[Finding]()
    if not kinds:
        return [problem(layer, f"{table} holds no raster", "0 rows", "pgtiles load raster FILES TABLE")]
    for what, of in (
        ("SRIDs", lambda h: h.srid), ("pixel types", lambda h: h.pixel_types), ("resolutions", lambda h: (*h.scale, *h.skew)),
    ):  # fmt: skip
        if len({of(kind) for kind in kinds}) > 1:
            found.append(_mixed(db, layer, table, column, what, kinds, of))
    first = kinds[0]
    if first.srid == 0 and table.kind in {"r", "p"}:
        found.append(problem(layer, f"{table} says not where it lies", "SRID 0", table.give_srid(one.column.name)))
    if first.skew != (0, 0) or first.scale[0] < 0 or first.scale[1] > 0:
        found.append(problem(layer, f"{table} is not stored north-up, so every tile is resampled",
            f"scale {first.scale}, skew {first.skew}",
            "turn the files with gdalwarp, which writes them north-up, and load them again with --replace",
        ))  # fmt: skip
    if table.kind in {"r", "p"}:
        slots = {"schema": table.schema, "name": table.name, "column": one.column.name}
        lacks = [
            what
            for srid, scale, types in db.query(compose("check_constraints", **slots))
            for what, known in (("SRID", srid), ("scale", scale), ("pixel types", types))
            if not known
        ]
        if lacks:
            add = sql.SQL("SELECT AddRasterConstraints({}::name, {}::name, {}::name);").format(*slots.values()).as_string(None)
            text = f"{table} has no raster constraints, so that raster_columns, QGIS and GDAL don't know it"
            found.append(note(layer, text, f"unknown: {', '.join(lacks)}", add))
    return found


def _mixed(db: Database, layer: str, table: Table, column: sql.Identifier, what: str, kinds: list[Header], of: Any) -> Finding:
    """Rasters that differ in what a layer's have to share; the odd ones belong into a table of their own."""
    odd = next(of(kind) for kind in kinds if of(kind) != of(kinds[0]))
    counts = dict[Any, int]()
    for kind in kinds:
        counts[of(kind)] = counts.get(of(kind), 0) + kind.rows
    value = "; ".join(f"{many} rows of {_plain(value)}" for value, many in counts.items())
    row = next(kind.row for kind in kinds if of(kind) == odd)
    mend = "select the rows of one kind in a query"
    if table.kind in {"r", "p"}:
        test = compose(
            f"check_{what.lower().replace(' ', '_')}", column=column, value=odd if isinstance(odd, int) else list(odd)
        )
        name = next(name for n in count(2) if not catalog.relation(db.query, table.schema, name := f"{table.name}_{n}"))
        mend = compose("check_apart", table=table.identifier, other=sql.Identifier(table.schema, name), test=test).as_string(
            None
        )
    return problem(
        layer, f"{table} holds rasters of mixed {what}, and a layer reads one kind",
        f"{value}{f' (such as {row})' if row else ''}", mend,
    )  # fmt: skip


def _plain(value: Any) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    return ", ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in parts) or "no band"


def _features(db: Database, layer: str, one: Used) -> list[Finding]:
    table, column = one.table, sql.Identifier(one.column.name)
    slots: dict[str, Slot] = {
        "table": table.identifier,
        "column": column,
        "name": one.name,
        "field": one.column.name,
        "key": named(table),
    }
    looked, srids, invalid, keys, reason, kind = db.query(compose("check_features", **slots, most=SURVEYED, few=FEW))[0]
    found = list[Finding]()
    if not looked:
        return [problem(layer, f"{table} holds no geometry", "0 rows", "pgtiles load vector FILE TABLE")]
    if len(srids) > 1:
        most, *others = sorted(srids, key=lambda srid: (srid == "0", -srids[srid]))
        value = ", ".join(f"{srids[srid]:,} rows in {srid}" for srid in (most, *others))
        found.append(problem(
            layer, f"{table}.{one.column.name} holds geometries of mixed SRIDs; one search does not find the others",
            value, _moved(one, int(most), [int(srid) for srid in others]),
        ))  # fmt: skip
    if invalid:
        of = f"of {looked:,}" if looked < SURVEYED else f"of the first {looked:,}"
        listed = ", ".join(key for key in keys if key)
        found.append(problem(
            layer, f"{table}.{one.column.name} holds invalid geometries, which are burned as they cross themselves",
            f"{invalid:,} {of}{f': {listed}' if listed else ''}{', …' if invalid > len(keys) else ''} ({reason})",
            _made_valid(one, kind),
        ))  # fmt: skip
    return found


def _as_geometry(one: Used) -> sql.Composed:
    """The column as what PostGIS's functions take; a geography's change is cast back as it is assigned."""
    return sql.SQL("{}::geometry" if one.column.type == "geography" else "{}").format(sql.Identifier(one.column.name))


def _moved(one: Used, srid: int, others: list[int]) -> str:
    """SQL that brings all geometries into one SRID. That those of SRID 0 lie there, too, is a guess."""
    slots = {"table": one.table.identifier, "column": sql.Identifier(one.column.name), "geom": _as_geometry(one), "srid": srid}
    said, assign = [], "{geom}::geography" if one.column.type == "geography" else "{geom}"
    if 0 in others:
        said.append("UPDATE {table} SET {column} = ST_SetSRID({geom}, {srid}) WHERE ST_SRID({geom}) = 0;")
    if set(others) - {0}:
        said.append("UPDATE {table} SET {column} = " + assign.format(geom="ST_Transform({geom}, {srid})") + " "
                    "WHERE ST_SRID({geom}) NOT IN (0, {srid});")  # fmt: skip
    guess = f" -- if those of SRID 0 lie in {srid}" if 0 in others else ""
    return sql.SQL(" ".join(said)).format(**slots).as_string(None) + guess


def _made_valid(one: Used, kind: str) -> str:
    """SQL that makes geometries valid: into several parts, perhaps, so that a column of single ones becomes one of many."""
    slots = {"table": one.table.identifier, "column": sql.Identifier(one.column.name), "geom": _as_geometry(one)}
    made, single = "ST_MakeValid({geom})", ""
    if parted := re.fullmatch(r"(Multi)?(Polygon|LineString)(Z|M|ZM)?", kind):
        many, of, more = parted.groups("")
        made = f"ST_Multi(ST_CollectionExtract({made}, {3 if of == 'Polygon' else 2}))"
        made = f"{FORCED[more]}({made})" if more else made
        single = "" if many else f"Multi{of}{more}"
    made += f"::{one.column.type}" if one.column.type == "geography" else ""
    if not single:
        text = f"UPDATE {{table}} SET {{column}} = {made} WHERE NOT ST_IsValid({{geom}});"
    else:
        whole = f"{one.column.type}({single}, {one.column.srid})"
        text = f"ALTER TABLE {{table}} ALTER {{column}} TYPE {whole} USING {made}; ANALYZE {{table}};"
    return sql.SQL(text).format(**slots).as_string(None)
