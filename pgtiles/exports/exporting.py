"""Tiles as files, for who must have files: read as a dataset reads them, written in the forms that other programs know.

A lot of tiles is read, written aside, moved to its place and noted, so that whatever ends an export leaves whole tiles behind,
and the same call goes on. What stands beside the tiles is made of the notes at the end (`exportfolder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigError, PgtilesError
from ..inspection.provenance import sources as sources_of
from ..layers.describing import Json, plain, wish_said
from ..loading.newtable import Progress
from ..streaming import surviving
from ..streaming.ahead import ahead
from ..tiling.grid import whole
from ..tiling.tiles import Tiles
from .annotations import Coco, Voc, Yolo
from .exportasked import contents_of, pairs_of, tiles_of
from .exported import Contents, Format, One
from .exportfolder import Folder, explained, export_folder
from .exportlots import CHUNK, Lot, lots, missing, places
from .exportnotes import about_classes, about_pixels, beside
from .pairs import Folders, Pairs
from .shards import Shard, WebDataset, told

if TYPE_CHECKING:
    from ..dataset import TileDataset

FORMATS: dict[str, Format] = {
    "geotiff": Pairs(images="tiff", masks="tiff"),
    "png": Pairs(images="png", masks="png"),
    "jpeg": Pairs(images="jpeg", masks="png"),
    "coco": Coco(),
    "yolo": Yolo(),
    "voc": Voc(),
    "folders": Folders(),
    "webdataset": WebDataset(),
}


@dataclass(frozen=True)
class Exported:
    """What a call of `export` found and did."""

    folder: Path
    tiles: int
    """That were asked for: each is one of the next three."""
    written: int
    there: int
    """Were in the folder before, and were not looked at."""
    skipped: int
    """Can't be read, of a dataset with ``on_error="skip"``; the log says why, and the same call tries them again."""
    all: int
    """That are in the folder now, those of earlier calls with other tiles too."""


def export(
    dataset: TileDataset,
    folder: str | PathLike[str],
    *,
    format: str = "geotiff",  # noqa: A002 - it is called so everywhere
    image: str | None = None,
    labels: str | None = None,
    images: str | None = None,
    stretch: Sequence[float] | Sequence[Sequence[float]] | None = None,
    classes: Mapping[int, str] | None = None,
    shard: int = 1000,
    sources: bool = False,
    progress: Progress | None = None,
) -> Exported:
    """Write what a dataset's layers show on its tiles into files, for programs that read nothing else.

    The same call again, after whatever ended the first one, writes what is missing; other tiles of the same layers are added.
    A tile's id names its files. A column ``split`` of the tiles, as `Tiles.split` gives it in ``split.tiles``, says which is
    train, val or test.

    The server may fail meanwhile, as while training: what it did not send is asked for again, for ``Database(patience=…)``
    seconds. ``dataset.batch_size`` tiles at most are read at once by each of its ``connections``, and held in memory.

    Args:
        dataset: whose layers and tiles. Each tile is written once, in whatever order it is trained.
        folder: where; it is made if need be.
        format: geotiff, png, jpeg, coco, yolo, voc, folders (one for each class) or webdataset.
        image: the layer that is the image, where a format has one and several would do.
        labels: the layer that the labels are made of, where several would do: Instances, Boxes or a mask; a Value for folders.
        images: what kind of picture images are, where it is not the format's own: tiff, png or jpeg.
        stretch: values that become 0 and 255, as in (0, 3000), or such a pair for each band; else values stay as they are.
        classes: names of the values of layers that don't name their classes: of a mask, boxes, instances, or a Value.
        shard: tiles in a tar, of format webdataset.
        sources: note for each tile which rows drew its labels, and which rasters lie under it.
        progress: called with the tiles that are done and all of them, by the threads that write, one at a time.

    Raises:
        ConfigError: the layers don't fit the format, or the folder holds anything else: before anything is written.
        LoadError: a file can't be written. What was written before stays, and is whole.
        DataError: a tile does not fit the format, as a class that is not known; the error names it.
        OutageError: the server stayed away for too long. What was written before stays, as for any error while tiles are read.

    """
    if format not in FORMATS:
        raise ConfigError(f"format={format!r}: expected one of {', '.join(FORMATS)}")
    whole("shard", shard, 1)
    form, tiles = FORMATS[format], tiles_of(dataset)
    if not form.shard and shard != 1000:
        raise ConfigError(f"shard={shard!r} goes with format='webdataset': others write files for each tile")
    contents = contents_of(dataset, tiles, form, image, labels, images, pairs_of(stretch), classes)
    form.check(contents)
    settings: Json = {
        "format": format, "image": image, "labels": labels, "images": contents.images, "stretch": contents.stretch,
        "classes": classes and {str(value): name for value, name in classes.items()}, "shard": shard if form.shard else None,
        "sources": sources, "size": tiles.grid.shape, "resolution": tiles.grid.pixel,
        "layers": {name: wish_said(layer) for name, layer in dataset.layers.items()},
    }  # fmt: skip
    if sources:
        sources_of(dataset.db, dataset.plan, dataset.layers, tiles[:1])  # raises where rows can't be called by anything
    path = Path(folder)
    with export_folder(path, plain(settings)) as into:
        wanted = tiles[missing(path, into, tiles)]
        there = len(tiles) - len(wanted)
        work = _Work(dataset, form, contents, into, sources, len(tiles), progress, there)
        try:
            work.all(lots(into, wanted, shard if form.shard else None))
            with explained(path):
                into.finish(beside(into.notes, form, contents))
        except PgtilesError as error:
            said = f"{work.done} of {len(tiles)} tiles are in {path}; the same call goes on from there"
            raise type(error)(f"{error}\n{said}") from error
        return Exported(path, len(tiles), len(wanted) - work.skipped, there, work.skipped, len(into))


@dataclass
class _Work:
    """What writing a lot of tiles needs besides them."""

    dataset: TileDataset
    form: Format
    contents: Contents
    folder: Folder
    sources: bool
    total: int
    progress: Progress | None
    done: int
    skipped: int = 0
    lock: Lock = field(default_factory=Lock)

    def all(self, lots: Sequence[Lot]) -> None:
        """Write all lots, some at a time, each by a thread. Where one fails, or at Ctrl-C, the others stop waiting too."""
        self._tell(0)
        for _ in ahead(self._lot, lots, threads=self.dataset.connections, interrupt=self.dataset.db.interrupt):
            pass

    def _tell(self, done: int, skipped: int = 0) -> None:
        with self.lock:
            self.done += done
            self.skipped += skipped
            if self.progress:
                self.progress(self.done, self.total)

    def _lot(self, lot: Lot) -> None:
        tar, tiles = lot
        with explained(self.folder.path):
            many = self._into_tar(tar, tiles) if tar else self._loose(tiles)
        self._tell(len(tiles), len(tiles) - many)

    def _loose(self, tiles: Tiles) -> int:
        written, notes = list[tuple[Path, str]](), []
        for files, note in self._read(tiles):
            for name, data in files.items():
                written.append((self.folder.aside(), name))
                written[-1][0].write_bytes(data)
            notes.append(note | {"files": list(files)})
        self.folder.add(written, notes)
        return len(notes)

    def _into_tar(self, name: str, tiles: Tiles) -> int:
        aside, notes = self.folder.aside(), list[Json]()
        with Shard(aside) as tar:
            for files, note in self._read(tiles):
                tar.add(files)
                notes.append(note | {"files": [name]})
        self.folder.add([(aside, name)] if notes else [], notes)
        return len(notes)

    def _read(self, tiles: Tiles) -> Iterator[tuple[dict[str, bytes], Json]]:
        """Of each tile that can be read its files, and what is to be noted."""
        many = min(self.dataset.batch_size or CHUNK, CHUNK)
        for start in range(0, len(tiles), many):
            yield from self._batch(tiles[start : start + many])

    def _batch(self, tiles: Tiles) -> Iterator[tuple[dict[str, bytes], Json]]:
        db, plan = self.dataset.db, self.dataset.plan
        sample, _, _, skipped = surviving.read(db, plan, tiles, skip=self.dataset.on_error == "skip")
        tiles = tiles[np.delete(np.arange(len(tiles)), [one.at for one in skipped])]
        rows = {}
        if self.sources and len(tiles):
            work = partial(sources_of, db, plan, self.dataset.layers, tiles)
            rows = db.retry(work, lambda: f"what lies under tile {tiles.ids[0]} and the next {len(tiles) - 1}")
        keys = [key for key in sample if key not in {"bounds", "tile_id", "srid"}]
        for i, place in enumerate(places(tiles)):
            arrays = {key: sample[key][i] for key in keys}
            one = One(place["id"], place["split"], place["srid"], tuple(place["bounds"]), arrays)
            files, more = self.form.files(one, self.contents)
            columns = {name: told(array[i]) for name, array in tiles.columns.items() if name != "split"}
            note: Json = {**place, "columns": columns, "files": []}
            note |= about_classes(one, self.contents) | about_pixels(one, self.contents) | more
            yield files, note | ({"sources": rows[one.id]} if self.sources else {})
