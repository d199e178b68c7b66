"""How a split is made: which tiles go together, how the groups are dealt, and which tiles the gap takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from .catalog import is_table_name
from .dealing import deal
from .errors import ConfigError, DataError, PgtilesWarning, QueryError
from .grid import whole
from .land import Land
from .splits import NAMES, HasTiles, Split, T, check_gap, sides_of
from .template import compose

ROUNDS = 6  # of dealing, each making up for what the gap took in the one before
MOST_DROPPED = 0.2
MOST_VALUES = 50  # of a column of names by which is stratified
CHUNK = 50_000  # tiles whose polygons are asked for by one statement


def split(
    tiles: T, shares: Mapping[str, float], groups: NDArray[np.int64], land: Land, *, gap: float, seed: int,
    stratify: Sequence[str], tolerance: float, settings: Mapping[str, Any],
) -> Split[T]:  # fmt: skip
    """Deal whole groups, and drop what comes too near: test tiles all stay, val gives way to them, and train to both.

    groups: of each tile, -1 for none.
    """
    names = [name for name in NAMES if shares[name] > 0]
    want = np.array([shares[name] for name in names], float)
    want /= want.sum()
    called, amounts = _amounts(tiles, stratify)
    inside = groups >= 0
    weights = np.stack([np.bincount(groups[inside], column[inside]) for column in amounts], axis=1)
    weights = weights / np.maximum(weights.sum(axis=0), 1e-300)
    target, best = np.repeat(want[:, None], len(called), axis=1), math.inf
    for _ in range(ROUNDS):
        dealt = np.append(deal(weights, target, seed), -1)[groups]
        kept = clear(land, dealt, gap)
        got = np.stack([np.bincount(dealt[kept], column[kept], len(names)) for column in amounts], axis=1)
        got = got / np.maximum(got.sum(axis=0), 1e-300)
        if (off := float(np.abs(got - want[:, None]).max())) < best:
            best, side, stay, reached = off, dealt, kept, got
        if off <= tolerance:
            break
        target = target * np.clip(want[:, None] / np.maximum(got, 1e-9), 0.5, 2)
        target /= target.sum(axis=0)
    made = Split(
        tiles[np.flatnonzero(stay)].with_columns(split=np.array(names)[side[stay]].astype("U5")),
        int(inside.sum() - stay.sum()), int((~inside).sum()),
        {**settings, "stratify": list(stratify), "shares": dict(zip(names, want.tolist(), strict=True))},
        {name: dict(zip(names, reached[:, c].tolist(), strict=True)) for c, name in enumerate(called)},
    )  # fmt: skip
    _say(made, names, stratify, tolerance, best, len(weights))
    return made


def folds(tiles: T, k: int, groups: NDArray[np.int64], land: Land, *, gap: float, seed: int, settings: Mapping[str, Any],
          ) -> list[Split[T]]:  # fmt: skip
    """Each tile is in val of one fold; in the others it is in train, unless it lies too near to that one's val."""
    inside = groups >= 0
    weights = np.bincount(groups[inside]).astype(float)[:, None]
    dealt = np.append(deal(weights / max(weights.sum(), 1), np.full((k, 1), 1 / k), seed), -1)[groups]
    made = []
    for fold in range(k):
        side = np.where(inside, (dealt == fold).astype(np.int64), -1)
        stay = clear(land, side, gap)
        kept = tiles[np.flatnonzero(stay)].with_columns(split=np.array(["train", "val"])[side[stay]].astype("U5"))
        one = Split(
            kept, int(inside.sum() - stay.sum()), int((~inside).sum()),
            {**settings, "fold": fold, "folds": k, "shares": {"train": 1 - 1 / k, "val": 1 / k}}, Split.of(kept).shares,
        )  # fmt: skip
        _say(one, ["train", "val"], (), 1, 0, len(weights))
        made.append(one)
    return made


def clear(land: Land, side: NDArray[np.int64], gap: float) -> NDArray[np.bool_]:
    """Which tiles stay, so that none of one side is near to one of another: each side gives way to those after it."""
    kept = side >= 0
    for k in range(int(side.max(initial=0)) - 1, -1, -1):
        mine, others = np.flatnonzero(side == k), np.flatnonzero(kept & (side > k))
        kept[mine] = ~land.near(mine, others, gap)
    return kept


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
    land = Land.of(tiles.srids, tiles.bounds)
    if way == "block":
        groups = by_blocks(land, ways[way], gap)
    else:
        groups = by_column(tiles, ways[way]) if way == "by" else by_polygons(tiles, db, ways[way])
    return groups, land, {way: ways[way], "gap": gap, "seed": seed}


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


def by_polygons(tiles: HasTiles, db: Any, polygons: str) -> NDArray[np.int64]:
    """The polygon, by its id, that holds each tile's centre; -1 for none. db: a `Database`."""
    if db is None:
        raise ConfigError('polygons= are in a database: give it, as in split(polygons="districts", db=db, …)')
    query = _polygons(db, polygons)
    if not (found := db.ask(sql.SQL("SELECT ST_SRID(u.geom) FROM ({}\n) AS u WHERE u.geom IS NOT NULL LIMIT 1").format(query))):
        raise DataError(f"polygons={polygons!r:.80}: there is none")
    middles, held = (tiles.bounds[:, :2] + tiles.bounds[:, 2:]) / 2, np.full(len(tiles), None, object)
    for start in range(0, len(tiles), CHUNK):
        x, y = middles[start : start + CHUNK].T.tolist()
        slots = {
            "xs": x,
            "ys": y,
            "srids": tiles.srids[start : start + CHUNK].tolist(),
            "polygons": query,
            "polygons_srid": found[0][0],
        }
        for n, key in db.ask(compose("split_polygons", **slots)):
            held[start + n] = key
    inside = held != None  # noqa: E711  # of each
    groups = np.full(len(tiles), -1, np.int64)
    groups[inside] = np.unique(held[inside].astype(str), return_inverse=True)[1].reshape(-1)
    return groups


def _polygons(db: Any, source: str) -> sql.Composable:
    """A query that gives geom and id."""
    if is_table_name(source):
        table = db.table(source)
        if len(table.primary_key) != 1:
            key = f"its primary key is {', '.join(table.primary_key)}" if table.primary_key else "it has no primary key"
            raise DataError(f"{table}: {key}; say in a query what tells polygons apart: SELECT geom, name AS id FROM {table}")
        names = map(sql.Identifier, (table.column("geometry"), table.primary_key[0]))
        return sql.SQL("SELECT t.{}::geometry AS geom, t.{} AS id FROM {} AS t").format(*names, table.identifier)
    query = sql.SQL(source.rstrip().removesuffix(";"))  # the user's own text
    types = db.describe(sql.SQL("SELECT * FROM ({}\n) AS u").format(query))  # one statement only, parsed and not run
    if types.get("geom") != "geometry" or "id" not in types:
        raise QueryError(
            f"polygons: the query gives the columns {', '.join(f'{name} ({kind})' for name, kind in types.items())}; "
            "expected geom (geometry) and id, which tells polygons apart"
        )
    return query


def column_of(tiles: HasTiles, argument: str, name: str) -> NDArray[Any]:
    """A column; `ConfigError`, with the argument that asks for it, where there is none."""
    if name not in tiles.columns:
        there = ", ".join(map(repr, tiles.columns)) or "none"
        raise ConfigError(f"{argument}={name!r}: the tiles have no such column, but {there}; tiles.with_columns gives them one")
    return tiles.columns[name]


def _amounts(tiles: HasTiles, stratify: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of all that is to be shared out, tiles first, and how much of it each tile has.  → (C, N)"""
    called, amounts = ["tiles"], [np.ones(len(tiles))]
    for name in stratify:
        column = column_of(tiles, "stratify", name)
        if column.dtype.kind == "U":
            values = np.unique(column).tolist()
            if len(values) > MOST_VALUES:
                raise ConfigError(
                    f"stratify={name!r}: {len(values)} different texts; expected {MOST_VALUES} at most, or numbers"
                )
            called += [f"{name}={value}" for value in values]
            amounts += [(column == value).astype(float) for value in values]
            continue
        numbers = column.astype(float) if column.dtype.kind in "biuf" else np.array([np.nan])
        if not (np.isfinite(numbers) & (numbers >= 0)).all() or (len(tiles) and not numbers.any()):
            raise ConfigError(
                f"stratify={name!r}: expected an amount for each tile, 0 or more and not 0 everywhere, such as a class's area; "
                f"found {column.dtype} from {column.min()} to {column.max()}"
            )
        called.append(name)
        amounts.append(numbers)
    return called, np.stack(amounts)


def _say(made: Split[Any], names: Sequence[str], stratify: Sequence[str], tolerance: float, off: float, groups: int) -> None:
    """Warn of what is not as one may think."""
    said = []
    if lost := [name for name in names if not len(getattr(made, name))]:
        said.append(f"no tile is left for {' and '.join(lost)}: the tiles lie in {groups} groups; more of them, as smaller "
                    "blocks are, give each split its share")  # fmt: skip
    whole = len(made.tiles) + made.dropped + made.outside
    gap = made.settings["gap"]
    if made.dropped > MOST_DROPPED * whole:
        fewer = "larger blocks" if "block" in made.settings else "groups that lie together"
        said.append(
            f"{made.dropped} of {whole} tiles were dropped because they lie within gap={gap:g} m of another split: "
            f"{fewer}, a smaller gap, smaller tiles or a smaller share of val and test lose fewer"
        )
    if stratify and off > tolerance:
        said.append(f"shares are off by up to {off:.3f}, more than tolerance={tolerance:g}: smaller groups are dealt more "
                    f"evenly. What was reached:\n{made.report()}")  # fmt: skip
    for text in said:
        warnings.warn(text, PgtilesWarning, stacklevel=4)
