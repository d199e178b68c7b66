"""Truth and prediction on the tiles of one grid: opened as layers, read by batches, counted tile by tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..layers.attributes import GroupSheet, Key
from ..layers.canvas import Mask
from ..layers.pixels import Pixels
from ..layers.query import Layer, OpenLayer, over, relation
from ..postgres.database import Database
from ..streaming import surviving
from ..streaming.reading import Plan, Sample
from ..template import compose
from ..tiling.tiles import Tiles
from .boundaries import BoundaryTally, Reach, margin_of
from .metrics import Ints, Tally

AT_ONCE = 16  # tiles that one statement reads
MEASURED = 4096  # tiles whose metres one statement tells
WIDEST = 512  # pixels around a tile that a tolerance may ask for


@dataclass
class Tallies:
    """What is counted of some tiles."""

    all: Tally = field(default_factory=Tally)
    by: dict[Key, Tally] = field(default_factory=dict)
    boundaries: BoundaryTally = field(default_factory=BoundaryTally)
    untold: int = 0
    missing: int = 0
    bare: int = 0  # tiles with a truth and no prediction

    def merge(self, other: Tallies) -> None:
        """Take in what others counted."""
        self.all.merge(other.all)
        self.boundaries.merge(other.boundaries)
        for key, tally in other.by.items():
            self.by.setdefault(key, Tally()).merge(tally)
        self.untold, self.missing = self.untold + other.untold, self.missing + other.missing
        self.bare += other.bare


@dataclass(frozen=True)
class Comparison:
    """Tiles of one grid, the layers opened for them, and how far to look around each."""

    db: Database
    plan: Plan
    tiles: Tiles  # with the margin
    margin: tuple[int, int]
    reaches: list[Reach] | None

    @classmethod
    def of(cls, db: Database, tiles: Tiles, layers: Mapping[str, Layer], tolerance: float | None) -> Comparison:
        """Have the server open the layers ``truth`` and ``prediction``, which have to give classes, and others beside them."""
        reaches = None if tolerance is None else _reaches(db, tiles, tolerance)
        margin = (0, 0)
        if reaches is not None:
            down, across = zip(*map(margin_of, reaches), strict=True)
            margin = max(down), max(across)
            if max(margin) > WIDEST:
                raise ConfigError(f"tolerance={tolerance!r}: {max(margin) - 1} pixels; expected {WIDEST - 1} or fewer")
        wider = _wider(tiles, margin)
        plan = Plan.open(db, wider, layers)
        for one in plan.layers:
            if one.name == "by" and not isinstance(one.sheet, GroupSheet):
                raise ConfigError(
                    f"by={type(layers['by']).__name__}: expected a query that gives geom and columns, or Attributes"
                )
        checked = {
            one.name: replace(one, sheet=_checked(one, layers[one.name], wider)) if one.name in ("truth", "prediction") else one
            for one in plan.layers
        }
        return cls(db, replace(plan, layers=tuple(checked.values())), wider, margin, reaches)

    @property
    def names(self) -> dict[int, str]:
        """Of the classes: the truth's own go before the prediction's."""
        truth, prediction, *_ = self.plan.layers
        return prediction.classes | truth.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """The attributes."""
        sheets = (layer.sheet for layer in self.plan.layers)
        return next((sheet.names for sheet in sheets if isinstance(sheet, GroupSheet)), ())

    def count(self, start: int) -> tuple[Tallies, NDArray[np.float64]]:
        """What is counted of a batch, and of each of its tiles: pixels, wrong ones, mean IoU.  → (3, tiles)"""
        some = self.tiles[start : start + AT_ONCE]
        sample = surviving.read(self.db, self.plan, some).sample
        tallies, own = Tallies(), np.zeros((3, len(some)))
        (true, told), (found, foretold) = (self._classes(sample, some, number) for number in (0, 1))
        inner = tuple(slice(margin, size - margin) for margin, size in zip(self.margin, true.shape[1:], strict=True))
        for tile in range(len(some)):
            known = told[tile] & foretold[tile]
            here, mine, its = known[inner], true[tile][inner], found[tile][inner]
            untold, missing = (int(np.count_nonzero(w[inner])) for w in (~told[tile], told[tile] & ~foretold[tile]))
            tallies.untold, tallies.missing = tallies.untold + untold, tallies.missing + missing
            tallies.bare += bool(missing) and not here.any()
            alone = Tally()
            alone.add(mine[here], its[here])
            tallies.all.merge(alone)
            one = alone.confusion()
            own[:, tile] = one.pixels, one.pixels - int(one.right.sum()), one.mean("iou") if one.pixels else 1.0
            counted = np.zeros_like(known)
            counted[inner] = here
            for key, ((y0, y1, x0, x1), mask) in sample["by"][tile].items() if "by" in sample else ():
                where = np.s_[y0:y1, x0:x1]
                covered = mask & counted[where]
                if covered.any():
                    tallies.by.setdefault(key, Tally()).add(true[tile][where][covered], found[tile][where][covered])
            if self.reaches is not None:
                tallies.boundaries.add(true[tile], found[tile], known, self.reaches[start + tile], self.margin)
        return tallies, own

    def _classes(self, sample: Sample, tiles: Tiles, number: int) -> tuple[Ints, NDArray[np.bool_]]:
        """A layer's classes on each tile, and where it tells them."""
        layer = self.plan.layers[number]
        array: NDArray[Any] = sample[layer.name].reshape(len(tiles), *tiles.grid.shape)
        told: NDArray[np.bool_] = sample.get(f"{layer.name}_valid", np.ones(array.shape, np.bool_))
        if layer.ignore_index is not None:
            told = told & (array != array.dtype.type(layer.ignore_index))
        if array.dtype.kind == "f":
            odd = told & (np.rint(array) != array)  # NaN differs from itself
            if odd.any():
                tile, row, column = (int(place[0]) for place in np.nonzero(odd))
                raise DataError(
                    f"layer {layer.name!r}, tile {tiles.ids[tile]}: pixel value {array[tile, row, column]:g}: expected "
                    "classes, which are whole numbers; of probabilities take the likeliest class first"
                )
            array = np.where(told, array, 0)
        return array.astype(np.int64), told


def _checked(opened: OpenLayer, wanted: Layer, tiles: Tiles) -> Any:
    """The sheet of a layer that gives classes; rasters tell besides where they have data."""
    sheet, said = opened.sheet, f"layer {opened.name!r}"
    if not isinstance(sheet, Pixels | Mask):
        raise ConfigError(
            f"{said}: {type(wanted).__name__} gives no classes of pixels: expected Labels, or Imagery of one band"
        )
    if opened.resolution is not None:
        raise ConfigError(f"{said}: resolution= goes with layers to learn from: score on tiles of that resolution")
    if len(sheet.shape) == 3 and sheet.shape[0] != 1:
        raise ConfigError(
            f"{said} has {sheet.shape[0]} bands: expected one, of classes; bands=(1,) takes the first. Of probabilities take "
            "the likeliest class first"
        )
    if not isinstance(sheet, Pixels) or len(sheet.shape) == 2:
        return sheet
    if opened.path == "warped" and getattr(wanted, "resampling", "nearest") != "nearest":
        raise ConfigError(
            f"{said}: resampling={cast('Any', wanted).resampling!r} blends classes, and its pixels don't lie on the tiles' "
            f"lattice ({opened.why}): give resampling='nearest', or tiles on its lattice, Grid.like"
        )
    return replace(sheet, valid=True)


def _wider(tiles: Tiles, margin: tuple[int, int]) -> Tiles:
    """The tiles with so many more pixels on each side."""
    if margin == (0, 0):
        return tiles
    grid, (down, across) = tiles.grid, margin
    (sx, sy), (x, y), (height, width) = grid.pixel, grid.origin, grid.shape
    size = height + 2 * down, width + 2 * across
    return replace(tiles, grid=replace(grid, size=size, origin=(x - across * sx, y + down * sy)))


def _reaches(db: Database, tiles: Tiles, tolerance: float) -> list[Reach]:
    """The tolerance in pixels of each tile, down and across, at its own scale."""
    here, (sx, sy), found = relation(tiles.grid.srid, tiles.grid.srid, 0.0), tiles.grid.pixel, list[Reach]()
    for start in range(0, len(tiles), MEASURED):
        rows = db.query(over(tiles[start : start + MEASURED], compose("tile_metres", tile=here)))
        found += [(tolerance / (y * sy), tolerance / (x * sx)) for x, y in rows]
    return found
