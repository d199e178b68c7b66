"""pgtiles: an in-database data loader for geospatial deep learning.

PostGIS selects, warps and burns; the client only pastes. See `TileDataset` for training, `read` for the same without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors, load, plot, samples, targets, tile
    from .bakedtable import Baked, baked
    from .baking import bake
    from .bysrid import BySrid
    from .database import Database
    from .dataset import TileDataset
    from .draws import Draws
    from .exporting import export
    from .grid import Grid
    from .imagery import Imagery
    from .labels import Labels, Vectors
    from .normalize import Normalize
    from .predicting import predict
    from .reading import read
    from .server import LocalServer
    from .splits import Split
    from .statistics import Statistics
    from .targets import Boxes, Instances, Value
    from .tiles import Tiles
    from .timeseries import TimeSeries

_HOME = {
    "Baked": "bakedtable",
    "Boxes": "targets",
    "BySrid": "bysrid",
    "Database": "database",
    "Draws": "draws",
    "Grid": "grid",
    "Imagery": "imagery",
    "Instances": "targets",
    "Labels": "labels",
    "LocalServer": "server",
    "Normalize": "normalize",
    "Split": "splits",
    "Statistics": "statistics",
    "TileDataset": "dataset",
    "Tiles": "tiles",
    "TimeSeries": "timeseries",
    "Value": "targets",
    "Vectors": "labels",
    "bake": "baking",
    "baked": "bakedtable",
    "export": "exporting",
    "predict": "predicting",
    "read": "reading",
}

__all__ = [
    "Baked", "Boxes", "BySrid", "Database", "Draws", "Grid", "Imagery", "Instances", "Labels", "LocalServer", "Normalize",
    "Split", "Statistics", "TileDataset", "Tiles", "TimeSeries", "Value", "Vectors", "bake", "baked", "errors", "export",
    "load", "plot", "predict", "read", "samples", "targets", "tile",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: torch and SQLAlchemy are slow to import, and not everyone needs them."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
