"""What the features of a layer cover of each tile: exact areas of vectors and counts, by one statement for thousands of tiles.

It asks the very rows that the layer burns (see `burning`), so that what is known of a tile before it is read is what its mask
will show, but for the pixels' edges.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, PgtilesWarning, QueryError
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from . import features, query
from .burning import Part, Wish, ask, rows_of
from .canvas import UNBOUNDED

CHUNK = 4096  # tiles a statement: few enough that its text and its rows stay small, enough that its planning costs nothing
ROW = np.dtype(  # of COPY: 4 fields, each with its length in front
    [("fields", ">i2"), ("l1", ">i4"), ("tile", ">i4"), ("l2", ">i4"), ("rank", ">i4"), ("l3", ">i4"), ("share", ">f8"),
     ("l4", ">i4"), ("count", ">i8")]
)  # fmt: skip


def measure(
    db: Database, tiles: Tiles, parts: Sequence[Part], wish: Wish, name: str, progress: Callable[[int, int], None] | None
) -> dict[str, NDArray[Any]]:
    """Columns for the tiles: of each part, under its name, the share of the tile that its features cover, 0 to 1, and how many
    of them have a part inside the tile, under its name and ``_count``.

    name: of the layer, which is that of a part without a name.
    """
    db.require_postgis()
    names = [part.name or name for part in parts]
    if not all(names):
        raise ConfigError("a layer without classes needs a name, for its columns to be called by: describe(db, {'road': …})")
    keys = [key for own in names for key in (own, f"{own}_count")]
    if twice := [key for i, key in enumerate(keys) if key in keys[:i]]:
        raise ConfigError(f"two of its classes give a column {twice[0]!r}: rename one")
    try:
        select = _select(db, tiles, parts, wish)
        share, count = np.zeros((len(parts), len(tiles))), np.zeros((len(parts), len(tiles)), np.int64)
        for start in range(0, len(tiles), CHUNK):
            got = _asked(db, tiles[start : start + CHUNK], select)
            tile = got["tile"].astype(np.int64) + start
            share[got["rank"], tile], count[got["rank"], tile] = got["share"], got["count"]
            if progress:
                progress(min(start + CHUNK, len(tiles)), len(tiles))
    except (QueryError, DataError, MissingError, ConfigError) as error:
        raise type(error)(f"layer {name!r}: {error}" if name else str(error)) from error
    return dict(zip(keys, (values for pair in zip(share, count, strict=True) for values in pair), strict=True))


def _select(db: Database, tiles: Tiles, parts: Sequence[Part], wish: Wish) -> sql.Composed:
    """The SELECT that measures the parts on the relation tiles; warns of what its plan says against them."""
    found = [ask(db, tiles, part, wish) for part in parts]
    if rasters := [one for one in found if one.is_raster]:
        raise ConfigError(f"{rasters[0].part.source!s:.60} gives rasters, and areas are those of vectors")
    rows = rows_of(found, tiles.grid)
    select = compose("areas", features=rows, singles=features.singles("r"), cut=features.cut(sql.SQL("r.envelope")))
    said = [said for one in found for said in query.findings(db, tiles, one.rows.text, select, one.rows.srid)]
    for text in dict.fromkeys(said):
        warnings.warn(text, PgtilesWarning, stacklevel=6)  # whose call of describe it is
    return select


def _asked(db: Database, tiles: Tiles, select: sql.Composed) -> NDArray[Any]:
    """The statement's rows for these tiles; where it fails, the error with the first tile in which it does."""
    try:
        rows = np.frombuffer(b"".join(db.copy(query.over(tiles, select))), ROW)
        if len(odd := rows[np.isnan(rows["share"])]):
            raise DataError(f"tile {tiles.ids[odd['tile'][0]]}: {UNBOUNDED}")
    except (QueryError, MissingError) as error:
        if len(tiles) == 1:
            raise type(error)(f"tile {tiles.ids[0]}: {error}") from error
        half = len(tiles) // 2
        _asked(db, tiles[:half], select)
        _asked(db, tiles[half:], select)
        raise
    return rows
