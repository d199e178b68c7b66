"""How rasters get onto a tile's pixels: the native path where they lie on them already, the warped path where they don't.

Which of the two is decided once, when a layer is opened, from the rasters' own headers; each fragment is checked on arrival.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql

from ..errors import ConfigError, MissingError
from ..postgres.catalog import Header, in_words
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from .canvas import ALIGNED, fits
from .pixels import Pixels
from .query import OpenLayer, findings, guarded, relation
from .rastersource import RasterSource, find_rasters, off_lattice, ratio_of_kind, ratios
from .resampling import SHRINKS, doubts, kernel_of
from .timeseries import Steps, TimeSeries, native, warped
from .wkb import PIXEL_TYPES

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

# Columns and rows that PostGIS has GDAL warp at a time. GDAL takes the ratio by which it shrinks from the size of each lot in
# whole pixels, so that a small one would get a coarse ratio, and another blur.
LOT = (512, 128)
LEAST = 72  # of a lot, to be of no account: its ratio then is within 0.05 of the whole one, which GDAL takes for just that

SIDE = 65_535  # pixels of a raster, PostGIS's limit
MOST_COUNTED = 2**28  # bytes of a tile whose pixels are counted
SHARED = 8  # source pixels to one of the tile's, up to which those along its edge are so many that their shares count
MODE = "mode"  # the commonest of the pixels below: PostGIS can't, so they are read as they are and counted on arrival

# Pixel types, a wider one, and its least value: where ST_Union joins scenes, what is between them. Only a double may have that.
WIDER = (
    ({"1BB", "2BUI", "4BUI", "8BSI", "8BUI"}, "16BSI", -(2.0**15)),
    ({"16BSI", "16BUI"}, "32BSI", -(2.0**31)),
    ({"32BSI", "32BUI", "16BF", "32BF", "64BF"}, "64BF", -np.finfo("f8").max.item()),
)


def open_rasters(
    db: Database,
    tiles: Tiles,
    name: str,
    number: int,
    *,
    source: str | Select[Any] | TextClause,
    bands: Sequence[int] | None = None,
    resampling: str = "bilinear",
    order_by: str | None = None,
    column: str | None = None,
    dtype: str | None = None,
    max_error: float | None = None,
    srid: int | None = None,
    fill: float | Sequence[float] | None = None,
    valid: bool = False,
    overviews: bool = False,
    time: TimeSeries | None = None,
) -> OpenLayer:
    """A layer of rasters (`imagery.Imagery` tells the arguments), with the path that its pixels take and why."""
    kernel = kernel_of(db, "nearest" if resampling == MODE else resampling)
    found, said = find_rasters(
        db, tiles, source, column=column, order_by=order_by, srid=srid, time=time, overviews=overviews and not kernel.picks
    )
    header, counted = found.header, 1
    if resampling == MODE:
        resampling, ratio = "nearest", max(ratio_of_kind(db, tiles, header))
        counted = _counted(tiles, header, ratio)
        tiles = _finer(tiles, counted)
    grid = tiles.grid
    wanted = _bands(bands, found)
    types = [header.pixel_types[band - 1] for band in wanted]
    stored = np.result_type(*(PIXEL_TYPES[kind] for kind in types))
    kept = stored.name not in {"uint16", "uint32"} or dtype == "native"
    all_of_them = wanted == tuple(range(1, len(header.pixel_types) + 1))
    pixels = sql.SQL("r.rast") if all_of_them else sql.SQL("ST_Band(r.rast, {}::int4[])").format(list(wanted))
    here = relation(found.srid, grid.srid)
    off = off_lattice(header, tiles)
    if off is None:
        text = found.text(-grid.pixel[0] / 10, -grid.pixel[1] / 10)
        select = compose("native", layer=number, pixels=pixels, **native(time, text, here, tiles))
        why = "the pixels lie on the tiles' lattice and come as they are stored"
    else:
        least, most = ratios(db, tiles, header)
        ratio, exact = max(most), kernel.picks or stored.kind == "f"
        off_by = max_error if max_error is not None else 0.0 if exact else 0.125
        # GDAL widens its kernels by the ratio when it shrinks an image; where it reprojects, it may look further by max_error
        spare = 0.0 if header.srid == grid.srid else 1.0 + max(0.0, off_by - 0.5)
        margin = math.ceil(kernel.radius * max(1.0, ratio) + spare)
        more = [_beyond(*each, margin) for each in zip(grid.shape[::-1], most, LOT, strict=True)]
        wider = 0.0  # tile pixels
        if found.table:
            pixel = max(abs(header.scale[0]) + abs(header.skew[0]), abs(header.scale[1]) + abs(header.skew[1]))
            text = found.text((margin + more[0]) * pixel, (margin + more[1]) * pixel)
        else:  # a query can only be given a wider tile.geom, which then is the window
            text, wider = found.text(0, 0), (margin + max(more)) / min(least)
            here, margin, more = relation(found.srid, grid.srid, grow=(wider * grid.pixel[0], wider * grid.pixel[1])), 1, [0, 0]
        (right, left), (below, above) = (  # more to the east and to the south, whichever way the source's rows and columns run
            (size, 0) if ahead else (0, size)
            for size, ahead in zip(more, (header.scale[0] > 0, header.scale[1] < 0), strict=True)
        )
        alike = len(set(types)) == 1 and header.skew == (0, 0) and len(wanted) < 255  # and one more where the source ends
        place = compose(
            "lattice", srid=header.srid, origin_x=header.upper_left[0], origin_y=header.upper_left[1], scale_x=header.scale[0],
            scale_y=header.scale[1],
        )  # fmt: skip
        if header.srid != grid.srid and off_by:
            place = compose("affine", lattice=place, srid=grid.srid, tolerance=off_by / 2)  # GDAL's kernel may add to it
        select = compose(
            "warped", layer=number, **warped(time, text, here, tiles, wider), pixels=pixels, count=len(wanted),
            holes=_holes(header), width=stored.itemsize if alike else 0, origin_x=header.upper_left[0],
            origin_y=header.upper_left[1], scale_x=header.scale[0], scale_y=header.scale[1], left=margin + left,
            right=margin + right, above=margin + above, below=margin + below, resampling=kernel.postgis, place=place,
            max_error=off_by,
            srid=header.srid, skew_x=header.skew[0], skew_y=header.skew[1], kind=in_words(header), bands=list(wanted),
            type=list(PIXEL_TYPES).index(types[0]), types=list[str | None](types), last=max(wanted), whole=all_of_them,
        )  # fmt: skip
        why = f"{off}: resampled ({resampling}) in PostGIS"
        said += doubts(db, resampling, ratio)
        north_up = header.skew == (0, 0) and header.scale[1] < 0 < header.scale[0]  # else Grid.like refuses it
        if found.table and north_up and counted == 1 and header.srid == grid.srid and math.isclose(ratio, 1, rel_tol=1e-6):
            said.append(
                f"{off}, though SRID and resolution are the tiles' own: Grid.like(db, {found.table!r}) "
                "puts the tiles on its lattice and is about ten times as fast"
            )
    if found.overview:
        why += f"; read from the overview {found.what}"
    if counted > 1:
        why += f"; the commonest of {counted} × {counted} pixels each"
    if header.out_db:
        why += "; read from files outside the database (out-db), which takes longer"
    given = dtype if dtype not in (None, "native") else stored.name if kept else "float32"
    sheet = Pixels(
        (len(wanted), *grid.shape), given, _fill(fill, wanted, header, given, f"{source!s:.60}"), holes=fill is not None,
        valid=valid, stored=tuple(types), counted=counted,
    )  # fmt: skip
    if time:
        why += f"; a time series by {time.by}"
    if dtype is None and stored.name == "uint32":
        said.append(
            "32BUI pixels come as float32, which holds whole numbers up to 16,777,216 only: dtype='native' or 'int64' keeps "
            "them, and dtype='float32' says that it will do"
        )
    opened = OpenLayer(
        name, select.as_string(None), Steps(time.steps, sheet) if time else sheet,
        path="native" if off is None else "warped", why=why,
        warnings=(*said, *findings(db, tiles, text, select, found.srid)),
        files=compose("raster_files", source=guarded(text, here)).as_string(None),
    )  # fmt: skip
    return opened.at(tiles) if counted > 1 else opened


def _bands(bands: Sequence[int] | None, found: RasterSource) -> tuple[int, ...]:
    count = len(found.header.pixel_types)
    if bands is not None and max(bands) > count:
        raise MissingError(f"bands={tuple(bands)}: {found.what} has {count} band{'s' if count > 1 else ''}, counted from 1")
    return tuple(bands) if bands is not None else tuple(range(1, count + 1))


def _fill(
    fill: float | Sequence[float] | None, wanted: tuple[int, ...], header: Header, dtype: str, source: str
) -> tuple[float, ...]:
    """What each band holds where it has no data, certain to fit the dtype."""
    if fill is None:
        values = [header.nodata[band - 1] or 0 for band in wanted]
    else:
        values = [fill] * len(wanted) if isinstance(fill, int | float) else list(fill)
        if len(values) != len(wanted):
            raise ConfigError(f"fill={fill!r}: {len(values)} values for {len(wanted)} bands; give a number, or one for each")
    for band, value in zip(wanted, values, strict=True):
        if not fits(value, np.dtype(dtype)):
            if fill is not None:
                raise ConfigError(f"fill={fill!r}: dtype={dtype!r} does not hold {value:g}")
            raise ConfigError(
                f"dtype={dtype!r} does not hold {value:g}, the nodata value of band {band} of {source}: give "
                "another dtype=, or say with fill= what pixels without data shall be"
            )
    return tuple(values)


def _holes(header: Header) -> sql.Composed:
    """For ST_Union: of each band a pixel type that holds all its pixels and a nodata value that none of them has."""
    rows = []
    for number, kind in enumerate(header.pixel_types, 1):
        wide, hole = next((wide, hole) for kinds, wide, hole in WIDER if kind in kinds)
        rows.append(sql.SQL("ROW({}, {}, {}::float8, {}::float8)").format(number, wide, hole, hole))
    return sql.SQL("ARRAY[{}]::addbandarg[]").format(sql.SQL(", ").join(rows))


def _beyond(size: int, ratio: float, margin: int, lot: int) -> int:
    """Source pixels by which the window is to reach further, so that the last lot that is shrunk is no small one."""
    count = size + 2 * margin / ratio + 1
    return math.ceil((LEAST - count % lot) * ratio) if ratio > SHRINKS and count > lot and count % lot < LEAST else 0


def _counted(tiles: Tiles, header: Header, ratio: float) -> int:
    """How many times how many pixels a tile's pixel is the commonest of, where so many are below it."""
    counted, (height, width) = math.ceil(ratio - ALIGNED), tiles.grid.shape
    bytes_ = height * width * PIXEL_TYPES[header.pixel_types[0]].itemsize
    most = min(SIDE // max(height, width), math.isqrt(MOST_COUNTED // bytes_))
    if counted > max(most, 1):
        raise ConfigError(
            f"resampling={MODE!r}: a tile's pixel spans {ratio:.4g} source pixels, so that {height * counted} × "
            f"{width * counted} would be counted a tile; expected a span of {most} at most here: take smaller tiles, a label "
            "raster in larger pixels, or resampling='nearest'"
        )
    if 1 < counted <= min(SHARED, most // 2) and off_lattice(header, _finer(tiles, counted)):
        counted *= 2  # none is missed, and each counts by its share, nearly
    return counted


def _finer(tiles: Tiles, times: int) -> Tiles:
    """The tiles in so many times as many pixels along each side."""
    return tiles.at((tiles.grid.pixel[0] / times, tiles.grid.pixel[1] / times)) if times > 1 else tiles
