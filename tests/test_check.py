"""The pre-flight finds what is planted, each by its name and with SQL that mends it; and nothing where nothing is wrong."""

import json
import re
import shlex
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import shapely
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask
from psycopg import sql
from psycopg.conninfo import make_conninfo
from test_cli import run

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles, Value, bake, baked
from pgtiles.errors import ConfigError, QueryError
from pgtiles.inspection.checking import check
from pgtiles.shell.reports import in_words

EXTENT = (X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0)
NEAR = "SELECT way AS geom FROM {} WHERE way && tile.geom"
COUNT = 20  # tiles


def execute(db, text):
    with db.connection() as conn:
        conn.execute(text)


def tiles_of(grid=None, within=EXTENT, count=COUNT):
    return Tiles.random(grid or Grid(srid=3857, resolution=RES, size=64, origin=(X0, Y0)), within=within, count=count, seed=1)


def copied(table, source, *more):
    """A table of the test's own, as clean as its source but for what is left out: index, statistics, constraints."""
    column = "ST_ConvexHull(rast)" if source == "scene" else "way"
    steps = {
        "index": f"CREATE INDEX ON mine.{table} USING gist ({column});",
        "constraints": f"SELECT AddRasterConstraints('mine'::name, '{table}'::name, 'rast'::name);"
        if source == "scene"
        else "",
        "analyze": f"ANALYZE mine.{table};",
    }
    return f"CREATE TABLE mine.{table} WITH (autovacuum_enabled = off) AS SELECT * FROM public.{source}; " + "".join(
        text for name, text in steps.items() if name not in more
    )


def found(report, part):
    """The one finding that says this."""
    [one] = [finding for finding in report.findings if part in finding.what]
    return one


def image(source="scene", **more):
    return {"image": Imagery(source, **more)}


def mask(source="roads", **more):
    return {"mask": Labels(source, **more)}


def test_nothing_is_found_on_a_clean_database(world):
    report = check(world.db, tiles_of(), image() | mask(buffer=6))
    assert report.findings == ()
    assert report.ok
    layer, labels = report.layers
    assert (layer.tables, layer.srid, layer.resolution, layer.path) == (("public.scene",), 3857, (RES, RES), "native")
    assert (labels.tables, labels.srid, labels.resolution, labels.path) == (("public.roads",), 3857, None, "burned")
    assert all("idx" in index for one in report.layers for index in one.indexes)
    assert layer.indexes
    assert labels.indexes
    assert report.tiles == COUNT


# What is planted, the layers, what is found, what stands in the SQL that mends it; that SQL is then run.
PLANTED = {
    "missing index": (
        copied("t", "roads", "index"), mask("mine.t"), "mine.t is read from end to end for want of an index", "CREATE INDEX ON",
    ),
    "missing index of rasters": (
        copied("s", "scene", "index"), image("mine.s"), "mine.s is read from end to end for want of an index", "ST_ConvexHull",
    ),
    "index in another SRID": (
        copied("t", "roads", "index") + "CREATE INDEX ON mine.t USING gist (ST_Transform(way, 4326))", mask("mine.t"),
        "mine.t is read from end to end for want of an index", "CREATE INDEX ON",
    ),
    "no statistics": (copied("t", "roads", "analyze"), mask("mine.t"), "mine.t was never analyzed", "ANALYZE"),
    "stale statistics": (
        copied("t", "roads") + "INSERT INTO mine.t SELECT t.* FROM mine.t, generate_series(1, 9); SELECT pg_stat_force_next_flush()",
        mask("mine.t"), "the statistics of mine.t are stale", "ANALYZE",
    ),
    "missing constraints": (
        copied("s", "scene", "constraints"), image("mine.s"), "mine.s has no raster constraints", "AddRasterConstraints",
    ),
    "mixed SRIDs of rasters": (
        copied("s", "scene", "constraints") + "INSERT INTO mine.s SELECT -rid, ST_SetSRID(rast, 32632) FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed SRIDs", "CREATE TABLE",
    ),
    "mixed SRIDs of geometries": (
        copied("t", "roads", "index") + "ALTER TABLE mine.t ALTER way TYPE geometry; CREATE INDEX ON mine.t USING gist (way);"
        "UPDATE mine.t SET way = ST_Transform(way, 4326) WHERE id % 10 = 0; ANALYZE mine.t",
        mask("mine.t"), "mine.t.way holds geometries of mixed SRIDs", "ST_Transform",
    ),
    "mixed pixel types": (
        copied("s", "scene", "constraints")
        + "INSERT INTO mine.s SELECT -rid, ST_MapAlgebra(rast, 1, '16BUI', '[rast]') FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed pixel types", "CREATE TABLE",
    ),
    "rows of another resolution": (
        copied("s", "scene", "constraints") + "INSERT INTO mine.s SELECT -rid, ST_SetScale(rast, 5, -5) FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed resolutions", "CREATE TABLE",
    ),
    "RGB beside RGBI": (
        copied("s", "scene", "constraints")
        + "INSERT INTO mine.s SELECT -rid, ST_AddBand(rast, '8BUI'::text, 1) FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed pixel types", "CREATE TABLE",
    ),
    "bands that differ beyond the first": (
        copied("s", "scene", "constraints") + "INSERT INTO mine.s SELECT -rid, ST_AddBand(ST_Band(rast, ARRAY[1, 2]), '16BUI'::text, 1)"
        " FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed pixel types", "CREATE TABLE",
    ),
    "rows that are turned": (
        copied("s", "scene", "constraints") + "INSERT INTO mine.s SELECT -rid, ST_SetSkew(rast, 0.5, 0.5) FROM mine.s LIMIT 3",
        image("mine.s"), "mine.s holds rasters of mixed resolutions", "CREATE TABLE",
    ),
    "invalid geometries": (
        copied("a", "areas")
        + f"UPDATE mine.a SET way = ST_GeomFromText('POLYGON(({X0} {Y0},{X0 + 9} {Y0 - 9},{X0 + 9} {Y0},{X0} {Y0 - 9},{X0} {Y0}))', 3857)"
        " WHERE id IN (7, 11); ANALYZE mine.a",
        mask("mine.a"), "mine.a.way holds invalid geometries", "ST_MakeValid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_and_its_sql_mends_it(schema_db, name):
    plant, layers, what, mend = PLANTED[name]
    execute(schema_db, plant)
    one = found(check(schema_db, tiles_of(), layers, count=4), what)
    assert one.layer == next(iter(layers))
    assert mend in one.mend
    execute(schema_db, one.mend)
    after = check(schema_db, tiles_of(), layers, count=4)
    assert not [finding for finding in after.findings if what in finding.what]
    assert after.layers  # which can be read now, whatever could not before


BOWTIE = f"{X0} {Y0},{X0 + 9} {Y0 - 9},{X0 + 9} {Y0},{X0} {Y0 - 9},{X0} {Y0}"
THICK = ",".join(f"{pair} 5 7" for pair in BOWTIE.split(","))
DEGREES = "9 47,9.01 47.01,9.01 47,9 47.01,9 47"


@pytest.mark.parametrize(("type_", "wkt", "after"), [
    ("geometry(Polygon, 3857)", f"POLYGON(({BOWTIE}))", "geometry(MultiPolygon,3857)"),
    ("geometry(MultiPolygon, 3857)", f"MULTIPOLYGON((({BOWTIE})))", "geometry(MultiPolygon,3857)"),
    ("geometry(PolygonZM, 3857)", f"POLYGON ZM (({THICK}))", "geometry(MultiPolygonZM,3857)"),
    ("geometry(GeometryCollection, 3857)", f"GEOMETRYCOLLECTION(POLYGON(({BOWTIE})))", "geometry(GeometryCollection,3857)"),
    ("geometry(LineString, 3857)", f"LINESTRING({X0} {Y0},{X0} {Y0})", "geometry(MultiLineString,3857)"),
    ("geometry", f"POLYGON(({BOWTIE}))", "geometry"),
    ("geography(Polygon, 4326)", f"POLYGON(({DEGREES}))", "geography(MultiPolygon,4326)"),
    ("geography", f"POLYGON(({DEGREES}))", "geography"),
])  # fmt: skip
def test_a_column_of_any_type_is_made_valid(schema_db, type_, wkt, after):
    """By the server as it judges itself; two triangles of a bow tie are two parts."""
    srid = 4326 if "geography" in type_ else 3857
    execute(schema_db, f"CREATE TABLE mine.t (id int, way {type_}); INSERT INTO mine.t VALUES (1, ST_GeomFromText('{wkt}', {srid}));"
                       "CREATE INDEX ON mine.t USING gist (way); ANALYZE mine.t")  # fmt: skip
    execute(schema_db, found(check(schema_db, tiles_of(), mask("mine.t"), count=2), "holds invalid geometries").mend)
    [(valid, parts, type_)] = ask(
        schema_db, "SELECT ST_IsValid(way::geometry), ST_NumGeometries(ST_CollectionExtract(way::geometry)), format_type(atttypid, atttypmod) "
        "FROM mine.t, pg_attribute WHERE attrelid = 'mine.t'::regclass AND attname = 'way'",
    )  # fmt: skip
    assert (valid, parts, type_) == (True, 0 if "LINE" in wkt else 2, after)


@pytest.mark.parametrize(
    ("type_", "srids"), [("geometry", (3857, 0)), ("geometry", (0, 3857, 4326)), ("geography", (4326, 4269))]
)
def test_mixed_srids_become_one(schema_db, type_, srids):
    """Also where the commonest is 0, which says nothing; each is where it was."""
    points = {3857: (X0, Y0), 0: (X0 + 5, Y0), 4326: (9, 47), 4269: (9, 47)}
    wanted = next(srid for srid in srids if srid)
    rows = [
        f"({n}, 'SRID={srid};POINT({points[srid][0]} {points[srid][1]})'::{type_})"
        for srid in srids
        for n in range({0: 3, wanted: 2}.get(srid, 1))
    ]
    execute(schema_db, f"CREATE TABLE mine.t (id int, way {type_}); INSERT INTO mine.t VALUES {', '.join(rows)};"
                       "CREATE INDEX ON mine.t USING gist (way); ANALYZE mine.t")  # fmt: skip
    one = found(check(schema_db, tiles_of(), mask("mine.t"), count=2), "holds geometries of mixed SRIDs")
    assert ("-- if those of SRID 0 lie in 3857" in one.mend) == (0 in srids)
    execute(schema_db, one.mend)
    assert ask(schema_db, "SELECT DISTINCT ST_SRID(way::geometry) FROM mine.t") == [(wanted,)]


@pytest.mark.parametrize("name", [name for name, (*_, mend) in PLANTED.items() if mend == "CREATE TABLE"])
def test_rasters_that_are_moved_apart_are_the_odd_ones_alone(schema_db, name):
    """They were given negative numbers. A table of the new one's name that is there already stays as it is."""
    plant, layers, what, _ = PLANTED[name]
    execute(schema_db, plant + "; CREATE TABLE mine.s_2 AS SELECT 1 AS kept")
    rows = {rid for (rid,) in ask(schema_db, "SELECT rid FROM mine.s")}
    execute(schema_db, found(check(schema_db, tiles_of(), layers, count=4), what).mend)
    assert {rid for (rid,) in ask(schema_db, "SELECT rid FROM mine.s")} == {rid for rid in rows if rid > 0}
    assert {rid for (rid,) in ask(schema_db, "SELECT rid FROM mine.s_3")} == {rid for rid in rows if rid < 0}
    assert ask(schema_db, "SELECT kept FROM mine.s_2") == [(1,)]


def test_invalid_geometries_are_named(schema_db):
    plant, layers, what, _ = PLANTED["invalid geometries"]
    execute(schema_db, plant + "; ALTER TABLE mine.a ADD PRIMARY KEY (id)")
    one = found(check(schema_db, tiles_of(), layers, count=4), what)
    assert {f"id = {key}" for key in (7, 11)} <= set(one.value.replace(":", ",").replace(" (", ", ").split(", "))
    assert f"2 of {ask(schema_db, 'SELECT count(*) FROM mine.a')[0][0]}" in one.value


def test_a_table_stored_south_up(schema_db):
    execute(
        schema_db,
        copied("s", "scene", "constraints") + "UPDATE mine.s SET rast = ST_SetScale(ST_SetUpperLeft(rast, ST_UpperLeftX(rast), "
        "ST_UpperLeftY(rast) + ST_Height(rast) * ST_ScaleY(rast)), 2.5, 2.5)",
    )
    report = check(schema_db, tiles_of(), image("mine.s"), count=4)
    assert "scale (2.5, 2.5)" in found(report, "mine.s is not stored north-up").value
    assert report.layers[0].path == "warped"


def test_an_index_that_a_function_hides(world):
    hidden = "SELECT way AS geom FROM roads WHERE ST_Intersects(ST_Buffer(way, 6), tile.geom)"
    one = found(check(world.db, tiles_of(), mask(hidden), count=4), "although it has an index")
    assert "must compare the bare column" in one.mend
    assert one.severity == "problem"


def test_a_query_in_the_wrong_srid(world):
    """And the layers that can be read are looked at all the same."""
    report = check(world.db, tiles_of(), image() | mask(NEAR.format("roads_4326")), count=4)
    one = found(report, "the layer can't be read")
    assert "public.roads_4326.way is in SRID 4326, the tile's envelope in 3857" in one.value
    assert "srid=4326" in one.mend
    assert [layer.layer for layer in report.layers] == ["image"]


def test_a_layer_that_ignores_where_imagery_is_missing_hides_not_that_it_cannot_be_read(schema_db):
    """The mask is looked at all the same, by itself; beside imagery that can be read, the two together."""
    execute(schema_db, PLANTED["mixed pixel types"][0])
    ignoring = mask(ignore_index=255, ignore_missing="image")
    report = check(schema_db, tiles_of(), image("mine.s", valid=True) | ignoring, count=4)
    assert found(report, "the layer can't be read").layer == "image"
    assert found(report, "mine.s holds rasters of mixed pixel types")
    assert [layer.layer for layer in report.layers] == ["mask"]
    other = {"other": Imagery("mine.s")}
    report = check(schema_db, tiles_of(), image(valid=True) | ignoring | other, count=4)
    assert [layer.layer for layer in report.layers] == ["image", "mask"]


def test_tiles_on_several_grids_are_refused_with_what_to_do(world):
    more = Tiles.random(
        Grid(srid=3857, resolution=RES, size=64, origin=(X0 + 1, Y0)), within=EXTENT, count=COUNT, seed=1, first_id=100
    )
    tiles = tiles_of() + more
    with pytest.raises(ConfigError, match=r"check each of tiles.by_grid\(\) by itself"):
        check(world.db, tiles, image())
    assert [check(world.db, part, image(), count=4).tiles for part in tiles.by_grid()] == [4, 4]


def test_a_baked_layer_has_its_table(schema_db):
    bake(schema_db, "mine.kept", tiles_of(count=4), image())
    tiles, layers = baked(schema_db, "mine.kept")
    assert [layer.tables for layer in check(schema_db, tiles, layers).layers] == [("mine.kept",)]


@pytest.mark.parametrize("east", [1e6, 1200])
def test_labels_of_another_place(schema_db, world, east):
    """Their share of the imagery is shapely's."""
    execute(
        schema_db,
        f"CREATE TABLE mine.t AS SELECT id, ST_SetSRID(ST_Translate(way, {east}, 0), 3857) AS way FROM roads; "
        "CREATE INDEX ON mine.t USING gist (way); ANALYZE mine.t",
    )
    report = check(schema_db, tiles_of(), image() | mask("mine.t"))
    ground = shapely.box(*EXTENT)
    xmin, ymin, xmax, ymax = shapely.total_bounds(world.features.lines)
    labels = shapely.box(xmin + east, ymin, xmax + east, ymax)
    share = labels.intersection(ground).area / ground.area
    if share:
        assert 0.5 < share < 0.8
        assert found(report, f"the labels reach over {share:.0%} of the imagery of layer 'image'").severity == "note"
    else:
        one = found(report, "the labels and the imagery of layer 'image' do not meet")
        assert (one.severity, one.layer) == ("problem", "mask")
        assert found(report, f"nothing is in any of these {COUNT} tiles").layer == "mask"


def test_tiles_outside_the_imagery(world):
    """As many as shapely's box says, by their ids."""
    beyond = (X0 + WIDTH * RES - 400, Y0 - 1000, X0 + WIDTH * RES + 600, Y0)
    tiles = tiles_of(within=beyond, count=50)
    report = check(world.db, tiles, image())
    outside, over = tiles.bounds[:, 0] >= EXTENT[2], (tiles.bounds[:, 2] > EXTENT[2]) & (tiles.bounds[:, 0] < EXTENT[2])
    one, other = found(report, "tiles lie outside"), found(report, "tiles stick out")
    assert one.severity, other.severity == ("problem", "note")
    assert one.value.startswith(f"{outside.sum()} of 50, such as {tiles.ids[outside][0]}")
    assert other.value.startswith(f"{over.sum()} of 50")
    assert report.layers[0].empty == outside.sum()


def test_too_many_connections(world):
    most, in_use = ask(world.db, "SELECT current_setting('max_connections')::int, count(*) FROM pg_stat_activity "
                                 "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")[0]  # fmt: skip
    assert check(world.db, tiles_of(), image(), count=4, connections=2, workers=2).ok
    report = check(world.db, tiles_of(), image(), count=4, connections=most, workers=3)
    one = found(report, "more connections than the server has left")
    assert one.value.startswith(f"{3 * most} wanted; of ")
    assert report.connections["in_use"] <= in_use + 2
    assert "max_connections = " in one.mend


@pytest.mark.parametrize("limit", ["database", "role"])
def test_each_limit_counts_its_own_connections(db, limit):
    """An ordinary user's: her rows, or those of this database, beside others that are of neither."""
    name = {"database": ask(db, "SELECT current_database()")[0][0], "role": "check_reader"}
    execute(db, "CREATE ROLE check_reader LOGIN PASSWORD 'reads'")
    execute(db, "CREATE TABLE t AS SELECT 1 AS id, ST_SetSRID(ST_Point(5, 5), 3857) AS way; GRANT SELECT ON t TO check_reader; "
                "CREATE INDEX ON t USING gist (way); ANALYZE t")  # fmt: skip
    execute(db, f'ALTER {limit} "{name[limit]}" CONNECTION LIMIT 8')
    hers = make_conninfo(db.conninfo, user="check_reader", password="reads")
    elsewhere = make_conninfo(db.conninfo, dbname="postgres")
    try:
        with ExitStack() as stack:
            reader = stack.enter_context(Database(hers))
            reader.query(sql.SQL("SELECT 1").format())
            for url in (elsewhere, elsewhere, db.conninfo, db.conninfo, hers):
                stack.enter_context(psycopg.connect(url))
            # of those that are counted there is one of hers; in the database two more, and what `db` itself holds
            counted = 1 if limit == "role" else ask(db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                                                        "AND usename <> 'check_reader' AND backend_type = 'client backend'")[0][0] + 1  # fmt: skip
            tiles = tiles_of(Grid(srid=3857, resolution=1, size=32, origin=(0, 0)), (0, -64, 64, 64), 4)
            report = check(reader, tiles, mask("t"), connections=8)
            assert (report.connections["most"], report.connections["in_use"]) == (8, counted)
            one = found(report, "more connections than the server has left")
            assert one.value == f"8 wanted; of 8 that the {limit} allows, {counted} are in use"
        execute(db, one.mend.partition("; or ")[2])
        with Database(hers) as reader:
            assert reader.query(sql.SQL("SELECT 1").format()) == [(1,)]
            after = check(reader, tiles, mask("t"), connections=8)
            assert not [finding for finding in after.findings if "more connections" in finding.what]
    finally:
        execute(db, "DROP OWNED BY check_reader; DROP ROLE check_reader")


def test_connections_of_others_are_counted_for_an_ordinary_user(db):
    execute(db, "CREATE ROLE check_counter LOGIN PASSWORD 'reads'")
    execute(db, "CREATE TABLE t AS SELECT 1 AS id, ST_SetSRID(ST_Point(5, 5), 3857) AS way; GRANT SELECT ON t TO check_counter; "
                "CREATE INDEX ON t USING gist (way); ANALYZE t")  # fmt: skip
    try:
        with ExitStack() as stack:
            reader = stack.enter_context(Database(make_conninfo(db.conninfo, user="check_counter", password="reads")))
            for _ in range(5):
                stack.enter_context(psycopg.connect(make_conninfo(db.conninfo, dbname="postgres")))
            tiles = tiles_of(Grid(srid=3857, resolution=1, size=32, origin=(0, 0)), (0, -64, 64, 64), 4)
            assert check(reader, tiles, mask("t")).connections["in_use"] >= 5
    finally:
        execute(db, "DROP OWNED BY check_counter; DROP ROLE check_counter")


def test_a_lattice_one_word_away_from_the_native_path(world):
    grid = Grid(srid=3857, resolution=RES, size=64, origin=(X0 + 1, Y0))
    one = found(check(world.db, tiles_of(grid), image(), count=4), "though SRID and resolution are the tiles' own")
    assert "Grid.like(db, 'scene')" in one.mend


def test_extensions_of_another_version(db, world):
    """As an upgrade of the packages leaves them: the catalog says the old version, and that one burns lines wrongly."""
    execute(db, "CREATE TABLE t AS SELECT 1 AS rid, ST_AddBand(ST_MakeEmptyRaster(64, 64, 0, 0, 1, -1, 0, 0, 3857), '8BUI'::text) "
                "AS rast; CREATE INDEX ON t USING gist (ST_ConvexHull(rast)); ANALYZE t; SELECT AddRasterConstraints('t'::name, 'rast'::name)")  # fmt: skip
    tiles = tiles_of(Grid(srid=3857, resolution=1, size=32, origin=(0, 0)), (0, -64, 64, 0), 4)
    assert check(db, tiles, image("t")).findings == ()
    execute(db, "UPDATE pg_extension SET extversion = '3.3.1' WHERE extname = 'postgis'")
    report = check(db, tiles, image("t"))
    assert "postgis_extensions_upgrade" in found(report, "of another version than the library").mend
    assert found(report, "burns some lines wrongly")


def test_time_goes_somewhere(world):
    """The stages add up to the rate; the bytes sent are those that psycopg counts, the pixels those that the tiles hold."""
    speed = check(world.db, tiles_of(), image() | mask(buffer=6)).speed
    assert speed.rate == pytest.approx(1000 / (speed.server + speed.wire + speed.client))
    assert speed.server > 0
    assert min(speed.wire, speed.client) >= 0
    assert speed.needed == 3 * 64 * 64 + 64 * 64
    with world.db.connection() as conn, conn.cursor() as cursor:
        plan = TileDataset(world.db, tiles_of(), image() | mask(buffer=6)).plan
        with cursor.copy(b"COPY (" + plan.statement(tiles_of()).as_bytes(conn) + b") TO STDOUT (FORMAT binary)") as rows:
            count = sum(len(row) for row in rows)
    assert speed.sent == pytest.approx(count / COUNT, rel=0.01)


def test_the_server_makes_the_rows_as_they_are_sent_where_it_can(world):
    """From PostgreSQL 17 on; the text says which it is."""
    plan = TileDataset(world.db, tiles_of(), image()).plan
    serializes = int(ask(world.db, "SELECT current_setting('server_version_num')::int")[0][0]) >= 170000
    assert ("Serialization:" in world.db.ran(plan.statement(tiles_of()))) == serializes
    speed = check(world.db, tiles_of(), image(), count=4).speed
    assert speed.serialized == serializes
    assert ("the server's output and the wire" in in_words(speed)) != serializes


def test_what_was_asked_wrongly_is_an_error(world):
    with pytest.raises(QueryError, match="syntax error"):
        check(world.db, tiles_of(), mask("SELECT way AS geom FORM roads"))


def test_a_dataset_checks_itself(world):
    dataset = TileDataset(
        world.db, tiles_of(), image() | {"n": Value("SELECT count(*) AS value FROM roads WHERE way && tile.geom")}
    )
    report = dataset.check(num_workers=4)
    assert report.connections["wanted"] == 8
    assert report.findings == ()


class TestCommand:
    def test_a_clean_database_is_exit_code_0(self, world):
        done = run(
            "check", "--image", "scene", "--labels", "roads", "--buffer", 6, "--size", 64, "--count", 16, "--url", world.url
        )
        assert "nothing is wrong" in done.stdout
        assert " tiles/s on one connection" in done.stdout

    def test_a_problem_is_exit_code_1_and_its_sql_a_line(self, schema_db):
        execute(schema_db, copied("t", "roads", "index"))
        done = run(
            "check", "--image", "scene", "--labels", "mine.t", "--size", 64, "--count", 16, "--url", schema_db.conninfo, code=1
        )
        assert '\n    CREATE INDEX ON "mine"."t" USING gist ("way"); ANALYZE "mine"."t";\n' in done.stdout

    def test_tables_over_which_no_tiles_can_be_laid_are_looked_at(self, schema_db):
        plant, _, what, _ = PLANTED["mixed SRIDs of rasters"]
        execute(schema_db, plant)
        done = run("check", "--image", "mine.s", "--labels", "roads", "--size", 64, "--url", schema_db.conninfo, code=1)
        assert what in done.stdout

    def test_json(self, schema_db):
        execute(schema_db, copied("t", "roads", "analyze"))
        options = (
            "--image",
            "scene",
            "--labels",
            "mine.t",
            "--size",
            64,
            "--count",
            16,
            "--connections",
            3,
            "--workers",
            2,
            "--json",
        )
        said = json.loads(run("check", *options, "--url", schema_db.conninfo).stdout)
        assert said["ok"] is True
        assert [one["severity"] for one in said["findings"]] == ["note"]
        assert set(said["findings"][0]) == {"severity", "layer", "what", "value", "mend"}
        assert said["connections"]["wanted"] == 6
        assert said["speed"]["rate"] > 0

    @pytest.mark.parametrize("more", [(), ("--json",)])
    def test_what_cannot_be_checked_is_exit_code_2(self, world, more):
        done = run("check", "--image", "no_such_table", "--url", world.url, *more, code=2)
        assert "there is no table 'no_such_table'" in done.stderr
        if more:
            said = json.loads(done.stdout)
            assert said["ok"] is False
            assert "there is no table 'no_such_table'" in said["error"]

    def test_bench(self, world):
        options = ("--image", "scene", "--labels", "roads", "--size", 64, "--count", 96, "--rounds", 1, "--json")
        said = json.loads(run("bench", *options, "--url", world.url).stdout)
        assert [(one["connections"], one["workers"]) for one in said["rates"]] == [(c, w) for w in (0, 2) for c in (1, 2, 3)]
        assert all(one["tiles"] > 0 and one["copy"] > 0 for one in said["rates"])
        rates = {one["connections"]: one["tiles"] for one in said["rates"] if one["workers"] == 0}
        assert rates[said["connections"]] > 0.9 * max(rates.values())
        assert said["stages"]["needed"] == 4 * 64 * 64
        assert said["stages"]["sent"] > 0
        shares = {(one["connections"], one["workers"]): one["copy"] for one in said["rates"]}
        assert shares[2, 0] == shares[1, 2]  # two connections in all, both times

    def test_bench_of_too_few_tiles_says_how_many(self, world):
        done = run("bench", "--image", "scene", "--size", 64, "--count", 80, "--url", world.url, code=1)
        assert "80 tiles are 5 batches of 16, fewer than the 6 connections that are tried" in done.stderr
        assert "96 tiles at least (--count)" in done.stderr


def test_the_page_runs(world, tmp_path, monkeypatch):
    """Every block of docs/check.md."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PGTILES_URL", world.url)
    names = {}
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (Path(__file__).parents[1] / "docs" / "check.md").read_text(), re.M | re.S)
    for kind, code in found:
        if kind == "python":
            exec(compile(code, "docs/check.md", "exec"), names)
        else:
            run(*shlex.split(code.strip())[1:], PGTILES_URL=world.url)
    assert {kind for kind, _ in found} == {"python", "sh"}
    assert names["report"].ok
    assert (tmp_path / "tile.png").stat().st_size > 1000
