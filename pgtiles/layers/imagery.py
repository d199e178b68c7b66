"""`Imagery`: a raster table, or a query that gives rasters, as a layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, QueryError
from ..postgres.database import Database
from ..postgres.usersql import text_of
from ..tiling.tiles import Tiles
from .canvas import check_dtype
from .query import OpenLayer
from .rasters import open_rasters
from .resampling import RESAMPLING
from .timeseries import TimeSeries

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause


@dataclass(frozen=True)
class Imagery:
    """Imagery from a raster table, or from a query that gives ``rast``.

    source: a table's name, SQL, or an SQLAlchemy statement. SQL may name the relation ``tile``.
    bands: which bands and in which order, counted from 1; all of them unless given.
    resampling: nearest, bilinear, cubic, cubicspline or lanczos, and since PostGIS 3.4 max or min of the pixels that a tile's
    pixel spans; used where the pixels don't lie on the tiles' lattice.
    order_by: SQL that says which of overlapping scenes lies on top, the first: ``"acquired DESC"``. Else the primary key.
    column: the raster column, where a table has several.
    dtype: as stored unless given, but float32 for uint16 and uint32, with which torch computes badly; ``"native"`` keeps those.
    max_error: pixels by which GDAL's approximating transformer may be off in reprojection; 0 is exact. 0.125 unless given, and
    0 for nearest, max, min and floats.
    srid: the SRID in which a query searches, where it is not the tiles'.
    fill: what pixels without data become: a number, or one for each band asked for. Unless given, each band's nodata value
    (where scenes differ in it, the commonest kind's), or 0 where it has none.
    valid: add ``"<name>_valid"`` to the batch, (height, width) bool: where all the bands asked for have data.
    resolution: CRS units per pixel of this layer, one number or (x, y), where it is not the tiles': they divide into whole
    pixels of it, and the layer comes in its own height and width.
    overviews: where pixels are larger than those stored, read the coarsest overview that still has smaller ones
    (``raster_overviews``). Not with nearest, max and min, which are for pixels as they are, nor with order_by, which overviews
    may not know.
    time: a `TimeSeries`. A sample is then (steps, bands, height, width), ``"<name>_valid"`` (steps, height, width), and the
    batch holds besides ``"<name>_time"`` (steps,) float64, seconds since 1970 in UTC, NaN where a step is missing, and
    ``"<name>_missing"`` (steps,) bool.

    A tile's sample is (bands, height, width). A pixel has data where a raster covers it with something other than that raster's
    own nodata value; where scenes overlap, each nodata pixel shows the next scene below. NaN is data only where it is no
    nodata value and neither ``fill`` nor ``valid`` is given.
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
    fill: float | Sequence[float] | None = None
    valid: bool = False
    resolution: float | tuple[float, float] | None = None
    overviews: bool = True
    time: TimeSeries | None = None

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
        if self.order_by is not None:
            try:
                object.__setattr__(self, "order_by", text_of(self.order_by))
            except QueryError as error:
                raise ConfigError(f"order_by={self.order_by!r}: {error}") from None
        check_dtype(self.dtype, "native")
        if self.time is not None and not isinstance(self.time, TimeSeries):
            raise ConfigError(f"time={self.time!r}: expected a TimeSeries, such as TimeSeries('acquired', steps=4)")
        if self.fill is not None and not isinstance(self.fill, int | float):
            if isinstance(self.fill, str) or not all(isinstance(value, int | float) for value in self.fill) or not self.fill:
                raise ConfigError(f"fill={self.fill!r}: expected a number, or one for each band, such as (0, 0, -9999)")
            object.__setattr__(self, "fill", tuple(self.fill))

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Decide between the native and the warped path from the rasters' own headers."""
        wish = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "resolution"}
        return open_rasters(db, tiles, name, number, **wish)
