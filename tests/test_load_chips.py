"""Chips in folders, one a class: each is a tile, bit for bit what rasterio reads of its file, with its class as a target."""

import json
import math
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from conftest import ask
from rasterio.errors import NotGeoreferencedWarning

import pgtiles
from pgtiles import Database, Grid, Imagery, TileDataset, Tiles, Value, load, read
from pgtiles.errors import ConfigError, LoadError, MissingError

PAGE = Path(__file__).parents[1] / "docs" / "benchmark-files.md"
DRIVERS = {".tif": "GTiff", ".png": "PNG", ".jpg": "JPEG"}
LABEL = "SELECT c.value FROM {} AS c, tile WHERE ST_ConvexHull(c.rast) && ST_Centroid(tile.geom)"


@pytest.fixture
def db(schema_db):
    return schema_db


def noise(shape=(3, 20, 30), dtype="uint8", seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def write(path, pixels=None, **more):
    """An image of (bands, height, width), which need not lie on the earth."""
    pixels = noise() if pixels is None else pixels
    bands, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver=DRIVERS[path.suffix], width=width, height=height, count=bands,
                           dtype=pixels.dtype.name, **more) as file:  # fmt: skip
            file.write(pixels)
    return path


def folders(root, counts, suffix=".tif", shape=(3, 20, 30), dtype="uint8", **more):
    """So many chips for each class, no two of them alike."""
    for number, (name, count) in enumerate(counts.items()):
        for chip in range(count):
            write(root / name / f"{chip}{suffix}", noise(shape, dtype, seed=1000 * number + chip), **more)
    return root


def pixels_of(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            return file.read()


def nothing_is_there(db):
    return not ask(db, "SELECT FROM pg_class WHERE relname ~ '^(chips|pgtiles_)'")


@pytest.mark.parametrize(
    ("suffix", "shape", "dtype"),
    [(".tif", (13, 64, 64), "uint16"), (".tif", (4, 28, 28), "uint8"), (".png", (3, 20, 31), "uint8"), (".png", (1, 9, 7), "uint16"),
     (".jpg", (3, 24, 16), "uint8")],
)  # fmt: skip
@pytest.mark.parametrize("sliding", [True, False], ids=["sliding", "stored"])
def test_every_chip_is_one_tile_bit_for_bit(db, tmp_path, suffix, shape, dtype, sliding):
    root = folders(tmp_path / "data", {"River": 2, "AnnualCrop": 3, "Forest": 1}, suffix, shape, dtype)
    loaded = load.chips(db, root, "chips")
    assert (loaded.rows, loaded.srid, loaded.size) == (6, 3857, shape[1:])
    if sliding:  # six of them fill a sheet of two rows and three columns
        grid = Grid.like(db, "chips", size=loaded.size)
        tiles = Tiles.sliding(grid, within=db.extent("chips", 3857), first_id=1)
    else:
        tiles = Tiles.stored(db, "chips")
    layers = {"image": Imagery("chips", dtype="native"), "label": Value(LABEL.format("chips"), dtype="int64")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = read(db, tiles, layers)
    files = sorted(root.glob("*/*"))
    assert batch["tile_id"].tolist() == [1, 2, 3, 4, 5, 6]
    assert batch["image"].dtype == dtype
    for image, file in zip(batch["image"], files, strict=True):
        np.testing.assert_array_equal(image, pixels_of(file))
    assert batch["label"].tolist() == [["AnnualCrop", "Forest", "River"].index(file.parent.name) for file in files]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 17])
def test_a_sheet_that_is_not_full_has_no_empty_tile(db, tmp_path, count):
    root = folders(tmp_path / "data", {"a": count, "b": 1}, shape=(1, 4, 5))
    load.chips(db, root, "chips")
    tiles = Tiles.stored(db, "chips")
    assert len(tiles) == count + 1
    batch = read(db, tiles, {"image": Imagery("chips", valid=True)})
    assert batch["image_valid"].all()
    for image, file in zip(
        batch["image"], [*(root / "a" / f"{n}.tif" for n in sorted(range(count), key=str)), root / "b/0.tif"], strict=True
    ):
        np.testing.assert_array_equal(image, pixels_of(file))
    across = math.ceil(math.sqrt(count + 1))
    assert db.extent("chips", 3857) == (0, -4 * math.ceil((count + 1) / across), 5 * across, 0)


def test_the_table(db, tmp_path):
    root = folders(tmp_path / "data", {"Forest": 1, "AnnualCrop": 2}, ".png", shape=(1, 4, 5))
    seen = []
    loaded = load.chips(db, root, "chips", progress=lambda *counts: seen.append(counts))
    assert ask(db, "SELECT rid, file, class, value, footprint, ST_UpperLeftX(rast), ST_UpperLeftY(rast) FROM chips ORDER BY rid") == [
        (1, "AnnualCrop/0.png", "AnnualCrop", 0, None, 0, 0),
        (2, "AnnualCrop/1.png", "AnnualCrop", 0, None, 5, 0),
        (3, "Forest/0.png", "Forest", 1, None, 0, -4),
    ]  # fmt: skip
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (loaded.classes, loaded.counts, loaded.notes) == ({0: "AnnualCrop", 1: "Forest"}, {0: 2, 1: 1}, ())
    columns = "srid, scale_x, scale_y, blocksize_x, blocksize_y, same_alignment, num_bands, pixel_types, spatial_index"
    assert ask(db, f"SELECT {columns} FROM raster_columns WHERE r_table_schema = 'mine'") == [
        (3857, 1, -1, 5, 4, True, 1, ["8BUI"], True)
    ]
    assert ask(db, "SELECT col_description('chips'::regclass, attnum) FROM pg_attribute "
                   "WHERE attrelid = 'chips'::regclass AND attname = 'value'") == [('classes: {"AnnualCrop": 0, "Forest": 1}',)]  # fmt: skip
    assert ask(
        db, "INSERT INTO chips (file, class, value, rast) SELECT 'x', 'x', 9, rast FROM chips LIMIT 1 RETURNING rid"
    ) == [(4,)]


def test_the_values_are_those_of_image_folder_or_as_stated(db, tmp_path):
    root = folders(tmp_path / "data", {"b": 1, "B": 1, "a": 2, "Ä": 1}, shape=(1, 4, 5))
    assert load.chips(db, root, "chips").classes == dict(enumerate(sorted(["b", "B", "a", "Ä"])))
    stated = load.chips(db, root, "chips", values={"a": 7, "b": -1, "B": 0, "Ä": 3}, replace=True)
    assert stated.classes == {-1: "b", 0: "B", 3: "Ä", 7: "a"}
    assert stated.counts == {-1: 1, 0: 1, 3: 1, 7: 2}
    assert dict(ask(db, "SELECT DISTINCT class, value FROM chips")) == {"a": 7, "b": -1, "B": 0, "Ä": 3}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"a": 1}, "values: 'b' is a folder without a value: expected a number for each of 'a', 'b'"),
        ({"a": 1, "b": 2, "c": 3}, "values: 'c' has no folder"),
        ({"a": 1, "b": 1}, "expected another number for each class"),
        ({"a": 1, "b": 2.5}, "values: 'b' has 2.5: expected a whole number"),
        ({"a": 1, "b": 2**31}, "'b' has 2147483648: expected a whole number of 32 bits"),
    ],
)
def test_values_that_do_not_fit_the_folders(db, tmp_path, values, says):
    root = folders(tmp_path / "data", {"a": 1, "b": 1}, shape=(1, 4, 5))
    with pytest.raises(ConfigError, match=says):
        load.chips(db, root, "chips", values=values)
    assert nothing_is_there(db)


def test_the_example_that_it_gives_runs(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 3, "b": 4}, shape=(1, 8, 8))
    loaded = load.chips(db, root, '"it\'s a % {table}"')
    names = vars(pgtiles) | {name: getattr(pgtiles, name) for name in ("Tiles", "Imagery", "Value")} | {"db": db}
    exec(loaded.example, names)
    dataset = TileDataset(db, names["tiles"], names["layers"], batch_size=7, shuffle=False)
    (batch,) = dataset
    assert batch["label"].tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert batch["image"].shape == (7, 1, 8, 8)


# Where they truly are


def test_a_georeferenced_chip_keeps_its_footprint(db, tmp_path):
    transforms = [
        Affine(10, 0, 500_000, 0, -10, 5_200_000),
        Affine.translation(3e5, 6e6) @ Affine.rotation(30) @ Affine.scale(10, -4),
        Affine(10, 0, 400_000, 0, 10, 5_100_000),
    ]
    for number, transform in enumerate(transforms):
        write(tmp_path / "data" / "a" / f"{number}.tif", transform=transform, crs="EPSG:32632")
    write(tmp_path / "data" / "b" / "degrees.tif", transform=Affine(0.001, 0, 9, 0, -0.002, 47), crs="EPSG:4326")
    write(tmp_path / "data" / "b" / "nowhere.tif")
    write(tmp_path / "data" / "b" / "which.tif", transform=transforms[0])  # pixels of some CRS, nobody knows which
    assert load.chips(db, tmp_path / "data", "chips").notes == ()
    found = dict(ask(db, "SELECT file, ST_AsBinary(footprint) FROM chips"))
    project = pyproj.Transformer.from_crs(32632, 4326, always_xy=True).transform
    for number, transform in enumerate(transforms):
        corners = [transform @ corner for corner in ((0, 0), (30, 0), (30, 20), (0, 20))]
        expected = shapely.Polygon([project(*corner) for corner in corners])
        assert shapely.from_wkb(found[f"a/{number}.tif"]).symmetric_difference(expected).area < 1e-9 * expected.area
    assert shapely.from_wkb(found["b/degrees.tif"]).equals(shapely.box(9, 46.96, 9.03, 47))
    assert found["b/nowhere.tif"] is found["b/which.tif"] is None
    assert ask(db, "SELECT DISTINCT ST_SRID(footprint) FROM chips WHERE footprint IS NOT NULL") == [(4326,)]
    with db.connection() as conn:
        conn.execute("SET enable_seqscan = off")
        plan = str(conn.execute("EXPLAIN SELECT FROM chips WHERE footprint && ST_MakeEnvelope(9, 46, 10, 47, 4326)").fetchall())
        conn.execute("RESET enable_seqscan")
    assert "Index Cond" in plan


# The page


def test_the_page_runs(db, tmp_path, monkeypatch):
    """Block by block, on chips of EuroSAT's kind that lie where buildings are, and on a mask of ISPRS's."""
    rng = np.random.default_rng(0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGTILES_URL", db.conninfo)
    for number in range(30):
        place = Affine(10, 0, 500_000 + 640 * number, 0, -10, 5_200_000)
        write(Path(f"EuroSAT_MS/class {number % 10}/{number}.tif"), noise((13, 64, 64), "uint16", number), transform=place,
              crs="EPSG:32632")  # fmt: skip
    x, y = pyproj.Transformer.from_crs(32632, 3857, always_xy=True).transform(500_000, 5_200_000)
    houses = [
        shapely.box(x + dx, y - dy, x + dx + 300, y - dy + 200)
        for dx, dy in np.add(rng.uniform(0, 900, (3, 2)), [[0, 0], [2000, 0], [9000, 0]])
    ]
    with db.connection() as conn:
        conn.execute("CREATE TABLE planet_osm_polygon (building text, way geometry(Polygon, 3857))")
        for house in houses:
            conn.execute("INSERT INTO planet_osm_polygon VALUES ('yes', ST_GeomFromWKB(%s, 3857))", (house.wkb,))
        conn.execute("CREATE INDEX ON planet_osm_polygon USING gist (way); ANALYZE planet_osm_polygon")
    colours = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], "uint8")
    classes = rng.integers(0, 6, (300, 300))
    write(Path("potsdam_2_10_label.tif"), colours[classes].transpose(2, 0, 1), transform=Affine(0.05, 0, 3e5, 0, -0.05, 5e6),
          crs="EPSG:32633")  # fmt: skip
    sat6 = {
        "train_x": rng.integers(0, 255, (28, 28, 4, 12), "uint8"),
        "train_y": np.eye(6, dtype="uint8")[:, np.arange(12) % 6],
    }

    printed = []
    names = {"print": printed.append}
    for kind, code in re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.M | re.S):
        if kind == "sh":
            command = code.replace("pgtiles", f"{sys.executable} -m pgtiles", 1)
            subprocess.run(command, shell=True, check=True, env=os.environ | {"PYTHONPATH": str(PAGE.parents[1])})
            continue
        if "loadmat" in code:  # SciPy, which is no dependency, would give these
            code = re.sub(r"^from scipy.*|^sat6 = .*", "", code, flags=re.M)
            names["sat6"] = sat6
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
        exec(compile(code, PAGE.name, "exec"), names)
        if "built" in code:
            _check_built(db, names, houses)
    assert [sorted(batch) for batch in names["dataset"]] == [["bounds", "mask", "tile_id"]]
    assert printed == [{"mask": dict(enumerate(["impervious", "building", "low vegetation", "tree", "car", "clutter"], 1))}]
    loaded = load.chips(db, "sat6", "chips")
    assert (loaded.rows, loaded.size, list(loaded.classes.values())) == (
        12, (28, 28), ["barren_land", "building", "grassland", "road", "trees", "water"],
    )  # fmt: skip
    np.testing.assert_array_equal(pixels_of("sat6/trees/8.tif"), sat6["train_x"][:, :, :, 8].transpose(2, 0, 1))


def _check_built(db, names, houses):
    """The share of each chip's true place that is built over, by shapely."""
    tiles = Tiles.stored(db, "eurosat")
    got = read(db, tiles, {"built": names["built"]})["built"]
    project = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform
    places = [shapely.transform(shapely.from_wkb(wkb), lambda xy: np.stack(project(*xy.T), axis=1))
              for (wkb,) in ask(db, "SELECT ST_AsBinary(footprint) FROM eurosat ORDER BY rid")]  # fmt: skip
    expected = [sum(place.intersection(house).area for house in houses) / place.area for place in places]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
    assert sum(share > 0 for share in expected) >= 3


# What is refused, and what is left out


@pytest.mark.parametrize(
    ("odd", "more", "says"),
    [
        (noise((3, 20, 31)), {}, "its size is 31 × 20 px, not 30 × 20 px"),
        (noise((3, 30, 20)), {}, "its size is 20 × 30 px, not 30 × 20 px"),
        (noise((1, 20, 30)), {}, "its number of bands is 1, not 3"),
        (noise(dtype="uint16"), {}, "its pixel type is uint16, not uint8"),
        (noise(), {"nodata": 0}, r"its nodata is \(0, 0, 0\), not \(None, None, None\)"),
    ],
)
def test_the_first_chip_of_another_kind_is_named(db, tmp_path, odd, more, says):
    root = folders(tmp_path / "data", {"a": 2, "b": 2})
    for name in ("b/1.tif", "b/0.tif"):
        write(root / name, odd, **more)
    with pytest.raises(LoadError, match=rf"b/0\.tif can't go into one table with .*a/0\.tif: {says}"):
        load.chips(db, root, "chips")
    assert nothing_is_there(db)


def test_what_is_no_image_is_left_out_and_named(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 2, "b": 1})
    for name in ("README.txt", "a/.DS_Store", "a/._0.tif", "a/0.tif.aux.xml", "b/labels.csv", ".git/config"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    write(root / "preview.png")
    loaded = load.chips(db, root, "chips")
    assert loaded.rows == 3
    assert loaded.notes == ("7 left out, for it is no image in a class's folder: .git, README.txt, a/.DS_Store, …",)


def test_an_image_that_cannot_be_read_is_named(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 1, "b": 1}, shape=(3, 200, 200))
    whole = (root / "b/0.tif").read_bytes()
    for data in (b"no image", b"", whole[: len(whole) // 2]):
        (root / "b/0.tif").write_bytes(data)
        with pytest.raises(LoadError, match=r"b/0\.tif is no raster that GDAL can read: "):
            load.chips(db, root, "chips")
    assert nothing_is_there(db)


def test_pixels_that_postgis_lacks_are_refused(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 1})
    write(root / "a/1.tif", np.ones((1, 20, 30), "complex64"))
    with pytest.raises(LoadError, match=r"a/1\.tif has complex64 pixels, which PostGIS lacks: gdal_translate"):
        load.chips(db, root, "chips")
    write(root / "a/1.tif", noise((1, 20, 30)), transform=Affine(1, 0, 9, 0, -1, 9))
    with rasterio.open(root / "a/1.tif", "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
    with pytest.raises(LoadError, match=r"a/1\.tif has a colour table of its own: gdal_translate -expand rgb"):
        load.chips(db, root, "chips")
    assert nothing_is_there(db)


def test_folders_that_hold_no_classes(db, tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "flat" / "0.tif")
    folders(tmp_path / "nested" / "train", {"a": 1})
    folders(tmp_path / "hollow", {"a": 1})
    (tmp_path / "hollow" / "b").mkdir()
    (tmp_path / "hollow" / "b" / "notes.txt").touch()
    for name, error, says in (
        ("none", MissingError, "there is no folder .*none"),
        ("flat/0.tif", MissingError, r"there is no folder .*0\.tif"),
        ("empty", LoadError, "empty holds no folders: expected one for each class"),
        ("flat", LoadError, "flat holds no folders"),
        ("nested", LoadError, r"train/a is a folder within that of the class 'train': .* Is .*nested/train the folder"),
        ("hollow", LoadError, r"hollow/b holds no image \(files named \.tif, "),
    ):
        with pytest.raises(error, match=says):
            load.chips(db, tmp_path / name, "chips")
    assert nothing_is_there(db)


def test_one_class_alone_is_noted(db, tmp_path):
    loaded = load.chips(db, folders(tmp_path / "data", {"a": 2}), "chips")
    assert loaded.notes == ("there is one class only, 'a': a classifier has nothing to tell apart",)


HOSTILE = [
    "it's",
    'say "so"',
    "100 %s %(a)s",
    "{table}",
    "a\\b",
    "tab\there",
    "new\nline",
    "Häuser 建物 🏠",
    "'; DROP TABLE chips; --",
]


def test_any_class_name_is_kept(db, tmp_path):
    root = folders(tmp_path / "data", dict.fromkeys(HOSTILE, 1), shape=(1, 4, 5))
    loaded = load.chips(db, root, "chips")
    assert list(loaded.classes.values()) == sorted(HOSTILE)
    assert ask(db, "SELECT class, file FROM chips ORDER BY value") == [(name, f"{name}/0.tif") for name in sorted(HOSTILE)]
    ((comment,),) = ask(db, "SELECT col_description('chips'::regclass, 4)")
    assert comment.startswith("classes: ")
    assert json.loads(comment.removeprefix("classes: ")) == {name: value for value, name in loaded.classes.items()}


def test_a_name_that_is_no_text_is_refused(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 1})
    try:
        (root / b"\xff".decode("utf-8", "surrogateescape")).mkdir()
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(LoadError, match=r"holds a name that is no UTF-8, '\\udcff': rename it"):
        load.chips(db, root, "chips")


def test_a_table_that_is_there_stays_unless_replaced(db, tmp_path):
    root = folders(tmp_path / "data", {"a": 2, "b": 1})
    load.chips(db, root, "chips")
    with pytest.raises(LoadError, match=r"mine\.chips is there already; replace=True"):
        load.chips(db, root, "chips")
    write(root / "b/1.tif", noise((1, 20, 30)))
    with pytest.raises(LoadError, match="number of bands"):
        load.chips(db, root, "chips", replace=True)
    assert ask(db, "SELECT count(*) FROM chips") == [(3,)]
    (root / "b/1.tif").unlink()
    write(root / "c/0.tif")
    assert load.chips(db, root, "chips", replace=True).rows == 4


def test_a_path_may_be_text(db, tmp_path, monkeypatch):
    folders(tmp_path / "data", {"a": 1, "b": 1})
    monkeypatch.chdir(tmp_path)
    assert load.chips(Database(db.conninfo), "data", "chips").rows == 2
    assert ask(db, "SELECT file FROM chips ORDER BY 1") == [("a/0.tif",), ("b/0.tif",)]
