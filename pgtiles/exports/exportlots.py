"""Which tiles an export lacks, and which of them it writes together. No I/O, but a look whether files are there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..tiling.tiles import Tiles
from .exported import WHOLE, Json
from .exportfolder import Folder
from .shards import told

CHUNK = 32  # tiles that are moved to their place together, and that one statement reads at most
Lot = tuple[str, Tiles]  # tiles that are written together, and the tar that they become, if any


def _splits(tiles: Tiles) -> list[str]:
    """Of each tile its split; empty where it has none."""
    given = tiles.columns.get("split")
    return [""] * len(tiles) if given is None else [str(name) for name in given.tolist()]


def places(tiles: Tiles) -> Iterator[Json]:
    """Of each tile what it must be for files of its id to be its own."""
    times = [None] * len(tiles) if tiles.times is None else told(tiles.times)
    each = zip(tiles.ids.tolist(), _splits(tiles), tiles.srids.tolist(), tiles.bounds.tolist(), times, strict=True)
    return ({"id": id_, "split": split, "srid": srid, "bounds": box, "time": time} for id_, split, srid, box, time in each)


def missing(path: Path, folder: Folder, tiles: Tiles) -> NDArray[np.int64]:
    """The positions of tiles that are not in the folder; `ConfigError` where another tile of such an id is."""
    lacking = []
    for i, here in enumerate(places(tiles)):
        id_ = here["id"]
        if id_ not in folder:
            lacking.append(i)
            continue
        note = folder.note(id_)
        if odd := [f"{key} {note[key]}, now {value}" for key, value in here.items() if note[key] != value]:
            raise ConfigError(
                f"tile {id_} is in {path} already, with {odd[0]}: number these tiles from elsewhere (first_id=), or name "
                "another folder"
            )
        if not all((path / file).exists() for file in note["files"]):
            folder.forget(id_)
            lacking.append(i)
    return np.array(lacking, np.int64)


def lots(folder: Folder, tiles: Tiles, shard: int | None) -> list[Lot]:
    """The tiles, lot by lot, or in tars of so many. Which tiles share a tar is the same in whatever order tars were written
    before.
    """
    if shard is None:
        return [("", tiles[k : k + CHUNK]) for k in range(0, len(tiles), CHUNK)]
    taken = {file for note in folder.notes() for file in note["files"]}
    splits, tars = np.array(_splits(tiles)), list[Lot]()
    for split in dict.fromkeys(splits.tolist()):
        own = tiles[np.flatnonzero(splits == split)]
        free = (name for n in count() if (name := f"{split or WHOLE}-{n:06d}.tar") not in taken)
        tars += [(next(free), own[k : k + shard]) for k in range(0, len(own), shard)]
    return tars
