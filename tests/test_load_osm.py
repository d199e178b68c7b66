"""OpenStreetMap through the real osm2pgsql: what is in the file, all of it or nothing, and tables that can be updated."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pyogrio.raw
import pytest
import shapely
from conftest import ask
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from rasterio.warp import transform

from pgtiles import Database, load, samples
from pgtiles.errors import ConfigError, DatabaseError, DependencyError, LoadError, MissingError

TABLES = [f"planet_osm_{kind}" for kind in ("point", "line", "polygon", "roads")]
MIDDLE = [f"planet_osm_{kind}" for kind in ("nodes", "ways", "rels")]
REAL = shutil.which("osm2pgsql")


@pytest.fixture(scope="module")
def pbf():
    return samples.helsinki()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A crossing, a house and a tree: something for each table."""
    nodes = [f'<node id="{n}" version="1" lat="{60 + n / 9999}" lon="{25 + n % 3 / 9999}"/>' for n in range(1, 6)]
    nodes.append('<node id="6" version="1" lat="60" lon="25"><tag k="natural" v="tree"/></node>')
    ways = [((1, 2, 3), "highway", "primary"), ((2, 4), "highway", "primary"), ((3, 4, 5, 3), "building", "yes")]
    for number, (of, key, value) in enumerate(ways, 1):
        references = "".join(f'<nd ref="{n}"/>' for n in of)
        nodes.append(f'<way id="{number}" version="1">{references}<tag k="{key}" v="{value}"/></way>')
    file = tmp_path_factory.mktemp("small") / "small.osm"
    file.write_text(f'<?xml version="1.0"?><osm version="0.6">{"".join(nodes)}</osm>')
    return file


@pytest.fixture
def wrapped(tmp_path, monkeypatch):
    """osm2pgsql on PATH writes down its process, arguments and password before it becomes the real one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = f"""#!/bin/sh
printf %s $$ > {folder}/pid
printf '%s\\n' "$@" > {folder}/arguments
printf %s "$PGPASSWORD" > {folder}/password
exec {REAL} "$@"
"""
    (folder / "osm2pgsql").write_text(script)
    (folder / "osm2pgsql").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def role(db, database_url):
    """A user who may do nothing yet, and her URL."""
    name = f"mapper_{uuid.uuid4().hex[:12]}"
    ask_(db, f"CREATE ROLE {name} LOGIN PASSWORD 'secret-of-hers'")
    known = conninfo_to_dict(database_url)
    yield name, f"postgresql://{name}:secret-of-hers@{known['host']}:{known['port']}/{known['dbname']}"
    db.close()
    ask_(db, sql.SQL("DROP OWNED BY {0} CASCADE; DROP ROLE {0}").format(sql.Identifier(name)))


def ask_(db, statement):
    with db.connection() as conn:
        conn.execute(statement)


def everything(db):
    """All that a load could leave behind or take away: schemas, relations, functions, extensions."""
    return set(
        ask(
            db,
            """SELECT 'schema', nspname::text FROM pg_namespace WHERE nspname !~ '^pg_'
            UNION ALL SELECT nspname::text, relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                      WHERE nspname NOT IN ('pg_catalog', 'pg_toast')
            UNION ALL SELECT nspname::text, proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                      WHERE nspname <> 'pg_catalog'
            UNION ALL SELECT 'extension', extname::text FROM pg_extension""",
        )
    )


@pytest.fixture
def kept(db):
    """A table of that name which was there before, and the proof that nothing was changed."""
    ask_(db, "CREATE TABLE planet_osm_line AS SELECT generate_series(1, 7) AS old")
    before = everything(db)
    yield
    assert everything(db) == before
    assert ask(db, "SELECT sum(old) FROM planet_osm_line") == [(28,)]


def of_file(file, layer, where, columns):
    """A layer's columns and geometries as GDAL reads the file."""
    _, _, shapes, values = pyogrio.raw.read(file, layer=layer, where=where, columns=columns)
    return dict(zip(map(int, values[0]), zip(shapely.from_wkb(shapes), *values[1:], strict=True), strict=True))


# What is in the file


@pytest.mark.parametrize(("layer", "table"), [("points", "planet_osm_point"), ("lines", "planet_osm_line")])
def test_the_tables_have_the_objects_that_gdal_finds_in_the_file(helsinki, layer, table):
    expected = of_file(helsinki.file, layer, "highway IS NOT NULL", ["osm_id", "highway"])
    found = ask(helsinki.db, f"SELECT osm_id, highway FROM {table} WHERE highway IS NOT NULL ORDER BY 1")
    assert len(expected) > 1000
    assert found == sorted((key, highway) for key, (_, highway) in expected.items())


def test_lanes_are_in_tags(helsinki):
    expected = of_file(
        helsinki.file, "lines", "highway IS NOT NULL AND other_tags LIKE '%\"lanes\"%'", ["osm_id", "other_tags"]
    )
    found = ask(helsinki.db, "SELECT osm_id, tags->'lanes' FROM planet_osm_line WHERE highway <> '' AND tags ? 'lanes'")
    assert len(found) == len(expected) > 500
    assert all(f'"lanes"=>"{lanes}"' in expected[key][1] for key, lanes in found)


def test_reading_finds_an_index_and_statistics(helsinki):
    for table in TABLES:
        known = ask(helsinki.db, f"SELECT indexdef FROM pg_indexes WHERE tablename = '{table}' AND schemaname = 'public'")
        assert any("USING gist (way)" in text for (text,) in known)
        assert ask(helsinki.db, f"SELECT count(*) FROM pg_stats WHERE tablename = '{table}' AND attname = 'way'") == [(1,)]


@pytest.mark.parametrize("srid", [4326, 25835])
def test_coordinates_are_transformed_into_the_srid(db, pbf, srid):
    loaded = load.osm(db, pbf, srid=srid)
    assert [(one.table, one.srid) for one in loaded] == [(f"public.{name}", srid) for name in TABLES]
    assert [one.rows for one in loaded] == [ask(db, f"SELECT count(*) FROM {name}")[0][0] for name in TABLES]
    assert all(one.bytes > 100_000 for one in loaded)
    assert not any(one.notes for one in loaded)
    expected = of_file(pbf, "points", "highway IS NOT NULL", ["osm_id"])
    for key, x, y, its in ask(
        db, "SELECT osm_id, ST_X(way), ST_Y(way), ST_SRID(way) FROM planet_osm_point WHERE highway <> ''"
    ):
        (east,), (north,) = transform("EPSG:4326", f"EPSG:{srid}", [expected[key][0].x], [expected[key][0].y])
        assert its == srid
        assert (x, y) == pytest.approx((east, north), abs=1e-7 if srid == 4326 else 0.01)


def test_a_file_without_ways_is_noted(db, tmp_path):
    file = tmp_path / "points.osm"
    node = '<node id="1" version="1" lat="60" lon="25"><tag k="natural" v="tree"/></node>'
    file.write_text(f'<?xml version="1.0"?><osm version="0.6">{node}</osm>')
    loaded = load.osm(db, file)
    assert [one.rows for one in loaded] == [1, 0, 0, 0]
    assert [len(one.notes) for one in loaded] == [0, 1, 1, 1]
    assert loaded[1].notes[0] == f"{file} has no lines: public.planet_osm_line is empty"


def test_progress_tells_what_is_being_done(db, pbf):
    said = []
    load.osm(db, pbf, progress=said.append)
    assert any(text.startswith("Processed 24260 nodes") for text in said)
    assert any(text.startswith("Clustering table 'planet_osm_line'") for text in said)


# Where it goes


def test_any_schema_and_most_prefixes(db, small):
    ask_(db, 'CREATE SCHEMA "Its; ""own"')
    loaded = load.osm(db, small, prefix="My Ösm-2", schema='Its; "own')
    assert loaded[1].table == '"Its; ""own"."My Ösm-2_line"'
    assert ask(db, f"SELECT count(*) FROM {loaded[1].table}") == [(loaded[1].rows,)]
    assert not {("public", name) for name in TABLES} & everything(db)


def test_a_prefix_that_osm2pgsql_refuses_is_refused_before(kept, db, small):
    for prefix in ('"; DROP TABLE x; --', "", "a.b", "a'b", "-x", "x" * 40, "é" * 20, "a\nb", "a{b}", "%s", "a\0"):
        with pytest.raises(ConfigError, match="prefix="):
            load.osm(db, small, prefix=prefix)


def test_what_later_updates_could_not_name_is_refused(db, small):
    ask_(db, 'CREATE SCHEMA "a.b"')
    with pytest.raises(ConfigError, match=r"schema='a\.b' is not allowed"):
        load.osm(db, small, schema="a.b", slim=True)


def test_a_schema_that_is_not_there(kept, db, small):
    with pytest.raises(MissingError, match='CREATE SCHEMA "no such"'):
        load.osm(db, small, schema="no such")


def test_an_srid_that_the_database_lacks(kept, db, small):
    for srid in (0, -1, 999_998):
        with pytest.raises(ConfigError, match=f"srid={srid} is not in the database's spatial_ref_sys"):
            load.osm(db, small, srid=srid, replace=True)


def test_an_srid_that_is_no_epsg_code(kept, db, small):
    with pytest.raises(LoadError, match=r"osm2pgsql says: Invalid projection .*PROJ must know.*as it was before"):
        load.osm(db, small, srid=102003, replace=True)  # ESRI's, and in spatial_ref_sys


def test_the_first_schema_of_the_search_path_is_taken(db, database_url, small):
    ask_(db, "CREATE SCHEMA mine")
    with Database(f"{database_url}?options=-csearch_path%3Dmine%2Cpublic") as other:
        assert load.osm(other, small)[0].table == "mine.planet_osm_point"
    assert ("public", "hstore_to_json") in everything(db), (
        "the extension is beside PostGIS: to drop mine is to drop the map only"
    )


# Updates


def test_slim_tables_can_be_updated_by_the_command_in_the_note(db, database_url, pbf, tmp_path):
    ask_(db, 'CREATE SCHEMA "the Map"')
    loaded = load.osm(db, pbf, prefix="Osm", schema="the Map", srid=25835, slim=True)
    assert {("the Map", f"Osm_{kind}") for kind in ("nodes", "ways", "rels")} <= everything(db)
    way, name, nodes = ask(db, """SELECT osm_id, l.name, nodes FROM "the Map"."Osm_line" AS l JOIN "the Map"."Osm_ways" AS w
                                  ON w.id = osm_id WHERE highway = 'residential' AND name <> '' ORDER BY osm_id LIMIT 1""")[0]  # fmt: skip
    assert name != "Renamed Street"
    before = ask(db, 'SELECT count(*), ST_Length(ST_Collect(way)) FROM "the Map"."Osm_line"')
    references = "".join(f'<nd ref="{node}"/>' for node in nodes)
    tags = '<tag k="highway" v="residential"/><tag k="name" v="Renamed Street"/><tag k="lanes" v="7"/>'
    change = tmp_path / "changes of today.osc"
    change.write_text(
        '<?xml version="1.0"?><osmChange version="0.6"><create><node id="99999999999" version="1" lat="60.17" lon="24.94">'
        f'<tag k="natural" v="tree"/></node></create><modify><way id="{way}" version="99">{references}{tags}</way></modify></osmChange>'
    )
    (note,) = loaded[3].notes
    command = shlex.split(note.removeprefix("to update the tables: "))
    assert (command[0], command[-2:]) == ("osm2pgsql", ["--database=…", "CHANGES.osc.gz"])
    for _ in range(2):  # again and again
        done = subprocess.run(
            [*command[:-2], f"--database={database_url}", str(change)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    found = ask(db, f'SELECT name, tags->\'lanes\', ST_SRID(way) FROM "the Map"."Osm_line" WHERE osm_id = {way}')
    assert found == [("Renamed Street", "7", 25835)]
    assert ask(db, 'SELECT count(*), ST_Length(ST_Collect(way)) FROM "the Map"."Osm_line"') == before
    assert ask(db, 'SELECT "natural" FROM "the Map"."Osm_point" WHERE osm_id = 99999999999') == [("tree",)]


def test_a_schema_has_room_for_one_load_that_can_be_updated(db, small):
    ask_(db, "CREATE TABLE osm2pgsql_properties AS VALUES ('prefix', 'theirs'), ('output', 'flex')")
    ask_(db, "ALTER TABLE osm2pgsql_properties RENAME column1 TO property")
    ask_(db, "ALTER TABLE osm2pgsql_properties RENAME column2 TO value")
    before = everything(db)
    for prefix, slim in (("planet_osm", True), ("theirs", False)):
        with pytest.raises(LoadError, match=r"schema public has another load .*\(prefix 'theirs', output 'flex'\).*--schema"):
            load.osm(db, small, prefix=prefix, slim=slim, replace=True)
    assert everything(db) == before
    load.osm(db, small)
    assert ask(db, "SELECT value FROM osm2pgsql_properties ORDER BY 1") == [("flex",), ("theirs",)]


# All or nothing


def test_tables_that_are_there_are_replaced_only_if_that_is_said(kept, db, small, wrapped):
    with pytest.raises(LoadError, match=r"public.planet_osm_line is there already; replace=True \(--replace\) drops it"):
        load.osm(db, small)
    assert not (wrapped / "pid").exists(), "it was known before anything ran"


def test_what_can_not_be_dropped_is_known_before_anything_runs(db, small, wrapped):
    ask_(db, "CREATE TABLE planet_osm_roads AS SELECT 1 AS old")
    ask_(db, "CREATE VIEW looks AS SELECT * FROM planet_osm_roads")
    with pytest.raises(LoadError, match=r"cannot drop table planet_osm_roads .* depends on .* as it was before"):
        load.osm(db, small, replace=True)
    assert ask(db, "SELECT * FROM looks") == [(1,)]
    ask_(db, "DROP VIEW looks; DROP TABLE planet_osm_roads; CREATE VIEW planet_osm_roads AS SELECT 2 AS old")
    with pytest.raises(LoadError, match=r"planet_osm_roads is there already, and no table"):
        load.osm(db, small, replace=True)
    assert not (wrapped / "pid").exists()


def test_replacing_keeps_grants_and_lets_others_read_meanwhile(db, small, role, database_url):
    load.osm(db, small, slim=True)
    full = everything(db)
    ask_(db, "DELETE FROM planet_osm_line WHERE osm_id = 1")
    ask_(db, f"GRANT SELECT ON planet_osm_line TO {role[0]}, PUBLIC; GRANT SELECT ON planet_osm_ways TO {role[0]}")
    grants = (
        "SELECT relname::text, relacl::text FROM pg_class WHERE relname IN ('planet_osm_line', 'planet_osm_ways') ORDER BY 1"
    )
    before, rows, read = ask(db, grants), ask(db, "SELECT count(*) FROM planet_osm_line"), []
    with Database(database_url) as other:
        load.osm(
            db,
            small,
            slim=True,
            replace=True,
            progress=lambda _: read.append(ask(other, "SELECT count(*) FROM planet_osm_line")),
        )
    assert len(read) > 10
    assert all(there == rows for there in read)
    assert ask(db, grants) == before
    assert everything(db) == full, "functions and indexes have the names they had"
    assert ask(db, "SELECT count(*) FROM planet_osm_line") > rows
    load.osm(db, small, replace=True)
    assert {name for schema, name in full - everything(db) if name in MIDDLE} == set(MIDDLE)
    assert not {name for _, name in everything(db) if "osm2pgsql" in name or "index_bucket" in name}


def test_what_an_earlier_map_left_is_in_nobodys_way_or_known_before(db, small):
    load.osm(db, small, slim=True)
    for name in (*TABLES, *MIDDLE):  # its indexes keep their names, its functions live on
        ask_(db, f"ALTER TABLE {name} RENAME TO {name}_2019")
    with pytest.raises(LoadError, match=r"cannot drop function planet_osm_\w+\(.*depends on .* as it was before"):
        load.osm(db, small)
    ask_(db, "DROP TABLE planet_osm_ways_2019, planet_osm_rels_2019")
    for name in TABLES:
        ask_(db, f"DROP TRIGGER {name}_osm2pgsql_valid ON {name}_2019")
    load.osm(db, small)
    assert ask(db, "SELECT count(*) FROM planet_osm_line") == ask(db, "SELECT count(*) FROM planet_osm_line_2019")
    assert db.table("planet_osm_line").indexes == ("way",)


def broken_files(folder):
    pbf = samples.helsinki().read_bytes()
    for name, data, said in (
        ("half.osm.pbf", pbf[: len(pbf) // 2], "PBF error: unexpected EOF; is it whole"),
        ("noise.osm.pbf", os.urandom(5000), "PBF error"),
        ("page.osm", b"<html>not found</html>", "Unknown top-level element: html; is it whole"),
        ("map.dat", pbf, r"Cannot detect file format.*its name says its format"),
        ("cut.osm", b'<?xml version="1.0"?><osm version="0.6"><node id="1" ', "XML parsing error.*is it whole"),
    ):
        (folder / name).write_bytes(data)
        yield folder / name, said


def test_a_broken_file_is_one_message(kept, db, tmp_path):
    for file, said in broken_files(tmp_path):
        expected = rf"{file.name} was not loaded into .*: osm2pgsql says: .*{said}.*as it was before$"
        with pytest.raises(LoadError, match=expected) as caught:
            load.osm(db, file, replace=True)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_an_empty_file_and_none(kept, db, tmp_path):
    (tmp_path / "empty.osm.small").write_bytes(b"")
    with pytest.raises(LoadError, match=r"empty.osm.small is empty \(0 bytes\)"):
        load.osm(db, tmp_path / "empty.osm.small", replace=True)
    for path in (tmp_path / "none.osm.small", tmp_path, "https://example.org/x.osm.small"):
        with pytest.raises(MissingError, match="there is no file"):
            load.osm(db, path, replace=True)


def killed(wrapped, how):
    """A listener that strikes in mid-load."""

    def listen(text):
        if text.startswith("Setting up table 'planet_osm_roads'"):
            how(int((wrapped / "pid").read_text()))

    return listen


def test_a_killed_osm2pgsql_leaves_nothing(kept, db, pbf, wrapped):
    strike = killed(wrapped, lambda pid: os.kill(pid, signal.SIGKILL))
    with pytest.raises(LoadError, match=r"osm2pgsql was killed \(signal 9\).*--slim.*as it was before"):
        load.osm(db, pbf, replace=True, slim=True, progress=strike)


def test_ctrl_c_ends_osm2pgsql_and_leaves_nothing(kept, db, pbf, wrapped):
    def interrupt(pid):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load.osm(db, pbf, replace=True, progress=killed(wrapped, interrupt))
    with pytest.raises(ProcessLookupError):
        os.kill(int((wrapped / "pid").read_text()), 0)


def test_a_server_that_ends_its_sessions_leaves_nothing(kept, db, pbf, wrapped, database_url):
    def strike(_):
        with psycopg.connect(database_url, autocommit=True) as conn:
            ended = conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ '^pgtiles_'")
            assert ended.rowcount > 0

    with pytest.raises(LoadError, match=r"osm2pgsql says: .*as it was before"):
        load.osm(db, pbf, replace=True, progress=killed(wrapped, strike))


def test_a_statement_that_would_go_on_for_hours_is_ended(kept, db, pbf, wrapped, database_url):
    """A session that still holds what it made when osm2pgsql is gone: the cleaning neither waits for it nor fails."""

    def strike(pid):
        working = ask(db, "SELECT nspname FROM pg_namespace WHERE nspname ~ '^pgtiles_'")[0][0]
        other = psycopg.connect(database_url, application_name=working)
        other.execute(f"SELECT count(*) FROM {working}.planet_osm_point")
        os.kill(pid, signal.SIGKILL)
        sessions.append(other)

    sessions = []
    with pytest.raises(LoadError, match="was killed"):
        load.osm(db, pbf, replace=True, progress=killed(wrapped, strike))
    sessions[0].close()


def test_the_schema_of_a_load_that_was_killed_is_pointed_out(db, small):
    left = f"pgtiles_{uuid.uuid4().hex}"
    ask_(db, f"CREATE SCHEMA {left}")
    assert f"DROP SCHEMA {left} CASCADE" in load.osm(db, small)[0].notes[0]


# The program, the server, and what they let us do


def test_without_the_program_the_error_names_the_package(kept, db, small, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DependencyError, match=r"apt-get install osm2pgsql\n(.|\n)*brew install osm2pgsql\n(.|\n)*conda-forge osm2pgsql"
    ):
        load.osm(db, small)


def test_the_rights_that_are_missing_are_named(db, small, role):
    name, url = role
    ask_(db, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    before = everything(db)
    with Database(url) as hers:
        with pytest.raises(LoadError, match=rf"{name} may not .*GRANT CREATE ON DATABASE \S+ TO {name}"):
            load.osm(hers, small)
        database = ask(db, "SELECT current_database()::text")[0][0]
        ask_(db, sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(sql.Identifier(database), sql.Identifier(name)))
        with pytest.raises(LoadError, match=rf"GRANT CREATE ON SCHEMA public TO {name}"):
            load.osm(hers, small)
        ask_(db, f"GRANT CREATE ON SCHEMA public TO {name}")
        assert everything(db) == before
        load.osm(hers, small)
        assert ask(hers, "SELECT count(*) FROM planet_osm_line") == [(2,)]


def test_hstore_out_of_sight_is_explained(db, small):
    ask_(db, "CREATE SCHEMA apart; CREATE EXTENSION hstore SCHEMA apart")
    with pytest.raises(MissingError, match=r"hstore is in schema apart, which is not in the search_path"):
        load.osm(db, small)


def test_the_password_is_not_for_everybody_to_see(db, small, role, wrapped):
    name, url = role
    database = ask(db, "SELECT current_database()::text")[0][0]
    ask_(db, f'GRANT CREATE ON DATABASE "{database}" TO {name}; GRANT CREATE ON SCHEMA public TO {name}')
    with Database(url) as hers:
        load.osm(hers, small)
    assert (wrapped / "password").read_text() == "secret-of-hers"
    assert "secret" not in (wrapped / "arguments").read_text()


def test_a_service_and_a_socket_reach_the_same_database(db, small, database_url, tmp_path, monkeypatch):
    known = conninfo_to_dict(database_url)
    (tmp_path / "services").write_text("[map]\n" + "".join(f"{key}={value}\n" for key, value in known.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with Database("service=map") as other:
        assert load.osm(other, small)[0].table == "public.planet_osm_point"
    (folders,) = ask(db, "SHOW unix_socket_directories")[0]
    folder = folders.split(",")[0].strip()
    if not Path(folder, f".s.PGSQL.{known['port']}").exists():
        pytest.skip("the server has no socket on this machine")
    with Database(psycopg.conninfo.make_conninfo(**known | {"host": folder})) as other:
        load.osm(other, small, replace=True)


def test_a_server_that_is_not_there(small):
    with pytest.raises(DatabaseError, match="is the server up"):
        load.osm(Database("postgresql://postgres@127.0.0.1:1/x"), small)


# From a shell


def pgtiles(*arguments, **more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGTILES"))}
    kept |= {"PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "300", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "pgtiles", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept | more)


def test_the_command_says_each_table_in_a_line(db, database_url, small):
    done = pgtiles("load", "osm", small, "--prefix", "osm", "--srid", "25835", "--slim", "--url", database_url)
    assert done.returncode == 0, done.stderr
    lines = [f"public.osm_{kind}: {ask(db, f'SELECT count(*) FROM osm_{kind}')[0][0]} rows, SRID 25835"
             for kind in ("point", "line", "polygon", "roads")]  # fmt: skip
    assert done.stdout.splitlines() == lines
    assert "\nnote: to update the tables: osm2pgsql --append" in done.stderr
    assert "Processing" not in done.stderr, "quiet where nobody looks"
    again = pgtiles("load", "osm", small, "--prefix", "osm", "--url", database_url, PGTILES_PROGRESS="1")
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert "Traceback" not in again.stderr


def test_the_command_shows_that_it_moves(database_url, small):
    done = pgtiles("load", "osm", small, "--url", database_url, PGTILES_PROGRESS="1")
    assert done.returncode == 0
    assert re.search(r"\d:\d\d:\d\d", done.stderr)


def test_a_password_that_only_the_command_line_could_tell_is_refused(kept, db, small, database_url):
    with Database(f"{database_url}?sslpassword=s3cret") as hers, pytest.raises(LoadError, match="sslpassword") as caught:
        load.osm(hers, small, replace=True)
    assert "s3cret" not in str(caught.value)
