"""Targets of tasks besides segmentation: `Boxes` to detect, `Instances` to tell apart, a `Value` to classify or estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from .errors import ConfigError, DataError, QueryError
from .layers import features, query
from .layers.canvas import check_dtype, fits
from .layers.query import OpenLayer
from .layers.records import BoxSheet, InstanceSheet, ValueSheet
from .postgres.database import Database
from .template import compose
from .tiling.tiles import Tiles

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

EXPECTED = "no geom{hint}. Expected geom, with value and id if wanted"
ZERO = sql.SQL("0")


@dataclass(frozen=True)
class Boxes:
    """Boxes of features, for detection: a query that gives ``geom`` (and ``value``, ``id``), or a table.

    source: SQL, an SQLAlchemy statement, or a table's name. SQL may name the relation ``tile``.
    value: the label of a table's features: a number, or the name of a numeric column. A query says it itself, as a column
    ``value``, and labels with this number where it has none.
    where: a condition on a table's columns.
    srid: the SRID in which a query searches, where it is not the tiles'; a table's is known.
    column: the geometry column, where a table has several.
    min_overlap: the share of a feature that has to lie inside the tile, 0 to 1: of its area, or of a line's length. Points
    always count as whole.
    id: a table's column of whole numbers that tells its features apart.

    A tile's sample is (N, 4) float32: xmin, ymin, xmax, ymax in pixels, y down, of the feature's part inside the tile.
    ``<name>_label`` and ``<name>_id`` are (N,) int64. A batch holds lists of these, one array a tile. They are in the order of
    their ids; where there are none, in that of their geometries, and then the id is the number in the tile, from 1.
    """

    source: str | Select[Any] | TextClause
    _: KW_ONLY
    value: float | str = 1
    where: str | None = None
    srid: int | None = None
    column: str | None = None
    min_overlap: float = 0.0
    id: str | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not 0 <= self.min_overlap <= 1:
            raise ConfigError(f"min_overlap={self.min_overlap!r}: expected a share of the feature, 0 to 1")

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        rows, slots = _asked(self, db, tiles)
        (height, width), (scale_x, scale_y) = tiles.grid.shape, tiles.grid.pixel
        select = compose(
            "boxes", layer=number, **slots, singles=features.singles("f"), min_overlap=float(self.min_overlap), scale_x=scale_x,
            scale_y=scale_y, width=width, height=height,
        )  # fmt: skip
        said = query.findings(db, tiles, rows.text, select, rows.srid)
        why = features.where_it_lies([rows.srid], tiles.grid, "measured in the tile's pixels")
        given = features.given(rows, tiles.grid, slots["value"])
        return OpenLayer(name, select.as_string(None), BoxSheet(), path="listed", why=why, warnings=tuple(said), features=given)


@dataclass(frozen=True)
class Instances:
    """Features told apart, pixel by pixel: a query that gives ``geom`` (and ``value``, ``id``, ``priority``), or a table.

    source, value, where, srid, column, id: as for `Boxes`. resolution: as for `Labels`.

    A tile's sample is a map (height, width) int64: 0 is background, 1 to N are the instances, numbered from the lowest to the
    topmost without a gap. ``<name>_label`` and ``<name>_id`` are (N,) int64; a batch holds lists of these two.
    Features are burned by ascending priority, then the smaller on top. One that has no pixel, or is covered, is no instance of
    that tile. Where there are no ids, the id is the feature's place among all that met the tile.
    """

    source: str | Select[Any] | TextClause
    _: KW_ONLY
    value: float | str = 1
    where: str | None = None
    srid: int | None = None
    column: str | None = None
    id: str | None = None
    resolution: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check(self)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        rows, slots = _asked(self, db, tiles)
        select = compose(
            "instances", layer=number, **slots, priority=sql.SQL("u.priority") if "priority" in rows.columns else ZERO,
            clipped=features.clipped(tiles.grid), singles=features.singles("f"),
        )  # fmt: skip
        said = query.findings(db, tiles, rows.text, select, rows.srid)
        why = features.where_it_lies([rows.srid], tiles.grid, "burned on the tile's pixels, one by one")
        given = features.given(rows, tiles.grid, slots["value"])
        return OpenLayer(
            name, select.as_string(None), InstanceSheet(tiles.grid.shape), path="burned", why=why, warnings=tuple(said),
            features=given,
        )  # fmt: skip


@dataclass(frozen=True)
class Value:
    """One number a tile, from any aggregate: a query that gives one row with ``value``, or rows of ``value`` and ``n``.

    source: SQL or an SQLAlchemy statement; it may name the relation ``tile``.
    length: how many numbers a tile has, where the query gives rows of value and n, 0 to length - 1. Else it has one.
    dtype: of the numbers.
    missing: the number where the value is NULL or there is no row: NaN unless given, or 0 for a dtype of whole numbers.
    srid: the SRID in which the query searches, where it is not the tiles'.

    A batch holds (B,), or (B, length).
    """

    source: str | Select[Any] | TextClause
    _: KW_ONLY
    length: int | None = None
    dtype: str = "float32"
    missing: float | None = None
    srid: int | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)
        if features.is_table(self.source):
            raise ConfigError(f"source={self.source!r} is a table's name: expected a query that gives one row a tile")
        if self.length is not None and not (isinstance(self.length, int) and self.length >= 1):
            raise ConfigError(f"length={self.length!r}: expected a whole number, 1 or more")
        if self.missing is not None and not fits(self.missing, np.dtype(self.dtype)):
            raise ConfigError(f"missing={self.missing!r} does not fit dtype={self.dtype!r}")

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        rows = features.rows(db, tiles, query.text_of(self.source), self.srid or tiles.grid.srid)
        place = features.whole(rows.columns, "n")
        if "value" not in rows.columns:
            raise QueryError(f"the query gives the columns {', '.join(rows.columns) or 'none'}, but no value. Write … AS value")
        if place is None and self.length is not None:
            raise QueryError(f"length={self.length} goes with a column n, 0 to {self.length - 1}: the query gives none")
        if place is not None and self.length is None:
            raise QueryError("the query gives a column n, which goes with length=: say how many numbers a tile has")
        select = compose("value", layer=number, source=rows.source, value=features.value(rows.columns, 0), place=place or ZERO)
        said = query.findings(db, tiles, rows.text, select, rows.srid)
        missing = (math.nan if np.dtype(self.dtype).kind == "f" else 0) if self.missing is None else self.missing
        sheet = ValueSheet(self.length, self.dtype, missing)
        why = f"what the query gives, searched in SRID {rows.srid}"
        return OpenLayer(name, select.as_string(None), sheet, path="listed", why=why, warnings=tuple(said))


def detection(batch: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The targets that torchvision's detection models take, one a tile: ``boxes`` (N, 4) and ``labels`` (N,).

    batch: with the layer `Boxes`, as `TileDataset` or `read` gives it.
    name: of that layer.

    Raises `DataError` where a label is below 1, for 0 is those models' background, or a box has no extent, as a point's.
    """
    boxes, labels = batch.get(name), batch.get(f"{name}_label")
    if not isinstance(boxes, list) or not isinstance(labels, list):
        raise ConfigError(f"name={name!r}: expected the key of a Boxes layer in a batch; its keys are {', '.join(batch)}")
    for i, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        if len(label) and label.min() < 1:
            raise DataError(f"tile {i} of the batch has the label {int(label.min())}: expected 1 or more, 0 is the background")
        if len(box) and not (box[:, 2:] > box[:, :2]).all():
            raise DataError(
                f"tile {i} of the batch has a box without extent: widen points and lines in the query, by ST_Buffer"
            )
    return [{"boxes": box, "labels": label} for box, label in zip(boxes, labels, strict=True)]


def masks(id_map: Any) -> Any:
    """A mask for each instance of one tile, (N, height, width) bool, from its map (height, width): an array or a tensor."""
    if getattr(id_map, "ndim", None) != 2:
        raise ConfigError("id_map: expected the map (height, width) of one tile, as an array or a tensor")
    numbers = np.arange(1, int(id_map.max()) + 1).reshape(-1, 1, 1)
    return id_map[None] == getattr(id_map, "new_tensor", np.asarray)(numbers)


def _check(layer: Boxes | Instances) -> None:
    value = layer.value if isinstance(layer.value, str) else None
    if not features.is_table(layer.source) and (layer.where or layer.column or layer.id or value):
        raise ConfigError("where=, column=, id= and value='column' go with a table's name: a query says them itself, in SQL")
    if not isinstance(layer.value, str) and not fits(layer.value, np.dtype("int64")):
        raise ConfigError(f"value={layer.value!r}: expected a label, a whole number, or the name of a table's column")


def _asked(layer: Boxes | Instances, db: Database, tiles: Tiles) -> tuple[features.Rows, dict[str, Any]]:
    """The layer's rows, and what both kinds of statement have in common."""
    srid = layer.srid or tiles.grid.srid
    if features.is_table(layer.source):
        table = db.table(str(layer.source))
        srid, text = features.of_table(
            db, table, value=layer.value, where=[layer.where] if layer.where else (), column=layer.column, id_=layer.id
        )
    else:
        text = query.text_of(layer.source)
    rows = features.rows(db, tiles, text, srid)
    features.need_geometry(rows.columns, EXPECTED)
    id_ = features.whole(rows.columns, "id")
    return rows, {
        "source": rows.source, "geometry": features.geometry(tiles.grid), "value": features.value(rows.columns, layer.value),
        "id": id_ or ZERO, "numbered": id_ is not None,
    }  # fmt: skip
