"""One tile's pixels as the bytes of a picture file: GeoTIFF by GDAL, PNG and JPEG by Pillow. Nothing is written here."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, DependencyError

Rings = list[list[tuple[float, float]]]  # of a polygon, in pixels, not closed

PLACE, SIZE = struct.Struct("<2d"), struct.Struct("<HII")  # of an entry of a TIFF: kind, count and value
LONG, OFFSETS, SIZES, TIE = 4, 273, 279, 33922  # a kind of value; tags: of the strips, of the place
POINTED = ((OFFSETS, 0), (OFFSETS, 1), (TIE, 1))  # count of strips, where the first begins, where the place stands

TIFF = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "float32", "float64")


class Kind(NamedTuple):
    """What files of a kind are called, and what they hold."""

    driver: str
    suffix: str
    bands: tuple[int, ...]  # how many; none said is any number
    dtypes: tuple[str, ...]
    options: dict[str, Any]
    holds: str  # in words


FOURTH = {"alpha": "no"}  # of four bands of bytes the last is opacity to GDAL unless it is told
KINDS = {
    "tiff": Kind(
        "GTiff", "tif", (), TIFF, {"compress": "deflate", "interleave": "pixel"} | FOURTH, f"pixels of {', '.join(TIFF)}"
    ),
    "png": Kind("PNG", "png", (1, 2, 3, 4), ("uint8", "uint16"), {}, "1 to 4 bands of uint8 or uint16"),
    "jpeg": Kind("JPEG", "jpg", (1, 3), ("uint8",), {"quality": 95}, "1 or 3 bands of uint8"),
}


class Ground(NamedTuple):
    """Where a picture lies: what rasterio takes as a CRS, the upper left corner, and CRS units per pixel."""

    crs: Any
    left: float
    top: float
    pixel: tuple[float, float]


def check(what: str, kind: str, bands: int, dtype: str, mend: str) -> None:
    """Raise `ConfigError` where files of a kind can't hold such pixels. mend: what else to do about it."""
    known = KINDS[kind]
    if (known.bands and bands not in known.bands) or dtype not in known.dtypes:
        held = f"{bands} band{'s' * (bands != 1)} of {dtype}"
        raise ConfigError(f"{what} has {held}, and {kind.upper()} holds {known.holds}: {mend}")


def picture(pixels: NDArray[Any], kind: str, ground: Ground, colours: dict[int, tuple[int, int, int]] | None = None) -> bytes:
    """The bytes of a file that holds these pixels, (bands, height, width) or (height, width).

    colours: of the values of a single band, as a palette.
    """
    bands = pixels if pixels.ndim == 3 else pixels[None]
    if kind == "tiff":
        head, tie, size = _head(bands.shape, bands.dtype.name, ground.crs, ground.pixel)
        strip = zlib.compress(np.ascontiguousarray(np.moveaxis(bands, 0, 2)).tobytes())
        PLACE.pack_into(head, tie, ground.left, ground.top)
        SIZE.pack_into(head, size, LONG, 1, len(strip))
        return bytes(head) + strip
    if bands.dtype == np.uint16:
        return _by_gdal(bands, kind, ground)
    return _by_pillow(bands, kind, colours)


def _head(shape: tuple[int, ...], dtype: str, crs: Any, pixel: tuple[float, float]) -> tuple[bytearray, int, int]:
    """A GeoTIFF up to its pixels, as GDAL writes it, and where in it the place stands and the pixels' size.

    GDAL takes a millisecond for a file, most of which is the same in all files of a layer: so it writes one.
    """
    head, tie, size = _first(shape, dtype, crs, pixel)
    return bytearray(head), tie, size


@lru_cache(maxsize=64)
def _first(shape: tuple[int, ...], dtype: str, crs: Any, pixel: tuple[float, float]) -> tuple[bytes, int, int]:
    file = _by_gdal(np.zeros(shape, dtype), "tiff", Ground(crs, 0, 0, pixel), blockysize=shape[1], endianness="little")
    (at,) = struct.unpack_from("<I", file, 4)
    (count,) = struct.unpack_from("<H", file, at)
    entries = {struct.unpack_from("<H", file, place)[0]: place for place in range(at + 2, at + 2 + 12 * count, 12)}
    strips, begins, tie = (struct.unpack_from("<I", file, entries[tag] + 4 + 4 * known)[0] for tag, known in POINTED)
    if strips != 1 or struct.unpack_from("<4s", file)[0] != b"II*\0":
        raise DataError(f"GDAL writes a GeoTIFF of {shape} {dtype} in {strips} parts: expected one")
    return file[:begins], tie + 24, entries[SIZES] + 2


def _by_gdal(bands: NDArray[Any], kind: str, ground: Ground, **more: Any) -> bytes:
    rasterio, memory, from_origin = _library()
    (count, height, width), known = bands.shape, KINDS[kind]
    place = {"transform": from_origin(ground.left, ground.top, *ground.pixel)} | ({"crs": ground.crs} if kind == "tiff" else {})
    profile = {"count": count, "height": height, "width": width, "dtype": bands.dtype, **place, **known.options, **more}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), memory() as file:  # no second file where the first has no room for the place
        with file.open(driver=known.driver, **profile) as into:
            into.write(bands)
        return bytes(file.read())


def _by_pillow(bands: NDArray[Any], kind: str, colours: dict[int, tuple[int, int, int]] | None) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise DependencyError(f"to write {kind.upper()} needs Pillow ({error}): pip install 'pgtiles[load]'") from error
    file = io.BytesIO()
    made = Image.fromarray(bands[0] if len(bands) == 1 else np.ascontiguousarray(np.moveaxis(bands, 0, 2)))
    if colours:
        made.putpalette([part for value in range(256) for part in colours[value]])
    made.save(file, kind, **KINDS[kind].options)
    return file.getvalue()


def crs_of(register: str | None, code: int | None, wkt: str | None, proj: str | None) -> Any:
    """What rasterio takes as a coordinate system: by EPSG's code, where it has one, which is what most programs look for. None
    where nothing says it.
    """
    _library()
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    ways = (CRS.from_epsg, code if register == "EPSG" else None), (CRS.from_wkt, wkt), (CRS.from_proj4, proj)
    for way, said in ways:
        with suppress(CRSError):
            if said:
                return way(said)
    return None


def narrow(what: str, mask: NDArray[Any]) -> NDArray[Any]:
    """A mask as files hold it: truths as 0 and 1; int64, a trainer's type, in 8 bits, if it fits."""
    if mask.dtype.kind == "b":
        return mask.view(np.uint8)
    if mask.dtype != np.int64:
        return mask
    if mask.size and not (mask.min() >= 0 and mask.max() <= 255):
        odd = mask[(mask < 0) | (mask > 255)][0]
        raise DataError(
            f"{what} has the value {odd}, and int64 is written as 8 bits, 0 to 255: Labels(dtype='int16') or another dtype "
            "is written as it is"
        )
    return mask.astype(np.uint8)


def stretched(pixels: NDArray[Any], stretch: tuple[tuple[float, float], ...]) -> NDArray[np.uint8]:
    """Pixels in 8 bits: each band's low becomes 0 and its high 255, what lies beyond is clamped, no number is 0."""
    low, high = np.array(stretch, float).T.reshape(2, -1, *[1] * (pixels.ndim - 1))
    scaled = np.clip((pixels.astype(float) - low) / (high - low) * 255, 0, 255)
    eight: NDArray[np.uint8] = np.rint(np.nan_to_num(scaled)).astype(np.uint8)
    return eight


def regions(codes: NDArray[np.int32], wanted: NDArray[np.bool_]) -> Iterator[tuple[int, Rings]]:
    """The connected parts of equal pixels, those that share an edge: the value, and the rings in pixels, outer one first."""
    _library()
    from rasterio.features import shapes

    for shape, value in shapes(codes, mask=wanted, connectivity=4):
        yield int(value), [ring[:-1] for ring in shape["coordinates"]]


def covered(parts: list[Rings], height: int, width: int) -> NDArray[np.uint8]:
    """Which pixels such parts cover, as 0 and 1."""
    _library()
    from rasterio.features import rasterize

    shapes = [{"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in rings]} for rings in parts]
    return np.asarray(rasterize(shapes, (height, width), dtype="uint8"))


def _library() -> Any:
    try:
        import rasterio
        from rasterio.io import MemoryFile
        from rasterio.transform import from_origin
    except ImportError as error:
        raise DependencyError(f"to write pictures needs rasterio ({error}): pip install 'pgtiles[load]'") from error
    return rasterio, MemoryFile, from_origin
