"""Raster WKB: laws that hold for any raster, PostGIS itself as the oracle in both directions, and broken input."""

import contextlib
import struct
import time
from dataclasses import FrozenInstanceError

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pgtiles.errors import ConfigError, WKBError
from pgtiles.layers.wkb import PIXEL_TYPES, OutDb, Raster, decode, encode

# Smallest and greatest value of each pixel type and its struct code: written out, not taken from the codec.
INTEGERS = {
    "1BB": (0, 1, "B"),
    "2BUI": (0, 3, "B"),
    "4BUI": (0, 15, "B"),
    "8BSI": (-128, 127, "b"),
    "8BUI": (0, 255, "B"),
    "16BSI": (-(2**15), 2**15 - 1, "h"),
    "16BUI": (0, 2**16 - 1, "H"),
    "32BSI": (-(2**31), 2**31 - 1, "i"),
    "32BUI": (0, 2**32 - 1, "I"),
}
FLOATS = {"16BF": (16, "e"), "32BF": (32, "f"), "64BF": (64, "d")}
NUMBERS = [
    "1BB",
    "2BUI",
    "4BUI",
    "8BSI",
    "8BUI",
    "16BSI",
    "16BUI",
    "32BSI",
    "32BUI",
    "16BF",
    "32BF",
    "64BF",
]  # on the wire
POSTGIS = [name for name in NUMBERS if name != "16BF"]  # which only PostGIS 3.7 knows
NUMPY = dict(zip(NUMBERS, ["u1", "u1", "u1", "i1", "u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8"], strict=True))
PLACE = {"upper_left": (850000.5, 6524040.25), "scale": (2.5, -2.5), "srid": 3857}

finite = st.floats(allow_nan=False, allow_infinity=False)
pairs = st.tuples(finite, finite)


def values(pixel_type):
    """A value that the pixel type holds exactly, NaN and infinity among them."""
    if pixel_type in INTEGERS:
        return st.integers(*INTEGERS[pixel_type][:2])
    return st.floats(width=FLOATS[pixel_type][0])


@st.composite
def rasters(draw, names=NUMBERS):
    """A pixel type, pixels that it holds, and nodata for each band."""
    name = draw(st.sampled_from(names))
    shape = draw(hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=5))
    pixels = draw(hnp.arrays(NUMPY[name], shape, elements=values(name)))
    nodata = draw(st.lists(st.none() | values(name), min_size=shape[0], max_size=shape[0]))
    return name, pixels, nodata


def same(left, right):
    return np.array_equal(np.asarray(left, "f8"), np.asarray(right, "f8"), equal_nan=True)


def band(name, pixels, nodata=None, order="<"):
    """One band's bytes, written by `struct` alone from the format's description."""
    code = order + (INTEGERS[name][2] if name in INTEGERS else FLOATS[name][1])
    flags = NUMBERS.index(name) | (0x40 if nodata is not None else 0)
    return bytes([flags]) + b"".join(struct.pack(code, value) for value in [0 if nodata is None else nodata, *pixels])


def wkb(width, height, *bands, order="<", version=0, count=None, srid=3857):
    """A raster's bytes, written by `struct` alone from the format's description."""
    count = len(bands) if count is None else count
    numbers = (2.5, -2.5, 10.0, 20.0, 0.0, 0.0)
    header = struct.pack(order + "BHH6diHH", order == "<", version, count, *numbers, srid, width, height)
    return header + b"".join(bands)


# Laws


@given(rasters(), st.sampled_from("<>"), pairs, pairs, pairs, st.integers(0, 999_999))
@settings(deadline=None)
def test_decode_undoes_encode(raster, order, upper_left, scale, skew, srid):
    name, pixels, nodata = raster
    place = {"upper_left": upper_left, "scale": scale, "skew": skew, "srid": srid}
    got = decode(encode(pixels, pixel_type=name, nodata=nodata, byte_order=order, **place))
    assert np.array_equal(got.pixels, pixels, equal_nan=name in FLOATS)
    if len(pixels):  # without bands there is no pixel type
        assert got.pixels.dtype == pixels.dtype.newbyteorder(order)
    assert (got.bands, got.height, got.width) == pixels.shape == got.pixels.shape
    assert got.pixel_types == (name,) * len(pixels)
    assert {key: getattr(got, key) for key in place} == place
    assert [value is None for value in got.nodata] == [value is None for value in nodata]
    assert same([value or 0 for value in got.nodata], [value or 0 for value in nodata])
    assert got.outdb == (None,) * len(pixels)


@given(rasters(), st.sampled_from("<>"))
@settings(deadline=None)
def test_bytes_are_those_of_the_format(raster, order):
    name, pixels, nodata = raster
    assume(not np.isnan(pixels.astype("f8")).any() and not any(value != value for value in nodata))  # NaN has many bits
    bands, height, width = pixels.shape
    expected = [band(name, pixels[n].ravel().tolist(), nodata[n], order) for n in range(bands)]
    place = {"upper_left": (10, 20), "scale": (2.5, -2.5), "srid": 3857}
    got = encode(pixels, pixel_type=name, nodata=nodata, byte_order=order, **place)
    assert got == wkb(width, height, *expected, order=order)


@given(rasters(), st.data())
@settings(max_examples=300)
def test_damage_gives_a_raster_or_a_wkberror(raster, data):
    """Whatever happens to the bytes: an array of the stated shape or WKBError; nothing else, and at once."""
    name, pixels, nodata = raster
    whole = encode(pixels, pixel_type=name, nodata=nodata, byte_order=data.draw(st.sampled_from("<>")), **PLACE)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        match data.draw(st.sampled_from(["set", "cut", "insert", "remove"])):
            case "set" if at < len(damaged):
                damaged[at] = data.draw(st.integers(0, 255))
            case "cut":
                del damaged[at:]
            case "insert":
                damaged[at:at] = data.draw(st.binary(max_size=9))
            case "remove":
                del damaged[at : at + 3]
    begun = time.thread_time()
    with contextlib.suppress(WKBError):
        raster = decode(bytes(damaged))
        assert raster.pixels.shape == (raster.bands, raster.height, raster.width)
    assert time.thread_time() - begun < 1


@given(st.binary(max_size=200))
def test_any_bytes_give_a_raster_or_a_wkberror(data):
    with contextlib.suppress(WKBError):
        assert isinstance(decode(data), Raster)


@pytest.mark.parametrize("order", "<>")
def test_every_cut_and_every_extra_byte_is_refused(order):
    whole = wkb(2, 2, band("16BUI", range(4), 7, order), band("64BF", range(4), None, order), order=order)
    decode(whole)
    for length in range(len(whole)):
        with pytest.raises(WKBError, match="cut off"):
            decode(whole[:length])
    with pytest.raises(WKBError, match=f"followed by other bytes: {len(whole) + 1} bytes, .* end at {len(whole)}"):
        decode(whole + b"\0")


# What a decoded raster is


def test_pixels_are_a_read_only_view_of_the_buffer():
    pixels = np.arange(24, dtype="u2").reshape(2, 3, 4)
    for buffer in (encode(pixels, **PLACE), bytearray(encode(pixels, **PLACE))):
        got = decode(buffer).pixels
        assert np.shares_memory(got, np.frombuffer(buffer, "u1"))
        with pytest.raises(ValueError, match="read-only"):
            got[0, 0, 0] = 1


def test_bands_of_one_byte_share_a_view_whatever_their_width():
    buffer = wkb(2, 1, band("1BB", [0, 1]), band("8BUI", [200, 255]), band("4BUI", [15, 0]))
    got = decode(buffer)
    assert np.shares_memory(got.pixels, np.frombuffer(buffer, "u1"))
    assert got.pixels.tolist() == [[[0, 1]], [[200, 255]], [[15, 0]]]


@pytest.mark.parametrize("order", "<>")
def test_bands_of_different_types_are_promoted(order):
    bands = ("8BUI", [1, 255], 255), ("8BSI", [-128, 2], None), ("16BSI", [-9, 300], -9)
    buffer = wkb(2, 1, *[band(*each, order) for each in bands], order=order)
    got = decode(buffer)
    assert got.pixels.dtype == np.int16
    assert got.pixels.tolist() == [[[1, 255]], [[-128, 2]], [[-9, 300]]]
    assert got.nodata == (255, None, -9)
    assert got.pixel_types == ("8BUI", "8BSI", "16BSI")
    assert not got.pixels.flags.writeable
    assert decode(wkb(1, 1, band("32BUI", [2**32 - 1]), band("32BF", [0.5]))).pixels.tolist() == [
        [[2**32 - 1]],
        [[0.5]],
    ]


@pytest.mark.parametrize(("width", "height", "bands"), [(0, 0, 0), (0, 0, 2), (5, 0, 1), (0, 5, 1), (7, 9, 0)])
def test_nothing_is_a_raster_too(width, height, bands):
    got = decode(wkb(width, height, *[band("32BF", [])] * bands))
    assert (got.width, got.height, got.bands) == (width, height, bands)
    assert got.pixels.shape == (bands, height, width)


def test_nan_is_a_nodata_value():
    assert np.isnan(decode(encode(np.zeros((1, 1), "f4"), nodata=float("nan"), **PLACE)).nodata[0])


def test_flag_isnodata_changes_nothing():
    whole = bytearray(wkb(1, 1, band("8BUI", [3], 0)))
    whole[61] |= 0x20
    assert decode(whole).pixels.tolist() == [[[3]]]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(b).cast("b"), np.frombuffer])
def test_buffers_of_all_kinds(kind):
    buffer = encode(np.full((1, 2, 2), 9, "u1"), **PLACE)
    got = decode(np.frombuffer(buffer, "u1") if kind is np.frombuffer else kind(buffer))
    assert got.pixels.tolist() == [[[9, 9], [9, 9]]]


def test_a_raster_is_frozen():
    with pytest.raises(FrozenInstanceError):
        decode(wkb(0, 0)).upper_left = (0, 0)


# Out-db bands

OUTDB = bytes([0x84, 0, 2]) + "/srv/Bodenschätze 1.tif".encode() + b"\0"


def test_outdb_bands_say_where_their_pixels_are():
    got = decode(wkb(1, 2, band("8BUI", [1, 2]), OUTDB))
    assert got.outdb == (None, OutDb("/srv/Bodenschätze 1.tif", 2))
    assert got.pixel_types == ("8BUI", "8BUI")
    with pytest.raises(WKBError, match=r"band 2 is out-db: .*Bodenschätze 1.tif.*ST_AsBinary\(rast, true\)"):
        _ = got.pixels


def test_outdb_paths_end():
    whole = wkb(1, 1, bytes([0x84, 0, 0]) + b"x" * 100_000 + b"\0", OUTDB)
    assert len(decode(whole).outdb[0].path) == 100_000
    for length in (62, 63, 64, 65, 1000, 100_063, len(whole) - 1):
        with pytest.raises(WKBError, match="cut off"):
            decode(whole[:length])


def test_many_outdb_bands_take_no_longer_than_their_length():
    paths = bytes([0x84, 0, 0, 97, 0]) * 65535  # 0.3 MB: 10 GB, were each band to copy what follows it
    start = time.process_time()
    assert decode(wkb(9, 9, paths, count=65535)).bands == 65535
    assert time.process_time() - start < 2


# Broken input: what other parsers swallow


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (b"", "cut off: 0 bytes"),
        (wkb(1, 1)[:60], "cut off: 60 bytes, but its header alone has 61"),
        (b"\2" + wkb(1, 1)[1:], r"byte order, 0 \(big endian\) or 1 \(little endian\), not 2"),
        (b"0" + wkb(1, 1)[1:], "byte order, .* not 48"),
        (wkb(1, 1, band("8BUI", [1]), version=1), "version, which is always 0, not 1"),
        (wkb(1, 1, count=65535), "band 1 of 65535 begins at 61"),
        (wkb(1, 1, bytes([12, 0, 0])), "band 1, at byte 61, has pixel type 12"),
        (wkb(1, 1, band("8BUI", [1]), bytes([15, 0, 0])), "band 2, at byte 64, has pixel type 15"),
        (wkb(65535, 65535, band("64BF", [1])), "cut off: 78 bytes, but 1 bands of 65535 x 65535 end at 34358689870"),
        (wkb(1, 1, bytes([11, 0, 0])), "within band 1's nodata value at 62"),
        (wkb(1, 1, bytes([0x84, 0])), "within band 1's path at 64"),
        (wkb(1, 1, bytes([0x84, 0, 1]) + b"/tmp/a.tif"), "within band 1's path at 64"),
        (wkb(2, 1, band("1BB", [1, 2])), "band 1 is 1BB, at most 1 a pixel, but holds 2"),
        (wkb(2, 1, band("8BUI", [9, 9]), band("2BUI", [3, 4])), "band 2 is 2BUI, at most 3 a pixel, but holds 4"),
        (wkb(1, 1, band("32BF", [1]), band("4BUI", [16])), "band 2 is 4BUI, at most 15 a pixel, but holds 16"),
        ("0100", "bytes, not text: select rast::bytea"),
        (None, "not NoneType"),
        (memoryview(bytes(200))[::2], "contiguous"),
    ],
)
def test_broken_input_is_refused(buffer, message):
    with pytest.raises(WKBError, match=message):
        decode(buffer)


# What is encoded, and what is not


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        *[(NUMPY[name], name) for name in NUMBERS if name not in ("1BB", "2BUI", "4BUI")],
        ("?", "1BB"), (">u2", "16BUI"), (">f4", "32BF"),
    ],
)  # fmt: skip
def test_pixel_type_is_that_of_the_array(dtype, name):
    got = decode(encode(np.array([[0, 1]], dtype), **PLACE))
    assert got.pixel_types == (name,)
    assert got.pixels.tolist() == [[[0, 1]]]


def test_views_and_plain_lists_are_encoded_as_they_look():
    pixels = np.arange(60, dtype="i2").reshape(3, 4, 5)[::-1, ::2, ::-1]
    assert np.array_equal(decode(encode(pixels, **PLACE)).pixels, pixels)
    assert decode(encode([[1, 2], [3, 0]], pixel_type="2BUI", **PLACE)).pixels.tolist() == [[[1, 2], [3, 0]]]


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.array([[0, 4]], "u1"), {"pixel_type": "2BUI"}, "pixels: 4 does not fit 2BUI, which holds values of 0 to 3"),
        (np.array([[300]], "u2"), {"pixel_type": "8BUI"}, "300 does not fit 8BUI"),
        (np.array([[-1]], "i2"), {"pixel_type": "16BUI"}, "-1 does not fit 16BUI"),
        (np.array([[1, 0.5]]), {"pixel_type": "8BUI"}, "0.5 does not fit 8BUI, which holds whole numbers of 0 to 255"),
        (np.array([[np.nan]]), {"pixel_type": "32BSI"}, "nan does not fit 32BSI"),
        (np.array([[-np.inf]]), {"pixel_type": "32BSI"}, "-inf does not fit 32BSI"),
        (np.array([[1e300]]), {"pixel_type": "32BF"}, "1e[+]300 does not fit 32BF"),
        (np.array([[2**24 + 1]]), {"pixel_type": "32BF"}, "16777217 does not fit 32BF"),
        (np.array([[2**63 - 1]]), {"pixel_type": "64BF"}, "does not fit 64BF"),
        (np.zeros((1, 1), "u1"), {"nodata": 256}, "nodata: 256 does not fit 8BUI"),
        (np.zeros((1, 1), "u1"), {"nodata": -1}, "nodata: -1 does not fit 8BUI"),
        (np.zeros((1, 1), "u1"), {"nodata": float("nan")}, "nodata: nan does not fit 8BUI"),
        (np.zeros((1, 1), "u1"), {"nodata": 2**70}, "nodata 1180591620717411303424 is not a number that 8BUI can hold"),
        (np.zeros((1, 1), "u1"), {"nodata": "0"}, "nodata 0 is not a number"),
        (np.zeros((1, 1), "f4"), {"nodata": 1e39}, "nodata: 1e[+]39 does not fit 32BF"),
        (np.zeros((1, 1), "?"), {"nodata": 2}, "nodata: 2 does not fit 1BB"),
        (np.zeros((2, 1, 1), "u1"), {"nodata": [1]}, "nodata has 1 values for 2 bands"),
        (np.zeros((1, 1), "i8"), {}, "int64, which PostGIS lacks: .*astype"),
        (np.zeros((1, 1), "u8"), {}, "uint64, which PostGIS lacks: .*astype"),
        (np.zeros((1, 1), "c8"), {}, "complex64, which PostGIS lacks: .*real"),
        (np.array([["a"]]), {}, "of type <U1 are not allowed"),
        (np.zeros(3, "u1"), {}, r"shape \(3,\) are not allowed"),
        (np.zeros((1, 1, 1, 1), "u1"), {}, "not allowed"),
        (np.broadcast_to(np.zeros(1, "u1"), (1, 1, 65536)), {}, "at most 65535"),
        (np.ma.masked_equal(np.zeros((1, 1), "u1"), 0), {}, "mask would be lost"),
        (np.zeros((1, 1), "u1"), {"pixel_type": "8bui"}, "pixel_type '8bui' is not known: 1BB, 2BUI"),
        (np.zeros((1, 1), "u1"), {"byte_order": "="}, "byte_order '=' is not allowed"),
        (np.zeros((1, 1), "u1"), {"srid": 1_000_000}, "srid 1000000 is not allowed"),
        (np.zeros((1, 1), "u1"), {"srid": -1}, "srid -1 is not allowed"),
        (np.zeros((1, 1), "u1"), {"srid": 1.5}, "srid 1.5 is not allowed"),
        (np.zeros((1, 1), "u1"), {"srid": None}, "srid None is not allowed"),
        (np.zeros((1, 1), "u1"), {"scale": (1,)}, "pairs of numbers"),
        (np.zeros((1, 1), "u1"), {"upper_left": 7}, "upper_left 7"),
    ],
)
def test_what_postgis_would_change_is_refused(pixels, options, message):
    with pytest.raises(ConfigError, match=message):
        encode(pixels, **(PLACE | options))


def test_floats_are_rounded_to_narrower_floats():
    # GDAL writes a float32 band's nodata as decimal text, whose double is often a little beyond the greatest float32.
    got = decode(encode(np.array([[0.1, np.inf, np.nan]]), pixel_type="32BF", nodata=-3.4028235e38, **PLACE))
    assert same(got.pixels, np.array([[[0.1, np.inf, np.nan]]], "f4"))
    assert got.nodata == (-3.4028234663852886e38,)


# PostGIS as the oracle


@pytest.fixture
def db_conn(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def dumped(conn, raster, number):
    """Pixels of a band of ``raster``, an SQL expression: by PostGIS's own reading, nodata included."""
    rows = conn.execute(f"SELECT ST_DumpValues({raster}, {number}, false)").fetchone()[0]
    return np.array(rows, "f8")


@given(rasters(POSTGIS).filter(lambda raster: raster[1].size), st.sampled_from("<>"), st.booleans())
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_postgis_reads_what_we_write(db_conn, raster, order, skewed):
    name, pixels, nodata = raster
    place = {**PLACE, "skew": (0.25, -0.125) if skewed else (0.0, 0.0)}
    buffer = encode(pixels, pixel_type=name, nodata=nodata, byte_order=order, **place)
    rast = f"ST_RastFromWKB('\\x{buffer.hex()}')"
    meta = db_conn.execute(f"SELECT (ST_MetaData({rast})).*").fetchone()
    bands, height, width = pixels.shape
    assert meta[:10] == (850000.5, 6524040.25, width, height, 2.5, -2.5, *place["skew"], 3857, bands)
    for number in range(1, bands + 1):
        kind, value = db_conn.execute(
            f"SELECT ST_BandPixelType(r, {number}), ST_BandNoDataValue(r, {number}) FROM {rast} r"
        ).fetchone()
        assert kind == name
        assert same(0 if value is None else value, nodata[number - 1] or 0)
        assert (value is None) == (nodata[number - 1] is None)
        assert same(dumped(db_conn, rast, number), pixels[number - 1])


EDGES = {name: [low, 0, 1, high] for name, (low, high, _) in INTEGERS.items()} | {
    "32BF": [-3.4028234663852886e38, 0.1, 3.4028234663852886e38, np.nan],
    "64BF": [-1e300, 0.1, 5e-324, np.nan],
}


def xdr(ndr, pixel_size):
    """One-band little-endian raster WKB as big-endian: each field turned by itself."""
    fields = [1, 2, 2, 8, 8, 8, 8, 8, 8, 4, 2, 2, 1]
    fields += [pixel_size] * ((len(ndr) - sum(fields)) // pixel_size)
    turned, at = b"\0", 1
    for size in fields[1:]:
        turned, at = turned + ndr[at : at + size][::-1], at + size
    return turned


@pytest.mark.parametrize("nodata", [True, False])
@pytest.mark.parametrize("name", POSTGIS)
def test_we_read_what_postgis_makes(db_conn, name, nodata):
    literal = ",".join(f"'{value}'" for value in EDGES[name])
    empty = "ST_MakeEmptyRaster(4, 1, 850000.5, 6524040.25, 2.5, -2.5, 0.5, 0.25, 3857)"
    blank = f"ST_AddBand({empty}, '{name}'::text, 0, {1 if nodata else 'NULL'})"
    db_conn.execute(f"CREATE TABLE made AS SELECT ST_SetValues({blank}, 1, 1, 1, ARRAY[[{literal}]]::float8[]) AS rast")
    expected = dumped(db_conn, "(SELECT rast FROM made)", 1)
    assert same(expected, np.array([EDGES[name]], NUMPY[name])), "the oracle holds what this test thinks it does"
    ndr, cast, text = db_conn.execute("SELECT ST_AsBinary(rast), rast::bytea, rast::text FROM made").fetchone()
    big = xdr(ndr, np.dtype(NUMPY[name]).itemsize)
    assert db_conn.execute("SELECT ST_AsBinary(ST_RastFromWKB(%s)) = %s", (big, ndr)).fetchone() == (True,)
    for buffer in (ndr, cast, bytes.fromhex(text), big):
        got = decode(buffer)
        assert same(got.pixels[0], expected)
        assert got.pixels.dtype.newbyteorder("=") == NUMPY[name]
        assert got.pixel_types == (name,)
        assert got.nodata == ((1,) if nodata else (None,))
        assert (got.upper_left, got.scale, got.skew) == ((850000.5, 6524040.25), (2.5, -2.5), (0.5, 0.25))
        assert (got.srid, got.width, got.height, got.bands) == (3857, 4, 1, 1)
    assert encode(got.pixels, pixel_type=name, nodata=got.nodata, skew=(0.5, 0.25), **PLACE) == ndr


def test_mixed_bands_empty_and_nan_rasters_of_postgis(db_conn):
    rast = (
        "ST_AddBand(ST_AddBand(ST_AddBand(ST_MakeEmptyRaster(3, 2, 0, 0, 1, -1, 0, 0, 4326), '8BSI'::text, -7, NULL),"
        " '64BF'::text, 1.5, 'NaN'), '16BUI'::text, 65535, 1)"
    )
    got = decode(db_conn.execute(f"SELECT ({rast})::bytea").fetchone()[0])
    assert got.pixel_types == ("8BSI", "64BF", "16BUI")
    assert got.nodata[0] is None
    assert np.isnan(got.nodata[1])
    assert got.nodata[2] == 1
    assert same(got.pixels, [dumped(db_conn, rast, number) for number in (1, 2, 3)])
    for width, height in ((0, 0), (5, 4)):
        empty = db_conn.execute(f"SELECT ST_MakeEmptyRaster({width}, {height}, 1, 2, 1)::bytea").fetchone()[0]
        assert decode(empty).pixels.shape == (0, height, width)
        assert len(empty) == 61


def test_postgis_sees_the_same_file_in_an_outdb_band(db_conn):
    buffer = wkb(1, 2, band("8BUI", [1, 2]), OUTDB)
    path, number = db_conn.execute(
        "SELECT path, outdbbandnum FROM ST_BandMetaData(ST_RastFromWKB(%s), 2)", (buffer,)
    ).fetchone()
    assert decode(buffer).outdb[1] == (path, number - 1)
    assert decode(db_conn.execute("SELECT ST_RastFromWKB(%s)::bytea", (buffer,)).fetchone()[0]).outdb == decode(buffer).outdb


@pytest.mark.parametrize("buffer", [wkb(2, 1, band("1BB", [1, 2])), wkb(1, 1, bytes([12, 0, 0])), wkb(1, 1, bytes([4, 0]))])
def test_postgis_refuses_what_we_refuse(db_conn, buffer):
    with pytest.raises(WKBError):
        decode(buffer)
    with pytest.raises(psycopg.errors.InternalError):
        db_conn.execute("SELECT ST_RastFromWKB(%s)", (buffer,))


def test_every_pixel_type_has_its_numpy_type():
    assert {name: np.dtype(code) for name, code in NUMPY.items()} == PIXEL_TYPES
