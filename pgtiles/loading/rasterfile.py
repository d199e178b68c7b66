"""A raster file as GDAL reads it: what it is, and its pixels as blocks of raster WKB. No database.

A file that PostGIS can't hold as it is (complex or 64-bit integer pixels, no place on the earth) is refused with the
command that makes one that it can. What is left behind without changing a pixel's value becomes a note.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError, LoadError
from ..layers import wkb

Pair = tuple[float, float]
Window = tuple[tuple[int, int], tuple[int, int]]  # rows and columns: from, and up to
Recode = Callable[[NDArray[Any], int, int], NDArray[Any]]  # pixels (bands, height, width), row and column of the first
READ_BYTES = 256 * 2**20  # of pixels to hold at a time, as long as one block does not need more

_CONVERSIONS = {
    "int64": "gdal_translate -ot Int32 (or -ot Float64) {} out.tif",
    "uint64": "gdal_translate -ot UInt32 (or -ot Float64) {} out.tif",
    "complex": "gdal_translate -ot Float32 DERIVED_SUBDATASET:AMPLITUDE:{0} out.tif writes their magnitude; for the real and "
    "imaginary parts as bands, the same with REAL into re.tif and with IMAG into im.tif, then rio stack re.tif im.tif out.tif",
}


@dataclass(frozen=True)
class RasterFile:
    """What a file holds; pairs are (x, y), lengths in units of its CRS."""

    path: str
    width: int
    height: int
    bands: int
    dtype: str
    nodata: tuple[float | None, ...]
    """Per band, as the pixels' type can hold it."""
    scale: Pair
    skew: Pair
    upper_left: Pair
    crs: str | None
    """For people: its name, or None where the file has none."""
    authority: tuple[str, str] | None
    """Of the CRS, as ``("EPSG", "32631")``; None where it is in no register."""
    block: tuple[int, int]
    """Columns and rows of pixels that the file keeps together: a tile of it, or a strip as wide as the file."""
    driver: str
    """GDAL's name of the file's format."""
    lossy: bool
    """Whether its pixels are compressed by JPEG or WebP, which decoders read differently by some counts."""
    palette: dict[int, tuple[int, int, int]] | None
    """Its colour table, where its pixels are the numbers of entries: red, green, blue."""
    notes: tuple[str, ...]

    @property
    def striped(self) -> bool:
        """Whether it is kept in strips, of which a small window needs many, and each from end to end."""
        return self.block[0] >= self.width and self.block[1] < self.height

    @property
    def south_up(self) -> bool:
        """Whether its first row of pixels is the southernmost."""
        return self.scale[1] > 0 and not self.skew[0]

    def count(self, block: tuple[int, int]) -> int:
        """Number of blocks of at most so many columns and rows of pixels."""
        return math.ceil(self.width / block[0]) * math.ceil(self.height / block[1])

    def block_bytes(self, block: int) -> int:
        """Bytes of pixels in a block of that size."""
        return min(block, self.width) * min(block, self.height) * self.bands * np.dtype(self.dtype).itemsize

    def same_lattice(self, other: RasterFile) -> bool:
        """Whether the pixels of both lie on one lattice, within a thousandth of a pixel over the extent of both."""
        pixels = max(self.width, self.height, other.width, other.height)
        for mine, others in zip(self.scale + self.skew, other.scale + other.skew, strict=True):
            if abs(mine - others) * pixels > 1e-3 * max(map(abs, self.scale + self.skew)):
                return False
        (a, e), (b, d) = self.scale, self.skew
        dx, dy = (theirs - ours for theirs, ours in zip(other.upper_left, self.upper_left, strict=True))
        determinant = a * e - b * d
        offsets = ((dx * e - dy * b) / determinant, (dy * a - dx * d) / determinant)  # in pixels
        return all(abs(offset - round(offset)) < 1e-3 for offset in offsets)


def describe(path: str) -> RasterFile:
    """What the file holds.

    Raises:
        LoadError: GDAL can't read it, or PostGIS can't hold it.

    """
    with opened(path) as source:
        return described(path, source)


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """The file as rasterio opens it, which need not lie on the earth.

    Raises:
        LoadError: GDAL can't read it.

    """
    rasterio = _rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # an error of ours, where it matters
        try:
            with rasterio.open(path) as source:
                yield source
        except (rasterio.errors.RasterioError, rasterio.errors.CRSError) as error:
            raise LoadError(f"{path} is no raster that GDAL can read: {error.__cause__ or error}") from error


def described(path: str, source: Any, *, placed: bool = True) -> RasterFile:
    """What an opened file holds. placed: whether it has to lie on the earth.

    Raises:
        LoadError: PostGIS can't hold it.

    """
    if not source.count:
        inside = "; it has subdatasets, name one of them: " + ", ".join(source.subdatasets) if source.subdatasets else ""
        raise LoadError(f"{path} has no bands{inside}")
    types = sorted(set(source.dtypes))
    if len(types) > 1:
        raise LoadError(f"{path} has bands of several types ({', '.join(types)}): gdal_translate -ot … makes them one")
    dtype = types[0]
    for refused, conversion in _CONVERSIONS.items():
        if dtype.startswith(refused):
            raise LoadError(f"{path} has {dtype} pixels, which PostGIS lacks: {conversion.format(path)}")
    transform = source.transform
    if transform.is_identity and placed:
        if source.gcps[0] or source.rpcs:
            have = "ground control points" if source.gcps[0] else "rational polynomials (RPC)"
            raise LoadError(f"{path} is placed by {have}, not yet on a grid: gdalwarp -t_srs EPSG:… {path} out.tif")
        raise LoadError(f"{path} is not georeferenced: gdal_translate -a_ullr xmin ymax xmax ymin -a_srs EPSG:… {path} out.tif")
    if not transform.determinant:
        raise LoadError(f"{path} has pixels without an area: its geotransform is {transform.to_gdal()}")
    nodata, notes = _nodata(source.nodatavals, dtype)
    crs = source.crs or None
    return RasterFile(
        path=path,
        width=source.width,
        height=source.height,
        bands=source.count,
        dtype=dtype,
        nodata=nodata,
        scale=(transform.a, transform.e),
        skew=(transform.b, transform.d),
        upper_left=(transform.c, transform.f),
        crs=crs and (crs.to_string() if len(crs.to_string()) < 20 else crs.to_wkt().split('"')[1]),
        authority=crs and crs.to_authority(),
        block=(max(width for _, width in source.block_shapes), max(height for height, _ in source.block_shapes)),
        driver=source.driver,
        lossy=source.driver in {"JPEG", "WEBP"} or any(name in str(source.compression) for name in ("jpeg", "webp")),
        palette=_palette(source),
        notes=(*notes, *_left_behind(source)),
    )


def _nodata(values: tuple[float | None, ...], dtype: str) -> tuple[tuple[float | None, ...], list[str]]:
    """Nodata values that pixels of this type can have, and a note on each of the others: no pixel is nodata by them."""
    if np.dtype(dtype).kind == "f":
        return values, []
    limits = np.iinfo(dtype)
    kept = tuple(
        int(value) if value is not None and value % 1 == 0 and limits.min <= value <= limits.max else None for value in values
    )
    lost = sorted({str(value) for value, left in zip(values, kept, strict=True) if value is not None and left is None})
    return kept, [f"its nodata value {value} is dropped: no {dtype} pixel can have it" for value in lost]


def _left_behind(source: Any) -> Iterator[str]:
    """What the file says about its pixels that a raster in PostGIS has no place for."""
    from rasterio.enums import MaskFlags

    if any(MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags for flags in source.mask_flag_enums):
        yield "its mask is not loaded: pixels that it hides have the values that they are stored with"
    if any(scale != 1 for scale in source.scales) or any(source.offsets):
        yield f"its scale and offset are not loaded (values are as stored): {source.scales}, {source.offsets}"


def _palette(source: Any) -> dict[int, tuple[int, int, int]] | None:
    from rasterio.enums import ColorInterp

    if source.count != 1 or ColorInterp.palette not in source.colorinterp:
        return None
    return {entry: colour[:3] for entry, colour in source.colormap(1).items()}


def blocks(file: RasterFile, srid: int, block: int, recode: Recode | None = None) -> Iterator[bytes]:
    """The file's pixels as raster WKB, row by row of blocks, from its first pixel on; those at its edges are smaller.

    recode: makes other pixels of them, which have no nodata value.

    Raises:
        LoadError: the file can't be read to its end.

    """
    rasterio = _rasterio()
    (a, e), (b, d), (x, y) = file.scale, file.skew, file.upper_left
    rows, columns = _window(file, block)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            with rasterio.open(file.path) as source:
                for top, left in itertools.product(range(0, file.height, rows), range(0, file.width, columns)):
                    bottom, right = min(top + rows, file.height), min(left + columns, file.width)
                    pixels = source.read(window=((top, bottom), (left, right)))
                    if recode:
                        pixels = recode(pixels, top, left)
                    for row, column in itertools.product(range(top, bottom, block), range(left, right, block)):
                        yield wkb.encode(
                            pixels[:, row - top : row - top + block, column - left : column - left + block],
                            upper_left=(x + a * column + b * row, y + d * column + e * row),
                            scale=file.scale,
                            skew=file.skew,
                            srid=srid,
                            nodata=None if recode else file.nodata,
                        )
        except rasterio.errors.RasterioError as error:
            raise LoadError(_unread(file, error)) from error


def references(file: RasterFile, srid: int, block: tuple[int, int], path: str) -> Iterator[bytes]:
    """The same blocks, of so many columns and rows, without their pixels: raster WKB that says in which file they are.

    path: the file's, as the server opens it.
    """
    for window in _windows(file, block):
        yield reference(file, srid, window, path)


def reference(file: RasterFile, srid: int, window: Window, path: str) -> bytes:
    """One window of the file as raster WKB without its pixels."""
    (a, e), (b, d), (x, y) = file.scale, file.skew, file.upper_left
    (top, bottom), (left, right) = window
    return wkb.encode_outdb(
        path, (file.bands, bottom - top, right - left), file.dtype,
        upper_left=(x + a * left + b * top, y + d * left + e * top),
        scale=file.scale, skew=file.skew, srid=srid, nodata=file.nodata,
    )  # fmt: skip


def telling_blocks(file: RasterFile, block: tuple[int, int], most: int = 3) -> Iterator[tuple[Window, NDArray[Any]]]:
    """The first, the last and a middle block, and their pixels as GDAL reads them here; in place of a block of one value,
    by which no file is told from another, one nearby that has more, if there is any among a few.
    """
    rasterio = _rasterio()
    windows = list(_windows(file, block))
    wanted = sorted({round(k * (len(windows) - 1) / (most - 1)) for k in range(most)})
    try:
        with rasterio.open(file.path) as source:
            for number in wanted:
                for near in range(number, max(number - 8, -1), -1) if number else range(min(8, len(windows))):
                    pixels = np.asarray(source.read(window=windows[near]))
                    if (pixels != pixels.flat[0]).any() and not np.isnan(pixels).all():
                        break
                yield windows[near], pixels
    except rasterio.errors.RasterioError as error:
        raise LoadError(_unread(file, error)) from error


def _windows(file: RasterFile, block: tuple[int, int]) -> Iterator[Window]:
    columns, rows = block
    for top, left in itertools.product(range(0, file.height, rows), range(0, file.width, columns)):
        yield (top, min(top + rows, file.height)), (left, min(left + columns, file.width))


def _unread(file: RasterFile, error: Exception) -> str:
    """What to say of a file that breaks off; rasterio keeps GDAL's own words as the error's cause."""
    return f"{file.path} can't be read to its end: {error.__cause__ or error}. If it was copied or fetched, do it again"


def _window(file: RasterFile, block: int) -> tuple[int, int]:
    """Rows and columns of pixels to read at once, whole blocks in the file's order."""
    rows, pixel = block * math.ceil(file.block[1] / block), file.block_bytes(1)
    if rows * file.width * pixel <= READ_BYTES:
        return rows, file.width  # whole strips or rows of tiles: else each is decoded again for every row of blocks in it
    return block, block * max(1, READ_BYTES // (block * block * pixel))


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise DependencyError(f"to load rasters needs rasterio ({error}): pip install 'pgtiles[load]'") from error
    return rasterio
