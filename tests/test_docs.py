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
import torch
from conftest import RES, X0, Y0, scene, write_tiff
from psycopg.sql import SQL
from server_helpers import scratch

from pgtiles import Database, Grid, Labels, Tiles, load, read, samples
from pgtiles.template import folder

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)
# make is what runs this test; docker has no engine on most test machines, tests/test_compose.py holds its file to the specification
ELSEWHERE = ("make ", "docker ", "export ")


@pytest.fixture
def osm(db, home):
    """A database as a reader of README has it: imagery and osm2pgsql's tables."""
    rng = np.random.default_rng(0)
    write_tiff(home / "scene.tif", scene(0, (3, 2400, 2400)), tiled=True)
    load.raster(db, home / "scene.tif", "sat_s2")
    start = np.array([X0, Y0]) + rng.uniform(0, 2400 * RES, (400, 2)) * [1, -1]
    end = start + rng.normal(0, 300, (400, 2))
    with db.connection() as conn:
        conn.execute((folder() / "init.sql").read_text())  # a clone has no settings of its template's
        conn.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        conn.execute(
            "CREATE TABLE planet_osm_line (osm_id int, way geometry(LineString, 3857), highway text, tags hstore, tunnel text)"
        )
        conn.cursor().executemany(
            "INSERT INTO planet_osm_line VALUES (%s, ST_SetSRID(ST_MakeLine(ST_MakePoint(%s, %s), ST_MakePoint(%s, %s)), 3857), %s, %s, NULL)",
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
def home(monkeypatch, database_url):
    """The reader's folder and environment; her files are where a server can read them."""
    with scratch() as folder:
        monkeypatch.setenv("PGTILES_URL", database_url)
        monkeypatch.chdir(folder)
        yield folder
        monkeypatch.undo()  # out of the folder, which goes


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


class Bright(torch.nn.Module):
    """A model that needs no training: what is bright around a pixel is a road."""

    def forward(self, image):
        coarse = torch.nn.functional.avg_pool2d(image.float().mean(1, keepdim=True), 16)
        return torch.nn.functional.interpolate(coarse, scale_factor=16, mode="bilinear") - 130


def test_shell(osm, home, monkeypatch):
    monkeypatch.setenv("PGTILES_HOME", str(home / "server"))
    torch.export.save(torch.export.export(Bright(), (torch.zeros(16, 3, 128, 128, dtype=torch.uint8),)), home / "roads.pt2")
    (home / "roads.geojson").write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"lanes": 2},'
        ' "geometry": {"type": "LineString", "coordinates": [[9.5, 47.1], [9.6, 47.2]]}}]}'
    )
    shutil.copy(samples.helsinki(), home / "city.osm.pbf")
    for name in ("Forest", "River"):
        (home / "EuroSAT_MS" / name).mkdir(parents=True)
        write_tiff(home / "EuroSAT_MS" / name / "1.tif", scene(0, (3, 64, 64)))
    (home / "scene.tif").chmod(0o644)
    (home / "bin").mkdir()
    (home / "bin" / "pgtiles").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pgtiles "$@"\n')
    (home / "bin" / "pgtiles").chmod(0o755)
    path = os.pathsep.join([str(home / "bin"), os.environ["PATH"]])
    python = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    lines = [line.split("#")[0].strip() for text in blocks("sh") for line in text.splitlines()]
    ran = 0
    for line in filter(None, lines):
        if line.startswith(ELSEWHERE) or ("--out-db" in line and "PGTILES_TEST_URL" in os.environ):
            continue
        with osm.connection() as conn:  # what the blocks before made is there already: that is refused, so it goes
            if line.startswith("pgtiles load raster"):
                conn.execute("DROP TABLE IF EXISTS sat_s2")
            if line.startswith("pgtiles load osm"):
                conn.execute("DROP TABLE planet_osm_line, planet_osm_polygon")
        done = subprocess.run(
            line, shell=True, cwd=home, env=os.environ | {"PATH": path, "PYTHONPATH": python}, capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 16
    for picture in ("preview.png", "worst.png"):
        assert (home / picture).stat().st_size > 10_000
    assert osm.query(SQL("SELECT count(*) > 50 AND bool_and(ST_IsValid(geom)) FROM road_areas")) == [(True,)]


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
