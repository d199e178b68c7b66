"""The warped path where a plain case does not lead: approximated reprojections of distant tiles, tiles that hold a pole or lie across
the antimeridian, rows of another kind than the first ones. pyproj says where a pixel lies, GDAL what a warp gives.
"""

import itertools
import re

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from conftest import write_tiff
from psycopg import sql
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from pgtiles import Grid, Imagery, Labels, Tiles, TimeSeries, load, read
from pgtiles.errors import DataError, QueryError
from pgtiles.layers.query import over
from pgtiles.layers.wkb import decode, encode
from pgtiles.streaming.reading import Plan, read_batch

db = pytest.fixture(lambda schema_db: schema_db)  # a schema of the test's own
QUERY = "SELECT r.rast FROM t AS r WHERE ST_ConvexHull(r.rast) && ST_Expand(tile.geom, {})"


def insert(db, *wkbs):
    """A table t of these rasters."""
    with db.connection() as conn:
        conn.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (rid int PRIMARY KEY, rast raster, taken timestamptz)")
        conn.cursor().executemany(
            "INSERT INTO t VALUES (%s, ST_RastFromWKB(%s), '2024-05-01')", [(rid, wkb) for rid, wkb in enumerate(wkbs)]
        )
        conn.execute("CREATE INDEX ON t USING gist (ST_ConvexHull(rast))")


# the source's SRID, the tiles', longitude and two latitudes of tiles, and the source's pixel
PAIRS = [
    (32633, 3857, 15, (50, 42), 10.0), (32633, 3857, 18, (60, 12), 10.0), (4326, 3857, 20, (65, -20), 1e-4),
    (4326, 3857, 20, (80, 70), 1e-4), (3857, 4326, 20, (80, 60), 10.0), (4326, 32633, 18, (60, 10), 1e-4),
    (3031, 4326, 20, (-75, -65), 10.0), (3031, 3857, 40, (-75, -65), 100.0), (3035, 25832, 5, (60, 45), 10.0),
    (2154, 3857, 6, (44, 49), 5.0), (4326, 3413, -40, (75, 66), 1e-3), (32760, 3857, -179.5, (-40, -20), 10.0),
]  # fmt: skip


@pytest.mark.usefixtures("quiet")
class TestApproximated:
    """Imagery whose pixels are their own columns and rows, resampled: what a pixel holds says whence it was taken."""

    def off(self, db, pair, size, error, *, query):
        """By how many source pixels each tile's pixels are off at most, and of each tile whether the affine map served."""
        source, target, lon, lats, pixel = pair
        there = pyproj.Transformer.from_crs(4326, target, always_xy=True)
        back = pyproj.Transformer.from_crs(target, source, always_xy=True)
        degrees = 111_320
        resolution = pixel / degrees if target == 4326 else pixel * degrees if source == 4326 else pixel
        (x, y), *others = [there.transform(lon, lat) for lat in lats]
        corner = x - resolution * size / 2, y + resolution * size / 2
        cols, rows = zip((0, 0), *(((u - x) / resolution, (y - v) / resolution) for u, v in others), strict=True)
        grid = Grid(srid=target, resolution=resolution, size=size, origin=corner)
        tiles = Tiles(grid, np.rint(cols).astype(int), np.rint(rows).astype(int))
        want, wkbs, origin = [], [], None
        for left, _, _, top in tiles.bounds:
            centres = np.arange(size) + 0.5
            xs, ys = back.transform(*np.meshgrid(left + centres * resolution, top - centres * resolution))
            origin = origin or (xs.min(), ys.max())
            across, down = (xs - origin[0]) / pixel, (origin[1] - ys) / pixel
            begin = np.array([np.floor(across.min()) - 30, np.floor(down.min()) - 30])
            width, height = int(np.ptp(across)) + 60, int(np.ptp(down)) + 60
            place = np.meshgrid(begin[0] + np.arange(width) + 0.5, begin[1] + np.arange(height) + 0.5)
            upper_left = origin[0] + begin[0] * pixel, origin[1] - begin[1] * pixel
            wkbs.append(encode(np.stack(place), upper_left=upper_left, scale=(pixel, -pixel), srid=source))
            want.append(np.stack([across, down]))
        insert(db, *wkbs)
        text = QUERY.format(8 * pixel) if query else "t"
        layer = Imagery(text, srid=source if query else None, dtype="native", valid=True, max_error=error)
        got = read(db, tiles, {"i": layer})
        assert got["i_valid"].all()
        select = Plan.open(db, tiles, {"i": layer}).layers[0].select
        bare, count = re.subn(r"ST_Transform\(joined\.rast, .*\)::bytea", "joined.rast::bytea", select)
        assert count == 1
        affine = [decode(row[-1]).srid == target for row in db.query(over(tiles, sql.SQL(bare)))]
        return np.abs(got["i"] - want).max(axis=(1, 2, 3)), affine

    @pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} to {pair[1]}, {pair[3][0]}")
    def test_within_max_error(self, db, pair):
        met = []
        for size, error, query in ((64, 0.125, False), (256, 0.125, True), (256, 0.5, False), (400, 0.5, True)):
            off, affine = self.off(db, pair, size, error, query=query)
            met += affine
            for one, here in zip(off, affine, strict=True):
                assert one <= error * (1 if here else 2), (size, error, here)  # GDAL's own approximation may miss by more
        assert any(met) == (pair[1] != 3413)  # where a tile is much of a turn around the pole


def written(path, pixels, place):
    """A file in degrees."""
    return write_tiff(path, pixels, crs="EPSG:4326", transform=place)


def gdal(path, tiles):
    """GDAL's exact warp of the file onto the first tile."""
    (left, _, _, top), (height, width) = tiles.bounds[0], tiles.grid.shape
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file, crs=f"EPSG:{tiles.grid.srid}", transform=from_origin(left, top, *tiles.grid.pixel), width=width, height=height,
            resampling=Resampling.nearest, tolerance=1e-9,
        ) as vrt,
    ):  # fmt: skip
        return vrt.read()


# by the tiles' SRID: where the tile's centre lies, in pixels of 20 km from the pole
POLES = {
    "south, in the middle": (3031, (0, 0)), "north, in the middle": (3413, (0, 0)), "south, in a corner": (3031, (31.5, 31.5)),
    "north, at the edge": (3413, (-31.7, 4)), "north, at the very edge": (3413, (32, 4)), "south, beyond the edge": (3031, (3, 34)),
    "north, beyond the edge": (3413, (-5, -33)), "north, far": (3413, (12, -58)),
}  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("srid", "centre"), POLES.values(), ids=POLES)
class TestPoles:
    """What is stored in degrees, on a tile that holds a pole: no outline of a tile tells in degrees that it does."""

    @pytest.fixture
    def tiles(self, srid, centre):
        pixel, size = 20_000, 64
        origin = [(c - size / 2) * pixel for c in centre]
        grid = Grid(srid=srid, resolution=pixel, size=size, origin=(origin[0], origin[1] + size * pixel))
        return Tiles(grid, np.array([0]), np.array([0]))

    def test_imagery(self, db, tmp_path, tiles):
        pixels = np.random.default_rng(0).integers(1, 255, (1, 720, 1440), "u1")
        path = written(tmp_path / "world.tif", pixels, from_origin(-180, 90, 0.25, 0.25))
        load.raster(db, path, "t", block=120, replace=True)
        got = read(db, tiles, {"i": Imagery("t", resampling="nearest", max_error=0)})
        want = gdal(path, tiles)
        assert (want == 0).sum() <= 1  # the pole itself is the end of the imagery
        np.testing.assert_array_equal(got["i"][0], want)

    @pytest.mark.parametrize(
        "source", ["v", "SELECT v.geom FROM v WHERE ST_Intersects(v.geom, tile.geom)"], ids=["table", "query"]
    )
    def test_labels(self, db, tiles, source):
        cells = itertools.product(range(-180, 180, 6), (*range(-89, -50, 4), *range(51, 89, 4)))
        shapes = [shapely.box(lon, lat, lon + 3, lat + 1) for lon, lat in cells]
        with db.connection() as conn:
            conn.execute("CREATE TABLE v (id serial PRIMARY KEY, geom geometry(Polygon, 4326))")
            conn.cursor().executemany(
                "INSERT INTO v (geom) VALUES (ST_GeomFromWKB(%s, 4326))", [(shape.wkb,) for shape in shapes]
            )
            conn.execute("CREATE INDEX ON v USING gist (geom)")
        move = pyproj.Transformer.from_crs(4326, tiles.grid.srid, always_xy=True)
        there = [shape for shape in shapes if shape.bounds[1] * (1 if tiles.grid.srid == 3413 else -1) > 0]
        moved = [shapely.transform(shape, lambda p: np.column_stack(move.transform(*p.T))) for shape in there]
        left, _, _, top = tiles.bounds[0]
        want = rasterize(moved, out_shape=tiles.grid.shape, transform=from_origin(left, top, *tiles.grid.pixel))
        assert want.sum() > 400
        np.testing.assert_array_equal(read(db, tiles, {"m": Labels(source, srid=4326)})["m"][0], want)


@pytest.mark.usefixtures("quiet")
class TestAntimeridian:
    """Tiles on both ends of what is stored in degrees."""

    def tiles(self, pixel, size):
        x, y = pyproj.Transformer.from_crs(4326, 3832, always_xy=True).transform(180, 10)
        corner = x - 0.45 * size * pixel, y + 0.5 * size * pixel
        return Tiles(Grid(srid=3832, resolution=pixel, size=size, origin=corner), np.array([0]), np.array([0]))

    def test_coarse_imagery_equals_gdals(self, db, tmp_path):
        pixels = np.random.default_rng(0).integers(1, 255, (1, 720, 1440), "u1")
        path = written(tmp_path / "world.tif", pixels, from_origin(-180, 90, 0.25, 0.25))
        load.raster(db, path, "t", block=120)
        tiles = self.tiles(20_000, 64)
        got = read(db, tiles, {"i": Imagery("t", resampling="nearest", max_error=0)})["i"][0]
        np.testing.assert_array_equal(got, gdal(path, tiles))

    @pytest.mark.parametrize("size", [256, 512])
    def test_fine_imagery_is_refused_by_name(self, db, tmp_path, size):
        pixels = np.random.default_rng(0).integers(1, 255, (1, 400, 400), "u1")
        files = [written(tmp_path / f"{west}.tif", pixels, from_origin(west, 10.2, 0.001, 0.001)) for west in (180 - 0.4, -180)]
        load.raster(db, files, "t")
        said = r"lies across the antimeridian.* needs 360000 × \d+ pixels .*gdalwarp -t_srs EPSG:3832"
        with pytest.raises(DataError, match=said):
            read(db, self.tiles(111.0, size), {"i": Imagery("t", resampling="nearest")})

    @pytest.mark.parametrize(
        "source", ["v", "SELECT v.geom FROM v WHERE ST_Intersects(v.geom, tile.geom)"], ids=["table", "query"]
    )
    def test_labels(self, db, source):
        shapes = [shapely.box(lon, 9.98, lon + 0.01, 10.03) for lon in (-180, -179.97, -179.9, 179.92, 179.96, 179.985, 0, 90)]
        with db.connection() as conn:
            conn.execute("CREATE TABLE v (id serial PRIMARY KEY, geom geometry(Polygon, 4326))")
            conn.cursor().executemany(
                "INSERT INTO v (geom) VALUES (ST_GeomFromWKB(%s, 4326))", [(shape.wkb,) for shape in shapes]
            )
        tiles = self.tiles(111.0, 256)
        move = pyproj.Transformer.from_crs(4326, 3832, always_xy=True)
        moved = [shapely.transform(shape, lambda p: np.column_stack(move.transform(*p.T))) for shape in shapes]
        left, _, _, top = tiles.bounds[0]
        want = rasterize(moved, out_shape=(256, 256), transform=from_origin(left, top, 111, 111))
        assert want[:, :100].any()
        assert want[:, 140:].any()
        np.testing.assert_array_equal(read(db, tiles, {"m": Labels(source, srid=4326)})["m"][0], want)


def test_a_window_that_no_raster_holds_is_refused(db):
    row = np.zeros((8, 40_000), "u1")
    insert(db, *(encode(row, upper_left=(1e6 + k * 40_000, 6e6), scale=(1, -1), srid=3857) for k in range(2)))
    tiles = Tiles(Grid(srid=3857, resolution=(1000.0, 1.0), size=(8, 80), origin=(1e6, 6e6)), np.array([0]), np.array([0]))
    with pytest.raises(DataError, match=r"needs 80000 × 8 pixels .*at most 65535 a side"):
        read(db, tiles, {"i": Imagery("t", resampling="nearest")})


SIDE, FIRST = 8, 1000  # pixels along a stored block; how many rows of one kind come first, all that opening looks at
ODD = {
    "another type": {"pixel_type": "16BUI", "value": 5000}, "a type as wide": {"pixel_type": "8BSI", "value": -5},
    "a second band": {"bands": 2}, "another scale": {"scale": (20, -20)}, "turned": {"skew": (1.0, 1.0)},
    "another SRID": {"srid": 32633},
}  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
class TestLaterRows:
    """A row of another kind than the first thousand, which are all that the layer was opened on."""

    def block(self, k, *, row, value=100, pixel_type="8BUI", bands=1, scale=(10, -10), skew=(0, 0), srid=3857):
        dtype = {"8BUI": "u1", "16BUI": "u2", "8BSI": "i1"}[pixel_type]
        pixels = np.full((bands, SIDE, SIDE), value, dtype)
        upper_left = 1e6 + 80 * k, 6e6 - 80 * row
        return encode(pixels, pixel_type=pixel_type, upper_left=upper_left, scale=scale, skew=skew, srid=srid)

    def filled(self, db, odd):
        """25 rows of 40 blocks of one kind, and one of another below them."""
        insert(db, *(self.block(k % 40, row=k // 40) for k in range(FIRST)), *(self.block(k, row=25, **odd) for k in range(40)))

    def tiles(self, row):
        return Tiles(Grid(srid=3857, resolution=5.0, size=4, origin=(1e6, 6e6)), np.array([43]), np.array([row]))

    @pytest.mark.parametrize("row", [399, 402], ids=["across", "inside"])
    @pytest.mark.parametrize("how", ["table", "query", "bands", "series"])
    def test_is_refused_by_name(self, db, odd, row, how):
        self.filled(db, odd)
        layer = {
            "table": Imagery("t"), "query": Imagery(QUERY.format(50)), "bands": Imagery("t", bands=(1,)),
            "series": Imagery("t", time=TimeSeries(by="taken", steps=2)),
        }[how]  # fmt: skip
        plan = Plan.open(db, self.tiles(380), {"i": layer})
        said = r"tile 0 at .*(a raster at \(1000\d+, 5998000\) has SRID .*; expected SRID 3857.*8BUI|mixed SRID)"
        with pytest.raises((DataError, QueryError), match=said):
            read_batch(db, plan, self.tiles(row))

    def test_elsewhere_it_does_not_matter(self, db, odd):
        self.filled(db, odd)
        assert (read(db, self.tiles(380), {"i": Imagery("t")})["i"] == 100).all()
