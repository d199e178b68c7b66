"""How long until one may begin: the import, and the first batch. Each in processes that are started for it; this file is their
program too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

TIMES = 5


def look(console: Any, db: Any) -> dict[str, Any]:
    """Seconds: of `import pgtiles` alone; and, after `import torch`, of the dataset and its first batch."""
    found = {}
    for what, said in (
        ("import", "import pgtiles"),
        ("first batch", "from import torch to the first batch of 16 tiles, image and mask"),
    ):
        runs = [
            subprocess.run([sys.executable, __file__, what, db.conninfo], check=True, stdout=subprocess.PIPE, text=True).stdout
            for _ in range(TIMES)
        ]
        seconds = [json.loads(run) for run in runs]
        found[what] = {"seconds": seconds, "median": median(seconds)}
        spread = f"{min(seconds):.3f} to {max(seconds):.3f}"
        console.print(f"{said}: {found[what]['median']:.3f} s ({spread})", markup=False, highlight=False)
    return found


def _import() -> float:
    began = time.perf_counter()
    import pgtiles  # noqa: F401

    return time.perf_counter() - began


def _first_batch(url: str) -> float:
    import torch  # noqa: F401

    began = time.perf_counter()
    from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles

    db = Database(url)
    grid = Grid.like(db, "bench_scene", size=256)
    tiles = Tiles.random(grid, within=db.extent("bench_roads", grid.srid), count=320, seed=0)
    roads = "SELECT ST_Buffer(way, 6) AS geom FROM bench_roads WHERE ST_DWithin(way, tile.geom, 6)"
    next(iter(TileDataset(db, tiles, {"image": Imagery("bench_scene"), "mask": Labels(roads)}).loader()))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(_import() if sys.argv[1] == "import" else _first_batch(sys.argv[2])))
