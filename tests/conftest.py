"""A real PostGIS for every test: started here, or the one that PGTILES_TEST_URL names. A database for each test is a clone of
one template; `world` is one database that many tests only read.
"""

import os
import shutil
import signal
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, settings
from psycopg.conninfo import conninfo_to_dict
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor
from rasterio.transform import from_origin

from pgtiles import Database, Grid, LocalServer, load, samples
from pgtiles.template import folder

X0, Y0, RES = 1_050_000.0, 5_985_000.0, 2.5  # the scene's upper left corner in EPSG:3857, and its metres a pixel
HEIGHT, WIDTH = 900, 1000
# A machine that has other things to do is no error. (With CI set, as in .ci/run, examples are the same in each run.)
settings.register_profile("pgtiles", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("pgtiles")
SUMMARY = pytest.StashKey[list[str]]()  # what a test would have read at the end of the run


def pytest_configure():
    """Have Ctrl-C mean what it means in a shell: what is started in the background ignores it, and so would all our children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(SUMMARY, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def server_url():
    """The URL of a server on which we may create databases."""
    if url := os.environ.get("PGTILES_TEST_URL"):
        yield url
        return
    path = Path(tempfile.mkdtemp(prefix="pgtiles-test-"))
    path.chmod(0o755)  # as root, the server runs as another account, which must get there
    # a test's server may lose its data: what is lost with it is the test
    server = LocalServer(path / "server", settings={"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"})
    with server:
        yield server.url
    shutil.rmtree(path)


def _extensions(*, host, port, user, password, dbname, **_):
    with psycopg.connect(host=host, port=port, user=user, password=password, dbname=dbname, autocommit=True) as conn:
        conn.execute((folder() / "init.sql").read_text())


@pytest.fixture(scope="session")
def template(server_url):
    """A template database with PostGIS in it."""
    known = conninfo_to_dict(server_url)
    executor = NoopExecutor(
        host=known["host"], port=int(known.get("port", 5432)), user=known["user"], password=known.get("password") or "",
        dbname="pgtiles_test", options="", maintenance_dbname="postgres",
    )  # fmt: skip
    janitor = DatabaseJanitor(
        user=executor.user, host=executor.host, port=executor.port, dbname=executor.template_dbname,
        password=executor.password, maintenance_dbname="postgres", as_template=True,
    )  # fmt: skip
    janitor.drop()
    with janitor:
        janitor.load(_extensions)
        yield executor


clone = factories.postgresql("template")


def _url(conn):
    info, password = conn.info, conn.info.password
    return f"postgresql://{info.user}{f':{password}' if password else ''}@{info.host}:{info.port}/{info.dbname}"


@pytest.fixture
def database_url(clone):
    """The URL of a database of the test's own."""
    return _url(clone)


@pytest.fixture
def db(database_url):
    """A database of the test's own."""
    with Database(database_url) as database:
        yield database


@pytest.fixture
def schema_db(world):
    """A schema of the test's own: a database for each of many small tests would take longer than they do."""
    with world.db.connection() as conn:
        conn.execute("CREATE SCHEMA mine")
    with Database(f"{world.url}?options=-csearch_path%3Dmine%2Cpublic") as database:
        yield database
    with world.db.connection() as conn:
        conn.execute("DROP SCHEMA mine CASCADE")


def ask(db, statement):
    """All rows of a statement."""
    with db.connection() as conn:
        return conn.execute(statement).fetchall()


def scene(seed=0, shape=(3, HEIGHT, WIDTH), dtype="uint8"):
    """Noise over a smooth relief: no two pixels can be exchanged unseen, and resampling has something to get wrong."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    relief = np.stack([np.sin(x / (17 + b)) + np.cos(y / (23 + b)) for b in range(shape[0])])
    values = 110 + 40 * relief + rng.normal(size=shape) * 12
    scale = {"uint8": 1, "uint16": 40, "float32": 0.37, "int16": -30}[dtype]
    return np.clip(values, 1, 254).astype("float32").__mul__(scale).astype(dtype)


def write_tiff(path, pixels, *, crs="EPSG:3857", transform=None, nodata=None, **more):
    """A GeoTIFF of (bands, height, width)."""
    bands, height, width = pixels.shape
    profile = dict(driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype, crs=crs, nodata=nodata, **more)
    with rasterio.open(path, "w", transform=transform or from_origin(X0, Y0, RES, RES), **profile) as file:
        file.write(pixels)
    return path


def features(seed=0):
    """Lines, areas with holes and points all over the scene and beyond its edge, in EPSG:3857."""
    rng = np.random.default_rng(seed)
    span = np.array([WIDTH * RES, -HEIGHT * RES])
    start = np.array([X0, Y0]) + rng.uniform(-0.05, 1.05, (220, 1, 2)) * span
    lines = [shapely.LineString(s + np.cumsum(rng.normal(0, 90, (rng.integers(2, 9), 2)), axis=0)) for s in start]
    centres = np.array([X0, Y0]) + rng.uniform(-0.02, 1.02, (160, 2)) * span
    areas = []
    for c in centres:
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.uniform(40, 120, (12, 1))
        outer = shapely.Polygon(c + ring)
        hole = shapely.Polygon(c + ring * 0.3)
        areas.append(outer.difference(hole) if outer.is_valid else shapely.make_valid(outer))
    areas = [a for a in areas if a.geom_type in ("Polygon", "MultiPolygon")]
    # on the lattice itself: edges along pixel borders and through pixel centres
    areas += [shapely.box(X0 + 500 * k, Y0 - 800, X0 + 500 * k + 160 + 1.25 * k, Y0 - 640) for k in range(5)]
    points = [shapely.Point(p) for p in np.array([X0, Y0]) + rng.uniform(0, 1, (300, 2)) * span]
    return SimpleNamespace(lines=lines, areas=areas, points=points, value=lambda i: 1 + i % 4)


@contextmanager
def shared(template, name):
    """The URL of a database that many tests only read."""
    janitor = DatabaseJanitor(
        user=template.user, host=template.host, port=template.port, dbname=name, password=template.password,
        maintenance_dbname="postgres", template_dbname=template.template_dbname,
    )  # fmt: skip
    janitor.drop()
    with janitor:
        secret = f":{template.password}" if template.password else ""
        yield f"postgresql://{template.user}{secret}@{template.host}:{template.port}/{name}"


@pytest.fixture(scope="session")
def helsinki(template):
    """One database with the city centre of Helsinki as osm2pgsql makes it (SRID 3857), only to be read, and its file."""
    file = samples.helsinki()
    with shared(template, "pgtiles_helsinki") as url, Database(url) as database:
        load.osm(database, file)
        yield SimpleNamespace(url=url, db=database, file=file)


@pytest.fixture(scope="session")
def world(template, tmp_path_factory):
    """One database with imagery and vectors in several forms, only to be read, and the files and geometries they came from."""
    folder_ = tmp_path_factory.mktemp("world")
    with shared(template, "pgtiles_world") as url:
        found, pixels = features(), scene()
        tif = write_tiff(folder_ / "scene.tif", pixels)
        with Database(url) as database:
            load.raster(database, [tif], "scene")
            with database.connection() as conn:
                _features_into(conn, found)
            yield SimpleNamespace(url=url, db=database, tif=tif, pixels=pixels, features=found, folder=folder_,
                                  grid=Grid.like(database, "scene", size=64))  # fmt: skip


def _features_into(conn, found):
    for name, kind, shapes in (
        ("roads", "LineString", found.lines),
        ("areas", "Geometry", found.areas),
        ("trees", "Point", found.points),
    ):
        for table, srid in ((name, 3857), (f"{name}_4326", 4326)):
            conn.execute(f"CREATE TABLE {table} (id serial PRIMARY KEY, way geometry({kind}, {srid}), class int, name text)")
            conn.cursor().executemany(
                f"INSERT INTO {table} (way, class, name) VALUES (ST_Transform(ST_GeomFromWKB(%s, 3857), {srid}), %s, %s)",
                [(g.wkb, found.value(i), f"{name} {i}") for i, g in enumerate(shapes)],
            )
            conn.execute(f"CREATE INDEX ON {table} USING gist (way)")
            conn.execute(f"ANALYZE {table}")


@pytest.fixture
def quiet():
    """For the few tests in which a warning of ours is not the point."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
