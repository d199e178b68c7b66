"""Reading a batch whatever its server or some of its tiles do: tries again, then tile by tile, and at last without the worst.

A batch that is given up is read tile by tile, so that an error names the one that can't be read, and the others come all the
same: bit for bit what one statement gives, in their order.
"""

from __future__ import annotations

import logging
from functools import partial

import numpy as np

from ..errors import DataError, OutageError, PgtilesError, PoisonError, SlowError
from ..layers.canvas import Zeros
from ..postgres import faults
from ..postgres.database import Database
from ..postgres.retrying import TRIES_SLOW
from ..tiling.tiles import Tiles
from .reading import Batch, Plan, Sample, Skipped, bounds_of, nothing, read_batch

log = logging.getLogger("pgtiles")
NAMED = 5  # tiles that an error names


def read(db: Database, plan: Plan, tiles: Tiles, zeros: Zeros = np.zeros, *, skip: bool = False) -> Batch:
    """One batch, as `read_batch` gives it, however often that takes.

    skip: leave out the tiles that can't be read; `Batch.skipped` says which, and why. Else the first one raises.
    Raises `OutageError` where the server stays away, and what is wrong with all tiles alike.
    """
    try:
        # a batch that is out of time is at once read tile by tile: it is the tiles that have several tries
        tries = TRIES_SLOW if len(tiles) == 1 else 1
        return db.retry(partial(read_batch, db, plan, tiles, zeros), partial(called, tiles), tries)
    except PgtilesError as error:
        if not _of_a_tile(error, skip):
            raise
        if len(tiles) == 1:
            if not skip:
                raise type(error)(f"{error}; a dataset with on_error='skip' leaves such tiles out") from error
            return _without(plan, tiles, error)
        level = logging.WARNING if isinstance(error, PoisonError | SlowError) else logging.INFO
        log.log(level, "%s: a batch is read tile by tile: %s", db.name, error)
    return _joined([read(db, plan, tiles[tile], skip=skip) for tile in range(len(tiles))], nothing(plan, tiles))


def _of_a_tile(error: PgtilesError, skip: bool) -> bool:
    """Whether a tile alone may be the cause, so that it helps to read them one by one."""
    if isinstance(error, PoisonError | SlowError):
        return True
    if not skip or isinstance(error, OutageError):
        return False
    origin = faults.origin(error)
    return isinstance(error, DataError) if origin is None else (origin.sqlstate or "")[:2] in faults.OF_TILES


def _without(plan: Plan, tiles: Tiles, error: PgtilesError) -> Batch:
    """The batch that is left of a tile that can't be read."""
    log.warning("%s is left out: %s", called(tiles), error)
    return nothing(plan, tiles)._replace(skipped=(Skipped(0, int(tiles.ids[0]), str(error)),))


def called(tiles: Tiles) -> str:
    """Some tiles, for messages."""
    if len(tiles) == 1:
        return f"tile {tiles.ids[0]} at {bounds_of(tiles, 0)}"
    more = f" and {len(tiles) - NAMED} more" if len(tiles) > NAMED else ""
    return f"tiles {', '.join(map(str, tiles.ids[:NAMED].tolist()))}{more}"


def _joined(batches: list[Batch], none: Batch) -> Batch:
    """Batches of single tiles as one, in their order. none: a batch of no tile."""
    sample: Sample = {}
    for key, values in none.sample.items():
        parts = [batch.sample[key] for batch in batches]
        sample[key] = [array for part in parts for array in part] if isinstance(values, list) else np.concatenate(parts)
    empty = tuple(map(sum, zip(*(batch.empty for batch in batches), strict=True)))
    united = tuple(map(sum, zip(*(batch.united for batch in batches), strict=True)))
    skipped = (one._replace(at=tile) for tile, batch in enumerate(batches) for one in batch.skipped)
    return Batch(sample, empty, united, tuple(skipped))
