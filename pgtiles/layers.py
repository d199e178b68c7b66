"""What a dataset is made of: `Imagery` and `Labels`.

A layer is a frozen dataclass that says what is wanted. Opening it asks the server what is there, decides once which way its
pixels take, and gives an `OpenLayer`: a SELECT that yields fragments, and how they are pasted. A new kind of layer is one such
dataclass and one file of `sql/`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psycopg import sql

from . import features, query
from .canvas import Mask, Pixels, fits
from .database import Database
from .errors import ConfigError, DataError, MissingError, PgtilesWarning, QueryError
from .grid import Grid, Tiles
from .query import OpenLayer
from .rasters import RESAMPLING, open_rasters
from .template import compose

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64")


class Layer(Protocol):
    """What reading needs of a layer."""

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Ask the server what is there and decide how this layer is read."""


@dataclass(frozen=True)
class Imagery:
    """Imagery from a raster table, or from a query that gives ``rast``.

    source: a table's name, SQL, or an SQLAlchemy statement. SQL may name the relation ``tile``.
    bands: which bands and in which order, counted from 1; all of them unless given.
    resampling: nearest, bilinear, cubic, cubicspline or lanczos; used where the pixels don't lie on the tiles' lattice.
    order_by: SQL that says which of overlapping scenes lies on top, the first: ``"acquired DESC"``. Else the primary key.
    column: the raster column, where a table has several.
    dtype: as stored unless given, but float32 for uint16 and uint32, with which torch computes badly; ``"native"`` keeps those.
    max_error: pixels by which GDAL's approximating transformer may be off in reprojection; 0 is exact. 0.125 unless given, and
    0 for nearest and for floats.
    srid: the SRID in which a query searches, where it is not the tiles'.

    A tile's sample is (bands, height, width). Pixels that no raster covers are the table's nodata value, or 0.
    """

    source: str | Select[Any] | TextClause
    _: KW_ONLY
    bands: Sequence[int] | None = None
    resampling: str = "bilinear"
    order_by: str | None = None
    column: str | None = None
    dtype: str | None = None
    max_error: float | None = None
    srid: int | None = None

    def __post_init__(self) -> None:
        bands = self.bands
        if bands is not None:
            if isinstance(bands, int | str) or not all(isinstance(b, int) and b >= 1 for b in bands) or not len(bands):
                raise ConfigError(f"bands={bands!r}: expected band numbers, counted from 1, such as (1, 2, 3)")
            object.__setattr__(self, "bands", tuple(bands))
        if self.resampling not in RESAMPLING:
            raise ConfigError(f"resampling={self.resampling!r}: expected one of {', '.join(RESAMPLING)}")
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise ConfigError(f"max_error={self.max_error!r}: expected pixels, 0 or more")
        check_dtype(self.dtype, "native")

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Decide between the native and the warped path from the rasters' own headers."""
        wish = {field.name: getattr(self, field.name) for field in fields(self)}
        return open_rasters(db, tiles, name, number, **wish)


@dataclass(frozen=True)
class Labels:
    """Labels burned from vectors: a query that gives ``geom`` (and ``value``, ``priority``), or ``rast``; or a table.

    source: SQL, an SQLAlchemy statement, or a table's name. SQL may name the relation ``tile``.
    value: what a table's features burn: a number, or the name of a numeric column. A query says it itself, as a column
    ``value``, and burns this number where it has none.
    where: a condition on a table's columns.
    buffer: ground metres by which features are widened, at each tile's own scale; the search is widened by as much.
    srid: the SRID in which a query searches, where it is not the tiles'; a table's is known.
    column: the geometry or raster column, where a table has several.
    all_touched: burn all pixels that a feature touches, not only those whose centre it covers.
    background: the value where nothing is burned.
    dtype: of the mask; uint8 travels faster through a DataLoader.

    Features are burned by ascending priority, then ascending value: the greater lies on top. A sample is (height, width).
    """

    source: str | Select[Any] | TextClause
    _: KW_ONLY
    value: float | str = 1
    where: str | None = None
    buffer: float | None = None
    srid: int | None = None
    column: str | None = None
    all_touched: bool = False
    background: float = 0
    dtype: str = "int64"

    def __post_init__(self) -> None:
        if self.buffer is not None and (not math.isfinite(self.buffer) or self.buffer == 0):
            raise ConfigError(f"buffer={self.buffer!r}: expected ground metres, above 0 (below 0 to narrow areas)")
        check_dtype(self.dtype)
        for what in ("value", "background"):
            number = getattr(self, what)
            if not isinstance(number, str) and not fits(number, np.dtype(self.dtype)):
                raise ConfigError(f"{what}={number!r} does not fit dtype={self.dtype!r}")
        if not self._is_table and (self.where or self.column or isinstance(self.value, str)):
            raise ConfigError("where=, column= and value='column' go with a table's name: a query says them itself, in SQL")

    @property
    def _is_table(self) -> bool:
        return features.is_table(self.source)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        srid = self.srid or tiles.grid.srid
        if self._is_table:
            table = db.table(str(self.source))
            kinds = {c.type for c in table.columns if self.column in (None, c.name)}
            if "raster" in kinds and not kinds & {"geometry", "geography"}:
                return self._open_rasters(db, tiles, name, number)
            srid, text = features.of_table(db, table, value=self.value, where=self.where, column=self.column)
        else:
            text = query.text_of(self.source)
        reach = None if self.buffer is None else max(self.buffer, 0)
        rows = features.rows(db, tiles, text, srid, reach=reach)
        if "geom" not in rows.columns and "rast" in rows.columns:
            return self._open_rasters(db, tiles, name, number)
        select = self._select(number, rows.source, rows.columns, tiles.grid)
        said = query.findings(db, tiles, text, select, srid)
        return OpenLayer(
            name, select.as_string(None), Mask(tiles.grid.shape, self.dtype, self.background), path="burned",
            why=features.where_it_lies(srid, tiles.grid, "burned on the tile's pixels"), warnings=tuple(said),
        )  # fmt: skip

    def _open_rasters(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        if self.buffer is not None or self.where is not None:
            raise ConfigError(f"buffer= and where= go with geometries; {self.source!s:.60} gives rasters")
        opened = open_rasters(
            db, tiles, name, number, source=self.source, bands=(1,), resampling="nearest", column=self.column, dtype=self.dtype,
            srid=self.srid,
        )  # fmt: skip
        return replace(opened, sheet=Pixels(tiles.grid.shape, self.dtype, self.background, holes=True))

    def _select(self, number: int, source: sql.Composed, columns: dict[str, str], grid: Grid) -> sql.Composed:
        features.need_geometry(
            columns, "neither geom nor rast{hint}. Expected geom, with value and priority if wanted, or rast"
        )
        value, geometry = features.value(columns, self.value), features.geometry(grid)
        if self.buffer is not None:
            metres = sql.SQL(
                "ST_Scale(ST_Buffer(ST_Scale({}, tile.metre_x, tile.metre_y), {}::float8), 1 / tile.metre_x, 1 / tile.metre_y)"
            )
            geometry = metres.format(geometry, self.buffer)
        sx, sy = grid.pixel
        wider = sql.SQL("ST_Expand(g.envelope, {}::float8, {}::float8)").format(2 * sx, 2 * sy)
        return compose(
            "labels", layer=number, source=source, geometry=geometry, value=value,
            priority=sql.SQL("u.priority") if "priority" in columns else sql.SQL("0"),
            area_box=wider if self.all_touched else sql.SQL("g.envelope"), line_box=wider, touched=self.all_touched,
            beyond_x=1.5 * sx, beyond_y=1.5 * sy,
        )  # fmt: skip


def check_dtype(dtype: str | None, *more: str) -> None:
    """Raise `ConfigError` where a layer can't have this dtype. more: names that the layer takes besides."""
    if dtype is not None and dtype not in (*DTYPES, *more):
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join((*DTYPES, *more))}")


def open_layers(db: Database, tiles: Tiles, layers: dict[str, Layer]) -> tuple[OpenLayer, ...]:
    """All layers of a dataset, opened; what is worth saying is warned of, with the layer's name in front."""
    opened = []
    for number, (name, layer) in enumerate(layers.items()):
        try:
            opened.append(layer.open(db, tiles, name, number))
        except (QueryError, DataError, MissingError, ConfigError) as error:
            raise type(error)(f"layer {name!r}: {error}") from error
    for layer_ in opened:
        for said in layer_.warnings:
            warnings.warn(f"layer {layer_.name!r}: {said}", PgtilesWarning, stacklevel=3)
    return tuple(opened)
