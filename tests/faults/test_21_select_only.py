"""Fault 21: a role that may SELECT and nothing else. All of reading works for it, and the server's own log of its statements holds
nothing that writes, locks, or outlives its transaction.
"""

import csv
import re
import time
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest
import rasterio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds
from server_helpers import scratch

from pgtiles import Boxes, Database, Grid, Imagery, Labels, LocalServer, TileDataset, Tiles, Vectors, load
from pgtiles.errors import LoadError, QueryError

BOX = (1_050_000.0, 5_984_000.0, 1_051_000.0, 5_985_000.0)
MINE = "/* the user's own text */"
SETTINGS = {
    "fsync": "off", "autovacuum": "off", "log_statement": "all", "logging_collector": "on", "log_destination": "csvlog",
    "log_filename": "statements.log", "log_rotation_age": "0", "log_rotation_size": "0",
}  # fmt: skip
HIDDEN = re.compile(
    r"--[^\n]*|/\*.*?\*/|\bE'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$", re.S
)
ALLOWED = re.compile(
    r"(SELECT|WITH|VALUES)\b.*|SET LOCAL \w+ = \S+( \S+)?|SHOW \w+|COPY \(.*\) TO STDOUT( \(FORMAT binary\))?|BEGIN READ ONLY|COMMIT|ROLLBACK"
    r"|EXPLAIN( \([^()]*\))? (SELECT|WITH)\b.*",
    re.S,
)
WRITES = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|INTO|CREATE|ALTER|DROP|TRUNCATE|GRANT|LOCK|FOR (KEY )?SHARE|NEXTVAL|SETVAL|DBLINK|LO_\w+)\b",
    re.I,
)


def statements(text):
    """The statements of a script, without what is in quotes and comments."""
    return [" ".join(one.split()) for one in HIDDEN.sub(" x ", text).split(";") if one.strip()]


def wrong(text):
    """Those that only read nothing."""
    return [one for one in statements(text) if not ALLOWED.fullmatch(one) or WRITES.search(one)]


@pytest.fixture(scope="module")
def server():
    rng = np.random.default_rng(0)
    with scratch() as home, LocalServer(home / "server", settings=SETTINGS) as server, Database(server.url) as db:
        for name, srid, size, box in (
            ("scene", 3857, 2.5, BOX), ("scene_utm", 32632, 2.0, transform_bounds("EPSG:3857", "EPSG:32632", *BOX)),
        ):  # fmt: skip
            shape = (3, int((box[3] - box[1]) / size), int((box[2] - box[0]) / size))
            profile = {"count": 3, "height": shape[1], "width": shape[2], "dtype": "uint8", "crs": f"EPSG:{srid}"}
            transform = from_origin(box[0], box[3], size, size)
            with rasterio.open(home / f"{name}.tif", "w", driver="GTiff", transform=transform, **profile) as file:
                file.write(rng.integers(1, 255, shape, "uint8"))
            load.raster(db, [home / f"{name}.tif"], name)
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("CREATE TABLE roads (id int PRIMARY KEY, way geometry(LineString, 3857), lanes int)")
            roads = np.array(BOX[:2]) + rng.uniform(0, 1000, (60, 2, 2))
            for id_, ((x0, y0), (x1, y1)) in enumerate(roads.tolist()):
                line = f"SRID=3857;LINESTRING({x0} {y0}, {x1} {y1})"
                conn.execute("INSERT INTO roads VALUES (%s, %s, %s)", (id_, line, 1 + id_ % 4))
            conn.execute("CREATE INDEX ON roads USING gist (way); ANALYZE")
            conn.execute("""
                REVOKE ALL ON DATABASE pgtiles FROM PUBLIC; REVOKE ALL ON SCHEMA public FROM PUBLIC;
                CREATE ROLE reader LOGIN PASSWORD 'reader' NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT;
                GRANT CONNECT ON DATABASE pgtiles TO reader; GRANT USAGE ON SCHEMA public TO reader;
                GRANT SELECT ON scene, scene_utm, roads TO reader;
            """)
        url = make_conninfo(**conninfo_to_dict(server.url) | {"user": "reader", "password": "reader"})
        yield SimpleNamespace(url=server.url, reader=url, log=server.data / "log" / "statements.csv", home=home)


def logged(server):
    """Who sent what, session by session and in order: all that was sent before."""
    end = f"the end {time.monotonic_ns()}"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"SELECT '{end}'")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with server.log.open(newline="", encoding="utf-8") as file:
            rows = [(row[1], row[5], row[13]) for row in csv.reader(file) if len(row) > 13]
        if any(end in message for *_, message in rows):
            kinds = re.compile(r"(?:statement|execute [^:]*|fastpath function call): ?")
            return [
                (user, session, message[found.end() :]) for user, session, message in rows if (found := kinds.match(message))
            ]
        time.sleep(0.05)
    raise AssertionError(f"the server's log never came to its end: {server.log}")


def layers():
    return {
        "native": Imagery("scene"),
        "warped": Imagery("scene_utm", resampling="nearest"),
        "mask": Labels(f"SELECT {MINE} ST_Buffer(way, lanes * 3) AS geom, lanes AS value FROM roads WHERE ST_DWithin(way, tile.geom, 12)"),
        "roads": Vectors({"roads": "roads"}, buffer=4),
        "boxes": Boxes("roads", id="id", value="lanes"),
    }  # fmt: skip


def all_of(dataset):
    found = {}
    for batch in dataset:
        for n, tile in enumerate(batch["tile_id"].tolist()):
            found[tile] = {name: np.asarray(values[n]) for name, values in batch.items()}
    return found


def test_all_of_reading_works_and_nothing_else_is_ever_sent(server):
    with Database(server.url) as db:
        tiles = Tiles.sliding(Grid.like(db, "scene", size=64), within=BOX)
        owned = all_of(TileDataset(db, tiles, layers()))
    given_out = "SELECT pg_snapshot_xmax(pg_current_snapshot())"  # transaction numbers: one that writes takes the next
    with psycopg.connect(server.url, autocommit=True) as conn:
        before = conn.execute(given_out).fetchone()
    with Database(server.reader) as db:
        again = Tiles.sliding(Grid.like(db, "scene", size=64), within=db.extent("scene", 3857), imagery="scene", db=db)
        np.testing.assert_array_equal(again.ids, tiles.ids)
        dataset = TileDataset(db, tiles, layers(), connections=2, batch_size=4)
        for got in (all_of(dataset), all_of(dataset.loader(num_workers=2))):  # workers are other sessions
            assert got.keys() == owned.keys() == set(tiles.ids.tolist())
            for tile, sample in got.items():
                for name, values in sample.items():
                    np.testing.assert_array_equal(values, owned[tile][name], err_msg=f"{name} of tile {tile}")
        with rasterio.open(server.home / "scene.tif") as file:
            np.testing.assert_array_equal(got[int(tiles.ids[0])]["native"], file.read()[:, :64, :64])
        # what people do before they train
        dataset.check()
        dataset.why(int(tiles.ids[0]))
        Tiles.query(db, tiles.grid, f"SELECT {MINE} way AS geom, lanes FROM roads", count=5)
        Tiles.random(tiles.grid, within="SELECT ST_Buffer(way, 300) AS geom FROM roads", db=db, count=5)
        tiles.describe(db, {"road": Labels("roads", buffer=3)})
        split = tiles.split(
            polygons=f"SELECT {MINE} id, ST_Buffer(way, 50) AS geom FROM roads", db=db, train=0.5, val=0.5, gap=0
        )
        split.proof(db, Labels("roads"))
    sent = [(session, text) for user, session, text in logged(server) if user == "reader"]
    assert len({session for session, _ in sent}) >= 4
    assert [one for _, text in sent for one in wrong(text)] == []
    with psycopg.connect(server.url, autocommit=True) as conn:
        assert conn.execute(given_out).fetchone() == before

    heads = {
        re.match(r"(BEGIN|COPY|SET|WITH|SELECT|EXPLAIN|COMMIT)\b", one)[0]
        for _, text in sent
        for one in statements(text)
        if one[:3] not in {"ROL", "SHO"}
    }
    assert {"BEGIN", "COPY", "SET", "WITH", "SELECT", "EXPLAIN", "COMMIT"} == heads  # the log was on, and of all that we do

    within, seen = dict[str, bool](), 0
    for session, text in sent:
        inside = within.get(session, False)
        if MINE in text:
            seen += 1
            assert inside or text.startswith("BEGIN READ ONLY;"), f"not in a READ ONLY transaction: {text[:200]}"
        for one in statements(text):
            inside = one == "BEGIN READ ONLY" or (inside and one not in {"COMMIT", "ROLLBACK"})
        within[session] = inside
    assert seen > 5
    assert not any(within.values())


def test_what_needs_more_rights_says_which(server):
    with Database(server.reader) as db:
        tiles = Tiles.sliding(Grid.like(db, "scene", size=64), within=BOX)[:2]
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("CREATE TABLE IF NOT EXISTS closed AS SELECT 1 AS id, ST_MakePoint(0, 0) AS geom")
        with pytest.raises(QueryError, match=r"closed.*GRANT SELECT"):
            TileDataset(db, tiles, {"m": Labels("closed")})
        for write in (
            lambda: TileDataset(db, tiles, {"m": Labels("roads")}).bake("baked"),
            lambda: load.raster(db, [server.home / "scene.tif"], "mine"),
        ):
            with pytest.raises(LoadError, match=r"permission denied|GRANT"):
                write()
    with psycopg.connect(server.reader, autocommit=True) as conn:
        for text in ("CREATE TABLE t (n int)", "CREATE TEMP TABLE t (n int)", "CREATE SCHEMA s", "DELETE FROM roads"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(text)


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t VALUES (1)", "CREATE TEMP TABLE t (n int)", "COPY t FROM STDIN", "COPY t TO '/tmp/x'", "SELECT 1 INTO t", "BEGIN", "LISTEN x",
        "WITH gone AS (DELETE FROM t RETURNING n) SELECT n FROM gone", "EXPLAIN (ANALYZE) DELETE FROM t", "SET jit = off", "DISCARD ALL", "LOCK t",
        "SELECT n FROM t FOR UPDATE", "SELECT n FROM t FOR KEY SHARE", "DECLARE c CURSOR FOR SELECT 1", "PREPARE p AS SELECT 1", "SELECT nextval('s')",
        "BEGIN READ ONLY; COPY (SELECT ';') TO STDOUT; DROP TABLE t; COMMIT", "DO $$BEGIN END$$", "SELECT $$;$$; VACUUM", "ANALYZE t",
    ],
)  # fmt: skip
def test_the_look_at_the_log_is_strict(text):
    assert wrong(text)
    assert not wrong(
        "BEGIN READ ONLY; SET LOCAL jit = off; COPY (SELECT 'DELETE;', $x$;$x$ /* ; */) TO STDOUT (FORMAT binary); COMMIT"
    )
