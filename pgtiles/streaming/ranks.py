"""Which of a distributed run's processes this one is: of so many ranks, each reads its part of every global batch."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch.distributed

from ..errors import ConfigError


class Rank(NamedTuple):
    """The number of a process, and how many there are."""

    rank: int
    world_size: int


def given(rank: int | None, world_size: int | None) -> Rank | None:
    """What the user says, once it is checked; None where she says nothing."""
    if rank is None and world_size is None:
        return None
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in (rank, world_size))
    if not whole or not 0 <= rank < world_size:  # type: ignore[operator]
        raise ConfigError(
            f"rank={rank!r}, world_size={world_size!r}: expected both, the number of this process, from 0 on, and how many "
            "there are; or neither, and torch.distributed or its launcher says it"
        )
    return Rank(rank, world_size)  # type: ignore[arg-type]


def initialised() -> Rank | None:
    """What torch.distributed says, once its process group is there."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Rank(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return None


def launched() -> Rank:
    """What the launcher says (torchrun sets RANK and WORLD_SIZE); where nobody launched anything, one process of one."""
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if rank is None or world_size is None:
        return Rank(0, 1)
    if not (rank.isdecimal() and world_size.isdecimal() and int(rank) < int(world_size)):
        raise ConfigError(
            f"the environment has RANK={rank!r} and WORLD_SIZE={world_size!r}: expected the number of this process, from 0 on, "
            "and how many there are, as torchrun sets them; unset both, or give rank= and world_size="
        )
    return Rank(int(rank), int(world_size))
