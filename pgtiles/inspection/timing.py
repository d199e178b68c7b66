"""How fast tiles come, and where the time goes: the server that makes them, the wire, or the client that pastes them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from ..layers.canvas import Mask
from ..layers.query import OpenLayer
from ..layers.wkb import PIXEL_TYPES
from ..postgres.database import SERIALIZES, Database
from ..streaming.reading import Plan, read_batch
from ..tiling.tiles import Tiles

BATCH = 16  # tiles a statement, as a dataset reads them
LEAST = 0.5  # seconds that a measurement lasts
ENOUGH = 10.0  # seconds, after which no further round is begun


@dataclass(frozen=True)
class Stages:
    """Milliseconds a tile on one connection, and bytes a tile; medians of some rounds.

    server: to make the rows, by EXPLAIN ANALYZE. wire: to send them, what COPY takes beyond that. client: to decode and to
    paste them. sent: bytes of all rows. needed: bytes of the pixels alone, as they are stored, and one for each of a mask's.
    serialized: whether server has in it that the rows are fetched whole and put into bytes, which EXPLAIN does from
    PostgreSQL 17 on; else wire has.
    """

    tiles: int
    server: float
    wire: float
    client: float
    sent: int
    needed: int
    serialized: bool

    @property
    def rate(self) -> float:
        """Tiles per second."""
        return 1000 / (self.server + self.wire + self.client)


def stages(db: Database, plan: Plan, tiles: Tiles, *, rounds: int = 3) -> Stages:
    """Time each stage on these tiles, batch by batch one after the other in each round, after a COPY that only warms up."""
    parts = batches(tiles)
    sent = sum(thrown_away(db, plan, part) for part in parts)
    begun, spent = time.perf_counter(), list[tuple[float, ...]]()
    while len(spent) < rounds and (not spent or time.perf_counter() - begun < ENOUGH):
        lap = [
            (_server(db, plan, part), timed(partial(thrown_away, db, plan, part)), timed(partial(read_batch, db, plan, part)))
            for part in parts
        ]
        spent.append(tuple(map(sum, zip(*lap, strict=True))))
    with db.connection() as conn:
        serialized = conn.info.server_version >= SERIALIZES
    made, sending, read = (median(column) * 1000 / len(tiles) for column in zip(*spent, strict=True))
    sending = min(sending, read)  # on a busy machine one may come out above the other
    made = min(made, sending)
    needs = sum(needed(layer) for layer in plan.layers)
    return Stages(len(tiles), made, sending - made, read - sending, sent // len(tiles), needs, serialized)


def batches(tiles: Tiles, size: int = BATCH) -> list[Tiles]:
    """The tiles in lots, as a dataset reads them."""
    return [tiles[at : at + size] for at in range(0, len(tiles), size)]


def copied(db: Database, plan: Plan, tiles: Tiles, connections: int) -> None:
    """Have all tiles sent on so many connections, and throw them away."""
    with ThreadPoolExecutor(connections) as threads:
        list(threads.map(partial(thrown_away, db, plan), batches(tiles)))


def thrown_away(db: Database, plan: Plan, tiles: Tiles) -> int:
    """Bytes of the rows that one statement sends."""
    return sum(map(len, db.copy(plan.statement(tiles))))


def lasting(work: Callable[[], object]) -> float:
    """Seconds that it takes, the mean of as many times as fill half a second."""
    begun, times, spent = time.perf_counter(), 0, 0.0
    while spent < LEAST:
        work()
        times, spent = times + 1, time.perf_counter() - begun
    return spent / times


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _server(db: Database, plan: Plan, tiles: Tiles) -> float:
    said = db.ran(plan.statement(tiles))
    return sum(float(ms) for ms in re.findall(r"^(?:Planning|Execution) Time: ([\d.]+) ms", said, re.M)) / 1000


def needed(layer: OpenLayer) -> int:
    """Bytes of a tile's pixels as they are stored, and one for each pixel of a mask; of ragged layers none."""
    sheet = layer.sheet
    count = math.prod(side or 0 for side in sheet.shape)
    if isinstance(sheet, Mask):
        return count
    if stored := getattr(getattr(sheet, "pixels", sheet), "stored", ()):  # a time series holds the sheet of its steps
        return count * sum(PIXEL_TYPES[kind].itemsize for kind in stored) // len(stored)
    return count * np.dtype(sheet.dtype).itemsize
