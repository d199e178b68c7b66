"""Which tiles of a split go together: those of a block of land, of a column's value, or of a polygon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, QueryError
from ..postgres.catalog import is_table_name
from ..postgres.usersql import text_of
from ..template import compose
from .grid import whole
from .land import Land
from .regions import Query, relation
from .splits import HasTiles, check_gap, column_of, sides_of

CHUNK = 50_000  # tiles whose polygons are asked for by one statement


def check(tiles: HasTiles, gap: float, seed: int, tolerance: float, ways: Mapping[str, Any]) -> str:
    """The one way to group tiles that is asked for, by name."""
    whole("seed", seed, 0)
    check_gap(gap)
    if not (isinstance(tolerance, int | float) and 0 < tolerance <= 1):
        raise ConfigError(f"tolerance={tolerance!r}: expected a share, above 0 and at most 1")
    if "split" in tiles.columns and len(np.unique(sides_of(tiles))) > 1:
        raise ConfigError(
            "these tiles have a column split already, and a split is not dealt anew: Split.of(tiles) takes it as it is; "
            "to deal a part of it, take split.train or the like"
        )
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ConfigError(
            f"{' and '.join(given) or 'no way to group tiles is'} given: expected one of block=, by= and polygons="
        )
    return given[0]


def group(
    tiles: HasTiles, ways: Mapping[str, Any], gap: float, seed: int, tolerance: float, db: Any
) -> tuple[NDArray[np.int64], Land, dict[str, Any]]:
    """Each tile's group, -1 for none; where the tiles lie; and what a split is made with."""
    way = check(tiles, gap, seed, tolerance, ways)
    if not len(tiles):
        raise ConfigError("tiles: there is no tile to deal")
    land = Land.of(tiles.srids, tiles.bounds)
    if way == "block":
        groups = by_blocks(land, ways[way], gap)
    else:
        groups = by_column(tiles, ways[way]) if way == "by" else by_polygons(tiles, db, ways[way])
    return groups, land, {name: _plain(value) for name, value in ((way, ways[way]), ("gap", gap), ("seed", seed))}


def _plain(value: Any) -> Any:
    """An argument as JSON takes it."""
    if isinstance(value, np.generic):
        return value.item()
    return text_of(value) if hasattr(value, "compile") else value


def by_blocks(land: Land, block: float, gap: float) -> NDArray[np.int64]:
    """The block of each tile's centre."""
    least = land.widest + gap
    if not least <= block < math.inf:
        raise ConfigError(
            f"block={block!r}, gap={gap!r}: expected gap >= 0 and block >= tile + gap in ground metres, here {least:.6g}"
        )
    return land.blocks(block)


def by_column(tiles: HasTiles, name: str) -> NDArray[np.int64]:
    """Tiles of one value are one group."""
    return np.unique(column_of(tiles, "by", name), return_inverse=True)[1].reshape(-1).astype(np.int64)


def by_polygons(tiles: HasTiles, db: Any, polygons: Query) -> NDArray[np.int64]:
    """The polygon, by its id, that holds each tile's centre; -1 for none. db: a `Database`."""
    if db is None:
        raise ConfigError('polygons= are in a database: give it, as in split(polygons="districts", db=db, …)')
    rows = _polygons(db, polygons)
    survey = db.ask(compose("split_survey", rows=rows))
    _check_polygons(survey)
    middles, held = (tiles.bounds[:, :2] + tiles.bounds[:, 2:]) / 2, dict[int, str]()
    for srid, start in product((row[0] for row in survey), range(0, len(tiles), CHUNK)):
        x, y = middles[start : start + CHUNK].T.tolist()
        srids = tiles.srids[start : start + CHUNK].tolist()
        for n, key in db.ask(compose("split_polygons", xs=x, ys=y, srids=srids, rows=rows, polygons_srid=srid)):
            held[start + n] = min(key, held.get(start + n, key))
    groups, inside = np.full(len(tiles), -1, np.int64), np.array(list(held), np.int64)
    groups[inside] = np.unique(np.array(list(held.values()), str), return_inverse=True)[1].reshape(-1)
    return groups


def _polygons(db: Any, source: Query) -> sql.Composed:
    """A relation u with the columns geom and id."""
    if isinstance(source, str) and is_table_name(source):
        table = db.table(source)
        if len(table.primary_key) != 1:
            key = f"its primary key is {', '.join(table.primary_key)}" if table.primary_key else "it has no primary key"
            raise DataError(f"{table}: {key}; say in a query what tells polygons apart: SELECT geom, name AS id FROM {table}")
        names = map(sql.Identifier, (table.column("geometry"), table.primary_key[0]))
        source = sql.SQL("SELECT t.{} AS geom, t.{} AS id FROM {} AS t").format(*names, table.identifier).as_string(None)
    rows, types = relation(db, source, "polygons=")
    if "id" not in types:
        raise QueryError(
            f"polygons= the query gives geom{''.join(f', {name}' for name in types)}: expected id too, which tells "
            "polygons apart"
        )
    return rows


def _check_polygons(survey: Sequence[tuple[int, int, int, int]]) -> None:
    """Raise `DataError` of what holds no tile, or can't be told from another."""
    if not survey:
        raise DataError("polygons=: there is none")
    count, flat, nameless = (sum(row[i] for row in survey) for i in (1, 2, 3))
    for odd, what in (
        (flat, "are no areas, which hold no tile: ST_Buffer(geom, 100) makes some, in a query; or leave them out"),
        (nameless, "have no id (NULL), which tells polygons apart: WHERE id IS NOT NULL leaves them out"),
        (sum(row[1] for row in survey if not row[0]), "have no SRID: ST_SetSRID(geom, 4326) gives one, in a query"),
    ):
        if odd:
            raise DataError(f"polygons=: {odd} of {count} {what}")
