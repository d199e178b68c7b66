"""Promise 1, exact pixels: rasterio's windows, rasterio's rasterize over shapely geometries, and GDAL's exact warp say what is right."""

import shutil
import subprocess
import sys

import numpy as np
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from conftest import HEIGHT, RES, WIDTH, X0, Y0, scene, write_tiff
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.warp import Resampling, reproject

from pgtiles import Grid, Imagery, Labels, Tiles, load, read
from pgtiles.streaming.reading import Plan

BLOCK = 128


def transform_of(tiles, i):
    xmin, _, _, ymax = tiles.bounds[i]
    return from_origin(xmin, ymax, *tiles.grid.pixel)


def seam_tiles(grid, count, seed=0):
    """Random tiles, each of them over a corner where four stored blocks meet."""
    rng = np.random.default_rng(seed)
    h, w = grid.shape
    corner = rng.integers(1, [WIDTH // BLOCK, HEIGHT // BLOCK], (count, 2)) * BLOCK
    upper_left = corner - rng.integers(1, [w, h], (count, 2))
    return Tiles(grid, np.clip(upper_left[:, 0], 0, WIDTH - w), np.clip(upper_left[:, 1], 0, HEIGHT - h))


def burned(shapes, tiles, i, *, all_touched=False):
    """Shapes are (geometry, value), the ones on top last."""
    out = np.zeros(tiles.grid.shape, "int64")
    near = shapely.box(*tiles.bounds[i]).buffer(50)
    shapes = [(g, v) for g, v in shapes if g.intersects(near)]
    if shapes:
        rasterize(shapes, out=out, transform=transform_of(tiles, i), all_touched=all_touched)
    return out


def fetched(world, table):
    """Geometry, class and id of the base table's rows, as PostGIS holds them."""
    with world.db.connection() as conn:
        rows = conn.execute(f"SELECT ST_AsBinary(way), class, id FROM {table} ORDER BY id").fetchall()
    return [(shapely.from_wkb(g), c, i) for g, c, i in rows]


class TestNative:
    def check(self, db, table, pixels, grid, **options):
        tiles = seam_tiles(grid, 200)
        plan = Plan.open(db, tiles, {"image": Imagery(table, **options)})
        assert plan.layers[0].path == "native"
        got = read(db, tiles, {"image": Imagery(table, **options)})
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            h, w = grid.shape
            np.testing.assert_array_equal(got["image"][i], pixels[:, row : row + h, col : col + w])

    def test_our_load(self, world):
        with rasterio.open(world.tif) as file:
            self.check(world.db, "scene", file.read(), world.grid)

    def test_raster2pgsql_without_constraints(self, db, world):
        tool = shutil.which("raster2pgsql")
        if not tool:
            pytest.fail("raster2pgsql is missing: apt-get install postgis")
        made = subprocess.run([tool, "-s", "3857", "-t", "100x90", "-I", world.tif, "r2p"], capture_output=True, check=True)
        with db.connection() as conn:
            conn.execute(made.stdout.decode())
            assert conn.execute("SELECT srid, scale_x FROM raster_columns WHERE r_table_name = 'r2p'").fetchone() == (0, None)
        self.check(db, "r2p", world.pixels, Grid.like(db, "r2p", size=(64, 80)))

    @pytest.mark.parametrize("bands", [(1,), (3, 1), (2, 2, 3)])
    def test_bands_in_the_order_asked_for(self, world, bands):
        tiles = seam_tiles(world.grid, 20)
        got = read(world.db, tiles, {"image": Imagery("scene", bands=bands)})["image"]
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            np.testing.assert_array_equal(got[i], world.pixels[[b - 1 for b in bands], row : row + 64, col : col + 64])

    @pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
    def test_types(self, db, tmp_path, dtype):
        pixels = scene(1, (2, 200, 260), dtype)
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels)], "t")
        tiles = Tiles.random(Grid.like(db, "t", size=(50, 90)), within=db.extent("t", 3857), count=30)
        got = read(db, tiles, {"image": Imagery("t"), "native": Imagery("t", dtype="native")})
        assert got["image"].dtype == ("float32" if dtype == "uint16" else dtype)
        assert got["native"].dtype == dtype
        for i, (col, row) in enumerate(zip(tiles.cols, tiles.rows, strict=True)):
            want = pixels[:, row : row + 50, col : col + 90]
            np.testing.assert_array_equal(got["native"][i], want)
            np.testing.assert_array_equal(got["image"][i], want)

    def test_over_the_edge_is_nodata(self, db, tmp_path):
        pixels = scene(2, (1, 150, 150), "int16")
        load.raster(db, [write_tiff(tmp_path / "t.tif", pixels, nodata=-9)], "t")
        grid = Grid.like(db, "t", size=100)
        got = read(db, Tiles(grid, np.array([-40, 90]), np.array([-30, 80])), {"image": Imagery("t")})["image"]
        wide = np.full((400, 400), -9, "int16")
        wide[100:250, 100:250] = pixels[0]
        np.testing.assert_array_equal(got[0, 0], wide[70:170, 60:160])
        np.testing.assert_array_equal(got[1, 0], wide[180:280, 190:290])

    def test_overlapping_scenes_follow_order_by(self, db, tmp_path):
        old, new = scene(3, (1, 120, 120)), scene(4, (1, 120, 120))
        new[0, 30:60, 30:60] = 0  # a hole, through which the older scene shows
        for name, pixels in (("old.tif", old), ("new.tif", new)):
            write_tiff(tmp_path / name, pixels, nodata=0)
        load.raster(db, [tmp_path / "new.tif", tmp_path / "old.tif"], "t", block=64)
        with db.connection() as conn:
            conn.execute("ALTER TABLE t ADD acquired date")
            conn.execute("UPDATE t SET acquired = CASE WHEN filename LIKE 'new%' THEN '2020-01-01' ELSE '2010-01-01' END::date")
        tiles = Tiles(Grid.like(db, "t", size=120), np.array([0]), np.array([0]))
        both = np.where(new == 0, old, new)
        got = {o: read(db, tiles, {"i": Imagery("t", order_by=o)})["i"][0] for o in ("acquired DESC", "acquired")}
        np.testing.assert_array_equal(got["acquired DESC"], both)
        np.testing.assert_array_equal(got["acquired"], np.where(old == 0, new, old))
        by_key = read(db, tiles, {"i": Imagery("t")})["i"][0]  # the new one was loaded first
        np.testing.assert_array_equal(by_key, both)


class TestBurned:
    TILES = 200

    def tiles(self, world, shapes):
        """Tiles at whole lattice positions, each with something in it."""
        tree = shapely.STRtree([g for g, *_ in shapes])
        tiles = Tiles.random(world.grid, within=(X0 - 60, Y0 - HEIGHT * RES - 60, X0 + WIDTH * RES + 60, Y0 + 60), count=3000)
        hit = [i for i, b in enumerate(tiles.bounds) if len(tree.query(shapely.box(*b), predicate="intersects"))]
        assert len(hit) >= self.TILES
        return tiles[hit[: self.TILES]]

    def check(self, world, tiles, layer, shapes, **how):
        got = read(world.db, tiles, {"mask": layer})["mask"]
        off = sum(int((got[i] != burned(shapes, tiles, i, **how)).sum()) for i in range(len(tiles)))
        assert got.any(axis=(1, 2)).mean() > 0.5
        assert off == 0

    def test_buffered_lines(self, world):
        rows = fetched(world, "roads")
        query = "SELECT ST_Buffer(way, 6) AS geom FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
        tiles = self.tiles(world, rows)
        self.check(world, tiles, Labels(query), [(g.buffer(6, quad_segs=8), 1) for g, *_ in rows])

    def test_bare_lines(self, world):
        rows = fetched(world, "roads")
        tiles = self.tiles(world, rows)
        self.check(world, tiles, Labels("SELECT way AS geom FROM roads WHERE way && tile.geom"), [(g, 1) for g, *_ in rows])

    def test_areas_with_holes_by_value(self, world):
        rows = fetched(world, "areas")
        tiles = self.tiles(world, rows)
        shapes = [(g, c) for g, c, i in sorted(rows, key=lambda r: r[1])]  # the greater value on top
        self.check(world, tiles, Labels("areas", value="class"), shapes)

    def test_areas_by_priority(self, world):
        rows = fetched(world, "areas")
        tiles = self.tiles(world, rows)
        query = "SELECT way AS geom, class AS value, -class AS priority FROM areas WHERE way && tile.geom"
        self.check(world, tiles, Labels(query), [(g, c) for g, c, i in sorted(rows, key=lambda r: -r[1])])

    def test_points(self, world):
        rows = fetched(world, "trees")
        tiles = self.tiles(world, rows)
        got = read(world.db, tiles, {"mask": Labels("trees")})["mask"]
        off = sum(int((got[i] != burned([(g, 1) for g, *_ in rows], tiles, i)).sum()) for i in range(len(tiles)))
        assert off == 0
        assert got.sum() >= self.TILES

    def test_all_touched(self, world):
        rows = fetched(world, "roads")
        tiles = self.tiles(world, rows)
        layer = Labels("SELECT way AS geom FROM roads WHERE way && tile.geom", all_touched=True)
        self.check(world, tiles, layer, [(g, 1) for g, *_ in rows], all_touched=True)

    def test_all_touched_areas_to_one_in_ten_thousand(self, world):
        rows = fetched(world, "areas")
        tiles = self.tiles(world, rows)
        got = read(world.db, tiles, {"mask": Labels("areas", all_touched=True)})["mask"]
        want = np.stack([burned([(g, 1) for g, *_ in rows], tiles, i, all_touched=True) for i in range(len(tiles))])
        assert (got != want).mean() <= 1e-4

    def test_a_fractional_origin(self, world):
        rows = fetched(world, "areas")
        grid = Grid(srid=3857, resolution=(1.7, 2.3), size=(70, 90), origin=(X0 + 0.777, Y0 + 0.333))
        tiles = Tiles.random(grid, within=(X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0), count=100)
        self.check(world, tiles, Labels("areas"), [(g, 1) for g, *_ in rows])

    def test_value_zero_erases(self, world):
        rows = fetched(world, "areas")
        tiles = self.tiles(world, rows)[:60]
        query = """
            SELECT way AS geom, 3 AS value, 1 AS priority FROM areas WHERE way && tile.geom
            UNION ALL
            SELECT ST_Buffer(way, 6), 0, 2 FROM roads WHERE ST_DWithin(way, tile.geom, 6)
        """
        shapes = [(g, 3) for g, *_ in rows] + [(g.buffer(6, quad_segs=8), 0) for g, *_ in fetched(world, "roads")]
        got = read(world.db, tiles, {"mask": Labels(query, background=9)})["mask"]
        for i in range(len(tiles)):
            want = np.full(tiles.grid.shape, 9)
            rasterize(shapes, out=want, transform=transform_of(tiles, i))
            np.testing.assert_array_equal(got[i], want)

    def test_buffer_is_metres_on_the_ground(self, world):
        """In EPSG:3857 a metre is 1.47 units here; the scale at each tile's centre comes from pyproj's ellipsoid."""
        rows = fetched(world, "roads")
        tiles = self.tiles(world, rows)[:80]
        got = read(world.db, tiles, {"mask": Labels("roads", buffer=6)})["mask"]
        to_degrees = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
        geod, off = pyproj.Geod(ellps="WGS84"), 0
        for i, (xmin, ymin, xmax, ymax) in enumerate(tiles.bounds):
            x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
            east = geod.inv(*to_degrees.transform(xmin, y), *to_degrees.transform(xmax, y))[2] / (xmax - xmin)
            north = geod.inv(*to_degrees.transform(x, ymin), *to_degrees.transform(x, ymax))[2] / (ymax - ymin)
            assert 0.6 < east < 0.75
            near = [g for g, *_ in rows if g.intersects(shapely.box(xmin, ymin, xmax, ymax).buffer(20))]
            wide = [shapely.transform(shapely.transform(g, lambda p: p * [east, north]).buffer(6, quad_segs=8),
                                      lambda p: p / [east, north]) for g in near]  # fmt: skip
            off += int((got[i] != burned([(g, 1) for g in wide], tiles, i)).sum())
        assert off == 0

    @pytest.mark.parametrize("table", ["roads_4326", "areas_4326"])
    def test_a_source_in_another_srid(self, world, table):
        to_tiles = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
        rows = [
            (shapely.transform(g, lambda p: np.stack(to_tiles.transform(p[:, 0], p[:, 1]), 1)), c)
            for g, c, _ in fetched(world, table)
        ]
        tiles = self.tiles(world, rows)[:100]
        by_table = read(world.db, tiles, {"m": Labels(table)})["m"]
        query = f"SELECT way AS geom FROM {table} WHERE way && tile.geom"
        by_query = read(world.db, tiles, {"m": Labels(query, srid=4326)})["m"]
        np.testing.assert_array_equal(by_table, by_query)
        want = np.stack([burned([(g, 1) for g, _ in rows], tiles, i) for i in range(len(tiles))])
        assert (by_table != want).sum() <= 1  # a vertex on a pixel's very centre may fall either way

    def test_odd_geometries(self, db):
        """Collections, curves, Z and M, and a bow-tie: burned as GDAL burns them."""
        wkts = {
            "collection": "GEOMETRYCOLLECTION(POLYGON((0 0,90 0,90 -50,0 -50,0 0)),LINESTRING(10 -100,120 -80))",
            "z": "POLYGON Z((5 -5 1,60 -5 1,60 -60 1,5 -60 1,5 -5 1))",
            "m": "LINESTRING M(0 -90 1,100 -20 2)",
            "bowtie": "POLYGON((10 -10,90 -90,90 -10,10 -90,10 -10))",
            "multi": "MULTIPOLYGON(((0 0,30 0,30 -30,0 -30,0 0)),((20 -20,70 -20,70 -70,20 -70,20 -20)))",
            "many": "MULTIPOINT((5 -5),(55.5 -44.4),(500 500))",
            "empty": "POLYGON EMPTY",
        }
        grid = Grid(srid=3857, resolution=1, size=100)
        tiles = Tiles(grid, np.array([0]), np.array([0]))
        for name, wkt in wkts.items():
            query = f"SELECT ST_GeomFromText('{wkt}', 3857) AS geom"
            got = read(db, tiles, {"m": Labels(query)})["m"][0]
            shape = shapely.force_2d(shapely.from_wkt(wkt))
            want = burned([(shape, 1)] if not shape.is_empty else [], tiles, 0)
            np.testing.assert_array_equal(got, want, err_msg=name)
        arc = "SELECT ST_GeomFromText('CURVEPOLYGON(CIRCULARSTRING(0 -50,50 0,100 -50,50 -100,0 -50))', 3857) AS geom"
        got = read(db, tiles, {"m": Labels(arc)})["m"][0]
        assert got.sum() == pytest.approx(np.pi * 2500, rel=0.01)


@pytest.fixture(scope="module")
def noise(world):
    """Random 0 and 255: nothing is smoothed over, and the table has a seam in every tile."""
    pixels = np.random.default_rng(5).choice(np.array([0, 255], "u1"), (2, 420, 460))
    load.raster(world.db, [write_tiff(world.folder / "noise.tif", pixels)], "noise", block=64, replace=True)
    return pixels


class TestWarped:
    """At max_error=0, GDAL's exact warp of the whole source, which has no seams."""

    def both(self, world, table, pixels, grid, method):
        """What we read, and GDAL's exact warp of the whole source, on 12 tiles well inside it."""
        _, height, width = pixels.shape
        box = rasterio.warp.transform_bounds(3857, grid.srid, X0, Y0 - height * RES, X0 + width * RES, Y0)
        dx, dy = (box[2] - box[0]) * 0.1, (box[3] - box[1]) * 0.1
        tiles = Tiles.random(grid, within=(box[0] + dx, box[1] + dy, box[2] - dx, box[3] - dy), count=12)
        layer = Imagery(table, resampling=method, max_error=0)
        assert Plan.open(world.db, tiles, {"i": layer}).layers[0].path == "warped"
        got = read(world.db, tiles, {"i": layer})["i"].astype(int)
        want = np.zeros((len(tiles), len(pixels), *grid.shape), "u1")
        for i in range(len(tiles)):
            reproject(pixels, want[i], src_transform=from_origin(X0, Y0, RES, RES), src_crs=3857, dst_crs=grid.srid,
                      dst_transform=transform_of(tiles, i), resampling=Resampling[{"cubicspline": "cubic_spline"}.get(method, method)], tolerance=0)  # fmt: skip
        assert got.std() > 10
        return got, want.astype(int)

    def worst(self, *args):
        got, want = self.both(*args)
        return int(np.abs(got - want).max())

    @pytest.mark.parametrize("method", ["nearest", "bilinear", "cubic", "cubicspline", "lanczos"])
    def test_finer(self, world, noise, method):
        assert self.worst(world, "noise", noise, Grid(srid=3857, resolution=1.1, size=128, origin=(0.3, 0.7)), method) <= 1

    @pytest.mark.parametrize("method", ["bilinear", "cubic"])
    def test_reprojected(self, world, noise, method):
        """A metre of EPSG:3857 is 0.68 m on the ground here: 1.5 m of UTM is a little finer than the source."""
        assert self.worst(world, "noise", noise, Grid(srid=32632, resolution=1.5, size=128), method) <= 1

    @pytest.mark.parametrize(("srid", "resolution"), [(3857, 5), (3857, 6.3), (32632, 1.9), (32632, 4.1)])
    def test_coarser(self, world, srid, resolution):
        """Where GDAL shrinks an image, its kernel's width follows from the window's size in whole pixels, so that its own warps of
        a tile and of the whole differ a little. What must hold is that nothing is shifted and nothing is lost.
        """
        grid = Grid(srid=srid, resolution=resolution, size=128, origin=(1, 1))
        got, want = self.both(world, "scene", world.pixels, grid, "bilinear")
        assert np.abs(got - want).mean() < 0.5
        assert abs((got - want).mean()) < 0.05
        for shift in ((0, 1), (1, 0)):
            assert np.abs(np.roll(got, shift, (2, 3)) - want)[:, :, 1:, 1:].mean() > 3

    @pytest.mark.usefixtures("quiet")  # the lattices are apart, which is said
    def test_holes_and_overlaps_fall_back_to_a_union(self, db, tmp_path):
        """Two scenes that overlap, with a gap between their rows: joined in order, then warped as one."""
        a, b = scene(6, (1, 100, 160)), scene(7, (1, 100, 160))
        write_tiff(tmp_path / "a.tif", a, nodata=0)
        write_tiff(tmp_path / "b.tif", b, nodata=0, transform=from_origin(X0 + 100 * RES, Y0 - 40 * RES, RES, RES))
        load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=64)
        whole = np.zeros((1, 140, 260), "u1")
        whole[:, 40:, 100:] = b
        whole[:, :100, :160] = a  # the first loaded lies on top
        grid = Grid(srid=3857, resolution=2.5, size=100, origin=(X0 + 1, Y0 + 1))
        tiles = Tiles(grid, np.array([60, 20]), np.array([5, 30]))
        got = read(db, tiles, {"i": Imagery("t", max_error=0)})["i"].astype(int)
        for i in range(2):
            want = np.zeros((1, 100, 100), "u1")
            reproject(whole, want, src_transform=from_origin(X0, Y0, RES, RES), src_crs=3857, dst_crs=3857, src_nodata=0,
                      dst_nodata=0, dst_transform=transform_of(tiles, i), resampling=Resampling.bilinear, tolerance=0)  # fmt: skip
            assert np.abs(got[i] - want).max() <= 1

    def test_black_stays_black_where_there_is_no_nodata(self, db, tmp_path):
        """Overlapping scenes of black and white: ST_Union takes black for nodata, and a warp would leave it out."""
        rng = np.random.default_rng(8)
        a, b = (rng.choice(np.array([0, 255], "u1"), (1, 100, 160)) for _ in range(2))
        write_tiff(tmp_path / "a.tif", a)
        write_tiff(tmp_path / "b.tif", b, transform=from_origin(X0 + 100 * RES, Y0, RES, RES))
        load.raster(db, [tmp_path / "a.tif", tmp_path / "b.tif"], "t", block=64)
        whole = np.concatenate([a, b[:, :, 60:]], axis=2)  # the first loaded lies on top
        grid = Grid(srid=3857, resolution=2.0, size=80, origin=(X0 + 1, Y0 + 1))
        tiles = Tiles(grid, np.array([60, 90, 130]), np.array([5, 20, 30]))
        got = read(db, tiles, {"i": Imagery("t", max_error=0)})["i"].astype(int)
        for i in range(3):
            want = np.zeros((1, 80, 80), "u1")
            reproject(whole, want, src_transform=from_origin(X0, Y0, RES, RES), src_crs=3857, dst_crs=3857,
                      dst_transform=transform_of(tiles, i), resampling=Resampling.bilinear, tolerance=0)  # fmt: skip
            assert np.abs(got[i] - want).max() <= 1


def test_read_needs_no_torch(world):
    code = f"""
import sys, pgtiles
db = pgtiles.Database({world.url!r})
tiles = pgtiles.Tiles.random(pgtiles.Grid.like(db, "scene", size=32), within=db.extent("scene", 3857), count=2)
assert pgtiles.read(db, tiles, {{"image": pgtiles.Imagery("scene")}})["image"].shape == (2, 3, 32, 32)
assert "torch" not in sys.modules and "sqlalchemy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
