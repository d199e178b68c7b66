"""Rasters that stay in files: the same pixels as in the database, and every way in which a file can fail to be there."""

import os
import shutil
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasterio
from conftest import RES, X0, Y0, ask, scene, write_tiff
from rasterio.transform import from_origin
from server_helpers import scratch

from pgtiles import Database, Grid, Imagery, Tiles, load, read
from pgtiles.errors import ConfigError, LoadError, MissingError
from pgtiles.streaming.reading import Plan
from pgtiles.template import folder

pytestmark = pytest.mark.skipif("PGTILES_TEST_URL" in os.environ, reason="the server must see this machine's files")


@pytest.fixture(scope="module")
def files():
    """A folder that the server's account can read."""
    with scratch() as path:
        write_tiff(path / "tiled.tif", scene(), tiled=True, blockxsize=256, blockysize=128, compress="deflate", nodata=0)
        write_tiff(path / "strips.tif", scene(1))
        for file in path.iterdir():
            file.chmod(0o644)
        yield path


@pytest.fixture
def db(database_url):
    """A database with its settings: a clone has none of its template's."""
    with Database(database_url) as bare, bare.connection() as conn:
        conn.execute((folder() / "init.sql").read_text())
    with Database(database_url) as database:
        yield database


def windows(path, tiles, bands=(1, 2, 3)):
    """The tiles as rasterio cuts them out of the file."""
    with rasterio.open(path) as file:
        cut = [file.window(*bounds).round_offsets().round_lengths() for bounds in tiles.bounds]
        return np.stack([file.read(bands, window=window, boundless=True, fill_value=0) for window in cut])


@pytest.mark.parametrize("name", ["tiled.tif", "strips.tif"])
def test_tiles_are_the_files_windows_and_the_same_as_in_the_database(db, files, name):
    load.raster(db, files / name, "inside")
    load.raster(db, files / name, "outside", out_db=True)
    grid = Grid.like(db, "outside", size=100)
    assert grid == Grid.like(db, "inside", size=100)
    tiles = Tiles.random(grid, within=db.extent("outside", 3857), count=40, seed=1)
    got = read(db, tiles, {"in": Imagery("inside"), "out": Imagery("outside"), "some": Imagery("outside", bands=(3, 1))})
    np.testing.assert_array_equal(got["out"], windows(files / name, tiles))
    np.testing.assert_array_equal(got["out"], got["in"])
    np.testing.assert_array_equal(got["some"], windows(files / name, tiles, (3, 1)))


def test_warped_tiles_are_the_same_as_in_the_database(db, files):
    load.raster(db, files / "tiled.tif", "inside")
    load.raster(db, files / "tiled.tif", "outside", out_db=True)
    grid = Grid(srid=32632, resolution=2.0, size=64)
    tiles = Tiles.random(grid, within=db.extent("outside", 32632), count=12, seed=2)
    got = read(db, tiles, {"in": Imagery("inside", resampling="cubic"), "out": Imagery("outside", resampling="cubic")})
    assert got["in"].std() > 10
    np.testing.assert_array_equal(got["out"], got["in"])


def test_overlapping_scenes_inside_and_outside_in_one_table(db, files):
    """ST_Union, too, and rows of both kinds beside each other."""
    second = write_tiff(files / "second.tif", scene(5), transform=from_origin(X0 + 200 * RES, Y0, RES, RES), nodata=0)
    second.chmod(0o644)
    load.raster(db, files / "tiled.tif", "inside")
    load.raster(db, [files / "tiled.tif", second], "outside", out_db=True)
    with db.connection() as conn:  # the first 128 rows of pixels from the one, all others from the other
        conn.execute(
            "CREATE TABLE mixed AS SELECT rid, rast FROM inside WHERE rid <= 8 UNION ALL SELECT 100 + rid, rast FROM outside WHERE rid > 4"
        )
        conn.execute("ALTER TABLE mixed ADD PRIMARY KEY (rid)")
        conn.execute("CREATE INDEX ON mixed USING gist (ST_ConvexHull(rast))")
    load.raster(db, [files / "tiled.tif", second], "mosaic")
    grid = Grid(srid=3857, resolution=2.0, size=64)
    for where, warped in ((Grid.like(db, "mosaic", size=64), False), (grid, True)):
        tiles = Tiles.random(where, within=(X0 + 400, Y0 - 1200, X0 + 2900, Y0), count=12, seed=3)
        got = read(db, tiles, {name: Imagery(name, max_error=0) for name in ("mixed", "mosaic")})
        np.testing.assert_array_equal(got["mixed"], got["mosaic"])
        assert got["mixed"].std() > 10, warped


def test_the_files_own_blocks_are_kept(db, files):
    sizes = "SELECT DISTINCT ST_Width(rast), ST_Height(rast) FROM {} WHERE rid = 1"
    load.raster(db, files / "tiled.tif", "tiled", out_db=True)
    assert ask(db, sizes.format("tiled")) == [(256, 128)]
    strips = load.raster(db, files / "strips.tif", "strips", out_db=True)
    assert ask(db, sizes.format("strips")) == [(256, 256)]
    assert any("kept in strips" in note and "gdal_translate -of COG" in note for note in strips.notes)
    load.raster(db, files / "tiled.tif", "mine", out_db=True, block=64)
    assert ask(db, sizes.format("mine")) == [(64, 64)]


def test_nothing_of_the_pixels_is_in_the_database(db, files):
    loaded = load.raster(db, files / "tiled.tif", "outside", out_db=True)
    meta = ask(db, "SELECT DISTINCT isoutdb, path, nodatavalue FROM outside, LATERAL ST_BandMetaData(rast, ARRAY[1, 2, 3])")
    assert meta == [(True, str(files / "tiled.tif"), 0.0)]
    assert ask(db, "SELECT out_db, srid FROM raster_columns WHERE r_table_name = 'outside'") == [([True] * 3, 3857)]
    assert loaded.bytes < 200_000 < (files / "tiled.tif").stat().st_size
    assert loaded.rows == ask(db, "SELECT count(*) FROM outside")[0][0] == 4 * 8


def test_a_single_band_of_a_file_registered_by_hand(db, files):
    """Not its first one, in one block as large as the file: as ST_AddBand does it."""
    with db.connection() as conn:
        conn.execute("CREATE TABLE single (rid serial PRIMARY KEY, rast raster)")
        conn.execute("CREATE INDEX ON single USING gist (ST_ConvexHull(rast))")
        conn.execute(
            "INSERT INTO single (rast) SELECT ST_AddBand(NULL::raster, %s::text, ARRAY[2])", (str(files / "tiled.tif"),)
        )
    tiles = Tiles.random(Grid.like(db, "single", size=64), within=db.extent("single", 3857), count=5)
    np.testing.assert_array_equal(read(db, tiles, {"x": Imagery("single")})["x"], windows(files / "tiled.tif", tiles, (2,)))


def test_a_file_that_moved_is_named(db, files):
    shutil.copy(files / "tiled.tif", files / "moves.tif")
    (files / "moves.tif").chmod(0o644)
    load.raster(db, files / "moves.tif", "moves", out_db=True)
    tiles = Tiles.random(Grid.like(db, "moves", size=64), within=db.extent("moves", 3857), count=3)
    (files / "moves.tif").unlink()
    with pytest.raises(MissingError, match=r"(?s)layer 'image', tile \d+ at .*moves\.tif\n.*is it still there") as caught:
        read(db, tiles, {"image": Imagery("moves")})
    assert "rt_band" not in str(caught.value)


def test_a_file_that_is_cut_off_is_an_error_not_black_pixels(db, files):
    whole = (files / "tiled.tif").read_bytes()
    (files / "cut.tif").write_bytes(whole)
    (files / "cut.tif").chmod(0o644)
    load.raster(db, files / "cut.tif", "cut", out_db=True)
    (files / "cut.tif").write_bytes(whole[: len(whole) // 2])
    tiles = Tiles.sliding(Grid.like(db, "cut", size=100), within=db.extent("cut", 3857), stride=100)
    with pytest.raises(MissingError, match=r"(?s)layer .image., tile .*still there and whole.*\nthe files there: .*/cut\.tif$"):
        read(db, tiles, {"image": Imagery("cut")})


class TestRefused:
    """At loading, with nothing made."""

    @pytest.fixture(autouse=True)
    def _nothing_is_left(self, db):
        yield
        assert ask(db, "SELECT count(*) FROM pg_class WHERE relname IN ('t') OR relname LIKE 'pgtiles\\_%'") == [(0,)]

    def test_a_database_that_allows_no_files(self, database_url, files):
        with Database(database_url) as db, db.connection() as conn:
            conn.execute("CREATE EXTENSION IF NOT EXISTS postgis_raster")
            name = conn.info.dbname
            for setting in ("postgis.enable_outdb_rasters", "postgis.gdal_enabled_drivers"):
                conn.execute(f'ALTER DATABASE "{name}" RESET {setting}'.encode())
        with Database(database_url) as db:
            with pytest.raises(
                LoadError, match=r"enable_outdb_rasters is off, postgis.gdal_enabled_drivers is DISABLE_ALL"
            ) as caught:
                load.raster(db, files / "tiled.tif", "t", out_db=True)
            statements = [line for line in str(caught.value).splitlines() if "ALTER DATABASE" in line]
            assert len(statements) == 2
            with db.connection() as conn:
                for statement in statements:  # what the message says to run
                    conn.execute(statement.encode())
        with Database(database_url) as db:
            assert load.raster(db, files / "tiled.tif", "u", out_db=True).rows == 32

    def test_what_the_server_can_not_open(self, db, files):
        with pytest.raises(MissingError, match=r"/nowhere/tiled\.tif\n.*is it still there"):
            load.raster(db, files / "tiled.tif", "t", out_db="/nowhere")
        if os.geteuid() == 0:  # then the server runs as another account
            shutil.copy(files / "tiled.tif", files / "mine.tif")
            (files / "mine.tif").chmod(0o600)
            with pytest.raises(MissingError, match=r"mine\.tif\n.*may the account that the server runs as read it"):
                load.raster(db, files / "mine.tif", "t", out_db=True)

    def test_another_file_of_that_name(self, db, files):
        other = files / "other"
        other.mkdir(exist_ok=True)
        write_tiff(other / "tiled.tif", scene(9), tiled=True, blockxsize=256, blockysize=128).chmod(0o644)
        with pytest.raises(LoadError, match=r"finds another file at .*other/tiled\.tif than .*--seen-in"):
            load.raster(db, files / "tiled.tif", "t", out_db=str(other))

    @pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("float32", -3.4e38), ("float32", np.nan)])
    def test_another_file_with_the_same_collar(self, db, files, dtype, nodata):
        """The first blocks hold nodata alone, and a float nodata value dwarfs the differences of elevations."""
        found = []
        for k, name in enumerate(("one", "two")):
            pixels = np.full((1, 700, 700), nodata, dtype)
            pixels[:, 300:600, 100:] = scene(k, (1, 300, 600)).astype(dtype) + (600 if dtype == "float32" else 0)
            (files / name).mkdir(exist_ok=True)
            found.append(
                write_tiff(files / name / "collar.tif", pixels, nodata=nodata, tiled=True, blockxsize=128, blockysize=128)
            )
            found[-1].chmod(0o644)
        with pytest.raises(LoadError, match="finds another file"):
            load.raster(db, found[0], "t", out_db=str(files / "two"))
        load.raster(db, found[0], "u", out_db=str(files / "one"))

    def test_two_files_that_are_one_to_the_server(self, db, files):
        for name in ("left", "right"):
            (files / name).mkdir(exist_ok=True)
            shutil.copy(files / "tiled.tif", files / name / "same.tif")
        with pytest.raises(LoadError, match=r"left/same\.tif and .*right/same\.tif are both /data/same\.tif to the server"):
            load.raster(db, [files / "left" / "same.tif", files / "right" / "same.tif"], "t", out_db="/data")

    def test_a_file_that_is_cut_off_before_it_is_loaded(self, db, files):
        whole = (files / "tiled.tif").read_bytes()
        (files / "half.tif").write_bytes(whole[: len(whole) // 2])
        (files / "half.tif").chmod(0o644)
        with pytest.raises(LoadError, match=r"half\.tif can't be read to its end: .*do it again"):
            load.raster(db, files / "half.tif", "t", out_db=True)

    def test_more_bands_than_postgis_numbers(self, db, files):
        write_tiff(files / "many.tif", np.zeros((129, 8, 8), "u1")).chmod(0o644)
        with pytest.raises(ConfigError, match=r"many\.tif has 129 bands: PostGIS numbers at most 128"):
            load.raster(db, files / "many.tif", "t", out_db=True)


def test_the_folder_in_which_the_server_sees_the_files(db, files):
    elsewhere = files / "mounted"
    elsewhere.mkdir(exist_ok=True)
    shutil.copy(files / "tiled.tif", elsewhere / "tiled.tif")
    (elsewhere / "tiled.tif").chmod(0o644)
    load.raster(db, files / "tiled.tif", "t", out_db=str(elsewhere))
    assert ask(db, "SELECT DISTINCT ST_BandPath(rast) FROM t") == [(str(elsewhere / "tiled.tif"),)]


# A web server that gives parts of files, as object stores do: in a process of its own, for GDAL holds Python's lock meanwhile.
WEB = """
import functools, http.server, io, pathlib
class Ranges(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        path = pathlib.Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data, asked = path.read_bytes(), self.headers.get("Range")
        first, last = asked.removeprefix("bytes=").split("-") if asked else ("0", "")
        part = data[int(first) : int(last or len(data) - 1) + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def web(files):
    command = [sys.executable, "-c", WEB]
    with subprocess.Popen(command, cwd=files, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


def test_a_url(db, files, web):
    with db.connection() as conn:
        drivers = conn.execute("SHOW postgis.gdal_enabled_drivers").fetchone()[0]
        conn.execute(f"""ALTER DATABASE "{conn.info.dbname}" SET postgis.gdal_enabled_drivers = '{drivers} VSICURL'""".encode())
    db.close()
    load.raster(db, f"{web}/tiled.tif", "remote", out_db=True)
    tiles = Tiles.random(Grid.like(db, "remote", size=100), within=db.extent("remote", 3857), count=6, seed=4)
    np.testing.assert_array_equal(read(db, tiles, {"x": Imagery("remote")})["x"], windows(files / "tiled.tif", tiles))
    assert ask(db, "SELECT DISTINCT ST_BandPath(rast) FROM remote") == [(f"/vsicurl/{web}/tiled.tif",)]


def test_a_jpeg_is_said_to_be_inexact(db, files):
    lossy = write_tiff(files / "lossy.tif", scene(3), tiled=True, compress="jpeg", photometric="ycbcr")
    lossy.chmod(0o644)
    assert any("compressed with loss" in note for note in load.raster(db, lossy, "lossy", out_db=True).notes)


def test_the_secret_of_a_url_is_not_kept(db, files, web):
    load.raster(db, f"{web}/tiled.tif?X-Amz-Signature=s3cret", "remote")
    assert ask(db, "SELECT DISTINCT filename FROM remote") == [("tiled.tif",)]


def test_a_url_that_is_not_there(db, web):
    with pytest.raises(LoadError, match=r"nothing\.tif is no raster that GDAL can read"):
        load.raster(db, f"{web}/nothing.tif", "t", out_db=True)


def test_check_says_it(db, files):
    load.raster(db, files / "tiled.tif", "outside", out_db=True)
    tiles = Tiles.random(Grid.like(db, "outside", size=64), within=db.extent("outside", 3857), count=1)
    assert "out-db" in Plan.open(db, tiles, {"x": Imagery("outside")}).layers[0].why


def test_names_with_every_kind_of_letter(db, files):
    name = files / 'Sommer \'23 "Süd" 100%.tif'
    shutil.copy(files / "tiled.tif", name)
    name.chmod(0o644)
    load.raster(db, name, "t", out_db=True)
    tiles = Tiles.random(Grid.like(db, "t", size=64), within=db.extent("t", 3857), count=4)
    out = read(db, tiles, {"x": Imagery("t")})["x"]
    assert zlib.crc32(out.tobytes()) == zlib.crc32(windows(files / "tiled.tif", tiles).tobytes())
