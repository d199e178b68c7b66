"""One layer out of several, where tiles lie in several CRSs and each has tables of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError
from ..postgres.database import Database
from ..tiling.splits import Shown
from ..tiling.tiles import Tiles
from .labels import Labels, Vectors
from .query import Layer, OpenLayer


@dataclass(frozen=True)
class BySrid:
    """A layer for the tiles of each SRID: ``BySrid({32632: Imagery("s2_32"), 32633: Imagery("s2_33")})``.

    layers: by the SRID of the tiles that each is for. They must give arrays of one pixel type and shape.
    """

    layers: Mapping[int, Layer]

    def __post_init__(self) -> None:
        if not self.layers or not all(isinstance(srid, int) for srid in self.layers):
            raise ConfigError("BySrid: expected a layer for each SRID, as in {32632: Imagery(…), 32633: Imagery(…)}")
        if len({getattr(layer, "resolution", None) for layer in self.layers.values()}) > 1:
            raise ConfigError("BySrid: its layers differ in resolution=, and a batch has one shape")

    @property
    def resolution(self) -> Any:
        """That of all its layers."""
        return getattr(next(iter(self.layers.values())), "resolution", None)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Open the layer that is for these tiles."""
        return self._of(tiles).open(db, tiles, name, number)

    def measure(
        self, db: Database, tiles: Tiles, name: str, progress: Callable[[int, int], None] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """What `Tiles.describe` adds to the tiles, by the layer that is for them."""
        return self._vectors_of(tiles).measure(db, tiles, name, progress)

    def shown(self, db: Database, tiles: Tiles, sides: Sequence[str]) -> Shown:
        """The features that tiles show (`Split.proof`), by the layer that is for them."""
        return self._vectors_of(tiles).shown(db, tiles, sides)

    def _vectors_of(self, tiles: Tiles) -> Labels | Vectors:
        layer = self._of(tiles)
        if not isinstance(layer, Labels | Vectors):
            raise ConfigError(f"{type(layer).__name__} burns no vectors: expected Labels or Vectors for each SRID")
        return layer

    def _of(self, tiles: Tiles) -> Layer:
        if (layer := self.layers.get(tiles.grid.srid)) is None:
            raise ConfigError(f"no layer is given for tiles in SRID {tiles.grid.srid}; there are {sorted(self.layers)}")
        return layer
