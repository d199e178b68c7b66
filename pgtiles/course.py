"""Where training stands: which epoch is read, and from which batch on, in memory that the workers of a DataLoader see too."""

from __future__ import annotations

import time
from multiprocessing.context import get_spawning_popen
from typing import Any, NamedTuple

import torch

from .errors import PgtilesError

SLOTS = 16  # iterations by DataLoaders of other makes that are remembered at a time
WORKERS = 1024  # of one DataLoader
PATIENCE = 120.0  # seconds that a worker waits for the first one to say which epoch it is
MOST = 2**63 - 1
NONE = -1  # is no epoch


class Place(NamedTuple):
    """An epoch, and how many of its global batches have been consumed."""

    epoch: int
    batches: int = 0


class Course:
    """What the next iteration reads.

    An iteration that begins in the process that holds the dataset calls `begin`. In the workers of a DataLoader that is not
    ours nobody tells them anything; their first one goes on to the next epoch for all, and the others look up to which
    (`agree`).
    """

    def __init__(self) -> None:
        self._next, self._resumed = shared(2), shared(2)
        self._resumed[0] = NONE
        self._agreed = shared(SLOTS, 4)  # key, number from 1 on, epoch, batches
        self._told = shared(WORKERS)  # of each worker, the number of what it was told last
        self._count = shared(2)  # how often workers agreed, and whether they did so last

    def __getstate__(self) -> dict[str, Any]:
        """Shared with a process that is being started; elsewhere, what the next iteration reads."""
        if get_spawning_popen():
            return self.__dict__
        return {"_next": self._next.tolist(), "_resumed": self._resumed.tolist()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_told" in state:
            self.__dict__.update(state)
            return
        self.__init__()  # type: ignore[misc]
        for name, values in state.items():
            getattr(self, name)[:] = torch.tensor(values)

    @property
    def next(self) -> Place:
        """What the next iteration reads."""
        return Place(*self._next.tolist())

    @property
    def elsewhere(self) -> bool:
        """Whether the last iteration is one by workers of another DataLoader, which doesn't tell what it hands out."""
        return bool(self._count[1])

    def go_to(self, place: Place) -> None:
        """Have the next iteration begin there."""
        self._next[:] = torch.tensor(place)
        self._count[1] = False

    def turn_to(self, epoch: int) -> None:
        """Have the next iteration read an epoch: all of it, or the rest where it is the one to come or that was resumed."""
        known = {place.epoch: place for place in (self.next, Place(*self._resumed.tolist()))}
        self.go_to(known.get(epoch, Place(epoch)))

    def resume(self, place: Place) -> None:
        """Have the next iteration begin there; until it has begun, `turn_to` finds the place again."""
        self.go_to(place)
        self._resumed[:] = torch.tensor(place)

    def begin(self) -> Place:
        """Begin an iteration; the one after it reads the next epoch."""
        place = self.next
        self.go_to(Place(place.epoch + 1))
        self._resumed[0] = NONE
        return place

    def agree(self, worker: int, key: int) -> Place:
        """The same as `begin`, by several workers for one iteration, of which each knows the key."""
        if worker == 0:
            place, number = self.begin(), int(self._count[0]) + 1
            self._count[:] = torch.tensor([number, True])
            self._agreed[number % SLOTS, 1:] = torch.tensor([number, *place])
            self._agreed[number % SLOTS, 0] = key  # the last, because others look for it
            return place
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for found, number, *place_ in sorted(self._agreed.tolist(), key=lambda row: row[1]):
                if found == key and number > self._told[worker]:  # a key may come again, where somebody seeds torch anew
                    self._told[worker] = number
                    return Place(*place_)
            time.sleep(0.001)
        raise PgtilesError(f"worker {worker} was never told which epoch to read: did worker 0 start?")


def shared(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Zeros that the workers of a DataLoader see too."""
    zeros = torch.zeros(shape, dtype=dtype)
    zeros.share_memory_()  # type: ignore[no-untyped-call]
    return zeros
