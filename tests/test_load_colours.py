"""A mask in colours becomes its classes' numbers: those that NumPy looks up in what rasterio reads of the same file."""

import json

import numpy as np
import pytest
import rasterio
from conftest import ask
from test_load_raster import NORTH_UP, noise, write

from pgtiles import Grid, Labels, TileDataset, Tiles, load, read
from pgtiles.errors import ConfigError, LoadError
from pgtiles.loading import rasterfile

ISPRS = {
    "impervious": "#ffffff", "building": "#0000FF", "low vegetation": "#00ffff", "tree": "#00ff00", "car": "#ffff00",
    "clutter": "#ff0000",
}  # fmt: skip
COLOURS = np.array([(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)], "uint8")


@pytest.fixture
def db(schema_db):
    return schema_db


def mask(path, shape=(300, 410), seed=0, **more):
    """A mask in the six colours, and the number of each pixel's."""
    numbers = np.random.default_rng(seed).integers(0, 6, shape)
    return write(path, COLOURS[numbers].transpose(2, 0, 1), **more)


def looked_up(path, colours):
    """Values (height, width): each colour's pixels, found in the file as rasterio reads it."""
    with rasterio.open(path) as file:
        pixels = file.read()
        if file.count == 1:
            table = np.zeros((256, 3), "uint8")
            for entry, colour in file.colormap(1).items():
                table[entry] = colour[:3]
            pixels = table[pixels[0]].transpose(2, 0, 1)
    values = np.full(pixels.shape[1:], -1)
    for (red, green, blue), value in colours.items():
        values[(pixels[0] == red) & (pixels[1] == green) & (pixels[2] == blue)] = value
    assert (values >= 0).all()
    return values


def whole(db, table, shape, layer):
    """One tile over all of a table."""
    grid = Grid.like(db, table, size=shape)
    (x, y), (rx, ry) = grid.origin, grid.pixel
    place = [round((1_050_000 - x) / rx)], [round((y - 5_985_000) / ry)]
    return read(db, Tiles(grid, *map(np.array, place)), {"mask": layer})["mask"][0]


def nothing_is_there(db):
    return not ask(db, "SELECT FROM pg_class WHERE relname ~ '^(mask|pgtiles_)'")


@pytest.mark.parametrize("layout", [{}, {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}])
@pytest.mark.parametrize("at_once", [rasterfile.READ_BYTES, 100_000, 1])
def test_each_colour_is_its_classs_number(db, tmp_path, layout, at_once, monkeypatch):
    monkeypatch.setattr(rasterfile, "READ_BYTES", at_once)
    path = mask(tmp_path / "mask.tif", **layout)
    loaded = load.raster(db, path, "mask", colours=ISPRS)
    assert (loaded.rows, loaded.notes) == (12, ())
    assert ask(db, "SELECT DISTINCT pixeltype, nodatavalue FROM mask, LATERAL ST_BandMetaData(rast, ARRAY[]::int[])") == [
        ("8BUI", None)
    ]
    assert ask(db, "SELECT DISTINCT ST_NumBands(rast) FROM mask") == [(1,)]
    expected = looked_up(path, {tuple(colour): n for n, colour in enumerate(COLOURS.tolist(), 1)})
    np.testing.assert_array_equal(whole(db, "mask", expected.shape, Labels("mask")), expected)


def test_values_may_be_stated_and_zero(db, tmp_path):
    path = mask(tmp_path / "mask.tif")
    values = {"impervious": 0, "building": 2, "low vegetation": 200, "tree": 4, "car": 255, "clutter": 6}
    stated = {name: (values[name], colour) if name in {"impervious", "low vegetation", "car"} else colour
              for name, colour in ISPRS.items()}  # fmt: skip
    load.raster(db, path, "mask", colours=stated)
    expected = looked_up(path, {tuple(c): v for c, v in zip(COLOURS.tolist(), values.values(), strict=True)})
    np.testing.assert_array_equal(whole(db, "mask", expected.shape, Labels("mask", background=9)), expected)


def test_a_colour_table_is_looked_up(db, tmp_path):
    """Two entries may be of one colour, and those that no pixel has may be of any."""
    entries = np.random.default_rng(1).choice([3, 7, 8, 250], (1, 150, 200)).astype("uint8")
    path = write(tmp_path / "mask.tif", entries, nodata=7)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(
            1, {3: (255, 0, 0, 255), 7: (0, 0, 0, 0), 8: (255, 0, 0, 255), 250: (1, 2, 3, 255), 9: (9, 9, 9, 255)}
        )
    loaded = load.raster(db, path, "mask", colours={"road": "#ff0000", "none": (0, "#000000"), "house": "#010203"})
    assert loaded.notes == ()
    expected = looked_up(path, {(255, 0, 0): 1, (0, 0, 0): 0, (1, 2, 3): 3})
    np.testing.assert_array_equal(whole(db, "mask", expected.shape, Labels("mask")), expected)
    assert sorted(np.unique(expected)) == [0, 1, 3]


def test_several_masks_share_a_table(db, tmp_path):
    left = mask(tmp_path / "left.tif", (100, 150), seed=1)
    right = mask(tmp_path / "right.tif", (100, 150), seed=2, transform=NORTH_UP @ rasterio.Affine.translation(150, 0))
    load.raster(db, [left, right], "mask", colours=ISPRS)
    numbers = {tuple(colour): n for n, colour in enumerate(COLOURS.tolist(), 1)}
    expected = np.hstack([looked_up(path, numbers) for path in (left, right)])
    np.testing.assert_array_equal(whole(db, "mask", (100, 300), Labels("mask")), expected)


HOSTILE = ["it's", 'say "so"', "100 %s %(a)s", "{table}", "a\\b", "Häuser 建物 🏠", "'; DROP TABLE mask; --"]


def test_the_names_stay_with_the_table(db, tmp_path):
    colours = dict(zip(HOSTILE, ISPRS.values(), strict=False)) | {HOSTILE[-1]: (9, "#123456")}
    load.raster(db, mask(tmp_path / "mask.tif"), "mask", colours=colours)
    numbers = {name: n for n, name in enumerate(HOSTILE[:-1], 1)} | {HOSTILE[-1]: 9}
    ((comment,),) = ask(db, "SELECT col_description('mask'::regclass, 2)")
    assert json.loads(comment.removeprefix("classes: ")) == numbers
    tiles = Tiles.random(Grid.like(db, "mask", size=32), within=db.extent("mask", 3857), count=2)
    dataset = TileDataset(db, tiles, {"mask": Labels("mask")})
    assert dataset.classes == {"mask": {value: name for name, value in numbers.items()}}


@pytest.mark.parametrize("comment", ["classes of land", "classes: none yet", "classes: [1, 2]", 'classes: {"a": "b"}', ""])
def test_a_comment_of_somebody_elses_is_no_legend(db, tmp_path, comment):
    load.raster(db, write(tmp_path / "mask.tif", noise()), "mask")
    with db.connection() as conn:
        conn.execute(f"COMMENT ON COLUMN mask.rast IS '{comment}'")
    tiles = Tiles.random(Grid.like(db, "mask", size=32), within=db.extent("mask", 3857), count=2)
    assert TileDataset(db, tiles, {"mask": Labels("mask")}).classes == {}


# What is refused


@pytest.mark.parametrize("at_once", [rasterfile.READ_BYTES, 1])
def test_an_unknown_colour_is_named_with_its_pixels_and_its_place(db, tmp_path, at_once, monkeypatch):
    monkeypatch.setattr(rasterfile, "READ_BYTES", at_once)
    path = mask(tmp_path / "mask.tif")
    with rasterio.open(path, "r+") as file:
        pixels = file.read()
        pixels[:, 140, 3] = pixels[:, 139, 200] = pixels[:, 299, 409] = (1, 2, 3)
        pixels[:, 7, 9] = (255, 255, 254)
        file.write(pixels)
    with pytest.raises(
        LoadError,
        match=r"mask\.tif has colours that are no class's \(rows and columns from 0\): #010203 at 3 pixels, the first in row 139, "
        r"column 200; #fffffe at 1 pixel, the first in row 7, column 9; name each colour in colours= \(--colours\)",
    ):
        load.raster(db, path, "mask", colours=ISPRS)
    assert nothing_is_there(db)


def test_many_unknown_colours_are_counted_and_loss_is_blamed(db, tmp_path):
    rng = np.random.default_rng(0)
    path = write(tmp_path / "mask.tif", rng.integers(0, 255, (3, 160, 160), "uint8"), tiled=True, compress="jpeg")
    with pytest.raises(LoadError, match=r"; and \d+ more colours; it is compressed with loss, which changes colours"):
        load.raster(db, path, "mask", colours=ISPRS)
    assert nothing_is_there(db)


def test_the_table_that_is_replaced_stays_where_a_colour_is_unknown(db, tmp_path):
    load.raster(db, mask(tmp_path / "mask.tif"), "mask", colours=ISPRS)
    with pytest.raises(LoadError, match="#ff0000 at"):
        load.raster(db, tmp_path / "mask.tif", "mask", colours=dict(list(ISPRS.items())[:5]), replace=True)
    assert ask(db, "SELECT count(*) FROM mask") == [(12,)]


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (noise(), "has 1 band of uint8; .* its pixels are numbers already, load it without colours="),
        (noise(shape=(4, 20, 30)), "has 4 bands of uint8; .*gdal_translate -b 1 -b 2 -b 3 -ot Byte"),
        (noise("uint16", (3, 20, 30)), "has 3 bands of uint16; colours= expects red, green and blue as uint8"),
        (noise(shape=(2, 20, 30)), "has 2 bands of uint8"),
    ],
)
def test_what_has_no_colours_is_refused(db, tmp_path, pixels, says):
    with pytest.raises(LoadError, match=rf"odd\.tif {says}"):
        load.raster(db, write(tmp_path / "odd.tif", pixels), "mask", colours=ISPRS)


@pytest.mark.parametrize(
    ("colours", "says"),
    [
        ({}, "colours={}: expected a colour for each"),
        ("road=#ffffff", "expected a colour for each class's name"),
        ({"road": "white"}, r"'road': 'white': expected a name, and for it '#rrggbb' or \(value, '#rrggbb'\)"),
        ({"road": "#fff"}, "'road': '#fff'"),
        ({"": "#ffffff"}, "'': '#ffffff'"),
        ({"road": (1, 2)}, r"'road': \(1, 2\)"),
        ({"road": (256, "#ffffff")}, "class 'road' has the value 256: expected a whole number, 0 to 255"),
        ({"road": (True, "#ffffff")}, "the value True"),
        ({"a": "#ffffff", "b": "#FFFFFF"}, "classes 'a' and 'b' both have #FFFFFF"),
        ({"a": (2, "#ffffff"), "b": "#000000"}, "classes 'a' and 'b' both have 2"),
        ({f"{n}": f"#{n:06x}" for n in range(256)}, "class '255' has the value 256"),
    ],
)
def test_colours_that_say_nothing_sure(db, tmp_path, colours, says):
    with pytest.raises(ConfigError, match=says):
        load.raster(db, tmp_path, "mask", colours=colours)


def test_pixels_that_stay_in_files_keep_their_colours(db, tmp_path):
    with pytest.raises(ConfigError, match=r"colours= makes other pixels, and out_db \(--out-db\) leaves those of the file"):
        load.raster(db, mask(tmp_path / "mask.tif"), "mask", colours=ISPRS, out_db=True)
