"""Raster WKB, the bytes in which PostGIS hands out a raster, to NumPy and back. Pure: no database, no I/O.

The format is that of PostGIS's own ``raster/doc/RFC2-WellKnownBinaryFormat``. A header of 61 bytes: byte order
(0 big, 1 little), version (u16, 0), number of bands (u16), scale x/y, upper left x/y, skew x/y (f64), SRID (i32),
width, height (u16). Then each band: one byte of flags (0x80 pixels lie in a file on the server, 0x40 has nodata,
0x20 all pixels are nodata, low four bits the pixel type), the nodata value (always there, as wide as a pixel), and
the pixels, row by row without padding. A band in a file has, in place of pixels, its number there (i8, from 0) and
the file's path, ended by a NUL. Types narrower than a byte take a whole byte a pixel.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pgtiles.errors import ConfigError, WKBError

Pixels = npt.NDArray[Any]
Number = int | float
Pair = tuple[float, float]

# Of a band's flags. 0x20, all pixels are nodata, is set by PostGIS on its own and cleared late: never trusted.
_OUTDB, _HAS_NODATA, _TYPE = 0x80, 0x40, 0x0F
_HEADER_SIZE: Final = 61
_MAX_SIZE: Final = 65535  # of width, height and number of bands: u16
_MAX_OUTDB_BANDS: Final = 128  # i8, from 0
_MAX_SRID: Final = 999_999  # PostGIS folds a greater SRID into its range with a mere notice

# PostGIS's name and the NumPy type of each pixel type, by its number. 16BF is new in PostGIS 3.7.
_TYPES: Final = (
    ("1BB", "u1"), ("2BUI", "u1"), ("4BUI", "u1"), ("8BSI", "i1"), ("8BUI", "u1"), ("16BSI", "i2"),
    ("16BUI", "u2"), ("32BSI", "i4"), ("32BUI", "u4"), ("16BF", "f2"), ("32BF", "f4"), ("64BF", "f8"),
)  # fmt: skip
_NARROW: Final = {"1BB": 1, "2BUI": 3, "4BUI": 15}  # greatest value of those that do not fill their NumPy type


class _Kind(NamedTuple):
    """A pixel type in one byte order."""

    name: str
    dtype: np.dtype[Any]
    size: int  # bytes a pixel
    value: struct.Struct  # of one value
    narrow: bool  # whether it holds less than its dtype
    low: int  # with high, the whole numbers that it holds without a gap
    high: int
    number: int


def _kind(number: int, order: str) -> _Kind:
    name, code = _TYPES[number]
    dtype = np.dtype(order + code)
    if dtype.kind == "f":
        high = 2 ** (np.finfo(dtype).nmant + 1)
        low = -high
    else:
        low, high = int(np.iinfo(dtype).min), _NARROW.get(name, int(np.iinfo(dtype).max))
    return _Kind(name, dtype, dtype.itemsize, struct.Struct(order + dtype.char), name in _NARROW, low, high, number)


_HEADERS: Final = (struct.Struct(">BHH6diHH"), struct.Struct("<BHH6diHH"))  # by the byte order's number
_KINDS: Final = tuple(tuple(_kind(number, order) for number in range(len(_TYPES))) for order in "><")
PIXEL_TYPES: Final = {name: np.dtype(code) for name, code in _TYPES}
"""NumPy type of each pixel type, by its PostGIS name."""
LIMITS: Final = {kind.name: (kind.low, kind.high) for kind in _KINDS[1] if kind.dtype.kind != "f"}
"""Least and greatest value of each pixel type of whole numbers."""
_DEFAULT: Final = {np.dtype(code): name for name, code in _TYPES if name not in _NARROW} | {np.dtype(bool): "1BB"}


class OutDb(NamedTuple):
    """Where the pixels of an out-db band lie: a file that the server reads, and the band in it, counted from 0."""

    path: str
    band: int


_Band = tuple[_Kind, Number | None, OutDb | None, int]  # type, nodata, file, offset of the pixels


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """One decoded raster. Lengths are in units of its SRID; pairs are (x, y)."""

    scale: tuple[float, float]
    """Size of a pixel; y is negative in a north-up raster."""
    upper_left: tuple[float, float]
    """Outer corner of the first pixel, not its centre."""
    skew: tuple[float, float]
    srid: int
    """0: none."""
    width: int
    height: int
    _bands: tuple[_Band, ...] = field(repr=False)
    _pixels: Pixels | None = field(repr=False)  # None where a band is out-db

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self._bands)

    @property
    def pixel_types(self) -> tuple[str, ...]:
        """Per band, by PostGIS's names: ``8BUI``, ``32BF``, …"""
        return tuple(band[0].name for band in self._bands)

    @property
    def nodata(self) -> tuple[Number | None, ...]:
        """Per band; None where it has no nodata value."""
        return tuple(band[1] for band in self._bands)

    @property
    def outdb(self) -> tuple[OutDb | None, ...]:
        """Per band; None where the pixels are in the raster itself."""
        return tuple(band[2] for band in self._bands)

    @property
    def pixels(self) -> Pixels:
        """The pixels: (bands, height, width), read-only.

        A view onto the decoded buffer, in the buffer's byte order, where all bands have one NumPy type; else a copy
        in the type that holds all of them (`numpy.result_type`).

        Raises:
            WKBError: a band is out-db: its pixels are in a file on the server, not in the raster.

        """
        if self._pixels is None:
            number, file = next((n, o) for n, o in enumerate(self.outdb, 1) if o is not None)
            raise WKBError(
                f"band {number} is out-db: its pixels are in {file.path!r} on the server; "
                "have the server read them: ST_AsBinary(rast, true) in place of rast::bytea"
            )
        return self._pixels


def decode(buffer: bytes | bytearray | memoryview) -> Raster:
    """The raster in ``buffer``: one whole raster WKB, as of ``rast::bytea`` or ``ST_AsBinary(rast)``.

    The pixels are not copied (see `Raster.pixels`), so they are as long-lived and as constant as the buffer.

    Raises:
        WKBError: the buffer is not one raster, to the byte: it is cut off, goes on, or has an unknown version or type.

    """
    # On the hot path, thousands a second: one unpack for the header, and little Python for a band.
    view = _bytes(buffer)
    end = len(view)
    if end < _HEADER_SIZE:
        raise WKBError(f"raster WKB is cut off: {end} bytes, but its header alone has {_HEADER_SIZE}")
    order = view[0]
    if order > 1:
        raise WKBError(f"byte 0 of raster WKB is its byte order, 0 (big endian) or 1 (little endian), not {order}")
    _, version, bands, sx, sy, ulx, uly, kx, ky, srid, width, height = _HEADERS[order].unpack_from(view)
    if version:
        raise WKBError(f"bytes 1 and 2 of raster WKB are its version, which is always 0, not {version}")

    kinds, size = _KINDS[order], width * height
    found, offset, inside = [], _HEADER_SIZE, True
    for number in range(1, bands + 1):
        if offset >= end:
            raise WKBError(f"raster WKB is cut off: {end} bytes, but band {number} of {bands} begins at {offset}")
        flags = view[offset]
        if (code := flags & _TYPE) > 11:
            raise WKBError(f"band {number}, at byte {offset}, has pixel type {code}: known are 0 to 11")
        kind = kinds[code]
        start = offset + 1 + kind.size
        if start > end:
            raise WKBError(f"raster WKB is cut off: {end} bytes, within band {number}'s nodata value at {offset + 1}")
        nodata = kind.value.unpack_from(view, offset + 1)[0] if flags & _HAS_NODATA else None
        if flags & _OUTDB:
            inside, (file, offset) = False, _outdb(view, start, number)
        else:
            file, offset = None, start + size * kind.size
        found.append((kind, nodata, file, start))
    if offset != end:
        wrong = "cut off" if offset > end else "followed by other bytes"
        raise WKBError(f"raster WKB is {wrong}: {end} bytes, but {bands} bands of {width} x {height} end at {offset}")
    pixels = _pixels(view, found, height, width) if inside else None
    return Raster((sx, sy), (ulx, uly), (kx, ky), srid, width, height, tuple(found), pixels)


def _bytes(buffer: bytes | bytearray | memoryview) -> memoryview:
    """``buffer`` as read-only bytes, uncopied."""
    if isinstance(buffer, str):
        raise WKBError("raster WKB is bytes, not text: select rast::bytea or ST_AsBinary(rast), not rast itself")
    try:
        view = memoryview(buffer).toreadonly()
        return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")
    except TypeError as error:
        raise WKBError(f"raster WKB is contiguous bytes, not {type(buffer).__name__}: {error}") from None


def _outdb(view: memoryview, start: int, number: int) -> tuple[OutDb, int]:
    """Where the pixels of out-db band ``number`` lie, and the offset behind its description."""
    size = 256
    while (found := bytes(path := view[start + 1 : start + 1 + size]).find(0)) < 0:
        if start + 1 + size >= len(view):
            raise WKBError(f"raster WKB is cut off: {len(view)} bytes, within band {number}'s path at {start + 1}")
        size *= 4  # so that many bands in one buffer cost no more than its length
    text = bytes(path[:found]).decode("utf-8", "surrogateescape")  # as Python itself takes file names
    return OutDb(text, struct.unpack_from("b", view, start)[0]), start + 2 + found


def _pixels(view: memoryview, bands: Sequence[_Band], height: int, width: int) -> Pixels:
    """The pixels (bands, height, width) of in-db bands."""
    if not bands:
        return np.empty((0, height, width), np.uint8)
    kinds = [band[0] for band in bands]
    first, start = kinds[0], bands[0][3]
    if kinds.count(first) == len(kinds) or all(kind.dtype == first.dtype for kind in kinds):
        # Bands of one width lie at equal distances: one strided view is all of them.
        strides = (1 + first.size * (1 + height * width), width * first.size, first.size)
        pixels = np.ndarray((len(bands), height, width), first.dtype, view, start, strides)
    else:
        pixels = np.stack([np.ndarray((height, width), kind.dtype, view, start) for kind, _, _, start in bands])
        pixels.flags.writeable = False
    for number, kind in enumerate(kinds):
        if kind.narrow and (pixels[number] > kind.high).any():
            most = pixels[number].max()
            raise WKBError(f"band {number + 1} is {kind.name}, at most {kind.high} a pixel, but holds {most}")
    return pixels


def encode(
    pixels: npt.ArrayLike,
    *,
    upper_left: tuple[float, float],
    scale: tuple[float, float],
    srid: int = 0,
    skew: tuple[float, float] = (0.0, 0.0),
    nodata: Number | Sequence[Number | None] | None = None,
    pixel_type: str | None = None,
    byte_order: Literal["<", ">"] = "<",
) -> bytes:
    """Raster WKB of ``pixels``, (bands, height, width) or (height, width), as `ST_RastFromWKB` takes it.

    Args:
        pixels: as stored; nothing is rounded into whole numbers or clamped.
        upper_left: x, y of the outer corner of the first pixel, in units of ``srid``.
        scale: x, y size of a pixel; y is negative in a north-up raster.
        srid: 0 for none.
        skew: x, y.
        nodata: one value for all bands or one for each; None for none.
        pixel_type: by PostGIS's name (``"2BUI"``); by default that of the NumPy type (bool: ``1BB``).
        byte_order: ``"<"`` little or ``">"`` big endian; PostgreSQL reads both.

    Raises:
        ConfigError: pixels or nodata that the pixel type can't hold (PostGIS would clamp them silently), or a wrong
            shape, SRID or name.

    """
    array = _array(pixels)
    if byte_order not in ("<", ">"):
        raise ConfigError(f"byte_order {byte_order!r} is not allowed: '<' (little endian) and '>' (big endian) are")
    order = "><".index(byte_order)
    kind = _KINDS[order][_type_number(array.dtype, pixel_type)]
    _check_fit(array, kind, "pixels")
    values = _nodata(nodata, len(array), kind)
    parts: list[bytes | memoryview] = [_header(order, array.shape, scale, upper_left, skew, srid)]
    for band, value in zip(np.ascontiguousarray(array, kind.dtype), values, strict=True):
        parts += [_band_head(kind, value), band.data]
    return b"".join(parts)


def encode_outdb(
    path: str,
    shape: tuple[int, int, int],
    dtype: npt.DTypeLike,
    *,
    upper_left: tuple[float, float],
    scale: tuple[float, float],
    srid: int = 0,
    skew: tuple[float, float] = (0.0, 0.0),
    nodata: Number | Sequence[Number | None] | None = None,
) -> bytes:
    """Raster WKB of a raster whose pixels stay in a file: all of its bands, in their order.

    The server finds the pixels in the file by ``upper_left``: a raster may be a window of the file.

    Args:
        path: as the server opens it.
        shape: (bands, height, width) of the raster.
        dtype: of the file's pixels.
        upper_left: as for `encode`, and so are the next ones.
        scale: x, y size of a pixel.
        srid: 0 for none.
        skew: x, y.
        nodata: one value for all bands or one for each; None for none.

    Raises:
        ConfigError: a nodata value that no such pixel can have, more than 128 bands, or a NUL in the path.

    """
    if shape[0] > _MAX_OUTDB_BANDS:
        raise ConfigError(
            f"{path} has {shape[0]} bands: PostGIS numbers at most {_MAX_OUTDB_BANDS} of a file outside the database"
        )
    name = path.encode("utf-8", "surrogateescape")
    if b"\0" in name:
        raise ConfigError(f"path {path!r} holds a NUL, which no file's name has")
    kind = _KINDS[1][_type_number(np.dtype(dtype), None)]
    parts = [_header(1, shape, scale, upper_left, skew, srid)]
    for number, value in enumerate(_nodata(nodata, shape[0], kind)):
        parts += [_band_head(kind, value, _OUTDB), struct.pack("b", number), name, b"\0"]
    return b"".join(parts)


def _header(order: int, shape: tuple[int, ...], scale: Pair, upper_left: Pair, skew: Pair, srid: int) -> bytes:
    if not isinstance(srid, int | np.integer) or not 0 <= srid <= _MAX_SRID:
        raise ConfigError(f"srid {srid!r} is not allowed: 0 (none) to {_MAX_SRID} is")
    bands, height, width = shape
    try:
        return _HEADERS[order].pack(order, 0, bands, *scale, *upper_left, *skew, srid, width, height)
    except (struct.error, TypeError):
        given = f"upper_left {upper_left}, scale {scale}, skew {skew}"
        raise ConfigError(f"pairs of numbers (x, y) are allowed, not {given}") from None


def _band_head(kind: _Kind, nodata: Number | None, more: int = 0) -> bytes:
    """Flags and nodata value, with which every band begins."""
    flags = kind.number | more | (0 if nodata is None else _HAS_NODATA)
    return bytes((flags,)) + kind.value.pack(0 if nodata is None else nodata)


def _array(pixels: npt.ArrayLike) -> Pixels:
    """``pixels`` as (bands, height, width), of a size and type that a raster can have."""
    if isinstance(pixels, np.ma.MaskedArray):
        raise ConfigError("pixels are a masked array, whose mask would be lost: give pixels.filled(nodata)")
    array = np.asarray(pixels)
    if array.ndim == 2:
        array = array[np.newaxis]
    if array.ndim != 3 or max(array.shape) > _MAX_SIZE:
        allowed = f"(bands, height, width) or (height, width), at most {_MAX_SIZE} each"
        raise ConfigError(f"pixels of shape {array.shape} are not allowed: {allowed} are")
    if array.dtype.kind == "c":
        raise ConfigError(f"pixels are {array.dtype}, which PostGIS lacks: give pixels.real and pixels.imag as two bands")
    if array.dtype.kind not in "biuf":
        raise ConfigError(f"pixels of type {array.dtype} are not allowed: {', '.join(map(str, _DEFAULT))} are")
    return array


def _type_number(dtype: np.dtype[Any], pixel_type: str | None) -> int:
    """The number of the pixel type that is asked for, or else of that of ``dtype``."""
    if pixel_type is None:
        pixel_type = _DEFAULT.get(dtype.newbyteorder("="))
        if pixel_type is None:
            hint = "give pixels.astype('int32') or .astype('float64'), or a pixel_type that holds their values"
            raise ConfigError(f"pixels are {dtype}, which PostGIS lacks: {hint}")
    names = list(PIXEL_TYPES)
    if pixel_type not in names:
        raise ConfigError(f"pixel_type {pixel_type!r} is not known: {', '.join(names)} are")
    return names.index(pixel_type)


def _nodata(nodata: Number | Sequence[Number | None] | None, bands: int, kind: _Kind) -> list[Number | None]:
    """One nodata value a band, each of which the pixel type holds."""
    values = list(nodata) if isinstance(nodata, Sequence | np.ndarray) else [nodata] * bands
    if len(values) != bands:
        raise ConfigError(f"nodata has {len(values)} values for {bands} bands: give a single one, or one for each band")
    for value in values:
        if value is not None:
            _check_fit(np.asarray(value), kind, "nodata")
    return [value if value is None or kind.dtype.kind == "f" else int(value) for value in values]


def _check_fit(values: Pixels, kind: _Kind, what: str) -> None:
    """Refuse values that the pixel type would change, other than by rounding one float to another."""
    source, target = values.dtype, kind.dtype
    if source.kind not in "biuf":
        raise ConfigError(f"{what} {values} is not a number that {kind.name} can hold")
    if source.newbyteorder("=") == target.newbyteorder("=") and not kind.narrow:
        return
    low: float = kind.low
    high: float = kind.high
    if source.kind == target.kind == "f":
        low, high = float(np.finfo(target).min), float(np.finfo(target).max)
        with np.errstate(over="ignore"):
            wrong = np.isinf(values.astype(target)) & np.isfinite(values)
    else:
        wrong = (values < low) | (values > high)
        if source.kind == "f":
            wrong |= ~np.isfinite(values) | (np.trunc(values) != values)
    if wrong.any():
        whole = "whole numbers" if source.kind == "f" and target.kind != "f" else "values"
        raise ConfigError(f"{what}: {values[wrong].flat[0]} does not fit {kind.name}, which holds {whole} of {low} to {high}")
