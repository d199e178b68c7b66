"""Tiles per second, beside what one would use or write instead: `make bench`, and `make bench-quick` for a short look.

A scene is made in the database at hand (the local server unless PGTILES_URL says otherwise) and in files. Before anything is
timed, everybody's pixels are compared with what rasterio reads; a difference ends the run. Then all read the same tiles in
interleaved rounds. Figures are medians, and ratios are to the first line of a table.

The scene is small and is read again and again, but stands for an archive that is larger than any cache of pixels. So GDAL's
cache of decoded and warped blocks, which would soon hold all of it, is kept to some ten tiles: enough for a tile that shares
nothing with others, which more does not speed up. The stored bytes are in memory for all contestants, in the server's buffers
or the system's. TorchGeo is looked for in .venv-peers, or in the environment that PGTILES_PEERS names.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import rasterio
from contestants import BATCH, Contestant, Reader
from peers import Peers
from psycopg import sql
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scene import TILE, Scene, make, places
from works import BAKED, Work, baked_tiles, image_only, native, torchgeo, warped

import pgtiles
from pgtiles import Database, LocalServer, errors

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
LUMINANCE = np.array([0.2989, 0.5870, 0.1140])  # of PostGIS's grey


def main() -> None:
    """Fill, compare, measure, and write what was found."""
    options = _options()
    console = Console()
    warnings.filterwarnings("ignore", message="This DataLoader will create 4 worker processes")  # which is what is asked
    warnings.filterwarnings("ignore", message=".*no row of the query met")  # a few tiles may well have no road
    os.environ["GDAL_CACHEMAX"] = str(options.gdal_cache)
    db = _database()
    python = Path(os.environ.get("PGTILES_PEERS", ROOT / ".venv-peers")) / "bin" / "python"
    peers = Peers(python) if python.exists() else None
    if not peers:
        console.print("TorchGeo is not among the contestants: make bench-peers installs it (1.6 GB)", style="yellow")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another account
        with console.status("making the scene"):
            scene = make(db, Path(folder), vectors=options.vectors, size=options.size, resolution=options.resolution)
        if scene.unseen:
            console.print(f"no figures for imagery that stays in a file: {scene.unseen}", markup=False)
        found = [_measure(console, work, options) for work in _works(db, scene, peers, options)]
    with db.connection() as conn:
        conn.execute("DROP TABLE IF EXISTS bench_rows")
    result = {"machine": _machine(db, peers), "options": vars(options), "works": found}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    _draw(found, options.out / "bench.png")
    console.print(f"written: {options.out / 'bench.json'} and bench.png", markup=False)
    if options.quick:
        console.print("All pixels agree. The speeds of a quick run say little: it reads a few tiles once.")
    if peers:
        peers.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small scene and one short round: does it run, do pixels agree?")
    parser.add_argument("--vectors", default="synthetic", help="synthetic, helsinki (a real map), or an .osm.pbf")
    parser.add_argument("--works", default="", help="only those whose name holds this")
    parser.add_argument("--rounds", type=int, help="of all contestants, one after the other (5; quick: 1)")
    parser.add_argument("--seconds", type=float, help="that a contestant reads in a round (2; quick: the tiles compared)")
    parser.add_argument("--tiles", type=int, help="at most so many of them (960; quick: 16)")
    parser.add_argument("--size", type=int, help="of the scene, in pixels (4096; quick: 1024)")
    parser.add_argument("--resolution", type=float, default=2.5, help="of the scene, in CRS units (2.5)")
    parser.add_argument("--gdal-cache", type=int, default=8, help="MB that GDAL may keep of decoded blocks (8)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of bench.json and bench.png")
    options = parser.parse_args()
    for name, usual, quick in (("rounds", 5, 1), ("seconds", 2.0, 0.0), ("tiles", 960, 16), ("size", 4096, 1024)):
        if getattr(options, name) is None:
            setattr(options, name, quick if options.quick else usual)
    return options


def _database() -> Database:
    try:
        return Database()
    except errors.DatabaseError:
        server = LocalServer()
        server.start()
        return Database(server.url)


def _works(db: Database, scene: Scene, peers: Peers | None, options: argparse.Namespace) -> list[Work]:
    where = places(db, scene, options.tiles)
    uniform, other = where["at random places"], torchgeo(peers, scene)
    works = [native(db, scene, name, tiles, other) for name, tiles in where.items()]
    if options.works in BAKED:  # it takes a while to set up
        works.append(baked_tiles(db, scene, uniform))
    works += [
        image_only(db, scene, uniform),
        warped(db, scene, "reprojected from UTM", "bench_utm", "ST_Transform", uniform, other, off=5.0),
        warped(db, scene, "resampled, 4 × enlarged", "bench_coarse", "ST_Resample", uniform, other, off=0.1),
    ]
    return [work for work in works if options.works in work.name]


# -- one work


def _measure(console: Console, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """Compare, then time in interleaved rounds; a table."""
    differences, ready = {}, {}
    truth = work.truth(work.tiles[:32]).pixels()
    for contestant in work.contestants:
        with console.status(escape(f"{work.name}: comparing pixels, {contestant.label}")):
            few = min(contestant.few, options.tiles)
            reader = contestant.open(work.tiles[:few])
            began = time.perf_counter()
            differences[contestant.label] = _compare(work, contestant, reader.pixels(), truth)
            rate = few / (time.perf_counter() - began) if differences[contestant.label] else _rate(reader)
            count = 0 if options.quick else min(round(rate * options.seconds / BATCH) * BATCH, options.tiles)
            if count > few:
                reader = contestant.open(work.tiles[:count])
                _rate(reader)  # a first epoch starts processes and fills caches
            ready[contestant.label] = reader
    rates: dict[str, list[float]] = {label: [] for label in ready}
    for number in range(options.rounds):
        for label, reader in ready.items():
            with console.status(escape(f"{work.name}: round {number + 1} of {options.rounds}, {label}")):
                rates[label].append(_rate(reader))
    medians = {label: statistics.median(found) for label, found in rates.items()}
    first = next(iter(medians.values()))
    empty = work.empty
    title = f"{work.name}: tiles of {TILE} px, 3 bands" + (f", {empty:.0%} of them without a road" if empty is not None else "")
    table = Table("contestant", "tiles/s", "lowest", "highest", "ratio", "pixels", title=title)
    for label, median in medians.items():
        row = *map(_figure, (median, min(rates[label]), max(rates[label]))), f"{median / first:.2f}"
        table.add_row(escape(label), *row, differences[label])
    console.print(table)
    duels = [(a, b, medians[a] / medians[b]) for a, b in work.duels if a in medians and b in medians]
    for ours, theirs, ratio in duels:
        console.print(f"  {ours}: {ratio:.2f} × {theirs}", markup=False, highlight=False)
    contestants = [
        {"label": label, "median": medians[label], "rates": rates[label], "ratio": medians[label] / first,
         "pixels": differences[label]}
        for label in medians
    ]  # fmt: skip
    return {"name": work.name, "empty": empty, "contestants": contestants, "duels": duels}


def _figure(rate: float) -> str:
    return f"{rate:.3g}" if rate < 100 else f"{rate:,.0f}"


def _rate(reader: Reader) -> float:
    """Tiles per second of one epoch."""
    began = time.perf_counter()
    tiles = sum(reader.epoch())
    return tiles / (time.perf_counter() - began)


def _compare(work: Work, contestant: Contestant, found: dict[str, np.ndarray] | None, truth: dict[str, np.ndarray]) -> str:
    """What there is to say of its pixels; ends the run where they are wrong."""
    if found is None:
        return ""
    assert found, f"{contestant.label}: no pixels"
    said, wrong = "equal", ""
    for name, pixels in found.items():
        want = truth["image"].swapaxes(1, 3) @ LUMINANCE if name == "grey" else truth[name]
        want = (want.swapaxes(1, 2) if name == "grey" else want)[: len(pixels)].astype("f8")
        pixels = pixels.astype("f8")
        if pixels.shape != want.shape:
            wrong = f"{name} is {pixels.shape}, not {want.shape}"
            break
        off = np.abs(pixels - want)
        if off.max() == 0:
            continue
        if name == "mask":
            said = f"{off.astype(bool).mean():.4%} of the mask"
            wrong = wrong or (said if not contestant.off or off.astype(bool).mean() > 0.001 else "")
            continue
        said = f"{off.mean():.2g}, at most {off.max():.2g}"
        nearest = min(_shifts(), key=lambda by: np.abs(_shifted(pixels, *by) - _shifted(want, 0, 0)).mean())
        if off.mean() > contestant.off or nearest != (0, 0):
            wrong = f"{name} is {said} off, {contestant.off:g} on average is allowed; it fits best if shifted by {nearest} px"
    if wrong:
        sys.exit(f"{work.name}: the pixels of {contestant.label} differ: {wrong}")
    return said


def _shifts() -> list[tuple[int, int]]:
    return [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def _shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Without its outermost pixels, or others in their place."""
    height, width = pixels.shape[-2:]
    return pixels[..., 1 + down : height - 1 + down, 1 + right : width - 1 + right]


# -- what is written


def _machine(db: Database, peers: Peers | None) -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    (server,) = db.query(sql.SQL("SELECT version(), postgis_full_version(), current_setting('shared_buffers')"))
    names = ("torch", "numpy", "rasterio", "shapely", "psycopg")
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "pgtiles": pgtiles.__version__,
        "packages": {name: version(name) for name in names} | {"gdal": rasterio.__gdal_version__},
        "peers": peers.versions if peers else None,
        "postgresql": server[0],
        "postgis": server[1],
        "shared_buffers": server[2],
        "connection": db.name.partition("@")[2].partition("/")[0] or "local socket",
    }  # fmt: skip


def _draw(works: list[dict[str, Any]], path: Path) -> None:
    """Bars from the slowest to the fastest round's figure, with the ratio to the first contestant."""
    heights = [len(work["contestants"]) for work in works]
    figure, axes = plt.subplots(
        len(works),
        figsize=(10, 0.28 * sum(heights) + 0.9 * len(works)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axis, work in zip(axes[:, 0], works, strict=True):
        shown = work["contestants"]
        medians = np.array([one["median"] for one in shown])
        spread = np.abs(np.array([[min(one["rates"]), max(one["rates"])] for one in shown]).T - medians)
        colours = ["C0" if one["label"].startswith("pgtiles") else "0.65" for one in shown]
        axis.barh(range(len(shown)), medians, xerr=spread, color=colours, ecolor="0.25", capsize=2)
        for row, one in enumerate(shown):
            said = f"{_figure(one['median'])}   ({one['ratio']:.2f} ×)"
            axis.annotate(said, (max(one["rates"]), row), (6, 0), textcoords="offset points", va="center", fontsize=8)
        axis.set_yticks(range(len(shown)), [one["label"] for one in shown], fontsize=8)
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xscale("log")
        axis.set_xlim(medians.min() / 2, medians.max() * 4)
        share = "" if work["empty"] is None else f" ({work['empty']:.0%} without a road)"
        axis.set_title(f"{work['name']}{share}: tiles of {TILE} px a second", fontsize=10, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
