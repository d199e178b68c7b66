"""The outlines of a class raster's polygons, traced along the pixels' borders, strip by strip. Pure: no database, no I/O.

Pixels that share an edge and a class are of one polygon. Rows of pixels come in from north to south, as many at a time as one
likes; a polygon goes out when no row below can add to it. Held are a strip and the outlines of the polygons that reach its last
row, and all is in whole pixels, so how the rows were cut shows nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .borders import SOUTH, Edges, Ints, Ring, apart


class Outline(NamedTuple):
    """A polygon."""

    value: int
    pixels: int
    total: float
    """The sum of what was weighed of its pixels."""
    known: int
    """How many of its pixels were weighed."""
    rings: list[Ring]
    """Its shell, and then its holes."""


@dataclass
class _Open:
    """A polygon that may go on below."""

    value: int
    pixels: int = 0
    total: float = 0.0
    known: int = 0
    rings: list[Ring] = field(default_factory=list)
    pinched: list[Ring] = field(default_factory=list)  # rings that may touch themselves

    def take(self, other: _Open) -> None:
        if len(other.rings) > len(self.rings):  # the longer list is not copied, strip by strip
            self.rings, other.rings = other.rings, self.rings
        self.pixels += other.pixels
        self.total += other.total
        self.known += other.known
        self.rings += other.rings
        self.pinched += other.pinched

    def outline(self) -> Outline:
        rings = self.rings + [part for ring in self.pinched for part in apart(ring)]
        if len(rings) > 1:  # a hole begins at least a row below its shell
            rings.sort(key=lambda ring: tuple(ring[np.lexsort(ring.T)[0]][::-1].tolist()))
        return Outline(self.value, self.pixels, self.total, self.known, rings)


class _Chain(NamedTuple):
    """A part of a ring, from one seam of a strip to the other or back to the same."""

    start: int  # column of the edge by which it comes in
    end: int  # and of that by which it goes out
    down: bool  # whether it comes in from above
    out: bool  # whether it goes out below
    corners: list[Ring]
    pinched: bool


class Tracer:
    """Takes rows of pixels and gives outlines."""

    def __init__(self, width: int, *, nodes: bool = False) -> None:
        """width: of all rows. nodes: have rings also stop where the class on their other side changes, so that neighbours share
        all their corners.
        """
        self._nodes, self._stride = nodes, width + 2
        self._row = 0  # the lattice's, above the next strip
        self._last = np.zeros(self._stride, np.int64)  # the last row that came
        self._below = np.zeros(self._stride, np.int64)  # and which open polygon each of its pixels is of
        self._open: list[_Open] = []
        self._pending: dict[int, _Chain] = {}  # parts of rings that begin and end in the seam below, by where they begin

    def finish(self) -> Iterator[Outline]:
        """The polygons that end with the last row."""
        return self.add(np.zeros((1, self._stride - 2), np.int64))

    def add(self, values: NDArray[Any], weights: NDArray[np.float64] | None = None) -> Iterator[Outline]:
        """The polygons that end in these rows: (height, width) whole numbers, 0 where there is none.

        weights: of the pixels, to be summed up; NaN where there is none.
        """
        height = len(values)
        codes = np.zeros((height + 1, self._stride), np.int64)
        codes[0], codes[1:, 1:-1] = self._last, values
        flat = codes.ravel()
        runs, roots = self._components(flat)
        polygons = self._weighed(flat, runs, roots, weights)
        self._trace(flat, roots[runs], polygons)

        last = roots[runs[-self._stride :]]
        going = np.unique(last[codes[-1] != 0])
        self._open = [polygons[root] for root in going.tolist()]
        self._below = np.searchsorted(going, last)
        self._last, self._row = codes[-1].copy(), self._row + height
        for root in sorted(polygons.keys() - set(going.tolist())):
            yield polygons[root].outline()

    def _components(self, flat: Ints) -> tuple[NDArray[np.int32], Ints]:
        """Of each pixel the run of equal pixels in its row, and of each run the first one that it hangs together with."""
        stride = self._stride
        first = np.empty(len(flat), np.bool_)
        first[0], first[1:] = True, flat[1:] != flat[:-1]
        runs = np.cumsum(first, dtype=np.int32) - np.int32(1)
        meets = (flat[stride:] == flat[:-stride]) & (flat[stride:] != 0) & (first[stride:] | first[:-stride])
        below = np.flatnonzero(meets) + stride
        # in the row that was there before, runs may hang together further up
        before = np.flatnonzero(first[:stride] & (flat[:stride] != 0))
        _, one, of = np.unique(self._below[before], return_index=True, return_inverse=True)
        one_run, other_run = runs[before][one][of], runs[before]
        return runs, joined(
            int(runs[-1]) + 1, np.concatenate([runs[below - stride], one_run]), np.concatenate([runs[below], other_run])
        )

    def _weighed(
        self, flat: Ints, runs: NDArray[np.int32], roots: Ints, weights: NDArray[np.float64] | None
    ) -> dict[int, _Open]:
        """The polygons that have pixels in the strip, by their first run, with what was known of them before."""
        stride, count = self._stride, len(roots)
        at = np.flatnonzero(np.diff(runs, prepend=-1))  # where each run begins
        lengths = np.diff(at, append=len(flat))
        lengths[at < stride] = 0  # counted already
        pixels = np.bincount(roots, lengths, count)
        total: NDArray[Any] = np.zeros(count)
        known: NDArray[Any] = np.zeros(count)
        if weights is not None:
            inner = runs.reshape(-1, stride)[1:, 1:-1]
            there = ~np.isnan(weights)
            total = np.bincount(roots, np.bincount(inner[there], weights[there], count), count)
            known = np.bincount(roots, np.bincount(inner[there], None, count), count)
        polygons = {
            root: _Open(value, int(own), float(sum_), int(weighed))
            for root, value, own, sum_, weighed in zip(
                *(
                    a[mine].tolist()
                    for mine in [(roots == np.arange(count)) & (flat[at] != 0)]
                    for a in (roots, flat[at], pixels, total, known)
                ),
                strict=True,
            )
        }
        columns = np.flatnonzero(self._last)
        _, each = np.unique(self._below[columns], return_index=True)  # open polygons, in their order
        for before, root in zip(self._open, roots[runs[columns[each]]].tolist(), strict=True):
            polygons[root].take(before)
        return polygons

    def _trace(self, flat: Ints, roots: Ints, polygons: dict[int, _Open]) -> None:
        """Give the polygons the rings that are closed in this strip, and keep what goes on below."""
        edges = Edges.of(flat, self._stride, self._nodes)
        if not len(edges.first):
            return
        order, starts, closed = edges.chains()
        columns, rows = edges.begin(self._stride)
        corners = np.stack([columns - 1, rows + self._row - 1], axis=1)[order].astype(np.int32)  # without the frame's pixels
        ends = np.append(starts[1:], len(order))
        heads, tails = order[starts], order[ends - 1]
        pinched = np.logical_or.reduceat(edges.pinched[order], starts)
        owners = roots[edges.first[heads]].tolist()
        start_columns, end_columns = (edges.first[heads] % self._stride).tolist(), (edges.last[tails] % self._stride).tolist()
        downs, outs = (edges.side[heads] == SOUTH).tolist(), (edges.side[tails] == SOUTH).tolist()
        comes, ups = dict[int, _Chain](), list[_Chain]()
        for number, (begin, end, owner, is_closed, is_pinched) in enumerate(
            zip(starts.tolist(), ends.tolist(), owners, closed.tolist(), pinched.tolist(), strict=True)
        ):
            if is_closed:
                (polygons[owner].pinched if is_pinched else polygons[owner].rings).append(corners[begin:end].copy())
                continue
            turns = corners[begin + 1 : end].copy()  # its first edge goes on from the other side of the seam: no corner
            chain = _Chain(start_columns[number], end_columns[number], downs[number], outs[number], [turns], is_pinched)
            if chain.down:
                comes[chain.start] = chain
            else:
                ups.append(chain)
        self._close(ups, comes, roots, polygons)

    def _close(self, ups: list[_Chain], comes: dict[int, _Chain], roots: Ints, polygons: dict[int, _Open]) -> None:
        """Join what came before with what goes on in this strip: ``comes`` from above, ``ups`` from below."""
        pending, self._pending = self._pending, {}
        for chain in ups:
            corners, pinched, last = list(chain.corners), chain.pinched, chain
            while not last.out:  # up into the strip above, where something begins, and down again
                above = pending.pop(last.end)
                last = comes.pop(above.end)
                corners += above.corners + last.corners
                pinched = pinched or above.pinched or last.pinched
            self._pending[chain.start] = _Chain(chain.start, last.end, False, True, corners, pinched)
        while pending:
            start = next(iter(pending))
            corners, pinched, column = [], False, start
            while column in pending:
                above = pending.pop(column)
                last = comes.pop(above.end)
                corners += above.corners + last.corners
                pinched = pinched or above.pinched or last.pinched
                column = last.end
            ring = np.concatenate(corners)
            owner = polygons[int(roots[start])]
            (owner.pinched if pinched else owner.rings).append(ring)


def joined(count: int, one: NDArray[Any], other: NDArray[Any]) -> Ints:
    """Of each of so many things the least that it hangs together with, by pairs that do."""
    least = np.arange(count)
    while True:
        a, b = least[one], least[other]
        apart = a != b
        if not apart.any():
            return least
        one, other, a, b = one[apart], other[apart], a[apart], b[apart]
        np.minimum.at(least, np.maximum(a, b), np.minimum(a, b))
        while (further := least[least]).tobytes() != least.tobytes():
            least = further
