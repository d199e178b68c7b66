"""Why one tile is as it is: the rows that made it, or what kept it empty; its SQL, its plan, its picture."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from .. import plot
from ..errors import ConfigError, DataError, MissingError, PgtilesWarning, QueryError
from ..layers.bysrid import BySrid
from ..layers.imagery import Imagery
from ..layers.query import Layer, OpenLayer, over, relation
from ..layers.rastersource import named
from ..postgres.database import Database
from ..streaming.reading import Batch, Plan, read_batch
from ..template import compose
from ..tiling.tiles import Tiles
from .checking import UNREAD, opened, size_of
from .placecheck import extent, lies_in
from .tablecheck import Used, used

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 50  # rows of a table that are named


@dataclass(frozen=True)
class LayerWhy:
    """One layer on one tile.

    reason: why it is empty; of one that is not, what made it. rows: of each table, the keys of those that lie on the tile.
    given: what the layer's query gives there, one by one: part (the class or band), row (its other columns), value, dimension,
    whether it meets the tile, and its width and height in CRS units.
    """

    layer: str
    path: str
    empty: bool
    reason: str
    rows: dict[str, list[str]]
    given: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Why:
    """One tile, explained.

    bounds: xmin, ymin, xmax, ymax in CRS units. sql: the statement that reads it. plan: what EXPLAIN (ANALYZE, BUFFERS) says of
    it. sample: its pixels, as a batch of one.
    """

    tile: int
    bounds: tuple[float, ...]
    size: str
    layers: tuple[LayerWhy, ...]
    sql: str
    plan: str
    sample: Mapping[str, Any] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, without the pixels, for JSON."""
        said = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in {"layers", "sample"}}
        return said | {"layers": [asdict(layer) for layer in self.layers]}

    def plot(self, path: str | Path | None = None) -> Figure:
        """The tile's picture, as `pgtiles.plot.batch` draws it; written to a file where one is named."""
        return plot.batch(self.sample, path, count=1, title=f"tile {self.tile}")


def why(db: Database, tiles: Tiles, layers: Mapping[str, Layer], tile_id: int) -> Why:
    """Explain one tile: which rows made each layer, or why it is empty.

    tile_id: as a batch calls it.

    Raises `ConfigError` where no tile is called so.
    """
    at = np.flatnonzero(tiles.ids == tile_id)
    if not len(at):
        ids = f"{len(tiles)} tiles, {tiles.ids.min()} to {tiles.ids.max()}" if len(tiles) else "no tile"
        raise ConfigError(f"tile {tile_id!r}: there is no tile of this id; there are {ids}")
    [(_, _, tile)] = tiles[at].zones()
    tiles = next(part for _, where, part in tiles.zones() if at[0] in where)  # of several grids the tile's own
    plan, findings = opened(db, tiles, layers)
    stopped = {one.layer: ": ".join(filter(None, (one.value, one.mend))) for one in findings if one.what == UNREAD}
    explained = {name: LayerWhy(name, "", True, text, {}, ()) for name, text in stopped.items()}
    size, bounds = size_of(tile), tuple(tile.bounds[0].tolist())
    if not plan:
        return Why(tile_id, bounds, size, tuple(explained[name] for name in layers), "", "", {})
    batch = read_batch(db, plan, tile)
    for number, layer in enumerate(plan.layers):
        asked = layers[layer.name]
        asked = asked.layers[tile.grid.srid] if isinstance(asked, BySrid) else asked
        explained[layer.name] = _explained(db, tile, layer, asked, batch, number)
    statement = plan.statement(tile)
    text, ran = statement.as_string(None) + ";", db.ran(statement, timing=True)
    return Why(tile_id, bounds, size, tuple(explained[name] for name in layers), text, ran, batch.sample)


def _explained(db: Database, tile: Tiles, layer: OpenLayer, asked: Layer, batch: Batch, number: int) -> LayerWhy:
    tables = used(db, tile, layer.select)
    rows = {str(one.table): keys for one in tables if (keys := _on(db, tile, one)) is not None}
    given = _given(db, tile, layer)
    empty = batch.empty[number] == 1
    if layer.path in {"native", "warped"}:
        empty, reason = _of_rasters(db, tile, layer, asked, tables, rows, empty)
    elif layer.features:
        empty, reason = _of_features(db, tile, layer, asked, tables, rows, given, batch, empty)
    else:
        reason = "the query gives no row there, or NULL" if empty else "the query gives a row there"
    return LayerWhy(layer.name, layer.path, empty, reason, rows, given)


def _on(db: Database, tile: Tiles, one: Used) -> list[str] | None:
    """The rows of a table that lie on the tile, by their keys; None where this user may not look into it."""
    try:
        select = compose("why_reach", **_slots(db, tile, one), most=MOST)
        return [key or "a row without a key" for (key,) in db.query(over(tile, select))]
    except (DataError, QueryError, MissingError):
        return None


def _slots(db: Database, tile: Tiles, one: Used) -> dict[str, sql.Composable]:
    srid, (sx, sy) = lies_in(db, one)[0] or tile.grid.srid, tile.grid.pixel
    less = relation(srid, tile.grid.srid, grow=(-sx / 10, -sy / 10))  # neighbours that merely touch lie not on it
    return {"table": one.table.identifier, "hull": one.hull, "key": named(one.table), "tile": less}


def _given(db: Database, tile: Tiles, layer: OpenLayer) -> tuple[dict[str, Any], ...]:
    names = ("part", "row", "value", "dimension", "meets", "wide", "high")
    rows = db.ask(over(tile, sql.SQL(layer.features))) if layer.features else []
    return tuple(dict(zip(names, row[1:], strict=True)) for row in rows)


def _of_rasters(
    db: Database, tile: Tiles, layer: OpenLayer, asked: Layer, tables: list[Used], rows: dict[str, list[str]], empty: bool
) -> tuple[bool, str]:
    """Whether a tile is without imagery, and why; or what made it."""
    there, hidden = _counted(rows, "raster"), len(rows) < len(tables) or not tables
    if empty and any(rows.values()):
        return True, f"{there} on the tile, but the query gives none of them: its condition leaves them out"
    if empty:
        return True, _away(db, tile, tables, "outside the imagery", "in a hole of the imagery", hidden)
    made = there if any(rows.values()) else "what the query gives"
    if not isinstance(asked, Imagery):
        return False, f"made of {made}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)  # `opened` heard them before
        plan = Plan.open(db, tile, {layer.name: replace(asked, valid=True)})
    valid = read_batch(db, plan, tile).sample[f"{layer.name}_valid"]
    if valid.any():
        return False, f"made of {made}; {valid.mean():.1%} of the pixels have data"
    if any(rows.values()) or hidden:
        return True, f"nodata: {made} on the tile, but all pixels there are nodata"
    return True, _away(db, tile, tables, "outside the imagery", "in a hole of the imagery", hidden)


def _of_features(
    db: Database, tile: Tiles, layer: OpenLayer, asked: Layer, tables: list[Used], rows: dict[str, list[str]],
    given: tuple[dict[str, Any], ...], batch: Batch, empty: bool,
) -> tuple[bool, str]:  # fmt: skip
    """Whether nothing is burned or listed on a tile, and why; or what made it."""
    met = [one for one in given if one["meets"]]
    background = getattr(asked, "background", None)
    if not empty and (background is None or (np.asarray(batch.sample[layer.name]) != background).any()):
        return False, f"made of {_many(len(met), 'feature')}"
    if met and all(one["value"] == background for one in met):
        return True, f"{_many(len(met), 'feature')} on the tile, of value {background:g}, which is the background"
    if met:
        pixel = " × ".join(f"{side:g}" for side in layer.resolution or tile.grid.pixel)
        large = max(met, key=lambda one: one["wide"] * one["high"])
        return True, (
            f"smaller than a pixel: {_many(len(met), 'feature')} on the tile, but none covers a pixel's centre; the largest is "
            f"{large['wide']:.3g} × {large['high']:.3g} CRS units, a pixel {pixel}. all_touched=True burns them"
        )
    if given:
        return True, f"the query gives {_many(len(given), 'feature')} near the tile, but none on it"
    if any(rows.values()):
        return True, (
            f"no feature matches the condition: {_counted(rows, 'feature')} on the tile, but the query gives none. Does its "
            "WHERE leave them out, or does it search in another SRID?"
        )
    return True, _away(db, tile, tables, "no feature in reach", "no feature in reach", len(rows) < len(tables) or not tables)


def _counted(rows: Mapping[str, list[str]], what: str) -> str:
    """How many rows of which tables, in words."""
    return " and ".join(f"{_many(len(keys), what, most=MOST)} of {table}" for table, keys in rows.items())


def _many(count: int, what: str, *, most: int | None = None) -> str:
    return f"{count}{' or more' if count == most else ''} {what}{'s' * (count != 1)}"


def _away(db: Database, tile: Tiles, tables: list[Used], beyond: str, between: str, hidden: bool) -> str:
    """Why nothing of the tables lies on the tile: how far away the nearest row is. hidden: there may be more tables."""
    if hidden:
        return "the query gives nothing there; this user knows not all the tables that it reads"
    said, what = list[str](), beyond
    for one in tables:
        try:
            found = db.query(over(tile, compose("why_nearest", **_slots(db, tile, one))))
        except (DataError, QueryError, MissingError):
            continue
        if not found:
            said.append(f"{one.table} holds nothing")
            continue
        box, (xmin, ymin, xmax, ymax) = extent(db, one, tile.grid.srid), tile.bounds[0].tolist()
        if box and box[0] < xmax and box[1] < ymax and box[2] > xmin and box[3] > ymin:
            what = between
        key, metres = found[0]
        said.append(f"the nearest row of {one.table}{f', {key},' if key else ''} is {metres:,.0f} m away")
    return f"{what}: {'; '.join(said)}" if said else what
