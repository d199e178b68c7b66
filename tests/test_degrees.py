"""Tiles in degrees, where a pixel is not as wide as high on the ground, and a metre is a number of its own along each side.
pyproj's ellipsoid and rasterio's burning say what is right.
"""

import numpy as np
import pyproj
import pytest
import shapely
from conftest import RES, X0, Y0
from existing_helpers import burned_metres, shapes

from pgtiles import Grid, Labels, Tiles, Vectors, read

TO_DEGREES = pyproj.Transformer.from_crs(3857, 4326, always_xy=True)
WEST, NORTH = TO_DEGREES.transform(X0, Y0)
SIZE = (48, 64)


@pytest.fixture(scope="module", params=[(2e-5, 2e-5), (4.2e-5, 1.7e-5)], ids=["square", "oblong"])
def tiles(world, request):
    """On the base data, in pixels of 1.5 × 2.2 m and of 3.2 × 1.9 m."""
    east, south = TO_DEGREES.transform(X0 + 1000 * RES, Y0 - 900 * RES)
    grid = Grid(srid=4326, resolution=request.param, size=SIZE, origin=(WEST, NORTH))
    return Tiles.random(grid, within=(WEST, south, east, NORTH), count=8, seed=7)


def rows(world, table):
    """Geometries in degrees, as the server has them."""
    return shapes(world.db, f"SELECT ST_Transform(way, 4326), 1 FROM {table} ORDER BY id")


@pytest.mark.parametrize("table", ["roads", "areas", "trees"])
@pytest.mark.parametrize("metres", [12, 1.5])
def test_buffers_are_metres_both_ways(world, tiles, table, metres):
    query = f"SELECT way AS geom FROM {table}{{}} WHERE way && tile.geom"
    layers = {
        "table": Labels(f"{table}_4326", buffer=metres),
        "query": Labels(query.format("_4326"), buffer=metres),
        "band": Vectors({"all": query.format("_4326")}, buffer=metres),
        "projected": Labels(query.format(""), buffer=metres, srid=3857),
    }
    got = read(world.db, tiles, layers)
    want = burned_metres(rows(world, table), tiles, metres)
    np.testing.assert_array_equal(got["table"], want)
    np.testing.assert_array_equal(got["query"], want)
    np.testing.assert_array_equal(got["band"][:, 0], want)
    assert (got["projected"] != want).mean() < 1e-3  # reprojected with other last digits
    assert want.any()


def test_areas_are_narrowed_by_metres(world, tiles):
    got = read(world.db, tiles, {"m": Labels("areas_4326", buffer=-4)})["m"]
    want = burned_metres(rows(world, "areas"), tiles, -4)
    np.testing.assert_array_equal(got, want)
    assert want.any()


def test_contact_is_metres_beyond_the_buffer(world, tiles):
    layers = {
        "m": Labels("roads_4326", buffer=3, contact=9, ignore_index=255),
        "n": Labels("areas_4326", contact=5, ignore_index=255),
    }
    got = read(world.db, tiles, layers)
    roads, areas = rows(world, "roads"), rows(world, "areas")
    inner, outer = (burned_metres(roads, tiles, metres) for metres in (3, 12))
    np.testing.assert_array_equal(got["m"], np.where(inner == 1, 1, outer * 255))
    inner, outer = (burned_metres(areas, tiles, metres) for metres in (1e-9, 5))
    np.testing.assert_array_equal(got["n"], np.where(inner == 1, 1, outer * 255))
    assert {0, 1, 255} == set(np.unique(got["m"])) == set(np.unique(got["n"]))


def test_a_road_beyond_the_edge_reaches_in(world):
    """As far as it is wide, to the east and to the north, where a degree is not the same."""
    grid = Grid(srid=4326, resolution=2e-5, size=64, origin=(24.9, 60.2))
    tiles = Tiles(grid, np.array([0]), np.array([0]))
    xmin, ymin, xmax, ymax = tiles.bounds[0]
    for metres, off in ((20, 8), (20, 25)):
        geod = pyproj.Geod(ellps="WGS84")
        (east, _, _), (_, north, _) = geod.fwd(xmax, ymax, 90, off), geod.fwd(xmax, ymax, 0, off)
        for line in (
            shapely.LineString([(east, ymin - 1), (east, ymax + 1)]),
            shapely.LineString([(xmin - 1, north), (xmax + 1, north)]),
        ):
            query = f"SELECT way AS geom FROM (SELECT ST_GeomFromText('{line.wkt}', 4326) AS way) AS r WHERE way && tile.geom"
            got = read(world.db, tiles, {"m": Labels(query, buffer=metres)})["m"]
            np.testing.assert_array_equal(got, burned_metres([(line, 1)], tiles, metres))
            assert got.any() == (off < metres)
