"""Polygons of class rasters, held against rasterio's shapes of the whole raster, read at once."""

import os
import re
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.features
import shapely
import torch
from conftest import RES, ask, write_tiff
from psycopg.conninfo import make_conninfo
from shapely.geometry import shape
from waiting import UNDER_WAY, until

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles, load, predict, read, vectorize
from pgtiles.errors import ConfigError, DataError, LoadError, MissingError
from pgtiles.polygons import classrasters  # fmt: skip
from pgtiles.polygons.tracing import Tracer

UTM = 32632
ROOT = Path(__file__).parents[1]


def landscape(seed, shape, classes=4, specks=0.004):
    """Classes as a model gives them: areas with bays and islands, and single pixels all over."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = sum(
        np.sin((x * np.cos(a) + y * np.sin(a)) / s) for a, s in zip(rng.uniform(0, 6, 6), rng.uniform(4, 40, 6), strict=True)
    )
    values = np.digitize(waves, np.linspace(-2, 2, classes - 1)).astype("uint8")
    noise = rng.random(shape) < specks
    values[noise] = rng.integers(0, classes, noise.sum())
    return values


def write_classes(path, values, nodata=255, srid=UTM, transform=None, **more):
    transform = transform or rasterio.transform.from_origin(400_000, 5_300_000, RES, RES)
    return write_tiff(path, values[None], crs=f"EPSG:{srid}", nodata=nodata, transform=transform, **more)


@pytest.fixture
def land(db, tmp_path):
    """A class raster in blocks of 64 pixels, with a corner and a hole of no data, and its file."""
    values = landscape(1, (700, 500))
    values[:90, 400:] = 255
    values[300:320, 100:130] = 255
    file = write_classes(tmp_path / "land.tif", values)
    load.raster(db, file, "land", block=64)
    return file


def by_rasterio(file, classes=None):
    """Class and polygon, of the whole raster at once."""
    with rasterio.open(file) as raster:
        values = raster.read(1)
        wanted = raster.read_masks(1) > 0
        if classes is not None:
            wanted &= np.isin(values, classes)
        found = rasterio.features.shapes(values, mask=wanted, connectivity=4, transform=raster.transform)
        return [(int(value), shapely.make_valid(shape(geometry))) for geometry, value in found]


def in_table(db, table="polygons"):
    return [
        (value, shapely.from_wkb(bytes(polygon)), probability, area)
        for value, polygon, probability, area in ask(
            db, f"SELECT class, ST_AsBinary(geom), probability, area FROM {table} ORDER BY fid"
        )
    ]


def same(ours, theirs):
    """Whether polygons are the same one by one: class, area, and nothing that only one of a pair covers."""
    if len(ours) != len(theirs):
        return False
    places = {}
    for value, polygon in theirs:
        places.setdefault((value, polygon.bounds, polygon.area), []).append(polygon)
    for value, polygon, *_ in ours:
        near = places.get((value, polygon.bounds, polygon.area), [])
        match = next((n for n, other in enumerate(near) if polygon.symmetric_difference(other).area == 0), None)
        if match is None:
            return False
        near.pop(match)
    return True


@pytest.fixture(params=[64, 128, 256])
def narrow(request, monkeypatch):
    """Strips of few rows and tiles of few columns, as a large raster has them."""
    monkeypatch.setattr(classrasters, "STRIP", request.param * 500)
    monkeypatch.setattr(classrasters, "BLOCK", request.param)
    monkeypatch.setattr(classrasters, "WIDEST", 192)


def test_polygons_are_those_of_the_whole_raster(db, land, narrow):
    done = vectorize(db, "land", "polygons")
    ours = in_table(db)
    assert done.rows == len(ours) > 800
    assert same(ours, by_rasterio(land))
    assert all(polygon.is_valid for _, polygon, *_ in ours)


def test_how_the_raster_is_cut_shows_nowhere(db, land, monkeypatch):
    found = []
    for rows, block in ((1, 128), (7, 7), (64, 128), (128, 128), (4096, 128)):
        monkeypatch.setattr(classrasters, "STRIP", rows * 500)
        monkeypatch.setattr(classrasters, "BLOCK", block)
        vectorize(db, "land", "polygons", replace=True)
        found.append(sorted((value, polygon.normalize().wkb) for value, polygon, *_ in in_table(db)))
    assert all(other == found[0] for other in found)


def test_no_corner_is_left_where_a_seam_was(db, tmp_path, narrow):
    values = np.full((600, 500), 255, "uint8")
    values[50:550, 40:460] = 3
    load.raster(db, write_classes(tmp_path / "one.tif", values), "one", block=64)
    vectorize(db, "one", "polygons")
    [(value, polygon, *_)] = in_table(db)
    assert value == 3
    assert len(polygon.exterior.coords) == 5


def test_a_raster_taller_than_any_tile(db, tmp_path):
    file = write_classes(tmp_path / "tall.tif", landscape(6, (66_000, 3)))
    load.raster(db, file, "tall", block=2048)
    vectorize(db, "tall", "polygons")
    assert same(in_table(db), by_rasterio(file))


@pytest.mark.parametrize("seed", range(4))
def test_any_raster_cut_anywhere(seed):
    """Rings that touch themselves, spirals, chessboards: rasters so small that they are full of them."""
    rng = np.random.default_rng(seed)
    for _ in range(60):
        height, width = rng.integers(1, 14, 2)
        values = rng.integers(0, rng.integers(2, 5), (height, width)).astype("uint8")
        theirs = [(int(v), shapely.make_valid(shape(g))) for g, v in rasterio.features.shapes(values, mask=values > 0)]
        for nodes in (False, True):
            tracer, ours = Tracer(width, nodes=nodes), []
            for part in np.split(values, np.sort(rng.integers(0, height + 1, rng.integers(0, 4)))):
                ours += tracer.add(part) if len(part) else ()
            ours += tracer.finish()
            polygons = [(one.value, shapely.Polygon(one.rings[0], one.rings[1:])) for one in ours]
            assert same(polygons, theirs)
            assert all(polygon.is_valid for _, polygon in polygons)
            assert [polygon.area for _, polygon in polygons] == [one.pixels for one in ours]
            assert not nodes or shapely.coverage_is_valid([polygon for _, polygon in polygons])


def test_a_strip_of_a_wide_raster_is_no_larger():
    """The memory that reading and tracing take is a strip's; strips are whole blocks, or divide one."""
    for width in (1, 500, 4096, 5000, 40_000, 400_000, 2**21):
        rows = classrasters._rows(width)
        assert rows * width <= max(classrasters.STRIP, width)
        assert (rows + 1) * width > classrasters.STRIP / 2 or rows % 128 == 0
        assert rows % 128 == 0 or 128 % rows == 0


def test_memory_does_not_grow_with_the_raster():
    """Of the strips that have been traced, nothing is left but the outlines that go on."""
    strip = landscape(4, (64, 512))
    strip[31] = 0  # so that polygons cross the seams, and none is as large as the map, but one that has few corners
    strip[:, :2] = (1, 0)
    peaks = []
    for count in (16, 256):
        tracer = Tracer(512)
        tracemalloc.start()
        for _ in range(count):
            for _outline in tracer.add(strip):
                pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_areas_are_those_on_the_ground(db, tmp_path):
    """In EPSG:3857 at 60° north, where a metre of the map is half a metre."""
    pyproj = pytest.importorskip("pyproj")
    values = landscape(2, (90, 80))
    corner = rasterio.transform.from_origin(2_776_000, 8_399_737, 10, 10)
    load.raster(db, write_classes(tmp_path / "north.tif", values, srid=3857, transform=corner), "north")
    vectorize(db, "north", "polygons")
    geod, into = pyproj.Geod(ellps="WGS84"), pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
    for _, polygon, _, area in in_table(db):
        there = shapely.transform(shapely.segmentize(polygon, 20), into.transform, interleaved=False)
        assert area == pytest.approx(abs(geod.geometry_area_perimeter(there)[0]), rel=1e-6)
        assert area < 0.3 * polygon.area


@pytest.mark.parametrize(
    "west, south, side, shape", [(-180, -90, 10, (18, 36)), (-170, -60, 10, (12, 34)), (10, 60, 0.1, (20, 30))]
)
def test_the_area_of_long_edges_is_the_map_s(db, tmp_path, west, south, side, shape):
    """In degrees, where an edge is not the shortest way between its ends: all the Earth, a belt around it, a country's width."""
    corner = rasterio.transform.from_origin(west, south + side * shape[0], side, side)
    load.raster(db, write_classes(tmp_path / "d.tif", np.ones(shape, "uint8"), srid=4326, transform=corner), "d")
    vectorize(db, "d", "polygons", min_area=1, fill_holes=1)
    squared = 0.0066943799901413165  # the ellipsoid's eccentricity; its shorter axis is 6356752.314 m
    s, e = np.sin(np.radians([south, south + side * shape[0]])), np.sqrt(squared)
    belt = np.diff(s / (1 - squared * s**2) + np.arctanh(e * s) / e)[0] * 6356752.314**2 / 2  # by a radian of longitude
    [(_, _, _, area)] = in_table(db)
    assert area == pytest.approx(belt * np.radians(side * shape[1]), rel=1e-4)


def test_only_the_classes_that_are_wanted(db, land):
    vectorize(db, "land", "polygons", classes=[0, 2])
    assert same(in_table(db), by_rasterio(land, [0, 2]))


@pytest.mark.parametrize("dtype, nodata", [("int16", -9), ("uint16", 65535), ("int32", None), ("uint8", None)])
def test_any_whole_numbers(db, tmp_path, dtype, nodata):
    values = (
        landscape(3, (130, 140)).astype(dtype) * (300 if dtype != "uint8" else 60) - (300 if dtype[0] == "i" else 0)
    ).astype(dtype)
    if nodata is not None:
        values[values == values.min()] = nodata
    file = write_classes(tmp_path / "numbers.tif", values, nodata)
    load.raster(db, file, "numbers")
    vectorize(db, "numbers", "polygons")
    assert same(in_table(db), by_rasterio(file))


def labelled(values, there):
    """A number for each polygon's pixels, by rasterio alone."""
    found = rasterio.features.shapes(values, mask=there, connectivity=4)
    shapes = [(geometry, number) for number, (geometry, _) in enumerate(found, 1)]
    return rasterio.features.rasterize(shapes, values.shape, dtype="int32"), len(shapes)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("bands", [4, 1])
def test_probability_is_the_mean_of_what_was_thought_of_the_class(db, tmp_path, narrow, dtype, bands):
    rng = np.random.default_rng(5)
    values = landscape(5, (300, 310), classes=4 if bands > 1 else 2)
    thought = rng.random((bands, *values.shape))
    raw = np.rint(thought * 254).astype("uint8") if dtype == "uint8" else thought.astype("float32")
    nodata = 255 if dtype == "uint8" else np.nan
    raw[:, 40:60, 70:90] = nodata
    write_classes(tmp_path / "c.tif", values)
    write_tiff(tmp_path / "p.tif", raw, crs=f"EPSG:{UTM}", nodata=nodata,
               transform=rasterio.transform.from_origin(400_000, 5_300_000, RES, RES))  # fmt: skip
    load.raster(db, tmp_path / "c.tif", "c")
    load.raster(db, tmp_path / "p.tif", "p", block=100)
    vectorize(db, "c", "polygons", probability="p")

    scaled = raw.astype("float64") / (254 if dtype == "uint8" else 1)
    own = (
        np.take_along_axis(scaled, values[None].astype(int), 0)[0]
        if bands > 1
        else np.where(values == 1, scaled[0], 1 - scaled[0])
    )
    known = raw[0] != 255 if dtype == "uint8" else ~np.isnan(raw[0])
    numbers, count = labelled(values, np.ones(values.shape, bool))
    sums = np.bincount(numbers[known], own[known], count + 1)
    pixels = np.bincount(numbers[known], minlength=count + 1)
    left, top = 400_000, 5_300_000
    seen = 0
    for _, polygon, probability, _ in in_table(db):
        point = polygon.representative_point()
        number = numbers[int((top - point.y) / RES), int((point.x - left) / RES)]
        if pixels[number] == 0:
            assert probability is None
            seen += 1
        else:
            assert probability == pytest.approx(sums[number] / pixels[number], abs=1e-9)
    assert seen  # some lie in the hole


def test_small_polygons_are_dropped(db, land):
    vectorize(db, "land", "all")
    everything = in_table(db, '"all"')
    done = vectorize(db, "land", "polygons", min_area=100)
    kept = in_table(db)
    assert {p.wkb for _, p, _, area in everything if area >= 100} == {p.wkb for _, p, *_ in kept}
    assert f"{len(everything) - len(kept)} polygons were dropped" in done.notes[0]
    assert [fid for (fid,) in ask(db, "SELECT fid FROM polygons ORDER BY fid")] == list(range(1, len(kept) + 1))


def test_holes_are_filled_and_what_lies_in_them_goes(db, land):
    vectorize(db, "land", "all")
    everything = [(value, polygon) for value, polygon, *_ in in_table(db, '"all"')]
    vectorize(db, "land", "polygons", fill_holes=200)
    factor = next(area / polygon.area for _, polygon, _, area in in_table(db, '"all"'))  # nearly the same everywhere
    filled, expected = [], []
    for value, polygon in everything:
        rings = [ring for ring in polygon.interiors if shapely.Polygon(ring).area * factor >= 200]
        filled += [shapely.Polygon(ring) for ring in polygon.interiors if shapely.Polygon(ring).area * factor < 200]
        expected.append((value, shapely.Polygon(polygon.exterior, rings)))
    inside = shapely.STRtree(filled).query([p.representative_point() for _, p in everything], predicate="within")[0]
    expected = [one for n, one in enumerate(expected) if n not in set(inside.tolist())]
    assert len(filled) > 50
    assert len(expected) < len(everything)
    assert same(in_table(db), expected)


def test_simplified_neighbours_share_their_borders(db, land, narrow):
    vectorize(db, "land", "all")
    done = vectorize(db, "land", "polygons", simplify=2)
    before, after = in_table(db, '"all"'), in_table(db)
    assert [value for value, *_ in before] == [value for value, *_ in after]
    polygons = [polygon for _, polygon, *_ in after]
    assert shapely.coverage_is_valid(polygons)  # no gap and no overlap: all corners of a border are both neighbours'
    assert shapely.get_num_coordinates(polygons).sum() < 0.6 * sum(shapely.get_num_coordinates(p) for _, p, *_ in before)
    # no class is further than some pixels from where it was
    assert all(a.hausdorff_distance(b) < 6 * RES for (_, a, *_), (_, b, *_) in zip(before, after, strict=True))
    assert done.rows == len(before)


def test_without_anything_that_simplifies_it_is_refused(db, land, monkeypatch):
    monkeypatch.delattr(shapely, "coverage_simplify")
    if ask(db, "SELECT to_regproc('st_coveragesimplify')")[0][0]:
        pytest.skip("this server can")
    with pytest.raises(MissingError, match=r"PostGIS 3\.4 with GEOS 3\.12.* or shapely 2\.1") as caught:
        vectorize(db, "land", "polygons", simplify=1)
    assert "has PostGIS 3." in str(caught.value)
    assert ask(db, "SELECT to_regclass('polygons')") == [(None,)]


def test_buildings_become_rectangles(db, tmp_path):
    """Of turned rectangles, burned by rasterio: as large, and nearer to the truth than the stairs are."""
    rng = np.random.default_rng(7)
    corner = rasterio.transform.from_origin(400_000, 5_300_000, 0.5, 0.5)
    houses = []
    for n in range(36):
        house = shapely.box(-9, -5.5, 9, 5.5) if n % 2 else shapely.box(-12, -7, 12, 7)
        house = shapely.affinity.rotate(house, rng.uniform(0, 90))
        houses.append(shapely.affinity.translate(house, 400_030 + 40 * (n % 6), 5_299_970 - 40 * (n // 6)))
    ell = shapely.box(400_260, 5_299_700, 400_280, 5_299_740).union(shapely.box(400_280, 5_299_700, 400_290, 5_299_708))
    values = rasterio.features.rasterize([*houses, ell], (640, 640), transform=corner, dtype="uint8")
    load.raster(db, write_classes(tmp_path / "h.tif", values, 0, transform=corner), "h")
    vectorize(db, "h", "stairs")
    vectorize(db, "h", "polygons", rectangles=0.8)
    stairs, ours = in_table(db, "stairs"), in_table(db)
    assert len(ours) == 37
    for (_, before, *_), (_, after, *_) in zip(stairs, ours, strict=True):
        truth = next(t for t in (*houses, ell) if t.contains(after.centroid) or t.intersects(after))
        assert after.area == pytest.approx(before.area, rel=1e-4)
        if truth is ell:
            assert after.equals(before)  # it fills too little of its rectangle
        else:
            assert len(after.exterior.coords) == 5
            assert after.symmetric_difference(truth).area < 0.05 * truth.area


def test_the_table_says_what_it_is(db, tmp_path):
    values = landscape(8, (60, 60), classes=3)
    load.raster(db, write_classes(tmp_path / "n.tif", values), "n")
    with db.connection() as conn:
        conn.execute("""COMMENT ON COLUMN n.rast IS 'classes: {"field": 1, "wood": 2}'""")
    done = vectorize(db, "n", "polygons")
    assert (done.table, done.srid) == ("public.polygons", UTM)
    assert ask(db, "SELECT obj_description('polygons'::regclass)") == [("polygons of public.n",)]
    assert ask(db, "SELECT col_description('polygons'::regclass, 2)") == [('classes: {"field": 1, "wood": 2}',)]
    assert ask(db, "SELECT type, srid FROM geometry_columns WHERE f_table_name = 'polygons'") == [("POLYGON", UTM)]
    assert len(ask(db, "SELECT 1 FROM pg_indexes WHERE tablename = 'polygons'")) == 2
    with db.connection() as conn:
        conn.execute(
            "INSERT INTO polygons (class, area, geom) SELECT class, area, geom FROM polygons LIMIT 1"
        )  # a fid of its own


def test_labels_read_the_polygons_back(db, land):
    """Burned, they are the raster that they were made of."""
    vectorize(db, "land", "polygons", classes=[1, 2, 3])
    with rasterio.open(land) as raster:
        values = raster.read(1)
    grid = Grid.like(db, "land", size=(700, 500))
    tile = Tiles(grid, np.zeros(1, int), np.zeros(1, int))
    burned = read(db, tile, {"mask": Labels("SELECT geom, class AS value FROM polygons WHERE geom && tile.geom")})["mask"][0]
    assert np.array_equal(burned, np.where(values < 4, values, 0))


# -- runs


@pytest.fixture
def runs(db, tmp_path):
    """Predictions of two runs that have ended and of one that has not, in one table."""
    first, second = landscape(10, (300, 260)), landscape(11, (300, 260))
    files = [write_classes(tmp_path / f"{n}.tif", values) for n, values in enumerate((first, second))]
    for n, file in enumerate(files, 1):
        load.raster(db, file, f"r{n}", block=64)
    with db.connection() as conn:
        conn.execute("CREATE TABLE run (id int PRIMARY KEY, name text UNIQUE, ended timestamptz)")
        conn.execute(
            "INSERT INTO run VALUES (1, 'spring', now()), (2, 'autumn', now()), (3, 'winter', NULL), (4, 'none', now())"
        )
        conn.execute(
            "CREATE TABLE predictions (rid int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run int, block bigint, rast raster, UNIQUE (run, block))"
        )
        for n in (1, 2, 3):
            conn.execute(f"INSERT INTO predictions (run, block, rast) SELECT {n}, rid, rast FROM r{min(n, 2)}")
        conn.execute("SELECT AddRasterConstraints('predictions', 'rast')")
        conn.execute("CREATE INDEX ON predictions USING gist (ST_ConvexHull(rast))")
        conn.execute("ANALYZE predictions")
    return files


def test_a_run_is_vectorized_alone(db, runs):
    for name, file in zip(("spring", "autumn"), runs, strict=True):
        vectorize(db, "predictions", "polygons", run=name, replace=True)
        assert same(in_table(db), by_rasterio(file))
        assert ask(db, "SELECT obj_description('polygons'::regclass)") == [(f"polygons of public.predictions, run '{name}'",)]


@pytest.mark.parametrize(
    "wanted, error, said",
    [
        ({}, ConfigError, "predictions of 3 runs: say which with run=; there are 'spring', 'autumn', 'winter'"),
        ({"run": "summer"}, MissingError, "run='summer'.*nothing of such a run; there are 'spring'"),
        ({"run": "none"}, MissingError, "run='none'"),
        ({"run": "winter"}, ConfigError, "the run 'winter' .*has not ended"),
    ],
)
def test_which_run_has_to_be_clear(db, runs, wanted, error, said):
    with pytest.raises(error, match=said):
        vectorize(db, "predictions", "polygons", **wanted)


def test_a_run_that_is_begun_anew_meanwhile_is_no_mixture(db, runs, narrow):
    """Its blocks go while they are read: what was read is not written."""

    def anew(done, total):
        with db.connection() as conn:
            conn.execute("DELETE FROM predictions WHERE run = 1; UPDATE run SET id = 9 WHERE id = 1")

    with pytest.raises(DataError, match=r"predictions, run 'spring' was predicted anew, or dropped, while it was read"):
        vectorize(db, "predictions", "polygons", run="spring", progress=anew)
    assert ask(db, "SELECT to_regclass('polygons')") == [(None,)]


def test_a_column_called_run_alone_makes_no_runs(db, land):
    with db.connection() as conn:
        conn.execute("ALTER TABLE land ADD run text DEFAULT 'night'")
    vectorize(db, "land", "polygons")
    assert same(in_table(db), by_rasterio(land))


def test_what_predict_writes_becomes_polygons(db, tmp_path):
    """A model that says the class that it sees, and how sure it is of it: blocks of two runs beside each other."""

    def sees(image):
        seen = torch.nn.functional.one_hot(image[:, 0].long(), 4).permute(0, 3, 1, 2).float()
        return 0.1 + 0.6 * seen

    file = write_classes(tmp_path / "seen.tif", landscape(14, (300, 330)), None)
    load.raster(db, file, "seen")
    grid = Grid.like(db, "seen", size=64)
    tiles = Tiles.sliding(grid, within=db.extent("seen", grid.srid), edge="shift")
    dataset = TileDataset(db, tiles, {"image": Imagery("seen")}, batch_size=8)
    predict(sees, dataset, "mapped", activation="none")
    predict(sees, dataset, "thought", run="how sure", kind="probabilities", activation="none")
    done = vectorize(db, "mapped", "polygons", probability="thought", probability_run="how sure")
    assert same(in_table(db), by_rasterio(file))
    assert {round(probability, 6) for _, _, probability, _ in in_table(db)} == {round(np.rint(0.7 * 254) / 254, 6)}
    assert done.rows > 100
    assert ask(db, "SELECT obj_description('polygons'::regclass)") == [("polygons of public.mapped, run 'mapped'",)]


# -- bad input


@pytest.mark.parametrize(
    "given, error, said",
    [
        ({"table": "nowhere"}, MissingError, "no table 'nowhere'"),
        ({"run": "x"}, ConfigError, "has no column run"),
        ({"into": "gone.polygons"}, MissingError, 'CREATE SCHEMA "gone"'),
        ({"into": "land", "replace": True}, ConfigError, "can't take the place of the raster"),
        ({"into": "there"}, LoadError, r"is there already; replace=True \(--replace\)"),
        ({"min_area": -1}, ConfigError, "min_area=-1: expected m² on the ground, 0 or more"),
        ({"simplify": float("nan")}, ConfigError, "simplify=nan: expected pixels, 0 or more"),
        ({"rectangles": 2}, ConfigError, "rectangles=2: expected a share"),
        ({"classes": 1}, ConfigError, r"classes=1: expected class numbers, such as \(1, 2\)"),
        ({"classes": []}, ConfigError, r"classes=\[\]"),
        ({"table": "image"}, ConfigError, "public.image has 3 bands of uint8: expected one of whole numbers"),
        ({"table": "floats"}, ConfigError, "public.floats has 1 band of float32"),
        ({"probability": "apart"}, ConfigError, "public.apart does not lie on the pixels of public.land"),
        ({"probability": "numbers"}, ConfigError, "public.numbers has pixels of int16: expected probabilities"),
        ({"probability": "image"}, DataError, "3 bands, of the classes 0 to 2: none for class 3"),
        ({"probability_run": "x"}, ConfigError, "probability_run='x' goes with probability="),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_made(db, land, tmp_path, given, error, said):
    corner = rasterio.transform.from_origin(400_000, 5_300_000, RES, RES)
    where = {"crs": f"EPSG:{UTM}", "transform": corner}
    shape = (700, 500)
    write_tiff(tmp_path / "i.tif", np.full((3, *shape), 9, "uint8"), **where)
    write_tiff(tmp_path / "f.tif", np.full((1, *shape), 0.5, "float32"), **where)
    write_tiff(tmp_path / "n.tif", np.full((1, *shape), 5, "int16"), **where)
    write_tiff(tmp_path / "a.tif", np.full((1, *shape), 0.5, "float32"), crs=f"EPSG:{UTM}",
               transform=rasterio.transform.from_origin(400_001, 5_300_000, RES, RES))  # fmt: skip
    for letter, name in zip("ifna", ("image", "floats", "numbers", "apart"), strict=True):
        load.raster(db, tmp_path / f"{letter}.tif", name)
    with db.connection() as conn:
        conn.execute("CREATE TABLE there (a int)")
    before = ask(db, "SELECT relname FROM pg_class ORDER BY 1")
    with pytest.raises(error, match=said):
        vectorize(db, **({"table": "land", "into": "polygons"} | given))
    assert ask(db, "SELECT relname FROM pg_class ORDER BY 1") == before


def test_who_may_not_make_tables_is_told_which_grant(db, land, database_url):
    with db.connection() as conn:
        conn.execute(
            "DROP ROLE IF EXISTS only_reads; CREATE ROLE only_reads LOGIN PASSWORD 'reads'; GRANT SELECT ON land TO only_reads"
        )
        conn.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    try:
        reader = Database(make_conninfo(database_url, user="only_reads", password="reads"))
        with reader, pytest.raises(LoadError, match="GRANT CREATE ON SCHEMA"):
            vectorize(reader, "land", "polygons")
        with db.connection() as conn:
            conn.execute("GRANT CREATE ON SCHEMA public TO only_reads")
            name = conn.execute("SELECT quote_ident(current_database())").fetchone()[0]
            conn.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        with reader, pytest.raises(LoadError, match="GRANT TEMPORARY ON DATABASE to this user"):
            vectorize(reader, "land", "polygons")
    finally:
        with db.connection() as conn:
            conn.execute("DROP OWNED BY only_reads; DROP ROLE only_reads")


def test_nothing_to_trace_is_an_empty_table(db, tmp_path):
    load.raster(db, write_classes(tmp_path / "e.tif", np.full((50, 50), 255, "uint8")), "e")
    done = vectorize(db, "e", "polygons", min_area=3, fill_holes=3, simplify=1, rectangles=0.8)
    assert done.rows == 0
    assert in_table(db) == []


def test_a_connection_that_is_lost_while_strips_are_read_shows_nowhere(db, land, monkeypatch):
    monkeypatch.setattr(classrasters, "STRIP", 4 * 500)
    vectorize(db, "land", "unbroken")
    reads = "datname = current_database() AND state = 'active' AND query LIKE '%COPY (%' AND pid <> pg_backend_pid()"
    ended, done = [], threading.Event()

    def cut():
        while not (ended or done.is_set()):
            ended.extend(ask(db, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {reads}"))

    killer = threading.Thread(target=cut)
    killer.start()
    vectorize(db, "land", "polygons")
    done.set()
    killer.join()
    assert ended
    both = [ask(db, f"SELECT fid, class, area, ST_AsEWKB(geom) FROM {name} ORDER BY fid") for name in ("unbroken", "polygons")]
    assert both[0] == both[1]


def test_progress_goes_to_its_end(db, land, narrow):
    seen = []
    vectorize(db, "land", "polygons", progress=lambda done, total: seen.append((done, total)))
    total = seen[0][1]
    assert seen == [(n, total) for n in range(1, total + 1)]
    assert total > 3


# -- the command, and the page


def command(url, *arguments, code=0):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGTILES"))}
    known |= {"PYTHONPATH": str(ROOT), "PGTILES_URL": url, "NO_COLOR": "1", "COLUMNS": "300"}
    done = subprocess.run([sys.executable, "-m", "pgtiles", *arguments], capture_output=True, text=True, check=False, env=known)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_the_command_makes_the_same(db, land, database_url):
    wish = {"classes": [1, 2], "min_area": 30.5, "fill_holes": 40, "simplify": 1.5, "rectangles": 0.9}
    options = ("--classes", "1,2", "--min-area", "30.5", "--fill-holes", "40", "--simplify", "1.5", "--rectangles", "0.9")
    vectorize(db, "land", "polygons", **wish)
    done = command(database_url, "vectorize", "land", "by_command", *options)
    ours, theirs = ([(v, p.wkb, area) for v, p, _, area in in_table(db, name)] for name in ("polygons", "by_command"))
    assert ours == theirs
    assert done.stdout == f"public.by_command: {len(ours)} rows, SRID {UTM}\n"
    assert "polygons were dropped (min_area=30.5 m²)" in done.stderr
    refused = command(database_url, "vectorize", "land", "by_command", code=1)
    assert "is there already; replace=True (--replace)" in refused.stderr
    assert (
        "expected numbers with commas between them"
        in command(database_url, "vectorize", "land", "p", "--classes", "1;2", code=1).stderr
    )


def test_the_page_runs(db, tmp_path, database_url, monkeypatch):
    values = landscape(12, (400, 380))
    rng = np.random.default_rng(12)
    thought = np.rint(rng.uniform(0.3, 1, (4, *values.shape)) * 254).astype("uint8")
    write_tiff(tmp_path / "p.tif", thought, crs=f"EPSG:{UTM}", nodata=255,
               transform=rasterio.transform.from_origin(400_000, 5_300_000, RES, RES))  # fmt: skip
    load.raster(db, write_classes(tmp_path / "c.tif", values), "landcover")
    load.raster(db, tmp_path / "p.tif", "landcover_thought")
    monkeypatch.setenv("PGTILES_URL", database_url)
    text, names = (ROOT / "docs" / "vectorizing.md").read_text(), {}
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
    assert [kind for kind, _ in found] == ["python", "python", "python", "sql", "sh"]
    for kind, code in found:
        if kind == "python":
            exec(code, names)
        elif kind == "sql":
            rows = ask(db, code)
            assert rows
            assert all(probability < 0.6 for _, _, probability, _ in rows)
        else:
            command(database_url, *code.split()[1:])


# -- whole or not at all

KILLED = """
import sys
import time
from pgtiles import vectorize
from pgtiles.polygons import classrasters

def tell(done, total):
    print(done, flush=True)
    if done > int(sys.argv[2]):
        time.sleep(600)

classrasters.STRIP, classrasters.BLOCK = 8 * 500, 8
vectorize(sys.argv[1], "land", "polygons", min_area=20, fill_holes=60, progress=tell)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_leaves_nothing_and_the_next_call_makes_the_same(db, land, database_url, monkeypatch, seed):
    monkeypatch.setattr(classrasters, "STRIP", 8 * 500)
    monkeypatch.setattr(classrasters, "BLOCK", 8)
    wish = {"min_area": 20, "fill_holes": 60}
    vectorize(db, "land", "unbroken", **wish)
    before = ask(db, "SELECT relname FROM pg_class ORDER BY 1")
    strips = -(-700 // 8)
    at = int(np.random.default_rng(seed).integers(1, strips))
    child = subprocess.Popen([sys.executable, "-c", KILLED, database_url, str(at)], stdout=subprocess.PIPE, text=True)
    with child:
        for line in child.stdout:
            if int(line) == at:
                child.send_signal(signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    until(lambda: ask(db, UNDER_WAY) == [(0,)])
    assert ask(db, "SELECT relname FROM pg_class ORDER BY 1") == before
    vectorize(db, "land", "polygons", **wish)
    both = [ask(db, f"SELECT fid, class, area, ST_AsEWKB(geom) FROM {name} ORDER BY fid") for name in ("unbroken", "polygons")]
    assert both[0] == both[1]


def test_the_old_table_stays_until_the_new_one_is_whole(db, land, monkeypatch):
    vectorize(db, "land", "polygons", classes=[1])
    before = in_table(db)

    def stop(done, total):
        if done == total - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        vectorize(db, "land", "polygons", replace=True, progress=stop)
    assert [p.wkb for _, p, *_ in in_table(db)] == [p.wkb for _, p, *_ in before]
