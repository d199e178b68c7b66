"""pgtiles: an in-database data loader for geospatial deep learning.

PostGIS selects, warps and burns; the client only pastes. See `TileDataset` for training, `read` for the same without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors, load, plot, samples, targets, tile
    from .attributes import Attributes
    from .bakedtable import Baked, baked
    from .baking import bake
    from .bysrid import BySrid
    from .database import Database
    from .dataset import TileDataset
    from .draws import Draws
    from .errortable import keep_errors
    from .exporting import export
    from .grid import Grid
    from .imagery import Imagery
    from .labels import Labels, Vectors
    from .normalize import Normalize
    from .objects import ObjectScore, score_objects
    from .predicting import predict
    from .reading import read
    from .scores import Score
    from .scoring import score
    from .server import LocalServer
    from .splits import Split
    from .statistics import Statistics
    from .targets import Boxes, Instances, Value
    from .tiles import Tiles
    from .timeseries import TimeSeries
    from .vectorizing import vectorize

_HOME = {
    "Attributes": "attributes",
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
    "ObjectScore": "objects",
    "Score": "scores",
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
    "keep_errors": "errortable",
    "predict": "predicting",
    "read": "reading",
    "score": "scoring",
    "score_objects": "objects",
    "vectorize": "vectorizing",
}

__all__ = [
    "Attributes", "Baked", "Boxes", "BySrid", "Database", "Draws", "Grid", "Imagery", "Instances", "Labels", "LocalServer",
    "Normalize", "ObjectScore", "Score", "Split", "Statistics", "TileDataset", "Tiles", "TimeSeries", "Value", "Vectors",
    "bake", "baked", "errors", "export", "keep_errors", "load", "plot", "predict", "read", "samples", "score",
    "score_objects", "targets", "tile", "vectorize",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: torch and SQLAlchemy are slow to import, and not everyone needs them."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
