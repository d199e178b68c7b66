"""Predicting into PostGIS. GDAL reads back what was written; a picture blended whole in NumPy, and the imagery itself, say what is
right.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import shapely
import torch
from conftest import RES, SUMMARY, X0, Y0, ask, scene, shared, write_tiff
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rasterio.transform import from_origin
from typer.testing import CliRunner
from waiting import UNDER_WAY, until

from pgtiles import Database, Grid, Imagery, Labels, Normalize, TileDataset, Tiles, TimeSeries, load, predict, read, runs
from pgtiles.baking import bake
from pgtiles.errors import ConfigError, DataError, LoadError, MissingError, PgtilesWarning
from pgtiles.layers.bakedtable import baked
from pgtiles.prediction import strips
from pgtiles.prediction.blending import BLENDS
from pgtiles.prediction.digests import digest_of
from pgtiles.prediction.modelfiles import opened
from pgtiles.shell.cli import typer_app

SIZE = 64
H, W = 300, 420  # of the small scene, whose upper left corner is that of the grid
OVERLAP = 26  # of 64: 40 %


@pytest.fixture(scope="module")
def small(template, tmp_path_factory):
    """A database with a small scene of three bands, some of it nodata, and an empty corner."""
    pixels = scene(3, (3, H, W))
    pixels[:, 120:150, 200:260] = 0
    holed = pixels.copy()
    pixels[:, 120:150, 200:260] = scene(3, (3, H, W))[:, 120:150, 200:260]
    folder = tmp_path_factory.mktemp("predict")
    with shared(template, "pgtiles_predict") as url, Database(url) as db:
        load.raster(db, [write_tiff(folder / "small.tif", pixels)], "small")
        load.raster(db, [write_tiff(folder / "holed.tif", holed, nodata=0)], "holed")
        yield SimpleNamespace(db=db, url=url, pixels=pixels, holed=holed, grid=Grid.like(db, "small", size=SIZE))


@pytest.fixture
def own(small):
    """The same, with a schema of the test's own, which goes again."""
    with small.db.connection() as conn:
        conn.execute("CREATE SCHEMA maps")
    yield small
    with small.db.connection() as conn:
        conn.execute("DROP SCHEMA maps CASCADE")


def box(left=0, top=0, right=W, bottom=H):
    """A box in pixels of the scene, in the CRS."""
    return X0 + left * RES, Y0 - bottom * RES, X0 + right * RES, Y0 - top * RES


def dataset_of(small, table="small", batch_size=4, **more):
    tiles = Tiles.random(small.grid, within=box(), count=5, seed=1)
    return TileDataset(small.db, tiles, {"image": Imagery(table)}, batch_size=batch_size, **more)


class Net(torch.nn.Module):
    """A little network whose answer at a pixel depends on the pixels around it."""

    def __init__(self, bands=4, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.near = torch.nn.Conv2d(3, 8, 9, padding=4)
            self.head = torch.nn.Conv2d(8, bands, 1)
            self.head.weight.data *= 8

    def forward(self, image):
        return self.head(torch.relu(self.near(image.float() / 64 - 2)))


def read_back(small, table, run=None, column="rast"):
    """All blocks of a run, put together by PostGIS as one GeoTIFF, and read by rasterio, cut to the small scene."""
    where = f"WHERE run = {run}" if run else ""
    with small.db.connection() as conn:
        conn.execute("SET postgis.gdal_enabled_drivers = 'ENABLE_ALL'")
        [(blob,)] = conn.execute(f"SELECT ST_AsGDALRaster(ST_Union({column}), 'GTiff') FROM {table} {where}").fetchall()
    with rasterio.MemoryFile(bytes(blob)) as memory, memory.open() as file:
        window = rasterio.windows.from_bounds(*box(), transform=file.transform)
        assert file.crs.to_epsg() == 3857
        return file.read(window=window.round_offsets().round_lengths(), boundless=True, fill_value=file.nodata), file.nodata


class Held:
    """What sums the answers of modules that it holds."""

    def __init__(self, by_name, others):
        self.by_name, self.others = by_name, others

    def __call__(self, image):
        return sum(net(image) for net in [*self.by_name.values(), *self.others])


def places(length, size, stride):
    starts = [*range(0, length - size, stride)]
    return [*starts, length - size]


def reference(pixels, model, blend, stride=SIZE - OVERLAP, size=SIZE, flips=False, activation=None):
    """The whole picture, blended in memory in plain NumPy, with float64 windows of its own."""
    t = (np.arange(size) + 0.5) / size
    side = {
        "cosine": np.maximum(np.rint(1024 * np.sin(np.pi * t) ** 2), 1),
        "linear": np.maximum(np.rint(1024 * (1 - np.abs(2 * t - 1))), 1),
        "crop": np.array([min(i + 1, size - i) for i in range(size)], float),
    }[blend]
    window = side[:, None] * side
    _, height, width = pixels.shape
    total = weight = None
    for row in places(height, size, stride):
        for col in places(width, size, stride):
            tile = torch.from_numpy(pixels[None, :, row : row + size, col : col + size].copy())
            with torch.no_grad():
                if flips:
                    looks = [(d, model(tile.flip(d)).flip(d)) for d in ((3,), (2,), (2, 3))]
                    looks = [model(tile)] + [look for _, look in looks]
                    answers = [look.softmax(1) if activation is None else look for look in looks]
                    answer = ((answers[0] + answers[1]) + (answers[2] + answers[3])) / 4
                else:
                    answer = model(tile).softmax(1) if activation is None else model(tile)
            answer = answer[0].numpy().astype(np.float64)
            if total is None:
                total, weight = np.zeros((len(answer), height, width)), np.zeros((height, width))
            there = np.s_[:, row : row + size, col : col + size]
            if blend == "crop":
                deeper = window > weight[there[1:]]
                total[there] = np.where(deeper, answer, total[there])
                weight[there[1:]] = np.maximum(weight[there[1:]], window)
            else:
                total[there] += window * answer
                weight[there[1:]] += window
    return total if blend == "crop" else total / weight


def identity(image):
    return image.float()


@pytest.mark.parametrize("blend", BLENDS)
def test_an_identity_model_gives_the_imagery(own, blend):
    done = predict(identity, dataset_of(own), "maps.same", kind="values", blend=blend, within=box(), overlap=OVERLAP)
    pixels, nodata = read_back(own, "maps.same")
    assert np.isnan(nodata)
    assert pixels.dtype == "float32"
    assert (pixels == own.pixels).all()
    assert done.tiles == 11 * 8 == len(places(W, SIZE, 38)) * len(places(H, SIZE, 38))
    assert done.blocks == 4 * 3
    assert (done.table, done.run, done.skipped) == ('"maps"."same"', "same", 0)


@pytest.mark.parametrize("blend, flips", [*((blend, False) for blend in BLENDS), ("cosine", True)])
def test_classes_are_those_of_a_picture_blended_in_memory(own, blend, flips):
    model = Net().eval()
    predict(model, dataset_of(own), "maps.classes", blend=blend, within=box(), overlap=OVERLAP, flips=flips)
    pixels, nodata = read_back(own, "maps.classes")
    expected = reference(own.pixels, model, blend, flips=flips).argmax(0)
    assert nodata == 255
    assert pixels.dtype == "uint8"
    assert len(np.unique(expected)) > 2
    assert (pixels[0] == expected).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_probabilities(own, dtype):
    model = Net(3).eval()
    data = dataset_of(own, batch_size=1)  # as the reference has them, to the bit
    predict(model, data, "maps.p", kind="probabilities", dtype=dtype, within=box(), overlap=OVERLAP)
    pixels, _ = read_back(own, "maps.p")
    expected = reference(own.pixels, model, "cosine")
    if dtype == "uint8":
        assert (pixels == np.rint(expected * 254)).all()
    else:
        assert (pixels == expected.astype("float32")).all()
        assert np.allclose(pixels.sum(0), 1, atol=1e-6)


def test_one_band_is_a_class_above_a_half(own):
    def bright(image):
        return image[:, 0].float() / 20 - 5.5  # logits, (tiles, height, width)

    predict(bright, dataset_of(own), "maps.bright", within=box())
    predict(bright, dataset_of(own), "maps.raw", kind="values", within=box())
    assert (read_back(own, "maps.bright")[0][0] == (own.pixels[0] > 110)).all()
    assert (read_back(own, "maps.raw")[0][0] == own.pixels[0].astype("float32") / 20 - np.float32(5.5)).all()


class TestWhereThereIsNothing:
    def test_nodata_where_the_imagery_has_none(self, own):
        predict(identity, dataset_of(own, "holed"), "maps.holed", kind="values", within=box(), overlap=OVERLAP)
        pixels, _ = read_back(own, "maps.holed")
        hole = (own.holed == 0).all(0)
        assert hole.sum() == 30 * 60
        assert np.isnan(pixels[:, hole]).all()
        assert (pixels[:, ~hole] == own.holed[:, ~hole]).all()

    def test_nodata_beyond_the_imagery_and_beyond_the_tiles(self, own):
        """Tiles that reach beyond the region, and the scene's corner; blocks to which nothing came are not there."""
        region = shapely.Polygon([(X0 - 400, Y0 + 300), (X0 + 500, Y0 - 40), (X0 + 40, Y0 - 500)])
        data = dataset_of(own, "holed")
        tiles = Tiles.sliding(own.grid, within=region, edge="beyond", overlap=20)
        with pytest.warns(PgtilesWarning, match="20 of the 42 tiles that were read have no imagery at all: nothing is"):
            predict(identity, data, "maps.beyond", kind="values", within=region, overlap=20)
        pixels, _ = read_back(own, "maps.beyond")
        covered = np.zeros((H, W), bool)
        for bounds in tiles.bounds:
            left, top = round((bounds[0] - X0) / RES), round((Y0 - bounds[3]) / RES)
            covered[max(top, 0) : max(top + SIZE, 0), max(left, 0) : max(left + SIZE, 0)] = True
        covered &= (own.holed > 0).all(0)
        assert 0.1 < covered.mean() < 0.6
        assert (np.isnan(pixels[0]) == ~covered).all()
        assert (pixels[:, covered] == own.holed[:, covered]).all()
        blocks = {(r // 128, c // 128) for r, c in np.argwhere(covered)}
        assert ask(own.db, "SELECT count(*) FROM maps.beyond") == [(len(blocks),)]

    def test_nodata_of_another_input_in_larger_pixels_of_a_series_and_of_baked_tiles(self, own):
        """Whichever input lacks data, and however it comes: of a series, where no step has any."""
        with own.db.connection() as conn:
            conn.execute("CREATE TABLE maps.series AS SELECT rid, rast, '2024-01-01'::date AS day FROM holed")
            conn.execute("ALTER TABLE maps.series ADD PRIMARY KEY (rid)")
            conn.execute("CREATE INDEX ON maps.series USING gist (ST_ConvexHull(rast))")
        tiles, layers = Tiles.sliding(own.grid, within=box(), edge="shift", overlap=8), {"image": Imagery("small")}
        bake(own.db, "maps.baked", tiles, {"baked": Imagery("holed")})
        of_a_series = Imagery("maps.series", time=TimeSeries("day", steps=2, between=("2023-12-01", "2024-03-01")))
        layers |= {"coarse": Imagery("holed", resolution=2 * RES), "series": of_a_series} | baked(own.db, "maps.baked")[1]
        hole = (own.holed == 0).all(0)
        for key in ("coarse", "series", "baked"):
            data = TileDataset(own.db, tiles, {"image": layers["image"], key: layers[key]}, batch_size=8)
            predict(lambda image, _: image.float(), data, f"maps.of_{key}", kind="values", inputs=("image", key))
            pixels, _ = read_back(own, f"maps.of_{key}")
            assert (np.isnan(pixels[0]) == hole).all(), key

    def test_tiles_without_imagery_are_told_once_of_all_strips(self, own, monkeypatch):
        monkeypatch.setattr(strips, "WIDEST", 1)
        monkeypatch.setattr(strips, "HELD", 1)
        with pytest.warns(PgtilesWarning, match="10 of the 50 tiles that were read have no imagery") as told:
            predict(identity, dataset_of(own), "maps.x", kind="values", within=box(-2 * SIZE, 0, W, H), overlap=0)
        assert len(told) == 1

    def test_an_area_outside_the_imagery(self, own):
        far = (X0 + 50_000, Y0, X0 + 51_000, Y0 + 500)
        with pytest.raises(ConfigError, match="lies outside the imagery of layer 'image', small, which lies in"):
            predict(identity, dataset_of(own), "maps.far", kind="values", within=far)
        assert ask(own.db, "SELECT count(*) FROM pg_tables WHERE schemaname = 'maps'") == [(0,)]


def test_gdal_opens_it(own, tmp_path):
    """What QGIS does: GDAL's own driver of PostGIS rasters, with an overview beside the table."""
    if (
        not shutil.which("gdalwarp")
        or "PostGISRaster" not in subprocess.run(["gdalinfo", "--formats"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("GDAL's command line, with its driver PostGISRaster, is not here")
    model = Net().eval()
    predict(model, dataset_of(own), 'maps."Roads 2"', within=box(), overlap=OVERLAP, overviews=(2, 4))
    known = conninfo_to_dict(own.url)
    said = " ".join(f"{key}={value}" for key, value in known.items() if key in {"host", "port", "user", "password", "dbname"})
    target = tmp_path / "out.tif"
    subprocess.run(
        ["gdalwarp", "-q", f"PG:{said} schema='maps' table='Roads 2' mode=2", str(target)],
        check=True,
        capture_output=True,
        text=True,
    )
    with rasterio.open(target) as file:
        assert (file.count, file.dtypes[0], file.nodata, file.crs.to_epsg()) == (1, "uint8", 255, 3857)
        assert file.transform == from_origin(X0, Y0, RES, RES)
        pixels = file.read(1)
    assert (pixels[:H, :W] == reference(own.pixels, model, "cosine").argmax(0)).all()
    assert (pixels[H:] == 255).all()
    assert (pixels[:, W:] == 255).all()
    assert ask(own.db, "SELECT o_table_name::text, overview_factor FROM raster_overviews WHERE o_table_schema = 'maps' ORDER BY 2") == [
        ("o_2_Roads 2", 2), ("o_4_Roads 2", 4),
    ]  # fmt: skip
    declared = "SELECT srid, scale_x, blocksize_x, same_alignment, num_bands, pixel_types, nodata_values FROM raster_columns"
    assert ask(own.db, f"{declared} WHERE r_table_name = 'Roads 2'") == [(3857, RES, 128, True, 1, ["8BUI"], [255])]
    assert ask(own.db, "SELECT count(*) FROM pg_indexes WHERE tablename = 'Roads 2' AND indexdef LIKE '%st_convexhull%'") == [
        (1,)
    ]


def test_imagery_reads_it_back_with_nodata_and_names(own):
    model = Net(3).eval()
    predict(model, dataset_of(own, "holed"), "maps.back", within=box(), classes={1: "road", 2: "roof"})
    tiles = Tiles.sliding(own.grid, within=box(), edge="shift")
    batch = read(own.db, tiles, {"image": Imagery("maps.back", valid=True), "mask": Labels("maps.back")})
    hole = (own.holed == 0).all(0)
    pixels, _ = read_back(own, "maps.back")
    for bounds, image, valid in zip(batch["bounds"], batch["image"], batch["image_valid"], strict=True):
        left, top = round((bounds[0] - X0) / RES), round((Y0 - bounds[3]) / RES)
        there = np.s_[top : top + SIZE, left : left + SIZE]
        assert (image[0] == pixels[0][there]).all()
        assert (valid == ~hole[there]).all()


def test_a_transform_and_several_inputs(own):
    scale = Normalize([100.0] * 3, [50.0] * 3)
    predict(identity, dataset_of(own, transform=scale), "maps.scaled", kind="values", within=box())
    assert (read_back(own, "maps.scaled")[0] == (own.pixels.astype("float32") - 100) / 50).all()
    layers = {"one": Imagery("small", bands=(1,)), "unused": Imagery("small"), "two": Imagery("small", bands=(3,))}
    data = TileDataset(own.db, dataset_of(own).tiles, layers, batch_size=None)
    predict(lambda a, b: a.float() - b.float(), data, "maps.two", kind="values", inputs=("one", "two"), overlap=8, within=box())
    assert (read_back(own, "maps.two")[0][0] == own.pixels[0].astype("float32") - own.pixels[2]).all()
    assert list(runs.find(own.db, "maps.two", "two").layers) == ["one", "two"]


def test_the_dataset_s_own_tiles(own):
    """Whatever tiles a dataset has are predicted, where they are: here three, two of which overlap."""
    tiles = Tiles(own.grid, np.array([0, 30, 200]), np.array([0, 17, 100]))
    done = predict(identity, TileDataset(own.db, tiles, {"image": Imagery("small")}), "maps.own", kind="values")
    pixels, _ = read_back(own, "maps.own")
    covered = np.zeros((H, W), bool)
    for col, row in zip(tiles.cols, tiles.rows, strict=True):
        covered[row : row + SIZE, col : col + SIZE] = True
    assert (np.isnan(pixels[0]) == ~covered).all()
    assert (pixels[:, covered] == own.pixels[:, covered]).all()
    assert done.tiles == 3


def test_strips(own, monkeypatch):
    """Narrow strips, of 2 blocks each: the map is the same, and tiles at a border are asked for twice."""
    model = Net().eval()
    done = predict(model, dataset_of(own, batch_size=1), "maps.one", kind="values", within=box(), overlap=OVERLAP)
    monkeypatch.setattr(strips, "WIDEST", 1)
    monkeypatch.setattr(strips, "HELD", 1)
    again = predict(model, dataset_of(own, batch_size=1), "maps.many", kind="values", within=box(), overlap=OVERLAP)
    assert again.tiles > done.tiles
    assert blocks_of(own, "maps.one") == blocks_of(own, "maps.many")


def blocks_of(small, table):
    return ask(small.db, f"SELECT block, md5(ST_AsBinary(rast)) FROM {table} ORDER BY 1")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same weights as a module, and in files: exported for batches of 5, for any, and scripted."""
    folder, model = tmp_path_factory.mktemp("models"), Net().eval()
    example = (torch.zeros(5, 3, SIZE, SIZE, dtype=torch.uint8),)
    torch.export.save(torch.export.export(model, example), folder / "five.pt2")
    free = torch.export.export(model, example, dynamic_shapes=({0: torch.export.Dim("tiles")},))
    torch.export.save(free, folder / "any.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, example).save(folder / "traced.pt")
    (folder / "mine.py").write_text("import torch\n\ndef double(image):\n    return image.float() * 2\n\nnumber = 3\n")
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "junk.pt2").write_text("no")
    return SimpleNamespace(folder=folder, model=model)


class TestModels:
    @pytest.mark.parametrize("name, batch", [("five.pt2", 5), ("any.pt2", 7), ("traced.pt", 5)])
    def test_files(self, own, files, name, batch):
        done = predict(str(files.folder / name), dataset_of(own, batch_size=batch), "maps.file", within=box(), overlap=OVERLAP)
        assert (read_back(own, "maps.file")[0][0] == reference(own.pixels, files.model, "cosine").argmax(0)).all()
        assert done.tiles == 88
        digest = hashlib.sha256((files.folder / name).read_bytes()).hexdigest()
        assert runs.find(own.db, "maps.file", "file").model == digest

    def test_a_function_by_its_name(self, own, files, monkeypatch):
        monkeypatch.chdir(files.folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        predict("mine:double", dataset_of(own), "maps.named", kind="values", within=box())
        assert (read_back(own, "maps.named")[0] == 2 * own.pixels.astype("float32")).all()
        for name, said in (("mine:other", "has no attribute 'other'"), ("nowhere:f", "No module named 'nowhere'")):
            with pytest.raises(MissingError, match=said):
                predict(name, dataset_of(own), "maps.named", run="x")
        with pytest.raises(ConfigError, match="'mine:number' is a int: expected something that takes a batch"):
            predict("mine:number", dataset_of(own), "maps.named", run="x")

    @pytest.mark.parametrize("name", ["junk.pt2", "weights.pt"])
    def test_what_is_no_model(self, own, files, name):
        with pytest.raises(ConfigError, match=r"can't be read as a model: (?s:.)*Weights alone"):
            predict(files.folder / name, dataset_of(own), "maps.x")
        with pytest.raises(MissingError, match="there is no file"):
            predict("nowhere.pt2", dataset_of(own), "maps.x")

    def test_an_export_for_another_number_of_tiles(self, own, files):
        with pytest.raises(ConfigError, match=r"(?s)Guard failed.*3 tiles at once.*batch_size="):
            predict(files.folder / "five.pt2", dataset_of(own, batch_size=3), "maps.x", within=box())

    def test_a_module_is_trained_on_as_before(self, own):
        model = torch.nn.Sequential(Net(), torch.nn.Dropout(0.5))
        model.train()
        predict(model, dataset_of(own), "maps.dropout", kind="values", within=box(), overlap=OVERLAP)
        assert model.training
        assert model[1].training
        model[0].eval()
        predict(lambda image: model(image), dataset_of(own), "maps.held", kind="values", within=box(), overlap=OVERLAP)
        assert [part.training for part in (model, model[0], model[1])] == [True, False, True]
        assert blocks_of(own, "maps.held") == blocks_of(own, "maps.dropout")
        expected = reference(own.pixels, model[0].eval(), "cosine", activation="none")
        assert np.allclose(read_back(own, "maps.dropout")[0], expected, atol=1e-5)

    def test_what_was_exported_while_it_trained_is_refused(self, tmp_path):
        example = torch.rand(2, 3, 8, 8)
        layers = {"dropout": torch.nn.Dropout(0.5), "batch": torch.nn.BatchNorm2d(3), "own": torch.nn.BatchNorm2d(3, track_running_stats=False)}  # fmt: skip
        for name, layer in layers.items():
            for training in (True, False):
                net = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1), layer).train(training)
                torch.export.save(torch.export.export(net, (example,)), tmp_path / "net.pt2")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    torch.jit.trace(net, example, check_trace=False).save(tmp_path / "net.pt")
                    torch.jit.script(net).save(tmp_path / "scripted.pt")
                opened(tmp_path / "scripted.pt")
                for file in ("net.pt2", "net.pt"):
                    if training and name != "own":
                        with pytest.raises(ConfigError, match=rf"made of a model that was training \(aten.*{name}.*model.eval"):
                            opened(tmp_path / file)
                    else:
                        opened(tmp_path / file)

    def test_modules_are_found_wherever_they_are_held(self, own):
        """In a list, a dict, an object, behind a decorator: they predict, and are trained on as before."""
        nets = [torch.nn.Sequential(Net(seed=seed), torch.nn.Dropout(0.5)) for seed in (0, 1)]
        held = Held({"first": nets[0]}, nets[1:])

        @torch.no_grad()
        def model(image):
            return held(image)

        predict(model, dataset_of(own), "maps.held", kind="values", within=box(), overlap=0)
        assert [part.training for net in nets for part in net.modules()] == [True] * 10
        with torch.no_grad():
            expected = sum(reference(own.pixels, net.eval(), "cosine", SIZE, activation="none") for net in nets)
        assert np.allclose(read_back(own, "maps.held")[0], expected, atol=1e-4)

    def test_what_a_model_keeps_can_be_trained_with(self, own):
        class Keeps(torch.nn.Conv2d):
            scale = None

            def forward(self, image):
                if self.scale is None:
                    self.scale = torch.linspace(0, 1, SIZE)
                return super().forward(image.float()) * self.scale

        model = Keeps(3, 2, 1)
        predict(model, dataset_of(own), "maps.keeps", within=box(0, 0, SIZE, SIZE))
        model(torch.ones(1, 3, SIZE, SIZE)).sum().backward()
        assert model.weight.grad.abs().sum() > 0

    def test_flips_turn_pixels_over_and_nothing_else(self, own):
        def model(image, bounds):
            return image[:, :1].double() * 0 + (bounds[:, 0] - X0)[:, None, None, None]

        predict(
            model, dataset_of(own), "maps.flips", kind="values", inputs=("image", "bounds"), within=box(), overlap=0, flips=True
        )
        west = read_back(own, "maps.flips")[0][0]
        assert (west[:, : 5 * SIZE] == np.arange(5 * SIZE) // SIZE * SIZE * RES).all()

    def test_shares_that_are_rounded_are_probabilities(self, own):
        def model(image):
            high = image[:, :1] > 110
            return sum(torch.cat([high, ~high], 1).float() * 0.1 for _ in range(10))  # 1.0000001

        predict(model, dataset_of(own), "maps.p", kind="probabilities", activation="none", within=box())
        assert (read_back(own, "maps.p")[0][0] == np.where(own.pixels[0] > 110, 254, 0)).all()

    def test_digests_of_what_is_held(self):
        net = torch.nn.Conv2d(1, 1, 1)
        for thing in (Held({"a": net}, []), Held({}, [net]).__call__, lambda image: [net][0](image), {"nets": (net,)}):
            before = digest_of(thing)
            with torch.no_grad():
                net.weight += 1
            assert digest_of(thing) != before
        names = {"factor": 2, "list": [1, {"a": 2}]}
        exec("def f(image):\n    return image * factor + list[0]", names)
        digests = {digest_of(names["f"])}
        for names["factor"], names["list"] in ((3, [1, {"a": 2}]), (3, [1, {"a": 3}])):
            digests.add(digest_of(names["f"]))
        assert len(digests) == 3

        def twice(self, image):
            return 2 * self.conv(image)

        kinds = [type("Net", (torch.nn.Module,), {"forward": code}) for code in (twice, lambda self, image: self.conv(image))]
        assert digest_of(kinds[0]()) != digest_of(kinds[1]())

    def test_digests(self):
        assert digest_of(Net()) == digest_of(Net())
        assert digest_of(Net()) != digest_of(Net(seed=1))
        made = [(lambda model: lambda image: model(image) * 2)(Net(seed=seed)) for seed in (0, 0, 1)]
        assert digest_of(made[0]) == digest_of(made[1]) != digest_of(made[2])
        names = {"net": Net()}
        exec("def f(image):\n    return [net(i) for i in image]\ndef g(image):\n    return f(image)", names)
        first = digest_of(names["g"])
        assert digest_of(names["g"]) == first
        names["net"] = Net(seed=1)
        assert digest_of(names["g"]) != first
        assert digest_of(Normalize([1.0], [1.0])) != digest_of(Normalize([2.0], [1.0]))
        code = (
            "import torch\nfrom functools import partial\ntorch.manual_seed(0)\n"
            "class Held:\n    def __init__(self):\n        self.nets = {'a': torch.nn.Conv2d(1, 1, 1)}\n"
            "    def __call__(self, x):\n        return x in {'alpha', 'beta', 'gamma'}\n"
            "def f(a, b):\n    return max(a, b, 1.5, key=lambda x: -x)\nmade = partial(f, b=[Held(), {'delta', 'epsilon'}])"
        )
        names = {"__name__": "__main__"}
        exec(code, names)
        code += "\nfrom pgtiles.prediction.digests import digest_of\nprint(digest_of(made))"
        env = os.environ | {"PYTHONHASHSEED": "1"}  # by which sets have another order than here
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env).stdout
        assert said.strip() == digest_of(names["made"])


class TestWrongModels:
    """Each is refused before anything is written, but for NaN, which shows when it comes."""

    @pytest.fixture(autouse=True)
    def nothing_made(self, own):
        yield
        assert ask(own.db, "SELECT count(*) FROM pg_tables WHERE schemaname = 'maps'") == [(0,)]

    def test_bands(self, own):
        layers = {"image": Imagery("small", bands=(1, 2))}
        data = TileDataset(own.db, dataset_of(own).tiles, layers)
        with pytest.raises(
            ConfigError, match=r"(?s)'Net' does not take.*2 channels.*'image' with 2 bands of 64 × 64 px \(uint8\)"
        ):
            predict(Net(), data, "maps.x")

    @pytest.mark.parametrize(
        "model, said",
        [
            (lambda image: image[:, :, 2:-2, 2:-2].float(), r"gives \(4, 3, 60, 60\): expected \(4, bands, 64, 64\)"),
            (lambda image: image.float().mean((1, 2, 3)), r"gives \(4,\): expected \(4, bands"),
            (lambda image: {"out": image}, "gives a dict: expected a tensor"),
            (lambda image: image[:1].float(), r"gives \(1, 3, 64, 64\)"),
            (torch.nn.Conv2d(3, 2, 1), "(?s)unsigned char|Byte.*transform=, such as Normalize"),
            (lambda image: image[:, [0] * 256].float(), "gives 256 classes"),
            (lambda image: image * 1j, "gives torch.complex64: expected real numbers"),
            (lambda image: image.argmax(1), "gives torch.int64: for kind='classes' .* has to leave out its argmax"),
            (3, "model=3: expected a module of torch"),
        ],
    )
    def test_answers(self, own, model, said):
        with pytest.raises(ConfigError, match=said):
            predict(model, dataset_of(own, batch_size=4), "maps.x", within=box())

    @pytest.mark.parametrize(
        "options, said",
        [
            ({"kind": "labels"}, "kind='labels': expected one of classes, probabilities, values"),
            ({"dtype": "float32"}, "dtype='float32': expected uint8 for classes"),
            ({"blend": "mean"}, "blend='mean'"),
            ({"activation": "relu"}, "activation='relu'"),
            ({"activation": "none", "kind": "probabilities"}, "(?s)tile 0 at .*no probability, which is 0 to 1"),
            ({"inputs": "mask"}, "inputs='mask': expected keys of a batch that hold a tensor; they are image"),
            ({"device": "cuda:99"}, "device='cuda:99': "),
            ({"overviews": (2, 3)}, r"overviews=\(2, 3\): 3 is none of 2, 4, 8, 16, 32, 64, 128"),
            ({"run": ""}, "run='': expected a name"),
            ({"run": 7}, "run=7: expected a name"),
            ({"classes": {True: "x"}}, "classes: True is no class of the model"),
            ({"classes": {1: None}}, "classes: None is no name"),
            ({"into": "maps." + "x" * 60, "overviews": (2,)}, "'o_2_x+' would have a name of 64 bytes"),
            ({"classes": {9: "x"}}, "classes: 9 is no class of the model, which has 0 to 3"),
            ({"overlap": 64}, "overlap=64"),
            ({"into": "no schema.x"}, "is no table name"),
            ({"into": "nowhere.x"}, "(?s)has no such schema; make it with: CREATE SCHEMA"),
        ],
    )
    def test_options(self, own, options, said):
        options = {"into": "maps.x", "within": box()} | options
        error = DataError if "activation" in options and options["activation"] == "none" else (ConfigError, MissingError)
        with pytest.raises(error, match=said):
            predict(Net(), dataset_of(own), **options)

    def test_tiles_of_several_times(self, own):
        tiles = dataset_of(own).tiles.per_period(["2024-01-01", "2024-07-01"])
        with pytest.raises(ConfigError, match="two tiles lie at one place"):
            predict(identity, TileDataset(own.db, tiles, {"image": Imagery("small")}), "maps.x", kind="values")


class TestRuns:
    def test_a_row_says_what_it_was(self, own):
        data = dataset_of(own, transform=None)
        predict(Net(3).eval(), data, "maps.r", run="first", within=box(), classes={1: "road", 2: "roof"}, flips=True)
        [(id_, model, settings, layers, classes, done, ended, area)] = ask(
            own.db,
            "SELECT id, model, settings, layers, classes, done, ended >= began AND began <= now(), ST_AsText(ST_Transform(area, 3857), 1)"
            " FROM maps.run WHERE name = 'first'",
        )
        found = runs.find(own.db, "maps.r", "first")
        assert (found.id, found.model, found.classes) == (id_, digest_of(Net(3)), {1: "road", 2: "roof"})
        assert found.model == model
        assert classes == {"1": "road", "2": "roof"}
        assert (settings["kind"], settings["flips"], settings["grid"]["srid"]) == ("classes", True, 3857)
        assert layers == {"image": {"layer": "Imagery", "source": "small", "valid": True}}
        assert done == 3
        assert ended is True
        assert shapely.from_wkt(area).equals_exact(shapely.from_wkt(shapely.box(*box()).wkt), 1, normalize=True)
        assert ask(own.db, "SELECT DISTINCT run FROM maps.r") == [(id_,)]
        runs.measured(own.db, "maps.r", "first", {"iou": 0.5, "f1": 0.1})
        runs.measured(own.db, "maps.r", "first", {"f1": 0.2})
        assert runs.find(own.db, "maps.r", "first").metrics == {"iou": 0.5, "f1": 0.2}
        with pytest.raises(MissingError, match="has no run 'x'; there are 'first'"):
            runs.find(own.db, "maps.r", "x")
        own.db.query(sql.SQL("DELETE FROM maps.run WHERE name = 'first' RETURNING id"))
        assert ask(own.db, "SELECT count(*) FROM maps.r") == [(0,)]

    def test_the_same_call_again_does_nothing(self, own):
        first = predict(Net(), dataset_of(own), "maps.r", within=box())
        before = ask(own.db, "SELECT rid, block, xmin::text FROM maps.r ORDER BY 1")
        told = []
        again = predict(Net(), dataset_of(own), "maps.r", within=box(), progress=lambda *at: told.append(at))
        assert (again.tiles, again.skipped, again.blocks) == (0, 3, first.blocks)
        assert ask(own.db, "SELECT rid, block, xmin::text FROM maps.r ORDER BY 1") == before
        assert told == [(first.tiles, first.tiles)]

    @pytest.mark.parametrize(
        "model, data, more, said",
        [
            (Net(seed=1), {}, {}, "model was"),
            (Net(), {"table": "holed"}, {}, 'layers image source was "small", now "holed"'),
            (Net(), {}, {"blend": "crop"}, 'settings blend was "cosine", now "crop"'),
            (Net(), {"batch_size": 3}, {}, "settings batch was 4, now 3"),
            (Net(), {"transform": Normalize([1.0] * 3, [1.0] * 3)}, {}, "settings transform was null"),
            (Net(), {}, {"overlap": 30}, "the tiles are others"),
            (Net(), {}, {"classes": {1: "x"}}, "classes 1 was null"),
        ],
    )
    def test_another_run_of_the_same_name_is_refused(self, own, model, data, more, said):
        predict(Net(), dataset_of(own), "maps.r", within=box())
        before = blocks_of(own, "maps.r")
        with pytest.raises(ConfigError, match=f"there is a run 'r' already, and it is another: .*{said}"):
            predict(model, dataset_of(own, **data), "maps.r", **{"within": box()} | more)
        assert blocks_of(own, "maps.r") == before
        done = predict(model, dataset_of(own, **data), "maps.r", replace=True, **{"within": box()} | more)
        assert done.tiles > 0
        assert ask(own.db, "SELECT count(DISTINCT run), max(run) FROM maps.r") == [(1, done.id)]
        assert ask(own.db, "SELECT name FROM maps.run") == [("r",)]

    def test_two_runs_in_a_table(self, own):
        one = predict(Net(), dataset_of(own), "maps.r", run="one", within=box(), overviews=(2,))
        kept = ask(own.db, "SELECT md5(string_agg(ST_AsBinary(rast)::text, '' ORDER BY rid)) FROM maps.o_2_r")
        two = predict(Net(seed=1), dataset_of(own), "maps.r", run="two", within=box())
        assert ask(own.db, "SELECT run, count(*) FROM maps.r GROUP BY 1 ORDER BY 1") == [(one.id, 12), (two.id, 12)]
        first = reference(own.pixels, Net().eval(), "cosine", stride=48).argmax(0)
        assert (read_back(own, "maps.r", one.id)[0][0] == first).all()
        assert not (read_back(own, "maps.r", two.id)[0][0] == first).all()
        assert ask(own.db, "SELECT md5(string_agg(ST_AsBinary(rast)::text, '' ORDER BY rid)) FROM maps.o_2_r") != kept
        tiles = Tiles.sliding(own.grid, within=box(), edge="shift")
        chosen = f"SELECT rast FROM maps.r WHERE run = {one.id} AND ST_ConvexHull(rast) && tile.geom"
        batch = read(own.db, tiles, {"image": Imagery(chosen)})
        left, top = (round(v) for v in ((tiles.bounds[5, 0] - X0) / RES, (Y0 - tiles.bounds[5, 3]) / RES))
        assert (batch["image"][5, 0] == first[top : top + SIZE, left : left + SIZE]).all()

    def test_a_table_that_was_emptied_or_dropped_is_filled_again(self, own):
        predict(Net(), dataset_of(own), "maps.r", within=box())
        before = blocks_of(own, "maps.r")
        for statement in ("TRUNCATE maps.r", "DROP TABLE maps.r"):
            with own.db.connection() as conn:
                conn.execute(statement)
            predict(Net(), dataset_of(own), "maps.r", within=box())
            assert blocks_of(own, "maps.r") == before

    def test_names_are_those_of_the_runs_that_are_there(self, own):
        def names():
            return TileDataset(own.db, dataset_of(own).tiles, {"mask": Labels("maps.r")}).classes.get("mask")

        options = {"within": box(0, 0, SIZE, SIZE)}
        for classes in ({1: "road", 2: "roof"}, {1: "tree"}):
            predict(Net(), dataset_of(own), "maps.r", classes=classes, replace=True, **options)
            assert names() == classes
        predict(Net(), dataset_of(own), "maps.r", run="same", classes={1: "tree", 3: "lawn"}, **options)
        assert names() == {1: "tree", 3: "lawn"}
        with pytest.raises(
            ConfigError, match=r"""classes: 1 is 'road', and in other runs of "maps"."r" 'tree': a table has one name"""
        ):
            predict(Net(), dataset_of(own), "maps.r", run="other", classes={1: "road"}, **options)
        assert ask(own.db, "SELECT name FROM maps.run ORDER BY id") == [("r",), ("same",)]

    def test_overviews_keep_their_grants_and_those_that_can_t_be_made_are_told_first(self, own):
        with own.db.connection() as conn:
            conn.execute("CREATE TABLE maps.o_4_r (id int)")
        calls, options = [], {"within": box(0, 0, SIZE, SIZE)}
        with pytest.raises(LoadError, match=r'"maps"\."o_4_r" is there already, and is no overview of "maps"\."r"'):
            predict(Net(), dataset_of(own), "maps.r", overviews=(2, 4), progress=lambda *at: calls.append(at), **options)
        assert not calls
        predict(Net(), dataset_of(own), "maps.r", overviews=(2,), **options)
        with own.db.connection() as conn:
            conn.execute("GRANT SELECT ON maps.o_2_r TO PUBLIC")
        predict(Net(), dataset_of(own), "maps.r", run="two", **options)
        assert ask(own.db, "SELECT has_table_privilege('public', 'maps.o_2_r', 'SELECT')") == [(True,)]
        with own.db.connection() as conn:
            conn.execute("CREATE VIEW maps.seen AS SELECT rast FROM maps.o_2_r")
        with pytest.raises(LoadError, match=r"cannot drop table maps\.o_2_r because other objects depend on it"):
            predict(Net(), dataset_of(own), "maps.r", run="three", **options)
        assert ask(own.db, "SELECT count(*) FROM maps.run") == [(2,)]

    def test_tables_that_are_something_else_stay(self, own):
        with own.db.connection() as conn:
            conn.execute("CREATE TABLE maps.mine (id int)")
        with pytest.raises(LoadError, match=r"maps\.mine is there already and holds no predictions"):
            predict(Net(), dataset_of(own), "maps.mine", within=box())
        predict(Net(), dataset_of(own), "maps.r", within=box())
        with pytest.raises(
            LoadError, match=r"another kind \(its constraint enforce_\w+_rast\): this run has 3 bands of float32"
        ):
            predict(identity, dataset_of(own), "maps.r", run="other", kind="values", within=box())
        coarse = Grid(srid=3857, resolution=5, size=SIZE, origin=own.grid.origin)
        data = TileDataset(own.db, Tiles.sliding(coarse, within=box()), {"image": Imagery("small")})
        with pytest.raises(LoadError, match="in SRID 3857, 5 CRS units a pixel"):
            predict(Net(), data, "maps.r", run="other")
        assert ask(own.db, "SELECT name FROM maps.run") == [("r",)]
        with own.db.connection() as conn:
            conn.execute("DROP TABLE maps.r, maps.run; CREATE TABLE maps.run (id int, miles float8)")
        with pytest.raises(LoadError, match=r"is no table of runs \(it lacks name, model, layers\)"):
            predict(Net(), dataset_of(own), "maps.r", within=box())

    def test_hostile_names(self, own):
        schema, table, run = 'ma"ps; DROP', 'Ro%ads {x} --; é"', "o'ne %s {run} \"; é"
        with own.db.connection() as conn:
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        name = sql.Identifier(schema, table).as_string(None)
        try:
            for _ in range(2):
                done = predict(Net(), dataset_of(own), name, run=run, within=box(), overviews=(2,))
            assert (done.table, done.run, done.tiles) == (name, run, 0)
            quote = sql.Identifier(schema, "it's").as_string(None)
            predict(Net(), dataset_of(own), quote, within=box())  # PostGIS's own views of overviews fail on this one
            assert blocks_of(own, quote) == blocks_of(own, name)
            assert (read_back(own, name)[0][0] == reference(own.pixels, Net().eval(), "cosine", stride=48).argmax(0)).all()
            assert runs.find(own.db, name, run).done == 3
        finally:
            with own.db.connection() as conn:
                conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema)))


def test_a_role_without_rights_is_told_the_grant(own):
    with own.db.connection() as conn:
        conn.execute("CREATE ROLE \"pre dictor\" LOGIN PASSWORD 'x'")
        conn.execute('GRANT SELECT ON small, holed TO "pre dictor"; GRANT USAGE ON SCHEMA maps TO "pre dictor"')
    known = conninfo_to_dict(own.url) | {"user": "pre dictor", "password": "x"}
    try:
        with Database(make_conninfo(**known)) as db:
            theirs = SimpleNamespace(db=db, grid=own.grid)

            def attempt(**more):
                with pytest.raises(LoadError) as caught:
                    predict(Net(), dataset_of(theirs), "maps.r", within=box(), **more)
                return str(caught.value).partition("have its owner say ")[2].partition(",  or")[0]

            def say(statement):
                with own.db.connection() as conn:
                    conn.execute(statement)

            grant = attempt()
            assert grant.startswith('GRANT USAGE, CREATE ON SCHEMA "maps" TO "pre dictor"')
            predict(Net(), dataset_of(own), "maps.r", within=box())
            grant = attempt()
            assert grant == 'GRANT SELECT, INSERT, UPDATE, DELETE ON "maps"."run" TO "pre dictor"'
            say(grant)
            grant = attempt(run="theirs")
            assert grant == 'GRANT SELECT, INSERT, UPDATE, DELETE ON "maps"."r" TO "pre dictor"'
            say(grant)
            with pytest.warns(PgtilesWarning, match=r"does not name its classes, for only its owner can: COMMENT ON COLUMN"):
                done = predict(Net(), dataset_of(theirs), "maps.r", run="theirs", within=box(), classes={1: "x"})
            assert done.tiles > 0
            say('GRANT CREATE ON SCHEMA maps TO "pre dictor"')
            with pytest.raises(LoadError) as caught:
                predict(Net(), dataset_of(theirs), "maps.new", within=box())
            assert 'have its owner say GRANT REFERENCES ON "maps"."run" TO "pre dictor"' in str(caught.value)
            predict(Net(), dataset_of(own), "maps.r", within=box(), overviews=(2,))
            with pytest.raises(LoadError, match="must be owner of table o_2_r"):  # else it would not show their run
                predict(Net(), dataset_of(theirs), "maps.r", run="more", within=box())
    finally:
        with own.db.connection() as conn:
            conn.execute('DROP OWNED BY "pre dictor"; DROP ROLE "pre dictor"')


class Slow(Net):
    """The same weights, some time a batch; and its digest is that of the others, whatever the time."""

    seconds = 0.0

    def forward(self, image):
        time.sleep(self.seconds)
        # as a convolution's last bit may depend on a tile's place, so shall this
        place = torch.arange(len(image))[:, None, None, None]
        return super().forward(image) + place / 8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_and_continued(own, tmp_path, seed):
    """SIGKILL at a moment of the seed's; what is there is whole, no row is done twice, and the end is that of an unbroken run."""
    unbroken = predict(Slow(), dataset_of(own), "maps.whole", kind="values", overlap=OVERLAP, within=box())
    code = (
        "import sys; from types import SimpleNamespace; from test_predict import *\nSlow.seconds = 0.05\n"
        "db = Database(sys.argv[1])\nown = SimpleNamespace(db=db, grid=Grid.like(db, 'small', size=SIZE))\nprint('ready', flush=True)\n"
        "predict(Slow(), dataset_of(own), 'maps.killed', kind='values', overlap=OVERLAP, within=box(),"
        " progress=lambda done, total: (print(done, flush=True), done >= int(sys.argv[2]) and time.sleep(600)))"
    )
    here = str(Path(__file__).parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)])}
    stop = random.Random(seed).randrange(8, unbroken.tiles - 8)
    with subprocess.Popen(
        [sys.executable, "-c", code, own.url, str(stop + 4)], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= stop:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    until(lambda: ask(own.db, UNDER_WAY) == [(0,)])
    [(done,)] = ask(own.db, "SELECT done FROM maps.run WHERE name = 'killed'")
    before = ask(own.db, "SELECT block, rid, xmin::text FROM maps.killed ORDER BY 1")
    assert [row[0] for row in before] == list(range(4 * done)), "rows of blocks are there whole, and none beyond"
    resumed = predict(Slow(), dataset_of(own), "maps.killed", kind="values", overlap=OVERLAP, within=box())
    assert resumed.skipped == done
    assert ask(own.db, f"SELECT block, rid, xmin::text FROM maps.killed WHERE block < {4 * done} ORDER BY 1") == before
    assert blocks_of(own, "maps.killed") == blocks_of(own, "maps.whole")
    assert done == 0 or resumed.tiles < unbroken.tiles
    assert ask(own.db, "SELECT ended IS NOT NULL FROM maps.run WHERE name = 'killed'") == [(True,)]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError])
def test_interrupted_in_a_strip(own, error, monkeypatch):
    """Ctrl-C, or NaN at some tile: rows that are done stay, and the rest follows; of several strips, too."""
    predict(Net(), dataset_of(own), "maps.whole", kind="values", overlap=OVERLAP, within=box())
    monkeypatch.setattr(strips, "WIDEST", 1)
    monkeypatch.setattr(strips, "HELD", 1)

    class Stops(Net):
        calls = 0

        def forward(self, image):
            Stops.calls += 1
            answer = super().forward(image)
            if Stops.calls == 22:
                if error is KeyboardInterrupt:
                    raise error
                answer[2, 1, 5, 5:7] = torch.nan
            return answer

    said = r"tile \d+ at \(.*\): the model gives nan in band 2, no number \(NaN or infinite\), at 2 of 4096 pixels"
    with pytest.raises(error, match=said if error is DataError else None):
        predict(Stops(), dataset_of(own), "maps.r", kind="values", overlap=OVERLAP, within=box())
    [(done,)] = ask(own.db, "SELECT done FROM maps.run WHERE name = 'r'")
    assert 3 < done < 6, "in the second strip"
    resumed = predict(Stops(), dataset_of(own), "maps.r", kind="values", overlap=OVERLAP, within=box())
    assert resumed.skipped == done
    assert blocks_of(own, "maps.r") == blocks_of(own, "maps.whole")


def test_two_at_once(own):
    """Two processes that predict the same run: each row is written once, and the map is that of one."""
    predict(Net(), dataset_of(own), "maps.whole", kind="values", overlap=OVERLAP, within=box())
    with Database(own.url) as other, ThreadPoolExecutor(2) as threads:
        theirs = SimpleNamespace(db=other, grid=own.grid)
        both = [
            threads.submit(
                predict, Net(), dataset_of(one), "maps.r", kind="values", overlap=OVERLAP, within=box(), overviews=(2,)
            )
            for one in (own, theirs)
        ]
        assert {one.result().blocks for one in both} == {12}
        assert ask(own.db, "SELECT o_table_name::text FROM raster_overviews WHERE r_table_schema = 'maps'") == [("o_2_r",)]
    [(last,)] = ask(own.db, "SELECT max(rid) FROM maps.r")
    assert last <= 12 + 2, "a row that is written twice has new numbers; two go to the blocks by which the table is tried"
    assert blocks_of(own, "maps.r") == blocks_of(own, "maps.whole")


def test_connections_that_are_cut_while_rows_are_written(own):
    """Each third INSERT ends the server's process that makes it: rows are written again, each once, and whole."""
    options = {"kind": "values", "overlap": OVERLAP, "within": box()}
    predict(Net(), dataset_of(own), "maps.whole", **options)
    predict(Net(), dataset_of(own), "maps.r", run="makes the table", **options | {"within": box(0, 0, SIZE, SIZE)})
    with own.db.connection() as conn:
        conn.execute("CREATE SEQUENCE maps.inserts")  # which no rollback takes back
        conn.execute(
            "CREATE FUNCTION maps.cut() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF nextval(''maps.inserts'') % 3 = 0"
            " THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END'"
        )
        conn.execute("CREATE TRIGGER cut BEFORE INSERT ON maps.r FOR EACH STATEMENT EXECUTE FUNCTION maps.cut()")
    before = own.db.counters.retries
    done = predict(Net(), dataset_of(own), "maps.r", **options)
    assert own.db.counters.retries > before
    assert (done.blocks, done.tiles) == (12, 88)
    theirs = ask(own.db, f"SELECT block, md5(ST_AsBinary(rast)) FROM maps.r WHERE run = {done.id} ORDER BY 1")
    assert theirs == blocks_of(own, "maps.whole")


def test_memory_does_not_grow_with_the_area(own, tmp_path, pytestconfig):
    """The peak of a process that predicts 16 times the area is within a tenth of the small one's."""
    pixels = np.random.default_rng(0).integers(0, 255, (1, 4096, 4096), "uint8")
    load.raster(own.db, [write_tiff(tmp_path / "large.tif", pixels)], "maps.large", block=256)
    code = (
        "import re, sys; from test_predict import *\nfrom pgtiles import Grid\n"
        "db, side = Database(sys.argv[1]), int(sys.argv[2])\n"
        "tiles = Tiles.sliding(Grid.like(db, 'maps.large', size=128), within=box(0, 0, side, side), overlap=8, edge='shift')\n"
        "data = TileDataset(db, tiles, {'image': Imagery('maps.large')}, batch_size=4)\n"
        "predict(lambda image: image.float(), data, f'maps.of_{side}', kind='values')\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    here = str(Path(__file__).parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([here, str(Path(here).parent)]), "OMP_NUM_THREADS": "1"}

    def peak(side):
        done = subprocess.run(
            [sys.executable, "-c", code, own.url, str(side)], capture_output=True, text=True, check=True, env=env
        )
        return int(done.stdout) / 1024

    small, large = peak(1024), peak(4096)
    pytestconfig.stash.setdefault(SUMMARY, []).append(f"predict: peak {small:.0f} MB; of 16 times the area {large:.0f} MB")
    assert large < 1.1 * small
    there = ask(own.db, "SELECT count(*) FROM maps.of_4096")
    assert there == [(32 * 32,)]


def test_the_command(own, tmp_path, monkeypatch):
    (tmp_path / "ours.py").write_text("def model(image):\n    return image[:, :2].float()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    options = ["--image", "small", "--size", str(SIZE), "--url", own.url, "--overlap", str(OVERLAP), "--kind", "values"]
    runner = CliRunner()
    for divide, factor in ((None, 1), ("255", 255)):
        more = [] if divide is None else ["--divide", divide, "--replace", "--run", "r", "--overviews", "2,4", "--batch", "3"]
        done = runner.invoke(typer_app, ["predict", "ours:model", "maps.r", *options, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert re.search(r"run 'r' \(id \d+\), 12 blocks; 88 tiles predicted, 0 rows of blocks were there", done.output)
        assert (read_back(own, "maps.r")[0] == own.pixels[:2].astype("float32") / np.float32(factor)).all()
    assert ask(own.db, "SELECT count(*) FROM raster_overviews WHERE r_table_name = 'r'") == [(2,)]
    again = runner.invoke(typer_app, ["predict", "ours:model", "maps.r", *options], catch_exceptions=True)
    assert isinstance(again.exception, ConfigError)
    named = ["predict", "ours:model", "maps.named", *options[:-1], "classes", "--name", "0=other", "--name", "1=road"]
    assert runner.invoke(typer_app, named, catch_exceptions=False).exit_code == 0
    assert ask(own.db, "SELECT classes FROM maps.run WHERE name = 'named'") == [({"0": "other", "1": "road"},)]
    none = runner.invoke(typer_app, ["predict", "ours:model", "maps.r", "--labels", "roads", "--url", own.url])
    assert "give --image" in str(none.exception)


def test_the_page(db, tmp_path, monkeypatch):
    """Every block of docs/predicting.md, in its order."""
    load.raster(db, [write_tiff(tmp_path / "s.tif", scene(1, (3, 500, 600)))], "sat_s2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGTILES_URL", db.conninfo)
    (tmp_path / "pgtiles").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pgtiles "$@"\n')
    (tmp_path / "pgtiles").chmod(0o755)
    root = Path(__file__).parents[1]
    env = os.environ | {
        "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
        "CONNECTION": db.conninfo,
    }
    page = (root / "docs" / "predicting.md").read_text()
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S)
    example = (torch.zeros(16, 3, 128, 128),)
    torch.export.save(torch.export.export(Net().eval(), example), tmp_path / "model.pt2")
    names = {"scaled": lambda sample, _: sample | {"image": sample["image"] / 255}}
    for kind, text in blocks:
        if kind == "python":
            exec(text, names)
        elif kind == "sql":
            assert ask(db, text)[0][::2] == ("roads_2024", names["done"].blocks)
        elif shutil.which(text.split()[0]) or text.startswith("pgtiles"):
            done = subprocess.run(text, shell=True, env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    assert len(blocks) >= 5
    assert blocks_of(SimpleNamespace(db=db), "roads_2025") == blocks_of(SimpleNamespace(db=db), "roads_2026")


def test_one_process_of_several_predicts_all(own, monkeypatch):
    """Where torchrun says that this is a rank, datasets are shared out; a map is not."""
    data = dataset_of(own)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert predict(identity, data, "maps.rank", kind="values", within=box(), overlap=OVERLAP).tiles == 88
    assert (read_back(own, "maps.rank")[0] == own.pixels).all()
