"""docker-compose.yml without Docker: it keeps to the specification, and what it tells the server works on one."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import jsonschema
import psycopg
import pytest
import yaml
from psycopg import sql
from server_helpers import QUICK, scratch
from sqlalchemy import make_url

from pgtiles.postgres.server import SETTINGS, LocalServer

FILE = Path(__file__).parents[1] / "docker-compose.yml"
# The Compose specification's schema (Apache-2.0) travels in this package, whose other parts we don't use.
PACKAGE, DIGEST = "check-jsonschema==0.39.0", "14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b"
MEMBER = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"


@pytest.fixture(scope="module")
def schema():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgtiles"
    wheel = cache / "check_jsonschema-0.39.0-py3-none-any.whl"
    if not wheel.exists():
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", cache, PACKAGE], check=True)
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() == DIGEST, f"{wheel} is not the package we know: delete it"
    with zipfile.ZipFile(wheel) as opened:
        return json.loads(opened.read(MEMBER))


@pytest.fixture(scope="module")
def compose():
    """What Compose makes of the file where no variable is set."""
    return yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", FILE.read_text()))


@pytest.fixture(scope="module")
def service(compose):
    return compose["services"]["postgis"]


@pytest.fixture(scope="module")
def settings(service):
    assert service["command"][0] == "postgres"
    return dict(option.removeprefix("-c").split("=") for option in service["command"][1:])


@pytest.fixture(scope="module")
def init(service):
    """The SQL file that the image runs in a new database, by the image's own rule."""
    (mount,) = [volume for volume in service["volumes"] if ":/docker-entrypoint-initdb.d/" in volume]
    source, target, mode = mount.split(":")
    assert mode == "ro"
    assert Path(target).name > "10_postgis.sh", "the image makes the postgis extension first"
    assert Path(target).suffix == ".sql"
    return (FILE.parent / source).read_text()


@pytest.fixture(scope="module")
def server(settings):
    with scratch() as folder, LocalServer(folder / "server", settings={**settings, **QUICK}) as started:
        yield started


@pytest.fixture
def fresh(server):
    """The URL of a new, empty database, as the image makes one."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute('DROP DATABASE IF EXISTS "it\'s-new"')
        connection.execute('CREATE DATABASE "it\'s-new"')
    return make_url(server.url).set(database="it's-new").render_as_string(hide_password=False)


def psql(server, url, script):
    command = [server.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"]
    done = subprocess.run(command, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_keeps_to_the_specification(schema, compose):
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    wrong = {**compose, "services": {"postgis": {**compose["services"]["postgis"], "helthcheck": {}}}}
    assert not validator.is_valid(wrong)


def test_no_form_of_interpolation_is_left(compose):
    assert "$" not in json.dumps(compose)


def test_the_url_it_promises(service):
    made = service["environment"]
    (port,) = service["ports"]
    host, outside, inside = port.split(":")
    assert (host, inside) == ("127.0.0.1", "5432")
    url = f"postgresql://{made['POSTGRES_USER']}:{made['POSTGRES_PASSWORD']}@localhost:{outside}/{made['POSTGRES_DB']}"
    assert f"export PGTILES_URL={url}\n" in FILE.read_text()


def test_the_same_database_as_a_local_server(service, settings, server):
    made = service["environment"]
    with psycopg.connect(server.url) as connection:
        assert (connection.info.user, connection.info.dbname) == (made["POSTGRES_USER"], made["POSTGRES_DB"])
        collate, ctype = connection.execute(
            "SELECT datcollate, datctype FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    if sys.platform == "linux":
        assert made["POSTGRES_INITDB_ARGS"] == f"--encoding=UTF8 --locale={collate} --lc-ctype={ctype}"
    assert SETTINGS.items() <= settings.items()
    assert settings.keys() - SETTINGS.keys() == {"shared_buffers", "client_connection_check_interval"}


def test_the_server_takes_its_settings(settings, server):
    with psycopg.connect(server.url) as connection:
        for name, value in settings.items():
            if name not in QUICK:
                assert connection.execute("SELECT current_setting(%s)", (name,)).fetchone() == (value,)


def test_the_command_is_one(service, settings, server):
    """The very words of the file, given to the program that the image would start."""
    command, *options = service["command"]
    account = {"user": server.data.stat().st_uid, "extra_groups": []} if os.geteuid() == 0 else {}
    asked = [server.bindir / command, *options, "-D", server.data, "-C", "max_connections"]
    assert subprocess.check_output(asked, text=True, **account).strip() == settings["max_connections"]


def test_it_is_pinned_and_watched(service):
    assert re.fullmatch(r"postgis/postgis:\d+-\d+\.\d+", service["image"])
    assert service["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]


def test_its_health_is_told_by_the_server(service, server):
    command = service["healthcheck"]["test"][1:]
    url = make_url(server.url)
    ready = [server.bindir / command[0], *command[1:], f"--port={url.port}"]
    assert subprocess.run(ready, stdout=subprocess.DEVNULL).returncode == 0


def test_init_twice_makes_one_database(server, fresh, init):
    assert psql(server, fresh, init) == ""
    assert psql(server, fresh, init) == ""
    with psycopg.connect(fresh) as connection:
        extensions = {name for (name,) in connection.execute("SELECT extname FROM pg_extension")}
        assert {"postgis", "postgis_raster"} <= extensions
        made = connection.execute(
            "SELECT unnest(setconfig) FROM pg_db_role_setting JOIN pg_database ON oid = setdatabase"
            " WHERE datname = current_database()"
        ).fetchall()
    told = dict(setting.split("=") for (setting,) in made)
    drivers = told.pop("postgis.gdal_enabled_drivers").split()
    assert told == {"postgis.enable_outdb_rasters": "on"}
    assert {"GTiff", "JPEG", "PNG", "VRT"} <= set(drivers)
    assert "WMS" not in drivers


def test_init_copes_with_what_the_image_has_made(server, fresh, init):
    with psycopg.connect(fresh) as connection:
        connection.execute("CREATE EXTENSION postgis")
    assert psql(server, fresh, init) == ""


def test_init_keeps_what_somebody_has_set(server, fresh, init):
    psql(server, fresh, init)
    with psycopg.connect(fresh, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET postgis.gdal_enabled_drivers = 'GTiff'").format(name))
    psql(server, fresh, init)
    with psycopg.connect(fresh) as connection:
        connection.execute("SELECT postgis_raster_lib_version()")
        assert connection.execute("SHOW postgis.gdal_enabled_drivers").fetchone() == ("GTiff",)
        assert connection.execute("SHOW postgis.enable_outdb_rasters").fetchone() == ("on",)


def test_rasters_in_files_are_read(server, fresh, init):
    """Also by one who may not switch that on: the database's settings hold for everybody."""
    psql(server, fresh, init)
    scene = server.path.parent / "scene.tif"
    with psycopg.connect(fresh, autocommit=True) as connection:
        (tiff,) = connection.execute(
            "SELECT ST_AsGDALRaster(ST_AddBand(rast, '8BUI'::text, 77, 0), 'GTiff')"
            " FROM ST_MakeEmptyRaster(4, 4, 500000, 0, 1, -1, 0, 0, 32632) AS rast"
        ).fetchone()
        scene.write_bytes(tiff)
        scene.chmod(0o644)
        connection.execute("CREATE TABLE scene (rast raster)")
        connection.execute("INSERT INTO scene SELECT ST_AddBand(NULL::raster, %s::text, ARRAY[1])", (str(scene),))
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'reads'")
        connection.execute("GRANT SELECT ON scene TO reader")
        reader = make_url(fresh).set(username="reader", password="reads").render_as_string(hide_password=False)
        for url in (fresh, reader):
            with psycopg.connect(url) as reading:
                told = reading.execute("SELECT (ST_BandMetadata(rast)).isoutdb, ST_Value(rast, 2, 2) FROM scene").fetchone()
            assert told == (True, 77)
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")
