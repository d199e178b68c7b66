"""Where tiles come from: the features that drew their labels and the rasters that lie under them, by their primary keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, QueryError
from ..layers.bakedtable import Baked
from ..layers.bysrid import BySrid
from ..layers.features import is_table, of_table
from ..layers.labels import Labels
from ..layers.query import Layer, OpenLayer, over, relation
from ..postgres import catalog
from ..postgres.database import Database
from ..streaming.reading import Plan
from ..targets import Boxes, Instances
from ..template import compose
from ..tiling.splits import Shown
from ..tiling.tiles import Tiles
from .placecheck import lies_in
from .tablecheck import Used, used

Source = tuple[str, str, str]  # the layer; the table, or the class, that the row is of; the row's key


class _Drawn(Protocol):
    """A layer of features."""

    def shown(self, db: Database, tiles: Tiles, sides: list[str]) -> Shown:
        """Its features, by their ids, for each side one tile."""


def sources(db: Database, plan: Plan, layers: Mapping[str, Layer], tiles: Tiles) -> dict[int, list[Source]]:
    """The rows under each tile, by its id: features that a layer draws there, rows of the tables that lie under any other.

    Features are called by the query's column ``id`` or the table's primary key, rasters by their table's primary key.

    Raises `ConfigError` where rows have nothing that they are called by.
    """
    found: dict[int, list[Source]] = {id_: [] for id_ in tiles.ids.tolist()}
    for number, _, part in tiles.zones():
        opened = plan.zones[number] if plan.zones else plan
        for layer in opened.layers:
            asked = layers[layer.name]
            asked = asked.layers[part.grid.srid] if isinstance(asked, BySrid) else asked
            try:
                each = _of_layer(db, layer, asked, part)
            except (QueryError, DataError, MissingError, ConfigError) as error:
                raise ConfigError(f"layer {layer.name!r}: sources=True: {error}") from error
            for id_, source, key in each:
                found[id_].append((layer.name, source, key))
    return {id_: sorted(set(rows)) for id_, rows in found.items()}


def _of_layer(db: Database, layer: OpenLayer, asked: Layer, tiles: Tiles) -> list[tuple[int, str, str]]:
    if isinstance(asked, Baked):
        raise ConfigError("it is baked, and its tiles don't tell: take the layer itself")
    if layer.features:
        return _drawn(db, asked, tiles)
    return [row for one in used(db, tiles, layer.select) for row in _under(db, _whole(db, one), tiles)]


def _drawn(db: Database, asked: Any, tiles: Tiles) -> list[tuple[int, str, str]]:
    """The features of a layer that meet each tile."""
    whole = str(db.table(asked.source)) if is_table(getattr(asked, "source", None)) else ""
    if isinstance(asked, Boxes | Instances):
        asked = _burned(db, asked)
    shown = cast("_Drawn", asked).shown(db, tiles, [str(id_) for id_ in tiles.ids.tolist()])  # each tile is a side of its own
    if nameless := [place for (_, key), places in shown.items() if key is None for place in places.values()]:
        raise DataError(f"tile {nameless[0]} has a row whose id is NULL: leave it out with WHERE, or COALESCE(…) AS id")
    return [(tile, part or whole, key) for (part, key), places in shown.items() for tile in places.values()]


def _burned(db: Database, asked: Boxes | Instances) -> Labels:
    """Labels of the same features, called the same."""
    if asked.id is None:
        return Labels(asked.source, where=asked.where, srid=asked.srid, column=asked.column)
    where = [asked.where] if asked.where else ()
    srid, text = of_table(db, db.table(str(asked.source)), value=1, where=where, column=asked.column, id_=asked.id)
    return Labels(text, srid=srid)


def _whole(db: Database, one: Used) -> Used:
    """The table of which this one is an overview: its rows are the scenes. Else itself."""
    slots = {"schema": one.table.schema, "name": one.table.name, "column": one.column.name}
    for schema, name, column in db.query(compose("overview_base", **slots)):
        if found := catalog.relation(db.query, schema, name):
            return Used(found, found.require(column))
    return one


def _under(db: Database, one: Used, tiles: Tiles) -> list[tuple[int, str, str]]:
    """The rows of a table that lie under each tile."""
    if not one.table.primary_key:
        raise DataError(f"{one.table} has no primary key, by which its rows are called: ALTER TABLE … ADD PRIMARY KEY (…)")
    srid, (sx, sy) = lies_in(db, one)[0] or tiles.grid.srid, tiles.grid.pixel
    key = sql.SQL(", ").join(sql.SQL("s.{}::text").format(sql.Identifier(name)) for name in one.table.primary_key)
    less = relation(srid, tiles.grid.srid, grow=(-sx / 10, -sy / 10))  # neighbours that merely touch lie not under it
    slots = {"table": one.table.identifier, "hull": one.hull, "tile": less}
    select = compose("sources_under", key=sql.SQL("concat_ws(', ', {})").format(key), **slots)
    return [(int(tiles.ids[tile]), str(one.table), text) for tile, text in db.query(over(tiles, select))]
