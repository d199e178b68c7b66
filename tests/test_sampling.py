"""Which places tiles take: regions of many kinds, edges, features, web maps, periods. shapely, pyproj and counting say what is right."""

import json
import pickle
import re
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pyproj
import pytest
import shapely
from conftest import RES, X0, Y0, ask, scene, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from pgtiles import Grid, Tiles, TimeSeries, load, read
from pgtiles.errors import ConfigError, DataError, MissingError, QueryError
from pgtiles.layers.imagery import Imagery

DOCS = Path(__file__).parents[1] / "docs"
GRID = Grid(srid=3857, resolution=1, size=8)
ISLANDS = shapely.MultiPolygon(
    [
        shapely.box(0, 0, 31, 23),
        shapely.Polygon([(5000.5, 3000.2), (5040.1, 2990.7), (5033.3, 3041.9), (4990.2, 3030.1)]),
        shapely.box(9000, 100, 9040, 140).difference(shapely.box(9010, 115, 9020, 125)),
        shapely.box(100, 8000, 108, 8300),  # one tile wide
        shapely.box(7000, 7000, 7007, 7400),  # no tile fits
    ]
)


def share(tiles, region):
    """Of each tile, how much of its area lies in the region."""
    boxes = shapely.box(*tiles.bounds.T)
    return shapely.area(shapely.intersection(boxes, region)) / shapely.area(boxes)


def by_trial(grid, region, least, stride=1):
    """All places around each part of a region whose tile lies in it to this share."""
    found, (h, w) = set(), grid.shape
    for part in shapely.get_parts(region):
        xmin, ymin, xmax, ymax = map(int, part.bounds)
        c, r = np.mgrid[xmin - w - 1 : xmax + 2, -ymax - h - 1 : -ymin + 2].reshape(2, -1)
        tried = Tiles(grid, c, r)
        inside = shapely.covers(region, shapely.box(*tried.bounds.T)) if least == 1 else share(tried, region) >= least - 1e-9
        found |= set(pairs(tried[inside]))
    return found


def pairs(tiles):
    return list(zip(tiles.cols.tolist(), tiles.rows.tolist(), strict=True))


def improbable(counts, expected):
    """The value that chi-square exceeds once in a thousand draws (Wilson and Hilferty's approximation), and chi-square."""
    free = len(counts) - 1
    return free * (1 - 2 / (9 * free) + 3.09 * np.sqrt(2 / (9 * free))) ** 3, ((counts - expected) ** 2 / expected).sum()


class TestUniform:
    @pytest.mark.parametrize("least", [1.0, 0.5])
    def test_a_hundred_thousand_over_islands_far_apart(self, least):
        """Islands fill a thousandth of their box: each place of theirs comes equally often, and none else."""
        places = sorted(by_trial(GRID, ISLANDS, least))
        tiles = Tiles.random(GRID, within=ISLANDS, count=100_000, seed=3, min_coverage=least)
        index = {place: n for n, place in enumerate(places)}
        counts = np.bincount([index[place] for place in pairs(tiles)], minlength=len(places))
        limit, chi2 = improbable(counts, 100_000 / len(places))
        assert chi2 < limit
        assert 0.5 * len(places) < chi2  # nor more even than chance is

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.tuples(*[st.floats(0, 60)] * 2, *[st.floats(4, 40)] * 2), min_size=1, max_size=5),
        st.sampled_from([0.2, 0.5, 0.8, 1.0]),
        st.integers(0, 99),
    )
    def test_law_all_places_and_no_other(self, shapes, least, seed):
        region = shapely.union_all([shapely.Point(x, y).buffer(max(w, h) / 2) for x, y, w, h in shapes])
        want = by_trial(GRID, region, least)
        if not want:
            with pytest.raises(ConfigError, match="no tile of 8 × 8 px"):
                Tiles.sliding(GRID, within=region, stride=1, min_coverage=least)
            return
        every = Tiles.sliding(GRID, within=region, stride=1, min_coverage=least)
        assert pairs(every) == sorted(want, key=lambda place: place[::-1])
        assert set(pairs(Tiles.random(GRID, within=region, count=500, seed=seed, min_coverage=least))) <= want

    def test_a_country_of_small_fields_takes_no_time(self):
        """4,000 fields of a few hectares, 10 m pixels, in a box of a thousand kilometres: few places will do."""
        rng = np.random.default_rng(0)
        corner = rng.integers(0, 1000, (4_000, 2)) * 1000.0
        fields = shapely.union_all(shapely.box(*corner.T, *(corner + rng.uniform(330, 700, (4_000, 2))).T))
        grid = Grid(srid=32632, resolution=10, size=32)
        begun = time.process_time()
        tiles = Tiles.random(grid, within=fields, count=10_000, seed=1)
        assert time.process_time() - begun < 10
        inside, _ = shapely.STRtree(shapely.get_parts(fields)).query(shapely.box(*tiles.bounds.T), predicate="covered_by")
        assert np.unique(inside).tolist() == list(range(10_000))

    @pytest.mark.parametrize("least", [1.0, 0.5])
    def test_a_region_that_fills_its_box(self, least):
        """Drawn by trial, each place of it as often as another, and none else."""
        region = shapely.Point(30.3, 20.1).buffer(33).difference(shapely.box(25, 15, 31, 18))
        places = sorted(by_trial(GRID, region, least))
        tiles = Tiles.random(GRID, within=region, count=100_000, seed=3, min_coverage=least)
        index = {place: n for n, place in enumerate(places)}
        counts = np.bincount([index[place] for place in pairs(tiles)], minlength=len(places))
        limit, chi2 = improbable(counts, 100_000 / len(places))
        assert 0.5 * len(places) < chi2 < limit

    @pytest.mark.parametrize("least", [1.0, 0.5])
    def test_one_region_with_a_long_border_takes_no_time(self, least):
        """20,000 discs run together: 60,000 vertices."""
        middles = np.random.default_rng(0).uniform(0, 90_000, (20_000, 2))
        region = shapely.union_all(shapely.buffer(shapely.points(middles), 600))
        begun = time.process_time()
        tiles = Tiles.random(Grid(srid=32632, resolution=10, size=64), within=region, count=100, min_coverage=least)
        assert time.process_time() - begun < 5
        assert share(tiles, region).min() >= least - 1e-6

    @pytest.mark.parametrize("stride", [1, 64])
    def test_a_rounding_parts_no_tile_from_its_border(self, stride):
        """Hundredths of degrees are no binary fractions: a polygon gives the very tiles of the box that it is."""
        grid = Grid(srid=4326, resolution=0.0001, size=64)
        box = (9, 47, 9.64, 47.64) if stride == 64 else (9, 47, 9.0074, 47.0074)
        tiles = Tiles.sliding(grid, within=shapely.box(*box), stride=stride)
        assert len(tiles) == (10_000 if stride == 64 else 11 * 11)
        assert pairs(tiles) == pairs(Tiles.sliding(grid, within=box, stride=stride))
        drawn = Tiles.random(grid, within=shapely.box(*box), count=20_000)
        assert [drawn.cols.min(), drawn.cols.max()] == [tiles.cols.min(), tiles.cols.max()]

    def test_numbers_of_numpy_are_numbers(self, tmp_path):
        tiles = Tiles.random(GRID, within=ISLANDS, count=np.int64(5), seed=np.uint8(3), min_coverage=np.float32(0.5))
        tiles.save(tmp_path / "tiles.parquet")
        assert Tiles.load(tmp_path / "tiles.parquet").made["min_coverage"] == 0.5
        assert pairs(tiles) == pairs(Tiles.random(GRID, within=ISLANDS, count=5, seed=3, min_coverage=0.5))

    def test_a_box_gives_what_it_always_gave(self):
        rng = np.random.default_rng(7)
        cols, rows = rng.integers(0, 93, 1024), rng.integers(-100, -7, 1024)
        tiles = Tiles.random(GRID, within=(0, 0, 100, 100), count=40, seed=7)
        assert (tiles.cols.tolist(), tiles.rows.tolist()) == (cols[:40].tolist(), rows[:40].tolist())

    def test_the_seed_says_which(self):
        one, same, other = (Tiles.random(GRID, within=ISLANDS, count=50, seed=s) for s in (1, 1, 2))
        assert pairs(one) == pairs(same) != pairs(other)

    def test_a_million_in_a_blink(self):
        grid = Grid(srid=32632, resolution=10, size=256)
        within = (0.0, 0.0, 1000 * 2560.0, 1000 * 2560.0)
        times = []
        for _ in range(3):
            begun = time.process_time()  # that a busy machine waits is not ours
            tiles = Tiles.sliding(grid, within=within)
            times.append(time.process_time() - begun)
        assert len(tiles) == 1_000_000
        assert min(times) < 1
        tracemalloc.start()
        tiles = Tiles.sliding(grid, within=within)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6

    @pytest.mark.parametrize("value", [0, -0.5, 1.1, "half"])
    def test_shares_that_are_none(self, value):
        with pytest.raises(ConfigError, match="min_coverage="):
            Tiles.random(GRID, within=ISLANDS, count=1, min_coverage=value)

    def test_sticking_out_of_a_box(self):
        tiles = Tiles.random(GRID, within=(0, 0, 20, 4), count=3000, min_coverage=0.25)
        assert set(pairs(tiles)) == by_trial(GRID, shapely.box(0, 0, 20, 4), 0.25)
        assert share(tiles, shapely.box(0, 0, 20, 4)).min() == 0.25


class TestEdges:
    @given(st.integers(8, 40), st.integers(8, 40), st.tuples(*[st.integers(1, 12)] * 2))
    def test_law_shifted_tiles_cover_all_and_stay_inside(self, wide, high, stride):
        stride = tuple(min(s, 8) for s in stride)
        tiles = Tiles.sliding(GRID, within=(3, 5, 3 + wide, 5 + high), stride=stride, edge="shift")
        assert shapely.union_all(shapely.box(*tiles.bounds.T)).equals(shapely.box(3, 5, 3 + wide, 5 + high))
        dropped = Tiles.sliding(GRID, within=(3, 5, 3 + wide, 5 + high), stride=stride)
        assert set(pairs(dropped)) <= set(pairs(tiles))
        assert (
            len(set(pairs(tiles)))
            == len(tiles)
            == -(-(wide - 8 + stride[1]) // stride[1]) * -(-(high - 8 + stride[0]) // stride[0])
        )

    @given(*[st.floats(0.5, 40)] * 2, *[st.floats(0, 3)] * 2)
    def test_law_beyond_covers_all_with_no_tile_to_spare(self, wide, high, x, y):
        box = shapely.box(x, y, x + wide, y + high)
        tiles = Tiles.sliding(GRID, within=box.bounds, edge="beyond")
        boxes = shapely.box(*tiles.bounds.T)
        assert shapely.union_all(boxes).buffer(1e-5).covers(box)
        assert (shapely.area(shapely.intersection(boxes, box)) > 0).all()
        assert shapely.area(boxes).sum() == pytest.approx(shapely.union_all(boxes).area)  # they just touch

    def test_beyond_a_polygon_all_that_share_land_with_it(self):
        tiles = Tiles.sliding(GRID, within=ISLANDS, edge="beyond")
        boxes = shapely.box(*tiles.bounds.T)
        assert shapely.union_all(boxes).buffer(1e-6).covers(ISLANDS)
        assert (share(tiles, ISLANDS) > 0).all()
        most = Tiles.sliding(GRID, within=ISLANDS, edge="beyond", min_coverage=0.5)
        assert pairs(most) == pairs(tiles[share(tiles, ISLANDS) >= 0.5])

    def test_overlap_is_a_stride(self):
        one = Tiles.sliding(GRID, within=(0, 0, 50, 40), overlap=(2, 3))
        assert pairs(one) == pairs(Tiles.sliding(GRID, within=(0, 0, 50, 40), stride=(6, 5)))

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"edge": "pad"}, "edge='pad': expected one of drop, shift, beyond"),
            ({"overlap": 8}, "overlap=8: expected a stride of at least one pixel"),
            ({"overlap": -1}, "overlap=-1: "),
            ({"overlap": 2, "stride": 3}, "expected one of both"),
        ],
    )
    def test_wrong_arguments(self, options, says):
        with pytest.raises(ConfigError, match=says):
            Tiles.sliding(GRID, within=(0, 0, 50, 40), **options)


@pytest.fixture
def land(schema_db):
    """Fields of three owners in EPSG:4326, whose polygons are known in EPSG:3857."""
    shapes = [shapely.box(X0 + 300 * k, Y0 - 400, X0 + 300 * k + 200 + 10 * k, Y0 - 100) for k in range(4)]
    back = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
    with schema_db.connection() as conn:
        conn.execute(
            "CREATE TABLE fields (id int PRIMARY KEY, owner text, sown date, weight float8, geom geometry(Polygon, 4326))"
        )
        for k, shape in enumerate(shapes):
            there = shapely.transform(shape, back.transform, interleaved=False)
            conn.execute(
                "INSERT INTO fields VALUES (%s, %s, %s, %s, ST_GeomFromWKB(%s, 4326))",
                (10 * (4 - k), "abca"[k], f"2024-03-0{k + 1}", [1, 0, 3, 4][k], there.wkb),
            )
    schema_db.shapes = shapes
    return schema_db


class TestRegionsOfTheDatabase:
    grid = Grid(srid=3857, resolution=2.5, size=16, origin=(X0, Y0))

    @pytest.mark.parametrize(
        "source", ["fields", "mine.fields", "SELECT geom FROM fields", "SELECT geom, 1 FROM fields -- all;\n;"]
    )
    def test_a_table_and_a_query_give_the_land_in_the_grids_crs(self, land, source):
        tiles = Tiles.random(self.grid, within=source, db=land, count=2000)
        ground = shapely.union_all(land.shapes).buffer(1e-5, join_style="mitre")
        assert shapely.covers(ground, shapely.box(*tiles.bounds.T)).all()
        assert all((shapely.covers(s, shapely.centroid(shapely.box(*tiles.bounds.T)))).any() for s in land.shapes)
        grid = Tiles.sliding(self.grid, within=source, db=land, stride=8)
        assert shapely.covers(ground, shapely.box(*grid.bounds.T)).all()

    def test_an_sqlalchemy_select(self, land):
        from sqlalchemy import column, select, table

        query = select(column("geom")).select_from(table("fields")).where(column("owner") == "b")
        tiles = Tiles.random(self.grid, within=query, db=land, count=50)
        assert shapely.covers(land.shapes[1].buffer(1e-5), shapely.box(*tiles.bounds.T)).all()
        assert "owner = 'b'" in tiles.made["within"]

    def test_an_edge_that_is_bent_in_the_grids_crs(self, schema_db):
        """Along a parallel, six degrees of UTM are an arc: its chord is 3.6 km off."""
        box = shapely.segmentize(shapely.box(6, 47, 12, 48), 0.01)
        there = pyproj.Transformer.from_crs(4326, 32632, always_xy=True)
        truth = shapely.transform(box, there.transform, interleaved=False)
        shapely.prepare(near := truth.buffer(10))
        grid = Grid(srid=32632, resolution=10, size=32)
        for geom in ("ST_MakeEnvelope(6, 47, 12, 48, 4326)", "ST_MakeEnvelope(6, 47, 12, 48, 4326)::geography"):
            tiles = Tiles.random(grid, within=f"SELECT {geom} AS geom", db=schema_db, count=20_000)
            assert shapely.covers(near, shapely.box(*tiles.bounds.T)).all()

    @pytest.mark.parametrize(
        ("within", "error", "says"),
        [
            ("SELECT geom FROM fields; DROP TABLE fields", QueryError, "more than one statement"),
            ("WITH x AS (DELETE FROM fields RETURNING geom) SELECT geom FROM x", QueryError, "WITH clause|read-only"),
            ("SELECT owner FROM fields", QueryError, "gives owner: expected a geometry column called geom"),
            ("SELECT geom FROM nowhere", QueryError, r'"nowhere" does not exist[\s\S]*\^'),
            ("SELECT geom FROM fields, tile", QueryError, r"no tile yet"),
            ("SELECT geom FROM fields WHERE false", DataError, "gives no geometry"),
            ("SELECT ST_Boundary(geom) AS geom FROM fields", DataError, "4 of 4 geometries are no areas"),
            (
                "SELECT ST_GeomFromText('POLYGON((0 0, 1 1, 1 0, 0 1, 0 0))', 4326) AS geom",
                DataError,
                "1 of 1 geometries are not valid",
            ),
            ("field", MissingError, "fields"),
        ],
    )
    def test_what_is_no_region(self, land, within, error, says):
        with pytest.raises(error, match=says):
            Tiles.random(self.grid, within=within, db=land, count=1)
        assert ask(land, "SELECT count(*) FROM fields") == [(4,)]

    def test_a_function_can_write_nothing(self, land):
        with land.connection() as conn:
            conn.execute("CREATE FUNCTION wipe() RETURNS geometry LANGUAGE sql AS 'DELETE FROM mine.fields RETURNING geom'")
        with pytest.raises(QueryError, match="read-only"):
            Tiles.random(self.grid, within="SELECT wipe() AS geom", db=land, count=1)
        assert ask(land, "SELECT count(*) FROM fields") == [(4,)]

    def test_without_a_database(self):
        with pytest.raises(ConfigError, match=r"within= names .*give db="):
            Tiles.random(self.grid, within="fields", count=1)
        with pytest.raises(ConfigError, match=r"imagery= names .*give db="):
            Tiles.random(self.grid, within=(0, 0, 1, 1), imagery="scene", count=1)
        with pytest.raises(ConfigError, match="expected xmin"):
            Tiles.random(self.grid, count=1)

    def test_imagery_ends_the_region(self, world):
        height, width = world.pixels.shape[1:]
        ground = shapely.box(X0, Y0 - height * RES, X0 + width * RES, Y0)
        around = shapely.Point(X0, Y0).buffer(1000)
        tiles = Tiles.sliding(world.grid, within=around, imagery="scene", db=world.db, stride=1 << 3)
        assert shapely.covers(around.intersection(ground), shapely.box(*tiles.bounds.T)).all()
        alone = Tiles.sliding(world.grid, imagery="scene", db=world.db)
        assert len(alone) == (height // 64) * (width // 64)  # up to the very edge
        assert pairs(alone) == pairs(Tiles.sliding(world.grid, within=ground.bounds))
        assert pairs(alone) == pairs(Tiles.sliding(world.grid, within="scene", db=world.db))
        half = Tiles.random(world.grid, within=ground.buffer(500), imagery="scene", db=world.db, count=4000, min_coverage=0.5)
        shares = share(half, ground)
        assert shares.min() >= 0.4999
        assert (shares < 0.9).any()
        with pytest.raises(ConfigError, match="share no land"):
            Tiles.random(world.grid, within=(0, 0, 9000, 9000), imagery="scene", db=world.db, count=1)

    def test_imagery_in_another_crs(self, db, tmp_path):
        """The footprint of a UTM scene in EPSG:3857, against pyproj's, edges followed in 500 pieces."""
        write_tiff(
            tmp_path / "u.tif", scene(0, (1, 300, 400)), crs="EPSG:32632", transform=from_origin(600_000, 5_300_000, 100, 100)
        )
        load.raster(db, tmp_path / "u.tif", "utm")
        box = shapely.segmentize(shapely.box(600_000, 5_270_000, 640_000, 5_300_000), 80)
        there = pyproj.Transformer.from_crs(32632, 3857, always_xy=True)
        truth = shapely.transform(box, there.transform, interleaved=False)
        grid = Grid(srid=3857, resolution=150, size=16)
        tiles = Tiles.sliding(grid, imagery="utm", db=db, stride=1)
        all_of_it = Tiles.sliding(grid, within=truth, stride=1)
        assert shapely.covers(truth.buffer(15), shapely.box(*tiles.bounds.T)).all()
        assert len(set(pairs(tiles)) ^ set(pairs(all_of_it))) <= 0.01 * len(all_of_it)


class TestFreshFromTheDatabase:
    def test_the_region_is_read_once(self, land):
        """What becomes of the table changes no epoch, and what workers are sent holds no database."""
        grid = Grid(srid=3857, resolution=2.5, size=16, origin=(X0, Y0))
        draws = Tiles.fresh(grid, within="fields", db=land, count=50)
        first = draws.epoch(1, 1)
        assert first.made["within"] == "fields"
        with land.connection() as conn:
            conn.execute("DELETE FROM fields WHERE owner <> 'b'")
        sent = pickle.dumps(draws)
        assert b"postgres" not in sent
        for again in (draws.epoch(1, 1), pickle.loads(sent).epoch(1, 1)):
            assert pairs(again) == pairs(first)
        assert len(sent) < 20_000


class TestQuery:
    grid = Grid(srid=3857, resolution=2.5, size=(16, 20), origin=(X0, Y0))
    text = "SELECT id, owner, sown AS time, weight, geom FROM fields ORDER BY id DESC"

    def test_one_for_each_in_its_middle_with_its_columns(self, land):
        tiles = Tiles.query(land, self.grid, self.text)
        assert tiles.ids.tolist() == [40, 30, 20, 10]
        assert tiles.columns["owner"].tolist() == ["a", "b", "c", "a"]
        assert tiles.columns["weight"].tolist() == [1, 0, 3, 4]
        assert set(tiles.columns) == {"owner", "weight"}
        assert tiles.times.astype("datetime64[D]").astype(str).tolist() == [f"2024-03-0{k}" for k in (1, 2, 3, 4)]
        middle = (tiles.bounds[:, :2] + tiles.bounds[:, 2:]) / 2
        want = shapely.get_coordinates(shapely.centroid(land.shapes))
        assert (np.abs(middle - want) <= 1.25 + 1e-6).all()  # half a pixel, as tiles lie on the lattice

    def test_a_table_gives_its_geometries(self, land):
        tiles = Tiles.query(land, self.grid, "fields")
        assert (tiles.ids.tolist(), dict(tiles.columns), tiles.times) == ([0, 1, 2, 3], {}, None)

    def test_jitter_is_uniform_and_seeded(self, land):
        text = f"SELECT ST_SetSRID(ST_MakePoint({X0}, {Y0}), 3857) AS geom FROM generate_series(1, 20000)"
        tiles = Tiles.query(land, self.grid, text, jitter=3.5, seed=2)
        for moved, half in ((tiles.cols, 10), (tiles.rows, 8)):
            steps, counts = np.unique(moved + half, return_counts=True)
            assert steps.tolist() == list(range(-3, 4)) or steps.tolist() == list(range(-4, 5))
            inner = counts[np.abs(steps) <= 3]
            limit, chi2 = improbable(inner, inner.mean())
            assert chi2 < limit
        assert abs(np.corrcoef(tiles.cols, tiles.rows)[0, 1]) < 0.03
        assert pairs(tiles) == pairs(Tiles.query(land, self.grid, text, jitter=3.5, seed=2))
        assert pairs(tiles) != pairs(Tiles.query(land, self.grid, text, jitter=3.5, seed=3))

    def test_drawn_by_weight(self, land):
        tiles = Tiles.query(land, self.grid, self.text, count=8000, seed=1)
        assert tiles.ids.tolist() == list(range(8000))
        drawn = dict(zip(*np.unique(tiles.columns["id"], return_counts=True), strict=True))
        assert {id_: round(n / 1000) for id_, n in drawn.items()} == {40: 1, 20: 3, 10: 4}
        unweighted = Tiles.query(land, self.grid, "SELECT id, geom FROM fields", count=8000)
        assert (np.abs(np.unique(unweighted.columns["id"], return_counts=True)[1] - 2000) < 200).all()

    def test_a_column_is_what_layers_see(self, world):
        tiles = Tiles.query(world.db, world.grid, "SELECT id, way AS geom FROM areas WHERE class = 2 ORDER BY id", jitter=10)
        batch = read(world.db, tiles[:4], {"image": Imagery("scene")})
        assert batch["tile_id"].tolist() == tiles.ids[:4].tolist()

    @pytest.mark.parametrize(
        ("text", "options", "error", "says"),
        [
            ("SELECT 'x' AS id, geom FROM fields", {}, ConfigError, "column id becomes the tiles' ids"),
            ("SELECT 1 AS id, geom FROM fields", {}, ConfigError, "each there once"),
            ("SELECT owner AS time, geom FROM fields", {}, ConfigError, "column time is no date"),
            ("SELECT '{1}'::int[] AS list, geom FROM fields", {}, DataError, "its column list is _int4; a tile carries"),
            ("SELECT nullif(id, 10) AS n, geom FROM fields", {}, DataError, "n is NULL in 1 of 4 rows: COALESCE"),
            ("SELECT nullif(id, 10) AS n, NULL::geometry AS geom FROM fields", {}, DataError, "4 of 4 rows have no geometry"),
            ("SELECT geom FROM fields WHERE false", {}, MissingError, "no row"),
            ("SELECT -1 AS weight, geom FROM fields", {"count": 3}, ConfigError, "weight: expected numbers"),
            ("SELECT geom FROM fields", {"count": 0}, ConfigError, "count=0"),
            ("SELECT geom FROM fields", {"jitter": -1}, ConfigError, "jitter=-1"),
            ("SELECT 1; SELECT 2", {}, QueryError, "more than one statement"),
        ],
    )
    def test_what_is_refused(self, land, text, options, error, says):
        with pytest.raises(error, match=says):
            Tiles.query(land, self.grid, text, **options)

    def test_missing_numbers_and_times(self, land):
        text = "SELECT nullif(weight, 0) AS weight, CASE WHEN id > 10 THEN sown END AS time, true AS yes, 2.5::numeric AS n, geom FROM fields ORDER BY id"
        tiles = Tiles.query(land, self.grid, text)
        assert np.isnan(tiles.columns["weight"]).tolist() == [False, False, True, False]
        assert np.isnat(tiles.times).tolist() == [True, False, False, False]
        assert tiles.columns["yes"].dtype == bool
        assert tiles.columns["n"].tolist() == [2.5] * 4


class TestSlippy:
    def test_facts(self):
        """Greenwich at zoom 15, and the whole world at zoom 1, by hand: x = (lon + 180) / 360 · 2^z."""
        one = Tiles.slippy(1, within=(-180, -85, 180, 85))
        assert list(zip(*(one.columns[k].tolist() for k in "zxy"), strict=True)) == [(1, 0, 0), (1, 1, 0), (1, 0, 1), (1, 1, 1)]
        half = 20037508.342789244
        assert one.bounds.tolist() == [[-half, 0, 0, half], [0, 0, half, half], [-half, -half, 0, 0], [0, -half, half, 0]]
        equator = Tiles.slippy(15, within=(0, 0, 360 / 2**15, 0.001))
        assert (equator.columns["x"].tolist(), equator.columns["y"].tolist()) == ([16384], [16383])

    @given(st.floats(-179.9, 179), st.floats(-84, 84), st.floats(1e-4, 0.5), st.integers(0, 20), st.sampled_from([256, 512]))
    def test_law_pyproj_finds_each_corner_in_its_tile(self, lon, lat, side, zoom, size):
        side = side if zoom < 14 else side / 100
        box = lon, lat, min(lon + side, 180), lat + side
        tiles = Tiles.slippy(zoom, within=box, size=size)
        bounds, there = tiles.bounds, pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
        (x0, x1), (y0, y1) = there.transform([box[0], box[2]], [box[1], box[3]])
        step, eps = 2 * 20037508.342789244 / 2**zoom, 1e-3
        assert bounds[:, 0].min() - eps <= x0 <= bounds[:, 0].min() + step + eps
        assert bounds[:, 2].max() - step - eps <= x1 <= bounds[:, 2].max() + eps
        assert bounds[:, 1].min() - eps <= y0 <= bounds[:, 1].min() + step + eps
        assert bounds[:, 3].max() - step - eps <= y1 <= bounds[:, 3].max() + eps
        np.testing.assert_allclose(bounds[:, 0], -20037508.342789244 + tiles.columns["x"] * step, atol=1e-6)
        np.testing.assert_allclose(bounds[:, 3], 20037508.342789244 - tiles.columns["y"] * step, atol=1e-6)
        assert tiles.grid.shape == (size, size)

    def test_across_the_antimeridian_and_at_the_poles(self):
        assert Tiles.slippy(2, within=(170, -1, -170, 1)).columns["x"].tolist() == [3, 0, 3, 0]
        assert Tiles.slippy(0, within=(170, -10, -170, 10)).columns["x"].tolist() == [0]  # the one tile reaches it twice
        assert Tiles.slippy(1, within=(10, 1, -10, 2)).columns["x"].tolist() == [1, 0]
        assert Tiles.slippy(1, within=(20, 1, 10, 2)).columns["x"].tolist() == [1, 0]
        assert Tiles.slippy(1, within=(-10, -90, 10, 90)).columns["y"].tolist() == [0, 0, 1, 1]

    @pytest.mark.parametrize(
        ("zoom", "within", "says"),
        [
            (31, (0, 0, 1, 1), "zoom=31: expected 0 to 30"),
            (-1, (0, 0, 1, 1), "zoom=-1"),
            (3, (0, 1, 1, 0), "in degrees, south < north"),
            (3, (850000, 0, 860000, 1), "in degrees"),
            (3, (0, 0, 1), "in degrees"),
            (3, (0, 86, 1, 89), "maps end at 85.0511"),
        ],
    )
    def test_what_is_none(self, zoom, within, says):
        with pytest.raises(ConfigError, match=re.escape(says)):
            Tiles.slippy(zoom, within=within)


class TestPeriods:
    def test_each_place_once_a_period(self):
        tiles = Tiles.random(GRID, within=(0, 0, 90, 90), count=3, first_id=7).with_columns(crop=["a", "b", "c"])
        many = tiles.per_period(["2024-04-01", "2024-07-01T12:00Z"], first_id=100)
        assert many.ids.tolist() == list(range(100, 106))
        assert many.columns["place"].tolist() == [7, 8, 9] * 2
        assert many.columns["crop"].tolist() == ["a", "b", "c"] * 2
        assert pairs(many) == pairs(tiles) * 2
        assert many.times.astype(str).tolist() == ["2024-04-01T00:00:00.000000"] * 3 + ["2024-07-01T12:00:00.000000"] * 3
        assert pairs(many) == pairs(tiles.per_period(np.array(["2024-04-01", "2024-07-01"], "M8[D]")))

    @pytest.mark.parametrize("times", [[], "2024-04-01", ["soon"], [None]])
    def test_times_that_are_none(self, times):
        with pytest.raises(ConfigError, match="time"):
            Tiles.random(GRID, within=(0, 0, 90, 90), count=3).per_period(times)

    def test_a_layer_uses_them(self, db, tmp_path):
        for k, day in enumerate(("20240401", "20240701")):
            write_tiff(tmp_path / f"{day}.tif", np.full((1, 40, 40), 10 + k, "uint8"))
        load.raster(db, [tmp_path / "20240401.tif", tmp_path / "20240701.tif"], "seen")
        with db.connection() as conn:
            conn.execute("ALTER TABLE seen ADD acquired date")
            conn.execute("UPDATE seen SET acquired = to_date(substring(filename FROM '\\d{8}'), 'YYYYMMDD')")
        tiles = Tiles.sliding(Grid.like(db, "seen", size=20), imagery="seen", db=db).per_period(["2024-04-02", "2024-06-30"])
        batch = read(db, tiles, {"image": Imagery("seen", time=TimeSeries("acquired", steps=1, nearest="tile"))})
        assert batch["image"][:, 0, 0, 5, 5].tolist() == [10] * 4 + [11] * 4


class TestMade:
    def test_what_made_them_goes_with_them(self):
        tiles = Tiles.random(GRID, within=ISLANDS, count=np.int64(5), seed=3)
        assert tiles.made == {"by": "random", "within": ISLANDS.wkt, "count": 5, "seed": 3, "min_coverage": 1.0}
        more = Tiles.sliding(GRID, within=np.array([0, 0, 20, 20]), first_id=9)
        for one in (tiles[1:3], pickle.loads(pickle.dumps(tiles)), tiles.with_columns(a=1), tiles.timed("2024-01-01")):
            assert one.made == tiles.made
        assert (tiles + more).made == {"by": "sum", "of": [tiles.made, more.made]}
        assert (tiles[:2] + tiles[2:]).made == tiles.made
        json.dumps((tiles + more).made)
        long = shapely.Point(0, 0).buffer(100, quad_segs=500)
        made = Tiles.random(GRID, within=long, count=1).made["within"]
        assert (made["area"], len(made["sha256"])) == (long.area, 64)


def test_the_page(land, world, tmp_path, monkeypatch):
    """Each block of docs/tiles-sampling.md, on tables of the names that it gives them."""
    monkeypatch.chdir(tmp_path)
    for name, crs, corner in (("sat_s2", 3857, (X0, Y0)), ("s2_32632", 32632, (7e5, 53e5)), ("s2_32633", 32633, (25e4, 53e5))):
        pixels = scene(0, (1, 250, 250))
        pixels[:, :, :100] = 0
        path = write_tiff(tmp_path / f"{name}.tif", pixels, crs=f"EPSG:{crs}", transform=from_origin(*corner, 10, 10), nodata=0)
        load.raster(land, path, name)
    with land.connection() as conn:
        conn.execute(
            "ALTER TABLE fields ADD crop text DEFAULT 'wheat'; UPDATE fields SET geom = ST_Transform(ST_Expand(ST_Transform(geom, 3857), 400), 4326)"
        )
    monkeypatch.setenv("PGTILES_URL", f"{world.url}?options=-csearch_path%3Dmine%2Cpublic")
    names = {}
    for kind, code in re.findall(r"^```(python|sql)\n(.*?)^```$", (DOCS / "tiles-sampling.md").read_text(), re.M | re.S):
        if kind == "sql":
            with land.connection() as conn:
                conn.execute(code)
        else:
            exec(compile(code, "tiles-sampling.md", "exec"), names)
    west = names["candidates"].bounds[:, 0]
    empty = np.clip((X0 + 1000 - west) / 640, 0, 1)
    np.testing.assert_allclose(np.nan_to_num(names["candidates"].columns["clear"]), 1 - empty, atol=0.02)
    assert 0 < len(names["clear"]) < 200
    assert sorted(set(names["batch"]["srid"].tolist())) == [32632, 32633]
    assert len(names["train"]) == 160
    assert len(names["wheat"]) == 4
