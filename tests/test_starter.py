"""`pgtiles init`: what it proposes is what is there, runs as it is written, and burns widths in metres on the ground."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyproj
import pytest
from affine import Affine
from conftest import RES, X0, Y0, scene, write_tiff
from rasterio.transform import from_origin

from pgtiles import Database, Grid, Imagery, Labels, Tiles, load, read
from pgtiles.errors import ConfigError, DataError, MissingError, PgtilesWarning
from pgtiles.shell.starter import propose

ROOT = Path(__file__).parents[1]
MIDDLE = (X0 + 1250, Y0 - 1125)


@pytest.fixture
def imagery(db, tmp_path):
    """A database with one scene in EPSG:3857, at 47° N."""
    load.raster(db, write_tiff(tmp_path / "scene.tif", scene(0, (4, 900, 1000))), "sat")
    return db


def osm_line(
    db, table="planet_osm_line", srid=3857, columns="highway text, tags hstore", values="'primary', 'lanes=>4'", length=800
):
    """A table as osm2pgsql makes it, with one straight road from west to east through the middle."""
    with db.connection() as conn:
        conn.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        conn.execute(f"CREATE TABLE {table} (way geometry(LineString, {srid}), {columns})")
        half, (x, y) = length / 2, MIDDLE
        conn.execute(
            f"INSERT INTO {table} SELECT ST_Transform(ST_SetSRID(ST_MakeLine(ST_MakePoint({x - half}, {y}), "
            f"ST_MakePoint({x + half}, {y})), 3857), {srid}), {values}"
        )
        conn.execute(f"CREATE INDEX ON {table} USING gist (way)")
        conn.execute(f"ANALYZE {table}")


def pgtiles(*options, folder, url, code=0):
    """The command, as a user runs it."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pgtiles", *options], cwd=folder, env=os.environ | {"PGTILES_URL": url, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("srid", [3857, 4326, 32632])
def test_widths_are_metres_on_the_ground(imagery, srid):
    """A straight road of four lanes is 14 m wide, whatever its SRID and the tiles': measured on the ellipsoid."""
    osm_line(imagery, srid=srid)
    start = propose(imagery)
    assert (start.image, start.bands, start.srid, start.label.classes) == ("public.sat", (1, 2, 3), 3857, {1: "road"})
    fine = Grid(srid=3857, resolution=0.2, size=200)
    x, y = MIDDLE
    tiles = Tiles.sliding(fine, within=(x - 20, y - 20, x + 20, y + 20), stride=200)
    mask = read(imagery, tiles, {"mask": Labels(start.label.text, srid=start.label.srid)})["mask"]
    lon, lat = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform([x, x], [y - 10, y + 10])
    ground = pyproj.Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2] / 20  # metres in a unit of EPSG:3857
    assert mask[0].any(axis=0).all(), "the road crosses the tile"
    assert mask[0].sum(axis=0).mean() * 0.2 * ground == pytest.approx(14, rel=0.03)


def test_the_files_run_as_they_are(imagery, tmp_path):
    osm_line(imagery, length=2400)
    url = imagery_url(imagery)
    done = pgtiles("init", "first", folder=tmp_path, url=url)
    assert "wrote first/labels.sql\nwrote first/train.py\n" in done.stdout
    assert "native" in done.stdout
    assert (tmp_path / "first" / "preview.png").stat().st_size > 10_000
    script = tmp_path / "first" / "train.py"
    text = script.read_text()
    assert "EPOCHS, TILES, BATCH = 10, 256, 8" in text
    script.write_text(text.replace("= 10, 256, 8", "= 1, 64, 8"))
    ran = subprocess.run(
        [sys.executable, "-W", "error", "train.py"], cwd=script.parent, capture_output=True, text=True, check=False,
        env=os.environ | {"PGTILES_URL": url, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "test IoU: road" in ran.stdout
    assert (script.parent / "prediction.png").stat().st_size > 10_000
    assert (script.parent / "model.pt").stat().st_size > 10_000


def imagery_url(db):
    with db.connection() as conn:
        info = conn.info
        return f"postgresql://{info.user}{f':{info.password}' if info.password else ''}@{info.host}:{info.port}/{info.dbname}"


def test_what_is_there_is_never_replaced(imagery, tmp_path):
    osm_line(imagery)
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(ConfigError, match=r"train\.py is there already: name another folder"):
        propose(imagery).write(tmp_path)
    assert [p.name for p in tmp_path.iterdir() if p.suffix in {".py", ".sql", ".part"}] == ["train.py"]
    assert (tmp_path / "train.py").read_text() == "mine"


def test_imagery_in_degrees_gets_tiles_in_metres(db, tmp_path):
    step = 0.3 / 111_320
    tif = write_tiff(
        tmp_path / "d.tif", scene(0, (1, 700, 1800)), crs="EPSG:4326", transform=from_origin(24.9, 60.2, 2 * step, step)
    )
    load.raster(db, tif, "degrees")
    with db.connection() as conn:
        conn.execute("CREATE TABLE streets (geom geometry(LineString, 4326))")
        conn.execute("INSERT INTO streets VALUES ('SRID=4326;LINESTRING(24.89 60.1995, 24.92 60.1995)')")
        conn.execute("CREATE INDEX ON streets USING gist (geom); ANALYZE streets")
    start = propose(db)
    assert (start.srid, start.like, start.bands, start.label.srid) == (32635, False, (1,), 4326)
    assert start.resolution == (0.3, 0.3)
    assert "ST_Transform(geom, 32635)" in start.label.text


def test_roads_come_before_buildings_and_only_where_the_imagery_is(imagery):
    with imagery.connection() as conn:
        conn.execute(
            "CREATE TABLE planet_osm_line AS SELECT ST_SetSRID(ST_MakeLine(ST_Point(0, 0), ST_Point(9, 9)), 3857)::geometry(LineString, 3857) AS way, 'primary' AS highway"
        )
        conn.execute('CREATE SCHEMA "Cad"')
        conn.execute('CREATE TABLE "Cad"."House plans" ("The geom" geometry(Polygon, 3857))')
        conn.execute(
            f'INSERT INTO "Cad"."House plans" SELECT ST_Expand(ST_SetSRID(ST_Point({X0} + 40 * i, {Y0} - 20 * i), 3857), 8) FROM generate_series(1, 60) AS i'
        )
        conn.execute('CREATE INDEX ON "Cad"."House plans" USING gist ("The geom")')
    start = propose(imagery)
    assert start.label.classes == {1: "building"}
    assert '"Cad"."House plans"' in start.label.text
    tiles = Tiles.random(Grid.like(imagery, "sat", size=64), within=start.within, count=30)
    assert read(imagery, tiles, {"m": Labels(start.label.text, srid=start.label.srid)})["m"].any()
    west, _, _, north = start.within
    assert (west, north) == pytest.approx((X0 + 32, Y0 - 12), abs=RES)


def test_without_imagery_the_label_alone(helsinki, tmp_path):
    done = pgtiles("init", ".", folder=tmp_path, url=helsinki.url)
    assert "wrote labels.sql\n" in done.stdout
    assert "no train.py yet, for want of imagery" in done.stderr
    assert not (tmp_path / "train.py").exists()
    assert (tmp_path / "preview.png").stat().st_size > 5_000
    assert "tags->'lanes'" in (tmp_path / "labels.sql").read_text()
    with Database(helsinki.url) as db:
        start = propose(db)
        tiles = Tiles.random(Grid(srid=start.srid, resolution=start.resolution, size=256), within=start.within, count=8)
        assert np.mean(read(db, tiles, {"m": Labels(start.label.text, srid=start.label.srid)})["m"]) > 0.02


def test_nothing_to_propose(imagery):
    db = imagery
    with pytest.raises(MissingError, match="no table with a column of type geometry to make a label of: load some"):
        propose(db)
    with db.connection() as conn:
        conn.execute("CREATE TABLE far AS SELECT ST_SetSRID(ST_Point(0, 0), 3857)::geometry(Point, 3857) AS geom")
    with pytest.raises(MissingError, match="holds imagery, but no table has features where it lies"):
        propose(db)


def test_tables_that_one_may_not_read_are_left_out(imagery):
    osm_line(imagery)
    with imagery.connection() as conn:
        conn.execute(
            "CREATE TABLE trees AS SELECT ST_SetSRID(ST_Point({}, {}), 3857)::geometry(Point, 3857) AS geom FROM generate_series(1, 9)".format(
                *MIDDLE
            )
        )
        conn.execute("CREATE INDEX ON trees USING gist (geom)")
        conn.execute("INSERT INTO trees SELECT ST_Translate(geom, 1100, 900) FROM trees")
        conn.execute("DROP ROLE IF EXISTS init_reader")
        conn.execute("CREATE ROLE init_reader LOGIN PASSWORD 'reads'")
        conn.execute("GRANT SELECT ON trees, sat TO init_reader")
    url = imagery_url(imagery).replace(imagery_url(imagery).split("@")[0], "postgresql://init_reader:reads")
    try:
        with Database(url) as db:
            start = propose(db)
        assert "FROM public.trees" in start.label.text
        assert start.label.classes == {1: "trees"}
    finally:
        with imagery.connection() as conn:
            conn.execute("DROP OWNED BY init_reader")
            conn.execute("DROP ROLE init_reader")


class TestOddTables:
    """Each beside the imagery; what is proposed is read, too."""

    @pytest.mark.parametrize(
        ("columns", "values", "says", "wide"),
        [
            ("highway text, tags jsonb", """'primary', '{"lanes": "4"}'""", "tags->>'lanes'", 14),
            ("highway varchar(20), tags text", "'primary', 'lanes'", "1.75 * 2", 7),
            ("highway text, lanes int", "'primary', 3", "lanes::text", 10.5),
            ("highway text, lanes text", "'primary', '99'", "least(", 35),
            ("highway kind", "'primary'", "highway::text ~", 7),
            ("highway bool", "true", "4 m to each side", 8),
        ],
    )
    def test_columns_of_every_type(self, imagery, columns, values, says, wide):
        with imagery.connection() as conn:
            conn.execute("CREATE TYPE kind AS ENUM ('primary', 'path')")
        osm_line(imagery, columns=columns, values=values, srid=32632)
        start = propose(imagery)
        assert says in start.label.text
        x, y = MIDDLE
        tiles = Tiles.sliding(Grid(srid=3857, resolution=0.2, size=400), within=(x - 40, y - 40, x + 40, y + 40), stride=400)
        mask = read(imagery, tiles, {"mask": Labels(start.label.text, srid=start.label.srid)})["mask"]
        assert mask[0].sum(axis=0).mean() * 0.2 * 0.68 == pytest.approx(wide, rel=0.03)  # cos(47°)

    @pytest.mark.parametrize(
        ("kind", "values"), [("bool", ("true", "false")), ("text", ("'yes'", "'no'")), ("int", ("1", "NULL"))]
    )
    def test_buildings_of_every_type(self, imagery, kind, values):
        x, y = MIDDLE
        with imagery.connection() as conn:
            conn.execute(f"CREATE TABLE areas (geom geometry(Polygon, 3857), building {kind})")
            for k, value in enumerate(values):
                conn.execute(
                    f"INSERT INTO areas SELECT ST_SetSRID(ST_MakeEnvelope({x} + 100 * {k}, {y}, {x} + 100 * {k} + 50, {y} + 50), 3857), {value}"
                )
            conn.execute("CREATE INDEX ON areas USING gist (geom)")
        start = propose(imagery)
        tiles = Tiles.sliding(Grid(srid=3857, resolution=2.5, size=100), within=(x - 20, y - 100, x + 230, y + 150), stride=100)
        mask = read(imagery, tiles, {"m": Labels(start.label.text, srid=start.label.srid)})["m"]
        assert mask.sum() * 2.5**2 == pytest.approx(2500, rel=0.1)

    @pytest.mark.parametrize(
        "names", [("user", "order", "end"), ("a$b{c}", 'per%cent "q"', "new\nline"), ("Ä ö", "straße", "Größe")]
    )
    def test_names(self, imagery, names, tmp_path):
        schema, table, column = ('"' + name.replace('"', '""') + '"' for name in names)
        x, y = MIDDLE
        with imagery.connection() as conn:
            conn.execute(f"CREATE SCHEMA {schema}")
            conn.execute(
                f"CREATE TABLE {schema}.{table} AS SELECT ST_Expand(ST_SetSRID(ST_Point({x}, {y}), 3857), 30)::geometry(Polygon, 3857) AS {column}"
            )
            conn.execute(f"CREATE INDEX ON {schema}.{table} USING gist ({column})")
        start = propose(imagery)
        start.write(tmp_path)
        query = (tmp_path / "labels.sql").read_text("utf-8")
        tiles = Tiles.sliding(Grid.like(imagery, "sat", size=100), within=(x - 150, y - 150, x + 150, y + 150), stride=100)
        assert read(imagery, tiles, {"m": Labels(query, srid=start.label.srid)})["m"].any()
        compile((tmp_path / "train.py").read_text("utf-8"), "train.py", "exec")

    @pytest.mark.parametrize(
        ("statement", "says"),
        [
            ("CREATE VIEW street AS SELECT (1 / (x - x))::text AS n, ST_SetSRID(ST_Point(x, 1), 3857)::geometry(Point, 3857)::geometry AS geom FROM generate_series(1, 2) AS x WHERE 1 / (x - x) > 0", "division by zero"),
            ("CREATE TABLE street (geom geometry(LineString, 990001))", "990001"),
            ("CREATE TABLE second AS SELECT rid, rast, rast AS again FROM sat", "several raster columns"),
        ],
    )  # fmt: skip
    def test_what_can_not_be_looked_at_is_left_out_by_name(self, imagery, statement, says):
        osm_line(imagery, "zz_line", columns="note text", values="'a line'")
        with imagery.connection() as conn:
            conn.execute(statement)
        with pytest.warns(PgtilesWarning, match=f"(?s)is left out: .*{says}"):
            start = propose(imagery)
        assert "zz_line" in start.label.text

    def test_imagery_that_is_turned(self, db, tmp_path):
        turned = write_tiff(tmp_path / "t.tif", scene(0, (3, 400, 400)), transform=Affine(0, 2.5, X0, 2.5, 0, Y0 - 2000))
        load.raster(db, turned, "sat")
        osm_line(db)
        start = propose(db)
        assert (start.like, start.resolution) == (False, (2.5, 2.5))
        grid = Grid(srid=start.srid, resolution=start.resolution, size=64)
        tiles = Tiles.random(grid, within=start.within, count=2)
        with pytest.raises(DataError, match=r"turned by a right angle.*gdalwarp"):
            read(db, tiles, {"image": Imagery("sat")})
