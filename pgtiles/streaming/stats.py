"""What happened while reading: counters of all processes that read one dataset, in memory that they share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import get_spawning_popen

import torch

from ..postgres.retrying import Counters
from .course import shared

PROCESSES = 256
KEPT = 64  # ids of skipped tiles that a process keeps
COUNTERS = ("retries", "reconnects", "rows", "bytes", "waited")


@dataclass(frozen=True)
class Stats:
    """Sums over this process and the workers of its DataLoaders, since the dataset was made. Datasets that read by the same
    `Database` object in this process count together.

    retries: batches that were read anew, because a connection was lost or the server was busy.
    reconnects: connections that took the place of lost ones.
    rows, bytes: that the server sent.
    waited: seconds that reading stood still because of faults, summed over connections.
    skipped: tiles left out by on_error="skip"; skipped_ids: the first 64 of each process.
    """

    retries: int
    reconnects: int
    rows: int
    bytes: int
    waited: float
    skipped: int
    skipped_ids: tuple[int, ...]


class SharedStats:
    """A row for each process, by its number: siblings have numbers near each other, so no two write to one row."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._counted = shared(PROCESSES, len(COUNTERS), dtype=torch.float64)
        self._skipped = shared(PROCESSES, 1 + KEPT)
        self._forget(counters)

    def _forget(self, counters: Counters | None = None) -> None:
        # of which process, and what its counters were; in another one they begin with nothing
        self._known = os.getpid(), _values(counters) if counters else (0.0,) * len(COUNTERS)

    def __getstate__(self) -> dict[str, torch.Tensor]:
        """Shared with a process that is being started; what is kept elsewhere begins anew."""
        return {"_counted": self._counted, "_skipped": self._skipped} if get_spawning_popen() else {}

    def __setstate__(self, state: dict[str, torch.Tensor]) -> None:
        if state:
            self.__dict__.update(state)
            self._forget()
        else:
            self.__init__()  # type: ignore[misc]

    def add(self, counters: Counters, skipped: Sequence[int] = ()) -> None:
        """Take over what this process has counted by now, and the tiles that it left out since last time."""
        pid, before = self._known
        if pid != os.getpid():  # forked
            self._forget()
            before = self._known[1]
        now = _values(counters)
        self._known, row = (os.getpid(), now), os.getpid() % PROCESSES
        self._counted[row] += torch.tensor(now, dtype=torch.float64) - torch.tensor(before, dtype=torch.float64)
        for tile_id in skipped:
            count = int(self._skipped[row, 0])
            self._skipped[row, 0] += 1
            if count < KEPT:
                self._skipped[row, 1 + count] = tile_id

    def sum(self) -> Stats:
        """What all processes have counted."""
        retries, reconnects, rows, bytes_, waited = self._counted.sum(dim=0).tolist()
        ids = [row[1 : 1 + min(row[0], KEPT)] for row in self._skipped.tolist() if row[0]]
        return Stats(
            int(retries), int(reconnects), int(rows), int(bytes_), waited,
            int(self._skipped[:, 0].sum()), tuple(sorted(tile_id for found in ids for tile_id in found)),
        )  # fmt: skip


def _values(counters: Counters) -> tuple[float, ...]:
    return tuple(float(getattr(counters, name)) for name in COUNTERS)
