"""What is done, and who meets whom at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contestants import Contestant, Reader, by_hand, dataset, files, one_query, raw_copy, thrown_away, union_clip
from peers import Peers, Remote
from scene import FILES, ROADS, Scene, share_without_road

from pgtiles import Baked, Database, Imagery, Labels, Tiles, bake

BAKED = "image and mask, baked"  # a work's name
TorchGeo = Callable[..., list[Contestant]]


@dataclass(frozen=True)
class Work:
    """What is to be done, and who does it.

    truth: read by rasterio alone: what all others' pixels are compared with.
    duels: a label, and another whose speed it is measured against.
    empty: the share of tiles without a road, where roads are burned.
    """

    name: str
    tiles: Tiles
    truth: Callable[[Tiles], Reader]
    contestants: list[Contestant]
    duels: list[tuple[str, str]]
    empty: float | None = None


def native(db: Database, scene: Scene, where: str, tiles: Tiles, peers: TorchGeo) -> Work:
    """Image and mask on the imagery's own pixels."""
    layers, small = {"image": Imagery("bench_scene"), "mask": Labels(ROADS)}, Labels(ROADS, dtype="uint8")
    own = partial(dataset, db, layers)
    loop = {"mask": True, "warp": False}
    contestants = [
        Contestant("pgtiles, 2 connections", partial(own, 2)),
        Contestant("pgtiles, 1 connection", partial(own, 1)),
        Contestant("pgtiles, 3 connections", partial(own, 3)),
        Contestant("pgtiles, 2 connections, uint8 mask", partial(dataset, db, layers | {"mask": small}, 2)),
        *(Contestant(f"pgtiles, {n} workers", partial(own, 1, workers=n)) for n in (1, 2, 4)),
        Contestant("the same COPY, thrown away", partial(thrown_away, db, layers)),
        Contestant("raw COPY of the same bytes", partial(raw_copy, db, layers)),
        Contestant("one query with map algebra", partial(one_query, db), few=4, off=0.5),
        *(
            Contestant(f"rasterio loop, {how}, {n} workers", partial(files, scene, f"bench_{how}", loop, n))
            for how in ("plain", "deflate") for n in (0, 2)
        ),
        *peers(scene.file("bench_plain"), mask=True, off=0.0),
    ]  # fmt: skip
    duels = [
        ("pgtiles, 2 workers", "TorchGeo, 2 workers"), ("pgtiles, 2 workers", "rasterio loop, deflate, 2 workers"),
        ("pgtiles, 2 workers", "one query with map algebra"), ("pgtiles, 2 workers", "raw COPY of the same bytes"),
        ("pgtiles, 2 connections", "TorchGeo, 2 workers"), ("pgtiles, 2 connections", "raw COPY of the same bytes"),
    ]  # fmt: skip
    truth = partial(files, scene, "bench_plain", loop, 0)
    return Work(f"image and mask, {where}", tiles, truth, contestants, duels, share_without_road(scene, tiles))


def baked_tiles(db: Database, scene: Scene, tiles: Tiles) -> Work:
    """Image and mask, live and from a table into which the tiles were written before."""
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    bake(db, "bench_baked", tiles, layers, replace=True)
    kept = {name: Baked("bench_baked", name) for name in layers}
    contestants = [
        *(Contestant(f"live, {n} workers", partial(dataset, db, layers, 1, workers=n)) for n in (1, 2)),
        *(Contestant(f"baked, {n} workers", partial(dataset, db, kept, 1, workers=n)) for n in (1, 2)),
        *(Contestant(f"{how}, {n} connections", partial(dataset, db, which, n))
          for how, which in (("live", layers), ("baked", kept)) for n in (1, 2)),
        Contestant("the same COPY, thrown away", partial(thrown_away, db, kept)),
        Contestant("raw COPY of the same bytes", partial(raw_copy, db, kept)),
    ]  # fmt: skip
    duels = [
        ("baked, 2 workers", "live, 2 workers"), ("baked, 2 workers", "raw COPY of the same bytes"),
        ("baked, 2 connections", "live, 2 connections"), ("baked, 2 connections", "raw COPY of the same bytes"),
    ]  # fmt: skip
    truth = partial(files, scene, "bench_plain", {"mask": True, "warp": False}, 0)
    return Work(BAKED, tiles, truth, contestants, duels, share_without_road(scene, tiles))


def image_only(db: Database, scene: Scene, tiles: Tiles) -> Work:
    """The image alone, in the database and in files that the server reads."""
    kept = {"in the database": "bench_scene"} | ({} if scene.unseen else {how: table for how, (table, _) in FILES.items()})
    lossy = {"in a file, JPEG": 20.0}  # of noise
    contestants = [
        Contestant(f"pgtiles, {how}", partial(dataset, db, {"image": Imagery(table)}, 2), off=lossy.get(how, 0.0))
        for how, table in kept.items()
    ]
    contestants.append(Contestant("ST_Union(ST_Clip)", partial(union_clip, db), few=4))
    truth = partial(files, scene, "bench_plain", {"mask": False, "warp": False}, 0)
    duels = [("pgtiles, in the database", "ST_Union(ST_Clip)")]
    return Work("image only, at random places", tiles, truth, contestants, duels)


def warped(db: Database, scene: Scene, name: str, table: str, warp: str, tiles: Tiles, peers: TorchGeo, off: float) -> Work:
    """The image alone, from another CRS or resolution. off: of TorchGeo, which warps to the nearest pixel first."""
    own = partial(dataset, db, {"image": Imagery(table)})
    loop = {"mask": False, "warp": True}
    exact = partial(files, scene, table, loop | {"exact": True}, 0)
    contestants = [
        Contestant("pgtiles, 2 connections", partial(own, 2), off=0.1),
        Contestant("pgtiles, 1 connection", partial(own, 1), off=0.1),
        Contestant("pgtiles, 2 workers", partial(own, 1, workers=2), off=0.1),
        Contestant(f"ST_Union, {warp}", partial(by_hand, db, table, warp, False), few=4, off=0.1),
        Contestant(f"ST_Union(ST_Clip), {warp}", partial(by_hand, db, table, warp, True), few=4, off=0.1),
        *(Contestant(f"rasterio loop, {n} workers", partial(files, scene, table, loop, n), off=0.1) for n in (0, 2)),
        *peers(scene.file(table), mask=False, off=off),
    ]
    duels = [
        ("pgtiles, 1 connection", f"ST_Union, {warp}"), ("pgtiles, 1 connection", f"ST_Union(ST_Clip), {warp}"),
        ("pgtiles, 2 connections", "TorchGeo, 2 workers"), ("pgtiles, 2 workers", "TorchGeo, 2 workers"),
    ]  # fmt: skip
    return Work(name, tiles, exact, contestants, duels)


def torchgeo(peers: Peers | None, scene: Scene) -> TorchGeo:
    """TorchGeo's contestants, if its environment is there."""

    def contestants(file: Path, *, mask: bool, off: float) -> list[Contestant]:
        def opened(workers: int, tiles: Tiles) -> Reader:
            return Remote(
                peers, scene.folder, file=str(file), roads=str(scene.roads_file) if mask else None,
                bounds=tiles.bounds.tolist(), resolution=scene.resolution, workers=workers,
            )  # fmt: skip

        return [Contestant(f"TorchGeo, {n} workers", partial(opened, n), few=16, off=off) for n in (0, 2)] if peers else []

    return contestants
