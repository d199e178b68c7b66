"""Tiles as files, for who must have files: read as a dataset reads them, written in the forms that other programs know.

A lot of tiles is read, written aside, moved to its place and noted, so that whatever ends an export leaves whole tiles behind,
and the same call goes on. What stands beside the tiles is made of the notes at the end (`exportfolder`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import count
from os import PathLike
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .annotations import Coco, Voc, Yolo
from .describing import Json, plain, wish_said
from .errors import ConfigError, PgtilesError
from .exportasked import contents_of, pairs_of, tiles_of
from .exported import Contents, Format, One
from .exportfolder import Folder, explained, export_folder
from .exportnotes import about_classes, about_pixels, beside
from .grid import whole
from .newtable import Progress
from .pairs import Folders, Pairs
from .provenance import sources as sources_of
from .reading import read_batch
from .shards import Shard, WebDataset, told
from .tiles import Tiles

if TYPE_CHECKING:
    from .dataset import TileDataset

CHUNK = 32  # tiles that one statement reads, and that are moved to their place together
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
    """That were asked for: each is one of the next two."""
    written: int
    there: int
    """Were in the folder before, and were not looked at."""
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
        missing = _missing(path, into, tiles)
        work = _Work(dataset, form, contents, into, sources, len(tiles), progress, len(tiles) - len(missing))
        try:
            work.all(_lots(into, tiles[missing], form, shard))
            with explained(path):
                into.finish(beside(into.notes, form, contents))
        except PgtilesError as error:
            said = f"{work.done} of {len(tiles)} tiles are in {path}; the same call goes on from there"
            raise type(error)(f"{error}\n{said}") from error
        return Exported(path, len(tiles), len(missing), len(tiles) - len(missing), len(into))


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
    stopped: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)

    def all(self, lots: Sequence[tuple[str, Tiles]]) -> None:
        """Write all lots, some at a time, each by a thread."""
        self._tell(0)
        with ThreadPoolExecutor(self.dataset.connections, thread_name_prefix="pgtiles") as threads:
            writing = [threads.submit(self._lot, *lot) for lot in lots]
            try:
                for ended in as_completed(writing):
                    ended.result()
            finally:  # where one failed, or somebody pressed Ctrl-C: a lot that has begun ends, a tar at its next tiles
                self.stopped.set()
                threads.shutdown(wait=True, cancel_futures=True)

    def _tell(self, done: int) -> None:
        with self.lock:
            self.done += done
            if self.progress:
                self.progress(self.done, self.total)

    def _lot(self, tar: str, tiles: Tiles) -> None:
        with explained(self.folder.path):
            self._into_tar(tar, tiles) if tar else self._loose(tiles)

    def _loose(self, tiles: Tiles) -> None:
        written, notes = list[tuple[Path, str]](), []
        for files, note in self._read(tiles):
            for name, data in files.items():
                written.append((self.folder.aside(), name))
                written[-1][0].write_bytes(data)
            notes.append(note | {"files": list(files)})
        self.folder.add(written, notes)
        self._tell(len(tiles))

    def _into_tar(self, name: str, tiles: Tiles) -> None:
        aside, notes = self.folder.aside(), list[Json]()
        tar = Shard(aside)
        try:
            for start in range(0, len(tiles), CHUNK):
                if self.stopped.is_set():
                    return
                for files, note in self._read(tiles[start : start + CHUNK]):
                    tar.add(files)
                    notes.append(note | {"files": [name]})
        finally:
            tar.close()
        self.folder.add([(aside, name)], notes)
        self._tell(len(tiles))

    def _read(self, tiles: Tiles) -> Iterator[tuple[dict[str, bytes], Json]]:
        """Of each tile its files, and what is to be noted."""
        sample = read_batch(self.dataset.db, self.dataset.plan, tiles).sample
        rows = sources_of(self.dataset.db, self.dataset.plan, self.dataset.layers, tiles) if self.sources else {}
        keys = [key for key in sample if key not in {"bounds", "tile_id", "srid"}]
        for i, place in enumerate(_places(tiles)):
            arrays = {key: sample[key][i] for key in keys}
            one = One(place["id"], place["split"], place["srid"], tuple(place["bounds"]), arrays)
            files, more = self.form.files(one, self.contents)
            columns = {name: told(array[i]) for name, array in tiles.columns.items() if name != "split"}
            note: Json = {**place, "columns": columns, "files": []}
            note |= about_classes(one, self.contents) | about_pixels(one, self.contents) | more
            yield files, note | ({"sources": rows[one.id]} if self.sources else {})


def _splits(tiles: Tiles) -> list[str]:
    """Of each tile its split; empty where it has none."""
    given = tiles.columns.get("split")
    return [""] * len(tiles) if given is None else [str(name) for name in given.tolist()]


def _places(tiles: Tiles) -> list[Json]:
    """Of each tile what it must be for files of its id to be its own."""
    times = [None] * len(tiles) if tiles.times is None else told(tiles.times)
    each = zip(tiles.ids.tolist(), _splits(tiles), tiles.srids.tolist(), tiles.bounds.tolist(), times, strict=True)
    return [{"id": id_, "split": split, "srid": srid, "bounds": box, "time": time} for id_, split, srid, box, time in each]


def _missing(path: Path, folder: Folder, tiles: Tiles) -> NDArray[np.int64]:
    """The positions of tiles that are not in the folder; `ConfigError` where another tile of such an id is."""
    missing = []
    for i, here in enumerate(_places(tiles)):
        id_ = here["id"]
        if id_ not in folder:
            missing.append(i)
            continue
        note = folder.note(id_)
        if odd := [f"{key} {note[key]}, now {value}" for key, value in here.items() if note[key] != value]:
            raise ConfigError(
                f"tile {id_} is in {path} already, with {odd[0]}: number these tiles from elsewhere (first_id=), or name "
                "another folder"
            )
        if not all((path / file).exists() for file in note["files"]):
            folder.forget(id_)
            missing.append(i)
    return np.array(missing, np.int64)


def _lots(folder: Folder, tiles: Tiles, form: Format, shard: int) -> list[tuple[str, Tiles]]:
    """The tiles, lot by lot: of each the tar that it becomes, and the tiles. Which tiles share a tar is the same in whatever
    order tars were written before.
    """
    if not form.shard:
        return [("", tiles[k : k + CHUNK]) for k in range(0, len(tiles), CHUNK)]
    taken = {file for note in folder.notes() for file in note["files"]}
    splits, lots = np.array(_splits(tiles)), []
    for split in dict.fromkeys(splits.tolist()):
        own = tiles[np.flatnonzero(splits == split)]
        free = (name for n in count() if (name := f"{split or 'all'}-{n:06d}.tar") not in taken)
        lots += [(next(free), own[k : k + shard]) for k in range(0, len(own), shard)]
    return lots
