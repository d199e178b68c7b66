"""What a model sees when it predicts: those of a dataset's layers that it needs, tile by tile, and where they have data."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from ..dataset import TileDataset
from ..errors import ConfigError, PgtilesWarning
from ..layers.bakedtable import Baked
from ..layers.canvas import Sheet
from ..layers.imagery import Imagery
from ..layers.pixels import Pixels
from ..layers.query import Layer, OpenLayer
from ..layers.timeseries import Steps
from ..postgres import catalog
from ..postgres.database import Database
from ..streaming.course import Place
from ..tiling.grid import Bounds
from ..tiling.tiles import Tiles

BATCH = 16  # tiles at once, where the dataset gives single ones


class _Stream(TileDataset):
    """Tiles in their order, all in this process; what has no data is counted, and told at the end of all."""

    lacking: NDArray[np.int64]  # tiles read, and for each layer those to which nothing came

    def over(self, tiles: Tiles) -> _Stream:
        """The same layers, of these tiles."""
        part = copy.copy(self)
        part.tiles = tiles
        part.set_epoch(0)  # whose transforms are drawn alike, whichever strip has a tile
        return part

    def report(self, counted: list[int], place: Place) -> None:
        """Count what a strip lacked."""
        read, _, *empty = counted
        self.lacking += [read, *empty]


@dataclass(frozen=True)
class _Telling:
    """A baked layer that tells where it has data, as `Imagery` does where it is asked to."""

    layer: Layer

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        found = self.layer.open(db, tiles, name, number)
        return dataclasses.replace(found, sheet=_telling(found.sheet))


def _telling(sheet: Sheet) -> Sheet:
    if isinstance(sheet, Steps):
        return dataclasses.replace(sheet, pixels=cast("Pixels", _telling(sheet.pixels)))
    return dataclasses.replace(sheet, valid=True) if isinstance(sheet, Pixels) else sheet


@dataclass(frozen=True)
class Source:
    """What the model sees, tile by tile."""

    stream: _Stream
    layers: Mapping[str, Layer]
    inputs: tuple[str, ...]
    batch: int
    first: Mapping[str, Any] = field(default_factory=dict)  # a batch of the first tile

    @classmethod
    def of(cls, dataset: TileDataset, tiles: Tiles, inputs: str | Sequence[str] | None) -> Source:
        """The dataset's layers, of those only that are needed where no transform asks for others."""
        layers = dict(dataset.layers)
        keys = (next(iter(layers)),) if inputs is None else (inputs,) if isinstance(inputs, str) else tuple(inputs)
        if dataset.transform is None and all(key in layers for key in keys):
            layers = {key: layers[key] for key in layers if key in keys}
        for name, layer in layers.items():
            if name in keys and isinstance(layer, Imagery):
                layers[name] = dataclasses.replace(layer, valid=True)  # to know where there is no data
        telling = {name: _Telling(one) if name in keys and isinstance(one, Baked) else one for name, one in layers.items()}
        batch = dataset.batch_size or BATCH
        stream = _Stream(
            dataset.db, tiles, telling, batch_size=batch, shuffle=False, seed=dataset.seed, connections=dataset.connections,
            transform=dataset.transform, rank=0, world_size=1,
        )  # fmt: skip
        stream.lacking = np.zeros(1 + len(layers), np.int64)
        sample = next(iter(stream.over(tiles[:1])))
        if missing := [key for key in keys if not isinstance(sample.get(key), torch.Tensor)]:
            raise ConfigError(
                f"inputs={missing[0]!r}: expected keys of a batch that hold a tensor; they are "
                f"{', '.join(key for key, value in sample.items() if isinstance(value, torch.Tensor))}"
            )
        return cls(stream, layers, keys, batch, sample)

    def batches(self, tiles: Tiles) -> Generator[dict[str, Any]]:
        """The tiles in their order, in batches: all of them, also in one process of several."""
        yield from self.stream.over(tiles)

    def valid(self, batch: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Where all inputs have data, (tiles, height, width); None where nobody knows. Of a series, where any step has."""
        known = (batch.get(f"{key}_valid") for key in self.inputs)
        there = [_fitted(one.numpy(), size) for one in known if isinstance(one, torch.Tensor) and one.ndim > 2]
        return np.logical_and.reduce(there) if there else None

    def tell(self) -> None:
        """Warn of layers of which there was nothing for some tiles."""
        read, *empty = self.stream.lacking.tolist()
        for layer, missing in zip(self.stream.plan.layers, empty, strict=True):
            if missing and isinstance(layer.sheet, Pixels | Steps):
                text = f"{missing} of the {read} tiles that were read have no imagery at all: nothing is predicted there"
            elif layer.path in {"burned", "listed"} and missing == read > 0:
                text = f"no row of the query met any of the {read} tiles that were read"
            else:
                continue
            warnings.warn(f"layer {layer.name!r}: {text}", PgtilesWarning, stacklevel=3)

    def said(self) -> str:
        """What the model gets of each layer, in words."""

        def one(key: str) -> str:
            shape, kind = tuple(self.first[key].shape[1:]), str(self.first[key].dtype).removeprefix("torch.")
            bands = f"{shape[0]} band{'s' * (shape[0] != 1)} of " if len(shape) > 2 else ""
            return f"{key!r} with {bands}{' × '.join(map(str, shape[-2:]))} px ({kind})"

        return " and ".join(map(one, self.inputs))

    def require_imagery(self, box: Bounds) -> None:
        """`ConfigError` where no tile can meet the table of an input's imagery."""
        db, srid = self.stream.db, self.stream.tiles.grid.srid
        for key in self.inputs:
            layer = self.layers.get(key)
            if isinstance(layer, Imagery) and isinstance(layer.source, str) and catalog.is_table_name(layer.source):
                west, south, east, north = db.extent(layer.source, srid, layer.column)
                if box[0] >= east or box[2] <= west or box[1] >= north or box[3] <= south:
                    raise ConfigError(
                        f"the area {in_words(box)} lies outside the imagery of layer {key!r}, {layer.source}, which lies in "
                        f"{in_words((west, south, east, north))}, both in SRID {srid}"
                    )


def _fitted(valid: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(tiles, [steps,] height, width) in pixels of the tile, of which this layer's may be larger or smaller."""
    there: NDArray[np.bool_] = np.logical_or.reduce(valid, axis=1) if valid.ndim > 3 else valid
    (height, width), (own_height, own_width) = size, there.shape[1:]
    rows = ((np.arange(height) + 0.5) * own_height / height).astype(int)
    cols = ((np.arange(width) + 0.5) * own_width / width).astype(int)
    fitted: NDArray[np.bool_] = there[:, rows[:, None], cols]
    return fitted


def in_words(box: Bounds) -> str:
    """A box as people write it."""
    return f"({', '.join(f'{value:.10g}' for value in box)})"
