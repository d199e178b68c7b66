"""pgtiles: an in-database data loader for geospatial deep learning.

PostGIS selects, warps and burns; the client only pastes. See `TileDataset` for training, `read` for the same without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from . import errors, load, plot, runs, samples, targets, tile
    from .baking import bake
    from .dataset import TileDataset
    from .evaluation.errortable import keep_errors
    from .evaluation.objects import ObjectScore, score_objects
    from .evaluation.scores import Score
    from .evaluation.scoring import score
    from .exports.exporting import export
    from .inspection.statistics import Statistics
    from .layers.attributes import Attributes
    from .layers.bakedtable import Baked, baked
    from .layers.bysrid import BySrid
    from .layers.imagery import Imagery
    from .layers.labels import Labels, Vectors
    from .layers.timeseries import TimeSeries
    from .normalize import Normalize
    from .polygons.vectorizing import vectorize
    from .postgres.database import Database
    from .postgres.server import LocalServer
    from .prediction.predicting import predict
    from .streaming.reading import read
    from .targets import Boxes, Instances, Value
    from .tiling.draws import Draws
    from .tiling.grid import Grid
    from .tiling.splits import Split
    from .tiling.tiles import Tiles

_HOME = {
    "Attributes": "layers.attributes",
    "Baked": "layers.bakedtable",
    "Boxes": "targets",
    "BySrid": "layers.bysrid",
    "Database": "postgres.database",
    "Draws": "tiling.draws",
    "Grid": "tiling.grid",
    "Imagery": "layers.imagery",
    "Instances": "targets",
    "Labels": "layers.labels",
    "LocalServer": "postgres.server",
    "Normalize": "normalize",
    "ObjectScore": "evaluation.objects",
    "Score": "evaluation.scores",
    "Split": "tiling.splits",
    "Statistics": "inspection.statistics",
    "TileDataset": "dataset",
    "Tiles": "tiling.tiles",
    "TimeSeries": "layers.timeseries",
    "Value": "targets",
    "Vectors": "layers.labels",
    "bake": "baking",
    "baked": "layers.bakedtable",
    "export": "exports.exporting",
    "keep_errors": "evaluation.errortable",
    "predict": "prediction.predicting",
    "read": "streaming.reading",
    "score": "evaluation.scoring",
    "score_objects": "evaluation.objects",
    "vectorize": "polygons.vectorizing",
}

__all__ = [
    "Attributes", "Baked", "Boxes", "BySrid", "Database", "Draws", "Grid", "Imagery", "Instances", "Labels", "LocalServer",
    "Normalize", "ObjectScore", "Score", "Split", "Statistics", "TileDataset", "Tiles", "TimeSeries", "Value", "Vectors",
    "bake", "baked", "errors", "export", "keep_errors", "load", "plot", "predict", "read", "runs", "samples", "score",
    "score_objects", "targets", "tile", "vectorize",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: torch and SQLAlchemy are slow to import, and not everyone needs them."""
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
