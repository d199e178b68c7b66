"""How a split is made of groups of tiles: how they are dealt, and which tiles the gap takes."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, PgtilesWarning
from .dealing import deal
from .land import Land
from .splits import NAMES, SETTINGS, HasTiles, Split, T, column_of

ROUNDS = 6  # of dealing, each making up for what the gap took in the one before
MOST_DROPPED = 0.2
MOST_VALUES = 50  # of a column of names by which is stratified


def split(
    tiles: T, shares: Mapping[str, float], groups: NDArray[np.int64], land: Land, *, gap: float, seed: int,
    stratify: Sequence[str], tolerance: float, settings: Mapping[str, Any],
) -> Split[T]:  # fmt: skip
    """Deal whole groups, and drop what comes too near: test tiles all stay, val gives way to them, and train to both.

    groups: of each tile, -1 for none.
    """
    names = [name for name in NAMES if shares[name] > 0]
    want = np.array([shares[name] for name in names], float)
    want /= want.sum()
    called, amounts = _amounts(tiles, stratify)
    inside = groups >= 0
    weights = np.stack([np.bincount(groups[inside], column[inside]) for column in amounts], axis=1)
    weights = weights / np.maximum(weights.sum(axis=0), 1e-300)
    target, best = np.repeat(want[:, None], len(called), axis=1), math.inf
    for _ in range(ROUNDS):
        dealt = np.append(deal(weights, target, seed), -1)[groups]
        kept = clear(land, dealt, gap)
        got = np.stack([np.bincount(dealt[kept], column[kept], len(names)) for column in amounts], axis=1)
        got = got / np.maximum(got.sum(axis=0), 1e-300)
        if (off := float(np.abs(got - want[:, None]).max())) < best:
            best, side, stay, reached = off, dealt, kept, got
        if off <= tolerance:
            break
        target = target * np.clip(want[:, None] / np.maximum(got, 1e-9), 0.5, 2)
        target /= target.sum(axis=0)
    said = {**settings, "stratify": list(stratify), "shares": dict(zip(names, want.tolist(), strict=True))}
    made = Split(
        _dealt(tiles, stay, np.array(names)[side[stay]], said), int(inside.sum() - stay.sum()), int((~inside).sum()), said,
        {name: dict(zip(names, reached[:, c].tolist(), strict=True)) for c, name in enumerate(called)},
    )  # fmt: skip
    _say(made, names, stratify, tolerance, best, len(weights))
    return made


def folds(tiles: T, k: int, groups: NDArray[np.int64], land: Land, *, gap: float, seed: int, settings: Mapping[str, Any],
          ) -> list[Split[T]]:  # fmt: skip
    """Each tile is in val of one fold; in the others it is in train, unless it lies too near to that one's val."""
    inside = groups >= 0
    weights = np.bincount(groups[inside]).astype(float)[:, None]
    dealt = np.append(deal(weights / max(weights.sum(), 1), np.full((k, 1), 1 / k), seed), -1)[groups]
    made = []
    for fold in range(k):
        side = np.where(inside, (dealt == fold).astype(np.int64), -1)
        stay = clear(land, side, gap)
        said = {**settings, "fold": fold, "folds": int(k), "shares": {"train": 1 - 1 / k, "val": 1 / k}}
        kept = _dealt(tiles, stay, np.array(["train", "val"])[side[stay]], said)
        one = Split(kept, int(inside.sum() - stay.sum()), int((~inside).sum()), said, Split.of(kept).shares)
        _say(one, ["train", "val"], (), 1, 0, len(weights))
        made.append(one)
    return made


def _dealt(tiles: T, stay: NDArray[np.bool_], sides: NDArray[Any], settings: Mapping[str, Any]) -> T:
    """The tiles that stay, with their sides, and what they were dealt with, which goes where they go."""
    kept = tiles[np.flatnonzero(stay)].with_columns(split=sides.astype("U5"))
    return kept.made_by({"by": "split", SETTINGS: settings, "of": tiles.made})


def clear(land: Land, side: NDArray[np.int64], gap: float) -> NDArray[np.bool_]:
    """Which tiles stay, so that none of one side is near to one of another: each side gives way to those after it."""
    kept = side >= 0
    for k in range(int(side.max(initial=0)) - 1, -1, -1):
        mine, others = np.flatnonzero(side == k), np.flatnonzero(kept & (side > k))
        kept[mine] = ~land.near(mine, others, gap)
    return kept


def _amounts(tiles: HasTiles, stratify: Sequence[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Names of all that is to be shared out, tiles first, and how much of it each tile has.  → (C, N)"""
    called, amounts = ["tiles"], [np.ones(len(tiles))]
    for name in stratify:
        column = column_of(tiles, "stratify", name)
        if column.dtype.kind == "U":
            values = np.unique(column).tolist()
            if len(values) > MOST_VALUES:
                raise ConfigError(
                    f"stratify={name!r}: {len(values)} different texts; expected {MOST_VALUES} at most, or numbers"
                )
            called += [f"{name}={value}" for value in values]
            amounts += [(column == value).astype(float) for value in values]
            continue
        numbers = column.astype(float) if column.dtype.kind in "biuf" else np.array([np.nan])
        if not (np.isfinite(numbers) & (numbers >= 0)).all() or (len(tiles) and not numbers.any()):
            raise ConfigError(
                f"stratify={name!r}: expected an amount for each tile, 0 or more and not 0 everywhere, such as a class's area; "
                f"found {column.dtype} from {column.min()} to {column.max()}"
            )
        called.append(name)
        amounts.append(numbers)
    return called, np.stack(amounts)


def _say(made: Split[Any], names: Sequence[str], stratify: Sequence[str], tolerance: float, off: float, groups: int) -> None:
    """Warn of what is not as one may think."""
    said = []
    if lost := [name for name in names if not len(getattr(made, name))]:
        said.append(f"no tile is left for {' and '.join(lost)}: the tiles lie in {groups} groups; more of them, as smaller "
                    "blocks are, give each split its share")  # fmt: skip
    whole = len(made.tiles) + made.dropped + made.outside
    gap = made.settings["gap"]
    if made.outside and made.dropped + made.outside > MOST_DROPPED * whole:
        said.append(
            f"{made.outside} of {whole} tiles were left out because their centre lies in none of the polygons: polygons that "
            "cover the tiles' land, or tiles within them (within=), lose none"
        )
    if made.dropped > MOST_DROPPED * whole:
        fewer = "larger blocks" if "block" in made.settings else "groups that lie together"
        said.append(
            f"{made.dropped} of {whole} tiles were dropped because they lie within gap={gap:g} m of another split: "
            f"{fewer}, a smaller gap, smaller tiles or a smaller share of val and test lose fewer"
        )
    if stratify and off > tolerance:
        said.append(f"shares are off by up to {off:.3f}, more than tolerance={tolerance:g}: smaller groups are dealt more "
                    f"evenly. What was reached:\n{made.report()}")  # fmt: skip
    for text in said:
        warnings.warn(text, PgtilesWarning, stacklevel=4)
