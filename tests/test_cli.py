"""The command, as a shell runs it: in a process of its own, with what it prints, writes and says where it fails."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import psycopg
import pytest
import shapely
from conftest import RES, X0, Y0, scene, write_tiff
from matplotlib.image import imread
from server_helpers import scratch

import pgtiles
from pgtiles import Database, Grid, Imagery, Labels, Tiles, Value, read
from pgtiles.__main__ import main
from pgtiles.errors import MissingError

CHECKOUT = Path(__file__).parents[1]
BOX = f"{X0},{Y0 - 500},{X0 + 500},{Y0}"


def clean(**more):
    """An environment that names no database; wide enough that no table wraps."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGTILES"))}
    return kept | {"PYTHONPATH": str(CHECKOUT), "COLUMNS": "300", "NO_COLOR": "1", "PGTILES_HOME": "/nonexistent"} | more


def run(*arguments, code=0, **more):
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", "pgtiles", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean(**more))
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def fails(*arguments, run=run, **more):
    """The one message of a command that fails: what stands after `error:`, to the end."""
    done = run(*arguments, code=2 if arguments[0] == "check" else 1, **more)  # 1 is that check found a problem
    assert done.stdout == ""
    assert done.stderr.count("error:") == 1
    return done.stderr.partition("error: ")[2].strip()


@pytest.fixture
def run_here(capfd, monkeypatch):
    """The same in this process, which is quicker: for what takes many runs to try."""

    def _run(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["pgtiles", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with warnings.catch_warnings(), pytest.raises(SystemExit) as exit_:
            main()
        said = capfd.readouterr()
        assert exit_.value.code == code, said
        return SimpleNamespace(stdout=said.out, stderr=said.err)

    return _run


@pytest.fixture
def label_file(tmp_path):
    path = tmp_path / "roads.sql"
    path.write_text(
        "-- 100 % of the {roads}: it's [all] of them;\n"
        "SELECT ST_Buffer(way, 6) AS geom, class AS value\nFROM roads\nWHERE ST_DWithin(way, tile.geom, 6)\n"
        "AND name LIKE 'roads %';\n"
    )
    return path


class TestLoad:
    def test_a_raster(self, database_url, db, tmp_path):
        pixels = scene(0, (2, 150, 200))
        west = write_tiff(tmp_path / "west.tif", pixels[:, :, :100])
        east = write_tiff(tmp_path / "east.tif", pixels[:, :, 100:], transform=(RES, 0, X0 + 100 * RES, 0, -RES, Y0))
        done = run("load", "raster", west, east, "s2", "--url", database_url)
        assert done.stdout == "public.s2: 4 rows, SRID 3857\n"
        assert done.stderr == f"database: {Database(database_url).name} (the URL given)\n"
        tiles = Tiles(Grid.like(db, "s2", size=(150, 200)), np.array([0]), np.array([0]))
        np.testing.assert_array_equal(read(db, tiles, {"i": Imagery("s2")})["i"][0], pixels)
        assert "s2" in fails("load", "raster", west, "s2", "--url", database_url)
        assert run("load", "raster", west, "s2", "--replace", "--url", database_url).stdout == "public.s2: 2 rows, SRID 3857\n"

    def test_vectors(self, database_url, db, tmp_path):
        features = [
            {"type": "Feature", "properties": {"Kind": f"k{i}"}, "geometry": {"type": "Point", "coordinates": [i, 50]}}
            for i in range(5)
        ]
        file = tmp_path / "points.geojson"
        file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        done = run("load", "vector", file, "points", PGTILES_URL=database_url, PGTILES_PROGRESS="1")
        assert done.stdout == "public.points: 5 rows, SRID 4326\n"
        assert "features" in done.stderr
        assert "5/5" in done.stderr
        with db.connection() as conn:
            rows = conn.execute("SELECT kind, ST_AsText(geom), ST_SRID(geom) FROM points ORDER BY fid").fetchall()
        assert rows == [(f"k{i}", f"POINT({i} 50)", 4326) for i in range(5)]

    def test_chips(self, database_url, db, tmp_path):
        for name, number in (("River [1]", 2), ("Forest", 3)):
            (tmp_path / "chips" / name).mkdir(parents=True)
            for chip in range(number):
                write_tiff(tmp_path / "chips" / name / f"{chip}.tif", scene(chip, (3, 20, 30)))
        (tmp_path / "chips" / "labels.csv").touch()
        done = run("load", "chips", tmp_path / "chips", "eurosat", "--url", database_url, PGTILES_PROGRESS="1")
        assert done.stdout.startswith("public.eurosat: 5 rows, SRID 3857\n")
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
        assert rows == [["Forest", "0", "3"], ["River [1]", "1", "2"]]
        assert "5/5" in done.stderr
        assert "note: 1 left out, for it is no image in a class's folder: labels.csv" in done.stderr
        names = {"db": db, "Tiles": Tiles, "Imagery": Imagery, "Value": Value}
        exec(done.stdout.partition("in Python, with the class as a target:\n")[2], names)
        batch = read(db, names["tiles"], names["layers"])
        assert batch["label"].tolist() == [0, 0, 0, 1, 1]
        np.testing.assert_array_equal(batch["image"][4], scene(1, (3, 20, 30)))
        assert "is there already" in fails("load", "chips", tmp_path / "chips", "eurosat", "--url", database_url)
        assert "holds no folders" in fails("load", "chips", tmp_path / "chips" / "Forest", "t", "--url", database_url)

    def test_a_mask_in_colours(self, database_url, db, tmp_path):
        classes = np.random.default_rng(0).integers(0, 2, (40, 50))
        pixels = np.array([(255, 255, 255), (0, 0, 255)], "uint8")[classes].transpose(2, 0, 1)
        path = write_tiff(tmp_path / "mask.tif", pixels)
        colours = "road and such=#FFFFFF, building=9:#0000ff"
        done = run("load", "raster", path, "mask", "--colours", colours, "--url", database_url)
        assert done.stdout == "public.mask: 1 rows, SRID 3857\n"
        tiles = Tiles(Grid.like(db, "mask", size=(40, 50)), np.array([0]), np.array([0]))
        np.testing.assert_array_equal(read(db, tiles, {"m": Labels("mask")})["m"][0], np.array([1, 9])[classes])
        with db.connection() as conn:
            (comment,) = conn.execute("SELECT col_description('mask'::regclass, 2)").fetchone()
        assert comment == 'classes: {"road and such": 1, "building": 9}'
        unknown = fails("load", "raster", path, "m2", "--colours", "road=#ffffff", "--url", database_url)
        assert f"#0000ff at {(classes == 1).sum()} pixels" in unknown

    @pytest.mark.parametrize(
        "colours", ["", "road", "road=white", "road=#fff", "=#ffffff", "road=x:#ffffff", "road=#ffffff,", "a,b=#ffffff"]
    )
    def test_colours_that_are_none(self, colours):
        said = fails("load", "raster", "x.tif", "m", "--colours", colours, "--url", "postgresql://h/d")
        assert "expected NAME=#rrggbb or NAME=VALUE:#rrggbb, with commas between" in said

    def test_colours_given_twice(self):
        said = fails("load", "raster", "x.tif", "m", "--colours", "a=#ffffff,a=#000000", "--url", "postgresql://h/d")
        assert "--colours: 'a' is given twice" in said

    def test_notes_are_said(self, database_url, tmp_path):
        file = write_tiff(tmp_path / "odd [1].tif", scene(0, (1, 20, 20)))
        done = run("load", "raster", file, "t", "--srid", 32631, "--url", database_url)
        assert done.stdout == "public.t: 1 rows, SRID 32631\n"
        assert "\nnote: " in done.stderr
        assert "odd [1].tif: says that its SRID is 3857; srid=32631 was given" in done.stderr

    def test_errors(self, database_url, tmp_path):
        (tmp_path / "text.tif").write_text("no raster, no features")
        assert "there is no file /no/such.tif" in fails("load", "raster", "/no/such.tif", "t", "--url", database_url)
        for kind in ("raster", "vector"):
            assert "text.tif" in fails("load", kind, tmp_path / "text.tif", "t", "--url", database_url)
        assert "postgresql://user@host:port/dbname" in fails(
            "load", "raster", tmp_path / "text.tif", "t", "--url", "mysql://h/d"
        )


class TestPreview:
    def test_image_and_labels(self, world, label_file, tmp_path):
        out = tmp_path / "some [bold] :car: where.png"
        options = ("--image", "scene", "--labels", label_file, "--size", 64, "--count", 3, "--seed", 5)
        done = run("preview", *options, "--out", out, "--url", world.url)
        assert done.stdout == f"{out}: 3 tiles of 64 × 64 px at 2.5 × 2.5 CRS units, SRID 3857\n"
        assert "(the URL given)" in done.stderr
        assert urlsplit(world.url).password not in done.stderr + done.stdout
        pixels = imread(out)[..., :3]
        assert pixels.shape[0] > pixels.shape[1]  # three rows, two columns
        assert pixels.std() > 0.1

    def test_options_reach_the_picture(self, world, tmp_path):
        options = ("--labels", "areas", "--value", "class", "--srid", 3857, "--resolution", 5, "--size", 32, "--within", BOX)
        pictures = []
        for more in ((), ("--where", "class = 2"), ("--buffer", "20")):
            run("preview", *options, *more, "--out", tmp_path / "p.png", "--url", world.url)
            pictures.append((tmp_path / "p.png").read_bytes())
        assert len(set(pictures)) == 3

    def test_one_band_of_a_query(self, world, tmp_path):
        (tmp_path / "image.sql").write_text("SELECT rast FROM scene WHERE ST_ConvexHull(rast) && tile.geom")
        options = ("--srid", 3857, "--resolution", 2.5, "--within", BOX, "--size", 32)
        query = ("--image", tmp_path / "image.sql", "--bands", "2")
        done = run("preview", *query, *options, "--out", tmp_path / "p.png", "--url", world.url)
        assert "4 tiles of 32 × 32 px" in done.stdout
        assert imread(tmp_path / "p.png").std() > 0.1

    def test_nothing_is_left_where_it_fails(self, world, tmp_path):
        query = "SELECT tile.geom AS geom, 1 / (tile.id - 2) AS value FROM tile"
        options = ("--srid", 3857, "--resolution", 5, "--within", BOX, "--size", 8, "--out", tmp_path / "p.png")
        assert "tile 2 at" in fails("preview", "--labels", query, *options, "--url", world.url)
        assert "/no/folder" in fails("preview", "--labels", "areas", *options[:-1], "/no/folder/p.png", "--url", world.url)
        assert list(tmp_path.iterdir()) == []


class TestSql:
    OPTIONS = ("--image", "scene", "--size", 64, "--count", 3, "--seed", 7)

    @pytest.fixture
    def statement(self, world, label_file):
        done = run("sql", *self.OPTIONS, "--labels", label_file, "--url", world.url)
        assert done.stdout.rstrip().endswith(";")
        return done.stdout

    def fragments(self, world):
        """How many rows there must be: stored blocks that meet a tile, and values of roads that do, by shapely."""
        tiles = Tiles.random(Grid.like(world.db, "scene", size=64), within=world.db.extent("scene", 3857), count=3, seed=7)
        with world.db.connection() as conn:
            hulls = [shapely.from_wkb(row[0]) for row in conn.execute("SELECT ST_AsBinary(ST_ConvexHull(rast)) FROM scene")]
        meets = [[h for h in hulls if shapely.area(shapely.intersection(h, shapely.box(*b))) > 1e-6] for b in tiles.bounds]
        near = [
            {world.features.value(i) for i, g in enumerate(world.features.lines) if g.distance(shapely.box(*b)) <= 6}
            for b in tiles.bounds
        ]
        return {0: sum(map(len, meets)), 1: sum(map(len, near))}

    def test_it_runs_as_it_stands(self, world, statement):
        with psycopg.connect(world.url) as conn:
            rows = conn.execute(statement).fetchall()
        assert {layer: sum(row[1] == layer for row in rows) for layer in (0, 1)} == self.fragments(world)
        assert {row[0] for row in rows} == {0, 1, 2}
        assert all(row[4] for row in rows)

    def test_it_runs_in_psql(self, world, statement):
        psql = shutil.which("psql")
        if not psql:
            pytest.skip("psql is not on the PATH")
        command = [psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", world.url]
        done = subprocess.run(command, input=statement, capture_output=True, text=True, check=True)
        assert len(done.stdout.splitlines()) == sum(self.fragments(world).values())

    def test_nothing_but_the_statement_is_on_stdout(self, statement):
        assert statement.lstrip().startswith(("--", "WITH"))
        assert "database:" not in statement

    def test_a_reader_that_stops_is_no_error(self, world):
        code = f"{sys.executable} -m pgtiles sql --image scene --count 5000 --size 64 --url '{world.url}' | head -c 10"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", code], capture_output=True, text=True, check=False, env=clean())
        assert len(done.stdout) == 10
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr


class TestCheck:
    def test_paths_and_reasons(self, world, label_file):
        done = run("check", "--image", "scene", "--labels", label_file, "--size", 64, "--url", world.url)
        assert "64 tiles of 64 × 64 px at 2.5 × 2.5 CRS units, SRID 3857" in done.stdout
        image, mask = (next(line for line in done.stdout.splitlines() if f" {name} " in line) for name in ("image", "mask"))
        for line, words in ((image, ("native", "3 × 64 × 64", "uint8", "0 of 64", "as they are stored")),
                            (mask, ("burned", "64 × 64", "int64", "burned on the tile's pixels"))):  # fmt: skip
            assert all(word in line for word in words), line
        assert "warning" not in done.stderr

    def test_empty_tiles_are_counted(self, world):
        """As many as no area reaches into, by shapely."""
        options = ("--labels", "areas", "--srid", 3857, "--resolution", 2.5, "--size", 16, "--within", BOX, "--count", 50)
        done = run("check", *options, "--seed", 3, "--url", world.url)
        grid = Grid(srid=3857, resolution=2.5, size=16)
        tiles = Tiles.random(grid, within=tuple(map(float, BOX.split(","))), count=50, seed=3)
        land = shapely.union_all(world.features.areas)
        without = int((shapely.area(shapely.intersection(land, shapely.box(*tiles.bounds.T))) == 0).sum())
        assert 0 < without < 50
        assert f" {without} of 50 " in done.stdout

    def test_what_is_slow_is_said_once(self, world):
        options = ("--image", "scene", "--labels", "SELECT way AS geom FROM roads", "--size", 32, "--count", 2)
        done = run("check", *options, "--url", world.url, code=1)
        assert (done.stdout + done.stderr).count("is read from end to end although it has an index") == 1
        assert "\nproblem: layer 'mask': " in done.stdout
        assert ".py" not in done.stderr

    def test_the_warped_path(self, world):
        done = run("check", "--image", "scene", "--resolution", 4, "--size", 32, "--count", 2, "--url", world.url)
        assert "warped" in done.stdout

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ((), "give --image, --labels or both"),
            (("--labels", "roads"), "give --srid and --resolution"),
            (("--labels", "SELECT way AS geom FROM roads", "--srid", "3857", "--resolution", "5"), "give --within"),
            (("--image", "scene", "--srid", "3857"), "give --srid and --resolution"),
            (("--image", "scene", "--within", "1,2,3,x"), "--within 1,2,3,x: expected numbers"),
            (("--image", "scene", "--bands", "red"), "--bands red: expected numbers"),
            (("--image", "scene", "--count", "0"), "count=0"),
            (("--image", "scene", "--labels", "roads", "--value", "klass"), "no column 'klass'; near are class"),
            (("--image", "scene", "--labels", "no/[bold]:car:.sql"), "there is no file no/[bold]:car:.sql"),
            (("--image", "scene", "--labels", "SELECT way[1] AS geom"), "line 1: SELECT way[1] AS geom\n                 ^"),
            (("--image", "scene", "--labels", f"SELECT {'way, ' * 80} way AS geom FORM roads"), "syntax error"),
        ],
    )  # fmt: skip
    def test_errors(self, world, run_here, options, says):
        assert says in fails("check", *options, "--url", world.url, run=run_here)

    def test_without_a_region_the_whole_label_table(self, world):
        """As large as shapely finds it."""
        options = ("--labels", "areas", "--srid", 3857, "--resolution", 50, "--size", 16, "--count", 20)
        run("check", *options, "--url", world.url)
        want = shapely.total_bounds(world.features.areas)
        assert world.db.extent("areas", 3857) == pytest.approx(tuple(want), abs=1e-6)

    def test_metres_in_degrees_are_warned_of(self, world):
        for text, warned in (
            ("SELECT ST_Buffer(way, 2) AS geom FROM roads_4326 WHERE way && tile.geom", True),
            ("SELECT way AS geom FROM roads_4326 WHERE ST_DWithin(way, ST_Envelope(tile.geom), 6.5)", True),
            ("SELECT ST_Buffer(ST_Transform(way, 3857), 2) AS geom FROM roads_4326 WHERE way && tile.geom", False),
            ("SELECT ST_Buffer(way, 0.0001) AS geom FROM roads_4326 WHERE way && tile.geom", False),
            ("SELECT ST_Buffer(way::geography, 5)::geometry AS geom FROM roads_4326 WHERE way && tile.geom", False),
        ):
            done = run(
                "check",
                "--image",
                "scene",
                "--labels",
                text,
                "--label-srid",
                4326,
                "--size",
                32,
                "--count",
                2,
                "--url",
                world.url,
                code=int(warned),
            )
            assert ("is in degrees, of 111 km each" in done.stdout) == warned, text

    def test_a_file_that_is_no_text(self, world, tmp_path):
        (tmp_path / "latin.sql").write_bytes("SELECT 'é'".encode("latin-1"))
        said = fails("check", "--image", "scene", "--labels", tmp_path / "latin.sql", "--url", world.url)
        assert "latin.sql is not text in UTF-8" in said


def test_without_a_database():
    assert "no database is named" in fails("check", "--image", "scene")
    said = fails("sql", "--image", "scene", "--url", "postgresql://me:s3cret@127.0.0.1:1/db")
    assert said.startswith("me@127.0.0.1:1/db: ")
    assert "s3cret" not in said


def test_a_server_up_and_down():
    """From nothing to a load that finds it by itself, and back."""
    with scratch() as folder:
        home = folder / "home [x]"
        assert run("status", "--path", home, code=3).stdout == f"down: {home}\n"
        assert run("down", "--path", home).stderr == "it was not running\n"
        up = run("up", "--path", home)
        assert f"started: {home}\n" in up.stderr
        url = up.stdout.strip()
        try:
            assert url.startswith("postgresql://pgtiles:")
            with psycopg.connect(url) as conn:
                assert conn.execute("SELECT postgis_lib_version() IS NOT NULL").fetchone() == (True,)
            again = run("up", "--path", home)
            assert (again.stdout.strip(), f"already running: {home}\n" in again.stderr) == (url, True)
            assert run("status", "--path", home).stdout == f"running: {home}\n{url}\n"
            file = write_tiff(folder / "t.tif", scene(0, (1, 40, 40)))
            assert "public.t: 1 rows" in run("load", "raster", file, "t", PGTILES_HOME=str(home)).stdout
            done = run("check", "--image", "t", "--size", 32, "--count", 2, PGTILES_HOME=str(home))
            assert "(the local server)" in done.stderr
        finally:
            assert run("down", "--path", home).stderr == "stopped\n"
        assert run("status", "--path", home, code=3).stdout == f"down: {home}\n"
        assert "no database is named" in fails("check", "--image", "t", PGTILES_HOME=str(home))


@pytest.mark.parametrize("command", ["", "up", "down", "status", "load", "load raster", "load vector", "demo"])
def test_help(run_here, command):
    said = run_here(*command.split(), "--help").stdout
    assert f"pgtiles {command}".strip() in said
    assert "--help" in said


@pytest.mark.parametrize(("command", "count"), [("preview", 4), ("sql", 2), ("check", 64)])
def test_help_tells_the_shared_options(run_here, command, count):
    said = run_here(command, "--help").stdout
    names = (
        "image",
        "bands",
        "labels",
        "where",
        "value",
        "buffer",
        "srid",
        "resolution",
        "size",
        "within",
        "seed",
        "url",
        "count",
    )
    assert all(f"--{name} " in said for name in names)
    assert f"[default: {count}]" in said
    assert f"pgtiles {command}" in said


def test_the_version_is_said(run_here):
    assert run_here("--version").stdout == f"pgtiles {pgtiles.__version__}\n"


def test_the_folder_that_the_server_sees_goes_with_out_db(database_url, tmp_path):
    file = write_tiff(tmp_path / "t.tif", scene(0, (1, 20, 20)))
    said = fails("load", "raster", file, "t", "--seen-in", "/data", "--url", database_url)
    assert "--seen-in goes with --out-db" in said
    with Database(database_url) as db, pytest.raises(MissingError):
        db.table("t")


def test_wrong_options_are_a_usage_error(run_here):
    done = run_here("check", "--no-such-option", code=2)
    assert "--no-such-option" in done.stderr


def modules(code):
    """The modules that Python has imported after this code."""
    code += "\nimport sys; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean()).stdout.split()
    )


HEAVY = {"torch", "sqlalchemy", "geoalchemy2", "matplotlib", "rasterio", "pyogrio"}


def test_importing_brings_nothing_heavy():
    assert not modules("import pgtiles") & (HEAVY | {"psycopg", "numpy", "shapely", "typer"})
    assert not modules("import pgtiles.shell.cli") & HEAVY
    assert not modules("from pgtiles import Database, Grid, Tiles, Imagery, Labels, read, load") & HEAVY


def test_without_typer_it_says_what_to_install(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(\"No module named 'typer'\", name='typer')")
    done = run("status", code=1, PYTHONPATH=f"{tmp_path}{os.pathsep}{CHECKOUT}")
    assert done.stderr == "the command line needs typer and rich: pip install 'pgtiles[cli]'\n"


def test_everything_the_package_offers_is_there():
    assert all(getattr(pgtiles, name) for name in pgtiles.__all__)
    with pytest.raises(AttributeError, match="module 'pgtiles' has no attribute 'nothing'"):
        pgtiles.nothing  # noqa: B018


def test_database_source_is_said(world):
    done = run("sql", "--image", "scene", "--size", 32, PGTILES_URL=world.url)
    assert done.stderr == f"database: {Database(world.url).name} (PGTILES_URL)\n"
