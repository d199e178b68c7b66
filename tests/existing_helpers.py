"""Tables as other programs leave them, and what rasterio says of what stands in them. For test_existing.py."""

import os
import shutil
import subprocess
import warnings

import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from psycopg.conninfo import conninfo_to_dict
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window

from pgtiles import Grid, Imagery, Labels, Tiles, read
from pgtiles.errors import PgtilesWarning

PACKAGES = {"raster2pgsql": "postgis", "psql": "postgresql-client", "osm2pgsql": "osm2pgsql", "ogr2ogr": "gdal-bin"}


def run(program, *arguments, **more):
    """What the program wrote, in words of its own where it failed."""
    if not shutil.which(program):
        pytest.fail(f"{program} is missing: apt-get install {PACKAGES.get(program, program)}")
    made = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False, **more)
    assert made.returncode == 0, f"{program} says: {made.stderr[-2000:]}"
    return made.stdout


def psql(url, text):
    """Run a script, as people run what raster2pgsql writes."""
    run("psql", "--quiet", "--no-psqlrc", "-v", "ON_ERROR_STOP=1", url, input=text)


def raster2pgsql(url, *options):
    psql(url, run("raster2pgsql", *options))


def keywords(url):
    """The URL as GDAL and QGIS write it, key=value; each value is without blanks."""
    known = conninfo_to_dict(url)
    return " ".join(f"{key}={known[key]}" for key in ("host", "port", "user", "password", "dbname") if key in known)


def ogr2ogr(url, source, *options):
    run("ogr2ogr", "-f", "PostgreSQL", f"PG:{keywords(url)}", source, *options)


def osm2pgsql(url, *options):
    known = conninfo_to_dict(url)
    secret = {"PGPASSWORD": known["password"]} if "password" in known else {}
    where = ["-H", known["host"], "-P", known.get("port", "5432"), "-U", known["user"], "-d", known["dbname"]]
    run("osm2pgsql", "--number-processes=1", "--cache=50", *where, *options, env=os.environ | secret)


def warned(db, tiles, layer):
    """What a layer's opening and reading warn of, and its array."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = read(db, tiles, {"layer": layer})["layer"]
    return [str(w.message) for w in caught if issubclass(w.category, PgtilesWarning)], got


def random_tiles(db, table, column=None, count=12, seed=0):
    """Tiles on the lattice of a raster table."""
    grid = Grid.like(db, table, size=(48, 64), column=column)
    return Tiles.random(grid, within=db.extent(table, grid.srid, column), count=count, seed=seed)


def windows(file, tiles, bands=None):
    """The file's own pixels under each tile, as rasterio reads them; 0 beyond it."""
    out, bands = [], list(bands or range(1, 1 + rasterio.open(file).count))
    with rasterio.open(file) as source:
        for xmin, _, _, ymax in tiles.bounds:
            col, row = ~source.transform * (xmin, ymax)
            assert abs(col - round(col)) < 1e-6
            assert abs(row - round(row)) < 1e-6
            height, width = tiles.grid.shape
            out.append(source.read(bands, window=Window(round(col), round(row), width, height), boundless=True, fill_value=0))
    return np.stack(out)


def shapes(db, select):
    """Geometries by SQL of the test's own, with the value that each burns, the ones on top last."""
    with db.connection() as conn:
        rows = conn.execute(f"SELECT ST_AsBinary(ST_Force2D(q.geom)), q.value FROM ({select}) AS q (geom, value)").fetchall()
    return [(shapely.from_wkb(geom), value) for geom, value in sorted(rows, key=lambda row: row[1]) if geom is not None]


def tiles_on(found, *, srid=3857, resolution=2.0, size=(48, 64), count=12, seed=0):
    """Tiles with some of these shapes in them, off all of their borders."""
    grid = Grid(srid=srid, resolution=resolution, size=size, origin=(0.37, 0.61))
    geometries = [geom for geom, _ in found if not geom.is_empty]
    at = np.random.default_rng(seed).choice(len(geometries), count)
    centres = np.array([geometries[i].representative_point().coords[0] for i in at])
    col, row = (centres[:, 0] - 0.37) // resolution - size[1] // 2, (0.61 - centres[:, 1]) // resolution - size[0] // 2
    places = np.unique(np.stack([col, row], 1).astype("int64"), axis=0)
    return Tiles(grid, places[:, 0], places[:, 1])


def burned(found, tiles):
    """What rasterio burns of the shapes on each tile."""
    out = np.zeros((len(tiles), *tiles.grid.shape), "int64")
    tree = shapely.STRtree([geom for geom, _ in found])
    for i, (xmin, ymin, xmax, ymax) in enumerate(tiles.bounds):
        near = [found[k] for k in sorted(tree.query(shapely.box(xmin, ymin, xmax, ymax).buffer(50)))]
        if near:
            rasterize(near, out=out[i], transform=from_origin(xmin, ymax, *tiles.grid.pixel))
    return out


def burned_metres(found, tiles, metres):
    """The same, each shape widened by metres on the ground, by pyproj's ellipsoid at each tile's centre."""
    to_degrees, geod = pyproj.Transformer.from_crs(tiles.grid.srid, 4326, always_xy=True), pyproj.Geod(ellps="WGS84")
    out = []
    for i, (xmin, ymin, xmax, ymax) in enumerate(tiles.bounds):
        x, y = (xmin + xmax) / 2, (ymin + ymax) / 2
        east = geod.inv(*to_degrees.transform(xmin, y), *to_degrees.transform(xmax, y))[2] / (xmax - xmin)
        north = geod.inv(*to_degrees.transform(x, ymin), *to_degrees.transform(x, ymax))[2] / (ymax - ymin)
        near = [(geom, value) for geom, value in found if geom.intersects(shapely.box(xmin, ymin, xmax, ymax).buffer(50))]
        stretched = [(shapely.transform(geom, lambda p: p * [east, north]), value) for geom, value in near]
        wide = [(shapely.transform(geom.buffer(metres, quad_segs=8), lambda p: p / [east, north]), v) for geom, v in stretched]
        out.append(burned(wide, tiles[i])[0] if wide else np.zeros(tiles.grid.shape, "int64"))
    return np.stack(out)


def check_imagery(db, table, file, *, column=None, path_bands=None, **options):
    """A raster table's tiles equal the file's windows bit for bit."""
    tiles = random_tiles(db, table, column)
    got = read(db, tiles, {"image": Imagery(table, column=column, **options)})["image"]
    want = windows(file, tiles, path_bands)
    assert want.any()
    np.testing.assert_array_equal(got, want)


def check_labels(db, source, found, **options):
    """A layer's mask equals what rasterio burns of the shapes, without a warning."""
    tiles = tiles_on(found)
    got = read(db, tiles, {"mask": Labels(source, **options)})["mask"]
    assert got.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(got, burned(found, tiles))
