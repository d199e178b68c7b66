"""`TileDataset`: batches of tensors straight out of PostGIS, for any PyTorch trainer.

In each process some threads, each with a connection of its own, read batches ahead; they are handed out in the order that
`order` says, whichever came first. So the stream is the same for any number of workers and connections.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from . import order
from .database import Database
from .draws import Draws, Fresh, repeats
from .errors import ConfigError, PgtilesWarning
from .newtable import Progress
from .parcel import Parcel, Piece
from .pixels import Pixels
from .query import Layer
from .reading import Plan, lost_in_words, read_batch, too_small
from .splits import Split
from .tiles import Tiles
from .timeseries import Steps

if TYPE_CHECKING:  # what most trainings never ask for is imported when it is asked for
    from .baking import Baking
    from .checking import Report
    from .explaining import Why
    from .statistics import Statistics

Sample = dict[str, Any]
Transform = Callable[[Sample, torch.Generator], Sample]
Empty = tuple[int, ...]  # of each layer, how many of a batch's tiles nothing came to
Read = Callable[[Tiles], tuple[Any, Empty]]  # of some tiles

FEW = 0.01  # of the areas: that fewer cover no pixel's centre is worth no warning (`pgtiles check` tells)
PATIENCE = 1.0  # seconds that statements may take to end when nobody wants their rows any more
SINGLE = 16  # tiles that one statement reads where tiles are handed out one by one


class TileDataset(IterableDataset[Sample]):
    """Tiles and layers of a database as an iterable dataset.

    db: the database, or its URL.
    tiles: which tiles, all on one grid; or what is drawn in each epoch: `Tiles.weighted`, `Tiles.balanced`, `Tiles.fresh`.
    layers: what each tile shows; the keys become the sample's keys.
    batch_size: tiles in a batch; None gives single tiles, for a trainer that batches by itself.
    shuffle: a new order in each epoch; else the tiles' own.
    drop_last: leave out a last batch that is not full.
    seed: of the order and of the transform.
    connections: connections a process opens, each on a thread of its own. Two keep one core of the server busy.
    transform: takes one tile's sample and a `torch.Generator` seeded by (seed, epoch, tile id), and gives a sample: the same
        augmentation for the same tile and epoch, whichever worker makes it; another one where an epoch has the tile again.

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
        drop_last: bool = False,
        seed: int = 0,
        connections: int = 2,
        transform: Transform | None = None,
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("connections", connections, 1), ("seed", seed, 0)):
            if not (isinstance(value, int) and value >= least) and (name, value) != ("batch_size", None):
                raise ConfigError(f"{name}={value!r}: expected a whole number, {least} or more")
        self.db = db if isinstance(db, Database) else Database(db)
        if not isinstance(tiles, Tiles | Draws):
            part = ": of a Split, give split.train, split.val or split.test" if isinstance(tiles, Split) else ""
            raise ConfigError(f"tiles={tiles!r}: expected Tiles, or draws of them{part}")
        self.draws = tiles if isinstance(tiles, Draws) else None
        self.tiles, self.layers = self._first_tiles(tiles, seed), dict(layers)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.seed, self.connections, self.transform = seed, connections, transform
        self.plan = Plan.open(self.db, self.tiles, layers)
        self.classes = {layer.name: layer.classes for layer in self.plan.layers if layer.classes}
        for layer, areas, lost in too_small(self.db, self.plan, self.tiles):
            if lost >= FEW * areas:
                warnings.warn(lost_in_words(layer, areas, lost, self.tiles.grid), PgtilesWarning, stacklevel=2)
        self.db.close()
        # In shared memory, because the workers of a DataLoader hold copies: the epoch under way, the one after it, and whether
        # anybody says which it is; and where the workers that loader() is about to start note what they read.
        self._epochs = _shared(3)
        self.way_back: WayBack | None = None
        self._parcel = 0  # bytes of a batch, as a worker has found

    @staticmethod
    def _first_tiles(tiles: Tiles | Draws[Tiles], seed: int) -> Tiles:
        """What layers are opened on, and what is asked of the dataset is answered on: all; of fresh ones, a first epoch's."""
        if isinstance(tiles, Tiles):
            return tiles
        return tiles.epoch(seed, 0) if isinstance(tiles, Fresh) else tiles.tiles

    def __len__(self) -> int:
        """Batches in an epoch (tiles, where batch_size is None)."""
        count = len(self.tiles if self.draws is None else self.draws)
        return order.count_units(count, unit=self.batch_size or 1, drop_last=self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration reads. Without it, each iteration reads the one after the last."""
        if not isinstance(epoch, int) or epoch < 0:
            raise ConfigError(f"epoch={epoch!r}: expected a whole number, 0 or more")
        self._epochs[:] = torch.tensor([epoch, epoch, True])

    def begin_epoch(self) -> int:
        """Go on to the next epoch, in the process that holds the dataset; its workers follow. Gives its number."""
        epoch = int(self._epochs[1])
        self._epochs[:] = torch.tensor([epoch, epoch + 1, True])
        return epoch

    def loader(self, *, num_workers: int = 0, **kwargs: Any) -> DataLoader[Sample]:
        """A DataLoader with the right settings: batches come from the dataset, in the same order for any num_workers.

        Workers help where a transform needs cores; for reading alone, ``connections`` serve better. Further arguments are those
        of `torch.utils.data.DataLoader`.
        """
        if not_ours := {"batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"} & kwargs.keys():
            raise ConfigError(f"loader({', '.join(sorted(not_ours))}=…): the dataset itself decides on batches and their order")
        kwargs = {"persistent_workers": num_workers > 0} | kwargs
        return _Loader(self, batch_size=None, num_workers=num_workers, **kwargs)

    def bake(self, table: str, *, refresh: bool = False, replace: bool = False, progress: Progress | None = None) -> Baking:
        """Write what the layers show on all tiles into a table, on the server: see `pgtiles.bake`. `pgtiles.baked` reads it."""
        from .baking import bake

        if isinstance(self.draws, Fresh):
            raise ConfigError("tiles that are fresh in each epoch can't be baked: bake a fixed set, such as Tiles.random gives")
        return bake(
            self.db, table, self.tiles, self.layers, refresh=refresh, replace=replace, connections=self.connections,
            progress=progress,
        )  # fmt: skip

    def statistics(self, *, tiles: float | None = None, seed: int = 0, progress: Progress | None = None) -> Statistics:
        """What the layers' pixels are like: means, spreads and quantiles of bands, shares and areas of classes.

        tiles: how many of the dataset's tiles (or its epoch 0's) to read, drawn by the seed, or a share as a float; else all.
        progress: is told tiles read and tiles to read, by the threads that read, one at a time.
        """
        from .measuring import measure

        return measure(self, sample=tiles, seed=seed, progress=progress)

    def check(self, *, num_workers: int = 0) -> Report:
        """The pre-flight: how each layer is read, how fast, and what is wrong, with the SQL that mends it; as `pgtiles check`.

        num_workers: as the loader will have.
        """
        from .checking import check

        return check(self.db, self.tiles, self.layers, connections=self.connections, workers=num_workers)

    def why(self, tile_id: int) -> Why:
        """Explain one tile, by the id that a batch calls it: which rows made it, or why it is empty; as `pgtiles why`."""
        from .explaining import why

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
            epoch, worker, workers = self.begin_epoch(), 0, 1
        else:
            epoch, worker, workers = int(self._epochs[0]), info.id, info.num_workers
            if not self._epochs[2]:
                text = (
                    "call set_epoch(epoch) before each epoch, or use dataset.loader(): this DataLoader does not say which it is"
                )
                warnings.warn(text, PgtilesWarning, stacklevel=2)
        return self._stream(epoch, worker, workers)  # a generator of its own, so that the epoch is fixed here and now

    def _stream(self, epoch: int, worker: int, workers: int) -> Iterator[Sample]:
        tiles = self.tiles if self.draws is None else self.draws.epoch(self.seed, epoch)
        again = repeats(tiles.ids)
        sequence = order.epoch_order(len(tiles), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        units = order.units(sequence, unit=self.batch_size or 1, drop_last=self.drop_last)
        mine = order.share(units, worker=worker, workers=workers)
        if self.batch_size is None:  # one statement reads many tiles all the same
            mine = [np.concatenate(mine[k : k + SINGLE]) for k in range(0, len(mine), SINGLE)]
        counted = np.zeros(1 + len(self.plan.layers), int)
        back = self.way_back
        packed = back is not None and back.unpacks and self.batch_size is not None and self.transform is None
        ahead = self._ahead(tiles, mine, self._packed if packed else self._read)
        for unit, (sample, empty) in zip(mine, ahead, strict=True):
            counted += (len(unit), *empty)
            yield from [sample] if packed else self._samples(sample, epoch, again[unit])
        if back is not None:
            back.tally[worker] = torch.from_numpy(counted)  # the main process sums up and reports
        else:
            self.report(counted.tolist(), epoch)

    def _read(self, tiles: Tiles) -> tuple[Any, Empty]:
        batch = read_batch(self.db, self.plan, tiles)
        return batch.sample, batch.empty

    def _packed(self, tiles: Tiles) -> tuple[Any, Empty]:
        """The same in a parcel. The first one of a worker is copied into it, and tells how large the next ones are."""
        piece = Piece(self._parcel)
        batch = read_batch(self.db, self.plan, tiles, piece.zeros)
        parcel = piece.pack(batch.sample)
        self._parcel = max(self._parcel, len(parcel.bytes))
        return parcel, batch.empty

    def _ahead(self, tiles: Tiles, units: list[NDArray[np.int64]], read: Read) -> Iterator[tuple[Any, Empty]]:
        """The batches in order, while threads read the next ones."""
        waiting: deque[Future[tuple[Any, Empty]]] = deque()
        readers = set[int]()

        def begin(unit: NDArray[np.int64]) -> tuple[Any, Empty]:
            readers.add(get_ident())
            return read(tiles[unit])

        with ThreadPoolExecutor(self.connections, thread_name_prefix="pgtiles") as threads:
            try:
                for unit in units:
                    waiting.append(threads.submit(begin, unit))
                    if len(waiting) > 2 * self.connections:
                        waiting[0].result()  # it is among those that wait until it is there
                        yield waiting.popleft().result()
                while waiting:
                    waiting[0].result()
                    yield waiting.popleft().result()
            finally:  # the consumer stopped, or a batch failed: what has not begun is not worth reading, nor what has
                threads.shutdown(wait=False, cancel_futures=True)
                begun = [future for future in waiting if not future.cancelled()]
                if wait(begun, timeout=PATIENCE).not_done:  # most end by themselves, and their connections stay
                    self.db.interrupt(readers)

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

    def report(self, counted: list[int], epoch: int) -> None:
        """Warn of what an epoch lacked: counted are the tiles read, and for each layer those to which nothing came."""
        read, *empty = counted
        for layer, missing in zip(self.plan.layers, empty, strict=True):
            if layer.path in {"burned", "listed"} and missing == read > 0:
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


class WayBack(NamedTuple):
    """How workers of our own DataLoader reach the main process, besides by batches.

    tally: a row for each worker: the tiles it read in this epoch, and for each layer those to which nothing came.
    unpacks: whether the main process unpacks parcels: not where somebody else's function sees batches first.
    """

    tally: torch.Tensor
    unpacks: bool


class _Loader(DataLoader[Sample]):
    """A DataLoader that goes on to the next epoch in the main process, before its workers ask which one it is, and sums up what
    they missed.
    """

    dataset: TileDataset

    def __init__(self, dataset: TileDataset, **kwargs: Any) -> None:
        super().__init__(dataset, **kwargs)
        tally = _shared(self.num_workers, 1 + len(dataset.plan.layers))
        self.way_back = WayBack(tally, unpacks=kwargs.get("collate_fn") is None)

    def __iter__(self) -> Any:
        if not self.num_workers:
            return super().__iter__()  # the dataset's own __iter__ does it all
        epoch = self.dataset.begin_epoch()
        self.way_back.tally.zero_()  # before the workers start: a short epoch is read while nobody has asked for a batch
        self.dataset.way_back = self.way_back
        try:
            batches = super().__iter__()
        finally:
            self.dataset.way_back = None  # they have it by now; workers of another DataLoader report for themselves
        return self._summed_up(batches, epoch)

    def _summed_up(self, batches: Iterator[Sample], epoch: int) -> Iterator[Sample]:
        for batch in batches:
            yield batch.unpack() if isinstance(batch, Parcel) else batch
        self.dataset.report(self.way_back.tally.sum(dim=0).tolist(), epoch)

    def __len__(self) -> int:
        return len(self.dataset)


def _shared(*shape: int) -> torch.Tensor:
    """Zeros that the workers of a DataLoader see too."""
    zeros = torch.zeros(shape, dtype=torch.int64)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros
