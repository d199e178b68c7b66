"""Labels of real OpenStreetMap data, pixel for pixel what rasterio makes of the same rows: they are fetched whole from the base
tables, selected and put in order here, widened by shapely at each tile's own metres, and burned one after the other.

Each case prints a line of a table (pytest -s). PGTILES_TEST_PBF names another extract than Helsinki's, PGTILES_TEST_TILES how many
tiles are compared.
"""

import os
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
import shapely
from conftest import ask, shared
from rasterio.features import rasterize
from rasterio.transform import from_origin

from pgtiles import Database, Grid, Labels, Tiles, load, read

FILE = os.environ.get("PGTILES_TEST_PBF")
COUNT = int(os.environ.get("PGTILES_TEST_TILES", 300 if FILE else 100))
IGNORED, BACKGROUND = 255, 9
ROAD = "FROM planet_osm_line WHERE highway IS NOT NULL"
BUILDING = "FROM planet_osm_polygon WHERE building IS NOT NULL"
LANDUSE = "FROM planet_osm_polygon WHERE landuse IS NOT NULL"
WATER = "FROM planet_osm_polygon WHERE (\"natural\" = 'water' OR leisure = 'park')"  # Helsinki's centre has little water
NEAR = "AND way && tile.geom"


@pytest.fixture(scope="module")
def osm(template, request):
    """The tables of an extract, with their rows as shapely has them, and tiles around features of all four kinds."""
    if FILE:
        with shared(template, "pgtiles_oracle") as url, Database(url) as db:
            load.osm(db, FILE)
            yield mapped(db)
    else:
        yield mapped(request.getfixturevalue("helsinki").db)


def mapped(db):
    kinds = {"road": ROAD, "building": BUILDING, "landuse": LANDUSE, "water": WATER}
    rows = {kind: [shapely.from_wkb(way) for (way,) in ask(db, f"SELECT ST_AsBinary(way) {of}")] for kind, of in kinds.items()}
    rng = np.random.default_rng(0)
    around = [list(rng.permutation(np.array(found, object)))[:COUNT] for found in rows.values()]
    mixed = [shape for four in zip(*(many * (1 + COUNT // len(many)) for many in around), strict=False) for shape in four]
    centres = np.array([shape.representative_point().coords[0] for shape in mixed[:COUNT]])
    grid = Grid(srid=3857, resolution=2, size=128)
    cols, lines = np.floor(centres[:, 0] / 2).astype(int) - 64, np.floor(-centres[:, 1] / 2).astype(int) - 64
    tiles = Tiles(grid, cols + rng.integers(-20, 20, len(cols)), lines + rng.integers(-20, 20, len(cols)))
    return SimpleNamespace(db=db, tiles=tiles, **rows)


def metres(bounds):
    """Ground metres in a unit of the CRS at a tile's centre, east and north."""
    xmin, ymin, xmax, ymax = bounds
    x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
    degrees, geod = pyproj.Transformer.from_crs(3857, 4326, always_xy=True), pyproj.Geod(ellps="WGS84")
    east = geod.inv(*degrees.transform(xmin, y), *degrees.transform(xmax, y))[2] / (xmax - xmin)
    north = geod.inv(*degrees.transform(x, ymin), *degrees.transform(x, ymax))[2] / (ymax - ymin)
    return np.array([east, north])


class Burner:
    """What rasterio makes of shapes on each tile."""

    def __init__(self, osm):
        self.tiles, self.trees = osm.tiles, {}

    def near(self, shapes, i, wide):
        """The shapes that may reach into a tile, in their order, widened by ground metres."""
        tree = self.trees.setdefault(id(shapes), (shapes, shapely.STRtree(shapes)))[1]
        bounds = self.tiles.bounds[i]
        scale = metres(bounds)
        found = np.sort(tree.query(shapely.box(*bounds).buffer(10 + wide / scale.min())))
        if not wide:
            return [shapes[k] for k in found]
        scaled = [shapely.transform(shapes[k], lambda p: p * scale).buffer(wide, quad_segs=8) for k in found]
        return [shapely.transform(shape, lambda p: p / scale) for shape in scaled]

    def __call__(self, i, layered, background=0, **how):
        """layered: shapes, the value they burn, and metres by which they are widened; the lowest first."""
        xmin, _, _, ymax = self.tiles.bounds[i]
        out = np.full(self.tiles.grid.shape, background, "int32")
        shapes = [(shape, value) for many, value, wide in layered for shape in self.near(many, i, wide)]
        if shapes:
            rasterize(shapes, out=out, transform=from_origin(xmin, ymax, *self.tiles.grid.pixel), **how)
        return out


@pytest.fixture(scope="module")
def burner(osm):
    return Burner(osm)


@pytest.fixture(scope="module")
def table():
    """What was compared, printed at the end."""
    lines = [f"{'case':<36}{'tiles':>7}{'pixels':>11}{'labelled':>11}{'off':>5}"]
    yield lines
    print("\n" + "\n".join(lines))


def compare(table, case, got, want, background=0):
    """Pixels that differ, on all tiles together; each is counted, and so is what is burned."""
    want = np.stack(want)
    off, labelled = int((got != want).sum()), int((want != background).sum())
    table.append(f"{case:<36}{len(got):>7}{want.size:>11}{labelled:>11}{off:>5}")
    assert labelled > want.size // 2000, case
    return off


def each(osm):
    return range(len(osm.tiles))


def test_no_tile_is_empty(osm, burner, table):
    """One head for each kind, read at once."""
    heads = {"road": ROAD, "building": BUILDING, "landuse": LANDUSE, "water": WATER}
    got = read(osm.db, osm.tiles, {kind: Labels(f"SELECT way AS geom {of} {NEAR}") for kind, of in heads.items()})
    for kind in heads:
        want = [burner(i, [(getattr(osm, kind), 1, 0)]) for i in each(osm)]
        assert compare(table, f"several heads: {kind}", got[kind], want) == 0
    assert np.any([got[kind].any(axis=(1, 2)) for kind in heads], axis=0).all()


def test_single_class_in_metres(osm, burner, table):
    got = read(osm.db, osm.tiles, {"m": Labels(f"SELECT way AS geom {ROAD} {NEAR}", buffer=6)})["m"]
    want = [burner(i, [(osm.road, 1, 6)]) for i in each(osm)]
    assert compare(table, "single class, buffer=6", got, want) == 0


def test_single_class_widened_in_the_query(osm, burner, table):
    query = f"SELECT ST_Buffer(way, 8) AS geom {ROAD} AND ST_DWithin(way, tile.geom, 8)"
    got = read(osm.db, osm.tiles, {"m": Labels(query)})["m"]
    wide = list(shapely.buffer(osm.road, 8, quad_segs=8))
    assert compare(table, "single class, ST_Buffer", got, [burner(i, [(wide, 1, 0)]) for i in each(osm)]) == 0


def test_lines_as_they_are(osm, burner, table):
    """Each kind of road by its own value, and the greater on top."""
    got = read(osm.db, osm.tiles, {"m": Labels(f"SELECT way AS geom, length(highway) AS value {ROAD} {NEAR}")})["m"]
    rows = ask(osm.db, f"SELECT ST_AsBinary(way), length(highway) {ROAD}")
    by_value = [([shapely.from_wkb(way) for way, v in rows if v == value], value, 0) for value in sorted({v for _, v in rows})]
    assert compare(table, "lines, unbuffered", got, [burner(i, by_value) for i in each(osm)]) == 0


def test_priority(osm, burner, table):
    """The smaller area on top, each with the value of its kind; and negative values."""
    query = f"SELECT way AS geom, -length(landuse) AS value, -way_area AS priority {LANDUSE} {NEAR}"
    got = read(osm.db, osm.tiles, {"m": Labels(query, dtype="int16")})["m"]
    rows = ask(osm.db, f"SELECT ST_AsBinary(way), -length(landuse), -way_area {LANDUSE}")
    ordered = [([shapely.from_wkb(way)], value, 0) for way, value, _ in sorted(rows, key=lambda row: (row[2], row[1]))]
    boxes = shapely.box(*shapely.bounds([many[0] for many, _, _ in ordered]).T)
    want = []
    for i in each(osm):
        here = shapely.box(*osm.tiles.bounds[i])
        want.append(burner(i, [one for one, box in zip(ordered, boxes, strict=True) if box.intersects(here)]))
    assert compare(table, "priority, negative values", got, want) == 0


@pytest.mark.parametrize("order", ["last", "first"])
def test_classes_with_zero_that_erases(osm, burner, table, order):
    classes = {
        "landuse": f"SELECT way AS geom {LANDUSE} {NEAR}",
        "road": (0, f"SELECT ST_Buffer(way, 5) AS geom {ROAD} AND ST_DWithin(way, tile.geom, 5)"),
        "building": (3, f"SELECT way AS geom {BUILDING} {NEAR}"),
    }
    got = read(osm.db, osm.tiles, {"m": Labels(classes, order=order, background=BACKGROUND)})["m"]
    wide = list(shapely.buffer(osm.road, 5, quad_segs=8))
    layered = [(osm.landuse, 1, 0), (wide, 0, 0), (osm.building, 3, 0)]
    want = [burner(i, layered if order == "last" else layered[::-1], BACKGROUND) for i in each(osm)]
    assert compare(table, f"class 0 and erasing, order={order}", got, want, BACKGROUND) == 0


def test_ignored(osm, burner, table):
    """Buildings and water within 3 m of which, and beyond all land use, nothing is learned."""
    classes = {"water": f"SELECT way AS geom {WATER} {NEAR}", "building": f"SELECT way AS geom {BUILDING} {NEAR}"}
    layer = Labels(classes, ignore_index=IGNORED, contact=3, coverage=f"SELECT way AS geom {LANDUSE} {NEAR}")
    got = read(osm.db, osm.tiles, {"m": layer})["m"]
    want = []
    for i in each(osm):
        both = [(osm.water, IGNORED, 3), (osm.building, IGNORED, 3), (osm.water, 1, 0), (osm.building, 2, 0)]
        want.append(np.where(burner(i, [(osm.landuse, 1, 0)]) == 1, burner(i, both), IGNORED))
    assert compare(table, "ignored: coverage and contact", got, want) == 0
    assert {0, 1, 2, IGNORED} == set(np.unique(got))


def test_all_touched(osm, burner, table):
    """The stated exception: areas to a pixel in 10,000."""
    heads = {"road": ROAD, "building": BUILDING, "landuse": LANDUSE}
    got = read(
        osm.db, osm.tiles, {kind: Labels(f"SELECT way AS geom {of} {NEAR}", all_touched=True) for kind, of in heads.items()}
    )
    for kind in heads:
        want = [burner(i, [(getattr(osm, kind), 1, 0)], all_touched=True) for i in each(osm)]
        assert compare(table, f"all_touched: {kind}", got[kind], want) <= got[kind].size / 10_000


def test_areas_before_anything_is_burned(osm, table):
    """What `Tiles.describe` says of each tile: the area of the union, and the features that reach in, to a millionth."""
    kinds = {"road": ROAD, "building": BUILDING, "landuse": LANDUSE, "water": WATER}
    wide = f"SELECT ST_Buffer(way, 5) AS geom {ROAD} AND ST_DWithin(way, tile.geom, 5)"
    classes = Labels({kind: f"SELECT way AS geom {of} {NEAR}" for kind, of in kinds.items()} | {"wide": wide})
    found = osm.tiles.describe(osm.db, {"mask": classes, "metres": Labels(f"SELECT way AS geom {ROAD} {NEAR}", buffer=6)})
    shapes = {kind: np.array(getattr(osm, kind), object) for kind in kinds}
    shapes["wide"] = shapely.buffer(shapes["road"], 5, quad_segs=8)
    trees = {kind: shapely.STRtree(of) for kind, of in shapes.items()}
    worst = 0.0
    for i in each(osm):
        bounds, scale = osm.tiles.bounds[i], metres(osm.tiles.bounds[i])
        here = shapely.box(*bounds)
        near = {kind: shapes[kind][trees[kind].query(here)] for kind in shapes}
        scaled = [shapely.transform(s, lambda p: p * scale) for s in shapes["road"][trees["road"].query(here.buffer(30))]]
        near["metres"] = [shapely.transform(shapely.buffer(s, 6, quad_segs=8), lambda p: p / scale) for s in scaled]
        for kind, some in near.items():
            valid = [shapely.make_valid(shape) for shape in some]
            parts = [shape.intersection(here) for shape in valid]
            area = shapely.union_all(parts).area / here.area
            reach = sum(p.area > 0 if s.area else s.intersects(here) for p, s in zip(parts, valid, strict=True))
            got = found.columns[kind][i]
            assert found.columns[f"{kind}_count"][i] == reach, (kind, i)
            assert got == pytest.approx(area, rel=1e-6, abs=1e-12), (kind, i)
            worst = max(worst, abs(got / area - 1) if area else 0)
    table.append(f"areas by describe, 6 classes: off by at most {worst:.1e} of the area, {len(found)} tiles")
