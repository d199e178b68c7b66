"""A set of tiles as a table that outlives the process: which columns it has, what is noted beside them, and how they come back
as they were. No I/O.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingError
from .grid import Grid
from .zones import Zones, grids_of

FORMAT = 1  # of the columns and of what is noted beside them
NOTED = "pgtiles tiles"  # the key of the format there
ID, COL, ROW, GRID, TIME, ORDER, GEOM = "tile_id", "grid_col", "grid_row", "grid_number", "tile_time", "tile_order", "geom"
OURS = (ORDER, ID, COL, ROW, GRID, TIME)

Json = dict[str, Any]


@dataclass(frozen=True)
class Kept:
    """A set of tiles as columns of N values each, envelopes, and what else is to be known."""

    columns: Mapping[str, NDArray[Any]]
    """Ours first, then the tiles' own; times as datetime64[us]."""
    envelopes: Mapping[str, tuple[int, Any]]
    """By the column's name, its SRID and the polygons, None where a tile is in another SRID."""
    noted: Json
    """The grids, the types of the tiles' own columns, and the call that made them."""


def kept(
    grid: Grid,
    ours: Mapping[str, NDArray[Any] | None],
    own: Mapping[str, NDArray[Any]],
    bounds: NDArray[np.float64],
    srids: NDArray[np.int64],
    made: Mapping[str, Any],
) -> Kept:
    """What is to be kept of tiles. ours: columns of `OURS`, those that are None left out. own: the tiles' columns."""
    several = np.unique(srids).tolist() or [grids_of(grid)[0].srid]
    called = {f"{GEOM}_{srid}" if len(several) > 1 else GEOM: srid for srid in several}
    if taken := [name for name in own if name in OURS or name in called]:
        raise ConfigError(f"the column {taken[0]!r} can't be kept, as tiles are kept with one of that name: call it otherwise")
    ids, counts = np.unique(np.asarray(ours[ID]), return_counts=True)
    if (counts > 1).any():
        raise ConfigError(
            f"{(counts > 1).sum()} tile ids are there twice (the first: {ids[counts > 1][0]}), as in what an epoch draws, and "
            "can't be kept: a kept tile has an id of its own; keep the set that was drawn from, and the seed"
        )
    columns = {name: array for name, array in ours.items() if array is not None}
    dtypes = {name: array.dtype.str for name, array in own.items()}
    for name, array in own.items():
        columns[name] = array.astype("datetime64[us]") if array.dtype.kind == "M" else array
        if array.dtype.kind == "M" and not _equal(columns[name].astype(array.dtype), array):
            raise ConfigError(f"column {name!r}: its times are finer than a microsecond, and can't be kept")
    boxes = shapely.box(*bounds.T)
    envelopes = {name: (srid, np.where(srids == srid, boxes, None)) for name, srid in called.items()}
    noted = {
        NOTED: FORMAT,
        "grids": [asdict(one) for one in grids_of(grid)],
        "dtypes": dtypes,
        "made": dict(made),
        "envelopes": list(called),
    }
    noted = json.loads(json.dumps(noted, default=_plain))
    return Kept(columns, envelopes, noted)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise ConfigError(f"what made the tiles can't be noted beside them: {value!r:.80} is {type(value).__name__}, and no JSON")


def is_ours(text: str | bytes | None) -> bool:
    """Whether this was noted beside kept tiles, by whichever version."""
    try:
        return NOTED in json.loads(text or "")
    except (ValueError, TypeError):
        return False


def noted_in(text: str | bytes | None, where: str) -> Json:
    """What was noted beside kept tiles; `MissingError` where it is nothing of ours."""
    if text is None or not is_ours(text):
        raise MissingError(f"{where} holds no tiles: they are kept by tiles.save or tiles.to_table, which note the grid")
    noted = json.loads(text)
    if (known := noted[NOTED]) != FORMAT:
        raise DataError(f"{where} was written by another version of pgtiles (format {known}, known is {FORMAT})")
    return dict(noted)


def grid_in(noted: Json) -> Grid:
    """The grid, or the several, that were noted."""
    each: list[Any] = [{name: tuple(v) if isinstance(v, list) else v for name, v in one.items()} for one in noted["grids"]]
    grids = [Grid(**one) for one in each]
    return grids[0] if len(grids) == 1 else Zones(grids)


def own_columns(noted: Json, columns: Iterable[str]) -> list[str]:
    """The columns that are the tiles' own: those that were kept, and others that have come since."""
    return [name for name in columns if name not in OURS and name not in noted["envelopes"]]


def as_it_was(noted: Json, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """A column in the type that it had, unless its values were changed to some that do not fit."""
    if (dtype := noted["dtypes"].get(name)) is None:
        return array
    before = array.astype(dtype)
    return before if _equal(before.astype(array.dtype), array) else array


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return bool(np.array_equal(one, other, equal_nan=one.dtype.kind in "fM" and other.dtype.kind in "fM"))
