"""Splits: tiles dealt to training, validation and test by blocks, columns or polygons, a true gap apart, and proof of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..template import compose

NAMES = ("train", "val", "test")
SETTINGS = "settings"  # of a split, in what made its tiles


class HasTiles(Protocol):
    """What a split needs of `Tiles`."""

    @property
    def srids(self) -> NDArray[np.int64]:
        """Of each."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """What tiles are called."""

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Where they are."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """What else is known of them."""

    @property
    def made(self) -> Mapping[str, Any]:
        """The call that made them."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: NDArray[Any], /) -> Self: ...

    def with_columns(self, **columns: Any) -> Self:
        """The same with more columns."""

    def zones(self) -> Iterator[tuple[int, NDArray[np.intp], Self]]:
        """Of each grid its number, the tiles' positions, and they alone."""

    def made_by(self, made: Mapping[str, Any]) -> Self:
        """The same, made by another call."""


class Asks(Protocol):
    """What a proof needs of a `Database`."""

    def ask(self, statement: Any) -> list[tuple[Any, ...]]:
        """All rows of a statement."""


class HasFeatures(Protocol):
    """What a proof needs of a layer of vectors."""

    def shown(self, db: Any, tiles: Any, sides: Sequence[str]) -> Shown:
        """The features that tiles on one grid show."""


Shown: TypeAlias = Mapping[tuple[str, str], Mapping[str, int]]
"""Of each class's name and feature's id, for each side one tile that shows it."""


class TooNear(NamedTuple):
    """Two tiles of different splits that are nearer to each other than the gap, or overlap."""

    tile: int
    split: str
    other: int
    other_split: str
    metres: float


class SharedFeature(NamedTuple):
    """A feature that tiles of different splits show: one tile's id for each split."""

    feature: str
    kind: str  # its class, where the labels have classes
    tiles: dict[str, int]


T = TypeVar("T", bound=HasTiles)


@dataclass(frozen=True, eq=False, repr=False)
class Split(Generic[T]):
    """Three tile sets, apart on the ground.

    tiles: all tiles that were kept, in their own order, with a column ``split`` that says train, val or test.
    dropped: how many lay too near to another split. outside: how many lay in none of the ``polygons=``.
    settings: what the split was made with: gap, block, seed, and so on.
    shares: of each quantity, by name (``tiles``, and what was stratified by), what each split got; all splits together have 1.
    """

    tiles: T
    dropped: int = 0
    outside: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sides_of(self.tiles)
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "shares", MappingProxyType(dict(self.shares)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tiles, self.dropped, self.outside, dict(self.settings), dict(self.shares))

    @classmethod
    def of(cls, tiles: T, **settings: Any) -> Split[T]:
        """The split that a tile set's column ``split`` says, as it was kept in a table or a file: nothing is dealt anew.

        settings: what it was made with, as ``gap=256``, where the tiles don't say it. Those that `split` dealt do, wherever
        they were kept.
        """
        sides = sides_of(tiles)
        got = {name: float((sides == name).mean()) if len(tiles) else 0.0 for name in NAMES}
        noted = tiles.made.get(SETTINGS, {}) if tiles.made.get("by") == "split" else {}
        return cls(tiles, settings={**noted, **settings}, shares={"tiles": got})

    @cached_property
    def train(self) -> T:
        """The tiles to learn from."""
        return self._part("train")

    @cached_property
    def val(self) -> T:
        """The tiles to choose by."""
        return self._part("val")

    @cached_property
    def test(self) -> T:
        """The tiles to judge by."""
        return self._part("test")

    def _part(self, name: str) -> T:
        return self.tiles[np.flatnonzero(sides_of(self.tiles) == name)]

    def __repr__(self) -> str:
        parts = ", ".join(f"{len(part)} {name}" for name in NAMES if len(part := getattr(self, name)))
        lost = f"{self.dropped} dropped" + (f", {self.outside} outside" if self.outside else "")
        return f"Split({parts or 'no tiles'}; {lost}{self._made_with()})"

    def _made_with(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.settings.items() if key != "shares")
        return f"; {said}" if said else ""

    def report(self) -> str:
        """Counts, shares and what was dropped, as a table in text."""
        want = self.settings.get("shares", {})
        columns = list(self.shares)
        lines = [f"{'':6}{'tiles':>9}{'wanted':>9}" + "".join(f"{'share of ' + name:>{len(name) + 12}}" for name in columns)]
        for name in NAMES:
            wanted = f"{want[name]:.1%}" if name in want else ""
            got = "".join(f"{self.shares[c].get(name, 0):>{len(c) + 12}.1%}" for c in columns)
            lines.append(f"{name:6}{len(getattr(self, name)):>9}{wanted:>9}{got}")
        whole = len(self.tiles) + self.dropped + self.outside
        lines.append(f"dropped {self.dropped} of {whole} ({self.dropped / max(whole, 1):.1%}), nearer than the gap to another")
        if self.outside:
            lines.append(f"outside {self.outside}, whose centre lies in no polygon")
        return "\n".join(lines)

    def proof(
        self, db: Asks, labels: HasFeatures | Mapping[str, HasFeatures] | None = None, *, gap: float | None = None
    ) -> list[TooNear | SharedFeature]:
        """What breaks the promise, as the server sees it: no row is the proof.

        Each pair of tiles of different splits that are nearer than the gap, measured by PostGIS on the ellipsoid; where the gap
        is 0, each that overlap.
        labels: a layer of `Labels` or `Vectors`, or a dict of such layers; then also each feature that tiles of several splits
        show, by the query's column ``id`` or the table's primary key.
        gap: ground metres, where they are not the split's own.
        """
        gap = self.settings.get("gap") if gap is None else gap
        if gap is None:
            raise ConfigError("gap=None: this split does not say its gap; give it, as in proof(db, gap=256)")
        check_gap(gap)
        sides = sides_of(self.tiles).tolist()
        bounds = self.tiles.bounds.T.tolist()
        near = db.ask(compose(
            "split_near", ids=self.tiles.ids.tolist(), sides=[NAMES.index(side) for side in sides], xmins=bounds[0],
            ymins=bounds[1], xmaxs=bounds[2], ymaxs=bounds[3], srids=self.tiles.srids.tolist(), gap=float(gap),
        ))  # fmt: skip
        found = [TooNear(a, NAMES[of_a], b, NAMES[of_b], metres) for a, of_a, b, of_b, metres in near]
        layers = labels if isinstance(labels, Mapping) else {} if labels is None else {"": labels}
        return [*found, *(feature for name, layer in layers.items() for feature in shared(db, self.tiles, sides, name, layer))]


def shared(db: Any, tiles: HasTiles, sides: Sequence[str], name: str, layer: HasFeatures) -> list[SharedFeature]:
    """The features of a layer that tiles of several sides show, whatever grids these lie on. name: of a class without one."""
    if not hasattr(layer, "shown"):
        raise ConfigError(f"{type(layer).__name__} burns no vectors: expected Labels or Vectors, or a dict of them")
    seen: dict[tuple[str, str], dict[str, int]] = {}
    for _, where, part in tiles.zones():
        for key, places in layer.shown(db, part, [sides[place] for place in where]).items():
            seen[key] = {**places, **seen.get(key, {})}
    return sorted(SharedFeature(key, kind or name, places) for (kind, key), places in seen.items() if len(places) > 1)


def check_gap(gap: float) -> None:
    """Raise `ConfigError` of what is no distance."""
    if not (isinstance(gap, int | float | np.number) and 0 <= gap < math.inf):
        raise ConfigError(f"gap={gap!r}: expected gap >= 0, in ground metres")


def sides_of(tiles: HasTiles) -> NDArray[Any]:
    """Their column ``split``; `ConfigError` where it does not say it of each."""
    sides = tiles.columns.get("split")
    if sides is None or sides.dtype.kind != "U" or not np.isin(sides, NAMES).all():
        odd = "there is none" if sides is None else f"found {np.setdiff1d(sides, NAMES)[:3].tolist()}"
        raise ConfigError(f"a column split, with train, val or test for each tile, says which tile is where: {odd}")
    return sides


def column_of(tiles: HasTiles, argument: str, name: str) -> NDArray[Any]:
    """A column; `ConfigError`, with the argument that asks for it, where there is none."""
    if name not in tiles.columns:
        there = ", ".join(map(repr, tiles.columns)) or "none"
        raise ConfigError(f"{argument}={name!r}: the tiles have no such column, but {there}; tiles.with_columns gives them one")
    return tiles.columns[name]
