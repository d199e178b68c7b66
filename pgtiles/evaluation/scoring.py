"""A prediction beside the truth, tile by tile: both are layers, read by the one read path, and only counts are kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, DataError, PgtilesWarning
from ..inspection.statistics import source_of
from ..layers.attributes import Attributes, Key
from ..layers.imagery import Imagery
from ..layers.query import Layer
from ..loading.newtable import Progress
from ..postgres.database import Database
from ..streaming.ahead import ahead
from ..streaming.reading import Sample, read
from ..tiling.draws import Draws
from ..tiling.grid import whole
from ..tiling.tiles import Tiles
from .comparing import AT_ONCE, Comparison, Tallies
from .scores import Score

if TYPE_CHECKING:
    from ..layers.features import Source

MANY = 16  # values of a prediction that no class of the truth has


def score(
    db: Database,
    tiles: Tiles,
    truth: Layer,
    prediction: Layer,
    *,
    by: Source | Layer | None = None,
    tolerance: float | None = None,
    image: Layer | None = None,
    classes: Mapping[int, str] | None = None,
    connections: int = 2,
    progress: Progress | None = None,
) -> Score:
    """Compare a prediction with the truth on some tiles, pixel by pixel. What lies on two tiles counts twice.

    truth: `Labels`, or any layer of one band of whole numbers. Pixels of its ``ignore_index`` are left out.
    prediction: the same; of a raster table ``Imagery(table, resampling="nearest")``, which knows where it has no data: such
    pixels are left out and counted, and a tile without any prediction is warned of. `Labels` has its background there.
    by: a query, or `Attributes`: all columns but ``geom`` name groups, each of which is scored on the pixels that its features
    cover. It may name ``tile``, and should: ``WHERE geom && tile.geom``.
    tolerance: ground metres: for each class, how much of the predicted boundary lies that near to the true one, and the other
    way round. Tiles are read with so wide a margin, so that no tile's edge is any.
    image: what `Score.plot_worst` shows beside.
    classes: names of the values, where the layers don't know them.
    connections: how many read at a time.
    progress: is told tiles read and tiles to read.

    The memory that it takes is that of some tiles and of their errors, however large the map is.
    """
    whole("connections", connections, 1)
    if tolerance is not None and not (isinstance(tolerance, int | float) and 0 < tolerance < math.inf):
        raise ConfigError(f"tolerance={tolerance!r}: expected ground metres, above 0")
    if odd_names := [value for value in classes or () if not isinstance(value, int | np.integer)]:
        raise ConfigError(
            f"classes: {odd_names[0]!r} is no whole number: expected names by their values, such as {{1: 'road'}}"
        )
    if not len(tiles):
        raise ConfigError("tiles: there is no tile to score")
    layers: dict[str, Layer] = {"truth": truth, "prediction": prediction}
    if image is not None and getattr(truth, "ignore_missing", None) == "image":
        layers["image"] = image
    read_by = layers if by is None else {**layers, "by": by if hasattr(by, "open") else Attributes(by)}
    errors, total, done = np.zeros((3, len(tiles))), Tallies(), 0
    names: dict[int, str] = {}
    columns: tuple[str, ...] = ()
    for _, where, part in tiles.zones():
        job = Comparison.of(db, part, read_by, tolerance)
        names = job.names | names
        columns = job.columns
        starts = range(0, len(part), AT_ONCE)
        found = ahead(job.count, starts, threads=connections, interrupt=db.interrupt)
        for start, (tallies, own) in zip(starts, found, strict=True):
            errors[:, where[start : start + AT_ONCE]] = own
            total.merge(tallies)
            done += own.shape[1]
            if progress:
                progress(done, len(tiles))
    if not total.all.pairs:
        raise DataError(
            f"of no pixel of these {len(tiles)} tiles both truth and prediction tell a class: do they lie there? "
            f"{total.untold} pixels are left out by the truth, {total.missing} by the prediction"
        )
    if total.bare:
        text = f"{total.bare} of {len(tiles)} tiles have a truth and no prediction at all: they count for nothing"
        warnings.warn(text, PgtilesWarning, stacklevel=2)
    names |= classes or {}
    odd = total.all.predicted - total.all.true - names.keys()
    if len(odd) > MANY:
        text = (
            f"the prediction has {len(odd)} values, from {min(odd)} to {max(odd)}, that are no class of the truth: does it give"
        )
        warnings.warn(f"{text} classes, or probabilities?", PgtilesWarning, stacklevel=2)
    shown = {**({} if image is None else {"image": image}), "truth": truth, "prediction": prediction}
    confusion = total.all.confusion(names)
    pixels, wrong, iou = errors
    known = tiles.with_columns(pixels=pixels.astype(np.int64), error=wrong / np.maximum(pixels, 1), iou=iou)
    return Score(
        confusion=confusion, names={value: names.get(value, "") for value in confusion.values}, by_columns=columns,
        by={key: total.by[key].confusion(confusion.values) for key in sorted(total.by, key=_sorted)}, tolerance=tolerance,
        boundaries=total.boundaries.found(), untold=total.untold, missing=total.missing, tiles=known,
        source=source_of(_Compared(tiles, read_by)), look=partial(_look, db, shown, min(confusion.values) - 1),
    )  # fmt: skip


@dataclass
class _Compared:
    """What `source_of` asks of a dataset."""

    tiles: Tiles
    layers: dict[str, Any]
    draws: Draws[Tiles] | None = None


def _look(db: Database, layers: Mapping[str, Layer], none: int, tiles: Tiles) -> tuple[Sample, int]:
    """Some tiles, both sides as masks to be drawn, and what stands where one tells no class: the truth's value or ``none``."""
    wished = {name: replace(layer, valid=True) if isinstance(layer, Imagery) else layer for name, layer in layers.items()}
    sample = read(db, tiles, wished)
    told = {name: sample.pop(f"{name}_valid", np.True_) for name in layers}
    ignored = getattr(layers["truth"], "ignore_index", None)
    instead = none if ignored is None else int(ignored)
    for name in ("truth", "prediction"):  # a raster's one band, as a mask to be drawn in colours
        classes = sample[name].reshape(len(tiles), *tiles.grid.shape)
        left_out = getattr(layers[name], "ignore_index", None)
        there = told[name] if left_out is None else told[name] & (classes != left_out)
        sample[name] = np.where(there, np.where(there, classes, 0).astype(np.int64), instead)
    return sample, instead


def _sorted(key: Key) -> list[tuple[str, Any]]:
    """By each attribute in turn; those of a kind together, and NULL first."""
    kinds = ["" if one is None else "number" if isinstance(one, int | float) else "text" for one in key]
    return [(kind, 0 if one is None else one) for kind, one in zip(kinds, key, strict=True)]
