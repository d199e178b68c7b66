"""Layers in pixels of their own: finer or coarser than the tiles', from overviews, and by the commonest of the pixels below."""

import re
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import torch
from conftest import RES, X0, Y0, ask, features, scene, write_tiff
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from pgtiles import Database, Grid, Imagery, Instances, Labels, TileDataset, Tiles, Vectors, load, read
from pgtiles.errors import ConfigError, DataError, LoadError
from pgtiles.streaming.reading import Plan, read_batch

WHOLE = (X0 + 200, Y0 - 1400, X0 + 1200, Y0 - 200)
GDAL_EXACT = 1e-9  # px: WarpedVRT takes 0 for its default


def warped(path, tiles, i, shape, resampling, around=64):
    """What GDAL makes of a file on a tile, in so many rows and columns: as part of a wider image, for GDAL takes its scale from
    the sizes of its windows, and calls a small one shrunk that is only shifted.
    """
    xmin, ymin, xmax, ymax = tiles.bounds[i]
    (height, width), (x, y) = shape, ((xmax - xmin) / shape[1], (ymax - ymin) / shape[0])
    place = from_origin(xmin - around * x, ymax + around * y, x, y)
    wide = {"crs": "EPSG:3857", "transform": place, "width": width + 2 * around, "height": height + 2 * around}
    with rasterio.open(path) as file, WarpedVRT(file, resampling=resampling, tolerance=GDAL_EXACT, **wide) as vrt:
        return vrt.read()[:, around:-around, around:-around]


@pytest.fixture(scope="module")
def sensors(world):
    """Three sensors over the same ground, as satellites have them: 2.5, 5 and 15 m; and classes in pixels of 2.5 m."""
    files = {}
    for name, pixel, pixels in (
        ("fine", RES, scene(1)),
        ("middle", 2 * RES, scene(2, (2, 512, 512), "uint16")),
        ("coarse", 6 * RES, scene(3, (1, 170, 170), "float32")),
        ("classes", RES, np.random.default_rng(4).integers(0, 5, (1, 1024, 1024)).astype("u1")),
    ):
        place = from_origin(X0, Y0, pixel, pixel)
        files[name] = write_tiff(world.folder / f"{name}.tif", pixels, transform=place, nodata=4 if name == "classes" else None)
        load.raster(world.db, files[name], f"sensor_{name}", replace=True)
    return files


@pytest.fixture(scope="module")
def pyramid(world, sensors):
    """Overviews in 5, 10 and 20 m, and the file of the one of 10 m."""
    with world.db.connection() as conn:
        conn.execute("SELECT AddRasterConstraints('sensor_fine', 'rast', 'extent')")
        for factor in (2, 4, 8):
            conn.execute(f"SELECT ST_CreateOverview('sensor_fine'::regclass, 'rast', {factor}, 'Bilinear')")
            conn.execute(f"CREATE INDEX ON o_{factor}_sensor_fine USING gist (ST_ConvexHull(rast))")
            conn.execute(f"ANALYZE o_{factor}_sensor_fine")
        blocks = conn.execute(
            "SELECT ST_UpperLeftX(rast), ST_UpperLeftY(rast), v.nband, v.valarray "
            "FROM o_4_sensor_fine CROSS JOIN LATERAL ST_DumpValues(rast) AS v"
        ).fetchall()
    pixels = np.zeros((3, 256, 256), "u1")
    for x, y, band, values in blocks:
        row, col = round((Y0 - y) / (4 * RES)), round((x - X0) / (4 * RES))
        pixels[band - 1, row : row + len(values), col : col + len(values[0])] = values
    yield write_tiff(world.folder / "overview.tif", pixels, transform=from_origin(X0, Y0, 4 * RES, 4 * RES))
    with world.db.connection() as conn:
        conn.execute("DROP TABLE o_2_sensor_fine, o_4_sensor_fine, o_8_sensor_fine")


class TestLattice:
    @given(
        step=st.floats(0.01, 100), pixels=st.integers(1, 500), factor=st.integers(1, 12), col=st.integers(-(10**6), 10**6),
        origin=st.floats(-1e6, 1e6), coarser=st.booleans(),
    )  # fmt: skip
    def test_the_bounds_are_the_same_to_the_last_bit(self, step, pixels, factor, col, origin, coarser):
        size = pixels * factor if coarser else pixels
        tiles = Tiles(Grid(srid=3857, resolution=step, size=size, origin=(origin, 0)), np.array([col, 0]), np.array([-col, 7]))
        other = tiles.at(step * factor if coarser else step / factor)
        assert other.bounds.tobytes() == tiles.bounds.tobytes()
        assert other.grid.shape == ((pixels,) * 2 if coarser else (pixels * factor,) * 2)

    def test_tiles_begin_where_a_step_does(self):
        grid = Grid(srid=3857, resolution=10, size=120, origin=(7, 3), step=60)
        for tiles in (
            Tiles.random(grid, within=(0, 0, 9000, 9000), count=500, seed=1),
            Tiles.sliding(grid, within=(0, 0, 9000, 9000), stride=60),
        ):
            corners = (tiles.bounds[:, [0, 3]] - [7, 3]) / 60
            np.testing.assert_allclose(corners, np.rint(corners), atol=1e-9)
            np.testing.assert_allclose(tiles.bounds[:, 2:] - tiles.bounds[:, :2], 1200)
            assert tiles.bounds[:, :2].min() >= 0
            assert tiles.bounds[:, 2:].max() <= 9000
        assert len(tiles) == len({tuple(b) for b in tiles.bounds.tolist()}) == 13 * 13  # (9000 - 7 - 1200) / 600 and one

    @pytest.mark.parametrize(
        ("resolution", "said"),
        [
            (7, r"a tile is 640 CRS units wide, 91.4286 such pixels; expected whole ones: 6.95652 gives 92, 7.03297 gives 91"),
            ((10, 7), "a tile is 640 CRS units high"),
            (0, "expected positive CRS units per pixel, at most a tile's 640"),
            (1000, "at most a tile's 640"),
            (float("nan"), "expected positive"),
            ("10 m", "expected one float"),
        ],
    )
    def test_what_does_not_divide_a_tile_is_refused(self, world, sensors, resolution, said):
        tiles = Tiles.random(Grid(srid=3857, resolution=10, size=64), within=WHOLE, count=1)
        with pytest.raises(ConfigError, match=f"layer 'image': .*{said}"):
            read(world.db, tiles, {"image": Imagery("sensor_fine", resolution=resolution)})

    def test_a_stride_between_two_steps_is_refused(self):
        with pytest.raises(ConfigError, match=r"stride=50: expected .* whole steps of the grid, of \(60.0, 60.0\)"):
            Tiles.sliding(Grid(srid=3857, resolution=10, size=120, step=60), within=(0, 0, 9000, 9000), stride=50)


class TestSensors:
    def test_each_comes_as_it_is_stored_where_tiles_begin_on_the_coarsest(self, world, sensors):
        grid = Grid.like(world.db, "sensor_fine", size=96, step=6 * RES)
        tiles = Tiles.random(grid, within=WHOLE, count=20, seed=2)
        layers = {
            "fine": Imagery("sensor_fine"),
            "middle": Imagery("sensor_middle", resolution=2 * RES, dtype="native"),
            "coarse": Imagery("sensor_coarse", resolution=6 * RES, valid=True),
        }
        assert [layer.path for layer in Plan.open(world.db, tiles, layers).layers] == ["native"] * 3
        batch = read(world.db, tiles, layers)
        for name, factor in (("fine", 1), ("middle", 2), ("coarse", 6)):
            side = 96 // factor
            with rasterio.open(sensors[name]) as file:
                pixels = file.read()
            for i, (col, row) in enumerate(zip(tiles.cols * 6 // factor, tiles.rows * 6 // factor, strict=True)):
                np.testing.assert_array_equal(batch[name][i], pixels[:, row : row + side, col : col + side])
        assert batch["coarse_valid"].shape == (20, 16, 16)
        assert batch["coarse_valid"].all()

    def test_elsewhere_the_coarse_ones_are_resampled_from_the_tiles_corner(self, world, sensors, quiet):
        tiles = Tiles.random(Grid.like(world.db, "sensor_fine", size=96), within=WHOLE, count=12, seed=3)
        layers = {"fine": Imagery("sensor_fine"), "coarse": Imagery("sensor_coarse", resolution=6 * RES)}
        opened = Plan.open(world.db, tiles, layers).layers
        assert [layer.path for layer in opened] == ["native", "warped"]
        assert "px apart" in opened[1].why
        batch = read(world.db, tiles, layers)
        for i in range(len(tiles)):
            wanted = warped(sensors["coarse"], tiles, i, (16, 16), Resampling.bilinear)
            np.testing.assert_allclose(batch["coarse"][i], wanted, rtol=1e-5)

    def test_a_finer_layer_over_coarse_tiles(self, world, sensors):
        tiles = Tiles.random(Grid.like(world.db, "sensor_coarse", size=16), within=WHOLE, count=8, seed=4)
        batch = read(world.db, tiles, {"fine": Imagery("sensor_fine", resolution=RES)})
        with rasterio.open(sensors["fine"]) as file:
            for i, (col, row) in enumerate(zip(tiles.cols * 6, tiles.rows * 6, strict=True)):
                np.testing.assert_array_equal(batch["fine"][i], file.read()[:, row : row + 96, col : col + 96])

    def test_labels_vectors_and_instances(self, world):
        tiles = Tiles.random(world.grid, within=WHOLE, count=20, seed=5)
        query = "SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom"
        layers = {
            "mask": Labels(query, resolution=4 * RES),
            "half": Vectors({"any": "SELECT way AS geom FROM areas WHERE way && tile.geom"}, resolution=(2 * RES, RES)),
            "map": Instances(query, resolution=4 * RES),
        }
        batch = read(world.db, tiles, layers)
        assert batch["mask"].shape == batch["map"].shape == (20, 16, 16)
        assert batch["half"].shape == (20, 1, 64, 32)
        shapes = sorted(((g, world.features.value(i)) for i, g in enumerate(features().areas)), key=lambda one: one[1])
        for i, (xmin, _, _, ymax) in enumerate(tiles.bounds):
            coarse = rasterize(shapes, (16, 16), transform=from_origin(xmin, ymax, 4 * RES, 4 * RES))
            np.testing.assert_array_equal(batch["mask"][i], coarse)
            np.testing.assert_array_equal(batch["map"][i] > 0, coarse > 0)
            half = rasterize([g for g, _ in shapes], (64, 32), transform=from_origin(xmin, ymax, 2 * RES, RES))
            np.testing.assert_array_equal(batch["half"][i, 0], half)
        assert batch["mask"].any()

    def test_a_dataset_gives_them_in_shapes_of_their_own(self, world, sensors):
        grid = Grid.like(world.db, "sensor_fine", size=96, step=6 * RES)
        tiles = Tiles.random(grid, within=WHOLE, count=10, seed=6)
        layers = {"fine": Imagery("sensor_fine"), "coarse": Imagery("sensor_coarse", resolution=6 * RES)}
        dataset = TileDataset(world.db, tiles, layers, batch_size=5)
        seen = []
        for workers in (0, 2):
            batches = list(dataset.loader(num_workers=workers))
            assert all(b["fine"].shape == (5, 3, 96, 96) and b["coarse"].shape == (5, 1, 16, 16) for b in batches)
            dataset.set_epoch(0)
            seen.append(torch.cat([b["coarse"] for b in batches]))
        assert torch.equal(*seen)

    def test_the_users_own_tile_is_in_the_layers_pixels(self, world):
        tiles = Tiles.random(world.grid, within=WHOLE, count=2, seed=7)
        query = "SELECT tile.geom, ST_Width(tile.rast) + ST_ScaleX(tile.rast) AS value"
        batch = read(world.db, tiles, {"mask": Labels(query, resolution=4 * RES, dtype="float32")})
        assert (batch["mask"] == 16 + 4 * RES).all()
        assert batch["mask"].shape == (2, 16, 16)


class TestOverviews:
    @pytest.mark.parametrize(
        ("pixel", "table"),
        [
            (RES, "sensor_fine"),
            (1.9 * RES, "sensor_fine"),
            (2 * RES, "o_2"),
            (4.1 * RES, "o_4"),
            (7.99 * RES, "o_4"),
            (50, "o_8"),
        ],
    )
    def test_the_coarsest_that_suffices_is_read(self, world, pyramid, quiet, pixel, table):
        tiles = Tiles.random(Grid(srid=3857, resolution=pixel, size=16, origin=(X0 + 1, Y0)), within=WHOLE, count=4, seed=8)
        (layer,) = Plan.open(world.db, tiles, {"image": Imagery("sensor_fine")}).layers
        assert f'"{table}' in layer.select, layer.why
        assert ("overview" in layer.why) == (table != "sensor_fine")
        assert table == "sensor_fine" or table in layer.why

    def test_its_pixels_are_gdals_warp_of_it(self, world, pyramid, quiet):
        tiles = Tiles.random(Grid(srid=3857, resolution=4 * RES, size=32, origin=(X0 + 3, Y0)), within=WHOLE, count=8, seed=9)
        batch = read(world.db, tiles, {"image": Imagery("sensor_fine", max_error=0)})
        for i in range(len(tiles)):
            wanted = warped(pyramid, tiles, i, (32, 32), Resampling.bilinear)
            assert np.abs(batch["image"][i].astype(int) - wanted).max() <= 1

    def test_on_its_own_lattice_it_comes_as_it_is_stored(self, world, pyramid):
        tiles = Tiles.random(Grid.like(world.db, "o_4_sensor_fine", size=32), within=WHOLE, count=8, seed=10)
        layers = {"image": Imagery("sensor_fine")}
        assert Plan.open(world.db, tiles, layers).layers[0].path == "native"
        batch = read(world.db, tiles, layers)
        with rasterio.open(pyramid) as file:
            pixels = file.read()
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            np.testing.assert_array_equal(batch["image"][i], pixels[:, row : row + 32, col : col + 32])

    @pytest.mark.parametrize("more", [{"resampling": "nearest"}, {"order_by": "s.rid"}, {"overviews": False}])
    def test_who_wants_the_pixels_themselves_gets_them(self, world, sensors, pyramid, more):
        tiles = Tiles.random(Grid(srid=3857, resolution=4 * RES, size=16, origin=(X0, Y0)), within=WHOLE, count=4, seed=11)
        (layer,) = Plan.open(world.db, tiles, {"image": Imagery("sensor_fine", **more)}).layers
        assert '"sensor_fine"' in layer.select
        assert "overview" not in layer.why

    def test_one_of_another_kind_is_not_read_and_said_to_be_wrong(self, schema_db, world, sensors):
        load.raster(schema_db, sensors["coarse"], "o_2_wrong")
        load.raster(schema_db, sensors["fine"], "base")
        ask_ = "SELECT AddOverviewConstraints('mine', 'o_2_wrong', 'rast', 'mine', 'base', 'rast', 2)"
        assert ask(schema_db, ask_) == [(True,)]
        tiles = Tiles.random(Grid(srid=3857, resolution=4 * RES, size=16, origin=(X0, Y0)), within=WHOLE, count=4, seed=12)
        with pytest.warns(match="mine.o_2_wrong is no overview of mine.base, whatever raster_overviews says"):
            (layer,) = Plan.open(schema_db, tiles, {"image": Imagery("base")}).layers
        assert '"base"' in layer.select

    def test_one_that_lacks_what_was_added_to_the_table_is_not_read(self, schema_db, world, sensors):
        load.raster(schema_db, sensors["fine"], "grown")
        with schema_db.connection() as conn:
            conn.execute("SELECT AddRasterConstraints('mine'::name, 'grown'::name, 'rast'::name, 'extent')")
            conn.execute("SELECT ST_CreateOverview('grown'::regclass, 'rast', 4, 'Bilinear')")
            conn.execute("DELETE FROM o_4_grown WHERE ST_UpperLeftX(rast) < %s", (X0 + 1000,))
        tiles = Tiles.random(Grid(srid=3857, resolution=4 * RES, size=16, origin=(X0, Y0)), within=WHOLE, count=40, seed=13)
        with pytest.warns(match="the overview mine.o_4_grown lacks imagery that mine.grown has, and is not read: make it anew"):
            batch = read(schema_db, tiles, {"image": Imagery("grown")})
        np.testing.assert_array_equal(
            batch["image"], read(schema_db, tiles, {"image": Imagery("grown", overviews=False)})["image"]
        )

    def test_an_empty_one_is_passed_over_and_said(self, schema_db, world, sensors):
        load.raster(schema_db, sensors["fine"], "full")
        with schema_db.connection() as conn:
            conn.execute("SELECT AddRasterConstraints('mine'::name, 'full'::name, 'rast'::name, 'extent')")
            conn.execute("SELECT ST_CreateOverview('full'::regclass, 'rast', 4, 'Bilinear')")
            conn.execute("TRUNCATE o_4_full")
        tiles = Tiles.random(Grid(srid=3857, resolution=4 * RES, size=16, origin=(X0, Y0)), within=WHOLE, count=4, seed=14)
        with pytest.warns(match=r"the overview mine.o_4_full of mine.full is not read: mine.o_4_full.rast holds no raster"):
            (layer,) = Plan.open(schema_db, tiles, {"image": Imagery("full")}).layers
        assert '"full"' in layer.select

    def test_one_in_a_schema_that_is_closed_to_the_user_is_none(self, world, sensors, pyramid, quiet):
        with world.db.connection() as conn:
            conn.execute("CREATE SCHEMA hidden; CREATE ROLE outsider; GRANT SELECT ON ALL TABLES IN SCHEMA public TO outsider")
            conn.execute("ALTER TABLE o_8_sensor_fine SET SCHEMA hidden; GRANT SELECT ON hidden.o_8_sensor_fine TO outsider")
            conn.execute("SELECT DropOverviewConstraints('hidden', 'o_8_sensor_fine', 'rast')")
            conn.execute(
                "SELECT AddOverviewConstraints('hidden', 'o_8_sensor_fine', 'rast', 'public', 'sensor_fine', 'rast', 8)"
            )
        try:
            tiles = Tiles.random(Grid(srid=3857, resolution=50, size=16, origin=(X0, Y0)), within=WHOLE, count=4, seed=15)
            with Database(f"{world.url}?options=-crole%3Doutsider") as db:
                (layer,) = Plan.open(db, tiles, {"image": Imagery("sensor_fine")}).layers
            assert '"o_4_sensor_fine"' in layer.select
        finally:
            with world.db.connection() as conn:
                conn.execute("ALTER TABLE hidden.o_8_sensor_fine SET SCHEMA public; DROP SCHEMA hidden")
                conn.execute("DROP OWNED BY outsider; DROP ROLE outsider")

    def test_a_table_that_has_some_is_not_replaced_under_them(self, world, sensors, pyramid):
        with pytest.raises(LoadError, match=r'public.sensor_fine has overviews, .* DROP TABLE "public"."o_8_sensor_fine", "'):
            load.raster(world.db, sensors["fine"], "sensor_fine", replace=True)


class TestFarApart:
    """What a tile holds does not depend on which others are read with it, though a projection's scale differs between them."""

    PLACES = ((5.0, 37.0), (25.0, 67.0))  # Spain, Finland

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def cover(cls, world):
        to = pyproj.Transformer.from_crs(4326, 3035, always_xy=True)
        files = []
        for n, place in enumerate(cls.PLACES):
            x, y = (round(v / 10) * 10 for v in to.transform(*place))
            pixels = np.random.default_rng(n).integers(0, 5, (1, 800, 800)).astype("u1")
            path = world.folder / f"cover{n}.tif"
            files.append(write_tiff(path, pixels, crs="EPSG:3035", transform=from_origin(x - 4000, y + 4000, 10, 10)))
        load.raster(world.db, files, "cover", replace=True)

    def tiles(self, *which):
        to = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
        corners = np.array(
            [[round(x / 30) - 32, round(-y / 30) - 32] for x, y in (to.transform(*self.PLACES[n]) for n in which)]
        )
        return Tiles(Grid(srid=3857, resolution=30, size=64), corners[:, 0], corners[:, 1])

    @pytest.mark.parametrize(
        ("layer", "off"),
        [(Labels("cover", resampling="mode"), 0), (Imagery("cover", resampling="cubic", max_error=0), 1)],  # GDAL's own windows
    )
    def test_a_tile_is_the_same_in_any_company(self, world, layer, off):
        for first, second in ((0, 1), (1, 0)):
            alone = read(world.db, self.tiles(second), {"x": layer})["x"][0]
            after = read(world.db, self.tiles(first, second), {"x": layer})["x"][1]
            assert np.abs(alone.astype(int) - after).max() <= off
            assert alone.any()


class TestQueries:
    """A query for rasters sees a wider tile.geom where a kernel reaches beyond the tile."""

    @pytest.mark.parametrize("resampling", ["bilinear", "cubic", "lanczos"])
    @pytest.mark.parametrize("shift", [1, 2, 3])
    def test_equals_the_table_at_the_blocks_seams(self, world, sensors, quiet, resampling, shift):
        begin = 128 * 6 * RES + shift * RES  # in fine pixels, just behind a block of the coarse sensor
        grid = Grid(srid=3857, resolution=RES, size=64, origin=(X0 + begin, Y0 - begin))
        tiles = Tiles(grid, np.array([0, 3, -70]), np.array([0, -1, -70]))
        named = read(world.db, tiles, {"i": Imagery("sensor_coarse", resampling=resampling)})["i"]
        query = "SELECT rast FROM sensor_coarse WHERE ST_ConvexHull(rast) && tile.geom"
        np.testing.assert_array_equal(read(world.db, tiles, {"i": Imagery(query, resampling=resampling)})["i"], named)
        for i in range(len(tiles)):
            wanted = warped(sensors["coarse"], tiles, i, (64, 64), Resampling[resampling])
            np.testing.assert_allclose(named[i], wanted, rtol=1e-5, atol=1e-3)

    def test_one_that_gives_rasters_for_few_tiles_only(self, world, sensors):
        tiles = Tiles.random(world.grid, within=WHOLE, count=300, seed=16)
        query = "SELECT s.rast FROM sensor_fine AS s, tile WHERE tile.id = 217 AND ST_ConvexHull(s.rast) && tile.geom"
        batch = read(world.db, tiles[210:220], {"i": Imagery(query)})["i"]
        assert batch.any(axis=(1, 2, 3)).tolist() == [n == 217 for n in range(210, 220)]
        Plan.open(world.db, tiles, {"i": Imagery(query)})  # it lies among the first and among the last 16 of these
        never = "SELECT s.rast FROM sensor_fine AS s, tile WHERE tile.id = -1"
        with pytest.raises(DataError, match="the query gives no raster for 300 of the 300 tiles: do imagery and tiles meet"):
            Plan.open(world.db, tiles, {"i": Imagery(never)})


def test_a_coarse_transformer_looks_further(world, quiet):
    """max_error is how far off a pixel may come from, so the window reaches as far, too: nothing comes from nowhere."""
    pixels = np.random.default_rng(0).integers(1, 255, (1, 1500, 1500)).astype("u1")
    path = write_tiff(world.folder / "degrees.tif", pixels, crs="EPSG:4326", transform=from_origin(0, 85, 0.02, 0.02))
    load.raster(world.db, path, "degrees", replace=True)
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(5, 75)
    tiles = Tiles(Grid(srid=3857, resolution=4000, size=256), np.array([round(x / 4000)]), np.array([round(-y / 4000)]))
    batch = read(world.db, tiles, {"i": Imagery("degrees", resampling="nearest", max_error=20, valid=True)})
    assert batch["i"].all()
    assert batch["i_valid"].all()


class TestMode:
    def commonest(self, pixels, side):
        """The commonest of each block of pixels but 4, which is nodata, where one is commoner than all others; else -1."""
        height, width = (n // side for n in pixels.shape)
        blocks = pixels.reshape(height, side, width, side)
        counts = np.stack([(blocks == value).sum(axis=(1, 3)) for value in range(4)])
        ranked = np.sort(counts, axis=0)
        return np.where(ranked[-1] > ranked[-2], counts.argmax(axis=0), -1)

    @pytest.mark.parametrize("side", [2, 3, 8])
    def test_whole_pixels_are_counted(self, world, sensors, side):
        grid = Grid(srid=3857, resolution=side * RES, size=16, origin=(X0, Y0))
        tiles = Tiles.random(grid, within=WHOLE, count=12, seed=side)
        layers = {"mask": Labels("sensor_classes", resampling="mode", background=-9)}
        assert f"the commonest of {side} × {side} pixels" in Plan.open(world.db, tiles, layers).layers[0].why
        mask = read(world.db, tiles, layers)["mask"]
        with rasterio.open(sensors["classes"]) as file:
            classes = file.read(1)
        checked = 0
        for i, (col, row) in enumerate(zip(tiles.cols * side, tiles.rows * side, strict=True)):
            wanted = self.commonest(classes[row : row + 16 * side, col : col + 16 * side], side)
            gdal = warped(sensors["classes"], tiles, i, (16, 16), Resampling.mode)[0]
            clear = wanted >= 0
            np.testing.assert_array_equal(mask[i][clear], wanted[clear])
            np.testing.assert_array_equal(mask[i][clear], gdal[clear])
            checked += clear.sum()
        assert checked > 1000

    def test_between_pixels_it_is_nearly_that_of_the_largest_area(self, world, sensors):
        """Each pixel counts by its share, nearly: a few differ along borders, and GDAL, which counts whole ones, has more."""
        smooth = np.kron(np.random.default_rng(1).integers(0, 4, (1, 64, 64)), np.ones((1, 16, 16))).astype("u1")
        path = write_tiff(world.folder / "fields.tif", smooth)
        load.raster(world.db, path, "fields", replace=True)
        pixel, parts = 7.3, 64
        tiles = Tiles.random(Grid(srid=3857, resolution=pixel, size=32, origin=(X0 + 1, Y0)), within=WHOLE, count=12, seed=1)
        mask = read(world.db, tiles, {"mask": Labels("fields", resampling="mode")})["mask"]
        off = gdals = 0
        for i, (xmin, _, _, ymax) in enumerate(tiles.bounds):
            centres = (np.arange(32 * parts) + 0.5) * pixel / parts
            rows, cols = (((start + centres) // RES).astype(int) for start in (Y0 - ymax, xmin - X0))
            fine = smooth[0][rows][:, cols].reshape(32, parts, 32, parts)
            largest = np.stack([(fine == value).sum(axis=(1, 3)) for value in range(4)]).argmax(axis=0)
            off += (mask[i] != largest).sum()
            gdals += (warped(path, tiles, i, (32, 32), Resampling.mode)[0] != largest).sum()
        assert off < 0.025 * mask.size
        assert off < gdals

    @pytest.mark.parametrize("shift", [0, 0.3])
    def test_a_batch_of_it_takes_no_more_room_than_a_tile(self, world, sensors, shift):
        """The finer pixels, 25,600 for each of the tile's, are those of one tile at a time, and in the type that is stored."""
        grid = Grid(srid=3857, resolution=32 * RES, size=16, origin=(X0 + shift, Y0))
        tiles = Tiles(grid, np.zeros(8, "i8"), np.arange(8) % 2)
        peaks = []
        for some in (tiles[:1], tiles):
            plan = Plan.open(world.db, some, {"mask": Labels("sensor_classes", resampling="mode")})
            tracemalloc.start()
            read_batch(world.db, plan, some)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < 1.5 * peaks[0]
        assert peaks[0] < 12 * 512**2

    def test_at_a_large_ratio_off_the_lattice_it_is_of_the_whole_pixels(self, world, sensors, quiet):
        """No pixel is read twice: those on the edge, which count whole, are few. Nothing is said of a lattice to move to."""
        side = 16
        tiles = Tiles(Grid(srid=3857, resolution=side * RES, size=16, origin=(X0 + 0.3 * RES, Y0)), np.arange(3), np.arange(3))
        layers = {"mask": Labels("sensor_classes", resampling="mode", background=-9)}
        (layer,) = Plan.open(world.db, tiles, layers).layers
        assert f"the commonest of {side} × {side} pixels" in layer.why
        assert not layer.warnings
        mask = read(world.db, tiles, layers)["mask"]
        with rasterio.open(sensors["classes"]) as file:
            classes = file.read(1)
        for i, (col, row) in enumerate(zip(tiles.cols * 16 * side // 16, tiles.rows * 16 * side // 16, strict=True)):
            wanted = self.commonest(classes[row : row + 16 * side, col : col + 16 * side], side)
            clear = wanted >= 0
            np.testing.assert_array_equal(mask[i][clear], wanted[clear])
            assert clear.sum() > 100

    def test_too_many_to_count_are_refused_by_ratio(self, world, sensors):
        tiles = Tiles(Grid(srid=3857, resolution=300 * RES, size=512, origin=(X0, Y0)), np.array([0]), np.array([0]))
        said = r"layer 'mask': resampling='mode': a tile's pixel spans 300 source pixels, .* expected a span of 32 at most"
        with pytest.raises(ConfigError, match=said):
            read(world.db, tiles, {"mask": Labels("sensor_classes", resampling="mode")})

    def test_where_there_is_nothing_it_is_background(self, world, sensors):
        beyond = Tiles(Grid(srid=3857, resolution=8 * RES, size=16, origin=(X0, Y0)), np.array([-8]), np.array([4]))
        mask = read(world.db, beyond, {"mask": Labels("sensor_classes", resampling="mode", background=7)})["mask"]
        assert (mask[0, :, :8] == 7).all()
        assert (mask[0, :, 8:] < 4).all()

    def test_vectors_have_no_resampling(self, world):
        tiles = Tiles.random(world.grid, within=WHOLE, count=1)
        with pytest.raises(ConfigError, match="resampling='mode' goes with a label raster"):
            read(world.db, tiles, {"mask": Labels("areas", resampling="mode")})

    def test_labels_are_never_blended(self):
        with pytest.raises(ConfigError, match="resampling='bilinear': expected nearest or mode; labels are not blended"):
            Labels("sensor_classes", resampling="bilinear")


def check_radar(db, folder, names, code):
    """The page's pairs: colours to the bit, echoes as GDAL warps them, and no label where the strip ends."""
    shape, place = (3, 400, 400), from_origin(500_000, 5_700_000, 0.5, 0.5)
    load.raster(db, write_tiff(folder / "rgb.tif", scene(5, shape), crs="EPSG:32631", transform=place), "optical_rgb")
    echoes = scene(6, (4, 300, 300), "float32")
    echoes[:, :, 150:] = 0
    place = from_origin(500_000 - 20, 5_700_000 + 20, 0.8, 0.8)
    load.raster(db, write_tiff(folder / "sar.tif", echoes, crs="EPSG:32631", transform=place, nodata=0), "sar_intensity")
    with db.connection() as conn:
        conn.execute("CREATE TABLE buildings (geom geometry(Polygon, 32631)); CREATE INDEX ON buildings USING gist (geom)")
        conn.execute("INSERT INTO buildings VALUES (ST_MakeEnvelope(500050, 5699850, 500150, 5699950, 32631))")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(code, names)
    batch = next(iter(names["pairs"]))
    assert [(batch[key].dtype, *batch[key].shape[1:]) for key in ("rgb", "sar", "mask")] == [
        (torch.uint8, 3, 128, 128), (torch.float32, 4, 128, 128), (torch.int64, 128, 128),
    ]  # fmt: skip
    ends = (500_000 - 20) + 150 * 0.8
    for bounds, valid, mask in zip(batch["bounds"], batch["sar_valid"], batch["mask"], strict=True):
        x = bounds[0].item() + (torch.arange(128) + 0.5) * 0.5
        assert torch.equal(valid, (x < ends).expand(128, 128))
        assert torch.equal(mask == 255, ~valid)
    assert {0, 1, 255} == set(batch["mask"].unique().tolist())
    three = Tiles(Grid(srid=32631, resolution=0.31, size=1500), np.array([0]), np.array([0]))  # the figures of the page
    assert [three.at(pixel).grid.shape for pixel in (1.24, 7.5)] == [(375, 375), (62, 62)]


def test_the_page_runs(db, database_url, tmp_path, monkeypatch):
    """Each block of it, one after the other, on tables like those it speaks of."""
    monkeypatch.setenv("PGTILES_URL", database_url)
    for name, pixel, shape, dtype in (
        ("s2_10m", 10, (4, 1200, 1200), "uint16"),
        ("s2_20m", 20, (6, 600, 600), "uint16"),
        ("s2_60m", 60, (1, 200, 200), "uint16"),
        ("landcover_10m", 10, (1, 1200, 1200), "uint8"),
    ):
        place = from_origin(600_000, 5_300_040, pixel, pixel)
        path = write_tiff(tmp_path / f"{name}.tif", scene(pixel, shape, dtype), crs="EPSG:32632", transform=place)
        load.raster(db, path, name)
    with db.connection() as conn:
        conn.execute("CREATE TABLE planet_osm_line (osm_id int8, highway text, way geometry(LineString, 3857))")
        conn.execute("CREATE INDEX ON planet_osm_line USING gist (way)")
        conn.execute(
            "INSERT INTO planet_osm_line SELECT n, 'residential', ST_Transform(ST_SetSRID(ST_MakeLine("
            "ST_MakePoint(600000, 5300040 - 120 * n), ST_MakePoint(612000, 5300040 - 121 * n)), 32632), 3857) "
            "FROM generate_series(1, 90) AS n; ANALYZE planet_osm_line"
        )
    page = (Path(__file__).parents[1] / "docs" / "imagery.md").read_text()
    first, radar, second = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    (statements,) = re.findall(r"^```sql\n(.*?)^```$", page, re.M | re.S)
    names = {}
    exec(compile(first, "imagery.md", "exec"), names)
    assert [layer.path for layer in names["dataset"].plan.layers] == ["native"] * 3
    assert [names["batch"][key].shape[-1] for key in ("image", "swir", "aerosol")] == [252, 126, 42]
    with db.connection() as conn:
        conn.execute(statements)
    check_radar(db, tmp_path, dict(names), compile(radar, "imagery.md", "exec"))
    exec(compile(second, "imagery.md", "exec"), names)
    batch = next(iter(names["dataset"]))
    assert [batch[key].shape[-1] for key in ("image", "mask", "roads")] == [126, 126, 126]
    assert batch["roads"].any()
    coarse = Tiles.random(Grid(srid=32632, resolution=50, size=32), within=(600_000, 5_288_100, 612_000, 5_300_000), count=2)
    assert "overview public.o_4_s2_10m" in Plan.open(db, coarse, {"image": Imagery("s2_10m")}).layers[0].why
