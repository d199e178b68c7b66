"""Tiles chosen by what is known of them: filtered, or drawn anew for each epoch, by weight or at random. No I/O, no state.

What differs from epoch to epoch is a pure function of (seed, epoch), so every worker of a DataLoader knows the same by itself.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, PgtilesWarning
from .grid import Grid, whole

MANY = 10  # that a tile comes more often in an epoch is worth a warning
STRIPS = 16  # into which density cuts the radius: north to south, distances are told to one of them
DRAWN, MADE = 1, 2  # keep the random numbers of draws apart from those of the order, which come of (seed, epoch) alone


class Sliceable(Protocol):
    """What this needs of a set of tiles."""

    @property
    def grid(self) -> Grid: ...  # noqa: D102
    @property
    def ids(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def columns(self) -> Mapping[str, NDArray[Any]]: ...  # noqa: D102
    @property
    def bounds(self) -> NDArray[np.float64]: ...  # noqa: D102
    def __len__(self) -> int: ...
    def __getitem__(self, which: NDArray[np.int64], /) -> Self: ...


T = TypeVar("T", bound=Sliceable)


@dataclass(frozen=True, eq=False)
class Draws(ABC, Generic[T]):
    """What `TileDataset` reads in each epoch, in place of a fixed set: see `Tiles.weighted`, `Tiles.balanced`, `Tiles.fresh`.

    tiles: all that may be drawn; of tiles made anew, those of a first epoch. Layers are checked on them.
    count: how many an epoch reads.
    """

    tiles: T
    count: int

    @property
    def grid(self) -> Grid:
        """On which all of them lie."""
        return self.tiles.grid

    def __len__(self) -> int:
        return self.count

    @abstractmethod
    def epoch(self, seed: int, epoch: int) -> T:
        """The tiles that this epoch reads; one may be there more than once. The same arguments give the same tiles."""


@dataclass(frozen=True, eq=False)
class Weighted(Draws[T]):
    """Tiles drawn by weight, with replacement."""

    weights: NDArray[np.float64] = field(repr=False)

    def epoch(self, seed: int, epoch: int) -> T:
        """Each tile as often as its weight says, rounded up or down by chance, in the tiles' own order."""
        rng = np.random.default_rng([seed, epoch, DRAWN])
        mixed = rng.permutation(len(self.weights))
        reach = np.cumsum(self.weights[mixed])
        # marks at equal distances along the weights, laid end to end in a random order: a tile never comes more than once too
        # often or too seldom, as it would by draws of which none knows of another
        marks = (rng.random() + np.arange(self.count)) * (reach[-1] / self.count)
        drawn = np.minimum(np.searchsorted(reach, marks, side="right"), len(mixed) - 1)
        return self.tiles[np.sort(mixed[drawn])]


@dataclass(frozen=True, eq=False)
class Fresh(Draws[T]):
    """Tiles made anew for each epoch."""

    make: Callable[..., T] = field(repr=False)  # takes seed and first_id

    def epoch(self, seed: int, epoch: int) -> T:
        """New tiles, whose ids no other epoch has."""
        return _made(self.make, self.count, seed, epoch)


def _made(make: Callable[..., T], count: int, seed: int, epoch: int) -> T:
    own = int(np.random.SeedSequence([seed, epoch, MADE]).generate_state(1, np.uint64)[0])
    return make(seed=own, first_id=epoch * count)


def fresh(make: Callable[..., T], count: int) -> Fresh[T]:
    """Draws of a function that makes `count` tiles from a seed, numbered from first_id on."""
    return Fresh(_made(make, count, 0, 0), count, make)


def weighted(tiles: T, weights: str | Sequence[float] | NDArray[Any], count: int | None) -> Weighted[T]:
    """See `Tiles.weighted`."""
    whole("count", count := len(tiles) if count is None else count, 1)
    given = np.asarray(_Columns(tiles.columns)[weights] if isinstance(weights, str) else weights)
    if given.dtype.kind not in "biuf" or given.shape != (len(tiles),):
        raise ConfigError(f"weights: expected {len(tiles)} numbers, found an array of {given.dtype} {given.shape}")
    numbers = given.astype(float)
    if not (np.isfinite(numbers) & (numbers >= 0)).all() or not numbers.any():
        raise ConfigError("weights: expected finite numbers, 0 or more, and one above 0")
    some = np.flatnonzero(numbers)  # what is never drawn need not be checked
    return Weighted(tiles[some], count, numbers[some])


def balanced(tiles: T, by: str, share: float | None, count: int | None) -> Weighted[T]:
    """See `Tiles.balanced`."""
    column = _Columns(tiles.columns)[by]
    if share is None:
        if column.dtype.kind == "f":
            raise ConfigError(f"by={by!r}: its numbers are no categories: say share=, what their mean shall be")
        return weighted(tiles, equal(column), count)
    if column.dtype.kind not in "biuf" or not len(column) or not np.isfinite(column).all():
        raise ConfigError(f"by={by!r}: expected a column of finite numbers, the shares of a class")
    drawn = weighted(tiles, tilted(by, column.astype(float), share), count)
    times = drawn.weights * (drawn.count / drawn.weights.sum())
    often = MANY * max(1, drawn.count / len(tiles))  # a long epoch reads each tile again and again, which is asked for
    if times.max() > often:
        warnings.warn(
            f"share={share:g} of {by!r} is reached by the same tiles again and again: in an epoch of {drawn.count}, "
            f"{(times > often).sum()} of them come more than {often:g} times each, and tile {drawn.tiles.ids[times.argmax()]} "
            f"{round(times.max())} times. A smaller share, or more tiles that show it, repeat less",
            PgtilesWarning,
            stacklevel=3,
        )
    return drawn


def kept(
    tiles: Sliceable, keep: Callable[[Mapping[str, NDArray[Any]]], NDArray[np.bool_]], negatives: float, seed: int
) -> NDArray[np.int64]:
    """Positions of the tiles that `Tiles.filter` keeps."""
    whole("seed", seed, 0)
    if not 0 <= negatives <= 1:
        raise ConfigError(f"negatives={negatives!r}: expected the share of the other tiles that is kept, 0 to 1")
    met = np.array(keep(_Columns({"id": tiles.ids, **tiles.columns})))
    if met.dtype != bool or met.shape != (len(tiles),):
        raise ConfigError(f"filter: expected a truth for each of {len(tiles)} tiles, found an array of {met.dtype} {met.shape}")
    others = np.flatnonzero(~met)
    met[np.random.default_rng(seed).choice(others, round(negatives * len(others)), replace=False)] = True
    return np.flatnonzero(met)


def density(tiles: Sliceable, radius: float) -> NDArray[np.int64]:
    """See `Tiles.density`."""
    if not 0 < radius < math.inf:
        raise ConfigError(f"radius={radius!r}: expected CRS units, above 0")
    xmin, ymin, xmax, ymax = tiles.bounds.T
    return neighbours((xmin + xmax) / 2, (ymin + ymax) / 2, float(radius)) if len(tiles) else np.zeros(0, np.int64)


class _Columns(dict[str, NDArray[Any]]):
    """Columns by their names; of one that is not there, an error that says which are."""

    def __missing__(self, name: str) -> NDArray[Any]:
        raise ConfigError(f"these tiles have no column {name!r}, but {', '.join(self)}; describe and with_columns add more")


def repeats(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each id, how many times it has come before.  (N,) → (N,)"""
    order = np.argsort(ids, kind="stable")
    ranked = ids[order]
    first = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[: len(ids)])
    times = np.empty(len(ids), np.int64)
    times[order] = np.arange(len(ids)) - np.repeat(first, np.diff(np.append(first, len(ids))))
    return times


def equal(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Weights by which each of the values comes equally often."""
    _, which, many = np.unique(values, return_inverse=True, return_counts=True)
    return cast("NDArray[np.float64]", 1 / many[which.reshape(-1)])


def tilted(name: str, shares: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Weights by which the mean of the shares becomes `share`: of all such weights, those nearest to equal ones.

    They are exp(k × share of the tile) for one k, by which the information that a draw loses is least.
    """
    least, most = float(shares.min()), float(shares.max())
    if not least < share < most:
        raise ConfigError(
            f"share={share!r} of {name!r} can't be reached by drawing these tiles: the one that has most of it has {most:.4g}, "
            f"the one that has least {least:.4g}; expected a share between. Smaller tiles, or tiles centred on it, have more"
        )
    values, which, many = np.unique(shares, return_inverse=True, return_counts=True)  # most tiles have none of a rare class
    centred = (values - share) / (most - least)

    def weigh(k: float) -> NDArray[np.float64]:
        powers = k * centred
        return cast("NDArray[np.float64]", np.exp(powers - powers.max()))

    def excess(k: float) -> float:
        return float(weigh(k) * many @ centred)

    low, high = -1.0, 1.0
    while excess(low) > 0:
        low *= 2
    while excess(high) < 0:
        high *= 2
    for _ in range(60):  # the mean grows with k: halve the interval to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return weigh(high)[which.reshape(-1)]


def neighbours(x: NDArray[np.float64], y: NDArray[np.float64], radius: float) -> NDArray[np.int64]:
    """How many of the points lie within the radius of each, itself included.  (N,), (N,) → (N,)

    Points are sorted into strips from west to east, a 16th of the radius high, along which binary searches count. So the
    distance north to south is that of the strips' middles.
    """
    height = radius / STRIPS
    strip = np.floor((y - y.min()) / height)
    width = x.max() - x.min() + 2 * radius + 1  # so far apart that a search never reaches into the next strip
    along = strip * width + (x - x.min())
    ranked = np.sort(along)
    found = np.zeros(len(x), np.int64)
    order = np.argsort(along)  # searches for sorted values stay in the processor's cache
    at, sorted_strip = along[order], strip[order]
    highest = strip.max()
    for step in range(-STRIPS, STRIPS + 1):
        reach = np.sqrt(radius**2 - (step * height) ** 2)
        there = (sorted_strip + step >= 0) & (sorted_strip + step <= highest)
        low = np.searchsorted(ranked, at[there] + step * width - reach, side="left")
        high = np.searchsorted(ranked, at[there] + step * width + reach, side="right")
        found[order[there]] += high - low
    return found
