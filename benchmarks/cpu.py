"""CPU seconds of the processes that read and of the server's that serve them: what a busy machine does not spoil.

    python benchmarks/cpu.py               # on the tables that the last make bench left in the database

A figure counts the time that processes ran, not the time that they waited for a core, so that two runs agree where tiles per
second differ. Both come from /proc: of this process and all that it started, and of this database's backends, where the server
runs on the same machine and is seen.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psycopg

from pgtiles import Database

if TYPE_CHECKING:
    from contestants import Reader

PROC = Path("/proc")
BACKENDS = (
    "SELECT pid FROM pg_stat_activity "
    "WHERE datname = current_database() AND backend_type <> 'autovacuum worker' AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Clock:
    """Reads what has been spent so far, by process; `spent` compares two readings."""

    conn: psycopg.Connection
    backends_seen: bool

    @classmethod
    def of(cls, db: Database) -> Clock:
        conn = psycopg.connect(db.conninfo, autocommit=True)
        return cls(conn, backends_seen=is_backend(conn.info.backend_pid))

    def read(self) -> Reading:
        return Reading(_seconds(_family()), _seconds(self._backends()) if self.backends_seen else {})

    def _backends(self) -> list[int]:
        return [pid for (pid,) in self.conn.execute(BACKENDS)]


@dataclass(frozen=True)
class Reading:
    """CPU seconds so far, by process number."""

    clients: dict[int, float] = field(default_factory=dict)
    backends: dict[int, float] = field(default_factory=dict)

    def spent(self, before: Reading) -> tuple[float, float]:
        """By clients and by the server. A process that began meanwhile counts whole; what one that ended spent is lost."""
        return _spent(before.clients, self.clients), _spent(before.backends, self.backends)


def is_backend(pid: int) -> bool:
    """Whether a backend's number means that very process here: the server may run elsewhere, or in a container."""
    try:
        return b"postgres" in (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False


def milliseconds(reader: Reader, clock: Clock) -> tuple[float, float]:
    """A tile's CPU time in one epoch, of clients and of the server."""
    before = clock.read()
    tiles = sum(reader.epoch())
    clients, server = clock.read().spent(before)
    return 1000 * clients / tiles, 1000 * server / tiles


def _spent(before: dict[int, float], after: dict[int, float]) -> float:
    return sum(seconds - before.get(pid, 0) for pid, seconds in after.items())


def _stat(pid: int | str) -> list[bytes]:
    """The fields of /proc/<pid>/stat behind the program's name, which may hold blanks."""
    return (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()


def _seconds(pids: Iterable[int]) -> dict[int, float]:
    found = {}
    for pid in pids:
        try:
            user, system = _stat(pid)[11:13]
        except OSError:  # it has ended
            continue
        found[pid] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return found


def _family() -> set[int]:
    """This process and all that it started, and they."""
    parents: dict[int, int] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int(_stat(entry.name)[1])
        except OSError:
            continue
    family, grown = {os.getpid()}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return family


def main() -> None:
    from contestants import dataset
    from scene import ROADS, found, places

    from pgtiles import Imagery, Labels

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=320, help="in an epoch (320)")
    parser.add_argument("--epochs", type=int, default=5, help="that are timed (5)")
    parser.add_argument("--only", default="", help="the works whose name holds this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    db = Database()
    clock = Clock.of(db)
    if not clock.backends_seen:
        print("the server's processes are not seen from here: their time is missing")
    image, mask = {"image": Imagery("bench_scene")}, {"mask": Labels(ROADS, dtype="uint8")}
    works = {
        "image and mask": image | mask, "image": image, "mask": mask, "image and int64 mask": image | {"mask": Labels(ROADS)},
        "reprojected": {"image": Imagery("bench_utm")}, "resampled": {"image": Imagery("bench_coarse")},
    }  # fmt: skip
    ways = {"1 connection": partial(dataset, db), "2 workers": partial(dataset, db, workers=2)}
    print(f"{'CPU milliseconds a tile: lowest (median)':62} {'clients':>14} {'server':>14}")
    for where, tiles in places(db, found(db), options.tiles).items():
        for name, layers in works.items():
            for way, opened in ways.items():
                label = f"{name}, {where}, {way}"
                if options.only not in label:
                    continue
                reader = opened(layers, 1, tiles)
                sum(reader.epoch())  # starts processes, fills caches
                clients, server = zip(*(milliseconds(reader, clock) for _ in range(options.epochs)), strict=True)
                print(f"{label:62} " + " ".join(f"{min(v):6.2f} ({median(v):5.2f})" for v in (clients, server)), flush=True)


if __name__ == "__main__":
    main()
