"""Which tile when: pure functions of (seed, epoch, number of tiles). No I/O, no state.

A unit is what a dataset yields at once, a batch or a single tile. Units are dealt to the workers of a DataLoader in turn,
because a DataLoader takes from its workers in turn: so the stream is the same for any number of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: bool) -> NDArray[np.int64]:
    """Positions of all n tiles in the order of this epoch.  → (n,)"""
    if not shuffle:
        return np.arange(n)
    return np.random.default_rng([seed, epoch]).permutation(n)


def count_units(n: int, *, unit: int, drop_last: bool) -> int:
    """How many units of `unit` tiles an epoch over n tiles has."""
    return n // unit if drop_last else -(-n // unit)


def units(order: NDArray[np.int64], *, unit: int, drop_last: bool) -> list[NDArray[np.int64]]:
    """The order cut into units.  (n,) → count_units × (unit,), the last one shorter unless dropped"""
    return [order[k * unit : (k + 1) * unit] for k in range(count_units(len(order), unit=unit, drop_last=drop_last))]


def share(all_units: list[NDArray[np.int64]], *, worker: int, workers: int) -> list[NDArray[np.int64]]:
    """The units of one worker; a DataLoader asks worker 0, 1, …, 0, 1, … in turn.  m × (unit,) → ~m/workers × (unit,)"""
    return all_units[worker::workers]
