"""Which tile when: pure functions of (seed, epoch, number of tiles, global batch size). No I/O, no state.

A unit is what a dataset yields at once, a batch or a single tile. A step of training takes one unit of each rank; what all
ranks together take is the global batch, the next tiles of the epoch's order. So it is the same for any number of ranks that
divides it. A rank's units are dealt to the workers of its DataLoader in turn, because a DataLoader takes from its workers in
turn: so the stream is the same for any number of workers.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Last = Literal["even", "drop", "pad", "uneven"]
LAST: tuple[Last, ...] = get_args(Last)  # what becomes of the tiles that fill no global batch any more


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    """Positions of all n tiles in the order of this epoch.  → (n,)"""
    if not shuffle:
        return np.arange(n)
    return np.random.default_rng([seed, epoch]).permutation(n)


def left_over(n: int, *, unit: int, world_size: int) -> int:
    """How many of n tiles fill no global batch of `world_size` units any more."""
    return n % (unit * world_size)


def count_units(n: int, *, unit: int, last: Last, rank: int = 0, world_size: int = 1) -> int:
    """How many units of `unit` tiles an epoch over n tiles has for a rank."""
    left = left_over(n, unit=unit, world_size=world_size)
    some = {"drop": False, "pad": left > 0}.get(last, left > rank)
    return n // (unit * world_size) + some


def units(order: NDArray[np.int64], *, unit: int, last: Last, rank: int = 0, world_size: int = 1) -> list[NDArray[np.int64]]:
    """The units of a rank, one of each global batch.  (n,) → count_units × (unit,)

    Of a last global batch that is not full, each rank has an equal share, to one tile, in the order of ranks; "drop" leaves it
    out; "pad" fills it up with the epoch's first tiles, which then come twice.
    """
    whole = len(order) - left_over(len(order), unit=unit, world_size=world_size)
    mine = list(order[:whole].reshape(-1, world_size, unit)[:, rank])
    rest = order[whole:]
    if last == "pad" and len(rest):
        mine.append(np.resize(np.concatenate([rest, order]), (world_size, unit))[rank])
    elif last != "drop" and len(rest) > rank:
        mine.append(np.array_split(rest, world_size)[rank])
    return mine


def share(all_units: list[NDArray[np.int64]], *, worker: int, workers: int) -> list[NDArray[np.int64]]:
    """The units of one worker; a DataLoader asks worker 0, 1, …, 0, 1, … in turn.  m × (unit,) → ~m/workers × (unit,)"""
    return all_units[worker::workers]
