"""The borders of pixels, piece by piece and ring by ring. Pure: no database, no I/O.

A border is walked with the polygon on its left. What follows an edge is told by the four pixels at its end: never leave the
pixel while it has an edge to go on with. So polygons that touch at a corner stay apart. A ring that comes back to a corner is
cut in two there: a polygon's pixels hang together by edges, so two of its rings touch at one corner at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Ring = NDArray[
    np.int32
]  # (N, 2): column and row of the corners of pixels at which it turns, counterclockwise around what is on its left

EAST, NORTH, WEST, SOUTH = range(4)  # of a pixel's edges, the way they are walked: below it, right of it, above it, left of it
STARTS = ((0, 1), (1, 1), (1, 0), (0, 0))  # where an edge begins: columns and rows from the pixel's upper left corner


@dataclass(frozen=True)
class Edges:
    """Straight pieces of the borders of pixels: from turn to turn, or to where the strip ends."""

    side: NDArray[np.int8]
    first: Ints  # the pixel of a piece's first edge
    last: Ints
    next: Ints  # the piece that follows; -1: it is beyond the strip
    pinched: NDArray[np.bool_]  # whether another part of the border may begin at the same corner

    @classmethod
    def of(cls, flat: Ints, stride: int, nodes: bool) -> Edges:
        """All of a strip whose first row is the last one of the strip above, in a frame of one column on either side."""
        out = {EAST: stride, NORTH: 1, WEST: -stride, SOUTH: -1}  # from a pixel to the one across its edge
        ahead = {EAST: 1, NORTH: -stride, WEST: -1, SOUTH: stride}  # and to the one beside it, the way that the edge is walked
        size, pieces = len(flat), list[tuple[NDArray[Any], ...]]()
        for side in range(4):
            edge = np.zeros(size, np.bool_)
            inner = slice(stride if side == WEST else 1, size - (stride if side == EAST else 1))  # of the frame none is one
            mine, across = flat[inner], flat[inner.start + out[side] : inner.stop + out[side]]
            edge[inner] = (mine != 0) & (mine != across)
            if side in (EAST, WEST):
                at = np.flatnonzero(edge)
            else:
                column, row = np.nonzero(edge.reshape(-1, stride).T)
                at = row * stride + column
            at = at[::-1] if side in (NORTH, WEST) else at
            beyond = at < stride if side == NORTH else at >= size - stride if side == SOUTH else np.zeros(len(at), np.bool_)
            beside, diagonal = at + ahead[side], at + ahead[side] + out[side]
            beside[beyond] = diagonal[beyond] = 0
            own, same, opposite = flat[at], flat[at] == flat[beside], flat[at] == flat[diagonal]
            on = same & ~opposite & ~beyond
            if nodes:
                on &= flat[at + out[side]] == flat[diagonal]
            begins, ends = np.append(True, ~on[:-1])[: len(at)], ~on
            follows = np.where(same, np.where(opposite, diagonal, beside), at)
            turn = np.where(same, np.where(opposite, side - 1, side), side + 1) % 4
            follows[beyond] = -1
            pinch = ~same & opposite & ~beyond & (own != 0)
            pieces.append((np.full(begins.sum(), side, np.int8), at[begins], at[ends], follows[ends], turn[ends], pinch[ends]))
        sides, first, last, follows, turn, pinch = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        following, where = np.full(len(first), -1, np.int64), np.zeros(size, np.int64)
        for side in range(4):
            there = np.flatnonzero(sides == side)
            where[first[there]] = there
            mine = np.flatnonzero((turn == side) & (follows >= 0))
            following[mine] = where[follows[mine]]
        pinched = np.zeros(len(first), np.bool_)
        pinched[following[pinch]] = True
        return cls(sides, first, last, following, pinched)

    def begin(self, stride: int) -> tuple[Ints, Ints]:
        """Column and row of the corner at which each piece begins."""
        right, down = np.array(STARTS)[self.side].T
        return self.first % stride + right, self.first // stride + down

    def chains(self) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """The pieces chain by chain in the order in which they are walked, where in it each chain starts, and whether it is a
        ring.
        """
        count, ends = len(self.next), self.next < 0
        jump, least, is_open = np.where(ends, np.arange(count), self.next), np.arange(count), ends
        while True:  # twice as far at a time: the least piece of each ring, and what is no ring
            further, opener = np.minimum(least, least[jump]), is_open | is_open[jump]
            if (further == least).all() and (opener == is_open).all():
                break
            least, is_open, jump = further, opener, jump[jump]
        cut = ~is_open & (least[np.maximum(self.next, 0)] == self.next)  # a ring begins with its least piece
        jump = np.where(ends | cut, np.arange(count), self.next)
        left = (jump != np.arange(count)).astype(np.int64)  # pieces to the end
        while True:
            further = jump[jump]
            if (further == jump).all():
                break
            left, jump = left + left[jump], further
        order = np.lexsort((-left, jump))
        starts = np.flatnonzero(np.diff(jump[order], prepend=-1))
        return order, starts, cut[jump[order[starts]]]


def apart(ring: Ring) -> list[Ring]:
    """A ring cut in two wherever it comes back to a corner."""
    key = ring[:, 1].astype(np.int64) << 32 | ring[:, 0]
    _, corner, met = np.unique(key, return_inverse=True, return_counts=True)
    again = np.flatnonzero(met[corner] > 1)
    if not len(again):
        return [ring]
    ring, corner, again = np.roll(ring, -again[0], axis=0), np.roll(corner, -again[0]), again - again[0]
    pieces, corners = np.split(ring, again[1:]), corner[again].tolist()  # from one such corner to the next
    kept, place, parts = list[int](), dict[int, int](), list[Ring]()
    for number, own in enumerate(corners):
        if own in place:  # it is back: what lies between is a ring of its own
            parts.append(np.concatenate([pieces[k] for k in kept[place[own] :]]))
            for gone in kept[place[own] :]:
                del place[corners[gone]]
            del kept[len(place) :]
        place[own] = len(kept)
        kept.append(number)
    return [*parts, np.concatenate([pieces[k] for k in kept])]
