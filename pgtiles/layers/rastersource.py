"""Where a layer's rasters come from: a table, the coarsest of its overviews that suffices, or a query; and how they lie."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from ..errors import ConfigError, DataError, QueryError
from ..postgres import catalog
from ..postgres.catalog import Header
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from .canvas import ALIGNED
from .query import gate, guarded, over, relation, text_of
from .timeseries import TimeSeries, taken

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

ROUND_TRIP = 1e-3  # of a pixel: what comes back from the tiles' CRS no nearer lies where that CRS does not hold


@dataclass(frozen=True)
class RasterSource:
    """Rasters of one kind, in a table or given by a query."""

    what: str  # for messages
    table: str | None  # its name, as the user wrote it
    srid: int  # in which it is searched
    header: Header
    text: Callable[[float, float], str]  # the query; a table's looks so many of its CRS units beyond the tile
    overview: bool = False  # of the table that was asked for


def find_rasters(
    db: Database,
    tiles: Tiles,
    source: str | Select[Any] | TextClause,
    *,
    column: str | None,
    order_by: str | None,
    srid: int | None,
    time: TimeSeries | None,
    overviews: bool,
) -> tuple[RasterSource, list[str]]:
    """The source, certain to hold rasters of one kind; and what is to be warned of."""
    said = list[str]()
    if isinstance(source, str) and catalog.is_table_name(source):
        table = db.table(source)
        raster = table.column("raster", column)
        found = _of_table(db, table, raster, order_by, source, time)
        if order_by:
            _check_order(db, tiles, found, order_by)
        if overviews and not (order_by or time):
            found = _coarsest(db, tiles, found, table, raster, said)
    else:
        if column:
            raise ConfigError("column= goes with a table's name: a query calls its raster rast")
        found = _of_query(db, tiles, text_of(source), order_by, srid or tiles.grid.srid, time)
    if time:
        time.check(db, tiles, guarded(found.text(0, 0), relation(found.srid, tiles.grid.srid)))
    return found, said


def _coarsest(
    db: Database, tiles: Tiles, found: RasterSource, table: catalog.Table, column: str, said: list[str]
) -> RasterSource:
    """The coarsest overview of a table whose pixels are no larger than the tiles'; the table itself where there is none."""
    if not (known := catalog.overviews(db.query, table.schema, table.name, column)):
        return found
    ratio = min(ratio_of_kind(db, tiles, found.header))
    for schema, name, raster, factor in known:  # the coarsest first
        if factor > ratio * (1 + ALIGNED) or not (overview := catalog.relation(db.query, schema, name)):
            continue
        try:
            coarse = _of_table(db, overview, raster, None, str(overview), None)
        except DataError as error:
            said.append(f"the overview {overview} of {table} is not read: {error}")
            continue
        if (coarse.header.srid, coarse.header.pixel_types) != (found.header.srid, found.header.pixel_types):
            said.append(f"{overview} is no overview of {table}, whatever raster_overviews says: its SRID or pixel types differ")
        elif not _covers(db, tiles, found, coarse):
            said.append(f"the overview {overview} lacks imagery that {table} has, and is not read: make it anew")
        else:
            return replace(coarse, overview=True)
    return found


def _covers(db: Database, tiles: Tiles, found: RasterSource, coarse: RasterSource) -> bool:
    """Whether an overview has rasters at all of some tiles where the table has."""
    some = tiles[_spread(tiles, 16)]
    here = relation(found.srid, tiles.grid.srid)
    inside = [-max(map(abs, source.header.scale)) / 10 for source in (found, coarse)]  # && is true where boxes merely touch
    sources = [guarded(source.text(by, by), here) for source, by in zip((found, coarse), inside, strict=True)]
    missed = sql.SQL("SELECT DISTINCT tile.n FROM {} EXCEPT SELECT tile.n FROM {}").format(*sources)
    return not db.query(over(some, missed))


def _of_table(
    db: Database, table: catalog.Table, raster: str, order_by: str | None, name: str, time: TimeSeries | None
) -> RasterSource:
    what = f"{table}.{raster}"
    if time:
        time.require(table)
    header = catalog.one_kind(what, catalog.headers(db.query, table.identifier, raster, named(table)))
    order: sql.Composable = sql.SQL(order_by) if order_by else _key(table)  # the user's own text

    def text(grow_x: float, grow_y: float) -> str:
        slots = {"table": table.identifier, "column": sql.Identifier(raster), "order": order}
        return compose("stored_blocks", **slots, **taken(time, "AND"), grow_x=grow_x, grow_y=grow_y).as_string(None)

    return RasterSource(what, name, header.srid, header, text)


def _check_order(db: Database, tiles: Tiles, found: RasterSource, order_by: str) -> None:
    source = guarded(found.text(0, 0), relation(found.srid, tiles.grid.srid))
    try:
        db.describe(over(tiles[:1], sql.SQL("SELECT u.place FROM {}").format(source)))
    except QueryError as error:
        raise QueryError(f"order_by={order_by!r}: {error}") from None


def _of_query(db: Database, tiles: Tiles, query: str, order_by: str | None, srid: int, time: TimeSeries | None) -> RasterSource:
    columns = gate(db, tiles, query, guarded(query, relation(srid, tiles.grid.srid)))
    if "rast" not in columns:
        raise QueryError(f"the query gives the columns {', '.join(columns) or 'none'}: expected a raster column called rast")
    if time:
        time.require(columns)
    order = sql.SQL(f"ORDER BY {order_by}" if order_by else "")  # the user's own text
    text = compose("rasters_of_query", query=sql.SQL(query), order=order, **taken(time, "WHERE")).as_string(None)
    source = guarded(text, relation(srid, tiles.grid.srid))
    gate(db, tiles, query, source)  # order_by is her text too
    for count in (16, 256, 4096):  # a sparse one may give rasters for few tiles
        some = tiles[_spread(tiles, count)]
        probe = over(some, sql.SQL("SELECT u.rast::raster AS rast FROM {}").format(source))
        if (found := catalog.headers(db.ask, sql.SQL("({})").format(probe), "rast")) or len(some) == len(tiles):
            break
    if not found:
        raise DataError(f"the query gives no raster for {len(some)} of the {len(tiles)} tiles: do imagery and tiles meet?")
    return RasterSource("the query", None, srid, catalog.one_kind("the query", found), lambda grow_x, grow_y: text)


def _spread(tiles: Tiles, count: int) -> list[int]:
    """The positions of so many tiles, from the first to the last."""
    return sorted(set(np.linspace(0, len(tiles) - 1, count).astype(int).tolist()))


def _key(table: catalog.Table) -> sql.Composable:
    """What orders overlapping scenes where nobody says: the primary key, else the rows' place in the table."""
    if table.primary_key:
        return sql.SQL(", ").join(sql.SQL("s.") + sql.Identifier(k) for k in table.primary_key)
    return sql.SQL("s.tableoid, s.ctid") if table.kind in {"r", "m", "p"} else sql.SQL("true")


def named(table: catalog.Table) -> sql.Composable:
    """Text that names a row, for messages."""
    if table.primary_key:
        parts = [sql.SQL("{} || s.{}::text").format(f"{k} = ", sql.Identifier(k)) for k in table.primary_key]
        return sql.SQL("concat_ws(', ', {})").format(sql.SQL(", ").join(parts))
    if table.kind in {"r", "m", "p"}:
        return sql.SQL("concat(s.tableoid::regclass, ' ctid = ', s.ctid)")
    return sql.SQL("NULL::text")


def off_lattice(header: Header, tiles: Tiles) -> str | None:
    """Why the rasters don't lie on the tiles' lattice; None where they do, at both ends of each tile."""
    grid = tiles.grid
    if header.srid != grid.srid:
        return f"stored in SRID {header.srid}, the tiles are in {grid.srid}"
    if header.skew != (0, 0) or header.scale[0] < 0 or header.scale[1] > 0:
        return f"not stored north-up (scale {header.scale}, skew {header.skew})"
    scale = (header.scale[0], -header.scale[1])
    if any(abs(s - r) / r * max(grid.shape) > ALIGNED for s, r in zip(scale, grid.pixel, strict=True)):
        return f"stored at {scale[0]:g} × {scale[1]:g} CRS units a pixel, the tiles have {grid.pixel[0]:g} × {grid.pixel[1]:g}"
    bounds = tiles.bounds
    for axis, name in ((0, "x"), (1, "y")):
        offset = (bounds[:, [axis, axis + 2]] - header.upper_left[axis]) / scale[axis]
        off = float(np.abs(offset - np.rint(offset)).max())
        if off > ALIGNED:
            return f"the lattices are {off:.3g} px apart in {name}"
    return None


def ratios(db: Database, tiles: Tiles, header: Header) -> tuple[tuple[float, float], tuple[float, float]]:
    """How many source pixels a tile's pixel spans along the source's rows and columns: the fewest, and the most.

    Of the outermost tiles, for a projection's scale is at its least or most somewhere along the edge, or nearly.
    """
    bounds = tiles.bounds
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    outermost = np.unique([0, *bounds.argmin(axis=0), *bounds.argmax(axis=0), *np.abs(middle).argmin(axis=0)])
    return _ratios_at(db, tiles, header, middle[outermost])


def ratio_of_kind(db: Database, tiles: Tiles, header: Header) -> tuple[float, float]:
    """The same, at a place of the source's: whatever tiles are read, they are made in the same manner.

    Where the tiles' CRS does not reach there, in the middle of the tiles.
    """
    if header.srid == tiles.grid.srid:
        return _ratios_at(db, tiles, header, tiles.bounds[:1, :2])[1]
    (x, y), pixel = header.upper_left, max(map(abs, header.scale))
    try:
        there, back_x, back_y = db.query(compose("round_trip", x=x, y=y, srid=header.srid, other=tiles.grid.srid))[0]
        if all(map(math.isfinite, (*there, back_x, back_y))) and max(abs(back_x - x), abs(back_y - y)) <= ROUND_TRIP * pixel:
            return _ratios_at(db, tiles, header, np.array([there]))[1]
    except QueryError:  # out of that CRS's reach, in PROJ's words
        pass
    bounds = tiles.bounds
    return _ratios_at(db, tiles, header, np.array([(bounds[:, :2].min(axis=0) + bounds[:, 2:].max(axis=0)) / 2]))[1]


def _ratios_at(
    db: Database, tiles: Tiles, header: Header, places: np.ndarray[Any, np.dtype[np.float64]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    sx, sy = tiles.grid.pixel
    slots = {"scale_x": sx, "scale_y": sy, "srid": tiles.grid.srid, "source_srid": header.srid}
    xs, ys = places.T.tolist()
    least_x, most_x, least_y, most_y = db.query(compose("pixel_ratio", xs=xs, ys=ys, **slots))[0]
    across, down = math.hypot(header.scale[0], header.skew[1]), math.hypot(header.scale[1], header.skew[0])
    return (least_x / across, least_y / down), (most_x / across, most_y / down)
