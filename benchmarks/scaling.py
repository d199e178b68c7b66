"""The same number of tiles from a table, and from tables 10 and 100 times as large: does a tile take longer?

The larger tables are copies of the smallest side by side, made by the server from the stored blocks. The largest is made to
exceed shared_buffers, so that not all of it can be there; the system's own cache may hold it all the same.
"""

from __future__ import annotations

import json
import math
import time
from statistics import median
from typing import Any

import numpy as np
import rasterio
from psycopg import sql
from rich import box
from rich.console import Console
from rich.table import Table
from scene import TILE, Scene

from pgtiles import Database, Grid, Imagery, TileDataset, Tiles

TIMES = {"bench_1": (1, 1), "bench_10": (5, 2), "bench_100": (10, 10)}  # copies, across and down
BLOCK, BATCH, COUNT, MOST = 128, 16, 640, 4e9
STATS = sql.SQL("SELECT blks_hit, blks_read, temp_files, temp_bytes FROM pg_stat_database WHERE datname = current_database()")


def look(console: Console, db: Database, scene: Scene, *, rounds: int) -> dict[str, Any]:
    """Make the tables, compare pixels, and read them in interleaved rounds."""
    with console.status("scaling: making the tables"):
        began = time.perf_counter()
        side = _side(db, scene)
        for table in TIMES:
            _fill(db, scene, table, side)
        made = time.perf_counter() - began
    found = {table: _looked_at(db, scene, table, side) for table in TIMES}
    for number in range(rounds + 1):  # the first fills what caches there are
        for table, one in found.items():
            with console.status(f"scaling: round {number} of {rounds}, {table}"):
                dataset = _dataset(db, scene, table, side, seed=number)  # other places each time
                before, began = _stats(db), time.perf_counter()
                tiles = sum(len(batch["tile_id"]) for batch in dataset)
                elapsed = time.perf_counter() - began
                dataset.close()  # a backend that ends hands in its counters
                if number:
                    one["ms"].append(1000 * elapsed / tiles)
                    one["stats"].append(_stats(db) - before)
    result = {"tables": {table: _summary(one, found["bench_1"]) for table, one in found.items()}, "seconds_to_make": made}
    ((buffers,),) = db.query(sql.SQL("SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'"))
    result["shared_buffers"] = buffers
    with db.connection() as conn:
        for table in TIMES:
            conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))
    _print(console, result)
    return result


def _side(db: Database, scene: Scene) -> int:
    """Pixels of the smallest table: the largest shall be a quarter larger than shared_buffers, but not above 4 GB."""
    ((buffers,),) = db.query(sql.SQL("SELECT setting::bigint * 8192 FROM pg_settings WHERE name = 'shared_buffers'"))
    wanted = math.sqrt(min(max(1.25 * buffers, 1e9), MOST) / 100 / 3)
    return min(math.ceil(wanted / BLOCK) * BLOCK, scene.size // BLOCK * BLOCK)


def _fill(db: Database, scene: Scene, table: str, side: int) -> None:
    """The scene's upper left, again and again, as load.raster would have stored it."""
    across, down = TIMES[table]
    named, step = sql.Identifier(table), side * scene.resolution
    x, y = scene.corner
    inside = sql.SQL("ST_UpperLeftX(rast) < {} AND ST_UpperLeftY(rast) > {}").format(x + step, y - step)
    with db.connection() as conn:
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(named))
        conn.execute(sql.SQL("CREATE UNLOGGED TABLE {} (LIKE bench_scene INCLUDING STORAGE)").format(named))
        conn.execute(
            sql.SQL(
                "INSERT INTO {} (rid, rast, filename) SELECT row_number() OVER (), "
                "ST_SetUpperLeft(rast, ST_UpperLeftX(rast) + i * {}, ST_UpperLeftY(rast) - j * {}), filename "
                "FROM generate_series(0, {}) AS j, generate_series(0, {}) AS i, bench_scene WHERE {}"
            ).format(named, step, step, down - 1, across - 1, inside)
        )
        conn.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (rid)").format(named))
        conn.execute(sql.SQL("CREATE INDEX ON {} USING gist (ST_ConvexHull(rast))").format(named))
        conn.execute(
            sql.SQL(
                "SELECT AddRasterConstraints({}::name, 'rast'::name, 'srid', 'scale_x', 'scale_y', 'blocksize_x', "
                "'blocksize_y', 'same_alignment', 'num_bands', 'pixel_types', 'nodata_values', 'out_db')"
            ).format(table)
        )
        conn.execute(sql.SQL("VACUUM ANALYZE {}").format(named))


def _dataset(db: Database, scene: Scene, table: str, side: int, *, seed: int) -> TileDataset:
    """Random places of the whole table."""
    across, down = TIMES[table]
    (x, y), step = scene.corner, side * scene.resolution
    grid, within = Grid.like(db, table, size=TILE), (x, y - down * step, x + across * step, y)
    tiles = Tiles.random(grid, within=within, count=COUNT, seed=seed)
    return TileDataset(Database(db.conninfo), tiles, {"image": Imagery(table)}, batch_size=BATCH, shuffle=False)


def _looked_at(db: Database, scene: Scene, table: str, side: int) -> dict[str, Any]:
    """How the table is read; its pixels are compared."""
    dataset = _dataset(db, scene, table, side, seed=0)
    scan = _scan(db, dataset.plan.statement(dataset.tiles[:BATCH]), table)
    assert "Seq" not in scan, f"{table} is read by a {scan}, not by its index"
    _compare(next(iter(dataset)), scene, side)
    dataset.close()
    counted = sql.SQL("SELECT pg_total_relation_size({}), count(*) FROM {}")
    ((size, rows),) = db.query(counted.format(table, sql.Identifier(table)))
    return {"scan": scan, "bytes": size, "rows": rows, "ms": [], "stats": []}


def _scan(db: Database, statement: sql.Composed, table: str) -> str:
    """How the planner, left alone, reads the table: kinds of nodes of EXPLAIN, joined."""
    with db.connection() as conn:
        (plan,) = conn.execute(sql.SQL("EXPLAIN (FORMAT JSON) {}").format(statement)).fetchone() or ()
    plan = json.loads(plan) if isinstance(plan, str) else plan
    waiting, kinds = [plan[0]["Plan"]], set()
    while waiting:
        node = waiting.pop()
        kinds |= {node["Node Type"]} if node.get("Relation Name") == table else set()
        waiting += node.get("Plans", [])
    assert kinds, f"the plan does not mention {table}"
    return ", ".join(sorted(kinds))


def _compare(batch: dict[str, Any], scene: Scene, side: int) -> None:
    """The copies lie side by side, so that a tile may begin in one and end in the next."""
    with rasterio.open(scene.file("bench_plain")) as file:
        pixels = file.read(window=((0, side), (0, side)))
    for image, (xmin, _, _, ymax) in zip(batch["image"].numpy(), batch["bounds"].tolist(), strict=True):
        column, row = (round(v / scene.resolution) for v in (xmin - scene.corner[0], scene.corner[1] - ymax))
        rows, cols = (np.arange(start, start + TILE) % side for start in (row, column))
        assert np.array_equal(image, pixels[:, rows[:, None], cols]), "a tile of a copied table has wrong pixels"


def _stats(db: Database) -> np.ndarray:
    return np.array(db.query(STATS)[0], dtype=np.int64)


def _summary(one: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    hit, read, temp_files, temp_bytes = np.sum(one["stats"], axis=0).tolist()
    return {
        "bytes": one["bytes"], "rows": one["rows"], "scan": one["scan"], "ms": one["ms"], "median_ms": median(one["ms"]),
        "ratio": median(one["ms"]) / median(first["ms"]), "hit_rate": hit / (hit + read), "temp_files": temp_files,
        "temp_bytes": temp_bytes,
    }  # fmt: skip


def _print(console: Console, result: dict[str, Any]) -> None:
    buffers = result["shared_buffers"]
    title = f"{COUNT} tiles of {TILE} px at random places of a table; shared_buffers {buffers / 1e6:,.0f} MB"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for text in ("table", "MB", "blocks", "ms a tile", "spread", "ratio", "found there", "temp files", "read by"):
        table.add_column(text, no_wrap=True, justify="left" if text in ("table", "read by") else "right")
    for name, one in result["tables"].items():
        table.add_row(
            f"{name.partition('_')[2]} ×", f"{one['bytes'] / 1e6:,.0f}", f"{one['rows']:,}", f"{one['median_ms']:.2f}",
            f"{min(one['ms']):.2f}–{max(one['ms']):.2f}", f"{one['ratio']:.2f}", f"{one['hit_rate']:.0%}",
            str(one["temp_files"]), one["scan"],
        )  # fmt: skip
    console.print(table)
    if result["tables"]["bench_100"]["bytes"] < buffers:
        console.print("The largest table fits into shared_buffers: a scene of more pixels (--size) makes it larger.")
