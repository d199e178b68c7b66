"""Tiles per second, beside what one would use or write instead: `make bench`, and `make bench-quick` for a short look.

A scene is made in the database at hand (the local server unless PGTILES_URL says otherwise) and in files. Before anything is
timed, everybody's pixels are compared with what rasterio reads; a difference ends the run. Then all read the same tiles in
interleaved rounds. Figures are medians, and ratios are to the first line of a table. CPU milliseconds are those of the reading
processes and, behind the plus, of the server's, where it runs here.

The scene is small and is read again and again, but stands for an archive that is larger than any cache of pixels. So GDAL's
cache of decoded and warped blocks, which would soon hold all of it, is kept to some ten tiles: enough for a tile that shares
nothing with others, which more does not speed up. The stored bytes are in memory for all contestants, in the server's buffers
or the system's. TorchGeo is looked for in .venv-peers, or in the environment that PGTILES_PEERS names.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import endurance
import loading
import scaling
import starting
from cpu import Clock
from measuring import measure
from peers import Peers
from psycopg import sql
from report import draw, machine
from rich.console import Console
from scene import TILE, Scene, make, places
from shapes import larger, mask_only, other_pixels
from sockets import both_ways, ways
from works import Work, baked_tiles, image_only, native, torchgeo, warped

from pgtiles import Database, LocalServer, errors

ROOT = Path(__file__).parents[1]
# What a quick run looks at: every kind of layer and of contestant once, with two workers or connections.
QUICK = {
    "image and mask, at random places", "image and mask, baked", "image only", "reprojected from UTM", "mask only, on roads",
    "512 px, on roads", "float32", "socket and TCP",
}  # fmt: skip
NOT_QUICK = re.compile(r"\b[134] (worker|connection)")


def main() -> None:
    """Fill, compare, measure, and write what was found."""
    options = _options()
    began = time.monotonic()
    console = Console(width=None if sys.stdout.isatty() else 100)
    warnings.filterwarnings("ignore", message="This DataLoader will create 4 worker processes")  # which is what is asked
    warnings.filterwarnings("ignore", message=".*no row of the query met")  # a few tiles may well have no road
    os.environ["GDAL_CACHEMAX"] = str(options.gdal_cache)
    db = _database()
    python = Path(os.environ.get("PGTILES_PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    peers = Peers(python) if python.exists() else None
    if not peers:
        console.print("TorchGeo is not among the contestants: make bench-peers installs it (1.6 GB)", style="yellow")
    console.print(f"tables called bench_… are made in {db.name}, in place of any of these names", markup=False)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another account
        with console.status("making the scene"):
            scene = _scene(db, Path(folder), options)
        if scene.unseen:
            console.print(f"no figures for imagery that stays in a file: {scene.unseen}", markup=False)
        clock = Clock.of(db)
        result: dict[str, Any] = {"machine": machine(db, peers), "options": vars(options), "works": []}
        works = _chosen(_works(console, db, scene, peers, options), options)
        others = _chosen(_others(console, db, scene, options), options)
        if not works and not others:
            sys.exit(f"--works {options.works!r}: no work's name holds that")
        for name, opened in works.items():
            with console.status(f"{name}: opening"):
                work = _fewer(opened(), options)
            if not work.contestants:
                continue
            result["works"].append(measure(console, clock, name, work, options))
            _write(result, options.out, began)  # a run that is cut short leaves what it has
        for name, look in others.items():
            result[name] = look()
            _write(result, options.out, began)
    _drop_rows(db)
    console.print(f"written to {options.out}, after {result['took'] / 60:.1f} minutes", markup=False)
    if options.quick and works:
        console.print("All pixels agree. The speeds of a quick run say little: it reads a few tiles once.")
    if peers:
        peers.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small scene and one short round: does it run, do pixels agree?")
    maps = "helsinki, a real map; synthetic, which needs no network; or an .osm.pbf (helsinki; quick: synthetic)"
    parser.add_argument("--vectors", help=maps)
    parser.add_argument("--works", default="", help="only those whose name holds this; also loading, scaling, memory, start")
    parser.add_argument("--only", default="", help="only contestants whose label holds this")
    parser.add_argument("--rounds", type=int, help="of all contestants, one after the other (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="that a contestant reads in a round (1; quick: the tiles compared)")
    parser.add_argument("--tiles", type=int, help="at most so many of them (960; quick: 16)")
    parser.add_argument("--size", type=int, help="of the scene, in pixels (4096; quick: 1024)")
    parser.add_argument("--resolution", type=float, help="of the scene, in CRS units (helsinki: 0.5, else 2.5)")
    parser.add_argument("--gdal-cache", type=int, default=8, help="MB that GDAL may keep of decoded blocks (8)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of bench.json and bench.png")
    options = parser.parse_args()
    usual: tuple[tuple[str, Any, Any], ...] = (
        ("vectors", "helsinki", "synthetic"), ("rounds", 5, 1), ("seconds", 1.0, 0.0), ("tiles", 960, 16), ("size", 4096, 1024),
    )  # fmt: skip
    for name, full, quick in usual:
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else full)
    return options


def _database() -> Database:
    try:
        return Database()
    except errors.DatabaseError:
        server = LocalServer()
        server.start()
        return Database(server.url)


def _scene(db: Database, folder: Path, options: argparse.Namespace) -> Scene:
    try:
        return make(db, folder, vectors=options.vectors, size=options.size, resolution=options.resolution)
    except errors.MissingError as error:
        sys.exit(f"{error}\nwithout it: --vectors synthetic draws a map (make bench BENCH='--vectors synthetic')")


def _chosen(all_of_them: dict[str, Callable[[], Any]], options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    return {
        name: one
        for name, one in all_of_them.items()
        if options.works in name and (not options.quick or options.works or name in QUICK)
    }


def _fewer(work: Work, options: argparse.Namespace) -> Work:
    """With the contestants that are asked for."""
    asked = [one for one in work.contestants if options.only in one.label]
    return replace(work, contestants=[one for one in asked if not (options.quick and NOT_QUICK.search(one.label))])


def _works(
    console: Console, db: Database, scene: Scene, peers: Peers | None, options: argparse.Namespace
) -> dict[str, Callable[[], Work]]:
    """By name; each is opened when its turn comes."""
    where = places(db, scene, options.tiles)
    uniform, roads, other = where["at random places"], where["centred on roads"], torchgeo(peers, scene)
    works: dict[str, Callable[[], Work]] = {
        "image and mask, at random places": partial(native, db, scene, uniform, other),
        "image and mask, on roads": partial(native, db, scene, roads, other),
        "image and mask, baked": partial(baked_tiles, db, scene, uniform),
        "image only": partial(image_only, db, scene, uniform, other),
        "reprojected from UTM": partial(warped, db, scene, "bench_utm", "ST_Transform", uniform, other, off=5.0),
        "resampled, 4 × enlarged": partial(warped, db, scene, "bench_coarse", "ST_Resample", uniform, other, off=0.1),
        "mask only, at random places": partial(mask_only, db, scene, uniform),
        "mask only, on roads": partial(mask_only, db, scene, roads),
    }
    for size in (512, 1024):
        count = max(16, options.tiles * TILE**2 // size**2)
        works[f"{size} px, at random places"] = partial(larger, db, scene, size, "at random places", count)
        works[f"{size} px, on roads"] = partial(larger, db, scene, size, "centred on roads", count)
    for name, bands, dtype in (
        ("1 band", 1, "uint8"), ("12 bands", 12, "uint8"), ("uint16", 3, "uint16"), ("float32", 3, "float32"),
    ):  # fmt: skip
        works[name] = partial(other_pixels, db, scene, bands, dtype, max(16, options.tiles * 3 // max(3, bands)))
    by = ways(db)
    if isinstance(by, str):
        console.print(f"no comparison of the local socket with TCP: {by}", markup=False)
    else:
        works["socket and TCP"] = partial(both_ways, by, scene, uniform)
    return works


def _others(
    console: Console, db: Database, scene: Scene, options: argparse.Namespace
) -> dict[str, Callable[[], dict[str, Any]]]:
    """What is measured in other units than tiles per second."""
    return {
        "loading": partial(loading.look, console, db, scene),
        "scaling": partial(scaling.look, console, db, scene, rounds=options.rounds),
        "memory": partial(endurance.look, console, db),
        "start": partial(starting.look, console, db),
    }


def _write(result: dict[str, Any], folder: Path, began: float) -> None:
    result["took"] = time.monotonic() - began
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    if result["works"]:
        draw(result["works"], folder / "bench.png")


def _drop_rows(db: Database) -> None:
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema AND tablename ~ '^bench_rows'"
    with db.connection() as conn:
        for (table,) in conn.execute(tables).fetchall():
            conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))


if __name__ == "__main__":
    main()
