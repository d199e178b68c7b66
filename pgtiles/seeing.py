"""What a model sees when it predicts: those of a dataset's layers that it needs, tile by tile, and where they have data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from . import catalog
from .dataset import TileDataset
from .errors import ConfigError
from .grid import Bounds
from .imagery import Imagery
from .query import Layer
from .tiles import Tiles

BATCH = 16  # tiles at once, where the dataset gives single ones


@dataclass(frozen=True)
class Source:
    """What the model sees, tile by tile."""

    dataset: TileDataset
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
        source = cls(dataset, layers, keys, dataset.batch_size or BATCH)
        sample = next(source.batches(tiles[:1]))
        if missing := [key for key in keys if not isinstance(sample.get(key), torch.Tensor)]:
            raise ConfigError(
                f"inputs={missing[0]!r}: expected keys of a batch that hold a tensor; they are "
                f"{', '.join(key for key, value in sample.items() if isinstance(value, torch.Tensor))}"
            )
        return dataclasses.replace(source, first=sample)

    def batches(self, tiles: Tiles) -> Iterator[dict[str, Any]]:
        """The tiles in their order, in batches: all of them, also in one process of several."""
        own = self.dataset
        return iter(
            TileDataset(
                own.db, tiles, self.layers, batch_size=self.batch, shuffle=False, seed=own.seed,
                connections=own.connections, transform=own.transform, rank=0, world_size=1,
            )
        )  # fmt: skip

    def valid(self, batch: Mapping[str, Any], size: tuple[int, int]) -> NDArray[np.bool_] | None:
        """Where all inputs have data, (tiles, height, width); None where nobody knows."""
        known = (batch.get(f"{key}_valid") for key in self.inputs)
        there = [one.numpy() for one in known if isinstance(one, torch.Tensor) and tuple(one.shape[1:]) == size]
        return np.logical_and.reduce(there) if there else None

    def said(self) -> str:
        """What the model gets of each layer, in words."""

        def one(key: str) -> str:
            shape, kind = tuple(self.first[key].shape[1:]), str(self.first[key].dtype).removeprefix("torch.")
            bands = f"{shape[0]} band{'s' * (shape[0] != 1)} of " if len(shape) > 2 else ""
            return f"{key!r} with {bands}{' × '.join(map(str, shape[-2:]))} px ({kind})"

        return " and ".join(map(one, self.inputs))

    def require_imagery(self, box: Bounds) -> None:
        """`ConfigError` where no tile can meet the table of an input's imagery."""
        db, srid = self.dataset.db, self.dataset.tiles.grid.srid
        for key in self.inputs:
            layer = self.layers.get(key)
            if isinstance(layer, Imagery) and isinstance(layer.source, str) and catalog.is_table_name(layer.source):
                west, south, east, north = db.extent(layer.source, srid, layer.column)
                if box[0] >= east or box[2] <= west or box[1] >= north or box[3] <= south:
                    raise ConfigError(
                        f"the area {in_words(box)} lies outside the imagery of layer {key!r}, {layer.source}, which lies in "
                        f"{in_words((west, south, east, north))}, both in SRID {srid}"
                    )


def in_words(box: Bounds) -> str:
    """A box as people write it."""
    return f"({', '.join(f'{value:.10g}' for value in box)})"
