"""What people install: the wheel holds the SQL and the examples, and works from anywhere."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with nothing in it but the installed wheel."""
    made, target = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", made, ROOT], check=True, capture_output=True)
    (wheel,) = made.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"pgtiles/sql/{p.name}" for p in (ROOT / "sql").glob("*.sql")} <= set(names)
    assert {"pgtiles/py.typed", "pgtiles/examples/demo.py", "pgtiles/examples/unet.py"} <= set(names)
    assert not [n for n in names if n.startswith("tests") or n.endswith((".tif", ".pbf", ".geojson"))]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, wheel], check=True)
    return target


def test_it_composes_every_file_and_streams_a_batch(site, world, tmp_path):
    code = f"""
import re
import pgtiles, pgtiles.template as template
from psycopg import sql

assert {str(site)!r} in pgtiles.__file__, pgtiles.__file__
for file in template.folder().glob("*.sql"):
    text = re.sub(r"^--.*$", "", file.read_text(), flags=re.M)
    slots = set(re.findall(r"(?<!{{)\\{{(\\w+)\\}}", text))
    if file.stem != "init":
        assert template.compose(file.stem, **{{slot: sql.SQL("x") for slot in slots}}).as_string(None)

db = pgtiles.Database({world.url!r})
tiles = pgtiles.Tiles.random(pgtiles.Grid.like(db, "scene", size=64), within=db.extent("scene", 3857), count=8)
dataset = pgtiles.TileDataset(db, tiles, {{"image": pgtiles.Imagery("scene"), "mask": pgtiles.Labels("roads", buffer=6)}}, batch_size=4)
batch = next(iter(dataset.loader()))
assert batch["image"].shape == (4, 3, 64, 64) and batch["mask"].any()
"""
    environment = os.environ | {"PYTHONPATH": str(site)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
