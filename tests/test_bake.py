"""Baked tiles: what batches would send, kept in tables. The live layers and rasterio say what is right."""

import hashlib
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest
import shapely
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask, scene, write_tiff
from rasterio.transform import from_origin
from sqlalchemy import text
from typer.testing import CliRunner

from pgtiles import (
    Baked,
    Boxes,
    Database,
    Grid,
    Imagery,
    Instances,
    Labels,
    TileDataset,
    Tiles,
    TimeSeries,
    Value,
    Vectors,
    bake,
    baked,
    load,
    read,
)
from pgtiles.baking import Baking
from pgtiles.errors import ConfigError, DataError, LoadError, MissingError, PoisonError, QueryError
from pgtiles.layers.query import over
from pgtiles.shell.cli import typer_app
from pgtiles.streaming.reading import Plan

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

ROOT = Path(__file__).parents[1]
SIZE = 64
PLAIN = "SELECT ST_Buffer(way, 6) AS geom FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
AREAS_PLAIN = "SELECT way AS geom FROM areas WHERE way && tile.geom"
ROADS = "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
AREAS = "SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom"
LAYERS = {"image": Imagery("scene"), "mask": Labels(ROADS)}
LIVE = [  # each kind of layer, and what changes its rows
    {"image": Imagery("scene"), "mask": Labels(ROADS)},
    {"some": Imagery("scene", bands=(3, 1), dtype="float32"), "filled": Imagery("scene", fill=(7, 8, 9), valid=True)},
    {"coarse": Imagery("scene", resolution=2 * RES, valid=True), "moved": Imagery("scene", resolution=RES / 2, resampling="cubic")},
    {
        "image": Imagery("scene", valid=True),
        "classes": Labels(
            {"road": PLAIN, "area": (9, AREAS_PLAIN)}, order="first", ignore_index=255, contact=8, ignore_missing="image", dtype="uint8",
            coverage=shapely.box(X0 + 200, Y0 - 1500, X0 + 1500, Y0 - 200),
        ),
    },
    {"lines": Labels("roads_4326", value="class", all_touched=True), "bands": Vectors({"road": ROADS, "tree": "trees"}, resolution=RES / 2)},
    {"boxes": Boxes(AREAS, min_overlap=0.1), "own": Instances("areas", id="id", value="class", resolution=2 * RES)},
    {
        "one": Value("SELECT avg(class) AS value FROM roads WHERE way && tile.geom"),
        "many": Value("SELECT class - 1 AS n, count(*) AS value FROM areas WHERE way && tile.geom GROUP BY 1", length=4, missing=-1),
        "statement": Labels(text("SELECT way AS geom FROM areas WHERE way && tile.geom AND class = :class").bindparams(**{"class": 2})),
    },
]  # fmt: skip


def edge(grid, count=12, seed=1):
    """Tiles inside the scene and over each of its edges and corners, and one beyond it."""
    cols, rows = (
        Tiles.random(grid, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=count, seed=seed).bounds[:, [0, 3]].T
    )
    places = [(-30, -20), (300, -63), (WIDTH - 10, 40), (WIDTH - 1, HEIGHT - 1), (-1, 500), (200, HEIGHT - 33), (-200, -200)]
    more = np.array(places).T + np.rint([[(X0 - grid.origin[0]) / RES], [(grid.origin[1] - Y0) / RES]]).astype(int)
    cols, rows = np.rint((cols - grid.origin[0]) / RES).astype(int), np.rint((grid.origin[1] - rows) / RES).astype(int)
    return Tiles(grid, np.append(cols, more[0]), np.append(rows, more[1]), np.arange(len(cols) + len(places)) * 7 - 3)


def same(one, other):
    """Whether two batches are the same, to the bit, key by key and in their order."""
    assert list(one) == list(other)
    for key, a in one.items():
        for x, y in zip(a, other[key], strict=True):
            assert x.dtype == y.dtype
            assert x.shape == y.shape
            assert x.tobytes() == y.tobytes(), key


def rows_of(db, table):
    return ask(db, f"SELECT tile_id, layer, n, value, md5(data), xmin::text FROM {table} ORDER BY 1, 2, 3")


def bare(rows):
    """Rows without the transaction that wrote them."""
    return [row[:-1] for row in rows]


def run(db, statement):
    with db.connection() as conn:
        conn.execute(statement)


@pytest.fixture
def here(schema_db):
    return schema_db


@pytest.fixture(scope="module")
def tiles(world):
    return edge(world.grid)


@pytest.fixture
def own(db, tmp_path):
    """A database of the test's own with a scene and two roads, that may be changed; its tiles lie side by side."""
    load.raster(db, write_tiff(tmp_path / "a.tif", scene(2, (3, 320, 320))), "scene")
    run(db, "CREATE TABLE roads (id int PRIMARY KEY, way geometry(LineString, 3857), class int)")
    for n, y in enumerate((100, 500)):
        line = f"ST_MakeLine(ST_MakePoint({X0 + 20}, {Y0 - y}), ST_MakePoint({X0 + 250}, {Y0 - y}))"
        run(db, f"INSERT INTO roads VALUES ({n}, ST_SetSRID({line}, 3857), {n + 1})")
    run(db, "CREATE INDEX ON roads USING gist (way); ANALYZE roads")
    return db, Tiles.sliding(Grid.like(db, "scene", size=SIZE), within=db.extent("scene", 3857))


class TestSame:
    @pytest.mark.parametrize("layers", LIVE, ids=lambda layers: "-".join(layers))
    def test_every_kind_of_layer_to_the_bit(self, world, here, tiles, layers):
        done = bake(here, "chips", tiles, layers)
        assert (done.table, done.tiles, done.baked) == ('"mine"."chips"', len(tiles), len(tiles))
        found, kept = baked(here, "chips")
        assert list(kept) == list(layers)
        same(read(here, tiles, layers), read(here, found, kept))
        assert found.grid == tiles.grid

    def test_imagery_is_rasterios(self, world, here, tiles):
        """By a way that has none of our reading in it: SQL, and the scene's own pixels."""
        bake(here, "chips", tiles, {"image": Imagery("scene")})
        for (col, row), id_ in zip(
            np.rint((tiles.bounds[:, [0, 3]] - [X0, Y0]) / [RES, -RES]).astype(int), tiles.ids, strict=True
        ):
            found = ask(
                here, "SELECT ARRAY[ST_DumpValues(r, 1), ST_DumpValues(r, 2), ST_DumpValues(r, 3)], ST_UpperLeftX(r), ST_UpperLeftY(r) "
                f"FROM chips, ST_RastFromWKB(data) AS r WHERE layer = 'image' AND tile_id = {id_}"
            )  # fmt: skip
            left, top = max(col, 0), max(row, 0)
            expected = world.pixels[:, top : max(row + SIZE, 0), left : max(col + SIZE, 0)]
            assert len(found) == (expected.size > 0)
            for bands, x, y in found:
                assert (x, y) == (X0 + left * RES, Y0 - top * RES)
                assert np.array_equal(bands, expected)

    @pytest.mark.parametrize(("dtype", "nodata"), [("uint16", None), ("float32", -9999.0), ("int16", 7)])
    def test_pixel_types_and_holes(self, db, tmp_path, dtype, nodata):
        """Scenes that overlap or leave a hole stay apart; alike ones, side by side, become one raster as large as the tile."""
        pixels = scene(3, (2, 200, 200), dtype)
        if nodata is not None:
            pixels[:, 40:60, 30:90] = nodata
        write_tiff(tmp_path / "a.tif", pixels, nodata=nodata)
        write_tiff(
            tmp_path / "b.tif", pixels + 3, nodata=nodata, transform=from_origin(X0 + 170 * RES, Y0 - 90 * RES, RES, RES)
        )
        load.raster(db, sorted(tmp_path.glob("*.tif")), "scenes", block=48)
        run(db, "DELETE FROM scenes WHERE rid IN (13, 30)")
        tiles = Tiles.sliding(Grid.like(db, "scenes", size=50), within=db.extent("scenes", 3857), stride=37)
        layers = {
            "image": Imagery("scenes", valid=True),
            "plain": Imagery("scenes"),
            "warped": Imagery("scenes", resolution=RES * 1.25),
        }
        bake(db, "chips", tiles, layers)
        found, kept = baked(db, "chips")
        same(read(db, tiles, layers), read(db, found, kept))
        rows = dict(ask(db, "SELECT tile_id, count(*) FROM chips WHERE layer = 'plain' GROUP BY 1"))
        assert rows[0] == 1
        assert max(rows.values()) > 1
        size = 61 + 2 * (1 + pixels.itemsize + 50 * 50 * pixels.itemsize)
        assert ask(db, "SELECT octet_length(data) FROM chips WHERE layer = 'plain' AND tile_id = 0") == [(size,)]

    def test_as_many_pixels_twice_as_there_are_missing(self, db, tmp_path):
        """A block in place of its neighbour: as many pixels as the tile has, and still a hole."""
        load.raster(db, write_tiff(tmp_path / "a.tif", scene(5, (1, 64, 64))), "scene", block=32)
        run(db, "DELETE FROM scene WHERE rid = 2")
        run(db, "INSERT INTO scene (rid, rast, filename) SELECT 9, rast, filename FROM scene WHERE rid = 1")
        tiles, layers = (
            Tiles.sliding(Grid.like(db, "scene", size=64), within=db.extent("scene", 3857)),
            {"image": Imagery("scene")},
        )
        bake(db, "chips", tiles, layers)
        same(read(db, tiles, layers), read(db, *baked(db, "chips")))
        assert ask(db, "SELECT count(*) FROM chips") == [(4,)]

    def test_bands_of_several_types_and_labels_that_are_rasters(self, db, tmp_path):
        load.raster(db, write_tiff(tmp_path / "a.tif", scene(4, (1, 120, 120))), "one")
        run(db, "UPDATE one SET filename = filename; ALTER TABLE one DROP CONSTRAINT IF EXISTS enforce_num_bands_rast")
        query = "SELECT ST_AddBand(rast, '32BF'::text, 1.5, -1) AS rast FROM one WHERE ST_ConvexHull(rast) && tile.geom"
        tiles = Tiles.sliding(Grid.like(db, "one", size=40), within=db.extent("one", 3857), stride=23)
        layers = {"mixed": Imagery(query), "mask": Labels("one", resampling="mode", resolution=2 * RES, dtype="uint8")}
        bake(db, "chips", tiles, layers)
        same(read(db, tiles, layers), read(db, *baked(db, "chips")))

    def test_a_time_series_and_tiles_with_times(self, db, tmp_path):
        for n, day in enumerate(("20240105", "20240210", "20240320")):
            write_tiff(tmp_path / f"{day}.tif", scene(n, (2, 150, 150)), transform=from_origin(X0 + 30 * n * RES, Y0, RES, RES))
        load.raster(db, sorted(tmp_path.glob("*.tif")), "s2", block=48)
        run(db, "ALTER TABLE s2 ADD day date; UPDATE s2 SET day = to_date(left(filename, 8), 'YYYYMMDD')")
        tiles = Tiles.sliding(Grid.like(db, "s2", size=64), within=db.extent("s2", 3857), stride=29)
        tiles = tiles.timed(np.datetime64("2024-02-01T00:00:00.123456") + np.arange(len(tiles)).astype("m8[D]"))
        near = TimeSeries("day", steps=2, between=(timedelta(days=-40), timedelta(days=40)), nearest="tile")
        layers = {
            "series": Imagery("s2", time=TimeSeries("day", steps=4)),
            "near": Imagery("s2", time=near, resolution=RES * 2),
            "day": Value("SELECT extract(doy FROM tile.time) AS value"),
        }
        bake(db, "chips", tiles, layers)
        found, kept = baked(db, "chips")
        assert found.times.tolist() == tiles.times.tolist()
        same(read(db, tiles, layers), read(db, found, kept))
        most = ask(
            db, "SELECT max(c) FROM (SELECT count(*) AS c FROM chips WHERE layer = 'series' GROUP BY tile_id, n / 1048576) s"
        )
        assert most == [(1,)]  # each step's blocks are one raster

    def test_one_order_for_any_workers(self, world, here, tiles):
        live = TileDataset(here, tiles[:12], LAYERS, batch_size=4, seed=5)
        live.bake("chips")
        found, kept = baked(here, "chips")
        kept["more"] = Labels(ROADS, dtype="uint8")  # a live layer beside them
        for workers in (0, 2):
            dataset = TileDataset(here, found, kept, batch_size=4, seed=5)
            live.set_epoch(0)
            for one, other in zip(live, dataset.loader(num_workers=workers), strict=True):
                assert (other.pop("more") == one["mask"]).all()
                same({k: v.numpy() for k, v in one.items()}, {k: other[k].numpy() for k in one})
            dataset.close()
        live.close()

    def test_classes_and_paths_are_known(self, here, tiles):
        layers = {"mask": Labels({"road": PLAIN, "area": (9, AREAS_PLAIN)})}
        bake(here, "chips", tiles, layers)
        dataset = TileDataset(here, *baked(here, "chips"))
        assert dataset.classes == {"mask": {1: "road", 9: "area"}}
        assert dataset.plan.layers[0].path == "burned"


class TestResumed:
    BAKE = """
import sys
from pgtiles import Database, Grid, Imagery, Labels, Tiles, bake
from pgtiles.streaming.reading import Plan
db = Database(sys.argv[1])
tiles = Tiles.random(Grid.like(db, "scene", size=64), within=db.extent("scene", 3857), count=130, seed=4)
waits = '''SELECT ST_Buffer(way, 6) AS geom, class AS value
    FROM roads, LATERAL (SELECT CASE WHEN tile.id > 127 THEN pg_advisory_xact_lock_shared(127) END) AS waited
    WHERE ST_DWithin(way, tile.geom, 6)'''
layers = {"image": Imagery("scene"), "mask": Labels(waits)}
print(bake(db, sys.argv[2], tiles, layers, connections=int(sys.argv[3]), progress=lambda a, b: print(a, flush=True)))
"""

    def start(self, db, table, connections=1):
        """In a process of its own; it does not come to the end while another session has the lock 127."""
        command = [sys.executable, "-c", self.BAKE, db.conninfo, table, str(connections)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    def test_killed_in_the_middle_it_goes_on(self, world, here):
        whole = self.start(here, "whole", 2).communicate(timeout=300)[0]
        assert "baked=130, refreshed=0, unchanged=0, skipped=0" in whole
        for seed in range(3):
            dice = random.Random(seed)
            with psycopg.connect(world.url, autocommit=True) as conn:
                conn.execute("SELECT pg_advisory_lock(127)")
                process = self.start(here, f"cut{seed}", 1 + seed % 2)
                stop = dice.choice([0, 32, 64, 96])
                for line in process.stdout:
                    if line.strip().isdigit() and int(line) >= stop:
                        break
                time.sleep(dice.random() * 0.1)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                rows = rows_of(here, f"cut{seed}")
                done = {i for (i,) in ask(here, f"SELECT tile_id FROM cut{seed}_tiles WHERE digest IS NOT NULL")}
            assert {row[0] for row in rows} <= done
            assert len(done) < 130
            again = self.start(here, f"cut{seed}", 2).communicate(timeout=300)[0]
            now = len({i for (i,) in ask(here, f"SELECT tile_id FROM cut{seed}_tiles WHERE baked IS NOT NULL")})
            skipped = int(again.rpartition("skipped=")[2].partition(",")[0])
            assert now == 130
            assert skipped >= len(done)  # the server may have finished a chunk whose client was gone
            after = rows_of(here, f"cut{seed}")
            assert set(rows) <= set(after)  # nothing was done twice
            assert bare(after) == bare(rows_of(here, "whole"))
            tiles, _ = baked(here, f"cut{seed}")
            assert tiles.ids.tolist() == list(range(130))

    @pytest.fixture
    def many(self, here):
        return Tiles.random(Grid.like(here, "scene", size=64), within=here.extent("scene", 3857), count=130, seed=4)

    @pytest.mark.parametrize("connections", [1, 3])
    def test_lost_connections_are_not_seen(self, world, here, many, connections):
        """All backends end, whatever they are at, each time a chunk is done: what was lost with them is baked again, once."""
        slow = ROADS.replace("roads", "roads, pg_sleep(0.003)")
        layers = {"image": Imagery("scene"), "mask": Labels(slow)}
        with psycopg.connect(world.url, autocommit=True) as conn:

            def cut(done, total):
                conn.execute(
                    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'pgtiles'"
                )

            done = bake(here, "cut", many, layers, connections=connections, progress=cut)
        assert here.counters.reconnects > 0
        # one may have been written, and its backend ended before it said so
        assert done.baked + done.skipped == done.tiles == 130
        bake(here, "peace", many, layers)
        assert bare(rows_of(here, "cut")) == bare(rows_of(here, "peace"))

    def test_a_tile_that_ends_its_backend_ends_it(self, here, many):
        """After some attempts, by its name; what came before stays, and nobody is advised to set what only a dataset has."""
        run(here, "CREATE TABLE bad AS SELECT 2 AS id")
        killed = "SELECT tile.geom FROM tile, bad WHERE CASE WHEN tile.id = bad.id THEN pg_terminate_backend(pg_backend_pid()) ELSE true END"
        layers = {"mask": Labels(killed)}
        with pytest.raises(PoisonError, match=r"baking tile 2 at .*: given up after 5 attempts") as caught:
            bake(here, "cut", many, layers, connections=1)
        assert "on_error" not in str(caught.value)
        assert str(caught.value).endswith("at least 0 of 130 tiles are baked in cut; the same call goes on from there")
        run(here, "UPDATE bad SET id = -1")
        assert bake(here, "cut", many, layers).skipped == 2

    def test_ctrl_c(self, here, many):
        """It ends within seconds, whatever the server is at; whole chunks stay, and the same call goes on."""
        run(here, "CREATE TABLE wait (seconds int); INSERT INTO wait VALUES (60)")
        late = f"SELECT tile.geom FROM tile, wait WHERE CASE WHEN tile.id > {many.ids[31]} THEN pg_sleep(seconds) IS NOT NULL ELSE true END"
        layers, began = {"mask": Labels(late)}, time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            bake(here, "cut", many, layers, progress=lambda done, total: done and os.kill(os.getpid(), signal.SIGINT))
        assert time.monotonic() - began < 50
        run(here, "UPDATE wait SET seconds = 0")
        done = bake(here, "cut", many, layers)
        assert (done.skipped, done.baked) == (32, 98)

    def test_two_at_once_share_the_work(self, here):
        both = [self.start(here, "shared_work") for _ in range(2)]
        said = [process.communicate(timeout=300)[0] for process in both]
        counts = [int(text.rpartition("baked=")[2].partition(",")[0]) for text in said]
        assert sum(counts) == 130
        assert all("unchanged=0" in one for one in said)  # who finds a tile baked does not even read it
        assert ask(here, "SELECT count(DISTINCT tile_id) FROM shared_work WHERE layer = 'image'") == [(130,)]

    def test_many_that_start_at_once_wait_for_one_to_make_the_tables(self, here, tiles):
        together = threading.Barrier(6)

        def start(_: int) -> Baking:
            together.wait()
            return bake(here, "at_once", tiles[:3], LAYERS, connections=1)

        with ThreadPoolExecutor(6) as threads:
            done = list(threads.map(start, range(6)))
        assert sum(one.baked for one in done) == 3

    def test_again_does_nothing_and_other_tiles_are_added(self, world, here, tiles):
        first = bake(here, "chips", tiles[:9], LAYERS)
        before = rows_of(here, "chips")
        assert bake(here, "chips", tiles[:9], LAYERS).skipped == first.baked == 9
        assert rows_of(here, "chips") == before
        done = bake(here, "chips", tiles[[12, 3, 10]], LAYERS)
        assert (done.tiles, done.baked, done.skipped) == (3, 2, 1)
        found, kept = baked(here, "chips")
        assert found.ids.tolist() == tiles.ids[[*range(9), 12, 10]].tolist()
        same(read(here, tiles[[*range(9), 12, 10]], LAYERS), read(here, found, kept))

    def test_progress_counts_up_to_all(self, here, tiles):
        told = []
        bake(here, "chips", tiles, LAYERS, progress=lambda done, total: told.append((done, total)))
        assert told == [(0, len(tiles)), (len(tiles), len(tiles))]


class TestRefreshed:
    def test_only_tiles_whose_sources_changed(self, own):
        db, tiles = own
        bake(db, "chips", tiles, LAYERS)
        before, live = rows_of(db, "chips"), read(db, tiles, LAYERS)
        nothing = bake(db, "chips", tiles, LAYERS, refresh=True)
        assert (nothing.refreshed, nothing.unchanged) == (0, len(tiles))
        assert rows_of(db, "chips") == before
        run(db, "UPDATE roads SET way = ST_Translate(way, 0, -40) WHERE id = 1")
        x, y = X0 + 210.5 * RES, Y0 - 10.5 * RES  # a pixel of the fourth tile of the first row; its block lies on others too
        run(db, f"UPDATE scene SET rast = ST_SetValue(rast, 2, ST_SetSRID(ST_MakePoint({x}, {y}), 3857), 255) "
                f"WHERE ST_ConvexHull(rast) && ST_SetSRID(ST_MakePoint({x}, {y}), 3857)")  # fmt: skip
        done, now = bake(db, "chips", tiles, LAYERS, refresh=True), read(db, tiles, LAYERS)
        differ = {i for i in range(len(tiles)) if any((live[k][i] != now[k][i]).any() for k in LAYERS)}
        assert 3 in differ
        assert 2 <= len(differ) <= 5
        assert (done.refreshed, done.unchanged, done.baked) == (len(differ), len(tiles) - len(differ), 0)
        after = rows_of(db, "chips")
        kept = [row for row in before if row[0] not in differ]
        assert [row for row in after if row[0] not in differ] == kept
        assert {row[0] for row in set(after) - set(before)} == differ
        same(now, read(db, *baked(db, "chips")))

    def test_what_is_gone_is_gone(self, own):
        db, tiles = own
        first = bake(db, "chips", tiles, {"mask": Labels(ROADS)})
        run(db, "DELETE FROM roads WHERE id = 1")
        done = bake(db, "chips", tiles, {"mask": Labels(ROADS)}, refresh=True)
        assert done.empty > first.empty
        assert done.empty - first.empty == done.refreshed
        same(read(db, tiles, {"mask": Labels(ROADS)}), read(db, *baked(db, "chips")))


class TestRefused:
    @pytest.mark.parametrize(
        ("layers", "said"),
        [
            ({"image": Imagery("scene")}, r"layers mask was \{.*, now null"),
            (LAYERS | {"mask": Labels(ROADS, buffer=2)}, r"layers mask from buffer was null, now 2"),
            (LAYERS | {"mask": Labels(ROADS.replace("6", "7"))}, r"layers mask from source was \"SELECT"),
            (LAYERS | {"mask": Labels(ROADS, dtype="uint8")}, r"layers mask from dtype was null, now \"uint8\""),
        ],
    )
    def test_other_layers(self, here, tiles, layers, said):
        bake(here, "chips", tiles[:2], LAYERS)
        with pytest.raises(ConfigError, match=rf"chips was baked otherwise: {said}.*replace=True"):
            bake(here, "chips", tiles[:2], layers)
        assert bake(here, "chips", tiles[:2], layers, replace=True).baked == 2
        same(read(here, tiles[:2], layers), read(here, *baked(here, "chips")))

    def test_another_grid_another_place_and_what_is_not_baked(self, world, here, tiles):
        bake(here, "chips", tiles[:4], LAYERS)
        kept = baked(here, "chips")[1]
        smaller = Tiles.random(Grid.like(here, "scene", size=32), within=here.extent("scene", 3857), count=2)
        with pytest.raises(ConfigError, match=r"grid size was \[64, 64\], now \[32, 32\]"):
            bake(here, "chips", smaller, LAYERS)
        with pytest.raises(ConfigError, match=r"was baked on Grid.*these tiles lie on Grid"):
            read(here, smaller, kept)
        moved = Tiles(tiles.grid, tiles.cols[:1] + 1, tiles.rows[:1], tiles.ids[:1])
        with pytest.raises(ConfigError, match=rf"tile {tiles.ids[0]} is in chips already, at another place"):
            bake(here, "chips", moved, LAYERS)
        for wrong, count in ((tiles[2:6], 2), (moved, 1), (tiles[:4].timed("2024-01-01"), 4)):
            with pytest.raises(MissingError, match=rf"{count} of {len(wrong)} tiles are not baked in mine.chips"):
                read(here, wrong, kept)
        with pytest.raises(MissingError, match="holds no layer 'label'; it has image, mask"):
            read(here, tiles[:2], {"label": Baked("chips", "label")})

    def test_a_table_that_is_something_else_is_never_dropped(self, here, tiles):
        run(here, "CREATE TABLE chips (a int); COMMENT ON TABLE chips IS '{\"a\": 1}'")
        for more in ({}, {"replace": True}):
            with pytest.raises(MissingError, match=r"mine\.chips holds no baked tiles"):
                bake(here, "chips", tiles, LAYERS, **more)
        with pytest.raises(MissingError, match="holds no baked tiles"):
            baked(here, "chips")
        run(here, "CREATE TABLE more_tiles (a int)")
        with pytest.raises(LoadError, match=r"more_tiles.* already exists"):
            bake(here, "more", tiles, LAYERS)
        assert ask(here, "SELECT to_regclass('more')") == [(None,)]

    def test_hostile_names(self, world, here, tiles):
        table, layer = '"o\'dd \\"";drop table scene;--%s {0}"'.replace('\\"', '"'), "a' \"b; %s {x}"
        layers = {layer: Imagery("scene"), "mask": Labels(ROADS)}
        bake(here, table, tiles[:3], layers)
        same(read(here, tiles[:3], layers), read(here, *baked(here, table)))
        with pytest.raises(ConfigError, match="expected 57 at most"):
            bake(here, "x" * 58, tiles, layers)

    def test_rights(self, world, here, tiles):
        run(here, "CREATE ROLE baker LOGIN PASSWORD 'b'; GRANT USAGE ON SCHEMA mine TO baker")
        try:
            run(here, "GRANT SELECT ON public.scene, public.roads TO baker")
            with Database(psycopg.conninfo.make_conninfo(here.conninfo, user="baker", password="b")) as other:
                with pytest.raises(LoadError, match=r"permission denied.*GRANT CREATE ON SCHEMA"):
                    bake(other, "chips", tiles[:2], LAYERS)
                bake(here, "chips", tiles[:2], LAYERS)
                with pytest.raises(QueryError, match="GRANT SELECT"):
                    baked(other, "chips")
                run(here, "GRANT SELECT ON chips, chips_tiles TO baker")
                same(read(here, tiles[:2], LAYERS), read(other, *baked(other, "chips")))
                with pytest.raises(LoadError, match="chips"):
                    bake(other, "chips", tiles[:5], LAYERS)
                run(here, "GRANT INSERT, UPDATE ON chips_tiles TO baker")
                with pytest.raises(LoadError, match=r"chips.*SELECT, INSERT, UPDATE and DELETE in both"):
                    bake(other, "chips", tiles[:5], LAYERS)
        finally:
            run(here, "DROP OWNED BY baker; DROP ROLE baker")

    def test_a_query_may_not_write(self, here, tiles):
        """Baking writes, the user's query does not: not by a function, nor by one that tries to leave READ ONLY."""
        run(here, "CREATE TABLE victim (a int); INSERT INTO victim VALUES (1)")
        for escape in ("", "PERFORM set_config('transaction_read_only', 'off', true);", "SET transaction_read_only = off;"):
            run(
                here, "CREATE OR REPLACE FUNCTION mine.evil() RETURNS int LANGUAGE plpgsql AS $$BEGIN "
                f"{escape} DELETE FROM mine.victim; RETURN 1; END$$"
            )  # fmt: skip
            with pytest.raises(
                QueryError, match=r"(?s)layer 'mask', tile.*(read-only transaction|must be set before).*0 of 2 tiles are baked"
            ):
                bake(here, "chips", tiles[:2], {"mask": Labels("SELECT tile.geom, mine.evil() AS value FROM roads LIMIT 1")})
        with pytest.raises(QueryError):
            bake(
                here,
                "chips",
                tiles[:2],
                {"mask": Labels("WITH d AS (DELETE FROM victim RETURNING 1) SELECT tile.geom FROM d, tile")},
            )
        assert ask(here, "SELECT count(*) FROM victim") == [(1,)]
        assert ask(here, "SELECT count(*) FROM chips") == [(0,)]

    @pytest.mark.parametrize(
        ("query", "error", "said"),
        [
            ("SELECT ST_Buffer(way, 6) AS geom, NULL::int AS value FROM roads WHERE way && tile.geom", DataError, "value is NULL"),
            ("SELECT way AS geom, 1 / (class - 1) AS value FROM roads WHERE way && tile.geom", QueryError, "division by zero"),
            (
                "SELECT ST_MakeEnvelope('-infinity', 0, 'infinity', 9e6, 3857) AS geom FROM roads WHERE way && tile.geom", DataError,
                "infinite",
            ),
        ],
    )  # fmt: skip
    def test_what_no_batch_would_take_is_an_error_with_its_tile(self, here, tiles, query, error, said):
        with pytest.raises(error, match=rf"(?s)layer 'mask', tile -?\d+ at .*{said}.*tiles are baked in chips; the same call"):
            bake(here, "chips", tiles, {"mask": Labels(query)})


def test_a_tile_is_looked_up_by_the_key(here, tiles):
    bake(here, "chips", tiles, LAYERS)
    found, kept = baked(here, "chips")
    plan = Plan.open(here, found, kept)
    said = ask(here, "EXPLAIN " + over(found[:4], psycopg.sql.SQL(plan.layers[0].select)).as_string(None))
    assert any("Index Scan using chips_pkey" in line for (line,) in said)
    assert not any("Seq Scan" in line for (line,) in said)


def test_the_command(world, here, tmp_path, monkeypatch):
    monkeypatch.setenv("PGTILES_URL", here.conninfo)
    command = ["bake", "chips", "--image", "scene", "--labels", "roads", "--buffer", "6", "--size", "64"]

    def say(*more):
        done = CliRunner().invoke(typer_app, [*command, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert 'mine"."chips": 5 tiles; 5 baked' in say("--count", "5")
    assert "0 baked, 0 refreshed, 5 unchanged, 0 were there" in say("--count", "5", "--refresh")
    assert "tiles, layers = pgtiles.baked(db, 'chips')" in say("--count", "5")
    all_of_them = say("--within", f"{X0},{Y0 - 640},{X0 + 640},{Y0}", "--replace")
    assert "16 tiles; 16 baked" in all_of_them
    found, kept = baked(here, "chips")
    assert (
        hashlib.sha256(read(here, found, kept)["image"].tobytes()).digest()
        == hashlib.sha256(
            np.stack([world.pixels[:, r : r + 64, c : c + 64] for r in range(0, 256, 64) for c in range(0, 256, 64)]).tobytes()
        ).digest()
    )


def test_the_page(db, tmp_path, monkeypatch):
    """Every block of docs/baking.md, in order."""
    rng = np.random.default_rng(0)
    monkeypatch.setenv("PGTILES_URL", db.conninfo)
    load.raster(db, write_tiff(tmp_path / "a.tif", scene(0, (4, 600, 600))), "sat_s2")
    run(db, "CREATE TABLE planet_osm_line (way geometry(LineString, 3857), highway text)")
    for x, y in rng.uniform(0, 600 * RES, (60, 2)):
        start, end = f"ST_MakePoint({X0 + x}, {Y0 - y})", f"ST_MakePoint({X0 + y}, {Y0 - x})"
        run(db, f"INSERT INTO planet_osm_line VALUES (ST_SetSRID(ST_MakeLine({start}, {end}), 3857), 'primary')")
    run(db, "CREATE INDEX ON planet_osm_line USING gist (way); ANALYZE planet_osm_line")
    found = re.findall(r"^```(python|sql|sh)\n(.*?)^```$", (ROOT / "docs" / "baking.md").read_text(), re.M | re.S)
    assert [kind for kind, _ in found] == ["python", "python", "sh", "python", "sql", "sql"]
    names, codes = {}, [code for _, code in found]
    for code in (codes[0], codes[1], codes[3]):
        exec(compile(code, "baking.md", "exec"), names)
    assert (names["done"].refreshed, names["done"].unchanged) == (0, 200)
    live = read(db, names["tiles"], names["layers"])
    at = {id_: n for n, id_ in enumerate(live["tile_id"].tolist())}
    assert (names["batch"]["image"].numpy() == live["image"][[at[i] for i in names["batch"]["tile_id"].tolist()]]).all()
    run(db, codes[4])
    assert ask(db, "SELECT count(*), min(ST_Width(rast)), max(ST_NumBands(rast)) FROM chips_seen") == [(200, 128, 3)]
    run(db, "DROP VIEW chips_seen")
    assert ask(db, codes[5]) == []  # nobody asked to keep them
    done = CliRunner().invoke(typer_app, shlex.split(codes[2])[1:], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "16 tiles; 16 baked" in done.output
