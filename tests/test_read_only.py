"""Whatever SQL stands where a user's SQL is taken: one statement, and nothing is written. Nobody's rights help: the role is the
server's superuser, so that only the gate and READ ONLY stand between the text and the canary.
"""

import numpy as np
import pytest
import sqlalchemy
from conftest import shared, write_tiff
from psycopg import sql
from rasterio.transform import from_origin

from pgtiles import (
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
    load,
    read,
)
from pgtiles.errors import PgtilesError
from pgtiles.layers.bysrid import BySrid

pytestmark = pytest.mark.filterwarnings("ignore::pgtiles.errors.PgtilesWarning")  # that a function hides an index, and the like

SETUP = """
    CREATE TABLE canary (n int PRIMARY KEY);
    INSERT INTO canary VALUES (1), (2), (3);
    CREATE TABLE areas (id int PRIMARY KEY, geom geometry(Polygon, 3857), name text);
    INSERT INTO areas SELECT i, ST_MakeEnvelope(i * 40, -i * 40 - 60, i * 40 + 60, -i * 40, 3857), 'a' FROM generate_series(0, 9) AS i;
    CREATE INDEX ON areas USING gist (geom);
    CREATE TABLE dated AS SELECT rid, rast, timestamptz '2024-01-01' + rid * interval '1 day' AS taken FROM scene;
    CREATE INDEX ON dated USING gist (ST_ConvexHull(rast));
    CREATE FUNCTION writes() RETURNS boolean LANGUAGE sql VOLATILE AS 'INSERT INTO canary VALUES (4); SELECT true';
    -- writes wherever it may, and goes on where it may not; that it was called is seen by its lock
    CREATE FUNCTION tries() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
        PERFORM pg_advisory_lock_shared(4711);
        BEGIN
            PERFORM set_config('transaction_read_only', 'off', true);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
        BEGIN
            INSERT INTO canary SELECT max(n) + 1 FROM canary;
        EXCEPTION WHEN read_only_sql_transaction THEN NULL;
        END;
        RETURN true;
    END $$;
"""
STATE = """
    SELECT (SELECT array_agg(n ORDER BY n) FROM canary), (SELECT array_agg(relname ORDER BY relname) FROM pg_class),
        (SELECT array_agg(rolname ORDER BY rolname) FROM pg_roles), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM areas)
"""
LOCKED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711"

ROWS = "SELECT id, geom, 1 AS value FROM areas WHERE geom && tile.geom"
POLYGONS = "SELECT id, geom FROM areas"
RASTERS = "SELECT rast, taken FROM dated WHERE ST_ConvexHull(rast) && tile.geom"
COUNT = "SELECT count(*) AS value FROM areas WHERE geom && tile.geom"
WITHIN = "SELECT ST_Expand(geom, 200) AS geom FROM areas"

SCENE, GRID = np.full((1, 256, 256), 7, "uint8"), {"srid": 3857, "resolution": 2.0, "size": 64}


@pytest.fixture(scope="module")
def url(template, tmp_path_factory):
    with shared(template, "pgtiles_read_only") as url, Database(url) as db:
        tif = write_tiff(tmp_path_factory.mktemp("scene") / "s.tif", SCENE, transform=from_origin(0, 0, 2, 2))
        load.raster(db, [tif], "scene")
        with db.connection() as conn:
            conn.execute(SETUP)
        yield url


@pytest.fixture
def db(url):
    with Database(url) as database, Database(url) as witness:
        before = witness.query(sql.SQL(STATE))
        yield database
        assert witness.query(sql.SQL(STATE)) == before


def laid(db, srid=3857):
    grid = Grid(**GRID) if srid == 3857 else Grid(srid=srid, resolution=2.0, size=64)
    return Tiles.sliding(grid, within=(0, -384, 384, 0))


def layer(make, tiles=laid):
    """Reading a layer that takes the text."""
    return lambda db, text: read(db, tiles(db), {"layer": make(text)})


def opened(make):
    """The same, by a dataset: it is opened, checked, explained, read and measured."""

    def run(db, text):
        dataset = TileDataset(db, laid(db), {"layer": make(text)}, batch_size=4)
        for _ in dataset:
            pass
        dataset.check()
        dataset.why(0)
        return dataset

    return run


def baked(db, text):
    table = f"baked_{abs(hash(text))}"
    try:
        TileDataset(db, laid(db)[:2], {"layer": Labels(text)}).bake(table)
    finally:
        with db.connection() as conn:
            conn.execute(f"DROP TABLE IF EXISTS {table}, {table}_tiles")


def dealt(db, text):
    return laid(db).split(polygons=text, db=db, train=0.7, val=0.3, gap=0)


def proven(db, text):
    dealt(db, POLYGONS).proof(db, Labels(text))


# Where a query is taken: how it is called, and a text that is right there.
QUERIES = {
    "Labels": (layer(Labels), ROWS),
    "Labels by SQLAlchemy": (layer(lambda text: Labels(sqlalchemy.text(text.replace(":", "\\:")))), ROWS),
    "Labels of a dataset": (opened(Labels), ROWS),
    "Labels, widened": (layer(lambda text: Labels(text, buffer=3)), ROWS),
    "classes": (opened(lambda text: Labels({"a": POLYGONS + " WHERE geom && tile.geom", "b": text})), ROWS.replace(", 1 AS value", "")),
    "coverage": (layer(lambda text: Labels(ROWS, ignore_index=255, coverage=text)), ROWS),
    "rasters as labels": (layer(Labels), RASTERS),
    "Vectors": (layer(lambda text: Vectors({"a": text})), ROWS),
    "Imagery, native": (opened(Imagery), RASTERS),
    "Imagery, warped": (opened(lambda text: Imagery(text, srid=3857)), RASTERS.replace("tile.geom", "ST_Transform(tile.geom, 3857)")),
    "Imagery, resampled": (layer(lambda text: Imagery(text, resolution=1.0)), RASTERS),
    "time series": (layer(lambda text: Imagery(text, time=TimeSeries("taken", steps=2))), RASTERS),
    "Boxes": (opened(Boxes), ROWS),
    "Instances": (opened(Instances), ROWS),
    "Value": (opened(Value), COUNT),
    "BySrid": (layer(lambda text: BySrid({3857: Labels(text)})), ROWS),
    "Tiles.query": (lambda db, text: Tiles.query(db, Grid(**GRID), text), POLYGONS),
    "Tiles.random": (lambda db, text: Tiles.random(Grid(**GRID), within=text, db=db, count=3), WITHIN),
    "Tiles.sliding": (lambda db, text: Tiles.sliding(Grid(**GRID), within=text, db=db), WITHIN),
    "Tiles.fresh": (lambda db, text: Tiles.fresh(Grid(**GRID), within=text, db=db, count=3), WITHIN),
    "Tiles.describe": (lambda db, text: laid(db).describe(db, {"area": Labels(text)}), ROWS),
    "split by polygons": (dealt, POLYGONS),
    "the proof of a split": (proven, ROWS),
    "bake": (baked, ROWS),
}  # fmt: skip
# Where a part of one is taken: the same, and how a function is put into it.
PARTS = {
    "where": (opened(lambda text: Labels("areas", where=text)), "id > 2", "id > 2 AND {}"),
    "classes of a table": (opened(lambda text: Labels("areas", classes={"a": "id < 3", "b": text})), "id > 2", "id > 2 AND {}"),
    "where of Boxes": (layer(lambda text: Boxes("areas", where=text)), "id > 2", "id > 2 AND {}"),
    "where of Instances": (layer(lambda text: Instances("areas", where=text)), "id > 2", "id > 2 AND {}"),
    "where, described": (lambda db, text: laid(db).describe(db, {"a": Labels("areas", where=text)}), "id > 2", "id > 2 AND {}"),
    "order_by": (opened(lambda text: Imagery("dated", order_by=text)), "taken DESC", "taken, {}"),
    "order_by, warped": (layer(lambda text: Imagery("dated", order_by=text, resolution=1.0)), "taken DESC", "taken, {}"),
    "order_by of a query": (layer(lambda text: Imagery(RASTERS, order_by=text)), "taken DESC", "taken, {}"),
    "time of a table": (layer(lambda text: Imagery("dated", time=TimeSeries(text, steps=2))), "taken", "CASE WHEN {} THEN taken END"),
    "time of a query": (layer(lambda text: Imagery(RASTERS, time=TimeSeries(text, steps=2))), "taken", "CASE WHEN {} THEN taken END"),
}  # fmt: skip

DROP = "DROP TABLE canary"
# What is put behind a text that is right.
TAILS = [
    f"; {DROP}", f"; COMMIT; {DROP}", f";;{DROP};", f"; SET ROLE pg_monitor; {DROP}", f" -- \n; {DROP} --", f" /* /* */ */; {DROP} /*",
    f"); {DROP}; --", f")) AS u; COMMIT; {DROP}; SELECT ((1", f") AS u) AS u) AS f; {DROP}; SELECT * FROM (SELECT * FROM (SELECT * FROM (SELECT 1",
    f" AND '\\'; {DROP}; --' IS NOT NULL", f" $a$; {DROP}; $b$", f" ${DROP}$", f"\x00; {DROP}", f" /*; {DROP}", f" '; {DROP}; --", f' "; {DROP}; --',
    "\x00", " \ud800", f" {{}} %s %(x)s :x $1; {DROP}",
]  # fmt: skip
# What is put in its place.
STATEMENTS = [
    DROP, "COMMIT", "ROLLBACK", "SET transaction_read_only = off", "DELETE FROM canary RETURNING n AS geom", f"DO $$ BEGIN {DROP}; END $$",
    "CREATE TABLE stolen AS SELECT 1", "COPY canary TO STDOUT", "COPY canary FROM STDIN", "VACUUM", "CALL pg_sleep(0)", "LOCK canary", "SHOW all",
    "SELECT n AS geom INTO stolen FROM canary", "EXPLAIN ANALYZE DELETE FROM canary", "PREPARE p AS SELECT 1", "NOTIFY x", "", ";", "-- nothing",
]  # fmt: skip


def refused(db, run, text):
    with pytest.raises(PgtilesError) as caught:
        run(db, text)
    return str(caught.value)


@pytest.mark.parametrize("place", QUERIES)
class TestQueries:
    def test_the_right_text_is_right(self, db, place):
        run, text = QUERIES[place]
        run(db, f"{text} -- {DROP}; {{}} % $x$ '")
        run(db, f"{text} AND '{DROP}; {{}}%' <> $x$'; \"{DROP}$x$" if "WHERE" in text else f"{text} WHERE $$;$$ <> E'\\';'")

    def test_one_statement_and_no_more(self, db, place):
        run, text = QUERIES[place]
        for tail in TAILS:
            refused(db, run, text + tail)
        for statement in STATEMENTS:
            refused(db, run, statement)

    def test_it_may_not_change_anything(self, db, place):
        run, text = QUERIES[place]
        refused(db, run, f"WITH gone AS (DELETE FROM canary RETURNING n) {text}")
        refused(db, run, f"WITH gone AS (DELETE FROM canary RETURNING n) SELECT q.* FROM ({text}) AS q, gone")
        refused(db, run, f"SELECT q.* FROM ({text}) AS q, (UPDATE canary SET n = -n RETURNING n) AS gone")
        assert "read-only" in refused(db, run, f"SELECT q.* FROM ({text}) AS q WHERE writes()")
        assert "read-only" in refused(db, run, f"SELECT q.* FROM ({text}) AS q, (SELECT n FROM canary FOR UPDATE) AS locked")

    def test_no_way_of_running_it_is_writable(self, db, place):
        run, text = QUERIES[place]
        run(db, f"SELECT q.* FROM ({text}) AS q WHERE tries()")
        assert db.query(sql.SQL(LOCKED))[0][0] > 0, "the function was never called, so that nothing is proven"


@pytest.mark.parametrize("place", PARTS)
class TestParts:
    def test_the_right_text_is_right(self, db, place):
        run, text, _ = PARTS[place]
        run(db, f"{text} -- {DROP}; {{}} % $x$ '")

    def test_one_expression_and_no_more(self, db, place):
        run, text, _ = PARTS[place]
        for tail in TAILS:
            refused(db, run, text + tail)
        for closed in (
            f"{text}) AS place FROM dated AS s; COMMIT; {DROP}; SELECT (1",
            f"{text}) AS place FROM dated AS s) AS u) AS u) AS f; COMMIT; {DROP}; SELECT * FROM (SELECT * FROM (SELECT * FROM (SELECT (1",
        ):
            refused(db, run, closed)
        refused(db, run, f"(SELECT true FROM (DELETE FROM canary RETURNING n) AS gone) AND {text}")

    def test_it_may_not_change_anything(self, db, place):
        run, _, more = PARTS[place]
        assert "read-only" in refused(db, run, more.format("writes()"))

    def test_no_way_of_running_it_is_writable(self, db, place):
        run, _, more = PARTS[place]
        run(db, more.format("tries()"))
        assert db.query(sql.SQL(LOCKED))[0][0] > 0, "the function was never called, so that nothing is proven"
