"""Why a tile is empty, each by its own reason; and which rows made one that is not, by shapely and rasterio."""

import json
from io import StringIO

import numpy as np
import pytest
import shapely
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask
from matplotlib.image import imread
from psycopg.conninfo import make_conninfo
from rich.console import Console
from test_check import copied, execute
from test_cli import run

from pgtiles import Boxes, BySrid, Database, Grid, Imagery, Labels, TileDataset, Tiles, Value, bake, baked, read
from pgtiles.errors import ConfigError
from pgtiles.inspection.explaining import why
from pgtiles.shell.reports import show_json

GRID = Grid(srid=3857, resolution=RES, size=64, origin=(X0, Y0))
SIDE = 64 * RES
BLOCK = 128 * RES  # of the stored scene


def tile_at(col, row, id_=5):
    """The tile whose upper left corner is so many pixels right of and below the scene's."""
    return Tiles(GRID, np.array([col]), np.array([row]), np.array([id_]))


def explained(db, tiles, **layers):
    said = why(db, tiles, layers, 5)
    assert said.tile == 5
    return said.layers[0] if len(layers) == 1 else said.layers


def geometry(db, table, kind, wkt):
    execute(db, f"CREATE TABLE mine.{table} (id int PRIMARY KEY, way geometry({kind}, 3857), class int); "
                f"INSERT INTO mine.{table} VALUES (7, ST_GeomFromText('{wkt}', 3857), 3); "
                f"CREATE INDEX ON mine.{table} USING gist (way); ANALYZE mine.{table}")  # fmt: skip


class TestEmpty:
    def test_outside_the_imagery(self, world):
        """As far away as on the ground: a unit of EPSG:3857 there is cos(latitude) metres."""
        one = explained(world.db, tile_at(WIDTH + 400, 100), image=Imagery("scene"))
        latitude = 2 * np.arctan(np.exp((Y0 - 132 * RES) / 6378137)) - np.pi / 2
        assert one.empty
        assert one.reason.startswith("outside the imagery: the nearest row of public.scene, rid = ")
        metres = float(one.reason.rpartition(" is ")[2].removesuffix(" m away").replace(",", ""))
        assert metres == pytest.approx(400 * RES * np.cos(latitude), rel=0.01)
        assert one.rows == {"public.scene": []}

    def test_in_a_hole_of_the_imagery(self, schema_db):
        execute(schema_db, copied("s", "scene", "constraints"))
        tiles = tile_at(160, 160)
        box = ", ".join(map(str, tiles.bounds[0]))
        execute(schema_db, f"DELETE FROM mine.s WHERE ST_ConvexHull(rast) && ST_MakeEnvelope({box}, 3857)")
        one = explained(schema_db, tiles, image=Imagery("mine.s"))
        assert one.empty
        assert one.reason.startswith("in a hole of the imagery: the nearest row of mine.s")

    def test_no_feature_in_reach(self, schema_db):
        geometry(schema_db, "t", "Point", f"POINT({X0 + 1000} {Y0 - 1000})")
        one = explained(schema_db, tile_at(0, 0), mask=Labels("mine.t", buffer=30))
        assert one.empty
        assert one.reason.startswith("no feature in reach: the nearest row of mine.t, id = 7, is ")
        assert one.given == ()

    def test_an_empty_table(self, schema_db):
        geometry(schema_db, "t", "Point", "POINT(0 0)")
        execute(schema_db, "DELETE FROM mine.t")
        assert explained(schema_db, tile_at(0, 0), mask=Labels("mine.t")).reason == "no feature in reach: mine.t holds nothing"

    @pytest.mark.parametrize("source", ["table", "query"])
    def test_features_there_that_the_condition_leaves_out(self, schema_db, source):
        geometry(schema_db, "t", "Point", f"POINT({X0 + 20} {Y0 - 20})")
        query = "SELECT way AS geom FROM mine.t WHERE class = 2 AND way && tile.geom"
        label = Labels("mine.t", where="class = 2") if source == "table" else Labels(query)
        one = explained(schema_db, tile_at(0, 0), mask=label)
        assert one.empty
        assert one.reason.startswith("no feature matches the condition: 1 feature of mine.t on the tile")
        assert one.rows == {"mine.t": ["id = 7"]}

    def test_features_smaller_than_a_pixel(self, schema_db):
        """In a pixel's corner, away from its centre; all_touched burns it."""
        x, y = X0 + 10 * RES, Y0 - 10 * RES
        geometry(schema_db, "t", "Polygon", f"POLYGON(({x} {y},{x + 1} {y},{x + 1} {y - 0.5},{x} {y - 0.5},{x} {y}))")
        one = explained(schema_db, tile_at(0, 0), mask=Labels("mine.t"))
        assert one.empty
        assert one.reason.startswith("smaller than a pixel: 1 feature on the tile, but none covers")
        assert "1 × 0.5 CRS units, a pixel 2.5" in one.reason
        assert [(row["row"], row["meets"], row["dimension"]) for row in one.given] == [({"id": 7, "value": 1}, True, 2)]
        assert not explained(schema_db, tile_at(0, 0), mask=Labels("mine.t", all_touched=True)).empty

    def test_nothing_but_nodata(self, schema_db):
        execute(schema_db, copied("s", "scene", "constraints"))
        execute(schema_db, "UPDATE mine.s SET rast = ST_MapAlgebra(rast, 1, '8BUI', '0', 0)")
        one = explained(schema_db, tile_at(130, 130), image=Imagery("mine.s"))
        assert one.empty
        assert one.reason.startswith("nodata: 1 raster of mine.s on the tile")

    def test_a_query_in_the_wrong_srid(self, world):
        image, mask = explained(
            world.db, tile_at(0, 0), image=Imagery("scene"),
            mask=Labels("SELECT way AS geom FROM roads_4326 WHERE way && tile.geom"),
        )  # fmt: skip
        assert (image.empty, mask.empty) == (False, True)
        assert "public.roads_4326.way is in SRID 4326, the tile's envelope in 3857" in mask.reason

    def test_features_that_burn_the_background(self, schema_db):
        geometry(schema_db, "t", "Point", f"POINT({X0 + 20} {Y0 - 20})")
        one = explained(schema_db, tile_at(0, 0), mask=Labels("mine.t", value=0))
        assert one.reason == "1 feature on the tile, of value 0, which is the background"

    def test_a_value_and_boxes(self, world):
        tiles = tile_at(WIDTH + 4000, 100)
        boxes, value = explained(
            world.db,
            tiles,
            boxes=Boxes("areas"),
            value=Value("SELECT class AS value FROM areas WHERE way && tile.geom LIMIT 1"),
        )
        assert boxes.reason.startswith("no feature in reach: the nearest row of public.areas, id = ")
        assert value.reason == "the query gives no row there, or NULL"


def full(world):
    """A tile with imagery and areas."""
    tiles = Tiles.random(GRID, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=40, seed=2, first_id=100)
    return tiles, next(n for n, mask in enumerate(read(world.db, tiles, {"m": Labels("areas")})["m"]) if mask.any())


class TestTablesThatAreNotKnown:
    """The pixels are those of the scene itself: a tile that has some is not empty, and one without is not called outside."""

    def look(self, db, source, empty="the query gives nothing there; this user"):
        for at, reason in ((160, "made of what the query gives; 100.0% of the pixels have data"),
                           (WIDTH + 400, empty)):  # fmt: skip
            one = explained(db, tile_at(at, 160), image=Imagery(source))
            assert one.reason.startswith(reason)
            assert one.empty == (at > WIDTH)
            assert one.rows == {}

    def test_a_function_gives_the_rasters(self, schema_db):
        execute(schema_db, "CREATE FUNCTION mine.f() RETURNS SETOF public.scene LANGUAGE plpgsql STABLE AS "
                           "'BEGIN RETURN QUERY SELECT * FROM public.scene; END'")  # fmt: skip
        self.look(schema_db, "SELECT rast FROM mine.f() WHERE rast && tile.geom", "the query gives no raster")

    def test_a_view_gives_what_its_user_may_not_read_herself(self, schema_db):
        execute(schema_db, copied("s", "scene") + "CREATE VIEW mine.v AS SELECT rast FROM mine.s; CREATE ROLE why_reader LOGIN "
                           "PASSWORD 'reads'; GRANT USAGE ON SCHEMA mine TO why_reader; GRANT SELECT ON mine.v TO why_reader")  # fmt: skip
        try:
            with Database(make_conninfo(schema_db.conninfo, user="why_reader", password="reads")) as hers:
                self.look(hers, "mine.v")
        finally:
            execute(schema_db, "DROP OWNED BY why_reader; DROP ROLE why_reader")

    def test_baked(self, schema_db):
        tiles = tile_at(160, 160) + tile_at(WIDTH + 400, 160, 6)
        bake(schema_db, "mine.kept", tiles, {"image": Imagery("scene")})
        kept, layers = baked(schema_db, "mine.kept")
        full, empty = (why(schema_db, kept, layers, id_).layers[0] for id_ in (5, 6))
        assert (full.empty, full.reason) == (False, "made of what the query gives")
        assert (empty.empty, "outside" in empty.reason) == (True, False)


def test_tiles_on_several_grids(world):
    """The one that is explained is of its own grid."""
    other = Grid(srid=3857, resolution=RES, size=64, origin=(X0 + 1, Y0))
    tiles = tile_at(160, 160, 4) + Tiles(other, np.array([10]), np.array([10]), np.array([5]))
    one = explained(world.db, tiles, image=BySrid({3857: Imagery("scene")}))
    assert (one.empty, one.path) == (False, "warped")
    assert one.reason.endswith("of the pixels have data")


def test_the_rows_that_made_a_tile(world):
    """The features are those that meet it by shapely, the rasters the blocks of the file under it."""
    tiles, n = full(world)
    said = why(world.db, tiles, {"image": Imagery("scene"), "mask": Labels("areas", where="class > 1")}, 100 + n)
    image, mask = said.layers
    ground = shapely.box(*tiles.bounds[n])
    met = {i + 1 for i, shape in enumerate(world.features.areas) if shape.intersects(ground)}
    assert set(mask.rows["public.areas"]) == {f"id = {key}" for key in met}
    wanted = {key for key in met if world.features.value(key - 1) > 1}
    assert {row["row"]["id"] for row in mask.given if row["meets"]} == wanted
    (xmin, ymin, xmax, ymax), blocks = (
        tiles.bounds[n],
        ask(world.db, "SELECT rid, ST_UpperLeftX(rast), ST_UpperLeftY(rast) FROM scene"),
    )
    under = {rid for rid, x, y in blocks if x < xmax and y > ymin and x + BLOCK > xmin and y - BLOCK < ymax}
    assert set(image.rows["public.scene"]) == {f"rid = {rid}" for rid in under}
    assert (
        image.reason == f"made of {len(under)} raster{'s' * (len(under) > 1)} of public.scene; 100.0% of the pixels have data"
    )
    assert (image.empty, mask.empty) == (False, False)


def test_the_statement_runs_and_its_plan_is_there(world, tmp_path):
    tiles, n = full(world)
    said = TileDataset(world.db, tiles, {"image": Imagery("scene"), "mask": Labels("areas")}).why(100 + n)
    assert {row[0] for row in ask(world.db, said.sql)} == {0}
    assert "Buffers: shared" in said.plan
    assert "Execution Time" in said.plan
    assert np.array_equal(said.sample["mask"], read(world.db, tiles[n], {"mask": Labels("areas")})["mask"])
    said.plot(tmp_path / "tile.png")
    assert imread(tmp_path / "tile.png").std() > 0.05


def test_a_tile_that_is_not_there(world):
    with pytest.raises(ConfigError, match="tile 7: there is no tile of this id; there are 1 tiles, 5 to 5"):
        why(world.db, tile_at(0, 0), {"image": Imagery("scene")}, 7)


class TestCommand:
    def test_by_number_as_check_counts_them(self, world, tmp_path):
        options = ("--image", "scene", "--labels", "roads", "--buffer", 6, "--size", 64, "--url", world.url)
        said = json.loads(run("why", 3, *options, "--json", "--out", tmp_path / "tile.png").stdout)
        tiles = Tiles.random(GRID, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=64, seed=0)
        assert said["tile"] == 3
        assert said["bounds"] == tiles.bounds[3].tolist()
        assert {layer["layer"] for layer in said["layers"]} == {"image", "mask"}
        assert imread(tmp_path / "tile.png").shape[2] == 4

    def test_a_value_that_is_no_number_is_null_in_json(self, schema_db):
        execute(schema_db, f"CREATE TABLE mine.t AS SELECT 7 AS id, 'NaN'::float4 AS v, ST_SetSRID(ST_Point({X0 + 20}, {Y0 - 20}), "
                           "3857) AS way; CREATE INDEX ON mine.t USING gist (way); ANALYZE mine.t")  # fmt: skip
        said = why(schema_db, tile_at(0, 0), {"mask": Labels("mine.t", value="v", dtype="float32")}, 5)
        with StringIO() as text:
            show_json(Console(file=text, soft_wrap=True), said)
            [layer] = json.loads(text.getvalue(), parse_constant=pytest.fail)["layers"]
        assert [one["value"] for one in layer["given"]] == [None]

    def test_a_place_left_of_the_origin(self, world):
        done = run("why", "-100,3000", "--image", "scene", "--size", 64, "--url", world.url)
        assert "empty: outside the imagery" in done.stdout

    def test_by_place(self, world):
        x, y = X0 + 300, Y0 - 300
        done = run("why", f"{x},{y}", "--image", "scene", "--size", 64, "--url", world.url)
        xmin, ymin, xmax, ymax = map(float, done.stdout.partition("(")[2].partition(")")[0].split(","))
        assert (xmin + xmax) / 2 == pytest.approx(x, abs=RES)
        assert (ymin + ymax) / 2 == pytest.approx(y, abs=RES)
        assert "layer 'image': made of " in done.stdout
        assert "Execution Time" in done.stdout
