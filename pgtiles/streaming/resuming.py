"""What a checkpoint keeps of the order, and whether it still fits. Pure: no torch, no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..errors import ConfigError
from ..layers.describing import differences, wish_said
from ..tiling.draws import Draws, Fresh, Weighted
from ..tiling.tiles import Tiles

VERSION = 1
State = dict[str, Any]


class Resumable(Protocol):
    """What this asks of a `TileDataset`."""

    tiles: Tiles
    draws: Draws[Tiles] | None
    shuffle: bool
    seed: int
    batch_size: int | None

    @property
    def fingerprint(self) -> State: ...  # noqa: D102
    @property
    def last(self) -> str: ...  # noqa: D102
    @property
    def layers(self) -> Mapping[str, Any]: ...  # noqa: D102


def state(dataset: Resumable, world_size: int, epoch: int, batches: int) -> State:
    """The state of a dataset, in numbers, texts and dicts."""
    return {
        "version": VERSION,
        "epoch": epoch,
        "batches": batches,
        "global_batch": (dataset.batch_size or 1) * world_size,
        "fingerprint": dataset.fingerprint,
    }


def fingerprint(dataset: Resumable) -> State:
    """All by which the sequence of samples is what it is, besides the global batch: settings, layers, a digest of the tiles."""
    drawn: State = {"tiles": len(dataset.tiles), "digest of the tiles": _digest(dataset.tiles)}
    if isinstance(dataset.draws, Draws):
        drawn |= {"drawn": type(dataset.draws).__name__.lower(), "count": len(dataset.draws)}
    if isinstance(dataset.draws, Weighted):
        drawn["digest of the weights"] = hashlib.sha256(dataset.draws.weights.tobytes()).hexdigest()[:16]
    if isinstance(dataset.draws, Fresh):
        drawn["digest of the tiles"] = _digest(dataset.draws.tiles)  # of a first epoch, by which the others are made too
    layers = {f"layer {name!r}": _plain(wish_said(layer)) for name, layer in dataset.layers.items()}
    return {"seed": dataset.seed, "shuffle": dataset.shuffle, "last": dataset.last} | drawn | layers


def place(dataset: Resumable, world_size: int, kept: Any) -> tuple[int, int]:
    """Epoch and global batches that a state says; raises `ConfigError` where it is not one of this dataset's."""
    expected = {"version", "epoch", "batches", "global_batch", "fingerprint"}
    if not isinstance(kept, Mapping) or not expected <= kept.keys():
        raise ConfigError(f"state={kept!r:.80}: expected what state_dict() of a TileDataset or of its loader() gave")
    if kept["version"] != VERSION:
        raise ConfigError(f"the state is of version {kept['version']!r}, this pgtiles reads version {VERSION}")
    if kept["global_batch"] != (ours := (dataset.batch_size or 1) * world_size):
        raise ConfigError(
            f"the state is of global batches of {kept['global_batch']} tiles, this run has batch_size="
            f"{dataset.batch_size or 1} on {world_size} ranks, which makes {ours}: batches would be others. Change batch_size "
            f"so that batch_size × ranks is {kept['global_batch']} again, or begin at an epoch, set_epoch({kept['epoch']})"
        )
    if changed := list(differences(kept["fingerprint"], dataset.fingerprint)):
        raise ConfigError(
            "the state is of another stream of samples: " + "; ".join(changed) + ". Change it back, or begin at an epoch, "
            f"set_epoch({kept['epoch']})"
        )
    return int(kept["epoch"]), int(kept["batches"])


def _digest(tiles: Tiles) -> str:
    found = hashlib.sha256(repr(tiles.grid).encode())
    for array in (tiles.cols, tiles.rows, tiles.ids, tiles.zone, None if tiles.times is None else tiles.times.view(np.int64)):
        found.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _plain(said: Any) -> Any:
    """As it comes back from a file: JSON has neither tuples nor numbers as keys."""
    return json.loads(json.dumps(said, default=str))
