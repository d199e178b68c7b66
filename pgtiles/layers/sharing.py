"""Features that tiles show, by their ids: one that tiles of different splits show lets a model be judged by what it learned."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from ..errors import DataError, QueryError
from ..postgres.database import Database
from ..template import compose
from ..tiling.splits import Shown
from ..tiling.tiles import Tiles
from . import features, query
from .burning import EXPECTED, Part, Wish, widened

CHUNK = 2000  # tiles whose features are asked for by one statement


def shown(db: Database, tiles: Tiles, sides: Sequence[str], parts: Iterable[Part], wish: Wish) -> Shown:
    """The features of each part that tiles show: for each side one tile."""
    seen: dict[tuple[str, str], dict[str, int]] = {}
    for part in parts:
        select = _ids(db, tiles, part, wish)
        for start in range(0, len(tiles), CHUNK):
            some = tiles[start : start + CHUNK]
            for place, key in db.ask(query.over(some, select)):
                seen.setdefault((part.name, key), {}).setdefault(sides[start + place], int(some.ids[place]))
    return seen


def _ids(db: Database, tiles: Tiles, part: Part, wish: Wish) -> sql.Composed:
    """What selects, from the relation tiles, each tile's features by their ids."""
    if features.is_table(part.source):
        table = db.table(str(part.source))
        if len(table.primary_key) != 1:
            raise DataError(f"{table} has no primary key of one column, by which its features are called: give a query with id")
        srid, text = features.of_table(db, table, value=1, where=part.where, column=wish.column, id_=table.primary_key[0])
    else:
        srid, text = wish.srid or tiles.grid.srid, query.text_of(part.source)
    reach = None if wish.buffer is None else max(wish.buffer, 0)
    rows = features.rows(db, tiles, text, srid, reach=reach)
    features.need_geometry(rows.columns, EXPECTED)
    if "id" not in rows.columns:
        raise QueryError(
            f"the query gives the columns {', '.join(rows.columns)}: expected one called id, too, which tells features "
            "apart, such as osm_id AS id"
        )
    return compose("split_features", source=rows.source, geometry=widened(features.geometry(tiles.grid), wish.buffer))
