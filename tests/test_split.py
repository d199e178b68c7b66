"""Splits: the gap is true on the ground, in any CRS, and the server proves it; shares are reached; nothing is lost uncounted."""

import pickle
import re
import warnings
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
import shapely
from conftest import scene, write_tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from pgtiles import BySrid, Grid, Imagery, Labels, Split, Tiles, Vectors, load
from pgtiles.errors import ConfigError, DataError, PgtilesWarning, QueryError
from pgtiles.tiling.dealing import deal
from pgtiles.tiling.land import Land

GRID = Grid(srid=32632, resolution=1.0, size=4)
ROOT = Path(__file__).parents[1]
SQUARE = "ST_MakeEnvelope(500000, 5200000, 504000, 5204000, 32632)"
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
WIDE = (500_000, 5_200_000, 504_000, 5_204_000)
# SRID and a place in it: Mercator at the equator, at 47 and at 78 degrees, UTM amid a zone and far out, degrees, polar, Europe
PLACES = [
    (3857, 1_000, 2_000), (3857, 1_060_000, 5_950_000), (3857, 1_700_000, 14_600_000), (32632, 500_000, 5_200_000),
    (32632, 900_000, 7_500_000), (4326, 9.5, 47.1), (4326, -120.2, 68.3), (3035, 4_321_000, 3_210_000), (3035, 2_800_000, 1_900_000),
    (3413, -400_000, 300_000), (2154, 850_000, 6_540_000),
]  # fmt: skip


def units(srid, y):
    """CRS units of about a metre."""
    return 1 / 111_320 if srid == 4326 else np.cosh(y / 6378137) if srid == 3857 else 1.0


def on_a_map(tiles, srid):
    """Polygons in ground metres, by pyproj and shapely: in a map true to distance around the middle of them all, which is right
    to a millimetre in a kilometre as far as these tiles lie apart.
    """
    most = max(np.ptp(tiles.bounds[0, ::2]), np.ptp(tiles.bounds[0, 1::2])) if len(tiles) else 1
    ring, where = shapely.get_coordinates(shapely.segmentize(shapely.box(*tiles.bounds.T), most / 4), return_index=True)
    lon, lat = pyproj.Transformer.from_crs(srid, 4326, always_xy=True).transform(*ring.T)
    x, y = np.cos(np.radians(lon)).mean(), np.sin(np.radians(lon)).mean()
    middle = f"+proj=aeqd +lat_0={lat.mean()} +lon_0={np.degrees(np.arctan2(y, x))} +datum=WGS84"
    flat = np.stack(pyproj.Transformer.from_crs(4326, middle, always_xy=True).transform(lon, lat), axis=1)
    return shapely.polygons(shapely.linearrings(flat, indices=where))


def nearest(split):
    """The least distance between tiles of different splits."""
    sides = split.tiles.columns["split"]
    if len(set(sides.tolist())) < 2:
        return np.inf
    shapes = on_a_map(split.tiles, split.tiles.grid.srid)
    return min(
        shapely.STRtree(shapes[sides == a]).query_nearest(shapes[sides == b], return_distance=True, all_matches=False)[1].min()
        for a, b in combinations(sorted(set(sides.tolist())), 2)
    )


def parts(split):
    return [split.train, split.val, split.test]


def quietly(function, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        return function(**options)


class TestBlocks:
    def test_gap_shares_and_count(self):
        tiles = Tiles.random(GRID, within=WIDE, count=1500, seed=1)
        split = tiles.split(**SHARES, block=200, gap=10, seed=0)
        ids = np.concatenate([part.ids for part in parts(split)])
        assert len(set(ids.tolist())) == len(ids) == 1500 - split.dropped
        assert 0 < split.dropped < 300
        assert sorted(ids.tolist()) == split.tiles.ids.tolist()  # the tiles' own order
        for part, share in zip(parts(split), SHARES.values(), strict=True):
            assert len(part) / len(ids) == pytest.approx(share, abs=0.05)
            np.testing.assert_array_equal(part.bounds, tiles[part.ids].bounds)

    @pytest.mark.usefixtures("quiet")  # most are dropped, which is said
    @pytest.mark.parametrize(("srid", "x", "y"), PLACES)
    def test_where_tiles_lie_close_the_gap_is_true_and_no_wider_than_it_must(self, srid, x, y):
        """A tile on every place: the nearest of two splits are a gap apart on the ground, and at most a tile's step more."""
        step = 20 * units(srid, y)
        grid = Grid(srid=srid, resolution=step / 2, size=4)
        tiles = Tiles.sliding(grid, within=(x, y, x + 36 * step, y + 16 * step), stride=2)
        east = tiles.bounds[:, 0] - x > (tiles.bounds[:, 1] - y) / 3 + 12 * step
        split = tiles.with_columns(east=east).split(train=0.5, test=0.5, by="east", gap=90, seed=1)
        assert min(len(split.train), len(split.test)) > 0
        assert 90 <= nearest(split) <= 90 + 20 * np.sqrt(2)

    @pytest.mark.parametrize(("srid", "x", "y"), PLACES)
    def test_a_block_is_as_wide_as_it_says_on_the_ground(self, srid, x, y):
        """Whole blocks in the midst of others are 300 m in each direction, or a little more."""
        step = 60 * units(srid, y)
        tiles = Tiles.sliding(Grid(srid=srid, resolution=step / 4, size=1), within=(x, y, x + 30 * step, y + 30 * step))
        blocks = Land.of(srid, tiles.bounds).blocks(300)
        middles = (tiles.bounds[:, :2] + tiles.bounds[:, 2:]) / 2
        lon, lat = pyproj.Transformer.from_crs(srid, 4326, always_xy=True).transform(*middles.T)
        hull = shapely.convex_hull(shapely.multipoints(middles))
        whole = 0
        for block in np.unique(blocks):
            own = blocks == block
            if not hull.exterior.distance(shapely.multipoints(middles[own])) > step / 2:
                continue  # cut by the edge
            geod, row = (
                pyproj.Geod(ellps="WGS84"),
                np.abs(lat[own] - np.median(lat[own])).argsort()[: max(2, int(own.sum() ** 0.5))],
            )
            tall = geod.inv(lon[own][0], lat[own].min(), lon[own][0], lat[own].max())[2]
            wide = geod.inv(lon[own].min(), lat[own][row[0]], lon[own].max(), lat[own][row[0]])[2]
            loss = 3 * 60 / 4  # the centres seen are within a tile or so of the block's edge
            assert 300 - loss <= tall <= 310
            assert 300 - loss <= wide <= 330
            whole += 1
        assert whole >= 2

    def test_only_what_must_go_is_dropped(self):
        """Tiles further apart than the gap all stay."""
        cols, rows = (a.ravel() * 100 + 48 for a in np.mgrid[:20, :20])
        split = Tiles(GRID, cols + 500_000, rows - 5_204_000).split(train=1, val=1, block=200, gap=95)
        assert split.dropped == 0
        assert nearest(split) >= 95

    def test_train_gives_way_to_val_and_both_to_test(self):
        tiles = Tiles.sliding(GRID, within=(500_000, 5_200_000, 500_400, 5_200_400), stride=4)
        halves = np.where(tiles.bounds[:, 0] < 500_200, "w", "e")
        split = tiles.with_columns(half=halves).split(train=0.5, test=0.5, by="half", gap=10)
        assert set(split.tiles.columns["half"][split.tiles.columns["split"] == "test"]) in ({"w"}, {"e"})
        assert len(split.test) == 5000
        assert split.dropped == len(tiles) - 5000 - len(split.train) == 3 * 100  # columns of 4 m: 0, 4 and 8 m away

    def test_no_gap_keeps_neighbours_and_drops_what_overlaps(self):
        touching = Tiles.sliding(GRID, within=(500_000, 5_200_000, 500_400, 5_200_400), stride=4)
        assert touching.split(train=1, test=1, block=50, gap=0).dropped == 0
        split = quietly(Tiles.sliding(GRID, within=(500_000, 5_200_000, 500_090, 5_200_090), stride=3).split,
                        train=1, test=1, block=50, gap=0)  # fmt: skip
        assert split.dropped > 0
        a, b = (shapely.box(*part.bounds.T) for part in (split.train, split.test))
        assert shapely.area(shapely.intersection(a[:, None], b)).max() == 0

    def test_the_antimeridian_is_no_border(self):
        step = 0.001
        west = Tiles.sliding(Grid(srid=4326, resolution=step, size=1), within=(179.99, 0, 180, 0.01))
        east = Tiles.sliding(Grid(srid=4326, resolution=step, size=1), within=(-180, 0, -179.99, 0.01), first_id=1000)
        tiles = (west + east).with_columns(side=np.repeat(["w", "e"], [len(west), len(east)]))
        split = tiles.split(train=1, test=1, by="side", gap=250)
        assert split.dropped == 3 * 10  # columns of 111 m: 0, 111 and 222 m away
        assert nearest(split) >= 250

    def test_nor_is_a_pole(self):
        tiles = Tiles.sliding(Grid(srid=3413, resolution=100, size=1), within=(-1000, -1000, 1000, 1000))
        split = quietly(tiles.split, train=1, test=1, block=500, gap=150)
        assert min(len(split.train), len(split.test)) > 0
        assert nearest(split) >= 150

    def test_shares_are_scaled(self):
        tiles = Tiles.random(GRID, within=WIDE, count=500)
        one, same = (tiles.split(train=t, test=e, block=200, gap=1) for t, e in ((0.75, 0.25), (3, 1)))
        assert one.train.ids.tolist() == same.train.ids.tolist()
        assert len(one.val) == 0

    def test_the_seed_says_which(self):
        tiles = Tiles.random(GRID, within=WIDE, count=500)
        one, same, other = (tiles.split(**SHARES, block=200, gap=1, seed=s) for s in (3, 3, 4))
        assert one.tiles.columns["split"].tolist() == same.tiles.columns["split"].tolist()
        assert one.train.ids.tolist() != other.train.ids.tolist()

    def test_many_dropped_are_said(self):
        tiles = Tiles.random(GRID, within=(500_000, 5_200_000, 500_400, 5_200_400), count=1000)
        with pytest.warns(PgtilesWarning, match=r"(\d+) of 1000 tiles were dropped.*gap=15 m.*larger blocks") as caught:
            split = tiles.split(train=1, val=1, block=20, gap=15)
        assert split.dropped > 200
        assert str(caught[0].message).startswith(f"{split.dropped} of 1000")
        assert caught[0].filename == __file__
        assert f"dropped {split.dropped} of 1000" in split.report()

    def test_a_split_that_gets_no_tile_is_said(self):
        """All the land in one block: there is nothing to hold out."""
        tiles = Tiles.random(GRID, within=(500_000, 5_200_000, 500_100, 5_200_100), count=50)
        with pytest.warns(PgtilesWarning, match="no tile is left for val") as caught:
            tiles.split(train=0.8, val=0.2, block=100_000, gap=0)
        assert caught[0].filename == __file__

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"block": 13.9}, r"block=13\.9, gap=10.*tile \+ gap in ground metres, here 14"),
            ({"block": 0}, "block=0"),
            ({"block": float("nan")}, "block=nan"),
            ({"block": float("inf")}, "block=inf"),
            ({"gap": -1}, "gap=-1: expected gap >= 0"),
            ({"gap": float("nan")}, "gap=nan"),
            ({"val": 0, "test": 0}, "at least two positive"),
            ({"train": -1}, "at least two positive"),
            ({"train": float("nan")}, "at least two positive"),
            ({"seed": -1}, "seed=-1"),
            ({"tolerance": 0}, "tolerance=0"),
            ({"block": None}, "no way to group tiles is given"),
            ({"by": "x"}, "block and by given"),
            ({"block": None, "by": "x"}, "by='x': the tiles have no such column, but 'area'"),
            ({"block": None, "polygons": "districts"}, "polygons= are in a database"),
            ({"stratify": "x"}, "stratify='x': the tiles have no such column"),
            ({"stratify": "area"}, "stratify='area': expected an amount.*from -1.0 to 0.0"),
        ],
    )
    def test_wrong_arguments(self, options, says):
        tiles = Tiles.random(GRID, within=WIDE, count=10).with_columns(area=np.linspace(-1, 0, 10))
        with pytest.raises(ConfigError, match=says):
            tiles.split(**SHARES | {"block": 200, "gap": 10} | options)

    def test_where_there_is_no_place_on_earth(self):
        with pytest.raises(ConfigError, match=r"reaches to \(.*where SRID 4326 has no place"):
            Tiles.random(Grid(srid=4326, resolution=1, size=4), within=(0, 80, 40, 120), count=9).split(
                train=1, val=1, block=1e6, gap=0
            )
        with pytest.raises(ConfigError, match="SRID 999999: PROJ can't tell"):
            Tiles.random(Grid(srid=999999, resolution=1, size=4), within=(0, 0, 40, 40), count=9).split(
                train=1, val=1, block=99, gap=0
            )

    @settings(max_examples=60, deadline=None)
    @given(
        place=st.sampled_from(PLACES),
        resolution=st.tuples(*[st.sampled_from([0.3, 1.0, 2.5, 30.0])] * 2),
        size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
        gap=st.sampled_from([0.1, 1.0, 3.3, 20.0, 500.0]),
        room=st.sampled_from([1.05, 1.5, 4.0]),
        count=st.integers(1, 60),
        spread=st.integers(1, 300),
        shares=st.tuples(*[st.sampled_from([0.0, 0.1, 0.5, 1.0])] * 3).filter(lambda s: sum(v > 0 for v in s) >= 2),
        seed=st.integers(0, 2**31),
    )
    def test_law(self, place, resolution, size, gap, room, count, spread, shares, seed):
        """The gap is true, nothing is there twice, nothing is lost uncounted, and nobody gets what he did not ask for."""
        srid, x, y = place
        grid = Grid(srid=srid, resolution=tuple(r * units(srid, y) for r in resolution), size=size, origin=(x, y))
        tiles = Tiles(grid, *np.random.default_rng(seed).integers(-spread, spread + 1, (2, count)), np.arange(count) + 1000)
        block = room * (Land.of(srid, tiles.bounds).widest + gap)
        train, val, test = shares
        split = quietly(tiles.split, train=train, val=val, test=test, block=block, gap=gap, seed=seed)
        assert nearest(split) >= gap - 1e-6
        ids = [i for part in parts(split) for i in part.ids.tolist()]
        assert len(set(ids)) == len(ids) == len(split.tiles)
        assert len(ids) + split.dropped == count
        assert all(share or not len(part) for part, share in zip(parts(split), shares, strict=True))


class TestGroups:
    def test_by_a_column_whole_groups_are_dealt(self):
        tiles = Tiles.random(GRID, within=WIDE, count=800, seed=3)
        codes = np.char.add("district ", (tiles.bounds[:, 0] // 400 % 10).astype(int).astype(str))
        split = tiles.with_columns(code=codes).split(**SHARES, by="code", gap=5)
        groups = [set(part.columns["code"].tolist()) for part in parts(split)]
        assert all(groups)
        assert not any(a & b for a, b in combinations(groups, 2))
        assert split.settings["by"] == "code"

    @pytest.mark.parametrize("polygons", ["districts", 'SELECT way AS geom, code AS id FROM "districts";  '])
    def test_by_polygons_a_tile_goes_with_the_one_that_holds_its_centre(self, db, polygons):
        with db.connection() as conn:
            conn.execute("CREATE TABLE districts (code text PRIMARY KEY, way geometry(Polygon, 4326))")
            for i in range(6):
                box = (
                    f"ST_Segmentize(ST_MakeEnvelope({500_000.5 + i * 600}, 5200000, {500_600.5 + i * 600}, 5204000, 32632), 20)"
                )
                conn.execute(f"INSERT INTO districts VALUES ('{'abcdef'[i]}', ST_Transform({box}, 4326))")
            conn.execute("CREATE INDEX ON districts USING gist (way)")
        tiles = Tiles.random(GRID, within=WIDE, count=900, seed=3)
        split = tiles.split(train=0.5, test=0.5, polygons=polygons, gap=30, db=db)
        middle = (tiles.bounds[:, 0] + tiles.bounds[:, 2]) / 2
        assert split.outside == (middle > 503_600.5).sum() > 0
        assert len(split.tiles) + split.dropped + split.outside == 900
        assert "outside" in split.report()
        groups = [set(((part.bounds[:, 0] + 2 - 500_000.5) // 600).tolist()) for part in (split.train, split.test)]
        assert groups[0] | groups[1] == set(range(6))
        assert not groups[0] & groups[1]
        assert nearest(split) >= 30

    def test_polygons_that_are_not_told_apart(self, db):
        tiles = Tiles.random(GRID, within=WIDE, count=9)
        with db.connection() as conn:
            conn.execute("CREATE TABLE districts (way geometry(Polygon, 4326))")
        for polygons, error, says in [
            ("districts", DataError, "it has no primary key"),
            ("SELECT way FROM districts", QueryError, r"polygons= the query gives way: expected a geometry column called geom"),
            ("SELECT way AS geom FROM districts", QueryError, "gives geom: expected id too"),
            ("SELECT way AS geom, 1 AS id FROM districts", DataError, "there is none"),
            ("SELECT ST_Point(9, 47, 4326) AS geom, 1 AS id", DataError, "1 of 1 are no areas"),
            (f"SELECT {SQUARE} AS geom, NULL AS id", DataError, r"1 of 1 have no id \(NULL\)"),
            (f"SELECT ST_SetSRID({SQUARE}, 0) AS geom, 1 AS id", DataError, "1 of 1 have no SRID"),
            ("SELECT way AS geom, 1 AS id FROM districts; DROP TABLE districts", QueryError, "more than one statement"),
        ]:
            with pytest.raises(error, match=says):
                tiles.split(train=1, val=1, polygons=polygons, gap=0, db=db)

    @pytest.mark.parametrize("kind", ["statement", "geography", "srids"])
    def test_polygons_of_any_kind(self, db, kind):
        """An SQLAlchemy statement, geography, and polygons each in an SRID of its own: the west, and the east of 502 km."""
        west, east = (
            f"ST_Segmentize(ST_MakeEnvelope({x}, 5199000, {x + 3000}, 5205000, 32632), 20)" for x in (499_000, 502_000)
        )
        query = {
            "statement": f"SELECT {west} AS geom, 'w' AS id UNION ALL SELECT {east}, 'e'",
            "geography": f"SELECT ST_Transform({west}, 4326)::geography AS geom, 1 AS id UNION ALL SELECT ST_Transform({east}, 4326)::geography, 2",
            "srids": f"SELECT ST_Transform({west}, 3035) AS geom, 1 AS id UNION ALL SELECT {east}, 2",
        }[kind]  # fmt: skip
        tiles = Tiles.random(GRID, within=WIDE, count=400, seed=1)
        split = tiles.split(train=1, test=1, polygons=text(query) if kind == "statement" else query, gap=0, db=db)
        sides = [set((part.bounds[:, 0] + 2 > 502_000).tolist()) for part in (split.train, split.test)]
        assert split.outside == 0
        assert sides in ([{True}, {False}], [{False}, {True}])
        assert isinstance(split.settings["polygons"], str)

    def test_many_tiles_outside_are_said(self, db):
        tiles = Tiles.random(GRID, within=WIDE, count=400, seed=1)
        halves = " UNION ALL ".join(f"SELECT ST_MakeEnvelope({x}, 5199000, {x + 1000}, 5205000, 32632) AS geom, {x} AS id" for x in (500_000, 501_000))  # fmt: skip
        outside = int((tiles.bounds[:, 0] + 2 > 502_000).sum())
        with pytest.warns(PgtilesWarning, match=f"{outside} of 400 tiles were left out") as caught:
            split = tiles.split(train=1, test=1, polygons=halves, gap=0, db=db)
        assert caught[0].filename == __file__
        assert f", {outside} outside" in repr(split)

    def test_no_tiles_are_not_dealt(self):
        none = Tiles.random(GRID, within=WIDE, count=3)[:0]
        for deals in (lambda: none.split(train=1, val=1, block=99, gap=0), lambda: none.folds(3, block=99, gap=0)):
            with pytest.raises(ConfigError, match="there is no tile to deal"):
                deals()

    def test_folds_judge_each_tile_once(self):
        tiles = Tiles.random(GRID, within=WIDE, count=600, seed=5)
        folds = tiles.folds(5, block=400, gap=20)
        assert sorted(i for fold in folds for i in fold.val.ids.tolist()) == list(range(600))
        for number, fold in enumerate(folds):
            assert len(fold.val) == pytest.approx(120, abs=12)
            assert len(fold.train) + len(fold.val) + fold.dropped == 600
            assert nearest(fold) >= 20
            assert (fold.settings["fold"], fold.settings["folds"], len(fold.test)) == (number, 5, 0)
        with pytest.raises(ConfigError, match="k=1"):
            tiles.folds(1, block=400, gap=20)


def skewed(seed, count=3000):
    """Tiles with a class that is nearly everywhere, one of a few clumps, and names."""
    rng = np.random.default_rng(seed)
    tiles = Tiles.random(GRID, within=WIDE, count=count, seed=seed)
    middle = tiles.bounds[:, :2]
    clumps = rng.uniform(0, 4000, (25, 2)) + np.array([500_000, 5_200_000])
    near = np.linalg.norm(middle[:, None] - clumps, axis=2).min(axis=1)
    return tiles.with_columns(
        field=rng.uniform(0, 16, count), water=np.where(near < 150, rng.exponential(4, count), 0),
        kind=np.where(middle[:, 0] > 503_000, "hill", "plain"),
    )  # fmt: skip


class TestStratify:
    @pytest.mark.parametrize("seed", range(6))
    def test_each_split_gets_its_share_of_each_class(self, seed):
        tiles = skewed(seed)
        split = tiles.split(**SHARES, block=200, gap=5, seed=seed, stratify=["field", "water", "kind"], tolerance=0.03)
        for column in ("field", "water"):
            total = split.tiles.columns[column].sum()
            for name, part in zip(SHARES, parts(split), strict=True):
                got = part.columns[column].sum() / total
                assert got == pytest.approx(SHARES[name], abs=0.03)
                assert split.shares[column][name] == pytest.approx(got)
        hills = (split.tiles.columns["kind"] == "hill").sum()
        assert (split.test.columns["kind"] == "hill").sum() / hills == pytest.approx(0.15, abs=0.03)
        plain = tiles.split(**SHARES, block=200, gap=5, seed=seed)
        off = [abs(part.columns["water"].sum() / plain.tiles.columns["water"].sum() - share)
               for part, share in zip(parts(plain), SHARES.values(), strict=True)]  # fmt: skip
        assert max(off) > max(abs(split.shares["water"][name] - share) for name, share in SHARES.items())

    def test_what_can_not_be_reached_is_said(self):
        tiles = skewed(0)
        one = tiles.with_columns(rare=np.arange(len(tiles)) == 7)
        with pytest.warns(
            PgtilesWarning, match=r"shares are off by up to 0\.\d+, more than tolerance=0.05[\s\S]*share of rare"
        ):
            one.split(**SHARES, block=200, gap=5, stratify="rare")

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 40), st.integers(1, 3), st.integers(2, 4), st.integers(0, 999))
    def test_dealing_is_fairer_than_any_move_of_one_group(self, groups, quantities, sides, seed):
        rng = np.random.default_rng(seed)
        weights = rng.exponential(size=(groups, quantities)) ** 2
        weights /= weights.sum(axis=0)
        want = np.repeat(rng.dirichlet(np.full(sides, 3))[:, None], quantities, axis=1)

        def unfair(side):
            return sum(((weights[side == k].sum(axis=0) - want[k]) ** 2 / want[k]).sum() for k in range(sides))

        side = deal(weights, want, seed)
        least = unfair(side)
        for group in range(groups):
            for k in range(sides):
                other = side.copy()
                other[group] = k
                assert unfair(other) >= least - 1e-9


class TestKept:
    def test_a_split_goes_out_as_a_column_and_comes_back_as_it_was(self):
        split = Tiles.random(GRID, within=WIDE, count=500).split(**SHARES, block=200, gap=10, seed=2)
        back = Split.of(split.tiles, gap=10)
        for name in SHARES:
            assert getattr(back, name).ids.tolist() == getattr(split, name).ids.tolist()
            assert back.shares["tiles"][name] == pytest.approx(split.shares["tiles"][name])
        same = pickle.loads(pickle.dumps(split))
        assert same.tiles.columns["split"].tolist() == split.tiles.columns["split"].tolist()
        assert same.settings == split.settings
        assert {"block": 200, "gap": 10, "seed": 2}.items() <= split.settings.items()
        assert "block=200" in repr(split)

    def test_what_it_was_made_with_is_kept_too(self, db):
        tiles = Tiles.random(GRID, within=WIDE, count=500)
        split = tiles.split(train=0.7, test=0.3, block=np.float64(200), gap=np.float32(10), seed=np.int64(2))
        fold = tiles.folds(3, block=200, gap=10)[1]
        for number, one in enumerate((split, fold)):
            one.tiles.to_table(db, f"kept_{number}")
            back = Split.of(Tiles.from_table(db, f"kept_{number}"))
            assert dict(back.settings) == dict(one.settings)
            assert back.proof(db) == []
        assert back.settings["fold"] == 1
        assert split.tiles.made["of"] == tiles.made
        assert Split.of(split.tiles, gap=9).settings["gap"] == 9

    def test_it_is_never_dealt_anew(self):
        split = Tiles.random(GRID, within=WIDE, count=500).split(**SHARES, block=200, gap=10, seed=2)
        with pytest.raises(ConfigError, match="is not dealt anew"):
            split.tiles.split(**SHARES, block=200, gap=10)
        again = split.train.split(train=0.8, val=0.2, block=200, gap=10)  # a part may be dealt
        assert len(again.tiles) + again.dropped == len(split.train)

    def test_what_says_no_side_is_no_split(self):
        tiles = Tiles.random(GRID, within=WIDE, count=3)
        with pytest.raises(ConfigError, match="there is none"):
            Split.of(tiles)
        with pytest.raises(ConfigError, match=r"found \['a'\]"):
            Split.of(tiles.with_columns(split=["train", "a", "test"]))


class TestProof:
    @pytest.mark.parametrize("number", range(50))
    def test_no_row_whatever_the_split(self, world, number):
        rng = np.random.default_rng(number)
        srid, x, y = PLACES[number % len(PLACES)]
        unit, size = units(srid, y), int(rng.integers(8, 200))
        width = size * rng.uniform(0.5, 20) * (4 if srid == 4326 or (srid == 3857 and y > 1e7) else 1)
        grid = Grid(srid=srid, resolution=width / size * unit, size=size, origin=(x, y))
        extent = width * rng.uniform(8, 30) * unit
        gap = 0 if number % 10 == 9 else width * rng.choice([0.01, 0.3, 1, 2.5])
        tiles = Tiles.random(grid, within=(x, y, x + extent, y + extent), count=int(rng.integers(100, 500)), seed=number)
        if number % 3 == 0:
            tiles = Tiles.sliding(
                grid, within=(x, y, x + extent / 2, y + extent / 2), stride=max(1, size // int(rng.integers(1, 4)))
            )
        block = (Land.of(srid, tiles.bounds).widest + gap) * rng.uniform(1.1, 4)
        split = quietly(tiles.split, **SHARES, block=block, gap=gap, seed=number)
        assert split.proof(world.db) == []

    @pytest.mark.parametrize(("srid", "x", "y"), PLACES)
    @pytest.mark.parametrize("gap", [0, 300])
    def test_a_tile_moved_by_hand_is_found_with_its_distance(self, world, srid, x, y, gap):
        unit = 100 * units(srid, y)
        tiles = Tiles(Grid(srid=srid, resolution=unit, size=2, origin=(x, y)), np.array([0, 60, 61]), np.array([0, 0, 30]))
        tiles = tiles.with_columns(split=["train", "test", "train"])
        assert Split.of(tiles, gap=gap).proof(world.db) == []
        moved = Tiles(tiles.grid, np.array([0, 1 if gap == 0 else 3, 61]), np.array([1, 0, 30]), columns=tiles.columns)
        [row] = Split.of(moved, gap=gap).proof(world.db)
        assert row[:4] == (0, "train", 1, "test")
        assert row.metres == pytest.approx(shapely.distance(*on_a_map(moved, srid)[:2]), rel=1e-3, abs=1e-3)

    def test_it_needs_a_gap(self, world):
        tiles = Tiles.random(GRID, within=WIDE, count=2).with_columns(split="train")
        with pytest.raises(ConfigError, match="give it, as in"):
            Split.of(tiles).proof(world.db)
        assert Split.of(tiles).proof(world.db, gap=9) == []

    def test_by_the_features(self, world):
        """Two tiles apart, and a road that goes through both."""
        tiles = Tiles.sliding(world.grid, within=world.db.extent("scene", 3857))
        split = quietly(tiles.split, train=1, test=1, block=300, gap=20)
        shapes = shapely.from_wkb([bytes(g) for (g,) in rows(world, "SELECT ST_AsBinary(way) FROM roads ORDER BY id")])
        wanted = set()
        boxes = {
            name: shapely.union_all(shapely.box(*part.bounds.T))
            for name, part in (("train", split.train), ("test", split.test))
        }
        for key, shape in zip(rows(world, "SELECT id FROM roads ORDER BY id"), shapes, strict=True):
            if all(shapely.intersects(shape, box) for box in boxes.values()):
                wanted.add(str(key[0]))
        assert wanted
        for labels in (Labels("roads"), Labels("SELECT id, way AS geom FROM roads WHERE way && tile.geom;")):
            found = split.proof(world.db, labels)
            assert {row.feature for row in found} == wanted
            for row in found[:5]:
                assert set(row.tiles) == {"train", "test"}
                shape = shapes[int(row.feature) - 1]
                for name, tile in row.tiles.items():
                    part = getattr(split, name)
                    assert shapely.intersects(shape, shapely.box(*part[part.ids == tile].bounds[0]))
        with pytest.raises(QueryError, match="expected one called id"):
            split.proof(world.db, Labels("SELECT way AS geom FROM roads WHERE way && tile.geom"))
        assert len(split.proof(world.db, Labels("roads", buffer=15))) >= len(wanted)
        for layer in ({"road": Labels("roads")}, Vectors({"road": "roads"}), BySrid({3857: Vectors({"road": "roads"})})):
            assert {row[:2] for row in split.proof(world.db, layer)} == {(key, "road") for key in wanted}
        with pytest.raises(ConfigError, match="Imagery burns no vectors"):
            split.proof(world.db, Imagery("scene"))
        named = split.proof(world.db, Labels("roads", classes={"small": "class < 3", "large": "class >= 3"}))
        assert {(row.kind, row.feature) for row in named} == {
            ("small" if (int(key) - 1) % 4 < 2 else "large", key) for key in wanted
        }


@pytest.mark.usefixtures("quiet")
def test_the_page(osm_like, monkeypatch):
    """Every block of docs/tiles-splits.md, in order."""
    monkeypatch.setenv("PGTILES_URL", osm_like.url)
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "tiles-splits.md").read_text(), re.M | re.S):
        exec(compile(code, "tiles-splits.md", "exec"), names)
    assert len(names["folds"]) == 5
    assert len(names["by_district"].test) > 0


@pytest.fixture
def osm_like(db, database_url, tmp_path):
    """A picture sat_s2 and a table planet_osm_line beneath it."""
    load.raster(db, write_tiff(tmp_path / "scene.tif", scene(0, (3, 2400, 2400))), "sat_s2")
    west, south, east, north = db.extent("sat_s2", 3857)
    with db.connection() as conn:
        conn.execute("CREATE TABLE planet_osm_line (osm_id int PRIMARY KEY, way geometry(LineString, 3857))")
        conn.execute(
            f"INSERT INTO planet_osm_line SELECT 1, ST_SetSRID('LINESTRING({west} {south}, {east} {north})'::geometry, 3857)"
        )
    return SimpleNamespace(url=database_url)


def rows(world, statement):
    with world.db.connection() as conn:
        return conn.execute(statement).fetchall()
