"""The DataLoader that knows what a dataset does: the epoch is said in the main process, and batches come back in one piece."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch.utils.data import DataLoader

from ..errors import ConfigError, DatabaseError, PgtilesWarning
from ..postgres.database import Database
from ..template import compose
from .course import Place, shared
from .parcel import Parcel
from .ranks import Rank
from .reading import Plan

Sample = dict[str, Any]

log = logging.getLogger("pgtiles")


class WayBack(NamedTuple):
    """How workers of our own DataLoader and the main process reach each other, besides by batches.

    place: epoch and global batches from which they read.
    counted: a row for each worker: the tiles it read in this epoch, those it skipped, and for each layer those to which nothing
        came.
    unpacks: whether the main process unpacks parcels, and drops what stands for a batch that was skipped: not where somebody
        else's function sees batches first.
    """

    place: torch.Tensor
    counted: torch.Tensor
    unpacks: bool


class Cursor:
    """What has been handed out of an iteration.

    place: where it began.
    stride: units of the stream from one of this process's to its next.
    """

    def __init__(self, place: Place, stride: int) -> None:
        self.began, self.stride, self.count, self.done = place, stride, 0, False

    @property
    def place(self) -> Place:
        """As far as this process is concerned: its own next unit is the first one of its share behind this."""
        return Place(self.began.epoch, self.began.batches + self.count * self.stride)


class Streamed(Protocol):
    """What a loader needs of a `TileDataset`."""

    db: Database
    plan: Plan
    connections: int
    way_back: WayBack | None
    cursor: Cursor | None

    @property
    def rank(self) -> Rank: ...  # noqa: D102
    def check_last(self) -> None: ...  # noqa: D102
    def begin(self) -> Cursor: ...  # noqa: D102
    def take_back(self, cursor: Cursor) -> None: ...  # noqa: D102
    def report(self, counted: list[int], place: Place) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: Any) -> None: ...  # noqa: D102
    def leave_what_ended(self) -> None: ...  # noqa: D102
    def __len__(self) -> int: ...


class Loader(DataLoader[Sample]):
    """A DataLoader that goes on to the next epoch in the main process, before its workers ask which one it is, counts what it
    hands out, and sums up what the workers missed. Its state is its dataset's.
    """

    def __init__(self, dataset: Any, *, num_workers: int, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=None, num_workers=num_workers, **kwargs)
        self.stream: Streamed = dataset
        self.way_back, self._iteration = self._way_back(), 0
        state_bound(dataset, num_workers)

    def _way_back(self) -> WayBack:
        unpacks = self.collate_fn is torch.utils.data._utils.collate.default_convert
        return WayBack(shared(len(Place._fields)), shared(self.num_workers, 2 + len(self.stream.plan.layers)), unpacks)

    def __iter__(self) -> Any:
        if not self.num_workers:
            return super().__iter__()  # the dataset's own __iter__ does it all
        if not self.persistent_workers:
            self.way_back = self._way_back()  # workers of an iteration that still runs go on with theirs
        self.stream.check_last()  # ranks may be known only by now
        cursor = self.stream.begin()
        self._iteration += 1
        self.way_back.place[:] = torch.tensor(cursor.began)
        self.way_back.counted.zero_()  # before the workers start: a short epoch is read while nobody has asked for a batch
        self.stream.way_back = self.way_back
        try:
            batches = super().__iter__()
        except BaseException:
            self.stream.take_back(cursor)
            raise
        finally:
            self.stream.way_back = None  # they have it by now; workers of another DataLoader report for themselves
        return self._handed_out(batches, cursor, self.way_back.counted, self._iteration)

    def _handed_out(self, batches: Iterator[Any], cursor: Cursor, counted: torch.Tensor, number: int) -> Iterator[Sample]:
        while True:
            if self.persistent_workers and number != self._iteration:
                raise ConfigError(
                    "a newer iteration has taken over the workers of this loader: make a loader for each, or give "
                    "persistent_workers=False"
                )
            try:
                batch = next(batches)
            except StopIteration:
                break
            self.stream.cursor = cursor
            cursor.count += 1  # now: whoever asks for the state has this one already
            if batch is not None or not self.way_back.unpacks:  # else all its tiles were skipped
                yield batch.unpack() if isinstance(batch, Parcel) else batch
        cursor.done = True
        self.stream.report(counted.sum(dim=0).tolist(), cursor.began)

    def __len__(self) -> int:
        return len(self.stream)

    def state_dict(self) -> dict[str, Any]:
        """See `TileDataset.state_dict`."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Any) -> None:
        """See `TileDataset.load_state_dict`. Of an epoch that had been handed out to the end, there is no rest to iterate
        here: the next iteration reads the epoch after it, as trainers expect that keep their loaders' states and count epochs
        by themselves.
        """
        self.stream.load_state_dict(state)
        self.stream.leave_what_ended()


def state_bound(dataset: Streamed, workers: int) -> None:
    """Say how many connections reading may open, and warn where the server has fewer left."""
    connections, processes, world = dataset.connections, max(workers, 1), dataset.rank.world_size
    wanted = connections * processes * world
    times = f"{connections} connections × {processes} {'workers' if workers else 'process'}"
    bound = f"up to {wanted} connections ({times}{f' × {world} ranks' if world > 1 else ''})"
    try:
        *_, limit, most, in_use, _, _ = dataset.db.query(compose("check_server"))[0]
    except DatabaseError:
        log.info("reading opens %s; how many the server has left it doesn't say now", bound)
        return
    finally:
        dataset.db.close()
    log.info("reading opens %s; of %s that the %s allows, %s are in use", bound, most, limit, in_use)
    if wanted > most - in_use:
        text = (
            f"reading opens {bound}, but of {most} that the {limit} allows, {in_use} are in use: some will have to wait for "
            "others. Fewer workers or connections=, or a higher max_connections; pgtiles check says more"
        )
        warnings.warn(text, PgtilesWarning, stacklevel=4)
