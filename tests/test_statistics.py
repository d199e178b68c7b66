"""Statistics of a dataset: rasterio, NumPy and geodesics of pyproj say what is right."""

import json
import math
import pickle
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
import torch
from conftest import RES, X0, Y0, ask, features, scene, write_tiff
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import from_bounds

from pgtiles import (
    Boxes,
    BySrid,
    Grid,
    Imagery,
    Labels,
    Normalize,
    Statistics,
    TileDataset,
    Tiles,
    TimeSeries,
    Vectors,
    baked,
    load,
)
from pgtiles.errors import ConfigError, DataError, MissingError, PgtilesWarning, QueryError
from pgtiles.inspection.bins import ERROR
from pgtiles.inspection.measuring import QUANTILES

ROOT = Path(__file__).parents[1]
ROADS = "SELECT way AS geom, class AS value FROM roads WHERE way && tile.geom"


def windows(path, tiles):
    """What rasterio reads of a file on each tile, and where it has data: (tiles, bands, height, width), twice."""
    height, width = tiles.grid.shape
    read = []
    with rasterio.open(path) as file:
        for bounds in tiles.bounds:
            window = from_bounds(*bounds, file.transform).round_offsets().round_lengths()
            read.append(
                [
                    file.read(window=window, boundless=True, masked=False, fill_value=0),
                    file.read_masks(window=window, boundless=True) > 0,
                ]
            )
    pixels, there = (np.stack(arrays) for arrays in zip(*read, strict=True))
    assert pixels.shape[-2:] == (height, width)
    return pixels, there


def hold(bands, pixels, there):
    """Each band's statistics against NumPy's, of the same pixels."""
    assert len(bands) == pixels.shape[1]
    for band, one in enumerate(bands):
        values, where = pixels[:, band], there[:, band] & ~np.isnan(pixels[:, band])
        met = values[where]
        whole = met.dtype.kind != "f"
        assert one.pixels == met.size
        assert one.nodata == (values.size - met.size) / values.size
        assert (one.min, one.max) == (met.min(), met.max())
        wanted = np.quantile(met, QUANTILES, method="inverted_cdf").astype("float64")
        if whole:
            total, squares = sum(met.tolist()), sum(value * value for value in met.tolist())
            assert one.mean == total / met.size
            assert one.std == math.sqrt(Fraction(squares, met.size) - Fraction(total, met.size) ** 2)
            assert list(one.quantiles.values()) == wanted.tolist()
            assert one.counts == np.histogram(met, [*one.edges[:-1], one.edges[-1] - 0.5])[0].tolist()
        else:
            assert one.mean == pytest.approx(met.mean(dtype="float64"), rel=1e-12)
            assert one.std == pytest.approx(met.std(dtype="float64"), rel=1e-12)
            assert (np.abs(np.array(list(one.quantiles.values())) - wanted) <= ERROR * np.abs(wanted)).all()
            assert sum(one.counts) == met.size


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=50, seed=3)


@pytest.fixture(scope="module")
def layers():
    return {"image": Imagery("scene"), "mask": Labels(ROADS, background=0)}


@pytest.fixture(scope="module")
def dataset(world, tiles, layers):
    return TileDataset(world.db, tiles, layers, connections=2)


class TestBands:
    def test_bytes_equal_numpys(self, world, dataset, tiles):
        pixels, there = windows(world.tif, tiles)
        found = dataset.statistics()
        hold(found.bands["image"], pixels, there)
        assert (found.tiles, found.of) == (50, 50)
        assert found.bands["image"][0].nodata == 0
        assert found.bands["image"][0].interval == (found.bands["image"][0].mean,) * 2

    @pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
    def test_nodata_and_the_edge_of_the_imagery_are_left_out(self, schema_db, tmp_path, dtype):
        """Tiles that reach beyond the imagery; what it has no data in is 0 in a batch, and in no mean."""
        pixels = scene(1, (2, 300, 300), dtype)
        nodata = {"uint16": 0, "int16": -9999, "float32": -9999}[dtype]
        pixels[:, 40:90, 60:200] = nodata
        if dtype == "float32":
            pixels[0, 100:140, 20:30] = np.nan
        tif = write_tiff(tmp_path / "t.tif", pixels, nodata=nodata)
        load.raster(schema_db, [tif], "t")
        beyond = X0 - 50 * RES, Y0 - 330 * RES, X0 + 330 * RES, Y0 + 50 * RES
        tiles = Tiles.random(Grid.like(schema_db, "t", size=64), within=beyond, count=30, seed=4)
        for layer in (Imagery("t"), Imagery("t", fill=7), Imagery("t", valid=True)):
            dataset = TileDataset(schema_db, tiles, {"image": layer})
            found = dataset.statistics().bands["image"]
            hold(found, *windows(tif, tiles))
            assert 0.05 < found[0].nodata < 0.5

    def test_each_band_has_its_own_nodata(self, schema_db, tmp_path):
        pixels = scene(2, (3, 128, 128))
        pixels[:, 20:40, 20:40] = 250
        pixels[:, 50:60, 20:90] = 7
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", pixels)], "t")
        for (name,) in ask(schema_db, "SELECT conname FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"):
            with schema_db.connection() as conn:
                conn.execute(f"ALTER TABLE t DROP CONSTRAINT {name}")
        with schema_db.connection() as conn:
            conn.execute("UPDATE t SET rast = ST_SetBandNoDataValue(ST_SetBandNoDataValue(rast, 1, 250), 2, 7)")
        tiles = Tiles.sliding(Grid.like(schema_db, "t", size=64), within=schema_db.extent("t", 3857))
        found = TileDataset(schema_db, tiles, {"image": Imagery("t")}).statistics().bands["image"]
        there = np.stack([pixels[0] != 250, pixels[1] != 7, np.ones_like(pixels[2], bool)])
        hold(found, pixels[None], there[None])
        assert found[0].nodata != found[1].nodata != found[2].nodata == 0

    def test_warped_imagery_is_what_a_batch_shows(self, world, quiet):
        grid = Grid(srid=32632, resolution=3, size=64)
        tiles = Tiles.random(grid, within=world.db.extent("scene", 32632), count=12, seed=5)
        dataset = TileDataset(world.db, tiles, {"image": Imagery("scene", fill=0, valid=True)}, shuffle=False, batch_size=12)
        batch = next(iter(dataset))
        there = np.broadcast_to(batch["image_valid"].numpy()[:, None], batch["image"].shape)
        hold(dataset.statistics().bands["image"], batch["image"].numpy(), there)

    def test_a_time_series(self, schema_db, tmp_path):
        pixels = [scene(n, (2, 96, 96)) for n in range(3)]
        paths = [write_tiff(tmp_path / f"{n}.tif", each) for n, each in enumerate(pixels)]
        load.raster(schema_db, paths, "s")
        with schema_db.connection() as conn:
            conn.execute("ALTER TABLE s ADD day date")
            conn.execute("UPDATE s SET day = date '2024-01-01' + substring(filename FROM '\\d')::int")
        tiles = Tiles.sliding(Grid.like(schema_db, "s", size=48), within=schema_db.extent("s", 3857))
        found = TileDataset(schema_db, tiles, {"image": Imagery("s", time=TimeSeries("day", steps=4))}).statistics()
        every = np.concatenate([np.stack(pixels), np.zeros((1, 2, 96, 96), "uint8")])  # the fourth step is missing
        there = np.ones(every.shape, bool)
        there[3] = False
        hold(found.bands["image"], every, there)

    def test_infinite_pixels_are_said(self, schema_db, tmp_path):
        pixels = np.ones((1, 64, 64), "float32")
        pixels[0, 3, 4] = np.inf
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", pixels)], "t")
        tiles = Tiles.sliding(Grid.like(schema_db, "t", size=64), within=schema_db.extent("t", 3857))
        dataset = TileDataset(schema_db, tiles, {"image": Imagery("t")})
        with pytest.warns(PgtilesWarning, match="layer 'image', band 1: 1 pixels are infinite, and left out"):
            (band,) = dataset.statistics().bands["image"]
        assert (band.infinite, band.pixels, band.mean, band.std) == (1, 64 * 64 - 1, 1, 0)

    def test_a_value_too_large_is_told_with_its_band(self, schema_db, tmp_path):
        pixels = np.ones((2, 64, 64))
        pixels[1, 3, 4] = 1.797e308
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", pixels)], "t")
        tiles = Tiles.sliding(Grid.like(schema_db, "t", size=64), within=schema_db.extent("t", 3857))
        dataset = TileDataset(schema_db, tiles, {"image": Imagery("t")})
        with pytest.raises(DataError, match=r"layer 'image', band 2: pixel value 1.797e\+308: expected numbers up to 1e\+100"):
            dataset.statistics()

    def test_vectors_as_an_image_and_floats_in_a_mask(self, world, tiles):
        layers = {
            "map": Vectors({"road": "roads", "area": "areas"}),
            "height": Labels("SELECT way AS geom, class * 1.5 AS value FROM areas WHERE way && tile.geom", dtype="float32"),
            "boxes": Boxes("SELECT way AS geom, class AS label, id FROM areas WHERE way && tile.geom"),
        }
        dataset = TileDataset(world.db, tiles, layers, shuffle=False, batch_size=len(tiles))
        batch, found = next(iter(dataset)), dataset.statistics()
        assert found.bands.keys() == {"map", "height"}
        assert not found.classes
        hold(found.bands["map"], batch["map"].numpy(), np.ones(batch["map"].shape, bool))
        height = batch["height"].numpy()[:, None]
        hold(found.bands["height"], height, np.ones(height.shape, bool))

    def test_floats_beyond_the_coverage_or_around_features_are_no_data(self, schema_db):
        """4 × 4 pixels of 7, of which the coverage knows 8; of 4 × 4 with one of 5, a band of one pixel around is ignored."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE a (geom geometry(Polygon, 3857))")
            conn.execute("INSERT INTO a VALUES (ST_MakeEnvelope(0, 0, 4, 4, 3857)); CREATE INDEX ON a USING gist (geom)")
            conn.execute("CREATE TABLE b (geom geometry(Polygon, 3857))")
            conn.execute("INSERT INTO b VALUES (ST_MakeEnvelope(1, 1, 2, 2, 3857)); CREATE INDEX ON b USING gist (geom)")
        tiles = Tiles.sliding(Grid(srid=3857, resolution=1, size=4), within=(0, 0, 4, 4))
        layers = {
            "half": Labels("a", value=7, dtype="float32", ignore_index=-9999.1, coverage=shapely.box(0, 0, 2, 4)),
            "ring": Labels("b", value=5, dtype="float64", ignore_index=-9999, contact=1),
        }
        dataset = TileDataset(schema_db, tiles, layers)
        found = dataset.statistics().bands
        ring = next(iter(dataset))["ring"].numpy()
        assert [(one.pixels, one.nodata, one.mean, one.min, one.max) for one in found["half"]] == [(8, 0.5, 7, 7, 7)]
        met = ring[ring != -9999]
        assert 0 < met.size < 16
        assert [(one.pixels, one.nodata, one.mean, one.min) for one in found["ring"]] == [
            (met.size, 1 - met.size / 16, met.mean(), 0)
        ]

    @pytest.mark.parametrize("resampling", ["nearest", "mode"])
    def test_a_label_raster_of_floats_has_nodata(self, schema_db, tmp_path, resampling):
        pixels = np.full((1, 64, 64), 5, "float32")
        pixels[0, :, 32:] = -9999
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", pixels, nodata=-9999)], "t")
        grid = Grid(srid=3857, resolution=RES * (2 if resampling == "mode" else 1), size=16, origin=(X0, Y0))
        tiles = Tiles.sliding(grid, within=schema_db.extent("t", 3857))
        mask = Labels("t", dtype="float32", background=-1, resampling=resampling)
        (band,) = TileDataset(schema_db, tiles, {"height": mask}).statistics().bands["height"]
        assert (band.mean, band.min, band.max, band.nodata) == (5, 5, 5, 0.5)

    def test_a_label_raster_of_floats_where_imagery_is_missing(self, schema_db, tmp_path):
        image, heights = np.full((1, 64, 64), 9, "uint8"), np.full((1, 64, 64), 5, "float32")
        image[0, :16], heights[0, :, :16] = 0, 3
        load.raster(schema_db, [write_tiff(tmp_path / "i.tif", image, nodata=0)], "i")
        load.raster(schema_db, [write_tiff(tmp_path / "h.tif", heights)], "h")
        layers = {
            "image": Imagery("i", valid=True),
            "height": Labels("h", dtype="float32", ignore_index=-9999, ignore_missing="image"),
        }
        tiles = Tiles.sliding(Grid.like(schema_db, "i", size=64), within=schema_db.extent("i", 3857))
        found = TileDataset(schema_db, tiles, layers).statistics().bands
        assert [(one.pixels, one.mean, one.min, one.nodata) for one in found["height"]] == [(48 * 64, 4.5, 3, 0.25)]
        assert [(one.pixels, one.mean) for one in found["image"]] == [(48 * 64, 9)]


class TestClasses:
    def test_pixels_equal_rasterios(self, world, tiles, dataset):
        found = dataset.statistics().classes["mask"]
        made = features()
        order = sorted(range(len(made.lines)), key=made.value)
        burned = np.stack([
            rasterize(
                [(made.lines[n], made.value(n)) for n in order], out_shape=tiles.grid.shape,
                transform=from_origin(bounds[0], bounds[3], *tiles.grid.pixel), dtype="uint8",
            )
            for bounds in tiles.bounds
        ])  # fmt: skip
        assert found.keys() == {0, 1, 2, 3, 4}
        for value, one in found.items():
            assert one.pixels == (burned == value).sum()
            assert one.share == (burned == value).mean()
            assert one.tiles == (burned == value).any(axis=(1, 2)).sum()
            assert one.beside == one.tiles * 64 * 64

    def test_areas_are_of_the_ground(self, world, tiles, dataset):
        """A square metre of EPSG:3857 is less than half of one here; pyproj has the geodesics."""
        found = dataset.statistics().classes["mask"]
        geod, to = pyproj.Geod(ellps="WGS84"), pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
        ground = [
            abs(
                geod.geometry_area_perimeter(shapely.transform(shapely.box(*b), lambda xy: np.stack(to.transform(*xy.T), 1)))[0]
            )
            for b in tiles.bounds
        ]
        assert sum(one.area for one in found.values()) == pytest.approx(sum(ground), rel=1e-6)
        assert sum(ground) < 0.5 * 50 * (64 * RES) ** 2

    def test_ignored_pixels_are_no_class(self, world, tiles):
        coverage = shapely.box(X0, Y0 - 1000, X0 + 1200, Y0)
        mask = Labels(ROADS, coverage=coverage, ignore_index=255)
        dataset = TileDataset(world.db, tiles, {"mask": mask}, shuffle=False, batch_size=len(tiles))
        burned, found = next(iter(dataset))["mask"].numpy(), dataset.statistics()
        assert 255 not in found.classes["mask"]
        assert found.ignored["mask"] == (burned == 255).mean() > 0.1
        for value, one in found.classes["mask"].items():
            assert one.share == (burned == value).sum() / (burned != 255).sum()

    def test_an_ignored_0_is_no_rare_class(self, world, tiles, tmp_path):
        """It weighs nothing, without a warning; the others as if it were not there."""
        coverage = shapely.box(X0, Y0 - 1000, X0 + 1200, Y0)
        mask = Labels(ROADS, coverage=coverage, ignore_index=0, background=5)
        dataset = TileDataset(world.db, tiles, {"mask": mask}, shuffle=False, batch_size=len(tiles))
        burned, found = next(iter(dataset))["mask"].numpy(), dataset.statistics()
        counts = np.bincount(burned.ravel())[1:]
        wanted = np.append(0, counts.sum() / (len(counts) * counts)).astype("float32")
        np.testing.assert_allclose(found.class_weights(), wanted, rtol=1e-7)
        found.save(tmp_path / "s.json")
        np.testing.assert_allclose(Statistics.load(tmp_path / "s.json").class_weights(kind="median")[0], 0)
        assert len(found.class_weights(count=6)) == 6

    def test_names_and_classes_that_never_occur(self, world, tiles):
        classes = {"small": "class = 1", "no such": "class = 77"}
        dataset = TileDataset(world.db, tiles, {"mask": Labels("roads", classes=classes)})
        found = dataset.statistics()
        assert [(value, one.name) for value, one in found.classes["mask"].items()] == [(0, ""), (1, "small"), (2, "no such")]
        assert (found.classes["mask"][2].pixels, found.classes["mask"][2].share) == (0, 0)
        with pytest.warns(
            PgtilesWarning, match="layer 'mask': no pixel of class 2 was met in 50 tiles: weighted as the rarest"
        ):
            weights = found.class_weights()
        assert weights[2] == weights[1] == max(weights)

    def test_a_sample_without_a_class_does_not_say_that_there_is_none(self, world, tiles):
        classes = {"small": "class = 1", "no such": "class = 77"}
        dataset = TileDataset(world.db, tiles, {"mask": Labels("roads", classes=classes)})
        low, high = dataset.statistics(tiles=29).classes["mask"][2].interval
        assert (low, high) == (0, pytest.approx(0.098, abs=1e-3))  # 0.902 to the 29th is 0.05
        assert dataset.statistics().classes["mask"][2].interval == (0, 0)

    @pytest.fixture
    def by_hand(self, schema_db):
        """Four tiles of 4 × 4 pixels: 32 pixels of class 0 in three tiles, 24 of class 1 in two, 8 of class 2 in one."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE a (geom geometry(Polygon, 3857), value int)")
            conn.execute(
                "INSERT INTO a VALUES (ST_MakeEnvelope(4, 0, 8, 4, 3857), 1), (ST_MakeEnvelope(8, 2, 12, 4, 3857), 1), "
                "(ST_MakeEnvelope(0, 0, 4, 2, 3857), 2)"
            )
            conn.execute("CREATE INDEX ON a USING gist (geom)")
        tiles = Tiles.sliding(Grid(srid=3857, resolution=1, size=4), within=(0, 0, 16, 4))
        return TileDataset(schema_db, tiles, {"mask": Labels("a", value="value")})

    def test_weights_by_hand(self, by_hand):
        found = by_hand.statistics()
        assert {value: one.pixels for value, one in found.classes["mask"].items()} == {0: 32, 1: 24, 2: 8}
        wanted = np.array([64 / (3 * 32), 64 / (3 * 24), 64 / (3 * 8)], "float32")
        np.testing.assert_array_equal(found.class_weights("mask"), wanted)
        # in their tiles: 32 of 48, 24 of 32, 8 of 16; the median of 2/3, 3/4 and 1/2 is 2/3
        wanted = np.array([1, (2 / 3) / (3 / 4), (2 / 3) / (1 / 2)], "float32")
        np.testing.assert_allclose(found.class_weights("mask", kind="median"), wanted, rtol=1e-7)
        batch = next(iter(by_hand))["mask"]
        loss = torch.nn.CrossEntropyLoss(weight=torch.from_numpy(found.class_weights()))(torch.zeros(4, 3, 4, 4), batch)
        assert loss == pytest.approx(math.log(3))
        with pytest.warns(PgtilesWarning, match="classes 3, 4"):
            assert len(found.class_weights(count=5)) == 5

    @pytest.mark.parametrize(
        ("how", "says"),
        [
            ({"kind": "sqrt"}, "kind='sqrt': expected one of inverse, median"),
            ({"count": 2}, "count=2: layer 'mask' has a class 2, so expected 3 or more"),
            ({"layer": "image"}, "layer 'image' has no classes in these statistics: those with classes are mask"),
        ],
    )
    def test_wrong_weights(self, by_hand, how, says):
        with pytest.raises(ConfigError, match=re.escape(says)):
            by_hand.statistics().class_weights(**how)

    def test_values_that_are_no_classes(self, schema_db, by_hand):
        with schema_db.connection() as conn:
            conn.execute("UPDATE a SET value = -5 WHERE value = 2")
        with pytest.raises(ConfigError, match="values from -5 to 1: expected classes from 0 to 65535"):
            by_hand.statistics().class_weights()


class TestDrawnTiles:
    """Ten tiles of 8 × 8 pixels, each of one value, 0 to 9."""

    @pytest.fixture
    def ten(self, schema_db, tmp_path):
        pixels = np.repeat(np.arange(10, dtype="uint8"), 8)[None, None].repeat(8, axis=1)
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", pixels)], "t")
        return Tiles.sliding(Grid.like(schema_db, "t", size=8), within=schema_db.extent("t", 3857))

    def make(self, db, tiles, **more):
        return TileDataset(db, tiles, {"image": Imagery("t"), "mask": Labels("t")}, **more)

    def test_weights_count(self, schema_db, ten):
        """200 draws of value 1, and 600 of value 7: a tile comes exactly as often as its weight says."""
        dataset = self.make(schema_db, ten.weighted([0, 1, 0, 0, 0, 0, 0, 3, 0, 0], count=800))
        found = dataset.statistics()
        pixels = np.repeat([1, 7], [200, 600])
        [band] = found.bands["image"]
        assert (found.tiles, found.of, band.pixels, band.mean) == (800, 800, 800 * 64, pixels.mean())
        assert band.std == pytest.approx(pixels.std(), rel=1e-12)
        assert {value: one.share for value, one in found.classes["mask"].items()} == {1: 0.25, 7: 0.75}
        with pytest.warns(PgtilesWarning, match="no pixel of classes 0, 2, 3"):
            weights = found.class_weights()
        np.testing.assert_array_equal(weights[[1, 7]], np.array([2, 2 / 3], "float32"))
        assert "800 of 800 tiles of an epoch" in str(found)

    def test_they_are_the_tiles_of_the_first_epoch(self, schema_db, ten):
        for draws in (ten.weighted(np.arange(10), count=7), Tiles.fresh(ten.grid, count=7, within=schema_db.extent("t", 3857))):
            dataset = self.make(schema_db, draws, seed=5, batch_size=7)
            dataset.set_epoch(0)
            pixels = next(iter(dataset))["image"].numpy()
            assert dataset.statistics().bands["image"][0].mean == pixels.sum(dtype=int) / pixels.size

    def test_another_epoch_is_within_the_interval(self, schema_db, ten):
        """One epoch does not say it all: of the mean of all that could be drawn, 4.5, there is an interval about it."""
        covered = []
        for seed in range(30):
            found = self.make(schema_db, ten.weighted(np.ones(10), count=25), seed=seed).statistics(tiles=12)
            low, high = found.bands["image"][0].interval
            covered.append(low <= 4.5 <= high)
            assert low < high
        assert np.mean(covered) > 0.8
        low, high = self.make(schema_db, ten.weighted(np.ones(10), count=25)).statistics().bands["image"][0].interval
        assert low < 4.5 < high

    def test_a_file_knows_the_weights(self, schema_db, ten, tmp_path):
        even, odd = (self.make(schema_db, ten.weighted(weights)) for weights in (np.ones(10), np.arange(1, 11)))
        even.statistics().save(tmp_path / "s.json")
        assert Statistics.load(tmp_path / "s.json", of=even) == even.statistics()
        with pytest.raises(ConfigError, match="drawn weights was"):
            Statistics.load(tmp_path / "s.json", of=odd)
        with pytest.raises(ConfigError, match=r"drawn was .*, now null"):
            Statistics.load(tmp_path / "s.json", of=self.make(schema_db, ten))


class TestSeveralGrids:
    """Two zones of UTM, of which one has imagery of bytes with nodata, and the other one of 16 bits."""

    @pytest.fixture
    def across(self, schema_db, tmp_path):
        tiles, every, there = None, [], []
        for n, (srid, dtype) in enumerate({32632: "uint8", 32633: "uint16"}.items()):
            pixels = scene(n, (2, 128, 128), dtype)
            pixels[:, 30:90, 10:70] = 3
            tif = write_tiff(
                tmp_path / f"{srid}.tif",
                pixels,
                crs=f"EPSG:{srid}",
                nodata=3,
                transform=from_origin(400_000, 5_300_000, 10, 10),
            )
            load.raster(schema_db, [tif], f"s{srid}")
            own = Tiles.sliding(Grid.like(schema_db, f"s{srid}", size=32), within=schema_db.extent(f"s{srid}", srid))
            own = Tiles(own.grid, own.cols, own.rows, own.ids + 100 * n)
            read, data = windows(tif, own)
            every.append(read)
            there.append(data)
            tiles = own if tiles is None else tiles + own
        image = BySrid({srid: Imagery(f"s{srid}", dtype="uint16", fill=1) for srid in (32632, 32633)})
        around = "SELECT ST_Expand(ST_Centroid(tile.geom), 50) AS geom, ST_SRID(tile.geom) - 32631 AS value"
        layers = {"image": image, "mask": Labels(around)}
        pixels = np.concatenate([array.astype("uint16") for array in every])
        return TileDataset(schema_db, tiles, layers), pixels, np.concatenate(there)

    def test_they_are_read_each_by_its_own(self, across):
        dataset, pixels, there = across
        found = dataset.statistics()
        hold(found.bands["image"], pixels, there)
        assert {value: one.pixels for value, one in found.classes["mask"].items()} == {
            0: 32 * (1024 - 100), 1: 16 * 100, 2: 16 * 100
        }  # fmt: skip
        assert sum(one.area for one in found.classes["mask"].values()) == pytest.approx(2 * 1280**2, rel=2e-3)
        assert dataset.statistics(tiles=9, seed=1) == dataset.statistics(tiles=9, seed=1) != found

    def test_the_file_knows_them(self, across, tmp_path):
        dataset, _, _ = across
        dataset.statistics().save(tmp_path / "s.json")
        assert Statistics.load(tmp_path / "s.json", of=dataset) == dataset.statistics()
        other = TileDataset(dataset.db, dataset.tiles[::-1], dataset.layers)
        with pytest.raises(ConfigError, match="another dataset: tiles sha256"):
            Statistics.load(tmp_path / "s.json", of=other)


class TestReading:
    def test_it_is_the_same_for_any_number_of_connections(self, world, tiles, layers, dataset):
        for connections in (1, 3):
            assert TileDataset(world.db, tiles, layers, connections=connections).statistics() == dataset.statistics()

    def test_nothing_is_read_twice(self, world, dataset):
        said = []
        found = dataset.statistics(progress=lambda done, all_: said.append((done, all_)))
        assert said == sorted(said)
        assert said[-1] == (50, 50)
        assert found.bands["image"][0].pixels == sum(one.pixels for one in found.classes["mask"].values()) == 50 * 64 * 64

    def test_a_sample_is_the_seeds(self, dataset):
        ten, again, other, larger = (
            dataset.statistics(tiles=many, seed=seed) for many, seed in ((10, 1), (10, 1), (10, 2), (0.5, 1))
        )
        assert ten == again != other
        assert (ten.tiles, larger.tiles, larger.of) == (10, 25, 50)
        low, high = ten.bands["image"][0].interval
        assert low < ten.bands["image"][0].mean < high
        narrow = larger.bands["image"][0].interval
        assert narrow[1] - narrow[0] < high - low

    def test_the_interval_covers_the_mean_of_all_tiles(self, dataset):
        everything = dataset.statistics()
        mean, share = everything.bands["image"][0].mean, everything.classes["mask"][0].share
        covered = np.zeros(2)
        for seed in range(40):
            sample = dataset.statistics(tiles=12, seed=seed)
            pairs = ((mean, sample.bands["image"][0].interval), (share, sample.classes["mask"][0].interval))
            covered += [low <= value <= high for value, (low, high) in pairs]
        assert (covered / 40 > 0.85).all()

    @pytest.mark.parametrize("many", [0, 51, -1, 1.5, 0.0, True, "10", math.nan])
    def test_a_wrong_sample(self, dataset, many):
        with pytest.raises(ConfigError, match=r"tiles=.*: expected how many tiles, 1 to 50, or a share of them"):
            dataset.statistics(tiles=many)

    def test_baked_tiles_have_the_same(self, db, tmp_path):
        pixels = scene(6, (2, 200, 200))
        pixels[:, 30:70, 30:70] = 9
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels, nodata=9)], "t")
        tiles = Tiles.random(Grid.like(db, "t", size=64), within=db.extent("t", 3857), count=20)
        live = TileDataset(db, tiles, {"image": Imagery("t")})
        live.bake("kept")
        assert TileDataset(db, *baked(db, "kept")).statistics().bands == live.statistics().bands

    def test_an_error_comes_out_and_the_rest_is_not_read(self, schema_db, tmp_path):
        load.raster(schema_db, [write_tiff(tmp_path / "t.tif", scene(0, (1, 300, 300)))], "t")
        tiles = Tiles.random(Grid.like(schema_db, "t", size=32), within=schema_db.extent("t", 3857), count=300)
        dataset = TileDataset(schema_db, tiles, {"image": Imagery("t")})
        dataset.statistics(tiles=3)
        with schema_db.connection() as conn:
            conn.execute("ALTER TABLE t RENAME TO gone")
        said = []
        with pytest.raises(QueryError, match=r"layer 'image', tile \d+ at"):
            dataset.statistics(progress=lambda *both: said.append(both))
        assert not said

    def test_layers_without_pixels(self, world, tiles):
        boxes = Boxes("SELECT way AS geom, class AS label, id FROM areas WHERE way && tile.geom")
        with pytest.raises(ConfigError, match="none of the layers boxes has pixels"):
            TileDataset(world.db, tiles, {"boxes": boxes}).statistics()


class TestKept:
    def test_a_file_brings_back_all(self, dataset, tmp_path):
        for found in (dataset.statistics(tiles=7), dataset.statistics()):
            found.save(tmp_path / "s.json")
            assert Statistics.load(tmp_path / "s.json") == found
            assert Statistics.load(tmp_path / "s.json", of=dataset) == found
        json.loads((tmp_path / "s.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
        assert pickle.loads(pickle.dumps(found)) == found

    def test_nan_comes_back(self, dataset, tmp_path):
        dataset.statistics(tiles=1).save(tmp_path / "s.json")
        found = Statistics.load(tmp_path / "s.json")
        assert np.isnan(found.bands["image"][0].interval).all()
        assert "NaN" not in (tmp_path / "s.json").read_text()

    def test_another_dataset_is_told(self, world, tiles, layers, dataset, tmp_path):
        dataset.statistics(tiles=4).save(tmp_path / "s.json")
        others = {
            r"tiles count was 50, now 49": TileDataset(world.db, tiles[1:], layers),
            r"tiles sha256 was": TileDataset(world.db, tiles[::-1], layers),
            r"layers image bands was null, now \[1, 2\]": TileDataset(
                world.db, tiles, layers | {"image": Imagery("scene", bands=(1, 2))}
            ),
        }
        for says, other in others.items():
            with pytest.raises(ConfigError, match=f"holds the statistics of another dataset: .*{says}"):
                Statistics.load(tmp_path / "s.json", of=other)

    def test_a_failure_leaves_the_old_file(self, dataset, tmp_path):
        found = dataset.statistics(tiles=4)
        found.save(tmp_path / "s.json")
        before = (tmp_path / "s.json").read_bytes()
        found.source["layers"]["image"] = object()
        with pytest.raises(TypeError):
            found.save(tmp_path / "s.json")
        assert (tmp_path / "s.json").read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["s.json"]

    @pytest.mark.parametrize(
        ("text", "error", "says"),
        [
            (None, MissingError, "there is no file"),
            ("{", DataError, "holds no statistics"),
            ("[1]", DataError, "holds no statistics"),
            ('{"a": 1}', DataError, "holds no statistics"),
            ('{"pgtiles statistics": 1}', DataError, "holds no statistics"),
            ('{"pgtiles statistics": 1, "bands": {"image": [{"mean": 1}]}, "classes": {}}', DataError, "holds no statistics"),
            ('{"pgtiles statistics": 1, "bands": [], "classes": {}}', DataError, "holds no statistics"),
            ('{"pgtiles statistics": 99}', DataError, "format 99, known is 1"),
        ],
    )
    def test_what_is_no_file_of_statistics(self, tmp_path, text, error, says):
        if text is not None:
            (tmp_path / "s.json").write_text(text)
        with pytest.raises(error, match=says):
            Statistics.load(tmp_path / "s.json")

    def test_it_prints_as_a_table(self, dataset):
        text = str(dataset.statistics(tiles=10, seed=3))
        assert text.startswith("10 of 50 tiles, drawn by seed 3, intervals at 95 %\n")
        assert len(re.findall(r"^[123] +\d", text, re.M)) >= 3
        assert "mask: class" in text


@pytest.fixture(scope="module")
def found(dataset):
    return dataset.statistics()


class TestNormalize:
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64, torch.float32, torch.float64])
    @pytest.mark.parametrize("front", [(), (2,), (2, 4)])
    def test_any_shape_and_dtype(self, found, dtype, front):
        normalize = Normalize.from_statistics(found)
        pixels = np.random.default_rng(0).integers(0, 255, (*front, 3, 5, 6))
        got = normalize(torch.from_numpy(pixels).to(dtype))
        assert got.dtype == torch.float32
        wanted = (pixels - found.mean()[:, None, None]) / found.std()[:, None, None]
        np.testing.assert_allclose(got.numpy(), wanted, atol=1e-5)

    def test_a_dataset_normalised_by_its_own_statistics(self, world, tiles, layers, found):
        """As its transform: mean 0, standard deviation 1, and the mask as it was."""
        options = {"shuffle": False, "batch_size": len(tiles)}
        plain = next(iter(TileDataset(world.db, tiles, layers, **options)))
        batch = next(iter(TileDataset(world.db, tiles, layers, transform=Normalize.from_statistics(found), **options)))
        assert batch["image"].mean(dim=(0, 2, 3)).abs().max() < 1e-4
        assert (batch["image"].std(dim=(0, 2, 3)) - 1).abs().max() < 1e-4
        assert (batch["mask"] == plain["mask"]).all()
        again = Normalize.from_statistics(found)(plain)
        torch.testing.assert_close(again["image"], batch["image"])
        assert plain["image"].dtype == torch.uint8  # a copy, not hers

    def test_it_is_part_of_a_model(self, found):
        model = torch.nn.Sequential(Normalize.from_statistics(found), torch.nn.Conv2d(3, 2, 1))
        assert {"0.mean", "0.std"} <= model.state_dict().keys()
        assert not list(model[0].parameters())
        assert model(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).shape == (1, 2, 4, 4)
        assert {name: tuple(values.shape) for name, values in model[0].state_dict().items()} == {
            "mean": (3, 1, 1), "std": (3, 1, 1)
        }  # fmt: skip
        assert pickle.loads(pickle.dumps(model[0])).layer == "image"

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_a_model_of_another_dtype(self, dtype):
        """Pressures about 101325 Pa, and 16 bits: float16 ends at 65504, and bfloat16 tells 256 from 258."""
        normalize = Normalize([101_325.0, 65_000.0], [500.0, 400.0])
        model = torch.nn.Sequential(normalize, torch.nn.Conv2d(2, 2, 1)).to(dtype)
        pixels = np.array([[[101_325.0, 101_825.0]], [[65_535.0, 64_600.0]]])
        wanted = (pixels - [[[101_325]], [[65_000]]]) / [[[500]], [[400]]]
        for module in (normalize, normalize.to("cpu"), pickle.loads(pickle.dumps(normalize))):
            got = module(torch.from_numpy(pixels))
            assert got.dtype == dtype
            np.testing.assert_allclose(got.double().numpy(), wanted, rtol=1e-2, atol=1e-3)
        assert model(torch.from_numpy(pixels)[None]).dtype == dtype
        assert model.float()[0](torch.from_numpy(pixels)).dtype == torch.float32

    def test_it_is_exported_with_a_model(self):
        model = torch.nn.Sequential(Normalize([10.0, 20.0], [2.0, 4.0]), torch.nn.Conv2d(2, 2, 1))
        pixels = torch.full((1, 2, 4, 4), 14, dtype=torch.uint8)
        exported = torch.export.export(model, (pixels,)).module()
        torch.testing.assert_close(exported(pixels), model(pixels))
        assert (model[0](pixels)[0, :, 0, 0] == torch.tensor([2.0, -1.5])).all()

    def test_a_band_of_one_value(self):
        with pytest.warns(PgtilesWarning, match="all pixels of band 2 are equal in float32, and become 0"):
            normalize = Normalize([1, 5], [2, 0])
        assert normalize(torch.full((2, 3, 3), 5.0))[1].abs().max() == 0

    @pytest.mark.parametrize(("mean", "std"), [(0.2, 1.4e-17), (0.0, 1e-50), (0.0, 1e-42), (1e9, 20.0), (1e30, 0.0)])
    def test_a_spread_that_float32_does_not_hold(self, mean, std):
        """Neither NaN, which 0 by 0 is, nor the huge numbers that the last bit by a tiny spread is."""
        with pytest.warns(PgtilesWarning, match="all pixels of band 1 are equal in float32"):
            normalize = Normalize([mean], [std])
        got = normalize(torch.full((1, 2, 2), mean, dtype=torch.float64))
        assert got.abs().max() < 1e-6

    def test_a_small_spread_that_float32_holds_is_kept(self):
        assert Normalize([0.0], [1e-30])(torch.full((1, 1, 1), 2e-30)).item() == pytest.approx(2)
        assert Normalize([280.0], [1e-3])(torch.full((1, 1, 1), 280.0)).item() == 0

    @pytest.mark.parametrize(
        ("make", "says"),
        [
            (lambda: Normalize([1, 2], [1]), "expected a number for each band"),
            (lambda: Normalize([math.nan], [1]), "Has each band data?"),
            (lambda: Normalize([1], [-1]), "std of 0 or more"),
            (lambda: Normalize([1e39], [1]), "expected numbers that float32 holds, up to 3.4e+38"),
            (lambda: Normalize([0], [1e39]), "expected numbers that float32 holds, up to 3.4e+38"),
            (lambda: Normalize([1], [1])(torch.zeros(3, 4, 4)), r"shape (3, 4, 4): expected (…, 1, height, width)"),
            (lambda: Normalize([1], [1])({"pixels": 1}), "the sample has no 'image': expected that key among pixels"),
        ],
    )
    def test_wrong_arguments(self, make, says):
        with pytest.raises(ConfigError, match=re.escape(says)):
            make()


def test_the_page_runs(schema_db, world, tmp_path, monkeypatch):
    """Every block of it, one after the other."""
    load.raster(schema_db, [write_tiff(tmp_path / "t.tif", scene(7, (3, 500, 500)))], "sat_s2")
    rng = np.random.default_rng(8)
    with schema_db.connection() as conn:
        conn.execute("CREATE TABLE buildings (geom geometry(Polygon, 3857), floors int)")
        for (x, y), floors in zip(rng.uniform(0, 480 * RES, (300, 2)), rng.integers(1, 7, 300), strict=True):
            house = shapely.box(X0 + x, Y0 - y, X0 + x + 20, Y0 - y + 20)
            conn.execute("INSERT INTO buildings VALUES (ST_GeomFromWKB(%s, 3857), %s)", (house.wkb, int(floors)))
        conn.execute("CREATE INDEX ON buildings USING gist (geom); ANALYZE buildings")
    monkeypatch.setenv("PGTILES_URL", f"{world.url}?options=-csearch_path%3Dmine%2Cpublic")
    monkeypatch.chdir(tmp_path)
    names = {}
    page = (ROOT / "docs" / "tiles-statistics.md").read_text()
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(compile(code, "tiles-statistics.md", "exec"), names)
    assert f"```\n{names['found']}\n```" in page
    assert names["known"] == names["found"]
    batch = next(iter(names["train"]))
    assert batch["image"].dtype == torch.float32
    assert names["batch"]["image"].abs().max() < 6
    assert names["features"].shape == (8, 8, 126, 126)
    assert names["weight"].shape == (3,)
    assert names["low"] < names["found"].bands["image"][0].mean < names["high"]
    assert names["loss"](torch.zeros(8, 3, 128, 128), batch["mask"]) > 0
