"""Exported tiles, read by others: rasterio, pycocotools, webdataset, an XML parser, and YOLO's lines by its own description."""

import contextlib
import csv
import hashlib
import io
import json
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import psycopg
import pytest
import rasterio
import shapely
import webdataset
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask, scene, write_tiff
from pycocotools.coco import COCO
from typer.testing import CliRunner
from waiting import until

from pgtiles import (
    Boxes,
    Database,
    Grid,
    Imagery,
    Instances,
    Labels,
    TileDataset,
    Tiles,
    Value,
    Vectors,
    bake,
    export,
    load,
    read,
)
from pgtiles.errors import ConfigError, DataError, LoadError, OutageError, QueryError
from pgtiles.postgres.programs import find_programs
from pgtiles.shell.cli import typer_app

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of PNG, as it is

ROOT = Path(__file__).parents[1]
ROADS = "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
AREAS = "SELECT way AS geom, class AS value, id FROM areas WHERE way && tile.geom"
PLAIN = ROADS.replace(", class AS value", "")
KIND = "SELECT count(*) % 3 AS value FROM roads WHERE ST_Intersects(way, tile.geom)"
NAMES = {1: "oak", 2: "Ü & <elm>", 3: "ash", 4: "birch: tall"}


@pytest.fixture(scope="module")
def tiles(world):
    within = (X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0)
    return Tiles.random(world.grid, within=within, count=50, seed=3, first_id=7)


@pytest.fixture(scope="module")
def split(tiles):
    return tiles.split(train=0.5, val=0.25, test=0.25, block=500, gap=0).tiles


def dataset(world, tiles, **layers):
    return TileDataset(world.db, tiles, {"image": Imagery("scene"), **layers})


def exported(world, tiles, folder, format_, layers, **more):
    """The live tiles, each by its id, once they are exported; and the folder."""
    data = dataset(world, tiles, **layers)
    done = export(data, folder / "out", format=format_, **more)
    assert (done.tiles, done.written) == (len(tiles), len(tiles))
    live = read(world.db, tiles, data.layers)
    return {id_: {key: live[key][i] for key in live} for i, id_ in enumerate(tiles.ids.tolist())}, folder / "out"


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


def tree(folder):
    """Every file's name and digest."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def splits_of(tiles):
    return dict(zip(tiles.ids.tolist(), tiles.columns["split"].tolist(), strict=True))


class TestPictures:
    def test_geotiff_by_rasterio(self, world, split, tmp_path):
        layers = {"mask": Labels(ROADS), "part": Instances(AREAS), "bands": Vectors({"a": ROADS, "b": "trees"})}
        live, out = exported(world, split, tmp_path, "geotiff", layers, image="image")
        for id_, one in live.items():
            with rasterio.open(out / "image" / f"{id_}.tif") as file:
                assert file.crs.to_epsg() == 3857
                assert tuple(file.bounds) == tuple(one["bounds"])
                assert np.array_equal(file.read(), one["image"])
            for key in ("mask", "part"):
                with rasterio.open(out / key / f"{id_}.tif") as file:
                    assert file.dtypes == ({"mask": "uint8", "part": "uint16"}[key],)
                    assert np.array_equal(file.read(1), one[key])
            assert np.array_equal(pixels(out / "bands" / f"{id_}.tif"), one["bands"])
        assert {path.name for path in (out / "image").iterdir()} == {f"{id_}.tif" for id_ in live}

    @pytest.mark.parametrize("format_", ["png", "jpeg"])
    def test_png_and_jpeg_by_pillow(self, world, tiles, tmp_path, format_):
        from PIL import Image

        live, out = exported(world, tiles, tmp_path, format_, {"mask": Labels(ROADS, dtype="uint8")})
        for id_, one in live.items():
            seen = np.asarray(Image.open(out / "image" / f"{id_}.{'jpg' if format_ == 'jpeg' else 'png'}"))
            there = np.moveaxis(one["image"], 0, 2)
            if format_ == "png":
                assert np.array_equal(seen, there)
            else:
                assert seen.shape == there.shape
                assert np.abs(seen.astype(int) - there).mean() < 15  # of noise, whose colours JPEG halves
            assert np.array_equal(np.asarray(Image.open(out / "mask" / f"{id_}.png")), one["mask"])
        assert not list(out.rglob("*.aux.xml"))

    def test_other_resolutions_types_and_where_there_is_data(self, world, tmp_path):
        """Over the scene's edge, in coarser pixels: files lie where they are, and say where there is data."""
        edge = Tiles(world.grid, np.array([-30, WIDTH - 10]), np.array([-20, 40]), np.array([-4, 9]))
        layers = {
            "coarse": Imagery("scene", resolution=2 * RES, dtype="float32", valid=True, fill=-1.5),
            "height": Labels(ROADS, dtype="float32"),
        }
        live, out = exported(world, edge, tmp_path, "geotiff", layers)
        for id_, one in live.items():
            with rasterio.open(out / "coarse" / f"{id_}.tif") as file:
                assert file.res == (2 * RES, 2 * RES)
                assert tuple(file.bounds) == tuple(one["bounds"])
                assert np.array_equal(file.read(), one["coarse"])
            assert np.array_equal(pixels(out / "coarse_valid" / f"{id_}.tif")[0], one["coarse_valid"])
            assert np.array_equal(pixels(out / "height" / f"{id_}.tif")[0], one["height"])
            assert 0 < one["coarse_valid"].mean() < 1
        told = json.loads((out / "statistics.json").read_text())["all"]["bands"]["coarse"][0]
        there = np.concatenate([one["coarse"][0][one["coarse_valid"]] for one in live.values()])
        assert told["pixels"] == there.size
        assert told["mean"] == pytest.approx(there.mean(dtype=float))
        assert told["min"] == there.min()

    def test_stretched(self, world, tiles, tmp_path):
        live, out = exported(world, tiles[:5], tmp_path, "png", {}, stretch=[(50, 150), (0, 255), (100, 101)])
        for id_, one in live.items():
            low, high = np.array([[50, 0, 100], [150, 255, 101]])[:, :, None, None]
            wanted = np.rint(np.clip((one["image"].astype(float) - low) / (high - low) * 255, 0, 255))
            assert np.abs(pixels(out / "image" / f"{id_}.png") - wanted).max() == 0

    def test_a_fourth_band_is_no_opacity(self, world, schema_db, tiles, tmp_path):
        """As GDAL takes it for, of bytes, unless it is told; a reader would then mask or blend by the infrared."""
        load.raster(schema_db, write_tiff(tmp_path / "four.tif", scene(0, (4, HEIGHT, WIDTH))), "mine.four")
        export(TileDataset(schema_db, tiles[:1], {"image": Imagery("four")}), tmp_path / "out")
        with rasterio.open(tmp_path / "out" / "image" / f"{tiles.ids[0]}.tif") as file:
            assert rasterio.enums.ColorInterp.alpha not in file.colorinterp
            assert np.array_equal(file.read(), read(schema_db, tiles[:1], {"image": Imagery("four")})["image"][0])

    def test_a_crs_of_ones_own(self, world, schema_db, tmp_path):
        """By PROJ's text, where spatial_ref_sys has no other; refused where it has none."""
        proj = "+proj=laea +lat_0=47 +lon_0=9 +ellps=WGS84 +units=m +no_defs"
        with schema_db.connection() as conn:
            conn.execute(f"INSERT INTO spatial_ref_sys VALUES (990001, NULL, NULL, NULL, '{proj}')")
        try:
            for srid in (990001, 990002):
                with schema_db.connection() as conn:
                    conn.execute(f"CREATE TABLE odd{srid} AS SELECT rid, ST_SetSRID(rast, {srid}) AS rast FROM scene LIMIT 2")
                    conn.execute(
                        f"ALTER TABLE odd{srid} ADD PRIMARY KEY (rid); CREATE INDEX ON odd{srid} USING gist (ST_ConvexHull(rast))"
                    )
                grid = Grid.like(schema_db, f"odd{srid}", size=32)
                tiles = Tiles.random(grid, within=schema_db.extent(f"odd{srid}", srid), count=1, seed=0)
                data = TileDataset(schema_db, tiles, {"image": Imagery(f"odd{srid}")})
                if srid == 990001:
                    export(data, tmp_path / "out")
                    with rasterio.open(tmp_path / "out" / "image" / "0.tif") as file:
                        assert file.crs == rasterio.CRS.from_proj4(proj)
                else:
                    with pytest.raises(ConfigError, match=r"SRID 990002: spatial_ref_sys of .* says in no words"):
                        export(data, tmp_path / "none")
        finally:
            with schema_db.connection() as conn:
                conn.execute("DELETE FROM spatial_ref_sys WHERE srid = 990001")

    def test_several_zones(self, world, tmp_path):
        """Each file says its own SRID."""
        from pgtiles import BySrid

        grids = [Grid(srid=srid, resolution=5, size=32) for srid in (32632, 32633)]
        sets = [Tiles.random(g, within=world.db.extent("scene", g.srid), count=3, first_id=10 * n) for n, g in enumerate(grids)]
        every = sets[0] + sets[1]
        layers = {
            "image": BySrid({g.srid: Imagery("scene") for g in grids}),
            "mask": BySrid({g.srid: Labels("areas") for g in grids}),
        }
        export(TileDataset(world.db, every, layers), tmp_path)
        for id_, srid, bounds in zip(every.ids, every.srids, every.bounds, strict=True):
            with rasterio.open(tmp_path / "image" / f"{id_}.tif") as file:
                assert file.crs.to_epsg() == srid
                assert tuple(file.bounds) == tuple(bounds)


@pytest.mark.filterwarnings("ignore:.*copy keyword:DeprecationWarning")  # pycocotools, of run lengths
class TestCoco:
    @pytest.mark.parametrize(
        "layer", [Instances(AREAS), Labels(ROADS, ignore_index=255, contact=4)], ids=["instances", "components"]
    )
    def test_masks_by_pycocotools(self, world, split, tmp_path, layer):
        live, out = exported(world, split, tmp_path, "coco", {"things": layer}, classes=NAMES)
        count = rle = 0
        for name in ("train", "val", "test"):
            with contextlib.redirect_stdout(io.StringIO()):
                coco = COCO(out / "annotations" / f"instances_{name}.json")
            assert set(coco.imgs) == {id_ for id_, own in splits_of(split).items() if own == name}
            assert {one["id"]: one["name"] for one in coco.loadCats(coco.getCatIds())} == NAMES
            for id_, image in coco.imgs.items():
                one = live[id_]
                assert np.array_equal(pixels(out / "images" / image["file_name"]), one["image"])
                seen = [(note, coco.annToMask(note)) for note in coco.imgToAnns[id_]]
                rle += sum(isinstance(note["segmentation"], dict) for note, _ in seen)
                for note, mask in seen:
                    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
                    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
                    assert (note["bbox"], note["area"]) == (box, mask.sum())
                if isinstance(layer, Instances):
                    assert [note["category_id"] for note, _ in seen] == one["things_label"].tolist()
                    assert [note["feature_id"] for note, _ in seen] == one["things_id"].tolist()
                    for n, (_, mask) in enumerate(seen, 1):
                        assert np.array_equal(mask == 1, one["things"] == n)
                else:
                    whole = np.zeros((64, 64), int)
                    for note, mask in seen:
                        assert not whole[mask == 1].any()
                        whole[mask == 1] = note["category_id"]
                    assert np.array_equal(whole, np.where(one["things"] == 255, 0, one["things"]))
                count += len(seen)
        assert count > 50
        assert rle > 0

    def test_boxes(self, world, tiles, tmp_path):
        live, out = exported(world, tiles, tmp_path, "coco", {"boxes": Boxes(AREAS)})
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(out / "annotations" / "instances_all.json")
        for id_, one in live.items():
            seen = coco.imgToAnns[id_]
            corners = [[x, y, x + w, y + h] for x, y, w, h in (note["bbox"] for note in seen)]
            assert np.allclose(np.array(corners).reshape(-1, 4), one["boxes"], atol=1e-5)
            assert [note["feature_id"] for note in seen] == one["boxes_id"].tolist()
        assert {one["name"] for one in coco.cats.values()} == {"1", "2", "3", "4"}
        assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))


def yolo(path, width, height):
    """A label file, as Ultralytics describes it: a line an object, class x_center y_center width height, from 0 to 1."""
    rows = np.array([line.split() for line in path.read_text().splitlines()], float).reshape(-1, 5)
    assert ((rows[:, 1:] >= 0) & (rows[:, 1:] <= 1)).all()
    x, y, w, h = rows[:, 1:].T * np.array([[width], [height], [width], [height]])
    return rows[:, 0].astype(int), np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def test_yolo(world, split, tmp_path):
    import yaml

    live, out = exported(world, split, tmp_path, "yolo", {"boxes": Boxes(AREAS)}, classes=NAMES)
    told = yaml.safe_load((out / "data.yaml").read_text())
    assert told["names"] == dict(enumerate(NAMES.values()))
    objects = 0
    for id_, own in splits_of(split).items():
        assert np.array_equal(pixels(out / told[own] / f"{id_}.png"), live[id_]["image"])
        # where Ultralytics looks for it: the image's path, with the last /images/ become /labels/
        label = Path(f"{os.sep}labels{os.sep}".join(str(out / told[own] / f"{id_}.txt").rsplit(f"{os.sep}images{os.sep}", 1)))
        numbers, boxes = yolo(label, 64, 64)
        assert np.array_equal(numbers + 1, live[id_]["boxes_label"])
        assert np.allclose(boxes, live[id_]["boxes"], atol=1e-4)
        objects += len(boxes)
    assert objects > 50


def test_voc(world, split, tmp_path):
    layers = {"boxes": Boxes(AREAS), "mask": Labels(ROADS, ignore_index=255, contact=4)}
    live, out = exported(world, split, tmp_path, "voc", layers, classes=NAMES)
    for id_, one in live.items():
        root = ET.parse(out / "Annotations" / f"{id_}.xml").getroot()
        assert [root.find("size").findtext(side) for side in ("width", "height", "depth")] == ["64", "64", "3"]
        with rasterio.open(out / "JPEGImages" / root.findtext("filename")) as file:
            assert file.shape == (64, 64)
        assert [thing.findtext("name") for thing in root.iter("object")] == [NAMES[label] for label in one["boxes_label"]]
        for thing, box in zip(root.iter("object"), one["boxes"], strict=True):
            xmin, ymin, xmax, ymax = (int(thing.find("bndbox").findtext(side)) for side in ("xmin", "ymin", "xmax", "ymax"))
            # from 1, both ends included: the fewest whole pixels around the box
            assert [xmin - 1, ymin - 1, xmax, ymax] == [*np.floor(box[:2]), *np.ceil(box[2:])]
        with rasterio.open(out / "SegmentationClass" / f"{id_}.png") as file:
            assert np.array_equal(file.read(1), one["mask"])
            palette = file.colormap(1)
            assert [palette[n][:3] for n in (0, 1, 2, 15, 255)] == [
                (0, 0, 0), (128, 0, 0), (0, 128, 0), (192, 128, 128), (224, 224, 192),
            ]  # fmt: skip
    for folder in ("Main", "Segmentation"):
        for name in ("train", "val", "test"):
            listed = (out / "ImageSets" / folder / f"{name}.txt").read_text().split()
            assert {int(id_) for id_ in listed} == {id_ for id_, own in splits_of(split).items() if own == name}


def test_a_folder_for_each_class(world, split, tmp_path):
    names = {0: "none", 1: "one road", 2: "two"}
    live, out = exported(world, split, tmp_path, "folders", {"kind": Value(KIND, dtype="int64")}, classes=names)
    found = {path.relative_to(out).parts for path in out.rglob("*.png")}
    assert found == {(own, names[int(live[id_]["kind"])], f"{id_}.png") for id_, own in splits_of(split).items()}
    assert {name for _, name, _ in found} == set(names.values())
    for parts in found:
        assert np.array_equal(pixels(out.joinpath(*parts)), live[int(parts[2][:-4])]["image"])


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves its tars to the garbage collector
class TestWebDataset:
    def test_by_webdataset(self, world, split, tmp_path):
        layers = {
            "mask": Labels(ROADS), "wide": Vectors({str(n): ROADS for n in range(6)}), "boxes": Boxes(AREAS), "kind": Value(KIND),
        }  # fmt: skip
        live, out = exported(world, split, tmp_path, "webdataset", layers, image="image", shard=9)
        for name in ("train", "val", "test"):
            own = split[split.columns["split"] == name].ids.tolist()
            urls = sorted(str(path) for path in out.glob(f"{name}-*.tar"))
            assert len(urls) == -(-len(own) // 9)
            samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
            assert [int(sample["__key__"]) for sample in samples] == own
            for sample in samples:
                one = live[int(sample["__key__"])]
                assert np.array_equal(np.moveaxis(sample["image.png"], 2, 0), one["image"])
                assert np.array_equal(sample["mask.png"][..., 0], one["mask"])
                assert np.array_equal(sample["wide.npy"], one["wide"])
                assert np.array_equal(np.array(sample["json"]["boxes"]).reshape(-1, 4), one["boxes"])
                assert sample["json"]["boxes_label"] == one["boxes_label"].tolist()
                assert sample["json"]["kind"] == one["kind"]
                assert sample["json"]["split"] == name

    def test_by_tarfile_as_tiffs(self, world, tiles, tmp_path):
        live, out = exported(world, tiles[:4], tmp_path, "webdataset", {}, images="tiff")
        with tarfile.open(out / "all-000000.tar") as tar:
            for id_, one in live.items():
                with rasterio.MemoryFile(tar.extractfile(f"{id_}.image.tif").read()) as memory, memory.open() as file:
                    assert np.array_equal(file.read(), one["image"])
                    assert tuple(file.bounds) == tuple(one["bounds"])


class TestBeside:
    def test_classes_statistics_and_splits(self, world, split, tmp_path):
        layers = {
            "mask": Labels(
                {"road": PLAIN, "area": (9, "SELECT way AS geom FROM areas WHERE way && tile.geom")},
                ignore_index=255,
                contact=4,
            ),
            "boxes": Boxes(AREAS),
        }
        live, out = exported(world, split, tmp_path, "geotiff", layers, classes=NAMES)
        told = json.loads((out / "classes.json").read_text())
        assert told["mask"] == {"classes": {"1": "road", "9": "area"}, "background": 0, "ignore_index": 255}
        assert told["boxes"] == {"classes": {str(value): name for value, name in NAMES.items()}}
        counts = json.loads((out / "statistics.json").read_text())
        for name in ("train", "val", "test"):
            own = [live[id_] for id_, side in splits_of(split).items() if side == name]
            assert (out / "splits" / f"{name}.txt").read_text().split() == [str(one["tile_id"]) for one in own]
            assert counts[name]["tiles"] == len(own)
            image, mask = np.stack([one["image"] for one in own]), np.stack([one["mask"] for one in own])
            for n, band in enumerate(counts[name]["bands"]["image"]):
                assert (band["min"], band["max"]) == (image[:, n].min(), image[:, n].max())
                assert (band["mean"], band["std"]) == pytest.approx((image[:, n].mean(), image[:, n].std()))
            for one in counts[name]["pixels"]["mask"]:
                assert one["count"] == (mask == one["value"]).sum()
                assert one["tiles"] == (mask == one["value"]).any(axis=(1, 2)).sum()
                assert one["share"] == (mask == one["value"]).mean()
            labels = np.concatenate([one["boxes_label"] for one in own])
            assert {one["name"]: one["count"] for one in counts[name]["objects"]["boxes"]} == {
                NAMES[value]: (labels == value).sum() for value in np.unique(labels)
            }

    def test_of_floats_of_any_size(self, world, schema_db, tmp_path):
        """A nodata value that no square holds, and large values that differ little; what is no number is null, as JSON has it."""
        rng = np.random.default_rng(1)
        high = rng.normal(0, 0.5, (1, 90, 100)) + 1e6
        low = high.copy()
        low[:, :, 50:] = -np.finfo("float64").max
        grid = Grid(srid=3857, resolution=RES, size=30, origin=(X0, Y0))
        tiles = Tiles.sliding(grid, within=(X0, Y0 - 90 * RES, X0 + 100 * RES, Y0)).with_columns(far=np.full(9, np.inf))
        for name, values in (("high", high), ("low", low)):
            load.raster(schema_db, write_tiff(tmp_path / f"{name}.tif", values), f"mine.{name}")
            data = TileDataset(schema_db, tiles, {"image": Imagery(name), "kind": Value("SELECT 'Infinity'::float8 AS value")})
            export(data, tmp_path / name, format="webdataset" if name == "low" else "geotiff")
        there = high[0, :, :90]
        [told] = json.loads((tmp_path / "high" / "statistics.json").read_text())["all"]["bands"]["image"]
        assert (told["mean"], told["std"]) == pytest.approx((there.mean(), there.std()), rel=1e-3)
        [told] = json.loads((tmp_path / "low" / "statistics.json").read_text())["all"]["bands"]["image"]
        assert (told["mean"], told["std"], told["max"]) == (None, None, low[0, :, :90].max())

        def refused(text):
            raise AssertionError(f"{text} is no JSON")

        for text in (tmp_path / "low" / "tiles.jsonl").read_text().splitlines():
            line = json.loads(text, parse_constant=refused)
            assert (line["columns"]["far"], line["values"]["kind"]) == (None, None)

    def test_each_tile_has_a_line(self, world, split, tmp_path):
        wider = split.with_columns(cloud=np.linspace(0, 1, len(split)))
        live, out = exported(world, wider, tmp_path, "geotiff", {"kind": Value(KIND), "boxes": Boxes(AREAS)})
        lines = [json.loads(line) for line in (out / "tiles.jsonl").read_text().splitlines()]
        assert [line["id"] for line in lines] == sorted(live)
        for line in lines:
            one = live[line["id"]]
            assert line["bounds"] == one["bounds"].tolist()
            assert line["split"] == splits_of(split)[line["id"]]
            assert line["columns"]["cloud"] == wider.columns["cloud"][wider.ids == line["id"]][0]
            assert line["values"]["kind"] == one["kind"]
            assert line["values"]["boxes_id"] == one["boxes_id"].tolist()
            assert all((out / file).is_file() for file in line["files"])
        assert not (out / ".pgtiles").exists()


class TestAppended:
    @pytest.mark.parametrize("format_", ["geotiff", "coco", "webdataset"])
    def test_in_two_calls_or_one(self, world, split, tmp_path, format_):
        data = dataset(world, split, mask=Labels(ROADS))
        more = {"shard": 4} if format_ == "webdataset" else {}
        export(data, tmp_path / "one", format=format_, **more)
        first = split[:16]
        done = export(dataset(world, first, mask=Labels(ROADS)), tmp_path / "two", format=format_, **more)
        assert (done.written, done.there, done.all) == (16, 0, 16)
        before = tree(tmp_path / "two")
        done = export(data, tmp_path / "two", format=format_, **more)
        assert (done.written, done.there, done.all) == (len(split) - 16, 16, len(split))
        after = tree(tmp_path / "two")
        if format_ == "webdataset":  # a tar that is there stays as it is
            assert {name: digest for name, digest in before.items() if name.endswith(".tar")}.items() <= after.items()
            keys = []
            for path in (tmp_path / "two").glob("*.tar"):
                with tarfile.open(path) as tar:
                    keys += [int(name.partition(".")[0]) for name in tar.getnames() if name.endswith(".json")]
            assert sorted(keys) == sorted(split.ids.tolist())
        else:
            assert after == tree(tmp_path / "one")
        assert export(data, tmp_path / "two", format=format_, **more).written == 0
        assert tree(tmp_path / "two") == after

    def test_a_file_that_is_gone_is_written_again(self, world, tiles, tmp_path):
        data = dataset(world, tiles, mask=Labels(ROADS))
        export(data, tmp_path)
        before = tree(tmp_path)
        (tmp_path / "mask" / "9.tif").unlink()
        assert export(data, tmp_path).written == 1
        assert tree(tmp_path) == before

    def test_what_is_otherwise_is_refused_and_left_as_it_is(self, world, tiles, split, tmp_path):
        data, out = dataset(world, split, mask=Labels(ROADS)), tmp_path / "out"
        export(data, out)
        before = tree(out)
        with pytest.raises(ConfigError, match=r"exported otherwise: layers mask .*Export into another folder"):
            export(dataset(world, split, mask=Labels(AREAS)), out)
        with pytest.raises(ConfigError, match='exported otherwise: format was "geotiff", now "png"'):
            export(data, out, format="png")
        moved = Tiles(split.grid, split.cols + 1, split.rows, split.ids, columns=split.columns)
        with pytest.raises(ConfigError, match=r"tile \d+ is in .* already, with bounds .*first_id="):
            export(dataset(world, moved, mask=Labels(ROADS)), out)
        swapped = split.with_columns(split=np.where(split.columns["split"] == "train", "test", "train"))
        with pytest.raises(ConfigError, match="already, with split train, now test"):
            export(dataset(world, swapped, mask=Labels(ROADS)), out)
        assert tree(out) == before
        (tmp_path / "else").mkdir()
        (tmp_path / "else" / "thesis.doc").touch()
        with pytest.raises(ConfigError, match=r"holds 'thesis.doc' and is no export: name an empty folder"):
            export(data, tmp_path / "else")


class TestInterrupted:
    SHARD = 16
    EXPORT = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from test_export import TestInterrupted

def progress(done, total):  # it is told before the first file is written
    if len(sys.argv) > 6:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[6]), resource.RLIM_INFINITY))
    print(done, flush=True)

print(TestInterrupted.export(*sys.argv[2:5], connections=int(sys.argv[5]), progress=progress))
"""

    @classmethod
    def export(cls, url, folder, format_, connections=2, progress=None):
        """Of the last tile to be read, labels wait until nobody has the lock 199 alone."""
        db = Database(url)
        tiles = Tiles.random(Grid.like(db, "scene", size=64), within=db.extent("scene", 3857), count=200, seed=4)
        tiles = tiles.split(train=0.5, test=0.5, block=500, gap=0).tiles
        splits = tiles.columns["split"].tolist()
        [*_, last] = tiles.ids[[split == [*dict.fromkeys(splits)][-1] for split in splits]].tolist()
        assert last in tiles.ids[len(tiles) // 32 * 32 :]  # of the last lot, whether lots are of a split or not
        waits = (
            "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads, LATERAL (SELECT CASE WHEN tile.id = "
            f"{last} THEN pg_advisory_xact_lock_shared(199) END) AS waited WHERE ST_DWithin(way, tile.geom, 6)"
        )
        data = TileDataset(db, tiles, {"image": Imagery("scene"), "mask": Labels(waits)}, connections=connections)
        more = {"shard": cls.SHARD} if format_ == "webdataset" else {}
        with contextlib.closing(data):
            return export(data, folder, format=format_, progress=progress, **more)

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, world, tmp_path_factory):
        """What an export gives that nobody interrupts, for each format."""
        folders = {}
        for format_ in ("geotiff", "coco", "webdataset"):
            folders[format_] = tmp_path_factory.mktemp("whole") / format_
            done = cls.export(world.url, folders[format_], format_)
            assert (done.written, done.there) == (done.tiles, 0)
        return {format_: tree(folder) for format_, folder in folders.items()}

    def start(self, world, folder, format_, connections=2, *more):
        command = [sys.executable, "-c", self.EXPORT, str(ROOT / "tests"), world.url, folder, format_, connections, *more]
        environment, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
        return subprocess.Popen([str(part) for part in command], env=environment, stdout=pipe, stderr=pipe, text=True)

    @staticmethod
    def wait(process, count):
        """Until so many tiles are there."""
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= count:
                return

    @pytest.mark.parametrize("format_", ["coco", "webdataset"])
    def test_killed_in_the_middle_it_goes_on(self, world, whole, tmp_path, format_):
        for seed in range(3):
            dice, cut = random.Random(seed), tmp_path / f"cut{seed}"
            with psycopg.connect(world.url, autocommit=True) as conn:
                conn.execute("SELECT pg_advisory_lock(199)")
                process = self.start(world, cut, format_, 1 + seed % 2)
                stop = dice.choice([0, 32, 64, 96])
                self.wait(process, stop)
                time.sleep(dice.random() * 0.1)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                killed = tree(cut)
            assert killed != whole[format_]
            there = {name: digest for name, digest in killed.items() if not name.startswith(".pgtiles/")}
            if there.get("tiles.jsonl") == hashlib.sha256().hexdigest():  # it is filled at the end
                there.pop("tiles.jsonl")
            assert there.items() <= whole[format_].items()  # none is half there
            done = self.export(world.url, cut, format_)
            assert done.there >= stop
            assert done.written + done.there == done.tiles
            assert tree(cut) == whole[format_]

    def test_ctrl_c(self, schema_db, tiles, tmp_path):
        """It ends within seconds, whatever the server is at."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE wait (seconds int); INSERT INTO wait VALUES (60)")
        late = f"SELECT tile.geom FROM tile, wait WHERE CASE WHEN tile.id > {tiles.ids[31]} THEN pg_sleep(seconds) IS NOT NULL ELSE true END"
        data, began = TileDataset(schema_db, tiles, {"image": Imagery("scene"), "mask": Labels(late)}), time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            export(data, tmp_path / "cut", progress=lambda done, total: done and os.kill(os.getpid(), signal.SIGINT))
        assert time.monotonic() - began < 50
        assert {path.name for path in (tmp_path / "cut" / ".pgtiles").iterdir()} == {"journal.jsonl"}
        with schema_db.connection() as conn:
            conn.execute("UPDATE wait SET seconds = 0")
        done = export(data, tmp_path / "cut")
        assert (done.there, done.written) == (32, len(tiles) - 32)
        export(data, tmp_path / "whole")
        assert tree(tmp_path / "cut") == tree(tmp_path / "whole")

    @pytest.mark.parametrize("most", [10_000, 30_000])
    def test_a_disk_that_takes_no_more(self, world, whole, tmp_path, most):
        """A limit on a file's size stands for the full disk: the kernel refuses the same writes, an image's or the journal's."""

        process = self.start(world, tmp_path, "geotiff", 2, most)
        last = process.communicate(timeout=300)[1].strip().splitlines()
        assert last[-2].startswith("pgtiles.errors.LoadError: ")
        assert "can't be written: File too large" in last[-2]
        there = int(re.match(r"(\d+) of \d+ tiles are in ", last[-1])[1])
        assert last[-1].endswith("; the same call goes on from there")
        assert (there > 0) == (most == 30_000)
        assert self.export(world.url, tmp_path, "geotiff").there == there
        assert tree(tmp_path) == whole["geotiff"]

    def test_a_journal_that_ends_in_the_middle(self, world, tiles, tmp_path):
        """Of a lot that was not noted to its end, nothing is there."""
        data = dataset(world, tiles, mask=Labels(ROADS))
        export(data, tmp_path)
        before = tree(tmp_path)
        lines = (tmp_path / "tiles.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / ".pgtiles").mkdir()
        for torn, there in (
            (b"".join(lines[:9]) + b"\n" + lines[9][:20], 9),
            (b"".join(lines[:9]) + b"\n" + lines[9] + lines[10], 9),
            (lines[0], 0),
        ):
            (tmp_path / ".pgtiles").mkdir(exist_ok=True)
            (tmp_path / "tiles.jsonl").unlink()
            (tmp_path / ".pgtiles" / "journal.jsonl").write_bytes(torn)
            assert export(data, tmp_path).there == there
            assert tree(tmp_path) == before

    def test_one_at_a_time(self, world, tiles, tmp_path):
        data, refused = dataset(world, tiles), []

        def again(done, total):
            with pytest.raises(ConfigError, match="another process is exporting into it"):
                export(data, tmp_path)
            refused.append(done)

        assert export(data, tmp_path, progress=again).written == refused[-1] == len(tiles)
        assert export(data, tmp_path).there == len(tiles)


class TestFailingServer:
    """What a dataset survives, an export does."""

    @staticmethod
    @contextlib.contextmanager
    def cutting(world):
        """
        A progress that ends all of pgtiles' backends, active or idle, each time it is told something: for the first time when
        one is at a tile of the second lot, and none gets past that before.
        """
        with psycopg.connect(world.url, autocommit=True) as conn:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 32 AND NOT granted"
            ended = (
                "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'pgtiles'"
            )

            def cut(done, total):
                if 0 < done < total:
                    until(lambda: conn.execute(waiting).fetchone()[0])
                conn.execute(ended)
                if done:
                    conn.execute("SELECT pg_advisory_unlock_all()")

            conn.execute("SELECT pg_advisory_lock(32)")
            yield cut

    @staticmethod
    def late(world, tiles, **options):
        """Of tiles after the first lot, labels wait until nobody has the lock alone."""
        wait = f"CASE WHEN tile.id > {tiles.ids[31]} THEN pg_advisory_xact_lock_shared(32) END"
        areas = AREAS.replace("areas", f"areas, LATERAL (SELECT {wait}) AS waited")
        db = Database(world.url, **options.pop("db", {}))
        return TileDataset(db, tiles, {"image": Imagery("scene"), "mask": Labels(areas)}, **options)

    def test_lost_connections(self, world, tiles, tmp_path):
        export(self.late(world, tiles), tmp_path / "peace", sources=True)
        data = self.late(world, tiles)
        with self.cutting(world) as cut:
            assert export(data, tmp_path / "cut", sources=True, progress=cut).written == len(tiles)
        assert data.stats().retries > 0
        assert tree(tmp_path / "cut") == tree(tmp_path / "peace")

    def test_given_up(self, world, tiles, tmp_path):
        """It says what the server did, and nothing of a disk; the error names no more tiles than a batch has."""
        data = self.late(world, tiles, batch_size=4, db={"patience": 0})
        message = r"tiles \d+, \d+, \d+, \d+: given up (.|\n)*patience"
        with self.cutting(world) as cut, pytest.raises(OutageError, match=message) as caught:
            export(data, tmp_path, progress=cut)
        assert "can't be written" not in str(caught.value)
        assert str(caught.value).endswith("; the same call goes on from there")

    def test_skipped(self, schema_db, tiles, tmp_path):
        """A tile that can't be read is left out, and tried again by the next call."""
        bad = int(tiles.ids[3])
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE flaw (n int); INSERT INTO flaw VALUES (0)")
        layers = {"mask": Labels(f"SELECT tile.geom FROM tile, flaw WHERE 1 / (tile.id - {bad} + flaw.n) < 9")}
        with pytest.raises(QueryError, match=rf"layer 'mask', tile {bad} at .*division by zero"):
            export(TileDataset(schema_db, tiles, layers), tmp_path)
        data = TileDataset(schema_db, tiles, layers, on_error="skip")
        for format_ in ("geotiff", "webdataset"):
            done = export(data, tmp_path / format_, format=format_)
            assert (done.written, done.skipped, done.all) == (len(tiles) - 1, 1, len(tiles) - 1)
        assert {path.stem for path in (tmp_path / "geotiff" / "mask").iterdir()} == {*map(str, tiles.ids)} - {str(bad)}
        with schema_db.connection() as conn:
            conn.execute("UPDATE flaw SET n = 1")
        for format_ in ("geotiff", "webdataset"):
            done = export(data, tmp_path / format_, format=format_)
            assert (done.written, done.skipped, done.all) == (1, 0, len(tiles))


class TestSources:
    def test_every_kind_of_layer(self, world, tiles, tmp_path):
        """Of each layer what shapely and the rasters' own places say."""
        layers = {
            "mask": Labels(AREAS), "named": Labels({"oak": AREAS.replace(", class AS value", ""), "tree": "trees"}), "moved": Labels("roads_4326", buffer=6),
            "boxes": Boxes("areas"), "kind": Value(KIND), "bands": Vectors({"b": "trees"}),
        }  # fmt: skip
        live, out = exported(world, tiles, tmp_path, "geotiff", layers, sources=True, image="image")
        with world.db.connection() as conn:
            blocks = conn.execute(
                "SELECT rid, ST_XMin(e), ST_YMin(e), ST_XMax(e), ST_YMax(e) FROM (SELECT rid, ST_Envelope(rast) e FROM scene) s"
            ).fetchall()
            ids = {
                table: [id_ for (id_,) in conn.execute(f"SELECT id FROM {table} ORDER BY id")]
                for table in ("areas", "trees", "roads")
            }
        with (out / "sources.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        shapes = {"areas": world.features.areas, "trees": world.features.points, "roads": world.features.lines}
        seen = {}
        for row in rows:
            seen.setdefault((int(row["tile_id"]), row["layer"], row["source"]), set()).add(row["row"])
        for id_, one in live.items():
            box = shapely.box(*one["bounds"])
            met = {
                name: {str(id_) for id_, shape in zip(ids[name], own, strict=True) if shape.intersects(box)}
                for name, own in shapes.items()
            }
            under = {str(rid) for rid, *corners in blocks if shapely.box(*corners).intersection(box).area > 0}
            assert seen.get((id_, "image", "public.scene")) == under
            for layer, source, table in (
                ("mask", "", "areas"), ("named", "oak", "areas"), ("named", "tree", "trees"), ("boxes", "public.areas", "areas"),
                ("bands", "b", "trees"), ("kind", "public.roads", "roads"),
            ):  # fmt: skip
                assert seen.get((id_, layer, source), set()) == met[table], (layer, source)
            wide = {str(id_) for id_, line in zip(ids["roads"], world.features.lines, strict=True) if line.distance(box) < 4}
            assert wide <= seen.get((id_, "moved", "public.roads_4326"), set())
        assert sum(map(len, seen.values())) == len(rows) > 500

    def test_which_chips_used_this_way(self, world, tiles, tmp_path):
        """In the table that a COPY makes of the file, as in the file itself."""
        live, out = exported(world, tiles, tmp_path, "coco", {"mask": Labels(AREAS)}, sources=True)
        lines = [json.loads(line) for line in (out / "tiles.jsonl").read_text().splitlines()]
        way = next(key for line in lines for layer, _, key in line["sources"] if layer == "mask")
        used = {line["id"] for line in lines if ["mask", "", way] in line["sources"]}
        with world.db.connection() as conn, conn.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE sources (tile_id bigint, layer text, source text, row text)")
            with cursor.copy("COPY sources FROM STDIN (FORMAT csv, HEADER)") as copy:
                copy.write((out / "sources.csv").read_bytes())
            found = cursor.execute("SELECT tile_id FROM sources WHERE layer = 'mask' AND row = %s", [way]).fetchall()
            cursor.execute("DROP TABLE sources")
        assert {id_ for (id_,) in found} == used
        area = world.features.areas[int(way) - 1]
        assert used == {id_ for id_, one in live.items() if area.intersects(shapely.box(*one["bounds"]))}

    def test_baked_tiles_keep_the_same(self, world, schema_db, tiles, tmp_path):
        layers = {"image": Imagery("scene"), "mask": Labels(AREAS)}
        export(TileDataset(schema_db, tiles, layers), tmp_path, sources=True)
        told = {line["id"]: line["sources"] for line in map(json.loads, (tmp_path / "tiles.jsonl").read_text().splitlines())}
        TileDataset(schema_db, tiles[:20], layers).bake("chips", sources=True)
        bake(schema_db, "chips", tiles, layers, sources=True)
        assert dict(ask(schema_db, "SELECT tile_id, sources FROM chips_tiles")) == told
        way = next(key for rows in told.values() for layer, _, key in rows if layer == "mask")
        found = ask(schema_db, f"""SELECT tile_id FROM chips_tiles WHERE sources @> '[["mask", "", "{way}"]]'""")
        area = world.features.areas[int(way) - 1]
        boxes = zip(tiles.ids.tolist(), tiles.bounds, strict=True)
        assert {id_ for (id_,) in found} == {id_ for id_, box in boxes if area.intersects(shapely.box(*box))}
        with pytest.raises(ConfigError, match="was baked otherwise: sources was true, now null"):
            bake(schema_db, "chips", tiles, layers)
        with pytest.raises(ConfigError, match=r"layer 'mask': sources=True: .*expected one called id, too"):
            bake(schema_db, "none", tiles, {"mask": Labels(ROADS)}, sources=True)
        assert ask(schema_db, "SELECT to_regclass('none')") == [(None,)]

    def test_of_an_overview_the_scenes(self, schema_db, world, tmp_path):
        """Coarse tiles are read from an overview, whose own rows nobody would know."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE fine AS SELECT * FROM scene; ALTER TABLE fine ADD PRIMARY KEY (rid)")
            conn.execute("SELECT AddRasterConstraints('mine'::name, 'fine'::name, 'rast'::name)")
            conn.execute("SELECT ST_CreateOverview('mine.fine'::regclass, 'rast', 4)")
            conn.execute(
                "ALTER TABLE o_4_fine ADD rid serial PRIMARY KEY; CREATE INDEX ON o_4_fine USING gist (ST_ConvexHull(rast)); ANALYZE"
            )
            boxes = conn.execute(
                "SELECT rid, ST_XMin(e), ST_YMin(e), ST_XMax(e), ST_YMax(e) FROM fine, ST_Envelope(rast) e"
            ).fetchall()
        grid = Grid(srid=3857, resolution=RES * 4, size=32, origin=(X0, Y0))
        coarse = Tiles.random(grid, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=6, seed=0)
        data = TileDataset(schema_db, coarse, {"image": Imagery("fine")})
        assert "overview" in data.plan.layers[0].why
        export(data, tmp_path, sources=True)
        for line in map(json.loads, (tmp_path / "tiles.jsonl").read_text().splitlines()):
            under = {str(rid) for rid, *box in boxes if shapely.box(*box).intersection(shapely.box(*line["bounds"])).area > 0}
            assert {(source, row) for _, source, row in line["sources"]} == {("mine.fine", row) for row in under}

    def test_keys_of_any_text(self, world, schema_db, tiles, tmp_path):
        """Ends of lines, commas and quotes too; of labels without classes the source is empty, and not NULL."""
        odd = 'a "b",\nc'
        text = f"SELECT way AS geom, CASE id WHEN (SELECT min(id) FROM areas) THEN $${odd}$$ ELSE id::text END AS id FROM areas WHERE way && tile.geom"
        some = Tiles.random(world.grid, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=300, seed=0)
        export(TileDataset(world.db, some, {"mask": Labels(text)}), tmp_path, format="png", sources=True)
        with (tmp_path / "sources.csv").open(newline="") as file:
            seen = {row["row"] for row in csv.DictReader(file)}
        assert odd in seen
        with world.db.connection() as conn, conn.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE kept (tile_id bigint, layer text, source text, row text)")
            with cursor.copy("COPY kept FROM STDIN (FORMAT csv, HEADER)") as copy:
                copy.write((tmp_path / "sources.csv").read_bytes())
            found = cursor.execute("SELECT DISTINCT row FROM kept WHERE source = ''").fetchall()
            cursor.execute("DROP TABLE kept")
        assert {row for (row,) in found} == seen

    def test_by_the_column_that_tells_features_apart(self, world, schema_db, tiles, tmp_path):
        """As osm2pgsql's tables have it, which have no primary key."""
        with schema_db.connection() as conn:
            conn.execute(
                "CREATE TABLE houses AS SELECT id * 10 AS osm_id, way FROM areas; CREATE INDEX ON houses USING gist (way)"
            )
        data = TileDataset(schema_db, tiles, {"image": Imagery("scene"), "houses": Boxes("houses", id="osm_id")})
        export(data, tmp_path / "out", format="coco", sources=True)
        seen = 0
        for line in map(json.loads, (tmp_path / "out" / "tiles.jsonl").read_text().splitlines()):
            known = {row for layer, source, row in line["sources"] if (layer, source) == ("houses", "mine.houses")}
            assert {str(thing["feature_id"]) for thing in line["coco"]["annotations"]} <= known
            seen += len(known)
        assert seen > 50
        with pytest.raises(ConfigError, match=r"layer 'mask': sources=True: tile \d+ has a row whose id is NULL"):
            text = "SELECT way AS geom, NULLIF(id, id / 2 * 2) AS id FROM areas WHERE way && tile.geom"
            export(dataset(world, tiles, mask=Labels(text)), tmp_path / "none", sources=True)

    def test_what_can_not_be_called(self, world, tiles, tmp_path):
        with pytest.raises(ConfigError, match=r"layer 'mask': sources=True: .*expected one called id, too"):
            export(dataset(world, tiles, mask=Labels(ROADS)), tmp_path / "out", sources=True)
        assert not (tmp_path / "out").exists()


class TestRefused:
    """Before anything is written, in words that say what to do."""

    @pytest.mark.parametrize(
        ("layers", "more", "said"),
        [
            ({}, {"format": "shapefile"}, "format='shapefile': expected one of geotiff, png"),
            ({"image": Imagery("scene", dtype="float32")}, {"format": "jpeg"}, r"3 bands of float32, and JPEG holds 1 or 3 bands of uint8: stretch=\(low, high\)"),
            ({"image": Imagery("scene", dtype="uint16")}, {"format": "jpeg"}, "3 bands of uint16, and JPEG holds .* images='tiff'"),
            ({"image": Imagery("scene", bands=(1, 2))}, {"format": "voc", "images": "jpeg", "labels": "mask"}, "has 2 bands of uint8"),
            ({"image": Imagery("scene", dtype="float16")}, {}, "of float16, and TIFF holds pixels of uint8"),
            ({"mask": Labels(ROADS, dtype="int32")}, {"format": "png"}, "'mask' has 1 band of int32, .* dtype='uint8'"),
            ({}, {"images": "webp"}, "images='webp': expected one of tiff, png, jpeg"),
            ({}, {"stretch": (5, 5)}, r"stretch=\(5, 5\): expected \(low, high\)"),
            ({}, {"format": "png", "stretch": [(0, 1), (0, 2)]}, "2 pairs for the 3 bands of 'image'"),
            ({}, {"image": "picture"}, "image='picture': expected the key of a layer; they are image, mask"),
            ({"other": Imagery("scene")}, {"format": "coco"}, "image and other would both do: say which is meant, image='image'"),
            ({"more": Labels(AREAS)}, {"format": "coco"}, "mask and more would both do: say which is meant, labels='mask'"),
            ({}, {"format": "yolo"}, r"those of layer 'mask' are not known: name them all, as in classes=\{1: 'building'\}"),
            ({}, {"format": "folders"}, r"expected a layer Value.*; the layers are 'image' \(image\), 'mask' \(mask\)"),
            ({"kind": Value(KIND)}, {"format": "folders", "classes": {0: "a/b"}}, "'a/b' can't be a folder's name"),
            ({"kind": Value("SELECT 0 AS n, 1 AS value", length=2)}, {"format": "folders"}, "has several numbers a tile"),
            ({}, {"classes": {1: "a", 2: "a"}}, "two values have the same name"),
            ({}, {"classes": {"a": 1}}, "expected a whole number and its name"),
            ({}, {"shard": 5}, "shard=5 goes with format='webdataset'"),
            ({"mask": Labels(ROADS, resolution=2 * RES)}, {"format": "coco"}, r"'image' is of \(64, 64\) pixels and 'mask' of \(32, 32\)"),
            ({"a.b": Labels(ROADS)}, {"format": "webdataset"}, "takes keys without dots"),
            ({"../b": Labels(ROADS)}, {}, r"layer '../b': its files go into a folder of that name"),
            ({"more": Labels(ROADS, dtype="float32")}, {"format": "coco", "labels": "more"}, "layer 'more' is of float32, and classes of objects are whole numbers"),
            ({"kind": Value(KIND)}, {"format": "folders", "labels": "mask"}, "labels='mask' is of kind mask; format='folders': expected a layer Value"),
            ({}, {"format": "coco", "image": "mask"}, "image='mask' is of kind mask; .*expected a layer of imagery"),
            ({}, {"format": "voc", "classes": {1: "a\x01b"}}, "the class 'a.x01b' has a sign that can't be in text files"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit(self, world, tiles, tmp_path, layers, more, said):
        data = TileDataset(world.db, tiles, {"image": Imagery("scene"), "mask": Labels(ROADS)} | layers)
        with pytest.raises(ConfigError, match=said):
            export(data, tmp_path / "out", **more)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("format_", ["geotiff", "coco", "yolo", "voc"])
    def test_a_class_that_is_not_known(self, world, tiles, tmp_path, format_):
        with pytest.raises(
            DataError, match=r"tile \d+ at \(.*'mask' has the class 4; known are 1 \(oak\), .*name it in classes="
        ) as caught:
            export(dataset(world, tiles, mask=Labels(ROADS)), tmp_path, format=format_, classes={1: "oak", 2: "elm", 3: "ash"})
        assert "the same call goes on from there" in str(caught.value)

    @pytest.mark.parametrize("name", ["../up", "a/b", "all", "."])
    def test_splits_that_are_no_folders(self, world, tiles, tmp_path, name):
        names = np.where(np.arange(len(tiles)) == 7, name, "train")
        with pytest.raises(ConfigError, match=rf"column split: '{re.escape(name)}': expected train, val, test, or"):
            export(dataset(world, tiles.with_columns(split=names)), tmp_path / "out", format="yolo")
        assert not (tmp_path / "out").exists()

    def test_values_that_are_no_class(self, world, tiles, tmp_path):
        with pytest.raises(DataError, match="'kind' is inf there, which is no class"):
            export(dataset(world, tiles, kind=Value("SELECT 'Infinity'::float8 AS value")), tmp_path / "i", format="folders")
        with pytest.raises(DataError, match=r"'kind' is 0\.5 there, which is no class"):
            export(dataset(world, tiles, kind=Value("SELECT 0.5 AS value")), tmp_path / "a", format="folders")
        with pytest.raises(DataError, match="'kind' is nan there, which is no class"):
            export(dataset(world, tiles, kind=Value("SELECT NULL::float8 AS value")), tmp_path / "b", format="folders")
        with pytest.raises(DataError, match="'mask' has the value 300, and int64 is written as 8 bits"):
            export(dataset(world, tiles, mask=Labels(ROADS.replace("class", "300"))), tmp_path / "c")
        with pytest.raises(DataError, match="has a box without extent"):
            export(dataset(world, tiles, mask=Boxes("trees")), tmp_path / "d", format="coco")

    def test_datasets_that_are_no_files(self, world, tiles, tmp_path):
        fresh = Tiles.fresh(world.grid, within=world.db.extent("scene", 3857), count=5)
        with pytest.raises(ConfigError, match="fresh in each epoch can't be exported"):
            export(dataset(world, fresh), tmp_path)
        data = TileDataset(world.db, tiles, {"image": Imagery("scene")}, transform=lambda sample, generator: sample)
        with pytest.raises(ConfigError, match="export a dataset without one"):
            export(data, tmp_path)

    def test_a_folder_that_can_not_be_made(self, world, tiles, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(LoadError, match=r"file.*can't be written: (Not a directory|File exists)"):
            export(dataset(world, tiles), tmp_path / "file")
        with pytest.raises(LoadError, match=r"/proc/.*can't be written"):
            export(dataset(world, tiles), "/proc/nothing/here")


# -- from a shell, and on its page


def test_the_command(world, schema_db, tmp_path):
    box = f"{X0},{Y0 - 640},{X0 + 640},{Y0}"
    common = ["--image", "scene", "--labels", "areas", "--within", box, "--size", "64", "--url", world.url]

    def run(*arguments, code=0):
        done = CliRunner().invoke(typer_app, ["export", str(tmp_path / arguments[0]), *common, *arguments[1:]])
        assert done.exit_code == code, done.output
        return done

    assert "16 tiles; 16 written, 0 were there; 16 in all" in run("a").output
    assert "16 tiles; 0 written, 16 were there; 16 in all" in run("a").output
    assert "49 tiles" in run("b", "--stride", "32", "--format", "png").output
    within = (X0, Y0 - 640, X0 + 640, Y0)
    every = Tiles.sliding(world.grid, within=within).describe(world.db, {"mask": Labels("areas")})
    most = every.filter(lambda tile: tile["mask"] >= 0.05)
    assert 0 < len(most) < 16
    run("c", "--format", "coco", "--objects", "instances", "--min-share", "0.05", "--value", "class", "--sources",
        *[f"--name={value}={name}" for value, name in NAMES.items()])  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "c" / "annotations" / "instances_all.json")
    assert set(coco.imgs) == set(most.ids.tolist())
    assert {one["id"]: one["name"] for one in coco.cats.values()} == NAMES
    live = read(world.db, most, {"x": Instances("areas", value="class")})["x_label"]
    assert sorted(one["category_id"] for one in coco.anns.values()) == sorted(np.concatenate(live).tolist())
    load.raster(schema_db, write_tiff(tmp_path / "deep.tif", scene(0, (3, 300, 300), "uint16")), "mine.deep")
    run("e", "--image", "mine.deep", "--format", "png", "--count", "1")
    with rasterio.open(next((tmp_path / "e" / "image").iterdir())) as file:
        assert file.dtypes == ("uint16",) * 3  # as it is stored, and not as torch would have it
    for wrong, said in (
        (("--objects", "dots"), "--objects dots: expected boxes or instances"),
        (("--objects", "boxes", "--buffer", "5"), "--class and --buffer are for masks"),
        (("--name", "building"), "--name building: expected VALUE=NAME"),
        (("--stretch", "5"), r"stretch=(5.0,): expected (low, high)"),
    ):
        assert said in str(run("d", *wrong, code=1).exception)
    assert not (tmp_path / "d").exists()


def test_the_page(db, tmp_path, monkeypatch):
    """Every block of docs/exporting.md, in order."""
    rng = np.random.default_rng(0)
    monkeypatch.setenv("PGTILES_URL", db.conninfo)
    monkeypatch.chdir(tmp_path)
    load.raster(db, write_tiff(tmp_path / "a.tif", scene(0, (3, 1800, 1800))), "sat_s2")
    with db.connection() as conn:
        conn.execute("CREATE TABLE planet_osm_line (osm_id bigint, way geometry(LineString, 3857), highway text)")
        conn.execute("CREATE TABLE planet_osm_polygon (osm_id bigint, way geometry(Polygon, 3857), building text)")
        for n, (x, y) in enumerate(rng.uniform(0, 1800 * RES, (60, 2))):
            start, end = (f"ST_SetSRID(ST_MakePoint({X0 + a}, {Y0 - b}), 3857)" for a, b in ((x, y), (y, x)))
            conn.execute(f"INSERT INTO planet_osm_line VALUES ({n}, ST_MakeLine({start}, {end}), 'primary')")
            conn.execute(f"INSERT INTO planet_osm_polygon VALUES ({n}, ST_Expand({start}, 20), 'yes')")
        for table in ("planet_osm_line", "planet_osm_polygon"):
            conn.execute(f"CREATE INDEX ON {table} USING gist (way); ANALYZE {table}")
    found = re.findall(r"^```(python|sql|sh)\n(.*?)^```$", (ROOT / "docs" / "exporting.md").read_text(), re.M | re.S)
    assert [kind for kind, _ in found] == ["python", "python", "python", "sql", "sh"]
    names, codes = {"print": lambda *said: None}, [code for _, code in found]
    for code in codes[:3]:
        exec(compile(code, "exporting.md", "exec"), names)
    assert names["done"].written == len(names["parts"].tiles) > 50
    assert (tmp_path / "coco" / "annotations" / "instances_train.json").is_file()
    assert (tmp_path / "yolo" / "data.yaml").is_file()
    said = subprocess.run(
        [find_programs() / "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", db.conninfo],
        input=codes[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    lines = [json.loads(line) for line in (tmp_path / "traced" / "tiles.jsonl").read_text().splitlines()]
    assert (
        sorted(map(int, said.stdout.split())) == [line["id"] for line in lines if ["mask", "", "42"] in line["sources"]] != []
    )
    for line in codes[4].splitlines():
        done = CliRunner().invoke(typer_app, shlex.split(line)[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert " written, 0 were there" in done.output
