"""`TileDataset`: batches of tensors straight out of PostGIS, for any PyTorch trainer. The only module that imports torch.

In each process some threads, each with a connection of its own, read batches ahead; they are handed out in the order that
`order` says, whichever came first. So the stream is the same for any number of workers and connections.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from . import order
from .database import Database
from .errors import ConfigError, PgtilesWarning
from .grid import Tiles
from .layers import Layer
from .reading import Batch, Plan, read_batch

Sample = dict[str, Any]
Transform = Callable[[Sample, torch.Generator], Sample]

SINGLE = 16  # tiles that one statement reads where tiles are handed out one by one


class TileDataset(IterableDataset[Sample]):
    """Tiles and layers of a database as an iterable dataset.

    db: the database, or its URL.
    tiles: which tiles, all on one grid.
    layers: what each tile shows; the keys become the sample's keys.
    batch_size: tiles in a batch; None gives single tiles, for a trainer that batches by itself.
    shuffle: a new order in each epoch; else the tiles' own.
    drop_last: leave out a last batch that is not full.
    seed: of the order and of the transform.
    connections: connections a process opens, each on a thread of its own. Two keep one core of the server busy.
    transform: takes one tile's sample and a `torch.Generator` seeded by (seed, epoch, tile id), and gives a sample: the same
        augmentation for the same tile and epoch, whichever worker makes it.

    A batch is a dict of tensors: one per layer, (B, bands, H, W) or (B, H, W), ``bounds`` (B, 4) float64 in CRS units as
    xmin, ymin, xmax, ymax, and ``tile_id`` (B,) int64.

    Opening checks every layer against the database, and raises or warns; it leaves no connection behind. The dataset pickles,
    and opens connections of its own in each process that iterates it.
    """

    def __init__(
        self,
        db: Database | str,
        tiles: Tiles,
        layers: Mapping[str, Layer],
        *,
        batch_size: int | None = 16,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        connections: int = 2,
        transform: Transform | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("connections", connections)):
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name}={value!r}: expected a whole number, 1 or more")
        if seed < 0:
            raise ConfigError(f"seed={seed!r}: expected 0 or more")
        self.db = db if isinstance(db, Database) else Database(db)
        self.tiles, self.layers = tiles, dict(layers)
        self.batch_size, self.shuffle, self.drop_last = batch_size, shuffle, drop_last
        self.seed, self.connections, self.transform = seed, connections, transform
        self.plan = Plan.open(self.db, tiles, layers)
        self.db.close()
        # The epoch under way and the one after it: in shared memory, because the workers of a DataLoader hold copies.
        self._epochs = torch.tensor([0, 0]).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        """Batches in an epoch (tiles, where batch_size is None)."""
        return order.count_units(len(self.tiles), unit=self.batch_size or 1, drop_last=self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration reads. Without it, each iteration reads the one after the last."""
        if epoch < 0:
            raise ConfigError(f"epoch={epoch!r}: expected 0 or more")
        self._epochs[:] = epoch

    def begin_epoch(self) -> int:
        """Go on to the next epoch, in the process that holds the dataset; its workers follow. Gives its number."""
        self._epochs[0], self._epochs[1] = self._epochs[1].item(), self._epochs[1].item() + 1
        return int(self._epochs[0])

    def loader(self, *, num_workers: int = 0, **kwargs: Any) -> DataLoader[Sample]:
        """A DataLoader with the right settings: batches come from the dataset, in the same order for any num_workers.

        Workers help where a transform needs cores; for reading alone, ``connections`` serve better. Further arguments are those
        of `torch.utils.data.DataLoader`.
        """
        if not_ours := {"batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"} & kwargs.keys():
            raise ConfigError(f"loader({', '.join(sorted(not_ours))}=…): the dataset itself decides on batches and their order")
        kwargs = {"persistent_workers": num_workers > 0} | kwargs
        return _Loader(self, batch_size=None, num_workers=num_workers, **kwargs)

    def close(self) -> None:
        """Close the connections that this process holds."""
        self.db.close()

    def __iter__(self) -> Iterator[Sample]:
        info = get_worker_info()
        if info is None:
            epoch, worker, workers = self.begin_epoch(), 0, 1
        else:
            epoch, worker, workers = int(self._epochs[0]), info.id, info.num_workers
        return self._stream(epoch, worker, workers)  # a generator of its own, so that the epoch is fixed here and now

    def _stream(self, epoch: int, worker: int, workers: int) -> Iterator[Sample]:
        sequence = order.epoch_order(len(self.tiles), seed=self.seed, epoch=epoch, shuffle=self.shuffle)
        units = order.units(sequence, unit=self.batch_size or 1, drop_last=self.drop_last)
        mine = order.share(units, worker=worker, workers=workers)
        if self.batch_size is None:  # one statement reads many tiles all the same
            mine = [np.concatenate(mine[k : k + SINGLE]) for k in range(0, len(mine), SINGLE)]
        empty, read = np.zeros(len(self.plan.layers), int), 0
        for batch in self._ahead(mine):
            empty, read = empty + batch.empty, read + len(batch.sample["tile_id"])
            yield from self._samples(batch.sample, epoch)
        self._report(empty, read, epoch)

    def _ahead(self, units: list[NDArray[np.int64]]) -> Iterator[Batch]:
        """The batches in order, while threads read the next ones."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self.connections, thread_name_prefix="pgtiles") as threads:
            try:
                for unit in units:
                    waiting.append(threads.submit(read_batch, self.db, self.plan, self.tiles[unit]))
                    if len(waiting) > 2 * self.connections:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:  # the consumer stopped, or a batch failed: what has not begun is not worth reading
                threads.shutdown(wait=True, cancel_futures=True)

    def _samples(self, sample: Mapping[str, NDArray[Any]], epoch: int) -> Iterator[Sample]:
        tensors = {name: torch.from_numpy(array) for name, array in sample.items()}
        if self.batch_size is not None and self.transform is None:
            yield tensors
            return
        singles = [{name: tensor[i] for name, tensor in tensors.items()} for i in range(len(sample["tile_id"]))]
        if self.transform is not None:
            singles = [self.transform(single, self._generator(epoch, int(single["tile_id"]))) for single in singles]
        if self.batch_size is None:
            yield from singles
        else:
            yield default_collate(singles)

    def _generator(self, epoch: int, tile_id: int) -> torch.Generator:
        mixed = np.random.SeedSequence([self.seed, epoch, tile_id % 2**64]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(mixed) % 2**63)

    def _report(self, empty: NDArray[np.int64], read: int, epoch: int) -> None:
        """Say what an epoch lacked: nothing that is missing from the data passes in silence."""
        for layer, missing in zip(self.plan.layers, empty.tolist(), strict=True):
            if layer.burned and missing == read:
                text = f"no row of the query met any of the {read} tiles of epoch {epoch}: do labels and tiles meet?"
            elif missing and not layer.burned:
                text = f"{missing} of {read} tiles of epoch {epoch} have no imagery at all, and hold {layer.fill:g}"
            else:
                continue
            warnings.warn(f"layer {layer.name!r}: {text}", PgtilesWarning, stacklevel=2)


class _Loader(DataLoader[Sample]):
    """A DataLoader that goes on to the next epoch in the main process, before its workers ask which one it is."""

    def __iter__(self) -> Any:
        if self.num_workers:
            self.dataset.begin_epoch()  # type: ignore[attr-defined]  # without workers, the dataset's own __iter__ does
        return super().__iter__()

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]
