"""The warped path against GDAL's exact warp, over pixel type × case × resampling × situation, on random full-range noise.

The oracle is rasterio's WarpedVRT of the whole source, with the exact transformer. `pytest -s` prints the table of the largest
differences: in counts for whole numbers, relative to the pixels' range for floats.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import RES, X0, Y0, ask, write_tiff
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.transform import array_bounds, from_origin
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform, transform_bounds

from pgtiles import Grid, Imagery, Tiles, load
from pgtiles.reading import Plan, read_batch

TYPES = {"8BUI": "uint8", "16BUI": "uint16", "16BSI": "int16", "32BF": "float32"}
METHODS = ("nearest", "bilinear", "cubic")
SITUATIONS = ("inside", "edge", "hole", "overlap")
CASES = {  # the source's SRID; the tiles' SRID, and pixels of the source in one of theirs
    "shifted": (3857, 3857, 1),
    "enlarged 1.25": (3857, 3857, 1 / 1.25),
    "32632 to 3857": (32632, 3857, None),
    "shrunk 2": (3857, 3857, 2),
    "shrunk 2.3": (3857, 3857, 2.3),
}
SIDE, TILE, SECOND = 150, 48, 60  # pixels along the source, along a tile; where the second scene begins, in x
HOLE, NODATA = slice(60, 80), 3
RANGE = 1e4  # of the floats
SHRUNK = 0.025  # of the type's range, where GDAL shrinks
EXACT = 1e-9  # px: of none at all WarpedVRT makes an error, and `reproject` takes 0.125 whatever it is told


def noise(dtype, seed):
    """Any value of a type, but the nodata value."""
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.uniform(-RANGE / 2, RANGE / 2, (1, SIDE, SIDE)).astype(dtype)
    limits = np.iinfo(dtype)
    pixels = rng.integers(limits.min, limits.max, (1, SIDE, SIDE), dtype, endpoint=True)
    return np.where(pixels == NODATA, NODATA + 1, pixels).astype(dtype)


@pytest.fixture(scope="module")
def sources(world):
    """For each type and SRID: the tables, the mosaic that they make, and where it lies."""
    with world.db.connection() as conn:
        conn.execute("DROP SCHEMA IF EXISTS matrix CASCADE; CREATE SCHEMA matrix")
    made = {}
    for name, dtype in TYPES.items():
        for srid in (3857, 32632):
            # the world's corner in the SRID, to whole metres, so that no pixel's centre is nearly between two
            (x,), (y,) = ((X0,), (Y0,)) if srid == 3857 else np.round(transform(3857, srid, [X0], [Y0]))
            place = from_origin(x, y, RES, RES)
            first, second = noise(dtype, 1), noise(dtype, 2)
            holed = first.copy()
            holed[:, HOLE, HOLE] = NODATA
            both = np.concatenate([first, second[:, :, SIDE - SECOND :]], axis=2)
            files = {"inside": first, "hole": holed, "overlap": second}
            for what, pixels in files.items():
                at = from_origin(x + SECOND * RES, y, RES, RES) if what == "overlap" else place
                path = write_tiff(
                    world.folder / f"{what}_{dtype}_{srid}.tif", pixels, crs=f"EPSG:{srid}", transform=at,
                    nodata=NODATA if what == "hole" else None,
                )  # fmt: skip
                files[what] = path
            tables = {what: f"matrix.{what}_{dtype}_{srid}" for what in SITUATIONS}
            load.raster(world.db, files["inside"], tables["inside"], block=40)
            load.raster(world.db, files["hole"], tables["hole"], block=40)
            load.raster(world.db, [files["inside"], files["overlap"]], tables["overlap"], block=40)
            tables["edge"] = tables["inside"]
            mosaics = {"inside": first, "edge": first, "hole": holed, "overlap": both}
            made[name, srid] = SimpleNamespace(tables=tables, mosaics=mosaics, transform=place)
    assert {
        t for (t,) in ask(world.db, "SELECT DISTINCT pixel_types[1] FROM raster_columns WHERE r_table_schema = 'matrix'")
    } == {*TYPES}
    yield made
    with world.db.connection() as conn:
        conn.execute("DROP SCHEMA matrix CASCADE")


def tile_at(case, situation, place):
    """A tile in the situation: its upper left corner, in source pixels, well off the source's lattice."""
    source_srid, srid, ratio = CASES[case]
    col, row = {"inside": (40, 40), "edge": (-12, -9), "hole": (51, 53), "overlap": (SIDE - 41, 30)}[situation]
    if ratio and ratio > 1:
        col, row = {"inside": (22, 21), "edge": (-31, -25), "hole": (15, 18), "overlap": (SIDE - 105, 14)}[situation]
    x, y = place.c + (col + 0.37) * RES, place.f - (row + 0.41) * RES
    resolution = RES * ratio if ratio else 3.7  # of Web Mercator, at this latitude about the source's own on the ground
    if srid != source_srid:
        (x,), (y,) = transform(source_srid, srid, [x], [y])
    grid = Grid(srid=srid, resolution=resolution, size=TILE, origin=(x, y))
    return Tiles(grid, np.array([0]), np.array([0]))


def warped(pixels, source, tiles, case, method, nodata):
    """GDAL's exact warp of a whole mosaic onto the tile's lattice, cut to the tile.

    GDAL takes the ratio of a warp from its windows' sizes in whole pixels. A tile's own window of 48 pixels would pass for
    shrunk by 49 / 48, so the lattice goes well beyond the mosaic unless it is to be shrunk.
    """
    source_srid, srid, _ = CASES[case]
    (left, _, _, top), (sx, sy) = tiles.bounds[0], tiles.grid.pixel
    box = transform_bounds(source_srid, srid, *array_bounds(*pixels.shape[1:], source.transform))
    margin = 0 if "shrunk" in case else 20
    x0, x1 = math.floor((box[0] - left) / sx) - margin, math.ceil((box[2] - left) / sx) + margin
    y0, y1 = math.floor((top - box[3]) / sy) - margin, math.ceil((top - box[1]) / sy) + margin
    profile = {"driver": "GTiff", "count": 1, "height": pixels.shape[1], "width": pixels.shape[2], "dtype": pixels.dtype.name}
    with MemoryFile() as memory:
        with memory.open(**profile, crs=f"EPSG:{source_srid}", transform=source.transform, nodata=nodata) as file:
            file.write(pixels)
        with (
            memory.open() as file,
            WarpedVRT(
                file, crs=f"EPSG:{srid}", transform=from_origin(left + x0 * sx, top - y0 * sy, sx, sy), width=x1 - x0,
                height=y1 - y0, resampling=Resampling[method], tolerance=EXACT, src_nodata=nodata, nodata=nodata,
            ) as vrt,
        ):  # fmt: skip
            whole = vrt.read(1)
    wide = np.pad(whole, TILE, constant_values=0 if nodata is None else nodata)
    return wide[TILE - y0 :, TILE - x0 :][:TILE, :TILE]


def differences(db, source, case, situation, method):
    """The largest difference, the share of pixels that have data, and whether ST_Union joined the source."""
    tiles = tile_at(case, situation, source.transform)
    layer = Imagery(source.tables[situation], resampling=method, max_error=0, dtype="native", valid=True)
    batch = read_batch(db, Plan.open(db, tiles, {"i": layer}), tiles)
    pixels = source.mosaics[situation]
    nodata = NODATA if situation == "hole" else None
    want = warped(pixels, source, tiles, case, method, nodata)
    known = np.where(pixels == NODATA, 0, 255).astype("u1") if nodata else np.full(pixels.shape, 255, "u1")
    there = warped(known, source, tiles, case, method, 0)
    got, valid = batch.sample["i"][0, 0], batch.sample["i_valid"][0]
    assert got.dtype == pixels.dtype
    off = np.abs(got.astype("f8") - want) / (RANGE if got.dtype.kind == "f" else 1)
    return SimpleNamespace(off=off, valid=valid, there=there != 0, united=batch.united[0], spread=np.ptp(want.astype("f8")))


def heading():
    print(f"\n\n{'case':14} {'type':6} {'resampling':10}" + "".join(f"{what:>14}" for what in SITUATIONS))


@pytest.mark.usefixtures("quiet")
class TestMatrix:
    @pytest.mark.parametrize("case", [case for case in CASES if "shrunk" not in case])
    def test_equals_gdal(self, world, sources, case):
        heading()
        wrong = []
        for name in TYPES:
            for method in METHODS:
                said = f"{case:14} {name:6} {method:10}"
                for situation in SITUATIONS:
                    found = differences(world.db, sources[name, CASES[case][0]], case, situation, method)
                    said += f"{found.off.max():>14.3g}"
                    bound = 1e-5 if name == "32BF" else 1
                    same = (found.valid == found.there).all()
                    if found.off.max() > bound or not same:
                        wrong.append(f"{case}, {name}, {method}, {situation}: {found.off.max():.3g} {same}")
                    assert found.spread > 200
                    assert found.united == (situation == "overlap")
                    assert found.there.all() == (situation in {"inside", "overlap"})
                    assert found.there.any()
                print(said)
        assert not wrong, "\n".join(wrong)

    @pytest.mark.parametrize("case", [case for case in CASES if "shrunk" in case])
    def test_shrunk(self, world, sources, case):
        """GDAL widens its kernel by the ratio of its windows' sizes in whole pixels. Of the 100 to 150 source pixels around a tile
        that is up to 2 % off the ratio asked for, and so are the kernel's weights; full-range noise shows it undamped. So a
        pixel may differ by SHRUNK of the type's range, and on average by a fifth of that. Nearest has no kernel: it is exact.
        """
        heading()
        wrong = []
        for name, dtype in TYPES.items():
            span = 1 if name == "32BF" else float(np.iinfo(dtype).max) - float(np.iinfo(dtype).min)
            for method in METHODS:
                said = f"{case:14} {name:6} {method:10}"
                for situation in SITUATIONS:
                    found = differences(world.db, sources[name, CASES[case][0]], case, situation, method)
                    said += f"{found.off.max():>14.3g}"
                    share, mean = found.off.max() / span, found.off.mean() / span
                    same = (found.valid == found.there).all()
                    if share > (0 if method == "nearest" else SHRUNK) or mean > SHRUNK / 5 or not same:
                        wrong.append(f"{case}, {name}, {method}, {situation}: {share:.3f} {mean:.4f} {same}")
                print(said)
        assert not wrong, "\n".join(wrong)
