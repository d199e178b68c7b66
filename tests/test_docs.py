"""Every code block of README and every example is run."""

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import RES, X0, Y0, scene, write_tiff

from pgtiles import Database, Grid, Labels, Tiles, load, read

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
# make is what runs this test; docker has no engine on most test machines, tests/test_compose.py holds its file to the specification
ELSEWHERE = ("make ", "docker ", "export ")


@pytest.fixture
def osm(db):
    """A database as a reader of README has it: imagery and osm2pgsql's tables."""
    rng = np.random.default_rng(0)
    write_tiff(Path(os.environ["PGTILES_README"]) / "scene.tif", scene(0, (3, 2400, 2400)))
    load.raster(db, [Path(os.environ["PGTILES_README"]) / "scene.tif"], "sat_s2")
    start = np.array([X0, Y0]) + rng.uniform(0, 2400 * RES, (400, 2)) * [1, -1]
    end = start + rng.normal(0, 300, (400, 2))
    with db.connection() as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        conn.execute("CREATE TABLE planet_osm_line (osm_id int, way geometry(LineString, 3857), highway text, tags hstore)")
        conn.cursor().executemany(
            "INSERT INTO planet_osm_line VALUES (%s, ST_SetSRID(ST_MakeLine(ST_MakePoint(%s, %s), ST_MakePoint(%s, %s)), 3857), %s, %s)",
            [
                (
                    i,
                    *a.tolist(),
                    *b.tolist(),
                    ("motorway", "primary", "residential")[i % 3],
                    ("lanes=>4", "", "lanes=>many")[i % 3],
                )
                for i, (a, b) in enumerate(zip(start, end, strict=True))
            ],
        )
        conn.execute(
            'CREATE TABLE planet_osm_polygon (way geometry(Polygon, 3857), building text, landuse text, "natural" text)'
        )
        conn.execute(
            "INSERT INTO planet_osm_polygon SELECT ST_MakeEnvelope(x, y, x + 60, y + 60, 3857), CASE i % 3 WHEN 0 THEN 'yes' END, "
            "CASE i % 3 WHEN 1 THEN 'forest' END, CASE i % 3 WHEN 2 THEN 'water' END "
            f"FROM generate_series(0, 599) i, LATERAL (SELECT {X0} + (i % 40) * 150 x, {Y0} - 100 - (i / 40) * 400 y) p"
        )
        for table in ("planet_osm_line", "planet_osm_polygon"):
            conn.execute(f"CREATE INDEX ON {table} USING gist (way); ANALYZE {table}")
    return db


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch, database_url):
    """The reader's folder and environment; as root, her server needs a folder that its account can reach."""
    monkeypatch.setenv("PGTILES_README", str(tmp_path))
    monkeypatch.setenv("PGTILES_URL", database_url)
    monkeypatch.chdir(tmp_path)


def blocks(kind):
    found = [text for name, text in BLOCKS if name == kind]
    assert found
    return found


def test_every_kind_of_block_is_run_here():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh", "sql"}


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python(osm, number):
    names = {}
    exec(compile(blocks("python")[number], "README.md", "exec"), names)
    if "mask" in names:  # a layer that the block only makes
        tiles = Tiles.random(Grid.like(osm, "sat_s2", size=128), within=osm.extent("sat_s2", 3857), count=40)
        assert read(osm, tiles, {"mask": names["mask"]})["mask"].any()


@pytest.mark.parametrize("number", range(len(blocks("sql"))))
def test_sql(osm, number):
    tiles = Tiles.random(Grid.like(osm, "sat_s2", size=128), within=osm.extent("sat_s2", 3857), count=40)
    mask = read(osm, tiles, {"mask": Labels(blocks("sql")[number])})["mask"]
    assert 0.005 < (mask > 0).mean() < 0.9


def test_shell(osm, tmp_path, monkeypatch):
    server = Path(tmp_path) / "server"
    if os.geteuid() == 0:  # PostgreSQL runs as another account, which can't look into a temporary folder of root's
        import tempfile

        server = Path(tempfile.mkdtemp(prefix="pgtiles-readme-"))
        server.chmod(0o755)
        server = server / "server"
    monkeypatch.setenv("PGTILES_HOME", str(server))
    (tmp_path / "roads.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"lanes": 2},'
        ' "geometry": {"type": "LineString", "coordinates": [[9.5, 47.1], [9.6, 47.2]]}}]}'
    )
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "pgtiles").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pgtiles "$@"\n')
    (bin_ / "pgtiles").chmod(0o755)
    path = os.pathsep.join([str(bin_), os.environ["PATH"]])
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    lines = [line.split("#")[0].strip() for text in blocks("sh") for line in text.splitlines()]
    ran = 0
    for line in filter(None, lines):
        if line.startswith(ELSEWHERE):
            continue
        if line.startswith(
            "pgtiles load raster"
        ):  # the table of the blocks before is there already: that is refused, so it goes
            with osm.connection() as conn:
                conn.execute("DROP TABLE sat_s2")
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=os.environ | {"PATH": path, "PYTHONPATH": python}, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 8
    assert (tmp_path / "preview.png").stat().st_size > 10_000
    shutil.rmtree(server.parent if os.geteuid() == 0 else server, ignore_errors=True)


def test_the_demo(database_url, tmp_path, monkeypatch):
    """One short epoch of it: that it learns is what `make demo` shows."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    demo = runpy.run_path(str(ROOT / "examples" / "demo.py"))
    score = demo["main"](output=tmp_path / "demo.png", url=database_url, epochs=1)
    assert 0 <= score <= 1
    assert (tmp_path / "demo.png").stat().st_size > 10_000
    with Database(database_url) as db:
        assert db.table("demo_scene").indexes


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_are_short_and_guarded(path):
    text = path.read_text()
    assert path.name != "unet.py" or len(text.splitlines()) <= 80
    assert "def main(" not in text or '__name__ == "__main__"' in text
