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

from ..errors import ConfigError, WKBError

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
_CORNER: Final = 21  # where the header has the upper left corner, two f64
_CORNERS: Final = (struct.Struct(">dd"), struct.Struct("<dd"))
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


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """What the rasters of a table mostly have in common: all but where they lie, and their pixels. Pairs are (x, y).

    Rasters that are decoded one after the other share theirs, so that what is found of one need not be asked of the next.
    """

    scale: Pair
    """Size of a pixel in units of the SRID; y is negative in a north-up raster."""
    skew: Pair
    srid: int
    """0: none."""
    width: int
    height: int
    pixel_types: tuple[str, ...]
    """Per band, by PostGIS's names: ``8BUI``, ``32BF``, …"""
    nodata: tuple[Number | None, ...]
    """Per band; None where it has no nodata value."""
    outdb: tuple[OutDb | None, ...]
    """Per band; None where the pixels are in the raster itself."""
    _kinds: tuple[_Kind, ...] = field(repr=False)
    _heads: tuple[tuple[slice, bytes], ...] = field(repr=False)  # where each band's flags and nodata value are, and what
    _size: int = field(repr=False)  # of the whole raster, in bytes
    _strides: tuple[int, int, int] | None = field(repr=False)  # of the pixels, where one array is all of them
    _plain: bool = field(repr=False)  # whether there is nothing more to know of the pixels than that array

    @property
    def bands(self) -> int:
        """Number of bands."""
        return len(self._kinds)


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """One decoded raster: a `Layout`, whose properties it has too, a place, and pixels."""

    layout: Layout
    upper_left: Pair
    """Outer corner of the first pixel, not its centre, in units of the SRID."""
    _pixels: Pixels | None = field(repr=False)  # None where a band is out-db

    @property
    def scale(self) -> Pair:
        """As in `Layout`, as are the next ones."""
        return self.layout.scale

    @property
    def skew(self) -> Pair:
        """Both 0 in a raster that is not turned."""
        return self.layout.skew

    @property
    def srid(self) -> int:
        """0: none."""
        return self.layout.srid

    @property
    def width(self) -> int:
        """Pixels."""
        return self.layout.width

    @property
    def height(self) -> int:
        """Pixels."""
        return self.layout.height

    @property
    def bands(self) -> int:
        """Number of bands."""
        return self.layout.bands

    @property
    def pixel_types(self) -> tuple[str, ...]:
        """Per band."""
        return self.layout.pixel_types

    @property
    def nodata(self) -> tuple[Number | None, ...]:
        """Per band."""
        return self.layout.nodata

    @property
    def outdb(self) -> tuple[OutDb | None, ...]:
        """Per band."""
        return self.layout.outdb

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


_MANY: Final = 256
_known: dict[bytes, Layout] = {}  # by the bytes that say them, of the last rasters that were decoded


def decode(buffer: bytes | bytearray | memoryview) -> Raster:
    """The raster in ``buffer``: one whole raster WKB, as of ``rast::bytea`` or ``ST_AsBinary(rast)``.

    The pixels are not copied (see `Raster.pixels`), so they are as long-lived and as constant as the buffer.

    Raises:
        WKBError: the buffer is not one raster, to the byte: it is cut off, goes on, or has an unknown version or type.

    """
    # On the hot path, thousands a second: a raster that begins as another one did, but for its corner, is laid out like it.
    view = _bytes(buffer)
    if len(view) < _HEADER_SIZE:
        raise WKBError(f"raster WKB is cut off: {len(view)} bytes, but its header alone has {_HEADER_SIZE}")
    key = bytes(view[:_CORNER]) + bytes(view[_CORNER + 16 : _HEADER_SIZE])
    layout = _known.get(key)
    if layout is None or not _alike(view, layout):
        layout = _parse(view)
        if not any(layout.outdb):
            if len(_known) >= _MANY:
                _known.clear()
            _known[key] = layout
    corner = _CORNERS[view[0]].unpack_from(view, _CORNER)
    return Raster(layout, corner, _pixels(view, layout))


def _alike(view: memoryview, layout: Layout) -> bool:
    """Whether the raster's bands are laid out so, too, of which only the header is known to be the same."""
    if len(view) != layout._size:
        return False
    for where, head in layout._heads:  # noqa: SIM110, a generator takes longer
        if view[where] != head:
            return False
    return True


def _parse(view: memoryview) -> Layout:
    """The layout of a raster, all of whose parts are checked."""
    end, order = len(view), view[0]
    if order > 1:
        raise WKBError(f"byte 0 of raster WKB is its byte order, 0 (big endian) or 1 (little endian), not {order}")
    _, version, bands, sx, sy, _, _, kx, ky, srid, width, height = _HEADERS[order].unpack_from(view)
    if version:
        raise WKBError(f"bytes 1 and 2 of raster WKB are its version, which is always 0, not {version}")
    known, size, offset = _KINDS[order], width * height, _HEADER_SIZE
    kinds, nodata, outdb, heads = list[_Kind](), list[Number | None](), list[OutDb | None](), list[tuple[slice, bytes]]()
    for number in range(1, bands + 1):
        if offset >= end:
            raise WKBError(f"raster WKB is cut off: {end} bytes, but band {number} of {bands} begins at {offset}")
        flags = view[offset]
        if (code := flags & _TYPE) > 11:
            raise WKBError(f"band {number}, at byte {offset}, has pixel type {code}: known are 0 to 11")
        kind = known[code]
        start = offset + 1 + kind.size
        if start > end:
            raise WKBError(f"raster WKB is cut off: {end} bytes, within band {number}'s nodata value at {offset + 1}")
        kinds.append(kind)
        nodata.append(kind.value.unpack_from(view, offset + 1)[0] if flags & _HAS_NODATA else None)
        heads.append((slice(offset, start), bytes(view[offset:start])))
        if flags & _OUTDB:
            file, offset = _outdb(view, start, number)
            outdb.append(file)
        else:
            outdb.append(None)
            offset = start + size * kind.size
    if offset != end:
        wrong = "cut off" if offset > end else "followed by other bytes"
        raise WKBError(f"raster WKB is {wrong}: {end} bytes, but {bands} bands of {width} x {height} end at {offset}")
    names = tuple(kind.name for kind in kinds)
    strides, inside = None, not any(outdb)
    if inside and kinds and all(kind.dtype == kinds[0].dtype for kind in kinds):
        pixel = kinds[0].size  # bands of one width lie at equal distances: one strided view is all of them
        strides = (1 + pixel * (1 + size), width * pixel, pixel)
    plain = strides is not None and not any(kind.narrow for kind in kinds)
    given = names, tuple(nodata), tuple(outdb), tuple(kinds), tuple(heads), end, strides, plain
    return Layout((sx, sy), (kx, ky), srid, width, height, *given)


def _bytes(buffer: bytes | bytearray | memoryview) -> memoryview:
    """``buffer`` as read-only bytes, uncopied."""
    if isinstance(buffer, str):
        raise WKBError("raster WKB is bytes, not text: select rast::bytea or ST_AsBinary(rast), not rast itself")
    try:
        view = memoryview(buffer)
        view = view if view.readonly else view.toreadonly()
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


def _pixels(view: memoryview, layout: Layout) -> Pixels | None:
    """The pixels (bands, height, width); None where a band's are in a file."""
    kinds, height, width, strides = layout._kinds, layout.height, layout.width, layout._strides
    if strides is not None:
        pixels = np.ndarray((len(kinds), height, width), kinds[0].dtype, view, layout._heads[0][0].stop, strides)
        if layout._plain:
            return pixels
    elif any(layout.outdb):
        return None
    elif kinds:
        each = zip(kinds, layout._heads, strict=True)
        pixels = np.stack([np.ndarray((height, width), kind.dtype, view, where.stop) for kind, (where, _) in each])
        pixels.flags.writeable = False
    else:
        return np.empty((0, height, width), np.uint8)
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
