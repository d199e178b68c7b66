"""The user's own SQL: taken as it stands, checked before anything runs, and held against the plan.

The gate has the server Parse and Describe each query alone, which refuses a second statement and points into her text;
`findings` reads the plan for what would make it slow or silently empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from psycopg import sql

from ..errors import QueryError, SridError
from ..postgres import catalog
from ..postgres.catalog import Column, Table
from ..postgres.database import Database
from ..postgres.usersql import pointer as pointer
from ..postgres.usersql import text_of as text_of
from ..template import compose
from ..tiling.tiles import Tiles
from .canvas import Sheet


@dataclass(frozen=True)
class OpenLayer:
    """A layer that the server has agreed to: all that reading needs, and small enough to travel to every worker."""

    name: str
    select: str  # SQL that gives rows (tile, layer, n, value, data) for the relation tiles
    sheet: Sheet  # what its rows become
    path: str  # native or warped, of rasters; burned or listed, of features
    why: str
    warnings: tuple[str, ...]
    files: str = ""  # SQL that gives the files, if any, in which the rasters around the tiles keep their pixels
    parts: dict[str, str] = field(default_factory=dict)  # the same for each class or band alone, to tell which one fails
    classes: dict[int, str] = field(default_factory=dict)  # names of a mask's values, where the layer has classes
    ignore_index: float | None = None  # the value of a mask's pixels that a trainer leaves out
    ignore_missing: str = ""  # the layer where whose imagery is missing they are left out
    features: str = ""  # SQL that gives, on the relation tiles, what the layer's query gives there, to explain a tile
    small: str = ""  # SQL that counts, on the relation tiles, the areas and those of them that cover no pixel's centre
    resolution: tuple[float, float] | None = None  # of its own pixels, CRS units, where they are not the tiles'

    def at(self, tiles: Tiles) -> OpenLayer:
        """The layer, opened for these tiles in pixels of its own, for tiles in whatever pixels."""
        own = self.resolution or tiles.grid.pixel
        parts = {name: in_pixels(tiles, select) for name, select in self.parts.items()}
        small, given = (text and in_pixels(tiles, text) for text in (self.small, self.features))
        return replace(self, select=in_pixels(tiles, self.select), parts=parts, small=small, features=given, resolution=own)


class Layer(Protocol):
    """What reading needs of a layer."""

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Ask the server what is there and decide how this layer is read."""


def over(tiles: Tiles, select: sql.Composable) -> sql.Composed:
    """A statement: the tiles as a relation, then what is selected from it."""
    (sx, sy), (height, width), bounds = tiles.grid.pixel, tiles.grid.shape, tiles.bounds.T.tolist()
    times = None if tiles.times is None else np.datetime_as_string(tiles.times, timezone="UTC").tolist()
    return compose(
        "tiles", ids=tiles.ids.tolist(), xmins=bounds[0], ymins=bounds[1], xmaxs=bounds[2], ymaxs=bounds[3],
        times=times and [None if time == "NaT" else time for time in times], srid=tiles.grid.srid, width=width, height=height,
        scale_x=sx, scale_y=sy, select=select,
    )  # fmt: skip


def in_pixels(tiles: Tiles, select: str) -> str:
    """A layer's SELECT for the relation tiles in whatever pixels: within it, they come in the pixels of these tiles."""
    (sx, sy), (height, width) = tiles.grid.pixel, tiles.grid.shape
    return compose(
        "in_pixels", select=sql.SQL(select), srid=tiles.grid.srid, width=width, height=height, scale_x=sx, scale_y=sy
    ).as_string(None)


def relation(srid: int, tile_srid: int, reach: float | None = None, grow: tuple[float, float] = (0.0, 0.0)) -> sql.Composed:
    """The relation tile for a source in this SRID: the tiles as they are, or moved, and wider: by `reach` ground metres, and by
    `grow` CRS units of the tiles in x and y.
    """
    if reach is None and grow == (0, 0) and srid == tile_srid:
        return compose("tile_here")
    return compose("tile_reach", srid=srid, reach=reach or 0.0, grow_x=grow[0], grow_y=grow[1])


def guarded(query: str, tile: sql.Composable) -> sql.Composed:
    """The query beside the relation tile, with the guard."""
    return compose("user_query", query=sql.SQL(query), tile=tile)  # the user's own text, verbatim


def gate(db: Database, tiles: Tiles, query: str, source: sql.Composed) -> dict[str, str]:
    """Names and types of the columns that the query gives; `QueryError`, pointing into its text, where it is wrong.

    query: her text. source: the same, in the relation that `user_query.sql` makes of it.
    """
    statement = over(tiles[:1], sql.SQL("SELECT u.* FROM {}").format(source))
    try:
        return db.describe(statement)
    except QueryError as error:
        raise explained(error, query, statement.as_string(None)) from None


def explained(error: QueryError, query: str, statement: str) -> QueryError:
    """The error with its place in her text and, where we know what people mean by it, what to do."""
    said = str(error)
    start = statement.find(query)
    if error.position and 0 <= error.position - 1 - start <= len(query):
        said += "\n" + pointer(query, error.position - start)
    if "is ambiguous" in said and (name := re.search(r'"(id|geom|rast|time|n|ref|envelope|metre_[xy])" is ambiguous', said)):
        said += (
            f"\nno table in the query has a column {name[1]}: name the one that is meant (osm2pgsql calls its geometry way), "
            f"or write tile.{name[1]} where the tile's own is meant"
        )
    return QueryError(said)


def findings(db: Database, tiles: Tiles, query: str, select: sql.Composed, source_srid: int) -> list[str]:
    """What the plan says against the query: warnings, each with what to do.

    Raises `QueryError` where a geometry column is searched with an envelope in another SRID: ``&&`` and ST_DWithin ignore
    SRIDs and would find nothing.
    """
    plan = db.explain(over(tiles[:16], select))
    conditions = [str(v) for node in nodes(plan) for k, v in node.items() if k.endswith(("Cond", "Filter"))]
    found: list[str] = []
    for node in nodes(plan):
        known = "Relation Name" in node and "Schema" in node
        table = catalog.relation(db.query, node["Schema"], node["Relation Name"]) if known else None
        spatial = [c for c in table.columns if c.type in {"geometry", "geography", "raster"}] if table else []
        if not table or not spatial:
            continue
        searched = {c: [before for text in conditions for before in _uses(text, node["Alias"], c.name)] for c in spatial}
        if "st_transform" not in query.lower():
            _check_srid(db, table, searched, source_srid, tiles.grid.srid)
        column = next((c for c in spatial if searched[c]), spatial[0])
        if _whole(node, bool(searched[column]) and not table.indexed(column)):
            found.append(_scan(table, column))
    if (width := _metres_in(query)) and catalog.in_degrees(db.query, source_srid):
        found.append(
            f"the query says {width}, and SRID {source_srid} is in degrees, of 111 km each: widen by metres with buffer= in "
            "the layer, or in the query with ST_Buffer(ST_Transform(geom, <a CRS in metres>), 6); search with "
            "geom && ST_Expand(tile.geom, 0.001)"
        )
    return list(dict.fromkeys(found))


def _metres_in(query: str) -> str | None:
    """A width that is too large to mean degrees, as it stands in the query."""
    for call in re.finditer(r"\b(?:ST_Buffer|ST_DWithin|ST_Expand)\s*\(", query, re.I):
        depth, end = 1, call.end()
        while depth and end < len(query):
            depth += (query[end] == "(") - (query[end] == ")")
            end += 1
        text = query[call.start() : end]
        number = re.search(r",\s*(\d+(?:\.\d+)?)\s*(?:,[^,()]*)?\)$", text)
        if number and float(number[1]) >= 0.5 and not re.search("transform|geography", text, re.I):
            return text
    return None


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A node of a plan, and all below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def _uses(condition: str, alias: str, column: str) -> Iterator[str]:
    """Where a condition of the plan names this column of this relation: the text before it."""
    written = r"\.".join(f'"?{re.escape(name.replace(chr(34), chr(34) * 2))}"?' for name in (alias, column))
    for found in re.finditer(rf'(?<![\w."]){written}(?![\w"])', condition):
        yield condition[: found.start()]


def _check_srid(db: Database, table: Table, searched: dict[Column, list[str]], wanted: int, tile_srid: int) -> None:
    for column, uses in searched.items():
        # a view may have moved its geometries, or said where they lie
        bare = [before for before in uses if not re.search(r"st_(transform|setsrid)\(+$", before)]
        if column.type != "geometry" or not bare:
            continue
        try:
            found = catalog.srid(db.query, table, column.name)
        except QueryError:  # this user may not look into it: a view does it for her
            continue
        if found == 0:
            raise SridError(f"{table}.{column.name} has SRID 0, so nobody knows where it lies: {table.give_srid(column.name)}")
        if found not in (wanted, None):
            raise SridError(
                f"{table}.{column.name} is in SRID {found}, the tile's envelope in {wanted}: they never meet, and "
                f"nothing would say so. Give the layer srid={found} (--label-srid): tile.geom then comes in it, and what the "
                f"query gives is reprojected to the tiles' {tile_srid}. Or ST_Transform the one to the other in the query"
            )


def _whole(node: dict[str, Any], unindexed: bool) -> bool:
    """Whether the plan reads all of a table where it is meant to read what is near a tile."""
    kind = node["Node Type"]
    if kind == "Foreign Scan":
        return not re.search(r"\$\d", node.get("Remote SQL", ""))  # what is sent to the other server as a parameter is the tile
    in_key_order = kind in {"Index Scan", "Index Only Scan"} and "Index Cond" not in node and "Order By" not in node
    return kind == "Seq Scan" or (in_key_order and unindexed)


def _scan(table: Table, column: Column) -> str:
    key = sql.Identifier(column.name).as_string(None)
    hull = f"ST_ConvexHull({key})" if column.type == "raster" else key
    if table.kind == "f":
        server = sql.Identifier(table.server or "").as_string(None)
        known = {option.partition("=")[0] for option in table.options}
        wanted = (("extensions", "postgis,postgis_raster"), ("use_remote_estimate", "true"))
        options = ", ".join(f"{'SET' if name in known else 'ADD'} {name} '{value}'" for name, value in wanted)
        return (
            f"all of {table} is fetched from the server {table.server}, over and over, because the search is not sent there. "
            f"For postgres_fdw: ALTER SERVER {server} OPTIONS ({options}); else keep a copy here, a materialized view with an "
            "index"
        )
    if table.indexed(column):
        bare = column.name if re.fullmatch("[a-z_][a-z0-9_]*", column.name) else key
        return (
            f"{table} is read from end to end although it has an index: the condition must compare the bare column with "
            f"the tile, as in ST_DWithin({bare}, tile.geom, 6) or {bare} && tile.geom; a function around it, in a view's "
            "definition too, hides it"
        )
    root = sql.Identifier(*table.root).as_string(None)
    what = ".".join(table.root)
    return f"{what} is read from end to end for want of an index: CREATE INDEX ON {root} USING gist ({hull}); ANALYZE {root};"
