"""How a worker hands a batch on: all of its arrays in one piece of shared memory, into which they were pasted at once.

By itself a DataLoader's worker copies each tensor into shared memory, into a file of its own whose descriptor it hands over
with a handshake. For image and mask that took as long as to receive and paste them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

SMALL = 1 << 16  # bytes: what is smaller is not worth holding the memory of a batch for
ALIGNED = 64  # bytes: arrays begin at multiples of it


class Piece:
    """Some shared memory, and arrays of zeros in it. What no longer fits lies elsewhere, and is copied when it is packed.

    size: bytes. Pages of memory to which nothing is written are never there.
    """

    def __init__(self, size: int) -> None:
        self.size, self.used = size, 0
        self.bytes = torch.empty(0, dtype=torch.uint8)
        if size:
            shared = torch.UntypedStorage._new_shared(size)  # type: ignore[no-untyped-call]
            self.bytes.set_(shared)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """As np.zeros."""
        kind = np.dtype(dtype)
        begin, size = self.used, math.prod(shape) * kind.itemsize
        if begin + _room(size) > self.size:
            return np.zeros(shape, kind)
        self.used += _room(size)
        array: NDArray[Any] = self.bytes.numpy()[begin : begin + size].view(kind).reshape(shape)
        return array

    def pack(self, sample: Mapping[str, Any]) -> Parcel:
        """A batch, whose arrays are all in here then; or in a new piece, where this one is too small."""
        arrays = {name: array for name, array in sample.items() if isinstance(array, np.ndarray)}
        outside = [array for array in arrays.values() if self._begin(array) is None]
        if self.used + sum(_room(array.nbytes) for array in outside) > self.size:
            return Piece(sum(_room(array.nbytes) for array in arrays.values())).pack(sample)
        places = dict[str, tuple[int, tuple[int, ...], np.dtype[Any]]]()
        for name, array in arrays.items():
            if (begin := self._begin(array)) is None:
                begin = self.used
                self.zeros(array.shape, array.dtype)[...] = array
            places[name] = begin, array.shape, array.dtype
        return Parcel(self.bytes, tuple(sample), places, {name: sample[name] for name in sample.keys() - arrays.keys()})

    def _begin(self, array: NDArray[Any]) -> int | None:
        """The array's first byte, if all of it is in here as it is."""
        begin: int = array.__array_interface__["data"][0] - self.bytes.data_ptr()
        return begin if array.flags.c_contiguous and begin >= 0 and begin + _room(array.nbytes) <= self.used else None


@dataclass(frozen=True, eq=False)
class Parcel:
    """A batch on its way from a worker.

    bytes: all of it, shared.
    names: in their order.
    arrays: by name, an array's first byte, shape and dtype.
    lists: arrays of which there is one a tile; they are copied on the way.
    """

    bytes: torch.Tensor
    names: tuple[str, ...]
    arrays: Mapping[str, tuple[int, tuple[int, ...], np.dtype[Any]]]
    lists: Mapping[str, Sequence[NDArray[Any] | torch.Tensor]]

    def pin_memory(self) -> Parcel:
        """As a DataLoader asks for it."""
        lists = {name: [_tensor(array).pin_memory() for array in arrays] for name, arrays in self.lists.items()}
        return replace(self, bytes=self.bytes.pin_memory(), lists=lists)

    def unpack(self) -> dict[str, Any]:
        """The tensors, where they are: as long as a large one lives, the memory of all does. Small ones are copied, since ids
        are what is kept of many batches.
        """
        return {name: self._tensor(*self.arrays[name]) if name in self.arrays else self._list(name) for name in self.names}

    def _tensor(self, begin: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> torch.Tensor:
        size = math.prod(shape) * dtype.itemsize
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        tensor = self.bytes[begin : begin + size].view(kind).reshape(shape)
        return tensor.clone() if size < SMALL and not self.bytes.is_pinned() else tensor

    def _list(self, name: str) -> list[torch.Tensor]:
        return [_tensor(array) for array in self.lists[name]]


def _tensor(array: NDArray[Any] | torch.Tensor) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.from_numpy(array)


def _room(size: int) -> int:
    """What so many bytes take up."""
    return -(-size // ALIGNED) * ALIGNED
