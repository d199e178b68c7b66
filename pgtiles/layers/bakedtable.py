"""Tiles that were baked: rows of a table, as batches of the layers themselves would have sent them.

They come back as they are, so a layer that was baked has the sheet of the live one. What reading needs to know besides
stands in the table's COMMENT, as JSON: the grid, and of each layer what it was and what its rows become.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError
from ..postgres import catalog
from ..postgres.catalog import Table
from ..postgres.database import Database
from ..template import Slot, compose
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles
from .describing import Json, plain, sheet_of, sheet_said, wish_said
from .query import Layer, OpenLayer

FORMAT = 1  # of the tables and of what their comment says
TILES = "_tiles"  # after the name of the table of rows, the table of tiles
KEPT = ("path", "classes", "ignore_index", "ignore_missing", "resolution")  # of an opened layer, besides its sheet


@dataclass(frozen=True)
class Baked:
    """A layer that was baked (`bake`), read from its table.

    table: the table of baked tiles.
    layer: the layer's key when it was baked.

    It gives what the layer itself would give, as of the day on which it was baked, of tiles that are in the table; `baked`
    gives these, and all layers. Others may stand beside it in a dataset, live or baked elsewhere.
    """

    table: str
    layer: str

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Check that all these tiles are baked."""
        table, settings = settings_of(db, self.table)
        if self.layer not in settings["layers"]:
            raise MissingError(f"{table} holds no layer {self.layer!r}; it has {', '.join(settings['layers'])}")
        grid, kept = _grid(settings), settings["layers"][self.layer]
        if tiles.grid != grid:
            raise ConfigError(f"{table} was baked on {grid}, these tiles lie on {tiles.grid}: pgtiles.baked() gives its own")
        [(missing, first)] = db.query(compose("baked_missing", tiles=beside(table.schema, table.name), **columns(tiles)))
        if missing:
            raise MissingError(
                f"{missing} of {len(tiles)} tiles are not baked in {table}, or lie elsewhere there (the first: tile {first}): "
                "bake them too, or take the tiles that pgtiles.baked() gives"
            )
        select = compose("baked_rows", layer=number, table=table.identifier, name=self.layer)
        opened = {key: kept[key] for key in KEPT} | {
            "classes": {int(value): text for value, text in kept["classes"].items()},
            "resolution": kept["resolution"] and tuple(kept["resolution"]),
        }
        why = f"baked, read from {table}"
        return OpenLayer(name, select.as_string(None), sheet_of(kept["sheet"]), why=why, warnings=(), **opened)


def baked(db: Database | str, table: str) -> tuple[Tiles, dict[str, Baked]]:
    """The tiles and the layers of a table of baked tiles, as `TileDataset` takes them.

    Tiles come in the order in which they were asked for; those that are still to be baked are left out. Raises `MissingError`
    where there is no such table, or it holds something else.
    """
    db = db if isinstance(db, Database) else Database(db)
    found, settings = settings_of(db, table)
    rows = db.query(compose("baked_tiles", tiles=beside(found.schema, found.name)))
    ids, cols, rows_, seconds = zip(*rows, strict=True) if rows else ((), (), (), ())
    times = None
    if any(second is not None for second in seconds):
        each = [None if second is None else round(second * 1e6) for second in seconds]
        times = np.array(each, "datetime64[us]")
    tiles = Tiles(_grid(settings), np.array(cols, np.int64), np.array(rows_, np.int64), np.array(ids, np.int64), times)
    name = found.identifier.as_string(None)
    return tiles, {layer: Baked(name, layer) for layer in settings["layers"]}


def settings_of(db: Database, table: str) -> tuple[Table, Json]:
    """A table of baked tiles, and what its comment says."""
    found = db.table(table)
    [(comment,)] = db.query(compose("baked_comment", table=found.identifier.as_string(None)))
    try:
        settings = json.loads(comment or "")
        known = settings["pgtiles baked"]
    except (ValueError, KeyError, TypeError):
        raise MissingError(f"{found} holds no baked tiles: its COMMENT is not the one that `pgtiles bake` writes") from None
    if known != FORMAT:
        raise DataError(f"{found} was baked by another version of pgtiles (format {known}, known is {FORMAT}): bake it anew")
    return found, cast("Json", settings)


def settings_for(grid: Grid, opened: Iterable[OpenLayer], layers: Mapping[str, Layer], sources: bool = False) -> Json:
    """What the comment says of tiles on this grid. opened: the layers, as the server took them. sources: are they kept."""
    kept = {
        layer.name: {
            "from": wish_said(layers[layer.name]), "sheet": sheet_said(layer.sheet),
            **{key: plain(getattr(layer, key)) for key in KEPT},
        }
        for layer in opened
    }  # fmt: skip
    said = {"sources": True} if sources else {}
    return {"pgtiles baked": FORMAT, "grid": plain(asdict(grid)), "layers": kept, **said}


def _grid(settings: Json) -> Grid:
    known: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in settings["grid"].items()}
    return Grid(**known)


def beside(schema: str, name: str) -> sql.Identifier:
    """The table of tiles that belongs to a table of rows."""
    return sql.Identifier(schema, name + TILES)


def columns(tiles: Tiles) -> dict[str, Slot]:
    """The tiles as slots: ids, cols, rows and times."""
    times = None if tiles.times is None else np.datetime_as_string(tiles.times, timezone="UTC").tolist()
    return {
        "ids": tiles.ids.tolist(), "cols": tiles.cols.tolist(), "rows": tiles.rows.tolist(),
        "times": times and [None if time == "NaT" else time for time in times],
    }  # fmt: skip


def parts_of(table: str) -> tuple[str | None, str]:
    """Schema, where one is named, and name of a table to be made, whose table of tiles can have a name too."""
    *schemas, name = catalog.parts(table)
    if len((name + TILES).encode()) > 63:
        raise ConfigError(f"table {name!r} has a name of {len(name.encode())} bytes: expected {63 - len(TILES)} at most")
    return (schemas[0] if schemas else None), name
