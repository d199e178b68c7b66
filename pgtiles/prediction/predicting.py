"""Predicting: what a model says of tiles, blended where they overlap, into a raster table; the mirror of reading.

The area is worked through strip by strip and, in a strip, row of blocks by row of blocks (`strips`). A row is written when no
tile reaches into it any more, so what is held does not grow with the area. A row is a transaction: what is cut off goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..dataset import TileDataset
from ..errors import ConfigError
from ..layers.describing import plain, wish_said
from ..loading.newtable import Progress
from ..postgres import catalog
from ..tiling.regions import Within
from ..tiling.tiles import Tiles
from .blending import Floats, Strip, window
from .digests import digest_of
from .kinds import Kind
from .modelfiles import Given, opened
from .models import ACTIVATIONS, Runner, device_of, require_numbers
from .overviews import FACTORS
from .predictiontable import PredictionTable, prepare, require_names
from .seeing import Source, in_words
from .strips import BLOCK, Area, Part


@dataclass(frozen=True)
class Prediction:
    """What a call of `predict` made."""

    table: str
    """Schema and name, quoted where SQL needs it."""
    run: str
    """The run's name."""
    id: int
    """The run's id, which is in the column ``run``."""
    blocks: int
    """Rows of the table that are the run's."""
    tiles: int
    """That the model was asked about, in this call."""
    skipped: int
    """Rows of blocks that were done before."""


def predict(
    model: Given,
    dataset: TileDataset,
    into: str,
    *,
    run: str | None = None,
    kind: str = "classes",
    dtype: str | None = None,
    blend: str = "cosine",
    within: Within | None = None,
    overlap: int | tuple[int, int] | None = None,
    inputs: str | Sequence[str] | None = None,
    activation: str | None = None,
    flips: bool = False,
    device: str | torch.device | None = None,
    classes: Mapping[int, str] | None = None,
    overviews: Sequence[int] = (),
    replace: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Write what a model says of an area into a raster table: rid, run, block, rast.

    The dataset says what the model sees: its layers, batch size, connections and transform, which must leave pixels where they
    are. The table is made if it is not there. Its rows are blocks of 128 pixels on the tiles' lattice, counted from the grid's
    origin, with nodata where no tile was or the imagery has none; rows of the table ``run`` beside it say what each run was.

    The same call again, after whatever ended the first one, goes on with the first row of blocks that is missing, and the
    result is the same to the bit. What is held in memory does not grow with the area: beside the batches 128 MB at most, or a
    strip of four tiles' width.

    Args:
        model: a module of torch; a function or any object that takes tensors and gives one; a file of torch.export (``.pt2``)
            or TorchScript; or ``"module:function"``. It gives (tiles, bands, height, width), or (tiles, height, width). A model
            runs code: open files that you trust.
        dataset: of which layers, tiles and transform are taken.
        into: ``table``, ``schema.table``, or quoted as in SQL.
        run: a name for it, one of its own in the schema; the table's unless given. One that is there goes on, if model, layers,
            settings and tiles are the same; else it is refused.
        kind: ``"classes"``, the number of the likeliest one (of one band: 1 where it is above a half); ``"probabilities"``, a
            band for each class; ``"values"``, what the model gives, as in regression.
        dtype: ``"uint8"`` (classes; probabilities times 254; nodata is 255) or ``"float32"`` (nodata is NaN). Unless given,
            uint8, and float32 for values.
        blend: how overlapping tiles become one: ``"cosine"`` or ``"linear"``, weighted means, or ``"crop"``, where each pixel
            is the tile's in which it lies deepest. Classes are told of blended probabilities.
        within: lay tiles over this region, as `Tiles.sliding` does, in place of the dataset's own; or, with ``overlap`` alone,
            over the box around these.
        overlap: pixels that these tiles share; a quarter of their size unless given.
        inputs: keys of the batch that the model takes, in this order; the first layer's unless given.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"none"``, before anything is blended. Unless given, softmax, sigmoid for
            one band, and none for values.
        flips: take the mean over the tile and its three mirror images.
        device: on which the model runs, ``"cuda:0"``, and to which it is moved; the one of its weights unless given.
        classes: names of the values, 0 and up; those of the dataset's masks unless given.
        overviews: factors, such as (2, 4, 8), by which pixels of overviews are larger. Those that are there are made anew, and
            keep their grants.
        replace: drop the run of this name first, with what it predicted.
        progress: is told tiles done and all of them.

    Raises:
        ConfigError: model, layers and settings do not go together, or the run of this name is another.
        DataError: the model gives NaN; the error names the tile. What was written before stays.
        LoadError: the table holds something else, or the server refuses to write; the error says which GRANT to ask for.

    """
    tiles = _laid(dataset, within, overlap)
    area = Area.of(tiles.grid, tiles.cols, tiles.rows)
    window((1, 1), blend)
    source = Source.of(dataset, tiles, inputs)
    Kind.of(kind, 1, dtype)
    if activation not in (None, *ACTIVATIONS):
        raise ConfigError(f"activation={activation!r}: expected one of {', '.join(ACTIVATIONS)}")
    if odd := [factor for factor in overviews if factor not in FACTORS]:
        raise ConfigError(f"overviews={overviews!r}: {odd[0]!r} is none of {', '.join(map(str, FACTORS))}")
    require_names(into, run, overviews)
    found, batch = opened(model), min(source.batch, len(tiles))
    where = device_of(found, device)
    runner = Runner(found, source.inputs, tiles.grid.shape, kind, activation, flips, where, batch, source.said())
    box = (*tiles.bounds[:, :2].min(axis=0).tolist(), *tiles.bounds[:, 2:].max(axis=0).tolist())
    source.require_imagery(box)
    with runner.ready(device):
        (first, _), *_ = _answers(runner, source, source.first)  # what is wrong with all is found before anything is made
        made = Kind.of(kind, len(first), dtype)
        parts = area.parts(made.bands)
        settings = {
            "into": catalog.parts(into)[-1], "kind": kind, "dtype": made.dtype, "bands": made.bands, "blend": blend,
            "inputs": list(source.inputs),
            "activation": activation, "flips": flips, "batch": batch, "wide": area.widest(made.bands),
            "grid": plain(asdict(tiles.grid)),
            "transform": dataset.transform and digest_of(dataset.transform),
        }  # fmt: skip
        table = prepare(
            dataset.db, into, name=run, replace=replace, kind=made, model=found.digest, layers=wish_said(source.layers),
            settings=settings, classes=_names(classes, dataset, made), tiles=tiles, area=area, box=box,
            overviews=overviews,
        )  # fmt: skip
        work = _Work(table, source, tiles, runner, made, blend, progress, sum(len(part.tiles) for part in parts))
        for part in parts:
            work.strip(part)
    source.tell()
    return Prediction(table.text, table.run.name, table.run.id, table.finish(overviews), work.asked, table.run.done)


def _laid(dataset: TileDataset, within: Within | None, overlap: int | tuple[int, int] | None) -> Tiles:
    """The tiles to predict: the dataset's own, or those that are laid over a region."""
    own = dataset.tiles
    if own.zone is not None:
        raise ConfigError("these tiles lie on several grids, and a raster table on one: predict each part of tiles.by_grid()")
    if within is not None or overlap is not None:
        bounds = own.bounds
        given = (*bounds[:, :2].min(axis=0).tolist(), *bounds[:, 2:].max(axis=0).tolist()) if within is None else within
        shared = tuple(side // 4 for side in own.grid.shape) if overlap is None else overlap
        edge = "shift" if isinstance(given, Sequence) and not isinstance(given, str) else "beyond"
        own = Tiles.sliding(own.grid, within=given, overlap=shared, edge=edge, db=dataset.db)  # type: ignore[arg-type]
    places = (own.rows - own.rows.min()) * (1 + np.ptp(own.cols)) + own.cols
    if len(np.unique(places)) < len(own):
        raise ConfigError(
            "two tiles lie at one place (of other times?): a map has one of each. Predict each period as a run of its own; "
            "overlap= lays tiles over the box around these"
        )
    return own


@dataclass
class _Work:
    """Strips being worked through."""

    table: PredictionTable
    source: Source
    tiles: Tiles
    runner: Runner
    kind: Kind
    blend: str
    progress: Progress | None
    total: int
    done: int = 0
    asked: int = 0

    def strip(self, part: Part) -> None:
        """Predict what is missing of a strip, and write it."""
        area, height = self.table.area, self.table.area.size[0]
        first = part.top + max(0, self.table.run.done - part.number)  # the first row of blocks that is missing
        if first < part.bottom:
            rows, cols = area.rows[part.tiles], area.cols[part.tiles] - part.first * BLOCK
            needed = int(np.searchsorted(rows, first * BLOCK - height, side="right"))  # the first tile that reaches it
            at = needed // self.runner.batch * self.runner.batch  # in the same batches as if nothing had ended it
            top = min(first, int(rows[needed]) // BLOCK if needed < len(rows) else first)
            strip = Strip(self.kind.bands, area.size, (part.end - part.first) * BLOCK, BLOCK, top * BLOCK, self.blend)
            with closing(self.source.batches(self.tiles[part.tiles[at:]])) as batches:  # what reads ahead ends with us
                for sample in batches:
                    self._tell(at)
                    for values, valid in _answers(self.runner, self.source, sample):
                        if at >= needed:
                            self._write(part, first, strip.finished(int(rows[at])))
                            strip.add(int(rows[at]), int(cols[at]), values, valid)
                        at += 1
                    self.asked += len(sample["tile_id"])
            self._write(part, first, strip.finished(part.bottom * BLOCK))
        self.done += len(part.tiles)
        self._tell(0)

    def _write(self, part: Part, first: int, rows: Iterator[tuple[int, Floats, NDArray[np.bool_]]]) -> None:
        for row, blended, covered in rows:
            if row >= first:  # what is above was done before, and is not all here
                pixels = self.kind.pixels(blended, covered)
                self.table.write(part.number + row - part.top, row, part.first, pixels, covered)

    def _tell(self, tiles: int) -> None:
        if self.progress:
            self.progress(self.done + tiles, self.total)


def _answers(
    runner: Runner, source: Source, sample: Mapping[str, Any]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_] | None]]:
    """What the model says of each tile of a batch, and where it counts."""
    values, valid = runner(sample), source.valid(sample, runner.size)

    def where(tile: int) -> str:
        return f"tile {int(sample['tile_id'][tile])} at {in_words(sample['bounds'][tile].tolist())}"

    require_numbers(values, valid, runner.kind, where)
    return zip(values, [None] * len(values) if valid is None else valid, strict=True)


def _names(classes: Mapping[int, str] | None, dataset: TileDataset, kind: Kind) -> dict[int, str]:
    """The names of the values, of which there are no more than the model has."""
    if kind.name == "values":
        return dict(classes or {})
    count = max(kind.bands, 2)
    if classes is None:
        return {value: name for value, name in next(iter(dataset.classes.values()), {}).items() if 0 <= value < count}
    if odd := [value for value in classes if not (type(value) is int and 0 <= value < count)]:
        raise ConfigError(f"classes: {odd[0]!r} is no class of the model, which has 0 to {count - 1}")
    if unnamed := [name for name in classes.values() if not isinstance(name, str)]:
        raise ConfigError(f"classes: {unnamed[0]!r} is no name, such as {{1: 'road'}}")
    return dict(classes)
