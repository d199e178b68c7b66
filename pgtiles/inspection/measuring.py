"""Statistics of a dataset: tiles are read by the one read path, each once, by threads that count for themselves.

No layer is opened anew. What a layer of rasters becomes, its sheet, is only asked for floats that are NaN where there is no
data; so fill values don't enter a mean, and each band knows its own nodata. Tiles on several grids are read grid by grid.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, PgtilesWarning, QueryError
from ..layers.canvas import Mask, Sheet
from ..layers.pixels import Pixels
from ..layers.query import OpenLayer, over
from ..layers.timeseries import Steps
from ..layers.wkb import LIMITS, PIXEL_TYPES
from ..loading.newtable import Progress
from ..postgres.database import Database
from ..streaming.reading import Plan, Sample, read_batch
from ..template import compose
from ..tiling.tiles import Tiles
from .clusters import unmet
from .moments import BandTally, ClassTally
from .statistics import BandStatistics, ClassStatistics, HasTiles, Statistics, source_of

QUANTILES = (0.01, 0.02, 0.05, 0.25, 0.5, 0.75, 0.95, 0.98, 0.99)
AT_ONCE = 16  # tiles that one statement reads


class Measured(HasTiles, Protocol):
    """What `measure` needs of a `TileDataset`."""

    db: Database
    plan: Plan
    connections: int
    seed: int


def measure(dataset: Measured, *, sample: float | None = None, seed: int = 0, progress: Progress | None = None) -> Statistics:
    """The statistics of a dataset's layers on all of its tiles, or on a sample of them: see `TileDataset.statistics`."""
    db, plan, connections = dataset.db, dataset.plan, dataset.connections
    tiles = dataset.tiles if dataset.draws is None else dataset.draws.epoch(dataset.seed, 0)
    wanted = [layer for layer in plan.layers if _is_band(layer.sheet) or _is_mask(layer.sheet)]
    if not wanted:
        raise ConfigError(f"none of the layers {', '.join(dataset.layers)} has pixels of which there are statistics")
    limits = _limits_of(plan)
    chosen = tiles[_drawn(len(tiles), sample, seed)]
    todo = deque(
        (telling, part[k : k + AT_ONCE])
        for number, _, part in chosen.zones()
        for telling in [_told(plan.zones.get(number, plan))]
        for k in range(0, len(part), AT_ONCE)
    )
    masks = [layer.name for layer in wanted if _is_mask(layer.sheet)]
    lock, done = threading.Lock(), 0

    def count() -> _Tallies:
        nonlocal done
        own = _Tallies.of(wanted, limits)
        try:
            while todo:
                try:
                    telling, some = todo.popleft()
                except IndexError:  # another thread was quicker
                    break
                own.add(read_batch(db, telling, some).sample, _ground(db, some) if masks else np.zeros(len(some)))
                with lock:
                    done += len(some)
                    if progress:
                        progress(done, len(chosen))
        except BaseException:
            todo.clear()  # the others stop too
            raise
        return own

    with ThreadPoolExecutor(connections, thread_name_prefix="pgtiles") as threads:
        try:
            total, *others = [future.result() for future in [threads.submit(count) for _ in range(connections)]]
        finally:
            todo.clear()
    for other in others:
        total.merge(other)
    return total.statistics(wanted, len(chosen), len(tiles), seed, source_of(dataset))


def _drawn(count: int, sample: float | None, seed: int) -> NDArray[np.int64]:
    """Positions of the tiles to read. Of the same seed, a smaller sample is part of a larger one."""
    if sample is None:
        return np.arange(count)
    if (
        isinstance(sample, bool)
        or not isinstance(sample, int | float)
        or not 0 < sample <= (count if isinstance(sample, int) else 1)
    ):
        raise ConfigError(
            f"tiles={sample!r}: expected how many tiles, 1 to {count}, or a share of them, above 0.0 and up to 1.0"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed={seed!r}: expected a whole number, 0 or more")
    many = sample if isinstance(sample, int) else math.ceil(sample * count)
    return np.random.default_rng(seed).permutation(count)[:many]


def _is_band(sheet: Sheet) -> bool:
    """Whether a tile has bands, or is of floats, a height for instance: no classes."""
    if isinstance(sheet, Steps):
        return True
    return isinstance(sheet, Pixels | Mask) and (len(sheet.shape) == 3 or np.dtype(sheet.dtype).kind == "f")


def _is_mask(sheet: Sheet) -> bool:
    return isinstance(sheet, Pixels | Mask) and not _is_band(sheet)


def _told(plan: Plan) -> Plan:
    """The plan of one grid, by which layers of bands tell where they have no data."""
    return replace(plan, layers=tuple(replace(layer, sheet=_telling(layer.sheet)) for layer in plan.layers))


def _telling(sheet: Sheet) -> Sheet:
    """A sheet of rasters' bands that becomes floats, NaN where there is no data; any other as it is."""
    if isinstance(sheet, Steps):
        return replace(sheet, pixels=cast("Pixels", _telling(sheet.pixels)))
    if not (isinstance(sheet, Pixels) and _is_band(sheet)):
        return sheet
    dtype = np.dtype(sheet.dtype)
    if dtype.kind != "f":
        stored = np.result_type(dtype, *(PIXEL_TYPES[kind] for kind in sheet.stored))
        dtype = np.dtype("float32" if stored.itemsize <= 2 else "float64")
    return replace(sheet, dtype=dtype.name, fill=math.nan, holes=False)


def _limits_of(plan: Plan) -> dict[str, list[tuple[int, int] | None]]:
    """`_limits` of each layer of bands; of several grids, which may keep other types, those that hold for all."""
    found: dict[str, list[tuple[int, int] | None]] = {}
    for layer in (layer for one in (plan.zones.values() or [plan]) for layer in one.layers if _is_band(layer.sheet)):
        own = _limits(layer.sheet)
        pairs = zip(found.get(layer.name, own), own, strict=True)
        found[layer.name] = [(min(a[0], b[0]), max(a[1], b[1])) if a and b else None for a, b in pairs]
    return found


def _limits(sheet: Sheet) -> list[tuple[int, int] | None]:
    """Of each band, the limits of its whole numbers where they are so few that each is counted, else None."""
    if isinstance(sheet, Steps):
        return _limits(sheet.pixels)
    bands = cast("int", sheet.shape[0]) if len(sheet.shape) == 3 else 1
    if isinstance(sheet, Pixels) and sheet.stored and len(sheet.shape) == 3:
        kinds = [LIMITS.get(kind) if PIXEL_TYPES[kind].itemsize <= 2 else None for kind in sheet.stored]
        return [None if limits is None else (int(limits[0]), int(limits[1])) for limits in kinds]
    dtype = np.dtype(sheet.dtype)
    if dtype.kind in "iu" and dtype.itemsize <= 2:
        return [(int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))] * bands
    return [None] * bands


def _ground(db: Database, tiles: Tiles) -> NDArray[np.float64]:
    """Square metres of the ground of each tile; NaN where the server knows no place on Earth for them."""
    try:
        return np.array([area for (area,) in db.query(over(tiles, compose("tile_ground")))], np.float64)
    except QueryError:
        return np.full(len(tiles), np.nan)


@dataclass
class _Tallies:
    """What one thread has counted."""

    bands: dict[str, list[BandTally]]
    classes: dict[str, ClassTally]
    ignored: dict[str, float]  # of layers that ignore pixels, the value of these
    nowhere: int = 0  # tiles whose ground is not known

    @classmethod
    def of(cls, layers: list[OpenLayer], limits: Mapping[str, list[tuple[int, int] | None]]) -> _Tallies:
        return cls(
            {name: [BandTally(pair) for pair in pairs] for name, pairs in limits.items()},
            {one.name: ClassTally(one.ignore_index) for one in layers if _is_mask(one.sheet)},
            {one.name: one.ignore_index for one in layers if one.ignore_index is not None},
        )

    def add(self, batch: Sample, ground: NDArray[np.float64]) -> None:
        """A batch, tile by tile, so that the sums do not depend on its company."""
        for layer, tallies in self.bands.items():
            array: NDArray[Any] = batch[layer]
            if layer in self.ignored:  # no class, so of floats no data
                array = np.where(array == array.dtype.type(self.ignored[layer]), array.dtype.type(math.nan), array)
            for tile in array.astype(np.result_type(array.dtype, np.float32), copy=False):
                for band, tally in enumerate(tallies):
                    pixels = tile if len(tallies) == 1 and tile.ndim == 2 else tile[..., band, :, :]
                    try:
                        tally.add(np.ascontiguousarray(pixels).reshape(-1))
                    except DataError as error:
                        raise DataError(f"layer {layer!r}, band {band + 1}: {error}") from None
        for layer, mask in self.classes.items():
            for tile, area in zip(batch[layer], ground.tolist(), strict=True):
                mask.add(tile, 0.0 if math.isnan(area) else area / tile.size)
        self.nowhere += int(np.isnan(ground).sum())

    def merge(self, other: _Tallies) -> None:
        """Take in what another thread counted."""
        for layer, tallies in self.bands.items():
            for mine, its in zip(tallies, other.bands[layer], strict=True):
                mine.merge(its)
        for layer, mask in self.classes.items():
            mask.merge(other.classes[layer])
        self.nowhere += other.nowhere

    def statistics(self, layers: list[OpenLayer], read: int, of: int, seed: int, source: dict[str, Any]) -> Statistics:
        """What follows from the counts."""
        among = math.inf if "drawn" in source else of  # an epoch is a sample of all that could be drawn
        if self.nowhere:
            text = f"the CRS of the tiles gives no place on Earth for {self.nowhere} of {read} tiles: areas are not known"
            warnings.warn(text, PgtilesWarning, stacklevel=4)
        for layer, tallies in self.bands.items():
            for number, tally in enumerate(tallies, 1):
                if tally.infinite:
                    text = f"layer {layer!r}, band {number}: {tally.infinite} pixels are infinite, and left out"
                    warnings.warn(text, PgtilesWarning, stacklevel=4)
        names = {layer.name: layer.classes for layer in layers}
        return Statistics(
            tiles=read, of=of, seed=seed, source=source,
            bands={layer: [_band(tally, among) for tally in tallies] for layer, tallies in self.bands.items()},
            classes={
                layer: {
                    value: _class(tally, value, names[layer].get(value, ""), among, known=not self.nowhere)
                    for value in sorted(tally.classes.keys() | names[layer].keys())
                }
                for layer, tally in self.classes.items()
            },
            ignored={layer: tally.ignored / max(tally.ignored + tally.pixels, 1) for layer, tally in self.classes.items()},
            ignore_index={
                layer: int(self.ignored[layer]) if layer in self.ignored else None for layer in self.classes
            },
        )  # fmt: skip


def _band(tally: BandTally, of: float) -> BandStatistics:
    counts, edges = tally.histogram()
    return BandStatistics(
        pixels=tally.count, nodata=tally.absent / (tally.absent + tally.infinite + tally.count), infinite=tally.infinite,
        mean=tally.sum.value, interval=tally.sum.interval(of), std=tally.std,
        min=tally.least if tally.count else math.nan, max=tally.most if tally.count else math.nan,
        quantiles=dict(zip(QUANTILES, tally.quantiles(QUANTILES), strict=True)), counts=counts, edges=edges,
    )  # fmt: skip


def _class(tally: ClassTally, value: int, name: str, of: float, *, known: bool) -> ClassStatistics:
    share = tally.share(value)
    low, high = share.interval(of)
    one = tally.count_of(value)
    if not one.pixels and tally.tiles < of:
        low, high = 0.0, unmet(tally.tiles)  # that a sample has none of it does not say that there is none
    return ClassStatistics(
        name=name, pixels=one.pixels, share=share.value, interval=(max(low, 0.0), min(high, 1.0)),
        area=float(one.ground) if known else math.nan, tiles=one.tiles, beside=one.beside,
    )  # fmt: skip
