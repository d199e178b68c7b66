"""Dealing groups of tiles to the sides of a split, so that each has its share of everything. Pure: arrays in, sides out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TRIES = 8  # orders in which groups are dealt, of which the fairest is taken
MOVES = 500  # of single groups from one side to another, after each


def deal(weights: Floats, want: Floats, seed: int) -> Ints:
    """The side of each group, so that each side has nearly what it wants of each quantity.  (G, C), (K, C) → (G,)

    weights: each group's share of each quantity, of which all groups together have 1. want: each side's; 0 for none at all.
    Groups are dealt in random order, each to the side that lacks most of what it brings, and then moved while that helps.
    """
    rng = np.random.default_rng(seed)
    few = TRIES if len(weights) <= 10_000 else 1  # where there are many, any order is fair
    found = [_dealt(weights, want, rng.permutation(len(weights))) for _ in range(few)]
    return min(found, key=lambda one: one[0])[1]


def _dealt(weights: Floats, want: Floats, order: Ints) -> tuple[float, Ints]:
    """How unfair it is, and the sides. Unfair is the sum of (has - wants)² / wants."""
    side, have = np.zeros(len(weights), np.int64), np.zeros_like(want)
    least = np.maximum(want, 1e-9)
    for group in order:
        weight = weights[group]
        side[group] = k = ((2 * (have - want) * weight + weight**2) / least).sum(axis=1).argmin()
        have[k] += weight
    each = np.arange(len(weights))
    for _ in range(MOVES):
        lack = (have - want) / least
        grows = 2 * weights @ lack.T + weights**2 @ (1 / least).T  # (G, K) by how much unfairness grows with one more group
        own = side[each]
        shrinks = -2 * (weights * lack[own]).sum(axis=1) + (weights**2 / least[own]).sum(axis=1)
        change = grows + shrinks[:, None]
        change[each, own] = 0
        group, k = np.unravel_index(change.argmin(), change.shape)
        if change[group, k] > -1e-12:
            break
        have[side[group]] -= weights[group]
        have[k] += weights[group]
        side[group] = k
    return float(((have - want) ** 2 / least).sum()), side
