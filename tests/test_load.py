"""What all loads promise: all or nothing, nothing of others' lost, any name a table may have. Rasters stand for both."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import numpy as np
import psycopg
import pytest
import rasterio
from affine import Affine
from psycopg import sql

from pgtiles import load
from pgtiles.errors import ConfigError, LoadError, MissingError

PLACE = {"transform": Affine(2.5, 0, 1_050_000, 0, -2.5, 5_985_000), "crs": "EPSG:3857"}
BLOCKS = 15  # of the file `tif`


@pytest.fixture
def tif(tmp_path):
    """600 × 300 pixels: 5 × 3 blocks."""
    pixels = np.random.default_rng(1).integers(1, 255, (1, 300, 600), dtype="uint8")
    with rasterio.open(
        tmp_path / "one.tif", "w", driver="GTiff", width=600, height=300, count=1, dtype="uint8", **PLACE
    ) as file:
        file.write(pixels)
    return tmp_path / "one.tif"


@pytest.fixture
def points(tmp_path):
    features = [
        {"type": "Feature", "properties": {"n": n}, "geometry": {"type": "Point", "coordinates": [n, n]}} for n in range(9)
    ]
    (tmp_path / "points.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return tmp_path / "points.geojson"


def ask(db, statement, *values):
    with db.connection() as conn:
        cursor = conn.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []


def tables(db):
    """Everything that a load could have left behind."""
    return {
        name
        for (name,) in ask(
            db,
            "SELECT relname::text FROM pg_class WHERE relnamespace NOT IN "
            "('pg_catalog'::regnamespace, 'information_schema'::regnamespace, 'pg_toast'::regnamespace)",
        )
    }


def rows(db, table="s2"):
    return ask(db, f"SELECT count(*) FROM {table}")[0][0]


@pytest.fixture
def kept(db):
    """A table that is there before, and the proof that nothing was changed."""
    ask(db, "CREATE TABLE s2 (old int)")
    ask(db, "INSERT INTO s2 SELECT generate_series(1, 7)")
    before = tables(db)
    yield "s2"
    assert tables(db) == before
    assert ask(db, "SELECT sum(old) FROM s2") == [(28,)]


# All or nothing


class StopHereError(Exception):
    pass


def test_an_error_in_mid_load_leaves_what_was(db, tif, kept):
    def progress(done, total):
        assert total == BLOCKS
        if done == 10:
            raise StopHereError

    with pytest.raises(StopHereError):
        load.raster(db, tif, kept, replace=True, progress=progress)
    before = tables(db)
    with pytest.raises(StopHereError):
        load.raster(db, tif, "another", progress=progress)
    assert tables(db) == before


def test_a_backend_that_is_ended_in_mid_load_leaves_what_was(db, tif, kept, database_url):
    def progress(done, total):
        if done == 10:
            with psycopg.connect(database_url, autocommit=True) as other:
                ended = other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND query LIKE 'COPY%'"
                ).fetchall()
                assert ended == [(True,)]

    with pytest.raises(LoadError, match=r"one\.tif was not loaded into s2 of .*the database is as it was before"):
        load.raster(db, tif, kept, replace=True, progress=progress)


@pytest.mark.parametrize("kind", ["raster", "vector"])
def test_a_loader_that_is_killed_leaves_what_was(db, tif, points, kept, database_url, kind):
    file = tif if kind == "raster" else points
    code = (
        "import sys, time, pgtiles\n"
        "def progress(done, total):\n"
        "    if done == 5: print('half', flush=True); time.sleep(60)\n"
        f"pgtiles.load.{kind}(pgtiles.Database(sys.argv[1]), sys.argv[2], 's2', replace=True, progress=progress)"
    )
    command = [sys.executable, "-c", code, database_url, str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    ) as process:
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while ask(db, "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"):
        assert time.monotonic() < deadline, "the server has not noticed"
        time.sleep(0.05)


def test_a_full_disk_leaves_what_was_and_says_so(db, tif):
    ask(
        db,
        "CREATE FUNCTION full_disk() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
    )
    before = tables(db)
    ask(db, "CREATE EVENT TRIGGER full_disk ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION full_disk()")
    with pytest.raises(LoadError, match=r"one\.tif was not loaded .*No space left on device; make room on the server's disk"):
        load.raster(db, tif, "s2")
    assert tables(db) == before


def test_the_old_table_is_read_until_the_new_one_takes_its_place(db, tif, database_url):
    load.raster(db, tif, "s2")
    seen = []

    def progress(done, total):
        with psycopg.connect(database_url, options="-c lock_timeout=1s") as other:
            seen.append(other.execute("SELECT count(*) FROM s2").fetchone()[0])

    load.raster(db, tif, "s2", replace=True, block=256, progress=progress)
    assert set(seen) == {BLOCKS}
    assert rows(db) == 6


def test_the_pool_is_fine_after_a_failed_load(db, tif):
    with pytest.raises(ConfigError):
        load.raster(db, tif, "s2", srid=999_998)
    assert load.raster(db, tif, "s2").rows == BLOCKS


# What is there already


def test_a_table_that_is_there_is_refused_unless_told_to_replace_it(db, tif, kept):
    with pytest.raises(LoadError, match=r"public\.s2 is there already; replace=True"):
        load.raster(db, tif, kept)


@pytest.mark.parametrize(
    "made", ["CREATE VIEW s2 AS SELECT 1", "CREATE SEQUENCE s2", "CREATE MATERIALIZED VIEW s2 AS SELECT 1"]
)
def test_what_is_no_table_is_never_replaced(db, tif, made):
    ask(db, made)
    with pytest.raises(LoadError, match=r"public\.s2 is there already, and no table"):
        load.raster(db, tif, "s2", replace=True)


def test_what_depends_on_the_old_table_is_named_at_once_and_kept(db, tif, kept):
    ask(db, "CREATE VIEW used AS SELECT old FROM s2")
    progress = []
    with pytest.raises(LoadError, match=r"view used depends on table s2; drop what depends on it first"):
        load.raster(db, tif, kept, replace=True, progress=lambda *args: progress.append(args))
    assert not progress, "it is said before the load, not after it"
    assert ask(db, "SELECT count(*) FROM used") == [(7,)]
    ask(db, "DROP VIEW used")


def test_a_replaced_table_leaves_nothing_of_the_old_one(db, tif):
    first = load.raster(db, tif, "s2")
    before = tables(db)
    second = load.raster(db, tif, "s2", replace=True)
    assert tables(db) == before
    assert second == first
    assert (first.table, first.rows, first.srid, first.notes) == ("public.s2", BLOCKS, 3857, ())
    assert first.bytes == ask(db, "SELECT pg_total_relation_size('s2')")[0][0] > 600 * 300


def test_who_could_read_the_old_table_can_read_the_new_one(db, tif):
    role = f'reader "{uuid.uuid4().hex}'
    reader = sql.Identifier(role)
    load.raster(db, tif, "s2")
    ask(db, sql.SQL("CREATE ROLE {}").format(reader))
    try:
        ask(db, sql.SQL("GRANT SELECT ON s2 TO {}, PUBLIC").format(reader))
        ask(db, sql.SQL("GRANT UPDATE ON s2 TO {} WITH GRANT OPTION").format(reader))
        before = ask(db, "SELECT relacl::text FROM pg_class WHERE oid = 's2'::regclass")
        load.raster(db, tif, "s2", replace=True)
        assert sorted(ask(db, "SELECT relacl::text FROM pg_class WHERE oid = 's2'::regclass")) == before
    finally:
        ask(db, sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(reader))


def test_without_postgis_the_error_says_so(db, tif, points):
    ask(db, "DROP EXTENSION postgis_raster")
    for kind, file in (("raster", tif), ("vector", points)):
        with pytest.raises(MissingError, match="CREATE EXTENSION postgis_raster"):
            getattr(load, kind)(db, file, "s2")


@pytest.mark.parametrize(("kind", "needs"), [("raster", "rasterio"), ("vector", "pyogrio")])
def test_without_the_reader_the_error_names_the_extra(tif, points, kind, needs):
    file = tif if kind == "raster" else points
    code = (
        f"import sys; sys.modules[{needs!r}] = None\n"
        "from pgtiles import load, errors\n"
        f"try: load.{kind}(None, sys.argv[1], 'x')\n"
        "except errors.DependencyError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(file)]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)}
    )
    assert f"needs {needs}" in said.stdout
    assert "pip install 'pgtiles[load]'" in said.stdout


# Names

HOSTILE = [
    'x"; DROP TABLE canary; --',
    "x'; DROP TABLE canary; --",
    "100%s %(a)s {table} {0}",
    "Straße 图块 🗺",
    "\\",
    "select",
    " ",
    "é" * 31,
]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["raster", "vector"])
def test_hostile_names_are_names(db, tif, points, kind, name):
    ask(db, "CREATE TABLE canary (alive bool)")
    ask(db, sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    for _ in range(2):
        loaded = getattr(load, kind)(db, tif if kind == "raster" else points, f"{quoted(name)}.{quoted(name)}", replace=True)
        assert loaded.rows == (BLOCKS if kind == "raster" else 9)
        assert not loaded.notes
    assert ask(db, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name, name))) == [(loaded.rows,)]
    assert db.table(loaded.table).name == name, "what is returned can be used as it is"
    assert ask(db, "SELECT count(*) FROM canary") == [(0,)]


def test_names_fold_as_in_sql(db, tif):
    ask(db, 'CREATE SCHEMA "Sat"')
    assert load.raster(db, tif, "S2").table == "public.s2"
    assert load.raster(db, tif, '"S2"').table == 'public."S2"'
    assert load.raster(db, tif, '"Sat".S2').table == '"Sat".s2'
    assert load.raster(db, tif, '"Sat"."S2"').table == '"Sat"."S2"'


@pytest.mark.parametrize("name", ["", "a b", "a.b.c", '"a', "a;b", "1a", "a.", "s2; DROP TABLE canary", "(SELECT 1)"])
def test_what_is_no_name_is_refused(db, tif, name):
    before = tables(db)
    with pytest.raises(ConfigError, match="is no table name"):
        load.raster(db, tif, name)
    assert tables(db) == before


def test_a_name_that_is_too_long_is_refused(db, tif):
    with pytest.raises(ConfigError, match="of 64 bytes: PostgreSQL allows 63"):
        load.raster(db, tif, "é" * 32)
    assert load.raster(db, tif, "é" * 31 + "x").rows == BLOCKS


def test_a_schema_that_is_not_there_is_not_made(db, tif):
    with pytest.raises(MissingError, match='make it with: CREATE SCHEMA "sat"'):
        load.raster(db, tif, "sat.s2")
    ask(db, "SET search_path = nowhere")  # stays so in the one connection of this pool
    with pytest.raises(MissingError, match="no schema of the search_path is"):
        load.raster(db, tif, "s2")


def test_a_table_without_a_schema_goes_where_the_search_path_says(db, tif):
    ask(db, "CREATE SCHEMA mine")
    ask(db, "CREATE TABLE s2 (old int)")
    ask(db, "SET search_path = mine, public")  # stays so in the one connection of this pool
    assert load.raster(db, tif, "s2", replace=True).table == "mine.s2"
    assert ask(db, "SELECT count(*) FROM public.s2") == [(0,)]


def test_without_the_right_to_make_tables_the_error_says_which_to_grant(db, tif, database_url):
    role = f"nobody_{uuid.uuid4().hex}"
    ask(db, f"CREATE ROLE {role}")
    try:
        with db.connection() as conn:
            conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            conn.execute(f"SET SESSION AUTHORIZATION {role}")
        with pytest.raises(LoadError, match=r"permission denied for schema public; have the owner GRANT CREATE ON SCHEMA"):
            load.raster(db, tif, "s2")
    finally:
        db.close()
        ask(db, f"DROP ROLE {role}")


def test_a_coordinate_system_that_the_database_lacks_needs_an_srid(db, tif):
    ask(db, "DELETE FROM spatial_ref_sys WHERE srid = 3857")
    with pytest.raises(LoadError, match="EPSG:3857, which is not in the database's spatial_ref_sys"):
        load.raster(db, tif, "s2")
    for srid in (3857, 0, -1, 999_998):
        with pytest.raises(ConfigError, match=f"srid={srid} is not in the database's spatial_ref_sys"):
            load.raster(db, tif, "s2", srid=srid)


def test_a_server_that_is_not_there_is_a_database_error(tif):
    from pgtiles import Database
    from pgtiles.errors import DatabaseError

    with pytest.raises(DatabaseError, match=r"is the server up"):
        load.raster(Database("postgresql://postgres@127.0.0.1:1/x"), tif, "s2")


def test_who_could_read_a_column_or_owned_the_table_still_can(db, tif):
    """Replaced by another user than its owner: rights to columns, and the owner's own, go over to the new table."""
    load.raster(db, tif, "s2")
    with db.connection() as conn:
        me = conn.info.user
        for role in ("pgtiles_owner", "pgtiles_reader"):
            conn.execute(f"DROP ROLE IF EXISTS {role}".encode())
            conn.execute(f"CREATE ROLE {role}".encode())
        conn.execute("ALTER TABLE s2 OWNER TO pgtiles_owner")
        conn.execute("GRANT SELECT (rid, rast) ON s2 TO pgtiles_reader")
        conn.execute("ALTER TABLE s2 ADD COLUMN note text")
        conn.execute("GRANT SELECT (note) ON s2 TO pgtiles_reader")
    may = (
        "SELECT has_column_privilege('pgtiles_reader', 's2', 'rast', 'SELECT'), has_column_privilege('pgtiles_reader', 's2', "
        "'filename', 'SELECT'), has_table_privilege('pgtiles_owner', 's2', 'SELECT, INSERT'), relowner::regrole::text FROM pg_class "
        "WHERE oid = 's2'::regclass"
    )
    try:
        assert ask(db, may) == [(True, False, True, "pgtiles_owner")]
        load.raster(db, tif, "s2", replace=True)
        assert ask(db, may) == [(True, False, True, me)]
    finally:
        with db.connection() as conn:
            for role in ("pgtiles_owner", "pgtiles_reader"):
                conn.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())
