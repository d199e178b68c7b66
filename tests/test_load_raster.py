"""Rasters in the database are those of the files: by PostGIS's and GDAL's own reading of what was loaded."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from conftest import ask
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile

from pgtiles import load
from pgtiles.errors import ConfigError, LoadError, MissingError
from pgtiles.layers.wkb import decode
from pgtiles.loading import rasterfile

NORTH_UP = Affine(2.5, 0, 1_050_000, 0, -2.5, 5_985_000)
TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
PIXEL_TYPES = dict(zip(TYPES, ["8BUI", "8BSI", "16BUI", "16BSI", "32BUI", "32BSI", "32BF", "64BF"], strict=True))


def noise(dtype="uint8", shape=(1, 150, 200), seed=0):
    """Values over all of the type's range."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(scale=1e30, size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def write(path, pixels, transform=NORTH_UP, crs="EPSG:3857", **more):
    bands, height, width = pixels.shape
    more = {"driver": "GTiff", "transform": transform, "crs": crs, **more}
    with rasterio.open(path, "w", width=width, height=height, count=bands, dtype=pixels.dtype.name, **more) as file:
        file.write(pixels)
    return path


@pytest.fixture
def db(schema_db):
    return schema_db


def dumped(db, table, transform=NORTH_UP):
    """All pixels of a table of one file's blocks, by ST_DumpValues, put where the blocks' corners say."""
    blocks = ask(
        db,
        "SELECT ST_UpperLeftX(rast), ST_UpperLeftY(rast), band, ST_DumpValues(rast, band, false) "
        f"FROM {table}, LATERAL generate_series(1, ST_NumBands(rast)) AS band",
    )
    placed = []
    for x, y, band, values in blocks:
        column, row = ~transform @ (x, y)
        assert abs(column - round(column)) + abs(row - round(row)) < 1e-6
        placed.append((band - 1, round(row), round(column), np.array(values, "f8")))
    shape = np.max([(band + 1, row + v.shape[0], column + v.shape[1]) for band, row, column, v in placed], axis=0)
    pixels = np.full(shape, np.inf)
    for band, row, column, values in placed:
        window = pixels[band, row : row + values.shape[0], column : column + values.shape[1]]
        assert np.isinf(window).all(), "no two blocks overlap"
        window[:] = values
    return pixels


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("bands", "nodata"), [(1, None), (3, 7)])
def test_pixels_of_every_type_are_those_of_the_file(db, tmp_path, dtype, bands, nodata):
    pixels = noise(dtype, (bands, 150, 200))
    pixels[:, 3:5, 100:140] = 7
    path = write(tmp_path / "scene.tif", pixels, nodata=nodata)
    loaded = load.raster(db, path, "s2")
    with rasterio.open(path) as file:
        assert np.array_equal(dumped(db, "s2"), file.read().astype("f8"))
    assert (loaded.rows, loaded.srid, loaded.notes) == (4, 3857, ())
    meta = ask(db, "SELECT DISTINCT pixeltype, nodatavalue, isoutdb FROM s2, LATERAL ST_BandMetaData(rast, ARRAY[]::int[])")
    assert meta == [(PIXEL_TYPES[dtype], nodata, False)]


def test_the_table_is_the_file_for_gdal_too(db, tmp_path):
    path = write(tmp_path / "scene.tif", noise("int16", (2, 300, 290)), nodata=-32768)
    load.raster(db, path, "s2", block=100)
    with db.connection() as conn:
        conn.execute("SET postgis.gdal_enabled_drivers = 'GTiff'")
        data = conn.execute("SELECT ST_AsGDALRaster(ST_Union(rast), 'GTiff') FROM s2").fetchone()[0]
    with MemoryFile(data) as memory, memory.open() as back, rasterio.open(path) as file:
        assert np.array_equal(back.read(), file.read())
        assert back.transform == file.transform
        assert back.crs.to_epsg() == 3857
        assert back.nodatavals == (-32768, -32768)


def test_rows_are_blocks_from_the_first_row_of_pixels_on(db, tmp_path):
    first, second = (write(tmp_path / name, noise(shape=(1, 150, 200), seed=n)) for n, name in enumerate(["b.tif", "a.tif"]))
    seen = []
    load.raster(db, [first, second], "s2", block=64, progress=lambda *counts: seen.append(counts))
    rows = ask(db, "SELECT rid, filename, (ST_UpperLeftX(rast) - 1050000) / 2.5, (5985000 - ST_UpperLeftY(rast)) / 2.5, "
                   "ST_Width(rast), ST_Height(rast) FROM s2 ORDER BY ctid")  # fmt: skip
    expected = [
        (name, x, y, min(64, 200 - x), min(64, 150 - y))
        for name in ("b.tif", "a.tif")
        for y in (0, 64, 128)
        for x in (0, 64, 128, 192)
    ]
    assert rows == [(rid, *row) for rid, row in enumerate(expected, 1)]
    assert seen == [(n, 24) for n in range(1, 25)]


@pytest.mark.parametrize("block", [1, 37, 150, 65535])
def test_blocks_of_any_size(db, tmp_path, block):
    pixels = noise("uint16", (1, 30, 41) if block == 1 else (1, 150, 200))
    load.raster(db, write(tmp_path / "scene.tif", pixels), "s2", block=block)
    assert np.array_equal(dumped(db, "s2"), pixels)


@pytest.mark.parametrize(
    "layout",
    [
        {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate"},
        {"tiled": True, "blockxsize": 48, "blockysize": 16, "interleave": "pixel"},
        {"blockysize": 1},
        {"blockysize": 600, "compress": "lzw", "interleave": "band"},
    ],
)
@pytest.mark.parametrize("at_once", [rasterfile.READ_BYTES, 300_000, 100_000, 1])
def test_the_layout_of_the_file_makes_no_difference(db, tmp_path, layout, at_once, monkeypatch):
    pixels = noise("uint8", (3, 600, 300))
    path = write(tmp_path / "scene.tif", pixels, **layout)
    monkeypatch.setattr(rasterfile, "READ_BYTES", at_once)
    load.raster(db, path, "s2")
    rows = ask(db, "SELECT rast::bytea FROM s2 ORDER BY rid")
    assert len(rows) == 15
    for number, (wkb,) in enumerate(rows):
        y, x = number // 3 * 128, number % 3 * 128
        assert np.array_equal(decode(wkb).pixels, pixels[:, y : y + 128, x : x + 128])


def test_nan_is_a_nodata_value(db, tmp_path):
    pixels = noise("float32", (1, 20, 20))
    pixels[:, 5:9] = np.nan
    loaded = load.raster(db, write(tmp_path / "scene.tif", pixels, nodata=float("nan")), "s2")
    assert np.array_equal(dumped(db, "s2"), pixels.astype("f8"), equal_nan=True)
    assert ask(db, "SELECT ST_BandNoDataValue(rast)::text, ST_Count(rast) FROM s2") == [("NaN", 320)]
    assert loaded.notes == ()


def test_the_table_is_made_for_reading(db, tmp_path):
    load.raster(db, write(tmp_path / "scene.tif", noise("uint8", (3, 900, 1000)), nodata=0), "s2", block=32)
    columns = (
        "srid, scale_x, scale_y, blocksize_x, blocksize_y, same_alignment, regular_blocking, num_bands, pixel_types, "
        "nodata_values, out_db, extent, spatial_index"
    )
    assert ask(db, f"SELECT {columns} FROM raster_columns WHERE r_table_schema = 'mine'") == [
        (3857, 2.5, -2.5, 32, 32, True, False, 3, ["8BUI"] * 3, [0.0] * 3, [False] * 3, None, True)
    ]
    storage = "SELECT attstorage = 'e' FROM pg_attribute WHERE attrelid = 's2'::regclass AND attname = 'rast'"
    assert ask(db, storage) == [(True,)]
    envelope = "ST_MakeEnvelope(1050100, 5984900, 1050200, 5984950, 3857)"
    plan = str(ask(db, f"EXPLAIN SELECT rast FROM s2 WHERE ST_ConvexHull(rast) && {envelope}"))
    assert "Index Cond" in plan, "of its own accord, so it knows the table's statistics too"
    assert ask(db, "SELECT reltuples FROM pg_class WHERE oid = 's2'::regclass") == [(29 * 32,)]
    assert ask(db, "INSERT INTO s2 (rast, filename) SELECT rast, 'again' FROM s2 WHERE rid = 1 RETURNING rid") == [
        (29 * 32 + 1,)
    ]
    assert ask(db, "SELECT array_agg(attname::text) FROM pg_index, pg_attribute WHERE indrelid = 's2'::regclass "
                   "AND indisprimary AND attrelid = indrelid AND attnum = ANY (indkey)") == [(["rid"],)]  # fmt: skip


# Where the pixels lie


@pytest.mark.parametrize(
    "transform",
    [
        Affine(2.0, 0.75, 500_000, 0.5, -2.0, 4_000_000),
        Affine.translation(3e5, 6e6) @ Affine.rotation(30) @ Affine.scale(0.3, -0.4),
        Affine(2.5, 0, 1_050_000, 0, 2.5, 5_985_000),
    ],
    ids=["sheared", "rotated", "south-up"],
)
def test_any_geotransform_is_kept(db, tmp_path, transform):
    pixels = noise(shape=(1, 150, 200))
    path = write(tmp_path / "scene.tif", pixels, transform)
    loaded = load.raster(db, path, "s2", block=64)
    with rasterio.open(path) as file:
        kept = file.transform
    assert np.array_equal(dumped(db, "s2", kept), pixels)
    assert ask(db, "SELECT DISTINCT ST_ScaleX(rast), ST_SkewX(rast), ST_SkewY(rast), ST_ScaleY(rast) FROM s2") == [
        (kept.a, kept.b, kept.d, kept.e)
    ]
    assert [("south-up" in note) for note in loaded.notes] == ([True] if transform.e > 0 else [])


def test_a_crs_becomes_its_srid(db, tmp_path):
    for crs, srid in (("EPSG:4326", 4326), ("EPSG:32631", 32631), ("EPSG:2154", 2154), ("ESRI:102001", 102001)):
        loaded = load.raster(db, write(tmp_path / "scene.tif", noise(), crs=crs), "s2", replace=True)
        assert (loaded.srid, loaded.notes) == (srid, ())
        assert ask(db, "SELECT DISTINCT ST_SRID(rast) FROM s2") == [(srid,)]


def test_a_crs_without_a_code_needs_an_srid(db, tmp_path):
    path = write(tmp_path / "scene.tif", noise(), crs="+proj=laea +lat_0=12 +lon_0=3")
    with pytest.raises(LoadError, match=r"scene\.tif: its coordinate system, .*, is in no register: .*srid= \(--srid\)"):
        load.raster(db, path, "s2")
    assert load.raster(db, path, "s2", srid=3035).srid == 3035
    bare = write(tmp_path / "bare.tif", noise(), crs=None)
    with pytest.raises(LoadError, match=r"bare\.tif does not say its coordinate system: say it with srid="):
        load.raster(db, bare, "s3")
    assert load.raster(db, bare, "s3", srid=3035).notes == ()


def test_an_srid_against_the_file_is_used_but_noted(db, tmp_path):
    loaded = load.raster(db, write(tmp_path / "scene.tif", noise()), "s2", srid=32631)
    assert loaded.srid == 32631
    assert [note for note in loaded.notes if "its SRID is 3857; srid=32631 was given and used, nothing reprojected" in note]


def test_a_file_that_lies_nowhere_is_refused(db, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        nowhere = write(tmp_path / "nowhere.tif", noise(), Affine.identity())
        points = [GroundControlPoint(r, c, 10 + c, 20 - r) for r, c in ((0, 0), (0, 150), (150, 0), (150, 200))]
        gcps = write(tmp_path / "gcps.tif", noise(), None, crs="EPSG:4326", gcps=points)
    with pytest.raises(LoadError, match=r"nowhere\.tif is not georeferenced: gdal_translate -a_ullr"):
        load.raster(db, nowhere, "s2", srid=3857)
    with pytest.raises(LoadError, match=r"gcps\.tif is placed by ground control points, not yet on a grid: gdalwarp"):
        load.raster(db, gcps, "s2")


# Several files


def test_files_of_one_kind_share_a_table(db, tmp_path):
    pixels = noise(shape=(1, 100, 300))
    left = write(tmp_path / "left.tif", pixels[:, :, :150])
    right = write(tmp_path / "right.tif", pixels[:, :, 150:], NORTH_UP @ Affine.translation(150, 0))
    loaded = load.raster(db, [left, right], "s2")
    assert loaded.notes == ()
    assert np.array_equal(dumped(db, "s2"), pixels)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (noise(shape=(2, 20, 20)), {}, "its number of bands is 2, not 1"),
        (noise("uint16"), {}, "its pixel type is uint16, not uint8"),
        (noise(), {"nodata": 3}, r"its nodata is \(3,\), not \(0,\)"),
        (noise(), {"nodata": None}, r"its nodata is \(None,\), not \(0,\)"),
        (noise(), {"crs": "EPSG:32631"}, "its SRID is 32631, not 3857"),
    ],
)
def test_a_file_of_another_kind_is_named(db, tmp_path, pixels, options, message):
    same = [write(tmp_path / f"{n}.tif", noise(), nodata=0) for n in (1, 2)]
    odd = write(tmp_path / "odd.tif", pixels, **{"nodata": 0, **options})
    with pytest.raises(LoadError, match=rf"odd\.tif can't go into one table with .*1\.tif: {message}"):
        load.raster(db, [*same, odd], "s2")
    assert not ask(db, "SELECT FROM pg_class WHERE relname = 's2'")


def test_nan_is_the_same_nodata_as_nan(db, tmp_path):
    files = [write(tmp_path / f"{n}.tif", noise("float32"), nodata=float("nan")) for n in (1, 2)]
    assert load.raster(db, files, "s2").notes == ()


@pytest.mark.parametrize(
    ("transform", "failed"),
    [
        (NORTH_UP @ Affine.translation(100.25, 0), ["same_alignment"]),
        (Affine(5, 0, 1_050_000, 0, -5, 5_985_000), ["scalex", "scaley", "same_alignment"]),
    ],
)
def test_a_file_on_another_lattice_is_loaded_and_noted(db, tmp_path, transform, failed):
    files = [write(tmp_path / "one.tif", noise()), write(tmp_path / "two.tif", noise(), transform)]
    lattice, *constraints = load.raster(db, files, "s2").notes
    assert "two.tif: its pixels do not lie on the lattice of" in lattice
    for name, note in zip(failed, constraints, strict=True):
        assert note.startswith(f"PostGIS: Unable to add constraint: enforce_{name}_rast: ")
        assert "is violated by some row" in note
    assert ask(db, "SELECT same_alignment, num_bands FROM raster_columns WHERE r_table_schema = 'mine'") == [(False, 1)]


def test_files_of_one_name_are_told_apart(db, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    files = [write(tmp_path / folder / "scene.tif", noise()) for folder in ("a", "b")]
    load.raster(db, files, "s2")
    assert ask(db, "SELECT DISTINCT filename FROM s2 ORDER BY 1") == [(str(file),) for file in files]


@pytest.mark.parametrize("name", ["tab\there.tif", "back\\slash.tif", "quote'\".tif", "new\nline.tif", "ü {x} %s.tif"])
def test_any_file_name_is_kept(db, tmp_path, name):
    load.raster(db, write(tmp_path / name, noise()), "s2")
    assert ask(db, "SELECT DISTINCT filename FROM s2") == [(name,)]


# What is refused, and what is left behind


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("complex64", "complex64 pixels, which PostGIS lacks: gdal_translate -ot Float32 DERIVED_SUBDATASET:AMPLITUDE:"),
        ("complex128", "complex128 pixels"),
        ("complex_int16", "complex_int16 pixels, which PostGIS lacks: gdal_translate -ot Float32 DERIVED_SUBDATASET:"),
        ("int64", "int64 pixels, which PostGIS lacks: gdal_translate -ot Int32"),
        ("uint64", "uint64 pixels, which PostGIS lacks: gdal_translate -ot UInt32"),
    ],
)
@pytest.mark.parametrize("out_db", [False, True, "/data"])
def test_pixels_that_postgis_lacks_are_refused_with_the_conversion(db, tmp_path, dtype, message, out_db):
    path = of_type(tmp_path / "scene.tif", dtype)
    with pytest.raises(LoadError, match=rf"scene\.tif has {message}"):
        load.raster(db, path, "s2", out_db=out_db)
    assert not ask(db, "SELECT FROM pg_class WHERE relname ~ '^(s2|pgtiles_)'")


def of_type(path, dtype):
    pixels = np.random.default_rng(0).integers(0, 99, (2, 2, 9, 7))
    pixels = pixels[0] + 1j * pixels[1] if dtype.startswith("complex") else pixels[0]
    profile = {"driver": "GTiff", "crs": "EPSG:3857", "transform": NORTH_UP, "width": 7, "height": 9, "count": 2}
    with rasterio.open(path, "w", dtype=dtype, **profile) as file:
        file.write(pixels.astype("complex64" if dtype == "complex_int16" else dtype))
    return path


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_the_conversion_of_complex_pixels_makes_what_can_be_loaded(db, tmp_path, dtype):
    """Both ways that the error names, as it names them: the magnitude, and the two parts as bands."""
    path = of_type(tmp_path / "scene.tif", dtype)
    with rasterio.open(path) as file:
        pixels = file.read()
    with pytest.raises(LoadError) as caught:
        load.raster(db, path, "s2")
    magnitude = re.search(r"gdal_translate .*? out\.tif", str(caught.value))[0]
    stack = re.search(r"rio stack .*? out\.tif", str(caught.value))[0]
    run(magnitude, tmp_path)
    load.raster(db, tmp_path / "out.tif", "magnitude")
    assert np.allclose(dumped(db, "magnitude"), np.abs(pixels), rtol=1e-6)
    for part, name in (("REAL", "re.tif"), ("IMAG", "im.tif")):
        run(magnitude.replace("AMPLITUDE", part).replace("out.tif", name), tmp_path)
    (tmp_path / "out.tif").unlink()
    run(stack, tmp_path)
    load.raster(db, tmp_path / "out.tif", "parts")
    assert np.array_equal(dumped(db, "parts"), np.concatenate([pixels.real, pixels.imag]))
    assert ask(db, "SELECT DISTINCT pixel_types FROM raster_columns WHERE r_table_name IN ('parts', 'magnitude')") == [
        (["32BF"] * 2,), (["32BF"] * 4,),
    ]  # fmt: skip


def run(command, folder):
    """A command as the error writes it; rio is the one beside this Python."""
    if shutil.which("gdal_translate") is None:
        pytest.skip("this machine lacks gdal_translate")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, check=True, capture_output=True)


@pytest.mark.parametrize("text", [b"-99", b"3.5", b"nan", b"1e9"])
def test_a_nodata_value_that_no_pixel_can_have_is_dropped_and_noted(db, tmp_path, text):
    pixels = noise()
    path = write(tmp_path / "scene.tif", pixels, nodata=255)
    data = path.read_bytes()
    assert data.count(b"255\0") == 1  # GDAL refuses to write such a value, but not to read one
    path.write_bytes(data.replace(b"255\0", text + b"\0"))
    loaded = load.raster(db, path, "s2")
    assert ask(db, "SELECT ST_BandNoDataValue(rast) FROM s2 LIMIT 1") == [(None,)]
    if text == b"3.5":  # the others are dropped by GDAL's reader itself
        assert loaded.notes == (f"{path}: its nodata value 3.5 is dropped: no uint8 pixel can have it",)
    assert np.array_equal(dumped(db, "s2"), pixels)


def test_masks_colours_and_scales_are_noted(db, tmp_path):
    path = write(tmp_path / "scene.tif", noise())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(noise()[0] > 100)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (255, 0, 0, 255)})
        file.scales, file.offsets = (0.1,), (-5,)
    notes = load.raster(db, path, "s2").notes
    assert [
        word for word in ("its mask", "its scale and offset", "its colour table") if sum(word in note for note in notes) != 1
    ] == []


def test_files_that_cannot_be_read_are_named(db, tmp_path):
    good = write(tmp_path / "good.tif", noise(shape=(1, 600, 600)), compress="deflate")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    empty, text = tmp_path / "empty.tif", tmp_path / "text.tif"
    empty.touch()
    text.write_text("no raster")
    for path, error, message in (
        (tmp_path / "none.tif", MissingError, r"there is no file .*none\.tif"),
        (empty, LoadError, r"empty\.tif is empty"),
        (text, LoadError, r"text\.tif is no raster that GDAL can read"),
        (tmp_path, LoadError, "is no raster that GDAL can read"),
        (cut, LoadError, r"cut\.tif (can't be read to its end|is no raster)"),
        ("/vsicurl_streaming/nope", LoadError, "is no raster that GDAL can read"),
    ):
        with pytest.raises(error, match=message):
            load.raster(db, [good, path] if error is MissingError else path, "s2")
    assert not ask(db, "SELECT FROM pg_class WHERE relname ~ '^(s2|pgtiles_)'")


@pytest.mark.parametrize("block", [0, -1, 65536])
def test_a_block_that_no_raster_can_have_is_refused(db, tmp_path, block):
    with pytest.raises(ConfigError, match=f"block={block} is not allowed: 1 to 65535"):
        load.raster(db, write(tmp_path / "scene.tif", noise()), "s2", block=block)


def test_a_block_larger_than_a_value_is_refused(db, tmp_path):
    path = tmp_path / "large.tif"
    with rasterio.open(path, "w", driver="GTiff", width=30_000, height=30_000, count=1, dtype="uint8", crs="EPSG:3857",
                       transform=NORTH_UP, sparse_ok=True, tiled=True):  # fmt: skip
        pass
    with pytest.raises(ConfigError, match="block=30000 makes blocks of 900 MB: at most 500 MB are allowed"):
        load.raster(db, path, "s2", block=30_000)


def test_no_files_are_an_error(db):
    with pytest.raises(ConfigError, match="files is empty"):
        load.raster(db, [], "s2")
