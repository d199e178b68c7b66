"""Where tiles are: laws of the lattice, and of the sets of tiles on it. shapely, fractions and counting say what is right."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
import shapely
from conftest import RES, X0, Y0
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pgtiles import Grid, Tiles
from pgtiles.errors import ConfigError, DataError, MissingError

GRID = Grid(srid=3857, resolution=1, size=4)
L_SHAPE = shapely.Polygon([(0, 0), (24, 0), (24, 7), (9, 7), (9, 20), (0, 20)])
TWO_PARTS = shapely.MultiPolygon([shapely.box(0, 0, 10, 10), shapely.box(20, 3, 27, 14)])
HOLE = shapely.box(0, 0, 20, 20).difference(shapely.box(8, 8, 11, 12))
SLANTED = shapely.Polygon([(0.3, 0.1), (30.7, 12.2), (18.9, 31.3), (3.3, 25.9)])

indices = st.integers(-(10**6), 10**6)
sides = st.integers(1, 400)


@st.composite
def grids(draw):
    """Grids from a hundred-thousandth of a unit to kilometres a pixel, their origin at most a million pixels away."""
    resolution = draw(st.tuples(*[st.floats(1e-5, 1e4)] * 2))
    origin = tuple(draw(st.floats(-1e6, 1e6)) * r for r in resolution)
    return Grid(srid=32631, resolution=resolution, size=draw(st.tuples(sides, sides)), origin=origin)


def boxes(tiles):
    return shapely.box(*tiles.bounds.T)


def places_by_trial(grid, region):
    """All places in a region, in the order of reading: each one around is tried, and none of its area may be outside."""
    xmin, ymin, xmax, ymax = region.bounds
    h, w = grid.shape
    tried = Tiles(
        grid,
        *np.stack([
            (c, r)
            for r in range(int(-ymax) - 2 * h, int(-ymin) + 2 * h)
            for c in range(int(xmin) - 2 * w, int(xmax) + 2 * w)
        ], axis=1),
    )  # fmt: skip
    return tried[shapely.area(shapely.difference(boxes(tried), region)) == 0]


def pairs(tiles):
    return list(zip(tiles.cols.tolist(), tiles.rows.tolist(), strict=True))


class TestGrid:
    @given(grids(), indices, indices)
    def test_bounds_are_the_lattice_to_the_last_digits(self, grid, col, row):
        (rx, ry), (h, w), (x, y) = (tuple(map(Fraction, pair)) for pair in (grid.pixel, grid.shape, grid.origin))
        exact = x + col * rx, y - (row + h) * ry, x + (col + w) * rx, y - row * ry
        got = grid.bounds(np.array([col]), np.array([row]))
        assert got.dtype == np.float64
        assert got.shape == (1, 4)
        for value, right, pixel in zip(got[0].tolist(), exact, (rx, ry, rx, ry), strict=True):
            assert abs(Fraction(value) - right) < pixel * Fraction(1, 10**9)

    @given(grids(), indices, indices)
    def test_neighbours_share_their_border_exactly(self, grid, col, row):
        h, w = grid.shape
        here, east, south = grid.bounds(np.array([col, col + w, col]), np.array([row, row, row + h]))
        assert here[2] == east[0]
        assert (here[1], here[3]) == (east[1], east[3])
        assert here[1] == south[3]
        assert (here[0], here[2]) == (south[0], south[2])

    @given(grids(), indices, indices)
    def test_in_the_bounds_of_a_tile_there_is_one_place(self, grid, col, row):
        assert grid.places(tuple(grid.bounds(np.array([col]), np.array([row]))[0])) == (col, col, row, row)

    @given(grids(), indices, indices, *[st.floats(0.01, 50)] * 4)
    def test_places_are_all_those_within(self, grid, col, row, west, south, east, north):
        """A region around a tile, by fractions of a pixel: the outermost places lie in it, the next ones do not."""
        (rx, ry), margin = grid.pixel, np.array([-west, -south, east, north])
        assume(all(abs(m - round(m)) > 1e-3 for m in margin))  # what lies on a line is another law
        within = grid.bounds(np.array([col]), np.array([row]))[0] + margin * [rx, ry, rx, ry]
        c0, c1, r0, r1 = grid.places(tuple(within))
        assert (c0, c1) == (col - int(west), col + int(east))
        assert (r0, r1) == (row - int(north), row + int(south))

    @given(grids(), indices, indices)
    def test_a_region_a_little_too_small_holds_no_tile(self, grid, col, row):
        (rx, ry), (xmin, ymin, xmax, ymax) = grid.pixel, grid.bounds(np.array([col]), np.array([row]))[0]
        c0, c1, _, _ = grid.places((xmin, ymin, xmax - 1e-3 * rx, ymax))
        assert c1 < c0
        _, _, r0, r1 = grid.places((xmin, ymin + 1e-3 * ry, xmax, ymax))
        assert r1 < r0

    def test_one_number_or_a_pair_is_the_same_grid(self):
        assert Grid(srid=3857, resolution=2, size=64) == Grid(srid=3857, resolution=(2.0, 2.0), size=(64, 64), origin=(0, 0))
        assert hash(Grid(srid=3857, resolution=2)) == hash(Grid(srid=3857, resolution=(2, 2), size=256))

    def test_size_is_height_and_width(self):
        grid = Grid(srid=3857, resolution=(2, 3), size=(10, 20))
        assert grid.bounds(np.array([0]), np.array([0])).tolist() == [[0, -30, 40, 0]]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"srid": 0}, r"srid=0: .*EPSG"),
            ({"srid": -1}, r"srid=-1: "),
            ({"srid": "3857"}, r"srid='3857': "),
            ({"resolution": 0}, r"resolution=0: expected positive"),
            ({"resolution": -2.5}, r"resolution=-2.5: "),
            ({"resolution": float("nan")}, r"resolution=nan: "),
            ({"resolution": float("inf")}, r"resolution=inf: "),
            ({"resolution": (2.5, 0)}, r"resolution=\(2.5, 0\): "),
            ({"resolution": (1, 2, 3)}, r"resolution=\(1, 2, 3\): .*pair"),
            ({"resolution": "2.5"}, r"resolution='2.5': "),
            ({"resolution": None}, r"resolution=None: "),
            ({"size": 0}, r"size=0: expected 1 to 65535"),
            ({"size": 65536}, r"size=65536: expected 1 to 65535"),
            ({"size": (256, 0)}, r"size=\(256, 0\): "),
            ({"size": (65536, 256)}, r"size=\(65536, 256\): "),
            ({"size": 2.5}, r"size=2.5: expected one int"),
            ({"size": True}, r"size=True: "),
            ({"origin": (0, float("nan"))}, r"origin=\(0, nan\): "),
            ({"origin": (float("inf"), 0)}, r"origin=\(inf, 0\): "),
            ({"origin": (1, 2, 3)}, r"origin=\(1, 2, 3\): "),
        ],
    )
    def test_wrong_arguments_are_named(self, options, says):
        with pytest.raises(ConfigError, match=f"^{says}"):
            Grid(**{"srid": 3857, "resolution": 2.5} | options)

    def test_the_largest_and_smallest_sizes(self):
        assert Grid(srid=3857, resolution=1, size=(65535, 1)).shape == (65535, 1)


RASTER = "ST_AddBand(ST_MakeEmptyRaster(10, 10, {x}, {y}, {sx}, {sy}, {kx}, {ky}, {srid}), '8BUI'::text, 0, NULL)"


class TestGridLike:
    def table(self, db, name, *rasters):
        """A table of rasters that differ from a usual one in what is given."""
        with db.connection() as conn:
            conn.execute(f"CREATE TABLE {name} (rid serial PRIMARY KEY, rast raster)")
            for given_ in rasters:
                row = {"x": 100, "y": 200, "sx": 2, "sy": -2, "kx": 0, "ky": 0, "srid": 3857} | given_
                conn.execute(f"INSERT INTO {name} (rast) VALUES ({RASTER.format(**row)})")

    def test_a_loaded_scene(self, world):
        grid = Grid.like(world.db, "scene", size=(30, 50))
        assert (grid.srid, grid.pixel, grid.shape) == (3857, (RES, RES), (30, 50))
        off = (np.array(grid.origin) - [X0, Y0]) / RES
        np.testing.assert_array_equal(off, np.round(off))
        assert Grid.like(world.db, "scene").shape == (256, 256)

    def test_pixels_that_are_not_square(self, db):
        self.table(db, "oblong", {"sx": 0.5, "sy": -0.25, "srid": 4326})
        assert Grid.like(db, "oblong", size=8) == Grid(srid=4326, resolution=(0.5, 0.25), size=8, origin=(100, 200))

    def test_blocks_of_one_lattice(self, db):
        self.table(db, "blocks", {}, {"x": 120}, {"y": 180}, {"x": 1_000_100})
        assert Grid.like(db, "blocks").pixel == (2, 2)

    @pytest.mark.parametrize(
        ("rasters", "says"),
        [
            ([{"kx": 0.5}], r"public\.odd\.rast is not north-up \(.*skew \(0\.5, 0\.0\)\): give the Grid"),
            ([{"ky": -0.1}], "not north-up"),
            ([{"sy": 2}], r"not north-up \(scale \(2\.0, 2\.0\)"),
            ([{"sx": -2}], "not north-up"),
            ([{}, {"sx": 4}], "rasters of 2 kinds.*give the Grid"),
            ([{}, {"srid": 32631}], "rasters of 2 kinds.*SRID 3857.*SRID 32631"),
            ([{"srid": 0}], r"SRID 0.*UpdateRasterSRID\('public', 'odd', 'rast', <srid>\)"),
            ([], "holds no raster"),
        ],
    )
    def test_what_lies_on_no_lattice_is_refused(self, db, rasters, says):
        self.table(db, "odd", *rasters)
        with pytest.raises(DataError, match=says):
            Grid.like(db, "odd")

    def test_two_raster_columns(self, db):
        self.table(db, "two", {})
        with db.connection() as conn:
            conn.execute("ALTER TABLE two ADD COLUMN other raster")
            conn.execute(f"UPDATE two SET other = {RASTER.format(x=0, y=0, sx=5, sy=-5, kx=0, ky=0, srid=3857)}")
        with pytest.raises(ConfigError, match="2 raster columns, rast, other: say which with column="):
            Grid.like(db, "two")
        assert Grid.like(db, "two", column="other").pixel == (5, 5)

    def test_what_is_not_there(self, world):
        for table, says in (("scenes", r"no table 'scenes'.*public\.scene"), ("roads", "no raster column")):
            with pytest.raises(MissingError, match=says):
                Grid.like(world.db, table)
        with pytest.raises(ConfigError, match="size=0"):
            Grid.like(world.db, "scene", size=0)


class TestStored:
    def table(self, db, name, *rasters, key="rid int PRIMARY KEY"):
        """Rasters of 7 × 5 pixels: a key, the upper left corner, and what else differs."""
        with db.connection() as conn:
            conn.execute(f"CREATE TABLE {name} ({key}, rast raster)")
            for rid, x, y, *more in rasters:
                raster = RASTER.format(x=x, y=y, sx=2, sy=-4, kx=0, ky=0, srid=3857).replace("10, 10", (more or ["7, 5"])[0])
                conn.execute(f"INSERT INTO {name} VALUES ({rid}, {raster})")

    def test_one_for_each_raster_on_its_pixels_by_key(self, db):
        corners = {9: (100, 200), -4: (114, 200), 5: (128, 160), 6: (102, 300)}
        self.table(db, "patches", *((rid, x, y) for rid, (x, y) in corners.items()))
        with db.connection() as conn:
            conn.execute("INSERT INTO patches VALUES (7, NULL)")
        tiles = Tiles.stored(db, "patches")
        assert (tiles.grid.srid, tiles.grid.pixel, tiles.grid.shape) == (3857, (2, 4), (5, 7))
        assert tiles.ids.tolist() == [-4, 5, 6, 9]
        assert tiles.bounds.tolist() == [[x, y - 20, x + 14, y] for x, y in (corners[rid] for rid in (-4, 5, 6, 9))]

    @pytest.mark.parametrize(
        ("rasters", "says"),
        [
            (
                [(1, 0, 0), (2, 14, 0), (3, 28, 0, "3, 5")],
                "2 sizes: most have 7 × 5 px, that of key 3 has 3 × 5. .*Tiles.sliding",
            ),
            ([(1, 0, 0), (2, 14.5, 0)], "the raster of key [12] is not on the lattice of the others"),
            ([(1, 0, 0), (2, 14, 0), (7, 14, 0)], "rasters of keys 2 and 7 lie at one place"),
            ([], "holds no raster"),
        ],
    )
    def test_rasters_that_are_no_tiles_of_one_grid(self, db, rasters, says):
        self.table(db, "odd", *rasters)
        with pytest.raises(DataError, match=says):
            Tiles.stored(db, "odd")

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            ("rid int", "it has no primary key; expected one column of whole numbers"),
            ("rid text PRIMARY KEY", "its primary key is rid; expected"),
            ("rid int, b int DEFAULT 1, PRIMARY KEY (rid, b)", "its primary key is rid, b; expected"),
        ],
    )
    def test_a_table_without_a_number_for_each(self, db, key, says):
        with db.connection() as conn:
            conn.execute(f"CREATE TABLE odd ({key}, rast raster)")
            conn.execute(
                f"INSERT INTO odd (rid, rast) VALUES ('1', {RASTER.format(x=0, y=0, sx=2, sy=-2, kx=0, ky=0, srid=3857)})"
            )
        with pytest.raises(DataError, match=says):
            Tiles.stored(db, "odd")

    def test_a_scene_with_narrower_blocks_at_its_edge(self, world):
        with pytest.raises(DataError, match="scene holds rasters of 4 sizes: most have 128 × 128 px"):
            Tiles.stored(world.db, "scene")


class TestRandom:
    @pytest.mark.parametrize("region", [L_SHAPE, TWO_PARTS, HOLE, SLANTED], ids=["L", "two parts", "hole", "slanted"])
    def test_wholly_inside_and_uniform_over_all_places(self, region):
        """Each place of the region, found by trial, comes equally often: chi-square at 99.9 % (Wilson and Hilferty)."""
        places = pairs(places_by_trial(GRID, region))
        tiles = Tiles.random(GRID, within=region, count=50 * len(places), seed=5)
        seen = dict.fromkeys(places, 0)
        for place in pairs(tiles):
            seen[place] += 1  # a KeyError: this place is not wholly inside
        free = len(places) - 1
        chi2 = ((np.array(list(seen.values())) - 50) ** 2 / 50).sum()
        assert chi2 < free * (1 - 2 / (9 * free) + 3.09 * np.sqrt(2 / (9 * free))) ** 3

    def test_a_box_is_the_same_as_its_polygon(self):
        """As to where tiles may be: in either all 7 × 10 places, the outermost ones too."""
        box = (3.0, -20.0, 13.0, -7.0)
        for within in (box, list(box), np.array(box), shapely.box(*box)):
            tiles = Tiles.random(GRID, within=within, count=5000)
            assert set(pairs(tiles)) == {(c, r) for c in range(3, 10) for r in range(7, 17)}

    @settings(max_examples=50)
    @given(grids(), indices, indices, *[st.floats(0.01, 500)] * 2, st.integers(0, 2**32))
    def test_law_wholly_inside_on_any_lattice(self, grid, col, row, east, north, seed):
        (rx, ry), (xmin, ymin, xmax, ymax) = grid.pixel, grid.bounds(np.array([col]), np.array([row]))[0]
        within = (xmin, ymin, xmax + east * rx, ymax + north * ry)
        pixels = Tiles.random(grid, within=within, count=20, seed=seed).bounds / [rx, ry, rx, ry]
        limits = np.array(within) / [rx, ry, rx, ry]
        assert (pixels[:, :2] >= limits[:2] - 1e-5).all()
        assert (pixels[:, 2:] <= limits[2:] + 1e-5).all()

    def test_the_seed_says_which(self):
        one, same, other = (Tiles.random(GRID, within=L_SHAPE, count=50, seed=s) for s in (1, 1, 2))
        assert pairs(one) == pairs(same)
        assert pairs(one) != pairs(other)

    def test_ids(self):
        assert Tiles.random(GRID, within=L_SHAPE, count=3).ids.tolist() == [0, 1, 2]
        assert Tiles.random(GRID, within=L_SHAPE, count=3, first_id=10).ids.tolist() == [10, 11, 12]

    def test_a_region_of_one_place(self):
        tiles = Tiles.random(GRID, within=(8, -12, 12, -8), count=3)
        assert pairs(tiles) == [(8, 8)] * 3

    @pytest.mark.parametrize(
        ("within", "says"),
        [
            ((0, 0, 0, 10), r"within=\(0\.0, 0\.0, 0\.0, 10\.0\): expected xmin < xmax"),
            ((10, 0, 0, 10), "expected xmin < xmax and ymin < ymax"),
            ((0, 10, 10, 0), "expected xmin < xmax and ymin < ymax"),
            ((0, 0, float("nan"), 10), "four finite"),
            ((0, 0, float("inf"), 10), "four finite"),
            ((0, 0, 10), "four finite"),
            ((0, 0, 3.9, 10), r"no tile of 4 × 4 px \(4 × 4 CRS units\) fits into 3\.9 × 10 CRS units"),
            ((0.5, 0, 4.9, 10), "no tile"),
            (shapely.Polygon(), "found Polygon of area 0"),
            (shapely.LineString([(0, 0), (50, 50)]), "found LineString of area 0"),
            (shapely.Point(0, 0), "found Point of area 0"),
            (shapely.Polygon([(0, 0), (20, 20), (20, 0), (0, 10)]), "not valid: Self-intersection"),
            (shapely.LineString([(0, 0), (500, 500)]).buffer(1), r"no tile of 4 × 4 px.* lies wholly within the region: make"),
            (
                shapely.box(0, 0, 3, 100).union(shapely.box(0, 0, 100, 3)),
                "no tile of 4 × 4 px.* lies wholly within the region: make",
            ),
        ],
    )
    def test_a_region_without_room(self, within, says):
        with pytest.raises(ConfigError, match=says):
            Tiles.random(GRID, within=within, count=3)

    @pytest.mark.parametrize("options", [{"count": 0}, {"count": -1}, {"count": 2.5}, {"seed": -1}])
    def test_wrong_numbers(self, options):
        with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
            Tiles.random(GRID, **{"within": (0, 0, 10, 10), "count": 3} | options)


class TestSliding:
    @pytest.mark.parametrize(
        ("width", "height", "size"), [(20, 12, (4, 5)), (4, 4, (4, 4)), (23, 15, (4, 5)), (6, 7, (7, 6))], ids=str
    )
    def test_they_just_touch_and_cover_what_whole_tiles_can(self, width, height, size):
        grid = Grid(srid=3857, resolution=1, size=size)
        tiles = Tiles.sliding(grid, within=(2, 3, 2 + width, 3 + height))
        covered, (h, w) = shapely.union_all(boxes(tiles)), size
        north_west = shapely.box(2, 3 + height - height // h * h, 2 + width // w * w, 3 + height)
        assert covered.equals(north_west)
        assert shapely.area(boxes(tiles)).sum() == covered.area  # none overlap
        assert len(tiles) == (height // h) * (width // w)

    def test_row_by_row_from_the_north_west(self):
        tiles = Tiles.sliding(GRID, within=(0, -10, 12, 0), stride=(3, 4), first_id=5)
        assert pairs(tiles) == [(0, 0), (4, 0), (8, 0), (0, 3), (4, 3), (8, 3), (0, 6), (4, 6), (8, 6)]
        assert tiles.ids.tolist() == list(range(5, 14))

    @given(
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        st.tuples(st.integers(1, 7), st.integers(1, 7)),
        *[st.integers(0, 20)] * 4,
    )
    def test_law_every_strideth_place_and_no_other(self, size, stride, west, north, wide, high):
        grid = Grid(srid=3857, resolution=1, size=size)
        (h, w), (down, right) = size, stride
        wide, high = wide + w, high + h
        tiles = Tiles.sliding(grid, within=(west, -north - high, west + wide, -north), stride=stride)
        want = [(c, r) for r in range(north, north + high - h + 1, down) for c in range(west, west + wide - w + 1, right)]
        assert pairs(tiles) == want

    @pytest.mark.parametrize("region", [L_SHAPE, TWO_PARTS, HOLE, SLANTED], ids=["L", "two parts", "hole", "slanted"])
    def test_in_a_polygon_all_places_within(self, region):
        tiles = Tiles.sliding(GRID, within=region, stride=1)
        assert pairs(tiles) == pairs(places_by_trial(GRID, region))
        assert tiles.ids.tolist() == list(range(len(tiles)))

    @pytest.mark.parametrize("stride", [0, -1, 2.5, (1, 0), (1, 2, 3)])
    def test_wrong_strides(self, stride):
        with pytest.raises(ConfigError, match="stride="):
            Tiles.sliding(GRID, within=(0, 0, 10, 10), stride=stride)

    def test_a_region_without_room(self):
        with pytest.raises(ConfigError, match="no tile of 4 × 4 px"):
            Tiles.sliding(GRID, within=(0, 0, 3, 100))
        with pytest.raises(ConfigError, match=r"no tile of 4 × 4 px.*at this stride"):
            Tiles.sliding(GRID, within=shapely.Polygon([(0, 0), (6, 9), (12, 0)]), stride=100)


class TestSets:
    @pytest.fixture
    def tiles(self):
        return Tiles(GRID, np.array([1, 2, 3, 4]), np.array([5, 6, 7, 8]), np.array([40, 10, 30, 20]))

    def test_length_ids_and_bounds(self, tiles):
        assert len(tiles) == 4
        assert tiles.bounds.tolist() == [[1, -9, 5, -5], [2, -10, 6, -6], [3, -11, 7, -7], [4, -12, 8, -8]]
        assert tiles.bounds.dtype == np.float64
        assert tiles.ids.dtype == tiles.cols.dtype == tiles.rows.dtype == np.int64
        assert Tiles(GRID, np.array([7, 7]), np.array([9, 9])).ids.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("which", "ids"),
        [
            (0, [40]),
            (-1, [20]),
            (-4, [40]),
            (np.int64(2), [30]),
            (slice(1, 3), [10, 30]),
            (slice(None, None, -1), [20, 30, 10, 40]),
            (slice(9, None), []),
            ([3, 0], [20, 40]),
            (np.array([2, 1]), [30, 10]),
            (np.array([True, False, False, True]), [40, 20]),
            (np.zeros(4, bool), []),
        ],
        ids=str,
    )
    def test_taking_some(self, tiles, which, ids):
        some = tiles[which]
        assert some.ids.tolist() == ids
        places = {40: (1, 5), 10: (2, 6), 30: (3, 7), 20: (4, 8)}
        assert pairs(some) == [places[i] for i in ids]
        assert some.grid is tiles.grid

    def test_columns_go_with_their_tiles(self, tiles):
        told = tiles.with_columns(roads=[3, 0, 7, 1], place=["a", "b", "c", "d"], seen=True)
        assert {name: array.tolist() for name, array in told[[2, 0]].columns.items()} == {
            "roads": [7, 3], "place": ["c", "a"], "seen": [True, True],
        }  # fmt: skip
        both = told[:1] + told[3:]
        assert both.columns["roads"].tolist() == [3, 1]
        assert both.with_columns(roads=9.5).columns["roads"].tolist() == [9.5, 9.5]
        again = pickle.loads(pickle.dumps(told))
        assert {name: array.tolist() for name, array in again.columns.items()}["roads"] == [3, 0, 7, 1]
        assert told.timed("2024-03-01").columns["place"].tolist() == ["a", "b", "c", "d"]
        with pytest.raises(TypeError):
            told.columns["roads"] = np.zeros(4)

    @pytest.mark.parametrize(
        "values", [[1, 2], [[1], [2], [3], [4]], [object()] * 4, [None, 1, 2, 3]], ids=["few", "2d", "obj", "none"]
    )
    def test_columns_that_are_none(self, tiles, values):
        with pytest.raises(ConfigError, match="column 'roads': expected 4 numbers"):
            tiles.with_columns(roads=values)

    def test_sets_of_unlike_columns_are_not_added(self, tiles):
        with pytest.raises(ConfigError, match="only one of both has the column 'roads'"):
            tiles[:2].with_columns(roads=1) + tiles[2:]

    @pytest.mark.parametrize(
        ("one", "other"),
        [([1, 2], ["a", "b"]), ([2**60 + 1, 1], [0.5, 1]), ([1, 2], np.array(["2024-01-01"] * 2, "M8[us]")), ([True, False], [1, 2]),
         (np.array([2**63, 1], "u8"), [-1, 2])],
        ids=["text", "float", "time", "bool", "unsigned"],
    )  # fmt: skip
    def test_columns_of_unlike_types_are_not_added(self, tiles, one, other):
        with pytest.raises(ConfigError, match=r"the column 'k' is \w+.* in one and .* in the other"):
            tiles[:2].with_columns(k=one) + tiles[2:].with_columns(k=other)

    def test_columns_of_other_widths_are_added_as_they_are(self, tiles):
        for one, other in ((np.int8([1, -2]), np.uint32([3, 2**32 - 1])), (["a", "b"], ["long", "c"])):
            both = tiles[:2].with_columns(k=one) + tiles[2:].with_columns(k=other)
            assert both.columns["k"].tolist() == [*list(one), *list(other)]

    def test_nobody_writes_to_them(self, tiles):
        """Neither to their arrays, nor to those that they were made of."""
        ids, values = np.array([5, 6, 7, 8]), np.array([1, 2, 3, 4])
        own = Tiles(GRID, tiles.cols, tiles.rows, ids).with_columns(k=values, view=values[::-1])
        ids[0] = values[0] = 99
        assert own.ids.tolist() == [5, 6, 7, 8]
        assert (own.columns["k"].tolist(), own.columns["view"].tolist()) == ([1, 2, 3, 4], [4, 3, 2, 1])
        for some in (own, own[1:], own[[0, 2]], own.timed("2024-01-01")):
            for array in (some.ids, some.cols, some.rows, some.columns["k"], *([] if some.times is None else [some.times])):
                with pytest.raises(ValueError, match="read-only"):
                    array[0] = array[1]

    def test_texts_that_come_as_objects(self, tiles):
        told = tiles.with_columns(k=np.array(["a", "bc", "d", "e"], object))
        assert told.columns["k"].dtype == "U2"

    def test_one_lattice_from_another_origin_is_one_grid(self, tiles):
        far = Tiles(Grid(srid=3857, resolution=1, size=4, origin=(160, -32)), np.array([3]), np.array([-2]), np.array([99]))
        both = tiles + far
        assert both.grid == GRID
        assert both.zone is None
        assert both.bounds[4].tolist() == far.bounds[0].tolist() == [163, -34, 167, -30]
        off = Tiles(Grid(srid=3857, resolution=1, size=4, origin=(0.5, 0)), np.array([3]), np.array([-2]), np.array([98]))
        assert len((both + off).grid.grids) == 2
        assert len((off + both + far[:0]).grid.grids) == 2

    @pytest.mark.parametrize("which", [4, -5, [0, 4], np.array([True, False])], ids=str)
    def test_taking_what_is_not_there(self, tiles, which):
        with pytest.raises(IndexError):
            tiles[which]

    def test_iterating_gives_each_alone(self, tiles):
        assert [one.ids.tolist() for one in tiles] == [[40], [10], [30], [20]]

    def test_twice_the_same_is_refused(self, tiles):
        """Where a set is made; a slice may hold a tile twice, as a draw does."""
        with pytest.raises(ConfigError, match=r"1 tile ids are there twice \(the first: 10\).*first_id="):
            tiles + tiles[[1]]
        assert tiles[[1, 1]].ids.tolist() == [10, 10]

    def test_adding(self, tiles):
        more = Tiles(GRID, np.array([9]), np.array([9]), np.array([50]))
        both = tiles + more
        assert both.ids.tolist() == [40, 10, 30, 20, 50]
        assert pairs(both) == [*pairs(tiles), (9, 9)]
        assert (more + tiles).ids.tolist() == [50, 40, 10, 30, 20]
        assert (tiles[:0] + more).ids.tolist() == [50]

    def test_adding_the_same_ids_is_refused(self):
        one, two = (Tiles.random(GRID, within=L_SHAPE, count=5, seed=s) for s in (0, 1))
        with pytest.raises(ConfigError, match=r"5 tile ids are there twice \(the first: 0\).*first_id="):
            one + two
        assert len(one + Tiles.random(GRID, within=L_SHAPE, count=5, seed=1, first_id=5)) == 10

    @pytest.mark.parametrize("other", [{"size": 8}, {"resolution": 2}, {"step": 2, "srid": 32631}])
    def test_adding_another_grid_is_refused(self, tiles, other):
        grid = Grid(**{"srid": 3857, "resolution": 1, "size": 4} | other)
        with pytest.raises(ConfigError, match="grids that differ in resolution, size or step"):
            tiles + Tiles(grid, np.array([0]), np.array([0]), np.array([99]))

    def test_an_equal_grid_is_the_same(self, tiles):
        assert len(tiles + Tiles(Grid(srid=3857, resolution=(1, 1), size=4), np.array([0]), np.array([0]), np.array([99]))) == 5

    @pytest.mark.parametrize(
        ("cols", "rows", "ids", "says"),
        [
            ([0, 1], [0], None, "2 cols, 1 rows, 2 ids"),
            ([0, 1], [0, 1], [5], "2 cols, 2 rows, 1 ids"),
            ([0.5, 1.0], [0, 1], None, "cols: expected N integers, found an array of float64"),
            ([0], [0], [1.0], "ids: expected N integers"),
            ([[0]], [0], None, "cols: expected N integers"),
        ],
    )
    def test_wrong_arrays(self, cols, rows, ids, says):
        with pytest.raises(ConfigError, match=says):
            Tiles(GRID, np.array(cols), np.array(rows), None if ids is None else np.array(ids))

    def test_no_tiles_are_tiles(self):
        none = Tiles(GRID, np.array([]), np.array([]))
        assert len(none) == 0
        assert none.bounds.shape == (0, 4)
