"""Pixels that a trainer leaves out: beyond a coverage, around features, and where imagery is missing. rasterio and shapely say which."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from conftest import RES, X0, Y0, ask, scene, write_tiff
from rasterio.features import rasterize
from rasterio.transform import from_origin

from pgtiles import Grid, Imagery, Labels, TileDataset, Tiles, load, plot, read
from pgtiles.errors import ConfigError, MissingError, PgtilesWarning, QueryError
from pgtiles.layers import legend
from pgtiles.streaming.reading import Plan, read_batch

ROADS = "SELECT way AS geom FROM roads WHERE way && tile.geom"
AREAS = "SELECT way AS geom FROM areas WHERE way && tile.geom"
FETCHED = {}
METRE = 1 / math.cos(math.radians(47.2))  # units of EPSG:3857 in a metre on the ground here, to 1 %


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=40, seed=5)


def burned(shapes, tiles, i, **how):
    """Whether a shape is burned on each pixel of a tile."""
    xmin, _, _, ymax = tiles.bounds[i]
    found = np.array(shapes, object)[shapely.intersects(shapes, shapely.box(*tiles.bounds[i]).buffer(20))]
    if not len(found):
        return np.zeros(tiles.grid.shape, bool)
    return rasterize(found, out_shape=tiles.grid.shape, transform=from_origin(xmin, ymax, *tiles.grid.pixel), **how).astype(
        bool
    )


def rows(world, table):
    """What a table of the base data holds, fetched once."""
    if table not in FETCHED:
        FETCHED[table] = [shapely.from_wkb(way) for (way,) in ask(world.db, f"SELECT ST_AsBinary(way) FROM {table}")]
    return FETCHED[table]


class TestCoverage:
    @pytest.mark.parametrize("how", ["query", "table", "classes", "touched"])
    def test_what_it_does_not_burn_is_ignored(self, world, tiles, how):
        touched = how == "touched"
        lines = {"a": "roads"} if how == "classes" else ROADS
        layer = Labels(lines, coverage="areas" if how == "table" else AREAS, ignore_index=255, all_touched=touched)
        got = read(world.db, tiles, {"m": layer})["m"]
        off = 0
        for i in range(len(tiles)):
            covered = burned(rows(world, "areas"), tiles, i, all_touched=touched)
            line = burned(rows(world, "roads"), tiles, i, all_touched=touched)
            off += int((got[i] != np.where(covered, line, 255)).sum())
        assert off <= (got.size / 10_000 if touched else 0)
        assert {0, 1, 255} == set(np.unique(got))
        empty = [i for i in range(len(tiles)) if not burned(rows(world, "areas"), tiles, i).any()]
        assert len(empty) > 0
        assert touched or (got[empty] == 255).all()

    def test_of_areas_and_lines_together(self, world, tiles):
        both = f"{AREAS} UNION ALL {ROADS}"
        got = read(world.db, tiles, {"m": Labels("trees", coverage=both, ignore_index=255)})["m"]
        covered = [*rows(world, "areas"), *rows(world, "roads")]
        np.testing.assert_array_equal(got != 255, np.stack([burned(covered, tiles, i) for i in range(len(tiles))]))

    def test_in_another_srid(self, world, tiles):
        """A query's SRID is the layer's, a table's its own."""
        layers = {
            "table": Labels("roads", coverage="areas_4326", ignore_index=9),
            "query": Labels(
                "roads", coverage="SELECT way AS geom FROM areas_4326 WHERE way && tile.geom", ignore_index=9, srid=4326
            ),
        }
        got = read(world.db, tiles, layers)
        np.testing.assert_array_equal(got["table"], got["query"])
        moved = [
            shapely.from_wkb(way) for (way,) in ask(world.db, "SELECT ST_AsBinary(ST_Transform(way, 3857)) FROM areas_4326")
        ]
        want = np.stack([burned(moved, tiles, i) for i in range(len(tiles))])
        np.testing.assert_array_equal(got["table"] != 9, want)

    def test_a_shape(self, world, tiles):
        """With a hole, in two parts, far larger than the tiles; one that meets no tile leaves nothing."""
        middle = shapely.Point(X0 + 1200, Y0 - 1000)
        shape = shapely.union_all([middle.buffer(900).difference(middle.buffer(300)), shapely.box(X0, Y0 - 300, X0 + 1e6, Y0)])
        got = read(world.db, tiles, {"m": Labels(ROADS, coverage=shape, ignore_index=-1, dtype="int8")})["m"]
        for i in range(len(tiles)):
            want = np.where(burned([shape], tiles, i), burned(rows(world, "roads"), tiles, i), -1)
            np.testing.assert_array_equal(got[i], want)
        far = read(world.db, tiles[:3], {"m": Labels(ROADS, coverage=shapely.box(0, 0, 1, 1), ignore_index=255)})["m"]
        assert (far == 255).all()

    def test_values_and_priorities_of_the_coverage_say_nothing(self, world, tiles):
        odd = "SELECT way AS geom, 'x' AS value, 1 / 3.0 AS priority FROM areas WHERE way && tile.geom"
        got = [read(world.db, tiles, {"m": Labels("roads", coverage=c, ignore_index=7)})["m"] for c in (odd, AREAS)]
        np.testing.assert_array_equal(*got)

    def test_it_is_no_label(self, world, tiles):
        """A tile that nothing but the coverage and the band around a feature reach is empty."""
        nothing = "SELECT way AS geom FROM roads WHERE way && tile.geom AND false"
        plan = Plan.open(world.db, tiles, {"m": Labels(nothing, coverage=AREAS, ignore_index=255, contact=3)})
        assert read_batch(world.db, plan, tiles).empty == (40,)
        layers = {"m": Labels(ROADS, coverage=AREAS, ignore_index=255, contact=30), "bare": Labels(ROADS)}
        some, same = read_batch(world.db, Plan.open(world.db, tiles, layers), tiles).empty
        assert 0 < some == same

    def test_a_table_with_two_geometries_is_said_in_a_query(self, schema_db, tiles):
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE plots AS SELECT way AS outline, ST_Centroid(way) AS middle FROM areas")
            conn.execute("CREATE INDEX ON plots USING gist (outline)")
        with pytest.raises(ConfigError, match=r"^layer 'm', coverage: mine.plots has 2 geometry columns.*") as error:
            read(schema_db, tiles, {"m": Labels(ROADS, coverage="plots", ignore_index=255)})
        query = str(error.value).split("coverage='")[1].removesuffix("'")
        layers = {"m": Labels(ROADS, coverage=query, ignore_index=255), "same": Labels(ROADS, coverage=AREAS, ignore_index=255)}
        got = read(schema_db, tiles, layers)
        np.testing.assert_array_equal(got["m"], got["same"])

    def test_of_a_label_raster_it_is_cut_in_a_query(self, world, schema_db, tiles):
        """As the page says, on the native path and off the lattice."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE landcover AS SELECT rid, ST_Band(rast, 1) AS rast FROM scene")
            conn.execute("CREATE INDEX ON landcover USING gist (ST_ConvexHull(rast))")
            conn.execute("CREATE VIEW mapped AS SELECT way AS geom FROM areas; ANALYZE landcover")
        page = (Path(__file__).parents[1] / "docs" / "label-queries.md").read_text()
        (query,) = re.findall(r"```sql title=\"a label raster, cut\"\n(.*?)```", page, re.S)
        got = read(schema_db, tiles, {"m": Labels(query, background=255, dtype="uint8")})["m"]
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            covered = burned(rows(world, "areas"), tiles, i)
            np.testing.assert_array_equal(got[i], np.where(covered, world.pixels[0, row : row + 64, col : col + 64], 255))
        assert {True, False} == set((got == 255).ravel())

    def test_errors_name_it(self, world, tiles):
        with pytest.raises(QueryError, match=r"(?s)^layer 'm', coverage: .*klass.*\^"):
            read(
                world.db,
                tiles,
                {"m": Labels(ROADS, ignore_index=255, coverage="SELECT way AS geom FROM areas WHERE klass = 1")},
            )
        with pytest.raises(MissingError, match=r"^layer 'm', coverage: .*nowhere"):
            read(world.db, tiles, {"m": Labels(ROADS, ignore_index=255, coverage="nowhere")})
        with pytest.raises(QueryError, match=r"^layer 'm', coverage: .*rasters.*expected a column geom"):
            read(world.db, tiles, {"m": Labels(ROADS, ignore_index=255, coverage="scene")})
        bad = "SELECT tile.geom AS geom FROM tile WHERE 1 / (tile.id - 5) = 1"
        with pytest.raises(QueryError, match=r"layer 'm', coverage, tile 5 at \(.*\): division by zero"):
            read(world.db, tiles, {"m": Labels(ROADS, ignore_index=255, coverage=bad)})
        slow = "SELECT way AS geom FROM areas WHERE ST_Intersects(ST_Buffer(way, 6), tile.geom)"
        with pytest.warns(PgtilesWarning, match="layer 'm', coverage: public.areas is read from end to end"):
            Plan.open(world.db, tiles, {"m": Labels(ROADS, ignore_index=255, coverage=slow)})


class TestContact:
    def test_a_band_around_features_beneath_them(self, world, tiles):
        """At the tiles' own scale, which is METRE here to a part in 100: the band is one pixel off at most at its outer rim."""
        got = read(world.db, tiles, {"m": Labels({"area": "areas", "road": "roads"}, contact=10, ignore_index=255)})["m"]
        shapes = [*rows(world, "areas"), *rows(world, "roads")]
        narrow, wide = (list(shapely.buffer(shapes, 10 * METRE * by)) for by in (0.97, 1.03))
        for i in range(len(tiles)):
            road, area = burned(rows(world, "roads"), tiles, i), burned(rows(world, "areas"), tiles, i)
            feature = np.where(road, 2, np.where(area, 1, 0))
            free = feature == 0
            np.testing.assert_array_equal(got[i][~free], feature[~free])
            ignored = got[i] == 255
            assert (ignored[free] >= burned(narrow, tiles, i)[free]).all()
            assert (ignored[free] <= burned(wide, tiles, i)[free]).all()
        assert (got == 255).any()

    def test_beyond_the_buffer(self, world, tiles):
        """The band begins where the widened feature ends, and reaches as far as a feature that is as much wider."""
        layers = {
            "both": Labels("roads", buffer=4, contact=7, ignore_index=255),
            "inner": Labels("roads", buffer=4),
            "outer": Labels("roads", buffer=11, value=255),
        }
        got = read(world.db, tiles, layers)
        np.testing.assert_array_equal(got["both"], np.where(got["inner"] == 1, 1, got["outer"]))
        assert {0, 1, 255} == set(np.unique(got["both"]))

    def test_values_and_priorities_stay_as_they_are(self, world, tiles):
        query = "SELECT way AS geom, class AS value, 'p' || (9 - class) AS priority FROM areas WHERE way && tile.geom"
        got = read(world.db, tiles, {"band": Labels(query, contact=20, ignore_index=200), "bare": Labels(query)})
        np.testing.assert_array_equal(np.where(got["band"] == 200, 0, got["band"]), got["bare"])
        assert (got["band"] == 200).any()


class TestMissing:
    @pytest.fixture
    def scenes(self, db, tmp_path):
        """A scene with a hole, and a label that covers all of it and more."""
        pixels = scene(1, (2, 150, 150))
        pixels[0, 20:60, 30:90] = 0
        load.raster(db, write_tiff(tmp_path / "t.tif", pixels, nodata=0), "t")
        with db.connection() as conn:
            conn.execute("CREATE TABLE land (way geometry(Polygon, 3857)); CREATE INDEX ON land USING gist (way)")
            conn.execute(f"INSERT INTO land VALUES (ST_MakeEnvelope({X0}, {Y0 - 200}, {X0 + 900}, {Y0 + 100}, 3857))")
        grid = Grid.like(db, "t", size=80)
        return db, Tiles(grid, np.array([0, 100, -40]), np.array([0, 100, -40])), pixels

    @pytest.mark.parametrize("layer", [Labels("land", ignore_index=255, ignore_missing="image"),
                                       Labels({"land": "land"}, ignore_index=255, ignore_missing="image")])  # fmt: skip
    def test_where_imagery_has_no_data(self, scenes, layer):
        db, tiles, pixels = scenes
        got = read(db, tiles, {"mask": layer, "image": Imagery("t", valid=True), "bare": Labels("land")})
        wide = np.zeros((400, 400), bool)
        wide[100:250, 100:250] = (pixels != 0).all(axis=0)
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            there = wide[100 + row : 180 + row, 100 + col : 180 + col]
            np.testing.assert_array_equal(got["mask"][i], np.where(there, got["bare"][i], 255))
        assert {0, 1, 255} == set(np.unique(got["mask"]))

    def test_of_a_label_raster_too(self, scenes):
        db, tiles, _ = scenes
        layer = Labels("SELECT rast FROM t WHERE ST_ConvexHull(rast) && tile.geom", ignore_index=255, ignore_missing="image")
        got = read(db, tiles, {"mask": layer, "image": Imagery("t", valid=True)})
        assert ((got["mask"] == 255) == ~got["image_valid"]).all()
        with pytest.raises(
            ConfigError, match=r"layer 'mask': coverage= and contact= go with geometries; t gives rasters: cut them"
        ):
            read(db, tiles, {"mask": Labels("t", ignore_index=255, contact=3)})

    @pytest.mark.parametrize(
        ("image", "mask"),
        [
            ({"resolution": 2 * RES}, {"resolution": 2 * RES}),
            ({"resolution": RES / 2}, {"resolution": RES / 2}),
            ({}, {"resampling": "mode"}),
            ({"resolution": 4 * RES}, {"resampling": "mode", "resolution": 4 * RES}),
        ],
    )
    def test_in_pixels_of_their_own(self, scenes, image, mask):
        """Where both have the same ones, whatever those of the tiles are."""
        db, tiles, _ = scenes
        tiles = Tiles(Grid(srid=3857, resolution=2 * RES, size=40, origin=(X0, Y0)), np.array([0, 30]), np.array([0, 30]))
        source = Labels("t" if "resampling" in mask else "land", ignore_index=999, ignore_missing="image", **mask)
        got = read(db, tiles, {"image": Imagery("t", valid=True, resampling="nearest", **image), "mask": source})
        assert got["mask"].shape == got["image_valid"].shape
        assert got["mask"].shape[-1] == 40 * 2 * RES / image.get("resolution", 2 * RES)
        np.testing.assert_array_equal(got["mask"] == 999, ~got["image_valid"])
        assert set(got["image_valid"].ravel()) == {True, False}

    @pytest.mark.parametrize(("image", "mask"), [(RES, 2 * RES), (None, 2 * RES), (2 * RES, None)])
    def test_of_another_shape_they_are_refused_when_opened(self, scenes, image, mask):
        db, tiles, _ = scenes
        sides = [80 if pixel in (RES, None) else 40 for pixel in (image, mask)]
        layers = {
            "image": Imagery("t", valid=True, resolution=image),
            "mask": Labels("land", ignore_index=255, ignore_missing="image", resolution=mask),
        }
        there, here = (rf"\({side}, {side}\)" for side in sides)
        with pytest.raises(
            ConfigError, match=rf"layer 'mask': ignore_missing='image': a tile there is {there}, this layer's {here}"
        ):
            Plan.open(db, tiles, layers)

    def test_all_three_at_once_in_a_dataset(self, scenes):
        db, tiles, _ = scenes
        line = f"SELECT ST_MakeLine(ST_MakePoint({X0 - 99}, {Y0 - 60}), ST_MakePoint({X0 + 400}, {Y0 - 90})) AS geom"
        line = line.replace("AS geom", "").replace("SELECT ", "SELECT ST_SetSRID(") + ", 3857) AS geom"
        whole = Labels(line, contact=8, coverage="land", ignore_index=255, ignore_missing="image", dtype="uint8")
        layers = {"mask": whole, "image": Imagery("t", valid=True), "bare": Labels(line), "wide": Labels(line, buffer=8)}
        batch = next(iter(TileDataset(db, tiles, layers | {"land": Labels("land")}, batch_size=3, shuffle=False)))
        keep = (batch["land"] == 1) & batch["image_valid"] & ((batch["wide"] == 0) | (batch["bare"] == 1))
        want = batch["bare"].where(keep, 255)
        assert (batch["mask"] == want).all()
        assert set(batch["mask"].unique().tolist()) == {0, 1, 255}

    @pytest.mark.parametrize(
        ("image", "says"),
        [
            ({}, "ignore_missing='image': expected the key of a layer in the same dataset; they are mask"),
            ({"image": Imagery("t")}, "'image': that layer does not tell where it has data: give it valid=True"),
            ({"image": Labels("land")}, "'image': that layer does not tell"),
        ],
    )
    def test_it_has_to_be_there(self, scenes, image, says):
        db, tiles, _ = scenes
        with pytest.raises(ConfigError, match=f"layer 'mask': .*{says}"):
            Plan.open(db, tiles, {"mask": Labels("land", ignore_index=255, ignore_missing="image")} | image)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ignore_index": 255}, "ignore_index=255 goes with what is ignored: coverage=.*contact=.*ignore_missing="),
        ({"coverage": "areas"}, "coverage= says what is ignored: ignore_index="),
        ({"contact": 3}, "contact= says"),
        ({"ignore_missing": "image"}, "ignore_missing= says"),
        ({"ignore_index": 255, "contact": 3, "dtype": "int8"}, "ignore_index=255 does not fit dtype='int8'"),
        ({"ignore_index": 0.5, "contact": 3}, "0.5 does not fit"),
        ({"ignore_index": "255", "contact": 3}, "'255' does not fit"),
        ({"ignore_index": True, "contact": 3}, "True does not fit"),
        ({"ignore_index": 255, "contact": 0}, "contact=0: expected ground metres, above 0"),
        ({"ignore_index": 255, "contact": math.inf}, "contact=inf"),
        ({"ignore_index": 255, "coverage": 3}, "coverage=3: expected SQL that gives geom, a table, or a shapely geometry"),
        ({"ignore_index": 2, "contact": 3, "classes": {"a": "true", "b": "false"}}, "ignore_index=2 is what class 'b' burns"),
    ],
)
def test_what_does_not_go_together_is_said_at_once(options, says):
    with pytest.raises(ConfigError, match=says):
        Labels("areas", **options)


@pytest.mark.parametrize("source", ["areas", AREAS])
def test_it_is_no_value_that_all_features_burn(world, tiles, source):
    """What rows say themselves stays theirs: 255 AS value is a way to ignore what is doubtful."""
    with pytest.raises(ConfigError, match=r"layer 'm': ignore_index=255 is what value= burns: expected a value of its own"):
        read(world.db, tiles, {"m": Labels(source, value=255, ignore_index=255, contact=3)})
    with pytest.raises(ConfigError, match=r"ignore_index=1 is what value= burns"):
        read(world.db, tiles, {"m": Labels(source, ignore_index=1, contact=3)})
    layers = {
        "rows": Labels(
            f"SELECT way AS geom, 255 AS value FROM ({AREAS.replace('AS geom', '')}) AS a", ignore_index=255, contact=3
        ),
        "column": Labels("areas", value="class", ignore_index=1, contact=3),
    }
    got = read(world.db, tiles, layers)
    assert {0, 255} == set(np.unique(got["rows"]))
    assert {0, 1, 2, 3, 4} == set(np.unique(got["column"]))


def test_it_is_no_named_class_of_a_raster(db, tmp_path):
    load.raster(db, write_tiff(tmp_path / "t.tif", np.full((1, 50, 50), 3, "u1")), "t")
    with db.connection() as conn:
        conn.execute("COMMENT ON COLUMN t.rast IS '" + legend.comment({3: "water"}) + "'")
    tiles = Tiles(Grid.like(db, "t", size=50), np.array([0]), np.array([0]))
    layers = {"image": Imagery("t", valid=True), "m": Labels("t", ignore_index=3, ignore_missing="image")}
    with pytest.raises(ConfigError, match=r"layer 'm': ignore_index=3 is class 'water': expected a value of its own"):
        read(db, tiles, layers)


def test_of_floats_it_may_be_nan(world, tiles):
    layer = Labels(AREAS, value=1, dtype="float32", ignore_index=math.nan, contact=5)
    got = read(world.db, tiles, {"m": layer, "bare": Labels(AREAS)})
    assert np.isnan(got["m"]).any()
    np.testing.assert_array_equal(np.nan_to_num(got["m"]), got["bare"])


def test_the_picture_says_which_pixels_are_ignored(world, tiles):
    sample = read(world.db, tiles[:4], {"mask": Labels({"road": "roads"}, coverage="areas", ignore_index=255)})
    figure = plot.batch(sample, classes={1: "road"}, ignore_index=255)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["road (1)", "ignored (255)"]
    shown = np.asarray(figure.axes[0].images[0].get_array())
    grey = np.ptp(shown[sample["mask"][0] == 255], axis=-1)
    assert grey.size
    assert (grey == 0).all()
