"""The documentation site: it builds without a warning, its commands and queries run, its error messages are the code's."""

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import psycopg
import pyproj
import pytest
import shapely
import torch
from conftest import RES, X0, Y0, scene, write_tiff
from rasterio.transform import from_origin

from pgtiles import Database, Grid, Imagery, Labels, LocalServer, TileDataset, Tiles, export, load, predict, read, samples
from pgtiles.errors import PgtilesError, PgtilesWarning

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```$", re.M | re.S)
# make is what runs this test; pip and apt-get made this machine what it is; docker has no engine on most test machines
ELSEWHERE = ("make ", "pip ", "sudo ", "docker ", "export ", "#")


def blocks(text, *kinds):
    """The code blocks of these kinds, in their order: (kind, code)."""
    found = [(kind, re.sub(f"(?m)^{indent}", "", code)) for indent, kind, code in FENCE.findall(text) if kind in kinds]
    assert found
    return found


def page(name):
    return (DOCS / f"{name}.md").read_text()


def section(name, heading):
    """The text of a page below a heading of the second level."""
    return page(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


# -- the build


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it, and what the build said."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    said = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False, timeout=600,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr
    return folder / "site", said.stdout + said.stderr


def test_it_builds_without_a_warning(site):
    folder, said = site
    assert "WARNING" not in said
    for source in DOCS.rglob("*.md"):
        assert (folder / source.relative_to(DOCS).with_suffix(".html")).is_file()


def test_a_page_fetches_nothing_from_elsewhere(site):
    """Neither fonts nor scripts nor pictures: it can be read without a network."""
    fetched = re.compile(
        r"""<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//|<link[^>]*rel="?(?:stylesheet|preconnect)[^>]*//"""
    )
    for file in site[0].rglob("*.html"):
        assert not fetched.search(file.read_text()), file
    for file in site[0].rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", file.read_text()), file


def test_the_reference_has_every_public_name_and_command(site):
    from typer.main import get_command

    import pgtiles
    from pgtiles.shell.cli import typer_app

    html = "".join(file.read_text() for file in (site[0] / "reference").glob("*.html"))
    text = re.sub(r"<[^>]+>", "", html)
    for name in set(pgtiles.__all__) - {"errors", "load", "plot", "runs", "samples", "targets", "tile"}:
        assert re.search(rf'id="pgtiles\.[\w.]+\.{name}"', html), name
    for name in {name for name in pgtiles.load.__all__ if inspect.isroutine(getattr(load, name))} | {
        "Loaded",
        "spacenet",
        "helsinki",
    }:
        assert re.search(rf'id="pgtiles\.[\w.]+\.{name}"', html), name
    for name, command in get_command(typer_app).commands.items():
        for inner in getattr(command, "commands", {"": command}):
            assert f"pgtiles {name} {inner}".strip() in text


def test_arguments_in_docstrings_become_lists(site):
    """Each argument of a layer is a term of its own; nothing is left of the way that it stands in the code."""
    html = (site[0] / "reference" / "layers.html").read_text()
    for name in ("source", "value", "where", "buffer", "srid", "column", "all_touched", "background", "dtype"):
        assert f"<dt><code>{name}</code></dt>" in html
    for file in (site[0] / "reference").glob("*.html"):
        assert "Args:" not in file.read_text(), file


def test_the_tests_that_the_guarantees_name_are_there():
    named = set(re.findall(r"`(test_\w+\.py)`", page("guarantees")))
    assert len(named) > 8
    assert {name for name in named if not (ROOT / "tests" / name).is_file()} == set()


# -- the quick start, story by story


@pytest.fixture(scope="module")
def home():
    """A reader's folder with a local server of her own. As root it runs as another account, which must get there."""
    folder = Path(tempfile.mkdtemp(prefix="pgtiles-site-"))
    folder.chmod(0o755)
    yield folder
    LocalServer(folder / "server").stop()
    shutil.rmtree(folder)


@pytest.fixture
def shell(home, monkeypatch):
    """Runs a block of commands in the reader's folder, with no database named but her own."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGTILES_HOME", str(home / "server"))
    monkeypatch.chdir(home)
    (home / "bin").mkdir(exist_ok=True)
    (home / "bin" / "pgtiles").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pgtiles "$@"\n')
    (home / "bin" / "pgtiles").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(home / "bin"), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))

    def run(code):
        lines = re.sub(r"\\\n\s*", " ", code).splitlines()
        ran = [line for line in (line.split(" #")[0].strip() for line in lines) if line and not line.startswith(ELSEWHERE)]
        for line in ran:
            done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False, timeout=600)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            assert "warning" not in done.stderr, f"{line}\n{done.stderr}"
        return ran

    return run


def tell(text, shell):
    """Do what a story says, in its order; the commands that were run, and what its Python printed."""
    ran, printed = [], []
    for kind, code in blocks(text, "sh", "python"):
        if kind == "sh":
            ran += shell(code)
        else:
            exec(compile(code, "index.md", "exec"), {"print": lambda *values: printed.append([tuple(v) for v in values])})
    return ran, printed


def painted(path):
    """Whether the picture has a label's colour in it: the first of the palette, mixed with the grey below."""
    from matplotlib.image import imread

    red, green, blue, *_ = np.moveaxis(imread(path), -1, 0)
    return ((red > green + 0.3) & (red > blue + 0.2)).mean() > 0.001


def test_own_geotiff_and_geojson(home, shell):
    write_tiff(home / "scene.tif", scene())
    to_degrees = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform
    rng = np.random.default_rng(0)
    roads = [np.cumsum(rng.normal(0, 100, (30, 2)), axis=0) + np.array([X0 + 1250, Y0 - 1125]) for _ in range(20)]
    features = [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.LineString(np.c_[to_degrees(*r.T)]))}
        for r in roads
    ]
    (home / "roads.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    ran, printed = tell(section("index", "Your own GeoTIFF and GeoJSON"), shell)
    assert len(ran) == 5
    assert printed == [[(16, 3, 256, 256), (16, 256, 256)]]
    assert painted(home / "preview.png")


def test_own_osm_extract_and_a_file_that_stays(home, shell):
    shutil.copy(samples.helsinki(), home / "city.osm.pbf")
    # the imagery is made up; it lies over the extract, in the UTM zone there, in tiles as a COG has them
    x, y = pyproj.Transformer.from_crs(4326, 32635, always_xy=True).transform(24.93, 60.18)
    write_tiff(home / "scene.tif", scene(1, (3, 1200, 1400)), crs="EPSG:32635", transform=from_origin(round(x), round(y), 1, 1),
               tiled=True, blockxsize=256, blockysize=256)  # fmt: skip
    (home / "scene.tif").chmod(0o644)
    ran, printed = tell(section("index", "Your own OSM extract and a COG that stays a file"), shell)
    assert len(ran) == 5
    assert printed == [[(16, 3, 256, 256), (16, 256, 256)]]
    assert painted(home / "preview.png")
    with Database(LocalServer(home / "server").url) as db, db.connection() as conn:
        assert conn.execute("SELECT bool_and(ST_BandPath(rast) IS NOT NULL) FROM imagery").fetchone() == (True,)


def test_what_init_writes_is_there(home, shell):
    """On what the stories before have loaded; that it trains is tested elsewhere."""
    shell("pgtiles up")
    if not Database().query(psycopg.sql.SQL("SELECT FROM pg_tables WHERE tablename = 'scene'")):
        load.raster(Database(), write_tiff(home / "scene.tif", scene()), "scene")
        load.osm(Database(), samples.helsinki())
    assert shell(blocks(section("index", "And then"), "sh")[0][1]) == ["pgtiles init model"]
    assert {path.name for path in (home / "model").iterdir()} == {"labels.sql", "train.py", "preview.png"}


@pytest.fixture
def osm(db, monkeypatch):
    """A database as somebody keeps it with osm2pgsql, without imagery."""
    rng = np.random.default_rng(0)
    with db.connection() as conn:
        conn.execute("CREATE TABLE planet_osm_line (osm_id bigint, highway text, way geometry(LineString, 3857))")
        conn.execute("CREATE TABLE planet_osm_polygon (osm_id bigint, building text, way geometry(Geometry, 3857))")
        for i in range(300):
            line = shapely.LineString(
                np.array([X0, Y0 - 6000]) + rng.uniform(0, 6000, (1, 2)) + np.cumsum(rng.normal(0, 200, (5, 2)), axis=0)
            )
            kind = (None, "primary", "residential")[i % 3]
            conn.execute("INSERT INTO planet_osm_line VALUES (%s, %s, ST_GeomFromWKB(%s, 3857))", (i, kind, line.wkb))
        conn.execute("CREATE INDEX ON planet_osm_line USING gist (way); ANALYZE planet_osm_line")
    return db


def test_a_database_that_is_there(osm, home, shell, database_url, monkeypatch):
    text = section("index", "A database that is there already")
    ((_, query),) = blocks(text, "sql")
    (home / "roads.sql").write_text(query)
    look, first, second = (code for _, code in blocks(text, "sh"))
    monkeypatch.setenv("PGTILES_URL", database_url)
    assert len(shell(look)) == len(shell(first)) == len(shell(second)) == 1
    assert painted(home / "look" / "preview.png")
    assert painted(home / "label.png")
    assert painted(home / "classes.png")


# -- the page on databases


def in_this_database(code, db):
    """The statements of a block, said of the test's own database."""
    name = psycopg.conninfo.conninfo_to_dict(db.conninfo)["dbname"]
    return code.replace("DATABASE osm", f'DATABASE "{name}"').replace("trainer", "pgtiles_trainer")


def test_the_sql_on_databases_runs(osm, database_url, tmp_path):
    """In the order of the page; the role that it makes can read, and nothing else."""
    load.raster(osm, [write_tiff(tmp_path / "t.tif", scene(0, (1, 300, 300)))], "scene")
    server = psycopg.connect(database_url, autocommit=True)
    server.execute("CREATE TABLE roads (geom geometry(LineString, 3857))")
    try:
        for _, code in blocks(page("your-database"), "sql"):
            server.execute(in_this_database(code, osm))
        with psycopg.connect(_as(database_url, "pgtiles_trainer", "choose one"), autocommit=True) as conn:
            assert conn.execute("SHOW postgis.enable_outdb_rasters").fetchone() == ("on",)
            assert conn.execute("SHOW postgis.gdal_enabled_drivers").fetchone() == ("GTiff",)
            for refused in ("CREATE TABLE public.x ()", "DELETE FROM planet_osm_line", "DROP TABLE scene"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(refused)
        with Database(_as(database_url, "pgtiles_trainer", "choose one")) as db:
            grid = Grid.like(db, "scene", size=64)
            tiles = Tiles.random(grid, within=db.extent("scene", 3857), count=2)
            read(db, tiles, {"image": Imagery("scene"), "mask": Labels("planet_osm_line", buffer=3)})
            load.raster(db, [tmp_path / "t.tif"], "imagery.mine")
    finally:
        server.execute("DROP OWNED BY pgtiles_trainer CASCADE; DROP ROLE pgtiles_trainer")
        server.close()


def _as(url, user, password):
    known = psycopg.conninfo.conninfo_to_dict(url) | {"user": user, "password": password}
    return psycopg.conninfo.make_conninfo("", **known)


def test_the_commands_on_databases_run(osm, shell, database_url, monkeypatch):
    ran = 0
    for _, code in blocks(page("your-database"), "sh"):
        with monkeypatch.context() as patch:
            if "PGTILES_URL" in code:
                patch.setenv("PGTILES_URL", database_url)
            ran += len(shell(code))
    assert ran == 4


# -- how it works


def test_the_statement_is_the_one_that_runs(world, home, shell):
    """The one on the page, of which parts are left out, against what the command on the page prints."""
    (_, command), (_, shown) = blocks(section("how-it-works", "The statement that a batch runs"), "sh", "sql")
    (query,) = re.findall(r"in `roads.sql`, is `(.*?)`", page("how-it-works"))
    (home / "roads.sql").write_text(query)
    command = command.strip() + f" --url '{world.url}'"
    printed = subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout
    pieces = re.sub(r"--.*|\s", "", shown).split("…")
    printed = re.sub(r"\s", "", printed)
    at = 0
    for piece in pieces:  # in their order, the first at the beginning and the last at the end
        assert piece in printed[at:]
        at = printed.index(piece, at) + len(piece)
    assert printed.startswith(pieces[0])
    assert at == len(printed)


# -- error messages

MARK = re.compile(r"<[^<>]*>")  # stands for a name or a value
FOREIGN = (  # PostgreSQL's, libpq's, PostGIS's and PyTorch's own words
    "Connection refused", "password authentication failed", "no pg_hba.conf entry", "database \"<name>\" does not exist",
    "too many connections", "unsupported startup parameter", "canceling statement due to statement timeout",
    "server closed the connection unexpectedly", "could not access file", "permission denied for table",
    "function <name>(<types>) does not exist", 'column reference "geom" is ambiguous', "DataLoader worker", "An attempt has been made",
)  # fmt: skip


def headings():
    """The messages that are explained."""
    found = re.findall(r"^### `(.*)`$", page("troubleshooting"), re.M)
    assert len(found) == len(set(found)) == page("troubleshooting").count("\n### ")
    return found


def ours():
    return [heading for heading in headings() if not heading.startswith(FOREIGN)]


def explained(message):
    """The headings under which a reader of this message finds it."""
    patterns = {heading: ".+?".join(re.escape(fixed) for fixed in MARK.split(heading)) for heading in headings()}
    return [heading for heading, pattern in patterns.items() if re.search(pattern, message, re.S)]


@cache
def literals():
    """The fixed parts of every string in the code, docstrings left out: one list for each string."""
    found = []
    for file in sorted((ROOT / "pgtiles").rglob("*.py")):
        tree = ast.parse(file.read_text())
        docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs | inside:
                found.append([node.value])
    return found


@pytest.mark.parametrize("heading", ours())
def test_a_message_of_ours_is_one_that_the_code_gives(heading):
    fixed = [part.strip() for part in MARK.split(heading) if part.strip()]
    assert sum(len(part) for part in fixed) >= 12, "too little to be found by"

    def says(parts):
        at = 0
        for wanted in fixed:  # each within one part of the string, in their order
            at = next((i for i in range(at, len(parts)) if wanted in parts[i]), None)
            if at is None:
                return False
        return True

    assert any(says(parts) for parts in literals()), f"no string in the code says {heading!r}"


def test_there_are_enough_of_them():
    assert len(ours()) >= 35


def many(world, count=40, size=64):
    return Tiles.random(Grid.like(world.db, "scene", size=size), within=world.db.extent("scene", 3857), count=count)


def layer(world, made, **options):
    return read(world.db, many(world, **options), {"layer": made})


def epoch(world, made):
    return list(TileDataset(world.db, many(world), {"layer": made}))


def exported(world, folder, layer=None, **options):
    return export(TileDataset(world.db, many(world), {"layer": layer or Imagery("scene")}), folder, **options)


ROADS = "SELECT way AS geom FROM roads WHERE way && tile.geom"
SHIFTED = """
    SELECT CASE WHEN tile.id < 20 THEN rast ELSE ST_SetUpperLeft(rast, ST_UpperLeftX(rast) + 1, ST_UpperLeftY(rast)) END AS rast
    FROM scene WHERE ST_ConvexHull(rast) && tile.geom
"""
ENDLESS = """
    SELECT ST_SetSRID(ST_MakeLine(ST_MakePoint(-2e7, y), ST_MakePoint(2e7, y)), 3857) AS geom
    FROM (SELECT ST_Y(ST_Centroid(tile.geom)) AS y FROM tile) AS t
"""
# heading, and what a user did to meet it
MET = {
    "there is no table <name>": lambda w: layer(w, Imagery("scen")),
    "has no <kind> column; its columns are": lambda w: layer(w, Imagery("roads")),
    'column reference "geom" is ambiguous': lambda w: layer(w, Labels("SELECT geom FROM roads WHERE way && tile.geom")),
    "the query gives the columns <names>": lambda w: layer(w, Labels("SELECT way FROM roads WHERE way && tile.geom")),
    "they never meet, and": lambda w: layer(w, Labels(ROADS.replace("roads", "roads_4326"))),
    "the query's column value is of type": lambda w: layer(w, Labels(ROADS.replace(" FROM", ", name AS value FROM"))),
    "all of a class burns the class's own value": lambda w: layer(
        w, Labels({"road": ROADS.replace(" FROM", ", class AS value FROM")})
    ),
    "a row's value is NULL": lambda w: layer(w, Labels(ROADS.replace(" FROM", ", NULL::int AS value FROM"))),
    "value <value> does not fit dtype=": lambda w: layer(
        w, Labels(ROADS.replace(" FROM", ", 300 AS value FROM"), dtype="uint8")
    ),
    "the query holds more than one statement": lambda w: layer(w, Labels(ROADS + "; SELECT 1")),
    "raster holds at most 65535 pixels a side and 1 GB": lambda w: layer(w, Labels(ENDLESS)),
    "PostGIS gave a notice that means wrong pixels": lambda w: layer(
        w, Labels("SELECT ST_Band(tile.rast, 2) AS rast FROM tile")
    ),
    "does not lie on the tile's pixels": lambda w: layer(w, Imagery(SHIFTED)),
    "no tile of <tile> fits into": lambda w: Tiles.random(Grid.like(w.db, "scene"), within=(9, 47, 10, 48), count=1),
    "expected gap >= 0 and block >= tile + gap": lambda w: many(w).split(train=0.5, test=0.5, block=10, gap=10),
    "function <name>(<types>) does not exist": lambda w: layer(w, Labels("SELECT ST_Bufer(way, 6) AS geom FROM roads")),
    "can't go into one table with": lambda w: load.raster(
        w.db, [w.tif, write_tiff(w.folder / "one.tif", scene(0, (1, 20, 20)))], "never"
    ),
    "is there already; replace=True (--replace) drops it first": lambda w: load.raster(w.db, w.tif, "scene"),
    "does not say its coordinate system": lambda w: load.raster(
        w.db, write_tiff(w.folder / "nowhere.tif", scene(0, (1, 20, 20)), crs=None), "never"
    ),
    "the dataset itself decides on batches and their order": lambda w: TileDataset(
        w.db, many(w), {"i": Imagery("scene")}
    ).loader(shuffle=True),
    "Connection refused": lambda w: Database("postgresql://me@127.0.0.1:1/osm").table("roads"),
    'database "<name>" does not exist': lambda w: Database(re.sub(r"/\w+$", "/no_such", w.url)).table("roads"),
    "and is no export: name an empty folder": lambda w: exported(w, w.folder),
    "has <bands>, and <kind> holds": lambda w: exported(
        w, w.folder / "never", format="jpeg", layer=Imagery("scene", bands=(1, 2))
    ),
    "sources=True: <why>": lambda w: exported(
        w, w.folder / "never", sources=True, layer=Labels(ROADS.replace(" FROM", ", NULL::int AS id FROM"))
    ),
    "has the class <value>; known are": lambda w: exported(
        w, w.folder / "never", layer=Labels(ROADS.replace(" FROM", ", 7 AS value FROM")), classes={1: "road"}
    ),
    "does not take what it gets": lambda w: predict(
        torch.nn.Conv2d(5, 2, 1), TileDataset(w.db, many(w), {"i": Imagery("scene", dtype="float32")}), "never", overlap=0
    ),
    "canceling statement due to statement timeout": lambda w: read(
        Database(w.url + "?options=-cstatement_timeout%3D50"), many(w), {"m": Labels(ROADS + " AND pg_sleep(1) IS NOT NULL")}
    ),
}
WARNED = {
    "do labels and tiles meet?": lambda w: epoch(w, Labels(ROADS + " AND class > 99")),
    "<n> of <n> tiles of epoch <n> have no imagery at all": lambda w: list(
        TileDataset(w.db, Tiles(Grid.like(w.db, "scene"), np.array([10_000]), np.array([0])), {"i": Imagery("scene")})
    ),
    "though SRID and resolution are the tiles' own": lambda w: read(
        w.db, Tiles.random(Grid(srid=3857, resolution=RES, size=32, origin=(1, 1)), within=w.db.extent("scene", 3857), count=1),
        {"i": Imagery("scene")},
    ),
    "32BUI pixels come as float32": lambda w: layer(
        w, Imagery("SELECT ST_AddBand(tile.rast, '32BUI'::text, 70000) AS rast FROM tile")
    ),
    "is read from end to end although it has an index": lambda w: layer(
        w, Labels("SELECT way AS geom FROM roads WHERE ST_Intersects(ST_Buffer(way, 6), tile.geom)")
    ),
    "tiles were dropped because they lie within gap=": lambda w: many(w).split(train=0.5, test=0.5, block=600, gap=400),
}  # fmt: skip


@pytest.mark.parametrize("heading", MET)
def test_an_error_is_found_by_its_words(world, heading):
    with pytest.raises(PgtilesError) as caught:
        MET[heading](world)
    assert explained(str(caught.value)) == [heading]


@pytest.mark.parametrize("heading", WARNED)
def test_a_warning_is_found_by_its_words(world, heading):
    with pytest.warns(PgtilesWarning) as caught:
        WARNED[heading](world)
    assert explained(str(caught[0].message)) == [heading]


@pytest.mark.parametrize("file", sorted(DOCS.rglob("*.md")), ids=lambda file: file.stem)
def test_every_block_of_python_is_python(file):
    for indent, kind, code in FENCE.findall(file.read_text()):
        if kind == "python":
            compile(re.sub(f"(?m)^{indent}", "", code), file.name, "exec")
