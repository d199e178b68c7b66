"""Classes burned by name, and vectors as the bands of an image: pixel for pixel what rasterio makes of the tables' geometries,
which are fetched whole, widened by shapely and put in order here.
"""

import warnings

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from conftest import ask
from rasterio.features import rasterize
from rasterio.transform import from_origin
from typer.main import get_command

from pgtiles import Grid, Labels, TileDataset, Tiles, Vectors, plot, read
from pgtiles.errors import ConfigError, DataError, PgtilesWarning, QueryError
from pgtiles.shell.cli import typer_app
from pgtiles.streaming.reading import Plan, read_batch

ORDERS = ("last", "first", "max", "min")
ROADS = "SELECT ST_Buffer(way, 6) AS geom FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
TREES = "SELECT ST_Buffer(way, 30) AS geom FROM trees WHERE ST_DWithin(way, tile.geom, 30) -- crowns; a comment ends it"
WORLD = {"road": (9, ROADS), "area": "areas", "tree": TREES}
OSM = {
    "road": (9, "SELECT ST_Buffer(way, 12) AS geom FROM planet_osm_line WHERE highway IS NOT NULL AND ST_DWithin(way, tile.geom, 12)"),
    "building": "SELECT way AS geom FROM planet_osm_polygon WHERE building IS NOT NULL AND way && tile.geom;",
    "park": "SELECT way AS geom FROM planet_osm_polygon WHERE leisure = 'park' AND way && tile.geom",
}  # fmt: skip


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=40, seed=3)


@pytest.fixture(scope="module")
def town(helsinki):
    grid = Grid(srid=3857, resolution=2, size=128)
    return Tiles.random(grid, within=helsinki.db.extent("planet_osm_line", 3857), count=60, seed=1)


@pytest.fixture(scope="module")
def mapped(helsinki):
    """What the base tables hold, by the classes of OSM, in the order in which it is to be said: value and shapes."""
    line = shapes(helsinki.db, "SELECT ST_AsBinary(way) FROM planet_osm_line WHERE highway IS NOT NULL")
    polygon = "SELECT ST_AsBinary(way) FROM planet_osm_polygon WHERE"
    return [
        (9, widened(line, 12)),
        (2, shapes(helsinki.db, f"{polygon} building IS NOT NULL")),
        (3, shapes(helsinki.db, f"{polygon} leisure = 'park'")),
    ]


def shapes(db, query):
    return [shapely.from_wkb(wkb) for (wkb,) in ask(db, query)]


def widened(found, by):
    """As PostGIS does it, with 8 segments to a quarter circle."""
    return list(shapely.buffer(found, by, quad_segs=8))


def on(tile_set, i, layered, dtype="int64", **how):
    """The shapes burned on a tile, the first ones lowest."""
    xmin, _, _, ymax = tile_set.bounds[i]
    near = shapely.box(*tile_set.bounds[i]).buffer(3 * tile_set.grid.pixel[0])
    out = np.zeros(tile_set.grid.shape, dtype)
    if found := [(shape, value) for value, many in layered for shape in many if shape.intersects(near)]:
        rasterize(found, out=out, transform=from_origin(xmin, ymax, *tile_set.grid.pixel), **how)
    return out


def in_order(layered, order):
    if order in {"max", "min"}:
        layered = sorted(layered, key=lambda one: one[0])
    return layered if order in {"last", "max"} else layered[::-1]


def off(got, tile_set, layered, **how):
    """Pixels that differ, on all tiles together."""
    return sum(int((got[i] != on(tile_set, i, layered, **how)).sum()) for i in range(len(tile_set)))


def opened(db, tile_set, layer):
    [found] = Plan.open(db, tile_set, {"mask": layer}).layers
    return found


class TestOverlap:
    @pytest.mark.parametrize("order", ORDERS)
    def test_on_made_up_land(self, world, tiles, order):
        made = world.features
        layered = [(9, widened(made.lines, 6)), (2, made.areas), (3, widened(made.points, 30))]
        got = read(world.db, tiles, {"mask": Labels(WORLD, order=order)})["mask"]
        assert off(got, tiles, in_order(layered, order)) == 0
        assert set(np.unique(got)) == {0, 2, 3, 9}

    @pytest.mark.parametrize("order", ORDERS)
    def test_on_openstreetmap(self, helsinki, town, mapped, order):
        got = read(helsinki.db, town, {"mask": Labels(OSM, order=order)})["mask"]
        assert off(got, town, in_order(mapped, order)) == 0
        assert set(np.unique(got)) == {0, 2, 3, 9}

    def test_the_four_orders_differ(self, helsinki, town):
        layers = {order: Labels(OSM, order=order, dtype="uint8") for order in ORDERS}
        got = read(helsinki.db, town, layers)
        assert len({got[order].tobytes() for order in ORDERS}) == 4
        np.testing.assert_array_equal(got["last"], read(helsinki.db, town, {"m": Labels(OSM, dtype="uint8")})["m"])

    @pytest.mark.parametrize("order", ["last", "first"])
    def test_conditions_on_one_table(self, helsinki, town, order):
        """Parks hold buildings; a condition may hold a bracket's worth of OR, a comment and a last semicolon."""
        says = {"building": "building = 'yes' OR building IS NOT NULL -- any", "park": (7, "leisure = 'park';")}
        layer = Labels("planet_osm_polygon", classes=says, where="way_area > 300 OR way_area < 100", order=order)
        got = read(helsinki.db, town, {"mask": layer})["mask"]
        table = "SELECT ST_AsBinary(way) FROM planet_osm_polygon WHERE (way_area > 300 OR way_area < 100) AND"
        layered = [
            (1, shapes(helsinki.db, f"{table} building IS NOT NULL")),
            (7, shapes(helsinki.db, f"{table} leisure = 'park'")),
        ]
        assert off(got, town, in_order(layered, order)) == 0
        assert opened(helsinki.db, town, layer).classes == {1: "building", 7: "park"}

    def test_class_zero_erases(self, world, tiles):
        got = read(world.db, tiles, {"mask": Labels({"area": "areas", "gap": (0, ROADS)})})["mask"]
        assert off(got, tiles, [(1, world.features.areas), (0, widened(world.features.lines, 6))]) == 0

    def test_priority_decides_within_its_class_only(self, db):
        """A NULL is the greatest; another class's priorities, of another type, are no match for it. A class without any, too."""
        with db.connection() as conn:
            conn.execute("CREATE TABLE a (way geometry(Polygon, 3857), erases bool, rank text)")
            conn.execute("CREATE INDEX ON a USING gist (way)")
        box = "ST_MakeEnvelope({}, {}, {}, {}, 3857)"
        one = f"""
            SELECT {box.format(0, -20, 10, 0)} AS geom, 'z' AS priority FROM tile
            UNION ALL SELECT {box.format(5, -20, 15, 0)}, NULL FROM tile
        """
        two = f"SELECT {box.format(8, -20, 12, -10)} AS geom, -3.5 AS priority FROM tile"
        tile = Tiles(Grid(srid=3857, resolution=1, size=20), np.array([0, 0]), np.array([0, 0]))
        got = read(
            db, tile, {"m": Labels({"one": one, "two": two, "three": f"SELECT {box.format(9, -15, 10, -5)} AS geom FROM tile"})}
        )
        want = np.zeros((20, 20), int)
        want[:, :15] = 1
        want[10:, 8:12] = 2
        want[5:15, 9] = 3
        for i in range(2):
            np.testing.assert_array_equal(got["m"][i], want)

    def test_priority_within_a_band(self, db):
        """Text sorts as text, and the greater value is below where its priority is."""
        box = "ST_MakeEnvelope({}, -20, {}, 0, 3857)"
        query = f"""
            SELECT {box.format(0, 10)} AS geom, 9 AS value, 'a' AS priority FROM tile
            UNION ALL SELECT {box.format(5, 15)}, 2, 'b' FROM tile
            UNION ALL SELECT {box.format(12, 20)}, 1, NULL FROM tile
        """
        tile = Tiles(Grid(srid=3857, resolution=1, size=20), np.array([0]), np.array([0]))
        want = np.repeat([9, 2, 1], (5, 7, 8))
        layers = {
            "mask": Labels(query),
            "image": Vectors({"other": "SELECT geom, 3 AS priority FROM tile LIMIT 0", "it": query}),
        }
        got = read(db, tile, layers)
        np.testing.assert_array_equal(got["mask"][0], np.tile(want, (20, 1)))
        np.testing.assert_array_equal(got["image"][0, 1], np.tile(want, (20, 1)))

    def test_other_srids_and_buffers(self, world, tiles):
        """A table knows its own SRID, whatever the others' are; the layer's buffer widens all classes."""
        layer = Labels({"area": "areas", "road": "roads_4326"}, buffer=5)
        got = read(world.db, tiles, {"mask": layer})["mask"]
        alone = {"area": Labels("areas", buffer=5), "road": Labels("roads_4326", buffer=5)}
        each = read(world.db, tiles, alone)
        np.testing.assert_array_equal(got, np.where(each["road"] > 0, 2, each["area"]))
        assert "SRID 3857 and 4326" in opened(world.db, tiles, layer).why

    def test_sqlalchemy(self, world, tiles):
        from sqlalchemy import column, func, select, table

        import pgtiles

        roads = table("roads", column("way"))
        query = select(func.ST_Buffer(roads.c.way, 6).label("geom")).where(func.ST_DWithin(roads.c.way, pgtiles.tile.geom, 6))
        got = read(world.db, tiles, {"a": Labels(WORLD | {"road": (9, query)}), "b": Labels(WORLD)})
        np.testing.assert_array_equal(got["a"], got["b"])


def test_tiles_that_a_class_misses_are_counted_once(world, tiles):
    plan = Plan.open(world.db, tiles, {"mask": Labels(WORLD), "image": Vectors({"road": ROADS, "area": "areas"})})
    batch = read_batch(world.db, plan, tiles)
    assert batch.empty == (
        int((~batch.sample["mask"].any(axis=(1, 2))).sum()),
        int((~batch.sample["image"].any(axis=(1, 2, 3))).sum()),
    )


class TestNames:
    def test_travel_with_the_dataset_into_the_picture(self, world, tiles):
        layers = {"image": Vectors({"road": ROADS}), "mask": Labels(WORLD), "other": Labels("areas")}
        dataset = TileDataset(world.db, tiles, layers, batch_size=20)
        assert dataset.classes == {"mask": {9: "road", 2: "area", 3: "tree"}}
        batch = next(iter(dataset))
        figure = plot.batch({"mask": batch["mask"]}, classes=dataset.classes["mask"], count=20)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["area (2)", "tree (3)", "road (9)"]

    def test_workers_read_the_same(self, world, tiles):
        layers = {"mask": Labels(WORLD), "image": Vectors({"road": ROADS, "area": "areas"})}
        dataset = TileDataset(world.db, tiles[:8], layers, batch_size=8, shuffle=False)
        [batch] = list(dataset.loader(num_workers=1))
        want = read(world.db, tiles[:8], layers)
        for name in layers:
            np.testing.assert_array_equal(batch[name].numpy(), want[name])

    def test_a_mapping_that_changes_later_changes_nothing(self, world, tiles):
        says, bands = dict(WORLD), {"road": ROADS}
        labels, vectors = Labels(says), Vectors(bands)
        says.clear(), bands.clear()
        assert opened(world.db, tiles, labels).classes == {9: "road", 2: "area", 3: "tree"}
        assert opened(world.db, tiles, vectors).sheet.shape == (1, 64, 64)

    def test_preview_draws_them(self, world, tmp_path):
        look = ["--labels", "areas", "--srid", "3857", "--resolution", "5", "--size", "48", "--url", world.url]
        classes = ["--class", "even=class % 2 = 0", "--class", "first = class = 1"]
        done = CliRunner().invoke(get_command(typer_app), ["preview", *look, *classes, "--out", str(tmp_path / "a.png")])
        assert done.exit_code == 0, done.output
        grid = Grid(srid=3857, resolution=5, size=48)
        there = Tiles.random(grid, within=world.db.extent("areas", 3857), count=4, seed=0)
        layer = Labels("areas", classes={"even": "class % 2 = 0", "first": "class = 1"})
        plot.batch(read(world.db, there, {"mask": layer}), tmp_path / "b.png", classes={1: "even", 2: "first"})
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    @pytest.mark.parametrize("classes", [["park"], ["=a"], ["a="], ["a=class = 1", "a=class = 2"]])
    def test_preview_says_what_is_wrong(self, world, classes):
        look = ["--labels", "areas", "--srid", "3857", "--resolution", "5", "--url", world.url]
        for text in classes:
            look += ["--class", text]
        done = CliRunner().invoke(get_command(typer_app), ["sql", *look])
        assert isinstance(done.exception, ConfigError)
        assert "--class" in str(done.exception)


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ({}, {}, "0 classes: expected from 1"),
        ({f"c{i}": ROADS for i in range(2048)}, {}, "2048 classes: expected from 1 to 2047"),
        ({"road": None}, {}, "class 'road'"),
        ({"road": 3}, {}, "class 'road': 3: expected a name, and for it SQL or a table, or"),
        ({"": ROADS}, {}, "class ''"),
        ({"road": ("9", ROADS)}, {}, "class 'road'.*whole number"),
        ({"road": (1.5, ROADS)}, {}, "class 'road'.*whole number"),
        ({"road": (300, ROADS)}, {"dtype": "uint8"}, "class 'road': its value 300 does not fit dtype='uint8'"),
        ({"road": (2, ROADS), "area": "areas"}, {}, "classes 'road' and 'area' both burn 2"),
        (WORLD, {"order": "top"}, "order='top': expected one of last, first, max, min"),
        (WORLD, {"value": 4}, "value=4: each class has a value of its own"),
        (WORLD, {"where": "class = 1"}, "where=.*table's name"),
        (WORLD, {"classes": {"a": "class = 1"}}, "classes= go with a table's name"),
        (ROADS, {"classes": {"a": "class = 1"}}, "classes= go with a table's name"),
        ("areas", {"classes": {}}, "0 classes"),
        (ROADS, {"order": "max"}, "order= goes with classes"),
    ],
)
def test_wrong_classes_are_said_at_once(source, options, says):
    with pytest.raises(ConfigError, match=says):
        Labels(source, **options)


@pytest.mark.parametrize(
    ("bands", "options", "says"),
    [
        (ROADS, {}, "expected a mapping"),
        ({}, {}, "0 bands"),
        ({"road": (2, ROADS)}, {}, "band 'road'"),
        ({"road": ROADS}, {"dtype": "uint7"}, "uint8"),
        ({"road": ROADS}, {"buffer": 0}, "metres"),
    ],
)
def test_wrong_bands_are_said_at_once(bands, options, says):
    with pytest.raises(ConfigError, match=says):
        Vectors(bands, **options)


@pytest.mark.parametrize(
    ("query", "error", "says"),
    [
        ("SELECT way AS geom\nFROM roads\nWHERE klass = 1", QueryError, r"(?s)klass.*line 3: WHERE klass = 1\n +\^"),
        ("SELECT geom FROM roads WHERE way && tile.geom", QueryError, r"(?s)ambiguous.*line 1.*\^"),
        ("SELECT way AS geom FROM roads; DROP TABLE roads", QueryError, "more than one statement"),
        ("SELECT way AS geom FROM roads) AS u, (SELECT 1", QueryError, "closes a bracket"),
        ("SELECT way FROM roads WHERE way && tile.geom", QueryError, "write way AS geom"),
        ("SELECT rast FROM scene WHERE ST_ConvexHull(rast) && tile.geom", QueryError, "rasters.*expected a column geom"),
        ("scene", QueryError, "rasters.*expected a column geom"),
        ("raods", Exception, r"public\.roads"),
        ("SELECT way AS geom FROM roads_4326 WHERE way && tile.geom", QueryError, "SRID 4326.*srid=4326"),
    ],
)
@pytest.mark.parametrize("kind", ["class", "band"])
def test_an_error_names_the_class_and_points_into_its_text(world, tiles, kind, query, error, says):
    bad = {"area": "areas", "bad one": query, "road": ROADS}
    layer = Labels(bad) if kind == "class" else Vectors(bad)
    with pytest.raises(error, match=rf"^layer 'mask', {kind} 'bad one': ") as caught:
        Plan.open(world.db, tiles, {"mask": layer})
    assert caught.match(says)


def test_a_condition_that_is_wrong_names_its_class(world, tiles):
    with pytest.raises(QueryError, match=r"(?s)^layer 'mask', class 'b': .*klass.*\^"):
        opened(world.db, tiles, Labels("roads", classes={"a": "class = 1", "b": "klass = 2"}))
    with pytest.raises(QueryError, match=r"^layer 'mask', class 'b': .*bracket"):
        opened(world.db, tiles, Labels("roads", classes={"a": "class = 1", "b": "true) OR (true"}))


def test_a_class_has_one_value(world, tiles):
    query = "SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom"
    with pytest.raises(
        QueryError, match=r"layer 'mask', class 'area': .*column value.* own value, here 2.*leave the column out"
    ):
        opened(world.db, tiles, Labels({"road": ROADS, "area": query}))
    assert opened(world.db, tiles, Vectors({"road": ROADS, "area": query})).sheet.shape == (2, 64, 64)


@pytest.mark.parametrize("kind", ["class", "band"])
def test_an_error_while_reading_names_class_and_tile(world, tiles, kind):
    bad = "SELECT tile.geom AS geom FROM tile WHERE 1 / (tile.id - 5) = 1"
    parts = {"road": ROADS, "bad": bad, "area": "areas"}
    layer = Labels(parts) if kind == "class" else Vectors(parts)
    with pytest.raises(QueryError, match=rf"layer 'mask', {kind} 'bad', tile 5 at \(.*\): division by zero"):
        read(world.db, tiles, {"good": Labels(ROADS), "mask": layer})


def test_a_warning_names_the_class(world, tiles):
    hidden = "SELECT way AS geom FROM roads WHERE ST_Intersects(ST_Buffer(way, 6), tile.geom)"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Plan.open(world.db, tiles, {"mask": Labels({"area": "areas", "road": hidden, "tree": TREES})})
    [said] = [str(w.message) for w in caught if issubclass(w.category, PgtilesWarning)]
    assert said.startswith("layer 'mask', class 'road': public.roads is read from end to end although it has an index")


class TestVectors:
    def test_on_made_up_land(self, world, tiles):
        """Each band by itself, lines unbuffered and points too, from SQL and from tables in two SRIDs."""
        bands = {"road": ROADS, "area": "areas", "line": "roads", "point": "trees", "far": "roads_4326"}
        got = read(world.db, tiles, {"osm": Vectors(bands)})["osm"]
        assert got.shape == (40, 5, 64, 64)
        assert got.dtype == np.uint8
        made = world.features
        moved = shapes(world.db, "SELECT ST_AsBinary(ST_Transform(way, 3857)) FROM roads_4326")
        wanted = (widened(made.lines, 6), made.areas, made.lines, made.points, moved)
        for band, found in enumerate(wanted):
            assert off(got[:, band], tiles, [(1, found)], dtype="uint8") == 0, band
            assert got[:, band].any()
        assert ((got > 0).sum(axis=1) > 1).any()  # they overlap freely

    def test_on_openstreetmap(self, helsinki, town, mapped):
        bands = {name: said[1] if isinstance(said, tuple) else said for name, said in OSM.items()}
        got = read(helsinki.db, town, {"osm": Vectors(bands)})["osm"]
        for band, (_, found) in enumerate(mapped):
            assert off(got[:, band], town, [(1, found)], dtype="uint8") == 0, band
            assert got[:, band].any()

    def test_values_of_any_dtype(self, world, tiles):
        query = "SELECT way AS geom, -class - 0.25 AS value FROM areas WHERE way && tile.geom"
        got = read(world.db, tiles, {"osm": Vectors({"road": ROADS, "area": query}, dtype="float32")})["osm"]
        made = world.features
        layered = [(-c - 0.25, [a for i, a in enumerate(made.areas) if made.value(i) == c]) for c in (4, 3, 2, 1)]
        assert off(got[:, 1], tiles, layered, dtype="float32") == 0
        assert got.dtype == np.float32
        with pytest.raises(
            DataError, match=r"layer 'osm', tile \d+ at \(.*\): band 2: value -4\.25 does not fit dtype='uint8'"
        ):
            read(world.db, tiles, {"osm": Vectors({"road": ROADS, "area": query})})

    def test_all_touched(self, world, tiles):
        got = read(world.db, tiles, {"osm": Vectors({"area": "areas", "road": ROADS}, all_touched=True)})["osm"]
        np.testing.assert_array_equal(got[:, 1], read(world.db, tiles, {"m": Labels(ROADS, all_touched=True)})["m"])
        assert off(got[:, 0], tiles, [(1, world.features.areas)], dtype="uint8", all_touched=True) <= got[:, 0].size / 10_000

    def test_the_picture_shows_it_as_an_image(self, world, tiles):
        sample = read(world.db, tiles[:2], {"osm": Vectors({"road": ROADS, "area": "areas", "tree": TREES})})
        figure = plot.batch(sample)
        assert [axis.get_title() for axis in figure.axes] == ["osm", ""]
        shown = np.asarray(figure.axes[0].images[0].get_array())
        for band in range(3):
            if sample["osm"][0, band].any():
                assert (shown[..., band] > 0).any()

    def test_beside_labels_in_a_dataset(self, world, tiles):
        layers = {"osm": Vectors({"area": "areas", "tree": TREES}), "mask": Labels(ROADS)}
        batch = next(iter(TileDataset(world.db, tiles, layers, batch_size=10)))
        assert batch["osm"].shape == (10, 2, 64, 64)
        assert batch["mask"].shape == (10, 64, 64)
