"""Imagery as a time series: rasterio's windows and warps of each acquisition's own file say what is right."""

import pickle
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely
import torch
from conftest import RES, X0, Y0, ask, scene, shared, write_tiff
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject
from rasterio.windows import from_bounds

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles, TimeSeries, Value, load, plot, read
from pgtiles import tile as tile_columns
from pgtiles.errors import ConfigError, MissingError, PgtilesWarning, QueryError
from pgtiles.streaming.reading import Plan, read_batch

SIZE, SIDE = 64, 150
DOCS = Path(__file__).parents[1] / "docs"
# When each scene was acquired, and how many pixels it lies east of the first. The 1st of April has two, side by side.
SCENES = {
    "c": ("2024-03-20", 0),
    "a": ("2024-01-05", 0),
    "b": ("2024-02-10", 0),
    "d": ("2024-04-01", 0),
    "e": ("2024-04-01", SIDE),
    "f": ("2024-06-15", 40),
    "g": ("2024-09-30", 0),
}
DATES = ["2024-01-05", "2024-02-10", "2024-03-20", "2024-04-01", "2024-06-15", "2024-09-30"]


def seconds(*times):
    """What a batch calls these times."""
    return [datetime.fromisoformat(t).replace(tzinfo=UTC).timestamp() for t in times]


@pytest.fixture(scope="module")
def url(template):
    with shared(template, "pgtiles_time") as url:
        yield url


@pytest.fixture(scope="module")
def stack(url, tmp_path_factory):
    """A table s2 of seven scenes with their dates in several types, in no order, and the files that they came from."""
    folder = tmp_path_factory.mktemp("stack")
    for n, (name, (_, east)) in enumerate(SCENES.items()):
        write_tiff(folder / f"{name}.tif", scene(n, (2, SIDE, SIDE)), transform=from_origin(X0 + east * RES, Y0, RES, RES))
    with Database(url) as db:
        load.raster(db, sorted(folder.glob("*.tif")), "s2", block=48)  # so that a tile has several blocks of each scene
        with db.connection() as conn:
            conn.execute(
                "ALTER TABLE s2 ADD acquired timestamptz, ADD day date, ADD plain timestamp, ADD time timestamptz, ADD text text"
            )
            for name, (day, _) in SCENES.items():
                conn.execute(
                    f"UPDATE s2 SET acquired = '{day} 10:30Z', day = '{day}', plain = '{day} 10:30', time = '{day} 10:30Z', "
                    f"text = '{day}' WHERE filename = '{name}.tif'"
                )
        yield db, folder


@pytest.fixture
def db(stack):
    return stack[0]


def native(db, *places):
    """Tiles on the table's own lattice, their upper left pixels at these columns and rows of the first scene."""
    cols, rows = np.array(places or [(20, 30)]).T
    return Tiles(Grid.like(db, "s2", size=SIZE), cols, rows)


def at(folder, day, tiles, i=0, resampling=None):
    """Pixels of one acquisition on one tile, and where there are some: rasterio's windows of its files, or GDAL's exact warp."""
    bounds, files = tiles.bounds[i], [name for name, (when, _) in SCENES.items() if when == day]
    out, whole = np.zeros((2, *tiles.grid.shape), "u1"), np.zeros((2, SIDE, 2 * SIDE), "u1")  # no pixel of a scene is 0
    for name in files:
        with rasterio.open(folder / f"{name}.tif") as file:
            if not resampling:
                out = np.maximum(out, file.read(window=from_bounds(*bounds, file.transform), boundless=True, fill_value=0))
            whole[:, :, SCENES[name][1] :][:, :, :SIDE] = file.read()
    if resampling:
        reproject(
            whole, out, src_transform=from_origin(X0, Y0, RES, RES), src_crs=3857, dst_crs=tiles.grid.srid, src_nodata=0,
            dst_nodata=0, dst_transform=from_origin(bounds[0], bounds[3], *tiles.grid.pixel), resampling=Resampling[resampling],
            tolerance=0,
        )  # fmt: skip
    return out, out[0] != 0


def check(got, name, folder, tiles, days, *, steps, off=0, resampling=None):
    """A batch of a layer against what rasterio has of these days, a list a tile."""
    assert got[name].shape == (len(tiles), steps, 2, *tiles.grid.shape)
    assert got[f"{name}_time"].dtype == np.float64
    assert got[f"{name}_missing"].dtype == bool
    for i, here in enumerate(days):
        assert got[f"{name}_missing"][i].tolist() == [False] * len(here) + [True] * (steps - len(here))
        assert np.isnan(got[f"{name}_time"][i, len(here) :]).all()
        assert got[f"{name}_time"][i, : len(here)].tolist() == seconds(*(f"{day}T10:30" for day in here))
        for step, day in enumerate(here):
            pixels, there = at(folder, day, tiles, i, resampling)
            assert there.any()
            if f"{name}_valid" in got:
                np.testing.assert_array_equal(got[f"{name}_valid"][i, step], there)
            assert np.abs(got[name][i, step].astype(int) - pixels).max() <= off
        assert not got[name][i, len(here) :].any()


LEFT, RIGHT, MIDDLE = (20, 30), (SIDE + 60, 10), (SIDE - 30, 20)
HERE = {LEFT: DATES, RIGHT: ["2024-04-01"], MIDDLE: DATES}  # f begins at 40 and ends at 190

PICKS = [
    ({"steps": 4}, slice(0, 4)),
    ({"steps": 9}, slice(None)),
    ({"steps": 9, "between": ("2024-02-10T10:30", "2024-06-15T10:30Z")}, slice(1, 4)),
    ({"steps": 2, "between": (date(2024, 2, 11), None)}, slice(2, 4)),
    ({"steps": 9, "between": (None, "2024-04-02")}, slice(0, 4)),
    ({"steps": 9, "every": 2}, slice(0, None, 2)),
    ({"steps": 2, "every": 3}, slice(0, None, 3)),
    ({"steps": 3, "nearest": "2024-03-25"}, slice(1, 4)),
    ({"steps": 2, "nearest": datetime(2025, 1, 1, tzinfo=UTC)}, slice(4, 6)),
    ({"steps": 9, "nearest": np.datetime64("2024-03-25"), "between": ("2024-01-06", "2024-09-01")}, slice(1, 5)),
]


class TestNative:
    @pytest.mark.parametrize(("wish", "picked"), PICKS, ids=lambda p: str(p) if isinstance(p, dict) else "")
    def test_which_acquisitions_are_taken(self, stack, wish, picked):
        db, folder = stack
        tiles = native(db, LEFT, MIDDLE)
        layer = Imagery("s2", time=TimeSeries("acquired", **wish), valid=True)
        check(read(db, tiles, {"i": layer}), "i", folder, tiles, [DATES[picked], DATES[picked]], steps=wish["steps"])

    def test_a_tile_has_the_acquisitions_that_meet_it(self, stack):
        """East of the first scenes only that of April, and the one that begins later and ends later."""
        db, folder = stack
        tiles = native(db, LEFT, RIGHT, MIDDLE, (SIDE, 0), (SIDE - 1, 0), (190, 0), (189, 0))
        layer = Imagery("s2", time=TimeSeries("acquired", steps=6), valid=True)
        two = ["2024-04-01", "2024-06-15"]
        want = [DATES, ["2024-04-01"], DATES, two, DATES, two[:1], two]
        check(read(db, tiles, {"i": layer}), "i", folder, tiles, want, steps=6)

    @pytest.mark.parametrize(
        "by", ["acquired", "plain", "time", "date_trunc('day', acquired) + '10:30'", "day + time '10:30' -- so"]
    )
    def test_every_type_of_time_is_in_utc(self, stack, url, by):
        db, folder = stack
        tiles = native(db, LEFT, RIGHT)
        with Database(f"{url}?options=-ctimezone%3DAsia/Tokyo") as abroad:
            for wish in ({"between": ("2024-04-01T10:30", None)}, {"nearest": "2024-05-15"}):
                layers = {"i": Imagery("s2", time=TimeSeries(by, steps=2, **wish))}
                got = read(abroad, tiles, layers)
                check(got, "i", folder, tiles, [["2024-04-01", "2024-06-15"], ["2024-04-01"]], steps=2)

    def test_dates(self, db):
        got = read(db, native(db), {"i": Imagery("s2", time=TimeSeries("day", steps=9, between=("2024-02-10", "2024-06-15")))})
        assert got["i_time"][0, :3].tolist() == seconds(*DATES[1:4])
        assert np.isnan(got["i_time"][0, 3:]).all()

    @pytest.mark.parametrize(
        ("order", "days"), [("acquired DESC", [DATES[3::-1], DATES[:3:-1]]), ("acquired", [DATES[:4], DATES[4:]])]
    )
    def test_rasters_of_equal_time_are_one_acquisition(self, stack, order, days):
        """A mosaic of its own: order_by= says which scene of a step lies on top, and no step shows through another."""
        db, folder = stack
        tiles = native(db, MIDDLE)
        half = "CASE WHEN acquired < '2024-04-30' THEN '2024-01-01' ELSE '2024-07-01' END::date"
        got = read(db, tiles, {"i": Imagery("s2", time=TimeSeries(half, steps=2), order_by=order, bands=(2, 1))})
        assert got["i_time"][0].tolist() == seconds("2024-01-01", "2024-07-01")
        for step in (0, 1):
            want = np.zeros((2, SIZE, SIZE), "u1")
            for day in days[step][::-1]:
                pixels, there = at(folder, day, tiles)
                want[:, there] = pixels[:, there]
            np.testing.assert_array_equal(got["i"][0, step], want[::-1])

    def test_fill(self, db):
        tiles = native(db, RIGHT, (9000, 9000))
        got = read(db, tiles, {"i": Imagery("s2", time=TimeSeries("acquired", steps=3), fill=(7, 9), dtype="float32")})
        assert (got["i"][0, 1:] == np.array([7, 9])[:, None, None]).all()
        assert (got["i"][1] == np.array([7, 9])[:, None, None]).all()
        assert got["i_missing"].tolist() == [[False, True, True], [True] * 3]
        assert got["i"].dtype == np.float32


class TestWarped:
    GRID = Grid(srid=3857, resolution=2, size=SIZE, origin=(X0 + 0.7, Y0 - 0.3))

    @pytest.mark.parametrize(("wish", "picked"), PICKS, ids=lambda p: str(p) if isinstance(p, dict) else "")
    def test_which_acquisitions_are_taken(self, stack, wish, picked):
        db, folder = stack
        tiles = Tiles(self.GRID, np.array([30, 140]), np.array([40, 20]))
        layer = Imagery("s2", time=TimeSeries("acquired", **wish), max_error=0)
        got = read(db, tiles, {"i": layer})
        check(
            got,
            "i",
            folder,
            tiles,
            [DATES[picked], DATES[picked]],
            steps=wish["steps"],
            off=1,
            resampling="bilinear",
        )

    def test_another_crs_and_nearest_neighbours(self, stack):
        db, folder = stack
        (x0, y1), (x1, y0) = ask(db, f"SELECT ST_X(p), ST_Y(p) FROM unnest(ARRAY[ST_Point({X0}, {Y0}, 3857), ST_Point({X0 + 300 * RES}, "
                                     f"{Y0 - 100 * RES}, 3857)]) g, ST_Transform(g, 32632) p")  # fmt: skip
        tiles = Tiles.sliding(Grid(srid=32632, resolution=1.9, size=50), within=(x0 + 60, y0, x1 - 330, y1 - 60), stride=70)[:5]
        layer = Imagery(
            "s2",
            time=TimeSeries("acquired", steps=2, between=("2024-01-06", "2024-04-01")),
            max_error=0,
            valid=True,
            resampling="nearest",
        )
        got = read(db, tiles, {"i": layer})
        check(got, "i", folder, tiles, [DATES[1:3]] * len(tiles), steps=2, resampling="nearest")

    def test_what_only_the_kernel_reaches_is_no_acquisition(self, stack):
        """A tile a pixel east of where most scenes end: they lie within the kernel's margin, but not on it."""
        db, _ = stack
        grid = Grid(srid=3857, resolution=2, size=20, origin=(X0 + (SIDE + 1) * RES, Y0))
        got = read(
            db, Tiles(grid, np.array([0, -1]), np.array([1, 1])), {"i": Imagery("s2", time=TimeSeries("acquired", steps=6))}
        )
        assert (~got["i_missing"]).sum(axis=1).tolist() == [2, 2]
        got = read(db, Tiles(grid, np.array([-2]), np.array([1])), {"i": Imagery("s2", time=TimeSeries("acquired", steps=6))})
        assert (~got["i_missing"]).sum() == 6

    def test_check_counts_tiles_and_not_steps(self, stack):
        """Two scenes that overlap in each of two steps: one tile that ST_Union joined."""
        db, _ = stack
        half = "CASE WHEN acquired < '2024-03-01' THEN '2024-01-01' ELSE '2024-07-01' END::date"
        tiles = Tiles(self.GRID, np.array([30]), np.array([40]))
        batch = read_batch(db, Plan.open(db, tiles, {"i": Imagery("s2", time=TimeSeries(half, steps=2))}), tiles)
        assert not batch.sample["i_missing"].any()
        assert (batch.united, batch.empty) == ((1,), (0,))


class TestTileTime:
    def test_nearest_to_the_tiles_own(self, stack):
        db, folder = stack
        tiles = native(db, LEFT, LEFT, MIDDLE).timed(
            ["2024-01-01", datetime(2024, 12, 1, tzinfo=UTC), np.datetime64("2024-03-20T11")]
        )
        layer = Imagery("s2", time=TimeSeries("acquired", steps=2, nearest="tile"))
        want = [DATES[:2], DATES[4:], DATES[2:4]]
        check(read(db, tiles, {"i": layer}), "i", folder, tiles, want, steps=2)
        back = tiles[::-1]
        check(read(db, back, {"i": layer}), "i", folder, back, want[::-1], steps=2)
        grid = TestWarped.GRID
        moved = Tiles(grid, np.array([30, 30]), np.array([40, 40])).timed([DATES[0], DATES[5]])
        got = read(db, moved, {"i": layer})
        assert got["i_time"][:, [0, 1]].tolist() == [seconds(*(f"{d}T10:30" for d in days)) for days in (DATES[:2], DATES[4:])]

    def test_between_counts_from_it(self, stack):
        db, folder = stack
        tiles = native(db, LEFT, LEFT).timed(["2024-04-01T10:30Z", "2024-02-15"])
        series = TimeSeries("acquired", steps=3, between=(timedelta(days=-45), timedelta()))
        check(read(db, tiles, {"i": Imagery("s2", time=series)}), "i", folder, tiles, [["2024-03-20"], DATES[:2]], steps=3)

    @pytest.mark.parametrize("srid", [None, 4326])
    @pytest.mark.parametrize("name", ["tile", "t"])
    def test_sql_may_name_it(self, db, name, srid):
        """Beside the query, and in its FROM; in the tiles' own SRID, and moved."""
        tiles = native(db, LEFT, LEFT, LEFT).timed(["2024-03-01", None, "2024-03-01T02:00+03:00"])
        given = f"extract(epoch FROM {name}.time)::int8 AS value {'' if name == 'tile' else 'FROM tile AS t'}"
        mask = Labels(f"SELECT {name}.geom AS geom, {given} WHERE {name}.time IS NOT NULL", srid=srid)
        got = read(db, tiles, {"v": Value(f"SELECT {given}", srid=srid, dtype="int64"), "m": mask})
        assert got["v"].tolist() == [1709251200, 0, 1709247600]
        assert got["m"][:, SIZE // 2, SIZE // 2].tolist() == [1709251200, 0, 1709247600]

    def test_sqlalchemy_may_name_it(self, db):
        from sqlalchemy import func, select

        query = select(func.extract("epoch", tile_columns.time).label("value"))
        got = read(db, native(db).timed("2024-03-01"), {"v": Value(query, dtype="int64")})
        assert got["v"].tolist() == [1709251200]

    def test_a_table_may_have_a_column_of_that_name(self, db):
        got = read(db, native(db), {"i": Imagery("s2", order_by="time DESC")})
        newest = read(db, native(db), {"i": Imagery("s2", time=TimeSeries("time", steps=1, nearest="2025-01-01"))})
        np.testing.assert_array_equal(got["i"], newest["i"][:, 0])
        with pytest.raises(QueryError, match=r"\"time\" is ambiguous[\s\S]*write tile.time where the tile's own is meant"):
            read(db, native(db), {"m": Labels("SELECT tile.geom AS geom FROM spatial_ref_sys WHERE time IS NULL")})

    def test_times_travel(self, db):
        tiles = native(db, LEFT, RIGHT, MIDDLE)
        assert tiles.times is None
        timed = tiles.timed(["2024-03-01", None, "2024-05-01T00:00:00.000001Z"])
        assert timed.times.dtype == "datetime64[us]"
        assert timed.times.tolist() == [datetime(2024, 3, 1), None, datetime(2024, 5, 1, microsecond=1)]
        assert timed[[2, 0]].times.tolist() == timed.times[[2, 0]].tolist()
        assert timed[1].times.tolist() == [None]
        assert pickle.loads(pickle.dumps(timed)).times.tolist() == timed.times.tolist()
        more = Tiles(tiles.grid, np.array([5]), np.array([5]), np.array([9]))
        assert (timed + more).times.tolist() == [*timed.times.tolist(), None]
        assert (more + timed).times.tolist() == [None, *timed.times.tolist()]
        assert (tiles + more).times is None
        many = Tiles.random(tiles.grid, within=(0, 0, 1e5, 1e5), count=200).timed("2024-03-01")
        assert set(many.split(train=0.5, test=0.5, block=5000, gap=0).train.times.tolist()) == {datetime(2024, 3, 1)}


class TestSources:
    QUERY = "SELECT rast, acquired AS time, filename FROM s2 WHERE ST_ConvexHull(rast) && tile.geom"

    @pytest.mark.parametrize("by", ["time", "time::date + '10:30'::time"])
    def test_a_query(self, stack, by):
        db, folder = stack
        layer = Imagery(self.QUERY, time=TimeSeries(by, steps=3, between=("2024-02-01", None), every=2), order_by="filename")
        for tiles, more in (
            (native(db, LEFT, RIGHT), {}),
            (Tiles(TestWarped.GRID, np.array([30]), np.array([40])), {"off": 1, "resampling": "bilinear"}),
        ):
            got = read(db, tiles, {"i": layer})
            want = [["2024-02-10", "2024-04-01", "2024-09-30"], ["2024-04-01"]]
            check(got, "i", folder, tiles, want[: len(tiles)], steps=3, **more)

    def test_an_index_on_space_and_time_serves(self, db):
        """The page's: its condition holds both, and the search finds no row of another time."""
        with db.connection() as conn:
            conn.execute(
                "CREATE EXTENSION IF NOT EXISTS btree_gist; CREATE TABLE s3 AS SELECT * FROM s2; ALTER TABLE s3 ADD PRIMARY KEY (rid)"
            )
            conn.execute("CREATE INDEX ON s3 USING gist (ST_ConvexHull(rast), acquired); ANALYZE s3")
        tiles = native(db)
        plan = Plan.open(db, tiles, {"i": Imagery("s3", time=TimeSeries("acquired", steps=2, between=("2024-02-01", None)))})
        assert plan.layers[0].why.endswith("; a time series by acquired")
        said = str(db.explain(plan.statement(tiles)))
        assert re.search(
            r"Index Cond': \"\(\(st_convexhull\(s\.rast\) && .*? AND \(s\.acquired >= '2024-02-01 00:00:00\+00'", said
        )
        with db.connection() as conn:
            conn.execute("DROP TABLE s3")

    def test_beside_a_plain_layer_and_labels(self, stack):
        db, folder = stack
        tiles = native(db, LEFT, RIGHT)
        layers = {
            "one": Imagery("s2", order_by="acquired DESC"),
            "all": Imagery("s2", time=TimeSeries("acquired", steps=6)),
            "mask": Labels("SELECT tile.geom AS geom"),
        }
        got = read(db, tiles, layers)
        check(got, "all", folder, tiles, [DATES, ["2024-04-01"]], steps=6)
        np.testing.assert_array_equal(got["one"][0], at(folder, "2024-09-30", tiles)[0])
        assert got["mask"].all()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_dataset_gives_tensors_and_workers_the_same(stack, url):
    db, folder = stack
    tiles = native(db, LEFT, MIDDLE, RIGHT, (0, 0), (10, 5)).timed("2024-04-02")
    layers = {"i": Imagery("s2", time=TimeSeries("acquired", steps=3, nearest="tile"), valid=True)}
    dataset = TileDataset(url, tiles, layers, batch_size=2, shuffle=False)
    near = ["2024-02-10", "2024-03-20", "2024-04-01"]
    for workers in (0, 2):
        batches = list(dataset.loader(num_workers=workers, persistent_workers=False))
        assert {k: (v.dtype, tuple(v.shape)) for k, v in batches[0].items() if k.startswith("i")} == {
            "i": (torch.uint8, (2, 3, 2, SIZE, SIZE)),
            "i_valid": (torch.bool, (2, 3, SIZE, SIZE)),
            "i_time": (torch.float64, (2, 3)),
            "i_missing": (torch.bool, (2, 3)),
        }
        got = {key: np.concatenate([b[key].numpy() for b in batches]) for key in batches[0]}
        check(got, "i", folder, tiles, [near, near, ["2024-04-01"], near, near], steps=3)
    single = TileDataset(url, tiles, layers, batch_size=None, shuffle=False, transform=lambda s, _: s)
    assert next(iter(single))["i"].shape == (3, 2, SIZE, SIZE)


def test_tiles_without_an_acquisition_are_counted(db):
    tiles = native(db, LEFT, (9000, 9000), (9100, 9000))
    dataset = TileDataset(db, tiles, {"i": Imagery("s2", time=TimeSeries("acquired", steps=3), fill=5)})
    with pytest.warns(PgtilesWarning, match="layer 'i': 2 of 3 tiles of epoch 0 have no imagery at all, and hold 5"):
        (batch,) = dataset
    assert batch["i_missing"].all(dim=1).sum() == 2


def test_a_picture_has_a_column_for_each_step(db, tmp_path):
    tiles = native(db, LEFT, RIGHT)
    layers = {"i": Imagery("s2", time=TimeSeries("acquired", steps=3), valid=True), "mask": Labels("SELECT tile.geom AS geom")}
    figure = plot.batch(read(db, tiles, layers), tmp_path / "p.png")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["i\n2024-01-05", "2024-02-10", "2024-03-20", "mask", "2024-04-01", "missing", "missing", ""]
    shown = [axis.images[0].get_array() for axis in figure.axes if axis.images]
    assert len(shown) == 6  # nothing where a step is missing
    assert not np.array_equal(shown[0], shown[1])


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"steps": 0}, "steps=0: expected a whole number, 1 to 2047"),
        ({"steps": 2048}, "steps=2048: expected a whole number, 1 to 2047"),
        ({"steps": True}, "steps=True: expected a whole number"),
        ({"steps": 2, "every": 0}, "every=0: expected a whole number, 1 to"),
        ({"steps": 2, "between": "2024-03-01"}, r"between='2024-03-01': expected \(start, end\)"),
        ({"steps": 2, "between": ("2024-03-01",)}, r"expected \(start, end\), of which one may be None"),
        ({"steps": 2, "between": (None, None)}, r"expected \(start, end\), of which one may be None"),
        ({"steps": 2, "between": ("2024-03-01", "2024-03-01")}, "the start comes before the end"),
        ({"steps": 2, "between": (timedelta(2), timedelta(1))}, "the start comes before the end"),
        (
            {"steps": 2, "between": ("March", None)},
            "between: 'March' is no time: expected a date or a time such as '2024-03-01'",
        ),
        ({"steps": 2, "nearest": "tiles"}, "nearest: 'tiles' is no time"),
        ({"steps": 2, "nearest": np.datetime64("NaT")}, "nearest=.* is no time"),
        (
            {"steps": 2, "nearest": "tile", "every": 2},
            "every=2 counts from the first acquisition, nearest='tile' from a time: choose",
        ),
        ({"steps": 2, "by": "acquired) AS x, (now()"}, "closes a bracket that it never opened"),
        ({"steps": 2, "by": "acquired; DROP TABLE s2"}, "more than one statement"),
        ({"steps": 2, "by": 3}, "by=3: expected a column, or SQL that gives a time"),
    ],
)
def test_a_wish_that_makes_no_sense(wish, says):
    with pytest.raises(ConfigError, match=says):
        TimeSeries(**{"by": "acquired", **wish})


@pytest.mark.parametrize(
    ("layer", "kind", "says"),
    [
        (Imagery("s2", time=TimeSeries("aquired", steps=2)), MissingError, r"public.s2 has no column 'aquired'; near are acquired"),
        (Imagery("s2", time=TimeSeries("text", steps=2)), QueryError, r"of type text, expected a date or a timestamp, such as \(text\)::timestamptz$"),
        (Imagery("s2", time=TimeSeries("rid", steps=2)), QueryError, r"of type int4, expected a date or a timestamp, such as to_timestamp\(rid\) where it counts seconds since 1970$"),
        (Imagery("s2", time=TimeSeries("date(aquired)", steps=2)), QueryError, r"time=TimeSeries\('date\(aquired\)'\): column \"aquired\" does not exist"),
        (Imagery(TestSources.QUERY, time=TimeSeries("acquired", steps=2)), QueryError, r"gives the columns rast, time, filename: expected acquired"),
        (Imagery("s2", time=TimeSeries("acquired", steps=2, nearest="tile")), ConfigError, r"from the tile's own time, and 1 of 2 tiles have none: .*tiles.timed"),
        (Imagery("s2", time=TimeSeries("acquired", steps=2, between=(timedelta(-3), None))), ConfigError, r"1 of 2 tiles have none"),
    ],
)  # fmt: skip
def test_what_the_server_has_not(db, layer, kind, says):
    tiles = native(db, LEFT, RIGHT).timed(["2024-03-01", None])
    with pytest.raises(kind, match="layer 'i': .*" + says):
        read(db, tiles, {"i": layer})


@pytest.mark.parametrize("by", ["rid", "rid::int8", "rid * 0.5", "rid::float4", "text", "upper(text)"])
def test_what_the_error_proposes_is_a_time(db, by):
    """What stands there can be pasted as it is."""
    with pytest.raises(QueryError) as error:
        read(db, native(db), {"i": Imagery("s2", time=TimeSeries(by, steps=2))})
    proposed = str(error.value).split("such as ")[1].removesuffix(" where it counts seconds since 1970")
    got = read(db, native(db), {"i": Imagery("s2", time=TimeSeries(proposed, steps=2))})
    assert not got["i_missing"].any()


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
@pytest.mark.parametrize(
    "wish", [{"steps": 9}, {"steps": 9, "nearest": "2024-03-25"}, {"steps": 9, "between": ("2024-01-06", None)}]
)
@pytest.mark.parametrize("grid", ["native", "warped"])
def test_a_time_without_end_is_no_acquisition(db, kind, wish, grid):
    odd = "CASE filename WHEN 'a.tif' THEN '-infinity' WHEN 'g.tif' THEN 'infinity' WHEN 'c.tif' THEN NULL ELSE "
    by = f"{odd} acquired::{kind} END"
    tiles = native(db, LEFT) if grid == "native" else Tiles(TestWarped.GRID, np.array([30]), np.array([40]))
    got = read(db, tiles, {"i": Imagery("s2", time=TimeSeries(by, **wish))})
    days = ["2024-02-10", "2024-04-01", "2024-06-15"]
    hour = "" if kind == "date" else "T10:30"
    assert got["i_time"][0, :3].tolist() == seconds(*(day + hour for day in days))
    assert got["i_missing"][0].tolist() == [False] * 3 + [True] * 6
    assert np.isnan(got["i_time"][0, 3:]).all()


def test_times_that_are_none(db):
    tiles = native(db, LEFT, RIGHT)
    with pytest.raises(ConfigError, match="'soon' is no time"):
        tiles.timed("soon")
    with pytest.raises(ConfigError, match=r"one for each of 2 tiles, found an array \(3,\)"):
        tiles.timed(["2024-03-01"] * 3)
    with pytest.raises(ConfigError, match="expected 2 of datetime64, found an array of int64"):
        Tiles(tiles.grid, tiles.cols, tiles.rows, times=np.arange(2))
    with pytest.raises(ConfigError, match="time='acquired': expected a TimeSeries, such as"):
        Imagery("s2", time="acquired")


# -- the page


def test_the_page_runs(schema_db, world, tmp_path, monkeypatch):
    """Its SQL and Python, one block after the other, on files of the names that it speaks of."""
    days = ["20240105", "20240310", "20240402", "20240520", "20240617", "20240811", "20241105"]
    for n, day in enumerate(days):
        write_tiff(tmp_path / f"S2_{day}.tif", scene(n, (2, SIDE, SIDE)))
    load.raster(schema_db, sorted(tmp_path.glob("*.tif")), "sat_s2")
    rng, houses = np.random.default_rng(5), []
    with schema_db.connection() as conn:
        conn.execute("CREATE TABLE buildings (geom geometry(Polygon, 3857), built date, gone date)")
        for x, y in rng.uniform(0, SIDE * RES, (60, 2)):
            built = np.datetime64("2024-02-01") + rng.integers(0, 200)
            gone = built + rng.integers(10, 90) if rng.random() < 0.5 else None
            houses.append((shapely.box(X0 + x, Y0 - y, X0 + x + 30, Y0 - y + 30), built, gone))
            conn.execute(
                "INSERT INTO buildings VALUES (ST_GeomFromWKB(%s, 3857), %s, %s)",
                (houses[-1][0].wkb, built.item(), gone if gone is None else gone.item()),
            )
        conn.execute("CREATE INDEX ON buildings USING gist (geom); ANALYZE buildings")
    monkeypatch.setenv("PGTILES_URL", f"{world.url}?options=-csearch_path%3Dmine%2Cpublic")
    found = re.findall(r"^```(python|sql)\n(.*?)^```$", (DOCS / "time-series.md").read_text(), re.M | re.S)
    assert [kind for kind, _ in found] == ["sql", "python", "python", "python", "sql"]
    names = {}
    for kind, code in found:
        if kind == "sql":
            with schema_db.connection() as conn:
                conn.execute(code)
        else:
            exec(compile(code, "time-series.md", "exec"), names)
    assert names["images"].shape == (8, 4, 2, 64, 64)
    assert names["days"].tolist() == [[19792, 19815, 19863, 19891]] * 8
    np.testing.assert_allclose(names["mean"], names["images"].mean(dim=1), rtol=1e-6)
    batch, seen = names["batch"], [np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}") for day in days]
    for i, day in enumerate(names["dated"].times.astype("datetime64[D]")):
        want = [d for d in seen if day - 60 <= d <= day][-2:]
        times = batch["image_time"][i][~batch["image_missing"][i]]
        assert times.tolist() == [d.astype("datetime64[s]").astype(int) for d in want]
        west, _, _, north = names["dated"].bounds[i]
        there = [shape for shape, built, gone in houses if built <= day and (gone is None or gone > day)]
        mask = rasterize(there, (64, 64), transform=from_origin(west, north, RES, RES)) if there else np.zeros((64, 64))
        np.testing.assert_array_equal(batch["mask"][i], mask)
    assert batch["mask"].any()
