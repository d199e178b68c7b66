"""What a dataset is made of: `Imagery` and `Labels`.

A layer is a frozen dataclass that says what is wanted. Opening it asks the server what is there, decides once which way its
pixels take, and gives an `OpenLayer`: a SELECT that yields fragments, and how they are pasted. A new kind of layer is one such
dataclass and one file of `sql/`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from psycopg import sql

from . import catalog, query
from .catalog import Header
from .database import Database
from .errors import ConfigError, DataError, MissingError, PgtilesError, PgtilesWarning, QueryError
from .grid import Grid, Tiles
from .template import compose
from .wkb import PIXEL_TYPES

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

ALIGNED = 1e-3  # px: what lies nearer than this to the lattice lies on it, as in PostGIS's own ST_SameAlignment's sense

# PostGIS's name and the kernel's radius in pixels. PostGIS takes an unknown name for nearest neighbour, so ours are checked.
RESAMPLING = {
    "nearest": ("NearestNeighbour", 1),
    "bilinear": ("Bilinear", 1),
    "cubic": ("Cubic", 2),
    "cubicspline": ("CubicSpline", 2),
    "lanczos": ("Lanczos", 3),
}
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True)
class OpenLayer:
    """A layer that the server has agreed to: all that reading needs, and small enough to travel to every worker."""

    name: str
    select: str  # SQL that gives rows (tile, layer, n, value, fragment) for the relation tiles
    shape: tuple[int, ...]  # of one tile: (bands, height, width), or (height, width)
    dtype: str
    fill: float  # where nothing is pasted
    burned: bool  # a fragment is a mask to be filled with the row's value; else its pixels are copied
    holes: bool  # pixels of the nodata value let show what lies below; else only where rasters overlap
    path: str  # native, warped or burned
    why: str
    text: str  # the user's own query, or the one made of her table
    warnings: tuple[str, ...]


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
        _check_dtype(self.dtype, "native")

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Decide between the native and the warped path from the rasters' own headers."""
        return _open_rasters(self, db, tiles, name, number)


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

    Features are burned by ascending priority, then ascending value: the greater lies on top. A tile's sample is (height, width).
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
        _check_dtype(self.dtype)
        for what in ("value", "background"):
            number = getattr(self, what)
            if not isinstance(number, str) and not fits(number, np.dtype(self.dtype)):
                raise ConfigError(f"{what}={number!r} does not fit dtype={self.dtype!r}")
        if not self._is_table and (self.where or self.column or isinstance(self.value, str)):
            raise ConfigError("where=, column= and value='column' go with a table's name: a query says them itself, in SQL")

    @property
    def _is_table(self) -> bool:
        return isinstance(self.source, str) and catalog.is_table_name(self.source)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        srid = self.srid or tiles.grid.srid
        if self._is_table:
            table = db.table(str(self.source))
            if not any(c.type == "geometry" for c in table.columns) and any(c.type == "raster" for c in table.columns):
                return self._open_rasters(db, tiles, name, number)
            srid, text = self._of_table(db, table)
        else:
            text = query.text_of(self.source)
        reach = max(self.buffer or 0, 0)
        source = _beside_tile(text, srid, tiles.grid.srid, reach, always=self.buffer is not None)
        columns = query.gate(db, tiles, text, source)
        if "geom" not in columns and "rast" in columns:
            return self._open_rasters(db, tiles, name, number)
        select = self._select(number, source, columns, tiles.grid)
        said = query.findings(db, tiles, text, select, srid)
        return OpenLayer(
            name, select.as_string(None), tiles.grid.shape, self.dtype, self.background, burned=True, holes=True, path="burned",
            why=_where(srid, tiles.grid), text=text, warnings=tuple(said),
        )  # fmt: skip

    def _open_rasters(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        if self.buffer is not None or self.where is not None:
            raise ConfigError(f"layer {name!r}: buffer= and where= go with geometries; {self.source!s:.60} gives rasters")
        like = Imagery(self.source, bands=(1,), resampling="nearest", column=self.column, dtype=self.dtype, srid=self.srid)
        opened = _open_rasters(like, db, tiles, name, number)
        return OpenLayer(**vars(opened) | {"shape": tiles.grid.shape, "fill": self.background, "holes": True})

    def _of_table(self, db: Database, table: catalog.Table) -> tuple[int, str]:
        column = table.column("geometry", self.column)
        if not (srid := catalog.srid(db.query, table, column)):
            raise DataError(
                f"{table}.{column} has SRID 0, so nobody knows where it lies: say so once with "
                f"SELECT UpdateGeometrySRID('{table.schema}', '{table.name}', '{column}', <srid>)"
            )
        value: sql.Composable = sql.Literal(self.value)
        if isinstance(self.value, str):
            value = sql.SQL("t.") + sql.Identifier(table.require(self.value).name)
        text = compose(
            "features_of_table", column=sql.Identifier(column), table=table.identifier, value=value,
            condition=sql.SQL(self.where or "true"),  # type: ignore[arg-type]  # the user's own text
        )  # fmt: skip
        return srid, query.text_of(text.as_string(None))

    def _select(self, number: int, source: sql.Composed, columns: dict[str, str], grid: Grid) -> sql.Composed:
        if "geom" not in columns:
            geometries = [name for name, kind in columns.items() if kind in {"geometry", "geography", "bytea"}]
            hint = f": write {geometries[0]} AS geom" if len(geometries) == 1 else ""
            raise QueryError(
                f"the query gives the columns {', '.join(columns) or 'none'}, but neither geom nor rast{hint}. "
                "Expected geom, with value and priority if wanted, or rast"
            )
        if columns.get("value", "int4") not in {"int2", "int4", "int8", "float4", "float8", "numeric", "bool"}:
            raise QueryError(
                f"the query's column value is of type {columns['value']}: expected a number. "
                "Map it: CASE highway WHEN 'primary' THEN 2 ELSE 1 END AS value"
            )
        constant = self.value if not isinstance(self.value, str) else 1
        value = sql.SQL("u.value::int4") if columns.get("value") == "bool" else sql.SQL("u.value")
        geometry = sql.SQL("ST_Transform(u.geom::geometry, {}::int4)").format(grid.srid)
        if self.buffer is not None:
            metres = sql.SQL(
                "ST_Scale(ST_Buffer(ST_Scale({}, tile.metre_x, tile.metre_y), {}::float8), 1 / tile.metre_x, 1 / tile.metre_y)"
            )
            geometry = metres.format(geometry, self.buffer)
        sx, sy = grid.pixel
        wider = sql.SQL("ST_Expand(g.envelope, {}::float8, {}::float8)").format(2 * sx, 2 * sy)
        return compose(
            "labels", layer=number, source=source, geometry=geometry,
            value=value if "value" in columns else sql.SQL("{}::float8").format(constant),
            priority=sql.SQL("u.priority") if "priority" in columns else sql.SQL("0"),
            area_box=wider if self.all_touched else sql.SQL("g.envelope"), line_box=wider, touched=self.all_touched,
        )  # fmt: skip


def fits(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether the dtype can hold the value, to the unit where it is an integer type."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return math.isfinite(value) and value == int(value) and limits.min <= value <= limits.max


def _check_dtype(dtype: str | None, *more: str) -> None:
    if dtype is not None and dtype not in (*DTYPES, *more):
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join((*DTYPES, *more))}")


def _where(srid: int, grid: Grid) -> str:
    if srid == grid.srid:
        return f"vectors in the tiles' SRID {srid}, burned on the tile's pixels"
    return f"vectors in SRID {srid}, searched there and burned on the tile's pixels in SRID {grid.srid}"


def _beside_tile(text: str, srid: int, tile_srid: int, reach: float, *, always: bool = False) -> sql.Composed:
    """The query in the relation that the guard makes of it."""
    tile = compose("tile_reach", srid=srid, reach=reach) if always or reach or srid != tile_srid else compose("tile_here")
    return compose("user_query", query=sql.SQL(text), tile=tile)  # type: ignore[arg-type]  # the user's own text, verbatim


def _open_rasters(layer: Imagery, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
    grid, said = tiles.grid, list[str]()
    is_table = isinstance(layer.source, str) and catalog.is_table_name(layer.source)
    if is_table:
        table = db.table(str(layer.source))
        column = table.column("raster", layer.column)
        found = catalog.headers(db.query, table.identifier, column)
        searched = found[0].srid if found else grid.srid
        order = sql.SQL(layer.order_by) if layer.order_by else _key(table)  # type: ignore[arg-type]  # the user's own text

        def text_for(grow: tuple[float, float]) -> str:
            return compose(
                "stored_blocks", table=table.identifier, column=sql.Identifier(column), order=order,
                grow_x=grow[0], grow_y=grow[1],
            ).as_string(None)  # fmt: skip

        what = f"{table}.{column}"
    else:
        if layer.column:
            raise ConfigError("column= goes with a table's name: a query calls its raster rast")
        own = query.text_of(layer.source)
        searched, what = layer.srid or grid.srid, "the query"
        columns = query.gate(db, tiles, own, _beside_tile(own, searched, grid.srid, 0))
        if "rast" not in columns:
            raise QueryError(f"the query gives the columns {', '.join(columns) or 'none'}: expected a raster column called rast")
        order = sql.SQL("ORDER BY " + layer.order_by if layer.order_by else "")  # type: ignore[arg-type]
        own = compose("rasters_of_query", query=sql.SQL(own), order=order).as_string(None)  # type: ignore[arg-type]

        def text_for(grow: tuple[float, float]) -> str:
            return own

        probe = query.over(tiles[:16], sql.SQL("SELECT u.rast FROM {}").format(_beside_tile(own, searched, grid.srid, 0)))
        found = catalog.headers(db.query, sql.SQL("({})").format(probe), "rast")
        if not found:
            raise DataError("the query gives no raster for the first 16 tiles: do imagery and tiles meet?")
    header = _one_kind(what, found)
    bands = _bands(layer, what, header)
    subset = bands != tuple(range(1, len(header.pixel_types) + 1))
    pixels = sql.SQL("ST_Band(f.rast, {}::int4[])").format(list(bands)) if subset else sql.SQL("f.rast")
    off = off_lattice(header, tiles)
    text = text_for((-grid.pixel[0] / 10, -grid.pixel[1] / 10))
    if off is None:
        source = _beside_tile(text, searched, grid.srid, 0)
        select = compose("native", layer=number, source=source, pixels=pixels)
        why = "the pixels lie on the tiles' lattice and come as they are stored"
    else:
        postgis_name, radius = RESAMPLING[layer.resampling]
        ratio, margin = _kernel(db, tiles, header, radius)
        text = text_for(margin)
        source = _beside_tile(text, searched, grid.srid, 0)
        exact = layer.resampling == "nearest" or any(t.endswith("F") for t in header.pixel_types)
        max_error = layer.max_error if layer.max_error is not None else 0.0 if exact else 0.125
        select = compose(
            "warped", layer=number, source=source, pixels=pixels, resampling=postgis_name, max_error=max_error
        )  # fmt: skip
        why = f"{off}: resampled ({layer.resampling}) in PostGIS"
        if header.srid == grid.srid and math.isclose(ratio, 1, rel_tol=1e-6) and is_table:
            said.append(
                f"{off}, though SRID and resolution are the tiles' own: Grid.like(db, {str(layer.source)!r}) "
                "puts the tiles on its lattice and is about ten times as fast"
            )
    said += query.findings(db, tiles, text, select, searched)
    stored = np.result_type(*(PIXEL_TYPES[header.pixel_types[b - 1]] for b in bands))
    dtype = layer.dtype or ("float32" if stored.name in {"uint16", "uint32"} else stored.name)
    nodata = header.nodata[bands[0] - 1]
    return OpenLayer(
        name, select.as_string(None), (len(bands), *grid.shape), stored.name if dtype == "native" else dtype,
        fill=0 if nodata is None else nodata, burned=False, holes=False, path="native" if off is None else "warped", why=why,
        text=text, warnings=tuple(said),
    )  # fmt: skip


def _key(table: catalog.Table) -> sql.Composable:
    """What orders overlapping scenes where nobody says: the primary key, else the rows' place in the table."""
    if table.primary_key:
        return sql.SQL(", ").join(sql.SQL("s.") + sql.Identifier(k) for k in table.primary_key)
    return sql.SQL("s.ctid") if table.kind in {"r", "m"} else sql.SQL("true")


def _one_kind(what: str, found: list[Header]) -> Header:
    if not found:
        raise DataError(f"{what} holds no raster")
    first = found[0]
    for other in found[1:]:
        if (other.srid, other.scale, other.skew, other.pixel_types) != (first.srid, first.scale, first.skew, first.pixel_types):
            raise DataError(
                f"{what} holds rasters of several kinds: {first.rows} rows of SRID {first.srid}, scale {first.scale}, "
                f"bands {first.pixel_types}, and {other.rows} of SRID {other.srid}, scale {other.scale}, bands "
                f"{other.pixel_types}: select the ones of one kind in a query"
            )
    if first.srid == 0:
        raise DataError(f"{what} has SRID 0, so nobody knows where it lies: say so once with SELECT UpdateRasterSRID(…)")
    if first.out_db:
        raise DataError(f"{what} keeps its pixels in files outside the database, which this version does not read")
    return first


def _bands(layer: Imagery, what: str, header: Header) -> tuple[int, ...]:
    count = len(header.pixel_types)
    bands = tuple(layer.bands) if layer.bands is not None else tuple(range(1, count + 1))
    if not bands:
        raise DataError(f"{what} holds rasters without bands")
    if max(bands) > count:
        raise MissingError(f"bands={bands}: {what} has {count} bands, 1 to {count}")
    return bands


def off_lattice(header: Header, tiles: Tiles) -> str | None:
    """Why the rasters don't lie on the tiles' lattice; None where they do, at both ends of the tiles' extent."""
    grid = tiles.grid
    if header.srid != grid.srid:
        return f"stored in SRID {header.srid}, the tiles are in {grid.srid}"
    if header.skew != (0, 0) or header.scale[0] < 0 or header.scale[1] > 0:
        return f"not stored north-up (scale {header.scale}, skew {header.skew})"
    scale = (header.scale[0], -header.scale[1])
    if any(abs(s - r) / r * max(grid.shape) > ALIGNED for s, r in zip(scale, grid.pixel, strict=True)):
        return f"stored at {scale[0]:g} × {scale[1]:g} CRS units a pixel, the tiles have {grid.pixel[0]:g} × {grid.pixel[1]:g}"
    bounds = tiles.bounds
    for axis, name in ((0, "x"), (1, "y")):
        ends = np.array([bounds[:, axis].min(), bounds[:, axis + 2].max()])
        offset = (ends - header.upper_left[axis]) / scale[axis]
        off = float(np.abs(offset - np.rint(offset)).max())
        if off > ALIGNED:
            return f"the lattices are {off:.3g} px apart in {name}"
    return None


def _kernel(db: Database, tiles: Tiles, header: Header, radius: int) -> tuple[float, tuple[float, float]]:
    """How many source pixels a tile pixel spans, and the margin in source CRS units that resampling needs around a tile."""
    (x, _, _, y), (sx, sy) = tiles.bounds[0].tolist(), tiles.grid.pixel
    slots = {"x": x, "y": y, "scale_x": sx, "scale_y": sy, "srid": tiles.grid.srid, "source_srid": header.srid}
    width, height = db.query(compose("pixel_ratio", **slots))[0]
    step = max(abs(header.scale[0]) + abs(header.skew[0]), abs(header.scale[1]) + abs(header.skew[1]))
    ratio = max(width / step, height / step)
    margin = (math.ceil(radius * max(1.0, ratio)) + 2) * step  # GDAL widens its kernels by the ratio when it shrinks an image
    return ratio, (margin, margin)


def open_layers(db: Database, tiles: Tiles, layers: dict[str, Layer]) -> tuple[OpenLayer, ...]:
    """All layers of a dataset, opened; what is worth saying is warned of, with the layer's name in front."""
    opened = []
    for number, (name, layer) in enumerate(layers.items()):
        try:
            opened.append(layer.open(db, tiles, name, number))
        except (QueryError, DataError, MissingError, ConfigError) as error:
            raise _named(error, name) from error
    for layer_ in opened:
        for said in layer_.warnings:
            warnings.warn(f"layer {layer_.name!r}: {said}", PgtilesWarning, stacklevel=3)
    return tuple(opened)


def _named(error: PgtilesError, name: str) -> PgtilesError:
    return error if str(error).startswith("layer ") else type(error)(f"layer {name!r}: {error}")
