"""Pixels without data: what they become, and how a batch says where they are. NumPy's mosaics and rasterio say what is right."""

import numpy as np
import pytest
from conftest import RES, X0, Y0, ask, scene, write_tiff
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject
from typer.testing import CliRunner

from pgtiles import Grid, Imagery, Labels, Tiles, load, read
from pgtiles.errors import ConfigError, DataError
from pgtiles.shell.cli import typer_app
from pgtiles.streaming.reading import Plan, read_batch

SIZE = 60
db = pytest.fixture(lambda schema_db: schema_db)  # a schema of the test's own


def native(db, table, col=-20, row=-10, size=SIZE):
    """A tile on the table's own lattice, over the imagery's corner."""
    return Tiles(Grid.like(db, table, size=size), np.array([col]), np.array([row]))


def wide(pixels, fill, row=10, col=20, size=SIZE):
    """The same tile, cut by NumPy: the imagery begins at this row and column of it."""
    array = np.empty((len(pixels), size, size), pixels.dtype)
    array[...] = np.reshape(fill, (-1, 1, 1))
    array[:, row : row + pixels.shape[1], col : col + pixels.shape[2]] = pixels[:, : size - row, : size - col]
    return array


def loosened(db, table):
    """Drop the constraints that a table has from its load."""
    for (name,) in ask(db, f"SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c'"):
        with db.connection() as conn:
            conn.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


def per_band(db, table, *nodata):
    """Give each band of a table a nodata value of its own."""
    loosened(db, table)
    with db.connection() as conn:
        for band, value in enumerate(nodata, 1):
            conn.execute(f"UPDATE {table} SET rast = ST_SetBandNoDataValue(rast, {band}, {value})")


def nodata_of(db, table, row, value):
    """Give one scene a nodata value of its own."""
    loosened(db, table)
    with db.connection() as conn:
        conn.execute(f"UPDATE {table} SET rast = ST_SetBandNoDataValue(rast, 1, {value}) WHERE filename LIKE '{row}%'")


class TestNative:
    @pytest.fixture
    def three(self, db, tmp_path):
        """Three bands: nodata 7, 250 and none; every band has pixels of all three values."""
        pixels = scene(1, (3, 90, 90), "int16")
        for value, (y, x) in {7: (3, 5), 250: (8, 9), 0: (20, 15)}.items():
            pixels[:, y, x : x + 4] = value
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels)], "t", block=32)
        per_band(db, "t", 7, 250, "NULL")
        return pixels

    def test_each_band_has_its_own_nodata(self, db, three):
        got = read(db, native(db, "t"), {"i": Imagery("t")})["i"][0]
        np.testing.assert_array_equal(got, wide(three, (7, 250, 0)))
        swapped = read(db, native(db, "t"), {"i": Imagery("t", bands=(3, 2))})["i"][0]
        np.testing.assert_array_equal(swapped, wide(three[[2, 1]], (0, 250)))

    @pytest.mark.parametrize("fill", [-5, (1, 2, 3)])
    def test_fill_takes_the_place_of_nodata_everywhere(self, db, three, fill):
        fills = (fill,) * 3 if isinstance(fill, int) else fill
        want = three.copy()
        want[0][three[0] == 7] = fills[0]
        want[1][three[1] == 250] = fills[1]
        got = read(db, native(db, "t"), {"i": Imagery("t", fill=fill)})["i"][0]
        np.testing.assert_array_equal(got, wide(want, fills))

    def test_valid_is_where_all_bands_asked_for_have_data(self, db, three):
        got = read(db, native(db, "t"), {"i": Imagery("t", valid=True), "j": Imagery("t", bands=(3,), valid=True)})
        assert got["i_valid"].shape == (1, SIZE, SIZE)
        assert got["i_valid"].dtype == bool
        np.testing.assert_array_equal(got["i_valid"][0], wide(((three[0] != 7) & (three[1] != 250))[None], (False,))[0])
        np.testing.assert_array_equal(got["j_valid"][0], wide(np.ones((1, 90, 90), bool), (False,))[0])
        np.testing.assert_array_equal(got["i"][0], wide(three, (7, 250, 0)))

    @pytest.mark.parametrize("nodata", [np.nan, -9999])
    def test_nan(self, db, tmp_path, nodata):
        pixels = scene(2, (1, 90, 90), "float32")
        pixels[0, 10:20, 10:20], pixels[0, 30:35, 30:32] = np.nan, nodata
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels, nodata=nodata)], "t")
        absent = np.isnan(pixels) | (pixels == nodata)
        layers = {"bare": Imagery("t"), "filled": Imagery("t", fill=0.5), "valid": Imagery("t", valid=True)}
        got = read(db, native(db, "t"), layers)
        np.testing.assert_array_equal(got["bare"][0], wide(pixels, (nodata,)))
        np.testing.assert_array_equal(got["valid"][0], wide(pixels, (nodata,)))
        np.testing.assert_array_equal(got["filled"][0], wide(np.where(absent, np.float32(0.5), pixels), (0.5,)))
        np.testing.assert_array_equal(got["valid_valid"][0], wide(~absent, (False,))[0])

    def test_every_scene_has_its_own_nodata(self, db, tmp_path):
        """5 is a hole in a and a pixel in b; 9 the other way round."""
        a, b = scene(3, (1, 50, 50)), scene(4, (1, 50, 50))
        for pixels in (a, b):
            pixels[0, 10:20, 10:20], pixels[0, 15:30, 25:40] = 5, 9
        for name, pixels in (("a.tif", a), ("b.tif", b)):
            write_tiff(tmp_path / name, pixels)
        load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=50)
        nodata_of(db, "t", "a", 5)
        nodata_of(db, "t", "b", 9)
        holes = (a == 5) & (b == 9)
        assert not holes.any()
        b[0, 12:14, 12:14] = 9  # below a hole of a
        with db.connection() as conn:
            conn.execute("UPDATE t SET rast = ST_SetValues(rast, 1, 13, 13, 2, 2, 9) WHERE filename LIKE 'b%'")
        holes = (a == 5) & (b == 9)
        assert holes.sum() == 4
        got = read(db, native(db, "t"), {"i": Imagery("t", fill=200, valid=True), "j": Imagery("t")})
        want = np.where(a == 5, np.where(b == 9, 200, b), a).astype("u1")
        np.testing.assert_array_equal(got["i"][0], wide(want, (200,)))
        np.testing.assert_array_equal(got["i_valid"][0], wide(~holes, (False,))[0])
        outside = got["j"][0, 0, 0, 0]
        assert outside in (5, 9)  # one of them, and the same everywhere
        np.testing.assert_array_equal(got["j"][0], wide(np.where(holes, outside, want), (outside,)))

    def test_fill_makes_room_for_a_dtype(self, db, tmp_path):
        pixels = np.abs(scene(5, (2, 90, 90), "int16")) % 200
        pixels[:, 5:9, 5:9] = -9999
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels, nodata=-9999)], "t")
        per_band(db, "t", "NULL", -9999)
        with pytest.raises(ConfigError, match=r"dtype='uint8' does not hold -9999, the nodata value of band 2 of t: .*fill="):
            read(db, native(db, "t"), {"i": Imagery("t", dtype="uint8")})
        got = read(db, native(db, "t"), {"i": Imagery("t", dtype="uint8", bands=(2,), fill=255)})["i"][0]
        np.testing.assert_array_equal(got, wide(np.where(pixels == -9999, 255, pixels)[1:].astype("u1"), (255,)))

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"fill": "0"}, "expected a number"),
            ({"fill": ()}, "one for each band"),
            ({"fill": (1, 2)}, "2 values for 3 bands"),
            ({"fill": 300}, "dtype='uint8' does not hold 300"),
            ({"fill": np.nan}, "dtype='uint8' does not hold nan"),
        ],
    )
    def test_a_wrong_fill(self, world, options, says):
        with pytest.raises(ConfigError, match=says):
            read(world.db, native(world.db, "scene"), {"i": Imagery("scene", **options)})

    def test_two_layers_of_one_key(self, world):
        layers = {"i": Imagery("scene", valid=True), "i_valid": Labels("roads")}
        with pytest.raises(ConfigError, match=r"the key 'i_valid' of layer 'i_valid' is taken by layer 'i': rename one"):
            Plan.open(world.db, native(world.db, "scene"), layers)


@pytest.mark.usefixtures("quiet")  # the lattices are apart, which is said
class TestWarped:
    GRID = Grid(srid=3857, resolution=2.5, size=SIZE, origin=(X0 + 1, Y0 + 1))

    def warp(self, pixels, tiles, nodata, fill):
        """GDAL's exact warp, and where it leaves data: band by band, beside one that has data everywhere if any has. So a pixel
        that is nodata in all bands is left out, and one that is nodata in some is made of its neighbours, GDAL's own default.
        """
        left, _, _, top = tiles.bounds[0]
        places = {
            "src_transform": from_origin(X0, Y0, RES, RES), "src_crs": 3857, "dst_crs": 3857,
            "dst_transform": from_origin(left, top, RES, RES), "resampling": Resampling.bilinear, "tolerance": 0,
        }  # fmt: skip
        beside = 2 if None in nodata else 1

        def warped(band, value):
            both, out = np.stack([band, np.full_like(band, 100)])[:beside], np.zeros((beside, SIZE, SIZE), band.dtype)
            reproject(both, out, src_nodata=value, dst_nodata=value, UNIFIED_SRC_NODATA="PARTIAL", **places)
            return out[0]

        out = np.stack([warped(band, value) for band, value in zip(pixels, nodata, strict=True)])
        data = [np.where(band == value, 0, 255).astype("u1") for band, value in zip(pixels, nodata, strict=True)]
        there = np.stack([warped(mask, 0) for mask in data])
        return np.where(there != 0, out, np.reshape(fill, (-1, 1, 1))), (there != 0).all(axis=0)

    @pytest.mark.parametrize("fill", [None, 99, (1, 2, 3)])
    def test_over_the_edge_with_nodata_in_some_bands(self, db, tmp_path, fill):
        pixels = scene(6, (3, 90, 90))
        pixels[:, 20:25, 20:30] = 7
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels)], "t", block=32)
        per_band(db, "t", 7, "NULL", "NULL")
        tiles = Tiles(self.GRID, np.array([-20]), np.array([-10]))
        fills = (7, 0, 0) if fill is None else (fill,) * 3 if isinstance(fill, int) else fill
        want, there = self.warp(pixels, tiles, (7, None, None), fills)
        plan = Plan.open(db, tiles, {"i": Imagery("t", max_error=0, fill=fill, valid=True)})
        batch = read_batch(db, plan, tiles)
        assert batch.united == (0,)
        assert np.abs(batch.sample["i"][0].astype(int) - want).max() <= 1
        np.testing.assert_array_equal(batch.sample["i_valid"][0], there)
        np.testing.assert_array_equal(batch.sample["i"][0][:, :5], want[:, :5])
        bare = read(db, tiles, {"i": Imagery("t", max_error=0, fill=fill)})["i"]
        np.testing.assert_array_equal(bare, batch.sample["i"])

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
    def test_holes_between_scenes_without_nodata(self, db, tmp_path, dtype):
        a, b = scene(7, (2, 40, 40), dtype), scene(8, (2, 40, 30), dtype)
        if dtype == "uint8":
            a[:, 10:20, 10:20] = 0
        for name, pixels, x in (("a.tif", a, 0), ("b.tif", b, 50)):
            write_tiff(tmp_path / name, pixels, transform=from_origin(X0 + x * RES, Y0, RES, RES))
        load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=64)
        whole = np.full((2, 40, 80), -77, "f8")
        whole[:, :, :40], whole[:, :, 50:] = a, b
        tiles = Tiles(self.GRID, np.array([10]), np.array([-5]))
        want, there = self.warp(whole, tiles, (-77, -77), (33, 44))
        assert 0.1 < there.mean() < 0.9
        layers = {"i": Imagery("t", max_error=0, fill=(33, 44), valid=True), "j": Imagery("t", max_error=0, dtype="native")}
        plan = Plan.open(db, tiles, layers)
        batch = read_batch(db, plan, tiles)
        assert batch.united == (1, 1)
        np.testing.assert_array_equal(batch.sample["i_valid"][0], there)
        assert np.abs(batch.sample["i"][0] - want)[:, there].max() <= (1e-5 * 100 if dtype == "float32" else 1)
        np.testing.assert_array_equal(batch.sample["i"][0][:, ~there], want[:, ~there])
        assert batch.sample["j"].dtype == dtype
        assert not batch.sample["j"][0][:, ~there].any()  # 0, not the type's minimum

    def test_every_scene_has_its_own_nodata(self, db, tmp_path):
        a, b = scene(9, (1, 60, 50)), scene(10, (1, 60, 50))
        a[0, 20:30, 10:45], b[0, 5:25, 5:30] = 5, 9
        for name, pixels, x in (("a.tif", a, 0), ("b.tif", b, 30)):
            write_tiff(tmp_path / name, pixels, transform=from_origin(X0 + x * RES, Y0, RES, RES))
        load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=64)
        nodata_of(db, "t", "a", 5)
        nodata_of(db, "t", "b", 9)
        whole = np.full((1, 60, 80), -1, "f8")
        whole[:, :, 30:] = np.where(b == 9, -1, b.astype(int))
        whole[:, :, :50] = np.where(a == 5, whole[:, :, :50], a)
        tiles = Tiles(self.GRID, np.array([-4, 15]), np.array([-5, 3]))
        got = read(db, tiles, {"i": Imagery("t", max_error=0, fill=0, valid=True)})
        for i in range(2):
            want, there = self.warp(whole, tiles[i], (-1,), (0,))
            assert 0.3 < there.mean() < 0.98
            np.testing.assert_array_equal(got["i_valid"][i], there)
            assert np.abs(got["i"][i].astype(int) - want).max() <= 1

    def test_check_counts_the_tiles_that_st_union_joined(self, database_url, tmp_path):
        from pgtiles import Database

        with Database(database_url) as db:
            for name, x in (("a.tif", 0), ("b.tif", 30)):
                write_tiff(tmp_path / name, scene(11, (1, 60, 60)), transform=from_origin(X0 + x * RES, Y0, RES, RES))
            load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=64)
            load.raster(db, [tmp_path / "a.tif"], "one", block=16)
        options = ["--srid", "3857", "--resolution", "2", "--size", "20", "--count", "5", "--url", database_url]
        inside = f"{X0 + 90},{Y0 - 70},{X0 + 140},{Y0 - 20}"
        said = CliRunner().invoke(typer_app, ["check", "--image", "t", "--within", inside, *options])
        assert "layer 'image': 5 of 5 tiles joined by ST_Union" in " ".join(said.output.split()), said.output
        said = CliRunner().invoke(typer_app, ["check", "--image", "one", "--within", inside, *options])
        assert said.exit_code == 0
        assert "ST_Union" not in said.output


class TestKinds:
    @pytest.mark.parametrize("key", [True, False])
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ("ST_AddBand(rast, '8BUI'::text, 1)", r"1 of SRID 3857, .*, 2 bands 8BUI, 8BUI \("),
            ("ST_Reclass(rast, 1, '0-255:0-255', '16BUI')", r"1 of SRID 3857, .*, 1 band 16BUI \("),
        ],
    )
    def test_the_row_that_differs_is_named(self, db, tmp_path, change, says, key):
        load.raster(db, [write_tiff(tmp_path / "t.tif", scene(12, (1, 90, 90)))], "t", block=32)
        loosened(db, "t")
        with db.connection() as conn:
            conn.execute(f"UPDATE t SET rast = {change} WHERE rid = 4")
            if not key:
                conn.execute("ALTER TABLE t DROP CONSTRAINT t_pkey")
        row = "rid = 4" if key else f"t ctid = {ask(db, 'SELECT ctid FROM t WHERE rid = 4')[0][0]}"
        with pytest.raises(DataError, match="8 rows of .* 1 band 8BUI, and " + says) as raised:
            Plan.open(db, Tiles(Grid(srid=3857, resolution=RES, size=20), np.array([0]), np.array([0])), {"i": Imagery("t")})
        assert f"(such as {row})" in str(raised.value)


class TestLabelRaster:
    @pytest.mark.parametrize(("stored", "nodata"), [("f4", np.nan), ("i2", -32768), ("u1", 200)])
    @pytest.mark.parametrize("dtype", ["int64", "uint8"])
    @pytest.mark.parametrize("resampling", ["nearest", "mode"])
    def test_nodata_is_background_whatever_the_dtype(self, db, tmp_path, quiet, stored, nodata, dtype, resampling):
        pixels = np.random.default_rng(3).integers(0, 5, (1, 120, 120)).astype(stored)
        pixels[0, 20:60, 30:90] = nodata
        load.raster(db, write_tiff(tmp_path / "t.tif", pixels, nodata=nodata), "t")
        tiles = Tiles(Grid.like(db, "t", size=SIZE), np.array([10]), np.array([5]))
        layer = Labels("t", background=7, dtype=dtype, resampling=resampling)
        want = pixels[0, 5 : 5 + SIZE, 10 : 10 + SIZE]
        holes = np.isnan(want) if np.isnan(nodata) else want == nodata
        got = read(db, tiles, {"m": layer})["m"][0]
        np.testing.assert_array_equal(got, np.where(holes, 7, want))
        assert got.dtype == dtype
        assert {True, False} == set(holes.ravel())
        coarse = Grid(srid=3857, resolution=2 * RES, size=SIZE // 2, origin=tuple(tiles.bounds[0, [0, 3]]))
        half = read(db, Tiles(coarse, np.array([0]), np.array([0])), {"m": layer})["m"][0]
        whole = holes.reshape(SIZE // 2, 2, SIZE // 2, 2).all(axis=(1, 3))
        assert (half[whole] == 7).all()
        assert whole.any()
        assert (half[~holes.reshape(SIZE // 2, 2, SIZE // 2, 2).any(axis=(1, 3))] < 5).all()

    @pytest.mark.parametrize("wish", [{"value": 3}, {"all_touched": True}])
    def test_what_says_how_geometries_are_burned_is_refused(self, world, wish):
        tiles = Tiles(world.grid, np.array([0]), np.array([0]))
        with pytest.raises(
            ConfigError, match=r"layer 'm': value= and all_touched= say how geometries are burned; scene gives rasters"
        ):
            read(world.db, tiles, {"m": Labels("scene", **wish)})
