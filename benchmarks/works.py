"""What is done, and who meets whom at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from contestants import Contestant, Reader, by_hand, dataset, files, one_query, raw_copy, thrown_away, union_clip
from peers import Peers, Remote
from scene import FILES, ROADS, TILE, Scene, share_without_road

from pgtiles import Baked, Database, Imagery, Labels, Tiles, bake

USUAL = f"{TILE} px, 3 bands of uint8"
SMALL = f"{TILE} px, 3 bands and mask of uint8"
TorchGeo = Callable[..., list[Contestant]]


@dataclass(frozen=True)
class Work:
    """What is to be done, and who does it.

    what: the tiles' size, and what an image is made of.
    truth: read by rasterio alone: what all others' pixels are compared with.
    duels: a label, and another whose speed it is measured against.
    empty: the share of tiles without a road, where roads are burned.
    """

    what: str
    tiles: Tiles
    truth: Callable[[Tiles], Reader]
    contestants: list[Contestant]
    duels: list[tuple[str, str]]
    empty: float | None = None


def native(db: Database, scene: Scene, tiles: Tiles, peers: TorchGeo) -> Work:
    """Image and mask on the imagery's own pixels."""
    layers, small = {"image": Imagery("bench_scene"), "mask": Labels(ROADS)}, Labels(ROADS, dtype="uint8")
    own = partial(dataset, db, layers)
    loop = {"mask": True}
    contestants = [
        Contestant("pgtiles, 2 connections", partial(own, 2)),
        Contestant("pgtiles, 1 connection", partial(own, 1)),
        Contestant("pgtiles, 3 connections", partial(own, 3)),
        Contestant("pgtiles, 2 connections, uint8 mask", partial(dataset, db, layers | {"mask": small}, 2)),
        *(Contestant(f"pgtiles, {counted(n, 'worker')}", partial(own, 1, workers=n)) for n in (1, 2, 4)),
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
    return Work(USUAL, tiles, truth, contestants, duels, share_without_road(scene, tiles))


def baked_tiles(db: Database, scene: Scene, tiles: Tiles) -> Work:
    """Image and mask, live and from a table into which the tiles were written before."""
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    bake(db, "bench_baked", tiles, layers, replace=True)
    kept = {name: Baked("bench_baked", name) for name in layers}
    contestants = [
        *(Contestant(f"{how}, {counted(n, 'worker')}", partial(dataset, db, which, 1, workers=n))
          for how, which in (("live", layers), ("baked", kept)) for n in (1, 2)),
        *(Contestant(f"{how}, {counted(n, 'connection')}", partial(dataset, db, which, n))
          for how, which in (("live", layers), ("baked", kept)) for n in (1, 2)),
        Contestant("the same COPY, thrown away", partial(thrown_away, db, kept)),
        Contestant("raw COPY of the same bytes", partial(raw_copy, db, kept)),
    ]  # fmt: skip
    duels = [
        ("baked, 2 workers", "live, 2 workers"), ("baked, 2 workers", "raw COPY of the same bytes"),
        ("baked, 2 connections", "live, 2 connections"), ("baked, 2 connections", "raw COPY of the same bytes"),
    ]  # fmt: skip
    truth = partial(files, scene, "bench_plain", {"mask": True}, 0)
    return Work(SMALL, tiles, truth, contestants, duels, share_without_road(scene, tiles))


def image_only(db: Database, scene: Scene, tiles: Tiles, peers: TorchGeo) -> Work:
    """The image alone, from the database and from files that the server reads."""
    in_files = {} if scene.unseen else {how: table for how, (table, _) in FILES.items()}
    kept = {"pgtiles, 2 connections": "bench_scene"} | in_files
    lossy = {"in a file, JPEG": 20.0}  # of noise
    contestants = [
        Contestant(how, partial(dataset, db, {"image": Imagery(table)}, 2), off=lossy.get(how, 0.0))
        for how, table in kept.items()
    ]
    layers = {"image": Imagery("bench_scene")}
    contestants += [
        Contestant("pgtiles, 2 workers", partial(dataset, db, layers, 1, workers=2)),
        Contestant("raw COPY of the same bytes", partial(raw_copy, db, layers)),
        Contestant("ST_Union(ST_Clip)", partial(union_clip, db), few=4),
        *(Contestant(f"rasterio loop, {how}, 2 workers", partial(files, scene, f"bench_{how}", {}, 2))
          for how in ("plain", "deflate")),
        *peers(scene.file("bench_plain"), mask=False, off=0.0),
    ]  # fmt: skip
    truth = partial(files, scene, "bench_plain", {}, 0)
    others = ("TorchGeo, 2 workers", "rasterio loop, deflate, 2 workers")
    duels = [("pgtiles, 2 workers", other) for other in others] + [("pgtiles, 2 connections", "ST_Union(ST_Clip)")]
    return Work(USUAL, tiles, truth, contestants, duels)


def warped(db: Database, scene: Scene, table: str, warp: str, tiles: Tiles, peers: TorchGeo, off: float) -> Work:
    """The image alone, from another CRS or resolution. off: of TorchGeo, which warps to the nearest pixel first."""
    own = partial(dataset, db, {"image": Imagery(table)})
    loop = {"warp": True}
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
    return Work(USUAL, tiles, exact, contestants, duels)


def counted(number: int, noun: str) -> str:
    """1 worker, 2 workers."""
    return f"{number} {noun}{'s' * (number != 1)}"


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
