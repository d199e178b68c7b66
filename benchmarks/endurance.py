"""Memory over 20 epochs, of each process, and how far it reads ahead.

What is watched runs in a process of its own, which did nothing before; this file is that program too. Of the server's backends
the shared buffers are left out, which look as if they grew with each page that is met for the first time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from typing import Any

from cpu import is_backend
from psycopg import conninfo, sql
from rich import box
from rich.console import Console
from rich.table import Table
from scene import ROADS, TILE

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles

NAME = "bench_endurance"  # of the watched connections
EPOCHS, BATCHES, BATCH = 20, 16, 16


def look(console: Console, db: Database) -> dict[str, Any]:
    """Both ways to read with two connections."""
    ways = {"2 connections": (2, 0), "2 workers": (1, 2)}
    with console.status("memory: 20 epochs"):
        found = {
            way: json.loads(
                subprocess.run(
                    [sys.executable, __file__, db.conninfo, *map(str, how)], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
            )
            for way, how in ways.items()
        }
    title = f"memory, MB: {EPOCHS} epochs of {BATCHES} batches of {BATCH} tiles, {TILE} px, image and uint8 mask"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for text in ("", "process", "epochs 2 to 6", f"{EPOCHS - 4} to {EPOCHS}", "growth", "peak", "batches read ahead"):
        table.add_column(text, no_wrap=True, justify="left" if text in ("", "process") else "right")
    for way, one in found.items():
        for process, its in one["processes"].items():
            ahead = f"{one['ahead']:g}" if process == one["reader"] else ""
            table.add_row(
                way, process, *(f"{v / 1e6:.0f}" for v in (its["early"], its["late"])), f"{its['growth']:+.1%}",
                f"{its['peak'] / 1e6:.0f}", ahead,
            )  # fmt: skip
    console.print(table)
    return found


class Counting(Database):
    """A database that counts the statements which were begun, in whatever process."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.begun = multiprocessing.Value("i")

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"begun": self.begun}

    def copy(self, statement: sql.Composable) -> Any:
        with self.begun.get_lock():
            self.begun.value += 1
        return super().copy(statement)


def watch(url: str, connections: int, workers: int) -> dict[str, Any]:
    """Read, and look at all processes after each epoch."""
    warnings.simplefilter("ignore")
    db = Counting(conninfo.make_conninfo(url, application_name=NAME))
    grid = Grid.like(db, "bench_scene", size=TILE)
    tiles = Tiles.random(grid, within=db.extent("bench_scene", grid.srid), count=BATCHES * BATCH, seed=0)
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    loader = TileDataset(db, tiles, layers, batch_size=BATCH, connections=connections).loader(num_workers=workers)
    seen = []
    for _ in range(EPOCHS):
        for _ in loader:
            pass
        seen.append(_resident(Database(url)))
    processes = {}
    for process in seen[1]:
        early, late = (median(one[process] for one in some) for some in (seen[1:6], seen[-5:]))
        peak = max(one[process] for one in seen) if process.startswith("backend") else _peak(process)
        processes[process.partition(",")[0]] = {
            "early": early, "late": late, "growth": late / early - 1, "peak": peak, "epochs": [one[process] for one in seen],
        }  # fmt: skip
    return {"processes": processes, "reader": "worker 1" if workers else "main", "ahead": _ahead(db, loader) / (workers or 1)}


def _resident(db: Database) -> dict[str, int]:
    """Bytes in memory, by what a process is called: "worker 1, 1234"."""
    mine = {"main": os.getpid()}
    mine |= {f"worker {k + 1}": one.pid for k, one in enumerate(sorted(multiprocessing.active_children(), key=_pid)) if one.pid}
    text = sql.SQL("SELECT pid FROM pg_stat_activity WHERE application_name = {} ORDER BY backend_start")
    theirs = {f"backend {k + 1}": pid for k, (pid,) in enumerate(db.query(text.format(NAME))) if is_backend(pid)}
    found = {f"{name}, {pid}": _status(pid, "VmRSS") for name, pid in mine.items()}
    return found | {f"{name}, {pid}": _status(pid, "RssAnon") for name, pid in theirs.items()}


def _pid(process: Any) -> int:
    return process.pid


def _peak(process: str) -> int:
    return _status(int(process.rpartition(" ")[2]), "VmHWM")


def _status(pid: int, what: str) -> int:
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def _ahead(db: Counting, loader: Any) -> int:
    """Batches begun, but not asked for, when the consumer takes one and then sleeps until no more are begun."""
    db.begun.value = 0
    batches = iter(loader)
    next(batches)
    before = -1
    while before != db.begun.value:
        before = db.begun.value
        time.sleep(1)
    for _ in batches:  # to the end, so that workers are left in peace
        pass
    return before - 1


if __name__ == "__main__":
    print(json.dumps(watch(sys.argv[1], *map(int, sys.argv[2:]))))
