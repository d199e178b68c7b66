"""The warped path against GDAL's exact warp, on noise of the type's full range: every pair of pixel type, CRS, ratio, resampling,
situation, lattice and place of the pixels comes together in some case. `pytest -s` prints the table of the largest differences,
in counts for whole numbers and relative to the pixels' range for floats. PGTILES_MATRIX=3 runs every triple, in minutes.

The oracle is rasterio's WarpedVRT of the whole source, with the exact transformer.
"""

import itertools
import math
import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import RES, SUMMARY, X0, Y0, scene, shared, write_tiff
from psycopg import sql
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform
from server_helpers import scratch

from pgtiles import Database, Grid, Imagery, Tiles, load, read
from pgtiles.errors import ConfigError
from pgtiles.layers.query import over
from pgtiles.layers.wkb import decode, encode, encode_outdb
from pgtiles.streaming.reading import Plan, read_batch
from pgtiles.template import folder

RANGE = 1e4  # of the floats
KINDS = {  # NumPy's type, the least and the greatest value, and the nodata value where there is one
    "1BB": ("uint8", 0, 1, 0), "2BUI": ("uint8", 0, 3, 2), "4BUI": ("uint8", 0, 15, 0), "8BSI": ("int8", -128, 127, 5),
    "8BUI": ("uint8", 0, 255, 7), "16BSI": ("int16", -(2**15), 2**15 - 1, -9999), "16BUI": ("uint16", 0, 2**16 - 1, 65535),
    "32BSI": ("int32", -(2**31), 2**31 - 1, -1), "32BUI": ("uint32", 0, 2**32 - 1, 7),
    "32BF": ("float32", -RANGE / 2, RANGE / 2, -9999), "64BF": ("float64", -RANGE / 2, RANGE / 2, math.nan),
}  # fmt: skip
BOUNDS = {"32BF": 1e-5, "64BF": 1e-5, "32BSI": 2**32 * 4e-9, "32BUI": 2**32 * 4e-9}  # else one count
CRSS = {  # the source's SRID, its pixel and upper left corner, and the tiles' SRID
    "3857": (3857, RES, (X0, Y0), 3857),
    "32633 to 3857": (32633, RES, (471_000, 5_340_000), 3857),
    "4326 to 32633": (4326, 2.5e-5, (15.3, 48.2), 32633),
    "3857 to 2154": (3857, RES, (261_600, 6_250_000), 2154),
    "3031 to 32758": (3031, RES, (303_000, -1_287_000), 32758),  # polar; UTM beside the antimeridian
}
RATIOS = {"as it is": 1, "enlarged 4": 0.25, "shrunk 2": 2, "shrunk 3": 3, "shrunk 2.0001": 2.0001}
METHODS = {"nearest": 0, "bilinear": 1, "cubic": 2, "cubicspline": 2, "lanczos": 3}
SITUATIONS = ("inside", "edge", "hole", "overlap", "nodata")
LATTICES = {"north-up": Affine.scale(1, -1), "south-up": Affine.scale(1, 1), "turned": Affine.rotation(17) @ Affine.scale(1, -1),
            "skewed": Affine(1, 0.2, 0, 0.1, -1, 0)}  # fmt: skip
PLACES = ("in-db", "out-db", "mixed")
FACTORS = {"type": KINDS, "crs": CRSS, "ratio": RATIOS, "resampling": METHODS, "situation": SITUATIONS, "lattice": LATTICES,
           "pixels": PLACES}  # fmt: skip
SIDE, BLOCK, TILE = 150, 40, 32  # pixels along the source, a stored block, a tile
SEAM, OVERLAP = 80, 60  # where the first of two scenes ends, and the second begins
EXACT = 1e-9  # px: of none at all WarpedVRT makes an error, and `reproject` takes 0.125 whatever it is told
LANCZOS = (3, 10)  # GDAL before it shifts what it shrinks with this kernel


def covering(strength):
    """Cases in which every pair (or triple) of any two (or three) factors' levels comes up: the values of all polynomials of less
    than that degree over the integers modulo 11, of which that many values name one.
    """
    rows = dict.fromkeys(
        tuple(
            list(levels)[sum(c * x**power for power, c in enumerate(polynomial)) % 11 % len(levels)]
            for x, levels in enumerate(FACTORS.values())
        )
        for polynomial in itertools.product(range(11), repeat=strength)
    )
    return [SimpleNamespace(**dict(zip(FACTORS, row, strict=True))) for row in rows]


def named(case):
    return ", ".join(vars(case).values())


def test_every_pair_is_there():
    cases = [tuple(vars(case).values()) for case in covering(2)]
    for (i, these), (j, those) in itertools.combinations(enumerate(FACTORS.values()), 2):
        assert {(case[i], case[j]) for case in cases} == set(itertools.product(these, those))


@pytest.fixture(scope="module")
def db(template):
    """A database that may read files."""
    with shared(template, "pgtiles_matrix") as url:
        with Database(url) as bare, bare.connection() as conn:
            conn.execute((folder() / "init.sql").read_text())
        with Database(url) as database:
            yield database


@pytest.fixture(scope="module")
def gdal(db):
    """The server's version of GDAL."""
    return tuple(map(int, re.findall(r"\d+", db.query("SELECT postgis_gdal_version()")[0][0])[:2]))


@pytest.fixture(scope="module")
def files():
    """A folder that the server's account can read."""
    with scratch() as path:
        yield path


@pytest.fixture(scope="module")
def table(request):
    """The table of differences, printed when all is done; its maxima come at the end of the run."""
    rows = []
    yield rows
    if not rows:
        return
    print("\n\n" + "".join(f"{name:15}" for name in FACTORS) + f"{'largest':>10}{'pixels':>9}{'scale':>9}")
    for case, found in rows:
        said = f"{found.off.max():>10.3g}{found.there.sum():>9}{found.scale[0]:>9.3f}"
        print("".join(f"{level:15}" for level in vars(case).values()) + said + ("  GDAL before 3.10" if found.shifted else ""))
    lines = [f"{len(rows)} cases" + "".join(f"{method:>13}" for method in METHODS)]
    for kind in KINDS:
        most = [
            max(
                (f.off.max() for case, f in rows if (case.type, case.resampling) == (kind, method) and not f.shifted),
                default="-",
            )
            for method in METHODS
        ]
        lines.append(
            f"{kind:{len(lines[0]) - 13 * len(METHODS)}}" + "".join(f"{m if m == '-' else f'{m:.2g}':>13}" for m in most)
        )
    request.config.stash[SUMMARY] = ["largest differences from GDAL's warp: counts; of floats, of their range", *lines]


def noise(kind, nodata, seed):
    """Any value of a type but the nodata value, of which a tenth are; black and white for bytes."""
    dtype, low, high, _ = KINDS[kind]
    rng, shape = np.random.default_rng(seed), (SIDE, SIDE)
    if dtype.startswith("float"):
        pixels = rng.uniform(low, high, shape).astype(dtype)
    elif kind == "8BUI":
        pixels = rng.choice(np.array([low, high], dtype), shape)
    else:
        pixels = rng.integers(low, high, shape, dtype, endpoint=True)
    if nodata is not None:
        pixels[rng.uniform(size=shape) < 0.1] = nodata
    return pixels


def stored(db, files, case):
    """A table of the case, and what GDAL shall make of it: the pixels, where there are any, and where they lie."""
    srid, pixel, corner, _ = CRSS[case.crs]
    dtype, *_, nodata = KINDS[case.type]
    nodata = nodata if case.situation == "nodata" else None
    place = Affine.translation(*corner) @ LATTICES[case.lattice] @ Affine.scale(pixel)
    first, second = noise(case.type, nodata, 1), noise(case.type, nodata, 2)
    scenes = {"first": (0, first)}
    if case.situation == "overlap":
        scenes = {"first": (0, first[:, :SEAM]), "second": (OVERLAP, second[:, OVERLAP:])}
        first = np.concatenate([first[:, :SEAM], second[:, SEAM:]], axis=1)
    there = np.ones(first.shape, bool)
    if nodata is not None:
        there = ~np.isnan(first) if nodata != nodata else first != nodata
    # no file holds less than a byte a pixel, and GDAL before 3.7 no signed one
    outside = "PGTILES_TEST_URL" not in os.environ and dtype != "int8" and case.type not in ("1BB", "2BUI", "4BUI")
    rows = []
    for name, (begin, pixels) in scenes.items():
        at = place @ Affine.translation(begin, 0)
        if outside:
            path = write_tiff(files / f"{name}.tif", pixels[None], crs=f"EPSG:{srid}", transform=at, nodata=nodata)
            path.chmod(0o644)
        for row, col in itertools.product(range(0, SIDE, BLOCK), range(0, pixels.shape[1], BLOCK)):
            block = pixels[row : row + BLOCK, col : col + BLOCK]
            if case.situation == "hole" and row == col == SEAM:
                there[row : row + BLOCK, col : col + BLOCK] = False
                continue
            its = {"upper_left": at @ (col, row), "scale": (at.a, at.e), "skew": (at.b, at.d), "srid": srid, "nodata": nodata}
            if outside and (case.pixels == "out-db" or (case.pixels == "mixed" and len(rows) % 2)):
                rows.append(encode_outdb(str(path), (1, *block.shape), dtype, **its))
            else:
                rows.append(encode(block, pixel_type=case.type, **its))
    with db.connection() as conn:
        conn.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (rid int PRIMARY KEY, rast raster)")
        conn.cursor().executemany("INSERT INTO t VALUES (%s, ST_RastFromWKB(%s))", list(enumerate(rows)))
        conn.execute("CREATE INDEX ON t USING gist (ST_ConvexHull(rast))")
    return SimpleNamespace(pixels=first, there=there, place=place, srid=srid, fill=nodata or 0)


def tile_of(case, source):
    """A tile around a corner of four stored blocks, or around a point of the imagery's edge; well off the source's lattice."""
    _, pixel, _, srid = CRSS[case.crs]
    at = (2.37, 70.41) if case.situation == "edge" else (SEAM + 0.37, SEAM - 0.59)
    points = [source.place @ at, source.place @ (at[0] + 1, at[1]), source.place @ (at[0], at[1] + 1)]
    if srid == source.srid:
        (x, y), own = points[0], pixel
    else:
        xs, ys = transform(source.srid, srid, *zip(*points, strict=True))
        x, y, own = xs[0], ys[0], math.sqrt(abs((xs[1] - xs[0]) * (ys[2] - ys[0]) - (xs[2] - xs[0]) * (ys[1] - ys[0])))
    resolution = own * RATIOS[case.ratio]
    grid = Grid(srid=srid, resolution=resolution, size=TILE, origin=(x - TILE * resolution / 2, y + TILE * resolution / 2))
    return Tiles(grid, np.array([0]), np.array([0]))


def scale_of(fragment, window):
    """By how much GDAL widens a kernel: by the ratio of its windows' sizes in whole pixels, or a whole number that is near.

    PostGIS warps the whole of the source window at hand, which is the tile's with a margin; a warp of the whole scene has other
    windows. The options XSCALE and YSCALE tell GDAL the ratio, so that it is the same one.
    """
    shrunk = window / fragment
    whole = max(round(shrunk), 1)
    return 1 / whole if abs(shrunk - whole) < 0.05 else 1 / shrunk


def warped(pixels, source, tiles, method, scale, nodata):
    """GDAL's exact warp of the whole source onto the tile."""
    height, width = pixels.shape
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": pixels.dtype.name, "nodata": nodata}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=f"EPSG:{source.srid}", transform=source.place) as file:
            file.write(pixels, 1)
        (left, _, _, top), size = tiles.bounds[0], tiles.grid.shape[0]
        with (
            memory.open() as file,
            WarpedVRT(
                file, crs=f"EPSG:{tiles.grid.srid}", transform=from_origin(left, top, *tiles.grid.pixel), width=size, height=size,
                resampling=Resampling[{"cubicspline": "cubic_spline"}.get(method, method)], tolerance=EXACT, src_nodata=nodata,
                nodata=nodata, XSCALE=repr(scale[0]), YSCALE=repr(scale[1]),
            ) as vrt,
        ):  # fmt: skip
            return vrt.read(1)


def windows(db, plan, tiles):
    """The raster that PostGIS warps for a tile, and the one that it makes of it."""
    select = plan.layers[0].select
    bare, count = re.subn(r"ST_Transform\(joined\.rast, .*\)::bytea", "joined.rast::bytea", select)
    assert count == 1
    return [decode(db.query(over(tiles, sql.SQL(text)))[0][-1]) for text in (bare, select)]


def compared(db, case, source):
    """The largest difference between our pixels and GDAL's, and what else is to be seen of a case."""
    tiles = tile_of(case, source)
    layer = Imagery("t", resampling=case.resampling, max_error=0, dtype="native", valid=True)
    plan = Plan.open(db, tiles, {"i": layer})
    assert plan.layers[0].path == "warped"
    batch = read_batch(db, plan, tiles)
    got, valid = batch.sample["i"][0, 0], batch.sample["i_valid"][0]
    window, fragment = windows(db, plan, tiles)
    scale = scale_of(fragment.width, window.width), scale_of(fragment.height, window.height)
    dtype, low, high, _ = KINDS[case.type]
    assert got.dtype == dtype
    there = warped(np.where(source.there, 255, 0).astype("u1"), source, tiles, case.resampling, scale, 0) != 0
    if source.there.all():
        pixels, hole = source.pixels, None
        if dtype == "int8":
            pixels = pixels.astype("i2")  # as PostGIS gives it to GDAL before 3.7
    else:  # a type in which no pixel can be taken for a hole
        pixels, hole = np.where(source.there, source.pixels.astype("f8"), -1e12), -1e12
    want = warped(pixels, source, tiles, case.resampling, scale, hole).astype("f8")
    if not dtype.startswith("float"):
        want = np.clip(np.rint(want), low, high)
    want = np.where(there, want, source.fill)
    off = np.abs(got.astype("f8") - want)
    if source.fill != source.fill:
        off = np.where(there, off, ~np.isnan(got))
    return SimpleNamespace(
        off=off / (RANGE if dtype.startswith("float") else 1), valid=valid, there=there, united=batch.united[0], scale=scale,
        spread=np.ptp(want[there]) / (high - low),
    )  # fmt: skip


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", covering(int(os.environ.get("PGTILES_MATRIX", "2"))), ids=named)
def test_equals_gdal(db, files, table, gdal, case):
    found = compared(db, case, stored(db, files, case))
    found.shifted = case.resampling == "lanczos" and min(found.scale) < 0.95 and gdal < LANCZOS
    table.append((case, found))
    if found.shifted:
        return  # which is said: test_lanczos_that_shrinks
    np.testing.assert_array_equal(found.valid, found.there)
    assert found.spread > 0.25 or (case.type == "1BB" and case.situation == "nodata")  # then there are but ones
    assert found.there.all() == (case.situation in ("inside", "overlap"))
    assert found.united == (case.situation in ("hole", "overlap") or case.lattice in ("turned", "skewed"))
    assert found.off.max() <= BOUNDS.get(case.type, 1)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("ratio", "size"), [(2, 140), (2, 160), (2, 256), (2.0001, 256), (3, 256), (2, 512)])
@pytest.mark.parametrize("method", ["bilinear", "cubic"])
def test_larger_tiles_are_shrunk_by_the_ratio_itself(db, ratio, size, method):
    """GDAL takes a ratio near a whole number for that number, which larger windows come near. PostGIS has it warp 128 rows and 512
    columns at a time, each lot by a ratio of its own: the window is chosen so that none is small.
    """
    pixels = np.random.default_rng(9).choice(np.array([0, 255], "u1"), (1200, 1200))
    wkb = encode(pixels, upper_left=(X0, Y0), scale=(RES, -RES), srid=3857)
    with db.connection() as conn:
        conn.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (rid int PRIMARY KEY, rast raster)")
        conn.execute("INSERT INTO t SELECT 1, ST_RastFromWKB(%s)", (wkb,))
    grid = Grid(srid=3857, resolution=RES * ratio, size=size, origin=(X0 + 7.37 * RES, Y0 - 8.41 * RES))
    tiles = Tiles(grid, np.array([0]), np.array([0]))
    source = SimpleNamespace(srid=3857, place=from_origin(X0, Y0, RES, RES))
    want = warped(pixels, source, tiles, method, (1 / round(ratio),) * 2, None).astype(int)
    got = read(db, tiles, {"i": Imagery("t", resampling=method, max_error=0)})["i"][0, 0].astype(int)
    assert np.ptp(want) > 80
    assert np.abs(got - want).max() <= 1


def a_case(**levels):
    """A plain case, but for some of its levels."""
    plain = {"type": "8BUI", "crs": "3857", "ratio": "shrunk 2", "resampling": "bilinear", "situation": "inside",
             "lattice": "north-up", "pixels": "in-db"}  # fmt: skip
    return SimpleNamespace(**plain | levels)


@pytest.mark.usefixtures("quiet")
class TestServersVersion:
    """What PostGIS and GDAL make of a kernel's name depends on their versions."""

    @pytest.mark.parametrize("method", ["max", "min"])
    def test_max_and_min(self, db, files, table, method):
        case = a_case(type="16BSI", resampling=method)
        source = stored(db, files, case)
        if db.require_postgis() < (3, 4):
            with pytest.raises(
                ConfigError, match=rf"resampling='{method}' is new in PostGIS 3\.4; .*pgtiles_matrix has 3\.\d.* nearest"
            ):
                Plan.open(db, tile_of(case, source), {"i": Imagery("t", resampling=method)})
            return
        for levels in ({}, {"situation": "edge"}, {"situation": "nodata"}, {"ratio": "shrunk 2.0001"}, {"crs": "32633 to 3857"},
                       {"lattice": "turned"}, {"ratio": "enlarged 4"}, {"ratio": "shrunk 3", "situation": "overlap"}):  # fmt: skip
            case = a_case(type="16BSI", resampling=method, **levels)
            found = compared(db, case, stored(db, files, case))
            assert found.off.max() == 0, levels
            np.testing.assert_array_equal(found.valid, found.there)
        source = stored(db, files, a_case(type="16BSI"))
        grid = Grid(srid=3857, resolution=2 * RES, size=TILE, origin=(X0, Y0))
        got = read(db, Tiles(grid, np.array([TILE]), np.array([TILE])), {"i": Imagery("t", resampling=method)})["i"][0, 0]
        four = source.pixels[64:128, 64:128].reshape(32, 2, 32, 2)
        np.testing.assert_array_equal(got, getattr(four, method)(axis=(1, 3)))

    def test_lanczos_that_shrinks(self, db, files, gdal):
        said = {}
        for ratio in RATIOS:
            case = a_case(ratio=ratio, resampling="lanczos")
            source = stored(db, files, case)
            plan = Plan.open(db, tile_of(case, source), {"i": Imagery("t", resampling="lanczos")})
            said[ratio] = [text for text in plan.layers[0].warnings if "shifts and blurs what it shrinks" in text]
        assert {ratio for ratio in said if said[ratio]} == ({r for r in RATIOS if "shrunk" in r} if gdal < LANCZOS else set())


@pytest.mark.usefixtures("quiet")
def test_several_sensors_in_a_sample(db, files):
    """Each from a table of its own: type, bands, lattice, nodata and the place of its pixels differ, and so does the path."""
    x, y, pan = X0, Y0, 0.5
    shapes = {"pan": (1, 240, 240), "multi": (4, 120, 120), "sar": (2, 90, 90), "rgb": (3, 70, 70)}
    dtypes = {"pan": "uint16", "multi": "uint16", "sar": "float32", "rgb": "uint8"}
    pixels = {"pan": pan, "multi": pan * 2.0001, "sar": 1.7, "rgb": 2.0}
    crs = {"rgb": 32632}
    sources = {}
    for seed, (name, shape) in enumerate(shapes.items()):
        array = scene(seed, shape, dtypes[name])
        srid = crs.get(name, 3857)
        (left,), (top,) = transform(3857, srid, [x - 4.3], [y + 5.9]) if name != "pan" else ((x,), (y,))
        place = from_origin(left, top, pixels[name], pixels[name])
        path = write_tiff(files / f"{name}.tif", array, crs=f"EPSG:{srid}", transform=place)
        path.chmod(0o644)
        load.raster(db, path, name, block=32, replace=True, out_db=name == "multi" and "PGTILES_TEST_URL" not in os.environ)
        sources[name] = SimpleNamespace(pixels=array, place=place, srid=srid)
    tiles = Tiles(Grid.like(db, "pan", size=TILE), np.array([3, 4, 5]), np.array([4, 3, 2]))
    layers = {name: Imagery(name, max_error=0, dtype="native") for name in shapes}
    assert [layer.path for layer in Plan.open(db, tiles, layers).layers] == ["native", "warped", "warped", "warped"]
    got = read(db, tiles, layers)
    for i, name in itertools.product(range(len(tiles)), shapes):
        assert got[name].dtype == dtypes[name]
        for band, array in enumerate(sources[name].pixels):
            want = warped(array, sources[name], tiles[i], "nearest" if name == "pan" else "bilinear", (1, 1), None).astype("f8")
            assert np.ptp(want) > 10
            off = np.abs(got[name][i, band] - want)
            assert off.max() <= (1e-5 * 100 if name == "sar" else name != "pan")
