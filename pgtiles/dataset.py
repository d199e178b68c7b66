"""`TileDataset`: batches of tensors straight out of PostGIS, for any PyTorch trainer.

In each process some threads, each with a connection of its own, read batches ahead; they are handed out in the order that
`order` says, whichever came first. So the stream is the same for any number of workers and connections, and can be taken up
again at any batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, default_collate, get_worker_info
from torch.utils.data._utils.worker import WorkerInfo

from .errors import ConfigError, DataError, PgtilesWarning
from .layers.pixels import Pixels
from .layers.query import Layer
from .layers.timeseries import Steps
from .loading.newtable import Progress
from .postgres.database import Database
from .streaming import order, ranks, resuming, surviving
from .streaming.ahead import ahead
from .streaming.course import Course, Place
from .streaming.loader import Cursor, Loader, Sample, WayBack
from .streaming.orphans import go_with_parent
from .streaming.parcel import Piece
from .streaming.ranks import Rank
from .streaming.reading import Plan, Skipped, lost_in_words, too_small
from .streaming.stats import SharedStats, Stats
from .tiling.draws import Draws, Fresh, repeats
from .tiling.splits import Split
from .tiling.tiles import Tiles

if TYPE_CHECKING:  # what most trainings never ask for is imported when it is asked for
    from .baking import Baking
    from .inspection.checking import Report
    from .inspection.explaining import Why
    from .inspection.statistics import Statistics

Transform = Callable[[Sample, torch.Generator], Sample]
Empty = tuple[int, ...]  # of each layer, how many of a batch's tiles nothing came to
Read = tuple[Any, Empty, tuple[Skipped, ...]]  # arrays or a parcel, and what is missing

ON_ERROR = "raise", "skip"
ENOUGH = 64  # tiles that are skipped one after the other, before it is said that something else is wrong
FEW = 0.01  # of the areas: that fewer cover no pixel's centre is worth no warning (`pgtiles check` tells)
SINGLE = 16  # tiles that one statement reads where tiles are handed out one by one


class TileDataset(IterableDataset[Sample]):
    """Tiles and layers of a database as an iterable dataset.

    db: the database, or its URL.
    tiles: which tiles, all on one grid; or what is drawn in each epoch: `Tiles.weighted`, `Tiles.balanced`, `Tiles.fresh`.
    layers: what each tile shows; the keys become the sample's keys.
    batch_size: tiles in a batch, on each rank; None gives single tiles, for a trainer that batches by itself.
    shuffle: a new order in each epoch; else the tiles' own.
    last: what becomes of the tiles at an epoch's end that don't fill a batch on every rank. "even": ranks share them
        evenly, each tile comes once, and it is an error if there are fewer than ranks, because a rank that has one batch less
        hangs the others; "uneven": that is none; "drop": they are left out; "pad": as many of the epoch's first come again.
    seed: of the order and of the transform.
    connections: connections a process opens, each on a thread of its own. Two keep one core of the server busy.
    transform: takes one tile's sample and a `torch.Generator` seeded by (seed, epoch, tile id), and gives a sample: the same
        augmentation for the same tile and epoch, whichever worker makes it; another one where an epoch has the tile again.
    rank, world_size: which of a distributed run's processes this one is; else torch.distributed's process group says it,
        else the environment (RANK, WORLD_SIZE). Each rank reads its part of every global batch, world_size times batch_size
        tiles.
    on_error: "raise", or "skip": a tile that can't be read is left out of its batch; `stats` tells which. That the
        server can't be reached, or that a query is wrong, is raised all the same; so is a batch of which nothing is left, where
        other ranks, or the workers of a DataLoader that is not `loader()`'s, wait for one.

    A batch is a dict of tensors: one per layer, (B, bands, H, W) or (B, H, W), ``bounds`` (B, 4) float64 in CRS units as
    xmin, ymin, xmax, ymax, and ``tile_id`` (B,) int64.

    Opening checks every layer against the database, and raises or warns; it leaves no connection behind. The dataset pickles,
    and opens connections of its own in each process that iterates it. ``classes`` are the names of the masks' values,
    of the layers that have classes: ``{"mask": {1: "road", 2: "building"}}``. `pgtiles.plot.batch` takes one layer's.
    """

    def __init__(
        self,
        db: Database | str,
        tiles: Tiles | Draws[Tiles],
        layers: Mapping[str, Layer],
        *,
        batch_size: int | None = 16,
        shuffle: bool = True,
        last: order.Last = "even",
        seed: int = 0,
        connections: int = 2,
        transform: Transform | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("connections", connections, 1), ("seed", seed, 0)):
            if not (isinstance(value, int) and value >= least) and (name, value) != ("batch_size", None):
                raise ConfigError(f"{name}={value!r}: expected a whole number, {least} or more")
        for name, choice, known in (("last", last, order.LAST), ("on_error", on_error, ON_ERROR)):
            if choice not in known:
                raise ConfigError(f"{name}={choice!r}: expected {', '.join(map(repr, known))}")
        self._rank = ranks.given(rank, world_size)
        self.db = db if isinstance(db, Database) else Database(db)
        if not isinstance(tiles, Tiles | Draws):
            part = ": of a Split, give split.train, split.val or split.test" if isinstance(tiles, Split) else ""
            raise ConfigError(f"tiles={tiles!r}: expected Tiles, or draws of them{part}")
        self.draws = tiles if isinstance(tiles, Draws) else None
        self.tiles, self.layers = self._first_tiles(tiles, seed), dict(layers)
        self.batch_size, self.shuffle, self.last = batch_size, shuffle, last
        self.seed, self.connections, self.transform, self.on_error = seed, connections, transform, on_error
        self.check_last()
        self.plan = Plan.open(self.db, self.tiles, layers)
        self.classes = {layer.name: layer.classes for layer in self.plan.layers if layer.classes}
        for layer, areas, lost in too_small(self.db, self.plan, self.tiles):
            if lost >= FEW * areas:
                warnings.warn(lost_in_words(layer, areas, lost, self.tiles.grid), PgtilesWarning, stacklevel=2)
        self.db.close()
        self._course, self._stats = Course(), SharedStats(self.db.counters)
        self.cursor: Cursor | None = None  # of the iteration begun last
        self._loaded: Place | None = None  # in a worker of another DataLoader, that its state was loaded
        self._iterations = 0  # that a worker of another DataLoader has begun
        self._spawned: Rank | None = None  # what the process that sent us to a worker knew of ranks
        self.way_back: WayBack | None = None  # of the workers that loader() is about to start
        self._parcel = 0  # bytes of a batch, as a worker has found

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_spawned": ranks.initialised(), "cursor": None}

    @staticmethod
    def _first_tiles(tiles: Tiles | Draws[Tiles], seed: int) -> Tiles:
        """What layers are opened on, and what is asked of the dataset is answered on: all; of fresh ones, a first epoch's."""
        if isinstance(tiles, Tiles):
            return tiles
        return tiles.epoch(seed, 0) if isinstance(tiles, Fresh) else tiles.tiles

    @property
    def rank(self) -> Rank:
        """The number of this process among those that train together, and how many there are."""
        in_worker = self._spawned if get_worker_info() else None
        return self._rank or ranks.initialised() or in_worker or ranks.launched()

    def __len__(self) -> int:
        """Batches in an epoch, on this rank (tiles, where batch_size is None)."""
        return order.count_units(self._count, unit=self.batch_size or 1, last=self.last, **self.rank._asdict())

    @property
    def _count(self) -> int:
        return len(self.tiles if self.draws is None else self.draws)

    def check_last(self) -> None:
        """Raise `ConfigError` where the ranks would not have equally many batches, and nobody said that they need not."""
        world_size = self.rank.world_size
        left = order.left_over(self._count, unit=self.batch_size or 1, world_size=world_size)
        if self.last == "even" and 0 < left < world_size:
            raise ConfigError(
                f"last='even': of {self._count} tiles, {left} are left over at the end of an epoch for {world_size} "
                "ranks, and a rank that has one batch less hangs the others: last='drop' leaves them out, last='pad' reads "
                "some tiles twice, last='uneven' is for where ranks need not wait for each other"
            )

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration reads."""
        return self._course.next.epoch

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration reads. Without it, each iteration reads the one after the last.

        Of the epoch that `load_state_dict` named, the rest is read; of any other one, all.
        """
        if not isinstance(epoch, int) or epoch < 0:
            raise ConfigError(f"epoch={epoch!r}: expected a whole number, 0 or more")
        self._course.turn_to(epoch)
        self.cursor = None

    @cached_property
    def fingerprint(self) -> resuming.State:
        """What a state is held against, before it is resumed: settings, layers, a digest of the tiles."""
        return resuming.fingerprint(self)

    def state_dict(self) -> resuming.State:
        """Where training stands, for a checkpoint: numbers, texts and dicts, of the epoch and of how many of its batches were
        handed out.

        What was read ahead, but not handed out, doesn't count. Raises `ConfigError` where the batches go through the workers
        of a DataLoader that is not `loader()`'s, because nobody knows what it has handed out; torchdata's StatefulDataLoader
        does.
        """
        in_worker = get_worker_info() is not None
        if self._course.elsewhere and not in_worker:
            raise ConfigError(
                "this DataLoader's workers don't tell what it has handed out: use dataset.loader(), whose state_dict() this "
                "is, or torchdata's StatefulDataLoader, which has one of its own"
            )
        ended = self.cursor is None or (self.cursor.done and not in_worker)
        place = self._course.next if ended or self.cursor is None else self.cursor.place
        return resuming.state(self, self.rank.world_size, *place)

    def load_state_dict(self, state: resuming.State) -> None:
        """Have the next iteration go on where a checkpoint stood. Workers, connections and ranks may be others.

        Raises `ConfigError`, with what is different, where the tiles, the layers, the seed, or batch_size times the number of
        ranks are not those of the checkpoint: the batches to come would not be those that were still to come.
        """
        place, info = Place(*resuming.place(self, self.rank.world_size, state)), get_worker_info()
        self.cursor = None
        if info is None:
            self._course.resume(place)
        else:  # StatefulDataLoader's workers have a state each, by which they begin, and go on to the next epoch
            self._loaded = place
            if info.id == 0:
                self._course.go_to(Place(place.epoch + 1))

    def leave_what_ended(self) -> None:
        """Where a state is of an epoch whose batches had all been handed out, have the next iteration read the one after it.

        Trainers that count epochs by themselves, as Lightning does, go on with that one. `set_epoch` still finds the other.
        """
        place = self._course.next
        batches = order.count_units(self._count, unit=self.batch_size or 1, last=self.last, world_size=self.rank.world_size)
        if place.batches >= batches > 0:  # of rank 0, which has all
            self._course.go_to(Place(place.epoch + 1))

    def stats(self) -> Stats:
        """What has happened while reading: retries, tiles skipped, bytes; of this process and of all workers."""
        self._stats.add(self.db.counters)
        return self._stats.sum()

    def begin(self) -> Cursor:
        """Begin an iteration, in the process that holds the dataset; its workers follow."""
        self.cursor = Cursor(self._course.begin(), stride=1)
        return self.cursor

    def take_back(self, cursor: Cursor) -> None:
        """Undo `begin`, where the iteration did not come about."""
        self._course.resume(cursor.began)
        self.cursor = None

    def loader(self, *, num_workers: int = 0, **kwargs: Any) -> Loader:
        """A DataLoader with the right settings: batches come from the dataset, in the same order for any num_workers.

        Its ``state_dict()`` and ``load_state_dict(state)`` are the dataset's, where trainers look for them.

        Workers help where a transform needs cores; for reading alone, ``connections`` serve better. Further arguments are those
        of `torch.utils.data.DataLoader`.
        """
        if not kwargs.get("in_order", True):
            raise ConfigError("loader(in_order=False): batches come in their order, or no checkpoint could say which had come")
        if not_ours := {"batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"} & kwargs.keys():
            raise ConfigError(f"loader({', '.join(sorted(not_ours))}=…): the dataset itself decides on batches and their order")
        return Loader(self, num_workers=num_workers, **{"persistent_workers": num_workers > 0} | kwargs)

    def bake(
        self, table: str, *, refresh: bool = False, replace: bool = False, sources: bool = False,
        progress: Progress | None = None,
    ) -> Baking:  # fmt: skip
        """Write what the layers show on all tiles into a table, on the server: see `pgtiles.bake`. `pgtiles.baked` reads it."""
        from .baking import bake

        if isinstance(self.draws, Fresh):
            raise ConfigError("tiles that are fresh in each epoch can't be baked: bake a fixed set, such as Tiles.random gives")
        return bake(
            self.db, table, self.tiles, self.layers, refresh=refresh, replace=replace, sources=sources,
            connections=self.connections, progress=progress,
        )  # fmt: skip

    def statistics(self, *, tiles: float | None = None, seed: int = 0, progress: Progress | None = None) -> Statistics:
        """What the layers' pixels are like: means, spreads and quantiles of bands, shares and areas of classes.

        tiles: how many of the dataset's tiles (or its epoch 0's) to read, drawn by the seed, or a share as a float; else all.
        progress: is told tiles read and tiles to read, by the threads that read, one at a time.
        """
        from .inspection.measuring import measure

        return measure(self, sample=tiles, seed=seed, progress=progress)

    def check(self, *, num_workers: int = 0) -> Report:
        """The pre-flight: how each layer is read, how fast, and what is wrong, with the SQL that mends it; as `pgtiles check`.

        num_workers: as the loader will have.
        """
        from .inspection.checking import check

        return check(self.db, self.tiles, self.layers, connections=self.connections, workers=num_workers)

    def why(self, tile_id: int) -> Why:
        """Explain one tile, by the id that a batch calls it: which rows made it, or why it is empty; as `pgtiles why`."""
        from .inspection.explaining import why

        tiles = self.tiles
        if isinstance(self.draws, Fresh) and tile_id >= 0:
            tiles = self.draws.epoch(self.seed, tile_id // len(self.draws))
        return why(self.db, tiles, self.layers, tile_id)

    def close(self) -> None:
        """Close the connections that this process holds."""
        self.db.close()

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        if info is None:
            return self._stream_here()
        return self._stream(self._begin_in_worker(info), info.id, info.num_workers)

    def _stream_here(self) -> Iterator[Sample]:
        self.check_last()  # ranks may be known only by now
        yield from self._stream(self.begin(), 0, 1)  # by now: an iterator that nobody asks uses up no epoch

    def _begin_in_worker(self, info: WorkerInfo) -> Cursor:
        go_with_parent()
        if self.way_back is not None:
            place = Place(*self.way_back.place.tolist())
        elif self._loaded is not None:
            place, self._loaded = self._loaded, None
        else:  # what the workers of one iteration have in common is torch's seed, and how often they were asked with it
            place = self._course.agree(info.id, (info.seed - info.id + self._iterations, info.num_workers))
            self._iterations += 1
        self.cursor = Cursor(place, stride=info.num_workers)
        return self.cursor

    def _stream(self, cursor: Cursor, worker: int, workers: int) -> Iterator[Any]:
        (epoch, start), rank = cursor.began, self.rank
        tiles = self.tiles if self.draws is None else self.draws.epoch(self.seed, epoch)
        again = repeats(tiles.ids)
        sequence = order.epoch_order(len(tiles), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        units = order.units(sequence, unit=self.batch_size or 1, last=self.last, **rank._asdict())[start:]
        mine = order.share(units, worker=worker, workers=workers)
        if self.batch_size is None:  # one statement reads many tiles all the same
            mine = [np.concatenate(mine[k : k + SINGLE]) for k in range(0, len(mine), SINGLE)]
        counted, in_a_row = np.zeros(2 + len(self.plan.layers), int), 0
        back = self.way_back
        packed = back is not None and back.unpacks and self.batch_size is not None and self.transform is None
        read = self._packed if packed else self._read
        parts = (tiles[unit] for unit in mine)
        batches = ahead(read, parts, threads=self.connections, interrupt=self.db.interrupt)
        for unit, (sample, empty, skipped) in zip(mine, batches, strict=True):
            missing = np.isin(np.arange(len(unit)), [tile.at for tile in skipped])
            counted += (len(unit) - len(skipped), len(skipped), *empty)
            self._stats.add(self.db.counters, [tile.tile_id for tile in skipped])
            in_a_row = in_a_row + len(skipped) if missing.all() else 0
            if in_a_row >= ENOUGH:
                raise DataError(f"{in_a_row} tiles in a row can't be read, so it is not the tiles; the last: {skipped[-1].why}")
            whole = [None if missing.all() else sample]
            handed = whole if packed else self._handed(sample, missing, epoch, again[unit])
            if None in handed and not self._may_lack(workers):
                raise DataError(
                    f"tiles {', '.join(str(tile.tile_id) for tile in skipped)} can't be read, and with them a whole batch "
                    "would be left out, in whose place other ranks, or this DataLoader, need one: on_error='skip' leaves out "
                    f"tiles of a batch only. The last: {skipped[-1].why}"
                )
            for one in handed:
                self.cursor = cursor
                cursor.count += 1  # before it is handed out: whoever asks for the state then has it already
                if one is not None or back is not None:  # the main process counts what it gets, and drops None
                    yield one
        cursor.done = True
        if back is not None:
            back.counted[worker] = torch.from_numpy(counted)  # the main process sums up and reports
        else:
            self.report(counted.tolist(), cursor.began)

    def _may_lack(self, workers: int) -> bool:
        """Whether of what is handed out one may be missing, and the others still come in order, as many on each rank."""
        return self.rank.world_size == 1 and (workers == 1 if self.way_back is None else self.way_back.unpacks)

    def _read(self, tiles: Tiles) -> Read:
        batch = surviving.read(self.db, self.plan, tiles, skip=self.on_error == "skip")
        return batch.sample, batch.empty, batch.skipped

    def _packed(self, tiles: Tiles) -> Read:
        """The same in a parcel. The first one of a worker is copied into it, and tells how large the next ones are."""
        piece = Piece(self._parcel)
        batch = surviving.read(self.db, self.plan, tiles, piece.zeros, skip=self.on_error == "skip")
        parcel = piece.pack(batch.sample)
        self._parcel = max(self._parcel, len(parcel.bytes))
        return parcel, batch.empty, batch.skipped

    def _handed(
        self, sample: Mapping[str, NDArray[Any]], missing: NDArray[np.bool_], epoch: int, again: NDArray[np.int64]
    ) -> list[Sample | None]:
        """A batch, or its tiles one by one; None in the place of what is not there."""
        samples = iter(self._samples(sample, epoch, again[~missing]) if not missing.all() else ())
        if self.batch_size is not None:
            return [next(samples, None)]
        return [None if lacks else next(samples) for lacks in missing.tolist()]

    def _samples(self, sample: Mapping[str, NDArray[Any]], epoch: int, again: NDArray[np.int64]) -> Iterator[Sample]:
        tensors = {
            name: [torch.from_numpy(a) for a in array] if isinstance(array, list) else torch.from_numpy(array)
            for name, array in sample.items()
        }
        if self.batch_size is not None and self.transform is None:
            yield tensors
            return
        singles = [{name: tensor[i] for name, tensor in tensors.items()} for i in range(len(sample["tile_id"]))]
        if self.transform is not None:
            generators = (
                self._generator(epoch, int(single["tile_id"]), n) for single, n in zip(singles, again.tolist(), strict=True)
            )
            singles = [self.transform(single, generator) for single, generator in zip(singles, generators, strict=True)]
        if self.batch_size is None:
            yield from singles
        else:
            yield _collated(singles, ragged={name for name, array in sample.items() if isinstance(array, list)})

    def _generator(self, epoch: int, tile_id: int, again: int) -> torch.Generator:
        drawn = [again] if again else []  # how many times this epoch had the tile before
        mixed = np.random.SeedSequence([self.seed, epoch, tile_id % 2**64, *drawn]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed) % 2**63)

    def report(self, counted: list[int], place: Place) -> None:
        """Warn of what an epoch, or its rest from there on, lacked: counted are the tiles read, those skipped, and for each
        layer those to which nothing came. Raises `DataError` where none could be read.
        """
        (read, skipped, *empty), (epoch, before) = counted, place
        if skipped and not read:
            raise DataError(f"none of {skipped} tiles of epoch {epoch} could be read; the log says why of each")
        for layer, missing in zip(self.plan.layers, empty, strict=True):
            if layer.path in {"burned", "listed"} and missing == read > 0 == before:
                text = f"no row of the query met any of the {read} tiles of epoch {epoch}: do labels and tiles meet?"
            elif missing and isinstance(layer.sheet, Pixels | Steps):
                text = f"{missing} of {read} tiles of epoch {epoch} have no imagery at all, and hold {layer.sheet.filled}"
            else:
                continue
            warnings.warn(f"layer {layer.name!r}: {text}", PgtilesWarning, stacklevel=2)


def _collated(singles: list[Sample], ragged: Collection[str]) -> Sample:
    """A batch of samples: tensors are stacked, but those that differ in length from tile to tile stay a list."""
    lists = {name: [single[name] for single in singles] for name in singles[0] if name in ragged}
    stacked = default_collate([{name: value for name, value in single.items() if name not in ragged} for single in singles])
    return {name: lists[name] if name in lists else stacked[name] for name in singles[0]}
