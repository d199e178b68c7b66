"""Tiles of other sizes, bands and pixel types, and masks alone: who is how far ahead where."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import rasterio
from contestants import Contestant, dataset, files, raw_copy
from scene import ROADS, TILE, Scene, places, share_without_road, write
from works import Work

from pgtiles import Database, Imagery, Labels, Tiles, load

PLAIN, DEFLATE = "rasterio loop, plain, 2 workers", "rasterio loop, deflate, 2 workers"
CUT = 2048  # pixels a side: of the scene, for rasters of other bands and types


def mask_only(db: Database, scene: Scene, tiles: Tiles) -> Work:
    """Roads burned, and nothing else."""
    layers, loop = {"mask": Labels(ROADS)}, {"image": False, "mask": True}
    contestants = [
        *_ours(db, layers),
        Contestant("pgtiles, 2 connections, uint8 mask", partial(dataset, db, {"mask": Labels(ROADS, dtype="uint8")}, 2)),
        Contestant("rasterio loop, 2 workers", partial(files, scene, "bench_plain", loop, 2)),
        Contestant("raw COPY of the same bytes", partial(raw_copy, db, layers)),
    ]
    duels = [("pgtiles, 2 workers", "rasterio loop, 2 workers"), ("pgtiles, 2 connections", "raw COPY of the same bytes")]
    truth = partial(files, scene, "bench_plain", loop, 0)
    return Work(f"{TILE} px", tiles, truth, contestants, duels, share_without_road(scene, tiles))


def larger(db: Database, scene: Scene, size: int, where: str, count: int) -> Work:
    """Image and mask on larger tiles; as many pixels in all as 256-px tiles have."""
    tiles = places(db, scene, count, size)[where]
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    loop = {"mask": True}
    contestants = [*_ours(db, layers), *_loops(scene, "bench_plain", "bench_deflate", loop), _raw(db, layers)]
    truth = partial(files, scene, "bench_plain", loop, 0)
    return Work(f"{size} px, 3 bands and mask of uint8", tiles, truth, contestants, _duels(), share_without_road(scene, tiles))


def other_pixels(db: Database, scene: Scene, bands: int, dtype: str, count: int) -> Work:
    """The image alone, of other bands or another type."""
    plain, deflate = (f"bench_{bands}_{dtype}_{how}" for how in ("plain", "deflate"))
    small = _write(scene, bands, dtype, plain, deflate)
    load.raster(db, scene.file(plain), plain, replace=True)
    tiles = places(db, small, count)["at random places"]
    layers = {"image": Imagery(plain, dtype="native")}
    contestants = [*_ours(db, layers), *_loops(scene, plain, deflate, {}), _raw(db, layers)]
    truth = partial(files, scene, plain, {}, 0)
    noun = "band" if bands == 1 else "bands"
    return Work(f"{TILE} px, {bands} {noun} of {dtype}", tiles, truth, contestants, _duels())


def _ours(db: Database, layers: Mapping[str, Any]) -> list[Contestant]:
    return [
        Contestant("pgtiles, 2 connections", partial(dataset, db, layers, 2)),
        Contestant("pgtiles, 2 workers", partial(dataset, db, layers, 1, workers=2)),
    ]


def _loops(scene: Scene, plain: str, deflate: str, loop: Mapping[str, bool]) -> list[Contestant]:
    return [
        Contestant(PLAIN, partial(files, scene, plain, loop, 2)),
        Contestant(DEFLATE, partial(files, scene, deflate, loop, 2)),
    ]


def _raw(db: Database, layers: Mapping[str, Any]) -> Contestant:
    return Contestant("raw COPY of the same bytes", partial(raw_copy, db, layers))


def _duels() -> list[tuple[str, str]]:
    return [("pgtiles, 2 workers", DEFLATE), ("pgtiles, 2 workers", PLAIN)] + [
        (f"pgtiles, 2 {way}", "raw COPY of the same bytes") for way in ("workers", "connections")
    ]


def _write(scene: Scene, bands: int, dtype: str, plain: str, deflate: str) -> Scene:
    """Two files of the scene's upper left: its bands again and again, each time moved; grain down to the last bit."""
    side = min(CUT, scene.size)
    with rasterio.open(scene.file("bench_plain")) as file:
        pixels, profile = file.read(window=((0, side), (0, side))), file.profile
    pixels = np.concatenate([np.roll(pixels, 37 * k, axis=2) for k in range(-(-bands // 3))])[:bands]
    if dtype != "uint8":
        grain = np.random.default_rng(0).integers(0, 16, pixels.shape, "u2")
        pixels = (pixels.astype("u2") * 16 + grain).astype(dtype)
    if dtype == "float32":
        pixels /= 4096
    profile |= {"width": side, "height": side, "count": bands, "dtype": dtype}
    write(scene.file(plain), pixels, profile)
    write(scene.file(deflate), pixels, profile | {"compress": "deflate"})
    return Scene(scene.folder, scene.vectors, side, scene.resolution, scene.corner)
