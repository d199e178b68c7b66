"""Attributes of features as masks: for each combination that a query gives, where on the tile its features lie.

They are burned as labels are, each combination for itself, so that features of different attributes may overlap. Which there
are is known only as they come: a row brings its attributes with it.
"""

from __future__ import annotations

import json
import struct
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, QueryError
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from . import features, query
from .burning import widened
from .canvas import STRIDE, UNBOUNDED, Arrays, Ground, Window, Zeros
from .query import OpenLayer
from .wkb import decode

if TYPE_CHECKING:
    from .features import Source

Key = tuple[Any, ...]  # the attributes, as JSON has them

LENGTH = struct.Struct(">i")
SHAPES = frozenset({"geometry", "geography", "raster", "bytea"})


@dataclass(frozen=True)
class Attributes:
    """Attributes by which pixels are scored: a query that gives ``geom`` and other columns, such as ``value``.

    source: SQL or an SQLAlchemy statement; it may name the relation ``tile``. All columns but ``geom`` are attributes, and
    together they name a group of features: ``SELECT geom, name, road_class FROM …``.
    buffer, srid: as for `Labels`.

    A pixel belongs to each group whose features cover its centre: to several where they overlap.
    """

    source: Source
    _: KW_ONLY
    srid: int | None = None
    buffer: float | None = None

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        if features.is_table(self.source):
            raise ConfigError(
                f"{self.source}: a table says not by which of its columns: give a query, SELECT geom, name FROM "
                f"{self.source} WHERE geom && tile.geom"
            )
        text, srid = query.text_of(self.source), self.srid or tiles.grid.srid
        rows = features.rows(db, tiles, text, srid, reach=None if self.buffer is None else max(self.buffer, 0))
        features.need_geometry(rows.columns, "no geom{hint}. Expected geom, and columns by which to score")
        if not (named := self.names(rows.columns)):
            raise QueryError("the query gives geom alone: expected a column by which to score too, such as name AS value")
        own = compose(
            "attribute_rows", source=rows.source, geometry=widened(features.geometry(tiles.grid), self.buffer),
            attributes=sql.SQL(", ").join(sql.SQL("u.") + sql.Identifier(column) for column in named),
        )  # fmt: skip
        burned = compose(
            "labels", layer=number, features=own, stride=STRIDE, singles=features.singles("r"),
            clipped=features.clipped(tiles.grid), touched=False, beyond_x=0.0, beyond_y=0.0,
        )  # fmt: skip
        select = compose("attributes", burned=burned)
        said = query.findings(db, tiles, rows.text, select, rows.srid)
        why = features.where_it_lies([rows.srid], tiles.grid, "burned on the tile's pixels, by attributes")
        sheet = GroupSheet(tiles.grid.shape, named)
        return OpenLayer(name, select.as_string(None), sheet, path="burned", why=why, warnings=tuple(said))

    @staticmethod
    def names(columns: dict[str, str]) -> tuple[str, ...]:
        """The columns that are attributes."""
        return tuple(name for name, kind in columns.items() if kind not in SHAPES)


Place = tuple[
    Window, NDArray[np.bool_]
]  # a part of a tile no larger than a group, as of those there may be thousands; its mask


@dataclass(frozen=True)
class GroupSheet:
    """Groups of features: of a tile, by the attributes of each group that is in it, where that lies."""

    shape: tuple[int, int]
    names: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """Of the masks."""
        return "bool"

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> GroupPage:
        """An empty page for these tiles."""
        return GroupPage(tiles)


class GroupPage:
    """The groups of each tile while they come in."""

    def __init__(self, tiles: Tiles) -> None:
        self.ground = Ground(tiles)
        self.groups: list[dict[Key, Place]] = [{} for _ in range(len(tiles))]

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        """A row: the attributes, and where they are."""
        (length,) = LENGTH.unpack_from(data)
        said, fragment = data[LENGTH.size : LENGTH.size + length], data[LENGTH.size + length :]
        if not fragment:
            raise DataError(UNBOUNDED)
        raster = decode(fragment)
        if not (window := self.ground.window(raster, tile)):
            return False
        (y0, y1, x0, x1), (top, left) = window
        key = tuple(json.dumps(one) if isinstance(one, list | dict) else one for one in json.loads(bytes(said)))
        mask = raster.pixels[0, y0 - top : y1 - top, x0 - left : x1 - left].view(np.bool_)
        place = (y0, y1, x0, x1), mask
        groups = self.groups[tile]
        groups[key] = _together(groups[key], place) if key in groups else place
        return True

    def arrays(self, name: str) -> Arrays:
        """A list with the groups of each tile."""
        return {name: cast("list[NDArray[Any]]", self.groups)}


def _together(*places: Place) -> Place:
    """A group of areas, lines and points, which are burned apart."""
    starts, ends = (np.array([window[first::2] for window, _ in places]) for first in (0, 1))
    (top, left), (bottom, right) = starts.min(axis=0).tolist(), ends.max(axis=0).tolist()
    whole = np.zeros((bottom - top, right - left), np.bool_)
    for (y0, y1, x0, x1), mask in places:
        whole[y0 - top : y1 - top, x0 - left : x1 - left] |= mask
    return (top, bottom, left, right), whole
