"""Where training stands: which epoch is read, and from which batch on, in memory that the workers of a DataLoader see too."""

from __future__ import annotations

import os
import time
from multiprocessing import parent_process
from multiprocessing.context import get_spawning_popen
from typing import NamedTuple

import torch
from torch.utils.data import get_worker_info

from ..errors import ConfigError, PgtilesError

SLOTS = 16  # iterations by DataLoaders of other makes that are remembered at a time
WORKERS = 256  # of such a DataLoader
LONGEST = 120.0  # seconds that a worker waits for the first one to say which epoch it is
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

    It belongs to the process that made it, and to the workers of that one's DataLoaders. Any other process, such as a rank
    that was started with it, has one of its own, which begins where this one stands.
    """

    def __init__(self) -> None:
        self._own(shared(6 + 4 * SLOTS + WORKERS))
        self._resumed[0] = NONE

    def _own(self, block: torch.Tensor) -> None:
        """Lay out one piece of memory: each is a file that is open."""
        self._block, self._owner = block, os.getpid()
        self._next, self._resumed = block[0:2], block[2:4]
        self._count = block[4:6]  # how often workers agreed, and whether they did so last
        self._agreed = block[6 : 6 + 4 * SLOTS].view(SLOTS, 4)  # key, number from 1 on, epoch, batches
        self._told = block[6 + 4 * SLOTS :]  # of each worker, the number of what it was told last

    def __getstate__(self) -> tuple[torch.Tensor | list[int], int]:
        """Shared with a process that is being started; elsewhere, what the next iteration reads."""
        self.settle()
        return (self._block if get_spawning_popen() else self._block[:4].tolist()), self._owner

    def __setstate__(self, state: tuple[torch.Tensor | list[int], int]) -> None:
        block, owner = state
        if isinstance(block, torch.Tensor):
            self._own(block)
            self._owner = owner
        else:
            self.__init__()  # type: ignore[misc]
            self._block[:4] = torch.tensor(block)

    def settle(self) -> None:
        """Have one of its own in a process that is neither the owner nor a worker of the owner's."""
        if self._owner == os.getpid():
            return
        if get_worker_info() is None:
            stands = self._block[:4].clone()
            self._own(shared(len(self._block)))
            self._block[:4] = stands
        elif (parent := parent_process()) is not None and parent.pid != self._owner:
            raise ConfigError(
                "the dataset was made in another process than the one whose DataLoader this is, so that nobody knows its "
                "epoch: use dataset.loader(), or make the dataset in each process"
            )

    @property
    def next(self) -> Place:
        """What the next iteration reads."""
        self.settle()
        return Place(*self._next.tolist())

    @property
    def elsewhere(self) -> bool:
        """Whether the last iteration is one by workers of another DataLoader, which doesn't tell what it hands out."""
        self.settle()
        return bool(self._count[1])

    def go_to(self, place: Place) -> None:
        """Have the next iteration begin there."""
        self.settle()
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

    def agree(self, worker: int, known: tuple[int, ...]) -> Place:
        """The same as `begin`, by several workers for one iteration; known: what tells it from others, to each of them."""
        self.settle()
        if worker >= WORKERS:
            raise ConfigError(f"{worker + 1} workers or more: expected {WORKERS} at most; dataset.loader() takes any number")
        key = hash(known)
        if worker == 0:
            place, number = self.begin(), int(self._count[0]) + 1
            self._count[:] = torch.tensor([number, True])
            self._agreed[number % SLOTS, 1:] = torch.tensor([number, *place])
            self._agreed[number % SLOTS, 0] = key  # the last, because others look for it
            return place
        deadline = time.monotonic() + LONGEST
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
