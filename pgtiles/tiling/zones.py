"""Several grids as one, for tiles of one size and resolution in several CRSs, as national imagery lies in UTM zones. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .grid import ON_LINE, Grid


class Zones(Grid):
    """Grids whose tiles are of the same size, in pixels and in CRS units, but which differ in SRID or origin.

    What they have in common is asked as of one grid: `pixel` and `shape`. What they have not, raises `ConfigError`.
    """

    grids: tuple[Grid, ...]

    def __init__(self, grids: Iterable[Grid]) -> None:
        own = tuple(grids)
        first = own[0]
        for other in own[1:]:
            kind = first.pixel, first.shape, first.step
            if (other.pixel, other.shape, other.step) != kind:
                raise ConfigError(
                    "tiles of grids that differ in resolution, size or step can't be added, as a batch has one shape: "
                    f"{first} and {other}"
                )
        for name, value in {"grids": own, **{n: getattr(first, n) for n in ("resolution", "size", "step")}}.items():
            object.__setattr__(self, name, value)

    def _one_each(self) -> NoReturn:
        raise ConfigError(
            f"these tiles lie on {len(self.grids)} grids ({', '.join(f'SRID {grid.srid}' for grid in self.grids)}), and this "
            "takes tiles of one: tiles.by_grid() gives the tiles of each"
        )

    srid = property(_one_each)
    origin = property(_one_each)

    def at(self, resolution: float | tuple[float, float]) -> Zones:
        """The same tiles in pixels of another size."""
        return Zones(grid.at(resolution) for grid in self.grids)

    def bounds_in(self, zone: NDArray[np.int64], cols: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 4) bounds of tiles, each in the CRS of its own grid."""
        bounds = np.empty((len(cols), 4))
        for number, grid in enumerate(self.grids):
            here = zone == number
            bounds[here] = grid.bounds(cols[here], rows[here])
        return bounds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Zones) and self.grids == other.grids

    def __hash__(self) -> int:
        return hash(self.grids)

    def __repr__(self) -> str:
        return f"Zones({', '.join(map(repr, self.grids))})"


def grids_of(grid: Grid) -> tuple[Grid, ...]:
    """The grids of a set of tiles, one or several."""
    return grid.grids if isinstance(grid, Zones) else (grid,)


def apart(one: Grid, other: Grid) -> tuple[int, int] | None:
    """By how many columns and rows the places of one are numbered higher on the other, where both are one lattice."""
    if isinstance(one, Zones) or isinstance(other, Zones) or replace(one, origin=other.origin) != other:
        return None
    (sx, sy), (x, y), (to_x, to_y) = cast("tuple[float, float]", one.step), one.origin, other.origin
    steps = (x - to_x) / sx, (to_y - y) / sy
    cols, rows = map(round, steps)
    return (cols, rows) if max(abs(steps[0] - cols), abs(steps[1] - rows)) < ON_LINE else None


def joined(one: Grid, other: Grid) -> tuple[Grid, NDArray[Any] | None, NDArray[Any] | None]:
    """One grid for two sets, and where the grids of each are among its own; None where it is a single one."""
    if one == other and not isinstance(one, Zones):
        return one, None, None
    every = dict.fromkeys((*grids_of(one), *grids_of(other)))
    place = {grid: number for number, grid in enumerate(every)}
    mine, others = (np.array([place[grid] for grid in grids_of(g)]) for g in (one, other))
    return Zones(every), mine, others
