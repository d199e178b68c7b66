"""Values that a float type can't hold: never infinity in silence, nor another class. NumPy says what fits."""

import numpy as np
import pytest
from conftest import write_tiff

from pgtiles import Grid, Imagery, Labels, Tiles, load, read
from pgtiles.errors import ConfigError, DataError, PgtilesWarning
from pgtiles.layers.canvas import DTYPES, fits
from pgtiles.layers.pixels import overflows
from pgtiles.layers.wkb import PIXEL_TYPES
from pgtiles.streaming.reading import Plan

WHOLE = [0, 1, -9, 2048, 2049, 65504, 65505, 70000, -70000, 2**24, 2**24 + 1, 2**31, 2**53 - 1]
PARTS = [0.1, -3.25, 65519.9, 70000.5, 1e39, -1e39, 1e300]
db = pytest.fixture(lambda schema_db: schema_db)  # a schema of the test's own


@pytest.fixture
def stored(db, tmp_path):
    """Loads pixels as a table, and gives a tile on all of them."""

    def store(pixels, name="t", **more):
        load.raster(db, write_tiff(tmp_path / f"{name}.tif", np.asarray(pixels)[None], **more), name, replace=True)
        return Tiles(Grid.like(db, name, size=len(pixels)), np.array([0]), np.array([0]))

    return store


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_fits_is_what_numpy_gives_back(dtype):
    for value in WHOLE:
        with np.errstate(over="ignore"):
            assert fits(value, np.dtype(dtype)) == (np.array(value, "float64").astype(dtype).astype("float64") == value), value
    for value in PARTS:
        with np.errstate(over="ignore"):
            assert fits(value, np.dtype(dtype)) == np.isfinite(np.array(value).astype(dtype)), value
    for value in (np.nan, np.inf, -np.inf):
        assert fits(value, np.dtype(dtype))


@pytest.mark.parametrize("into", [name for name in DTYPES if name.startswith("float")])
def test_pixel_types_that_can_become_infinite(into):
    for kind in set(PIXEL_TYPES.values()):
        most = np.finfo(kind).max if kind.kind == "f" else np.iinfo(kind).max
        with np.errstate(over="ignore"):
            infinite = np.isinf(np.array(most, kind).astype(into))
        assert overflows(kind, np.dtype(into)) >= infinite
        assert overflows(kind, np.dtype(into)) <= (kind.itemsize >= np.dtype(into).itemsize)


class TestLabels:
    @pytest.mark.parametrize(
        ("dtype", "value"),
        [("float16", 70000), ("float16", 2049), ("float32", 2**24 + 1), ("float32", 1e39), ("int64", 2**53 + 1)],
    )
    def test_a_value_that_would_be_another_is_named(self, world, dtype, value):
        tiles = Tiles(world.grid, np.array([0]), np.array([0]))
        query = f"SELECT tile.geom AS geom, {value} AS value FROM tile"
        with pytest.raises(DataError, match=rf"layer 'm', tile 0 at \(.*\): value [\de+]+ does not fit dtype='{dtype}'"):
            read(world.db, tiles, {"m": Labels(query, dtype=dtype)})
        if dtype != "int64":
            for wish in ({"value": value}, {"background": value}):
                with pytest.raises(ConfigError, match=rf"{next(iter(wish))}=.* does not fit dtype='{dtype}'"):
                    Labels("roads", dtype=dtype, **wish)

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [("float16", 65504), ("float32", 2**24), ("float32", 0.1), ("float32", 1e30), ("int64", 2**53 - 1), ("float64", 2**53)],
    )
    def test_what_fits_is_burned(self, world, dtype, value):
        tiles = Tiles(world.grid, np.array([0]), np.array([0]))
        got = read(world.db, tiles, {"m": Labels(f"SELECT tile.geom AS geom, {value} AS value FROM tile", dtype=dtype)})["m"]
        assert (got == np.array(value, dtype)).all()

    @pytest.mark.parametrize(("kind", "dtype"), [("uint32", "float32"), ("int32", "float32"), ("uint16", "float16")])
    def test_a_label_raster_of_more_classes_than_the_dtype_holds(self, db, stored, kind, dtype):
        tiles = stored(np.full((9, 9), 7, kind))
        with pytest.raises(
            ConfigError, match=f"layer 'm': dtype='{dtype}' does not hold each class of t, whose pixels are .*: give int64"
        ):
            read(db, tiles, {"m": Labels("t", dtype=dtype)})
        assert (read(db, tiles, {"m": Labels("t", dtype="float64")})["m"] == 7).all()


class TestImagery:
    @pytest.mark.parametrize(
        ("kind", "value", "dtype"),
        [
            ("uint32", 2**31, "float16"),
            ("uint16", 65535, "float16"),
            ("float32", 1e5, "float16"),
            ("float64", -1e39, "float32"),
        ],
    )
    @pytest.mark.parametrize("nodata", [None, 3])
    def test_infinity_that_is_not_stored_is_refused(self, db, stored, kind, value, dtype, nodata):
        pixels = np.ones((20, 20), kind)
        tiles = stored(pixels, nodata=nodata)
        layers = {"i": Imagery("t", dtype=dtype)}
        np.testing.assert_array_equal(read(db, tiles, layers)["i"][0, 0], pixels)
        pixels[4, 5] = value
        stored(pixels, nodata=nodata)
        with pytest.raises(
            DataError, match=rf"layer 'i', tile 0 at .*: pixel value -?[\d.e+]+ of type .* does not fit dtype='{dtype}'"
        ):
            read(db, tiles, layers)

    def test_infinity_that_is_stored_stays(self, db, stored):
        pixels = np.array([[np.inf, -np.inf], [np.nan, 1]], "float32")
        tiles = stored(pixels)
        np.testing.assert_array_equal(read(db, tiles, {"i": Imagery("t", dtype="float16")})["i"][0, 0], pixels)

    def test_nodata_that_does_not_fit_is_no_pixel(self, db, stored):
        pixels = np.ones((5, 5), "float64")
        pixels[2] = -1e300
        tiles = stored(pixels, nodata=-1e300)
        with pytest.raises(ConfigError, match=r"dtype='float32' does not hold -1e\+300, the nodata value of band 1"):
            read(db, tiles, {"i": Imagery("t", dtype="float32")})
        got = read(db, tiles, {"i": Imagery("t", dtype="float32", fill=0)})["i"][0, 0]
        np.testing.assert_array_equal(got, np.where(pixels == 1, 1, 0))

    def test_uint32_as_float32_is_warned_of_unless_said(self, db, stored):
        pixels = np.arange(4096, dtype="uint32").reshape(64, 64) + 2**31
        tiles = stored(pixels)
        with pytest.warns(
            PgtilesWarning, match="layer 'i': 32BUI pixels come as float32, which holds whole numbers up to 16,777,216"
        ):
            got = read(db, tiles, {"i": Imagery("t")})["i"]
        assert got.dtype == "float32"
        for dtype in ("native", "int64", "float64"):
            np.testing.assert_array_equal(read(db, tiles, {"i": Imagery("t", dtype=dtype)})["i"][0, 0], pixels)
        Plan.open(db, tiles, {"i": Imagery("t", dtype="float32")})
