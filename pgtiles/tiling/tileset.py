"""A set of tiles as a value: a small table, with a row a tile, that is cut, joined and widened by columns. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Any, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .grid import Grid
from .zones import Zones, apart, grids_of, joined

T = TypeVar("T", bound="TileSet")


def instant(value: str | date | np.datetime64 | None) -> np.datetime64:
    """A date or time in UTC, to the microsecond; text is ISO 8601. What has no zone is in UTC already."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(time, datetime) and time.tzinfo:
            time = time.astimezone(UTC).replace(tzinfo=None)
        if time is None or isinstance(time, date | np.datetime64):
            return cast("np.datetime64", np.array(time, "datetime64[us]")[()])
    except ValueError:
        pass
    raise ConfigError(
        f"{value!r} is no time: expected a date or a time such as '2024-03-01' or '2024-03-01T10:30Z', or a datetime"
    )


@dataclass(frozen=True, eq=False)
class TileSet:
    """What `Tiles` are, apart from where they come from and what they are for; the fields are told there."""

    grid: Grid
    cols: NDArray[np.int64]
    rows: NDArray[np.int64]
    ids: NDArray[np.int64] = field(default=cast("NDArray[np.int64]", None))
    times: NDArray[np.datetime64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    zone: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        ids = np.arange(len(self.cols)) if self.ids is None else self.ids
        for name, value in (("cols", self.cols), ("rows", self.rows), ("ids", ids)):
            array = np.ascontiguousarray(value)
            if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
                raise ConfigError(f"{name}: expected N integers, found an array of {array.dtype} {array.shape}")
            object.__setattr__(self, name, _owned(array.astype(np.int64, copy=False)))
        if not len(self.cols) == len(self.rows) == len(self.ids):
            raise ConfigError(f"{len(self.cols)} cols, {len(self.rows)} rows, {len(self.ids)} ids: expected equal numbers")
        ordered = np.sort(self.ids)  # which is 20 times as fast as np.unique
        if (ordered[1:] == ordered[:-1]).any():
            values, counts = np.unique(self.ids, return_counts=True)
            raise ConfigError(
                f"{(counts > 1).sum()} tile ids are there twice (the first: {values[counts > 1][0]}): "
                "an id must name one tile; number the second set from elsewhere with first_id="
            )
        if self.times is not None:
            array = np.asarray(self.times)
            if array.dtype.kind != "M" or array.shape != (len(self),):
                raise ConfigError(f"times: expected {len(self)} of datetime64, found an array of {array.dtype} {array.shape}")
            object.__setattr__(self, "times", _owned(array.astype("datetime64[us]", copy=False)))
        columns = {name: _owned(_texts(np.asarray(values))) for name, values in self.columns.items()}
        for name, array in columns.items():
            if not (isinstance(name, str) and name) or array.dtype.kind not in "biufUM" or array.shape != (len(self),):
                raise ConfigError(
                    f"column {name!r}: expected {len(self)} numbers, truths, texts or times under a name, found an array of "
                    f"{array.dtype} {array.shape}"
                )
        object.__setattr__(self, "columns", MappingProxyType(columns))
        if (self.zone is not None) != isinstance(self.grid, Zones) or (self.zone is not None and len(self.zone) != len(self)):
            raise ConfigError(
                f"zone: expected the number of its grid for each tile on several grids, found {self.zone} on {self.grid}"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (
            type(self),
            vars(self) | {"columns": dict(self.columns)},
        )  # a proxy does not pickle

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(N, 4) xmin, ymin, xmax, ymax in CRS units of each tile's grid."""
        if isinstance(self.grid, Zones) and self.zone is not None:
            return self.grid.bounds_in(self.zone, self.cols, self.rows)
        return self.grid.bounds(self.cols, self.rows)

    @property
    def srids(self) -> NDArray[np.int64]:
        """(N,) the SRID of each tile's grid."""
        own = np.array([grid.srid for grid in grids_of(self.grid)])
        return own[np.zeros(len(self), int) if self.zone is None else self.zone]

    def by_grid(self) -> list[Self]:
        """The tiles of each grid that has any, as sets of their own; one, where all lie on one."""
        return [part for _, _, part in self.zones()]

    def zones(self) -> Iterator[tuple[int, NDArray[np.intp], Self]]:
        """Of each grid that has any tiles, its number, their positions, and they alone; of an empty set, those of the first."""
        if self.zone is None:
            yield 0, np.arange(len(self)), self
            return
        grids = grids_of(self.grid)
        for number in np.unique(self.zone).tolist() or [0]:
            where = np.flatnonzero(self.zone == number)
            yield number, where, _alike(self[where], grid=grids[number], zone=None)

    def at(self, resolution: float | tuple[float, float] | None) -> Self:
        """The same tiles, in the same bounds, in pixels of another size; as they are where it is None."""
        return self if resolution is None else _alike(self, grid=self.grid.at(resolution))

    def _on(self, grid: Grid) -> Self:
        """The same tiles, on this grid, or the one of several, that is their own but for an origin some whole steps away."""
        for own in grids_of(grid):
            if (steps := apart(self.grid, own)) is not None:
                return _alike(self, grid=own, cols=self.cols + steps[0], rows=self.rows + steps[1])
        return self

    def __len__(self) -> int:
        return len(self.cols)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} on {self.grid})"

    def __getitem__(self, which: int | slice | NDArray[Any] | Sequence[int]) -> Self:
        """The tiles at these positions (an int, a slice, integers or a boolean mask), in that order; one may come twice."""
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"tile {which} of {len(self)}")
            which = [int(which)]
        times = None if self.times is None else self.times[which]
        columns = {name: array[which] for name, array in self.columns.items()}
        zone = None if self.zone is None else self.zone[which]
        own = {"cols": self.cols[which], "rows": self.rows[which], "ids": self.ids[which]}
        for array in (*own.values(), *columns.values(), *(() if times is None else (times,))):
            array.setflags(write=False)
        return _alike(self, **own, times=times, columns=MappingProxyType(columns), zone=zone)

    def __add__(self, other: Self) -> Self:
        """Both sets, one after the other; they must share no id and have the same columns.

        Their grids may differ in SRID and origin, as UTM zones do, but not in resolution and size: see `by_grid`. Where only
        origins differ, by whole steps, it is one grid, the first one's.
        """
        other = other._on(self.grid)
        grid, mine, others = joined(self.grid, other.grid)
        zone = None
        if mine is not None and others is not None:
            zones = (np.zeros(len(t), np.int64) if t.zone is None else t.zone for t in (self, other))
            zone = np.concatenate([place[own] for place, own in zip((mine, others), zones, strict=True)])
        if odd := sorted(self.columns.keys() ^ other.columns.keys()):
            raise ConfigError(f"tiles can't be added: only one of both has the column {odd[0]!r}; with_columns gives it to all")
        cols, rows, ids = (np.concatenate([getattr(t, name) for t in (self, other)]) for name in ("cols", "rows", "ids"))
        for name, array in self.columns.items():
            if not _one_kind(array.dtype, other.columns[name].dtype):
                raise ConfigError(
                    f"tiles can't be added: the column {name!r} is {array.dtype} in one and {other.columns[name].dtype} in the "
                    "other; with_columns gives it anew, in one type"
                )
        columns = {name: np.concatenate([array, other.columns[name]]) for name, array in self.columns.items()}
        made = self.made if self.made == other.made else {"by": "sum", "of": [*_summands(self.made), *_summands(other.made)]}
        added = type(self)(grid, cols, rows, ids, columns=columns, made=made, zone=zone)
        if self.times is None and other.times is None:
            return added
        own = [np.full(len(t), "NaT", "datetime64[us]") if t.times is None else t.times for t in (self, other)]
        return replace(added, times=np.concatenate(own))

    def with_columns(self, **columns: Any) -> Self:
        """The same tiles with more columns, or others of the same names: N values each, or one for all."""
        given = {name: np.asarray(values) for name, values in columns.items()}
        own = {name: np.broadcast_to(array, len(self)) if not array.ndim else array for name, array in given.items()}
        return replace(self, columns={**self.columns, **own})

    def made_by(self, made: Mapping[str, Any]) -> Self:
        """The same tiles, which say that another call made them."""
        return _alike(self, made=dict(made))

    def timed(self, times: Any) -> Self:
        """The same tiles with times of their own: ``tile.time`` in SQL, and what ``TimeSeries(nearest="tile")`` is near to.

        times: one for all or one a tile: text in ISO 8601, `datetime.date`, `datetime.datetime` or NumPy's datetime64; None or
        NaT for a tile that has none. Without a zone they are UTC.
        """
        given = np.asarray(times)
        if given.ndim and given.shape != (len(self),):
            raise ConfigError(f"times: expected one, or one for each of {len(self)} tiles, found an array {given.shape}")
        if given.dtype.kind != "M":
            each = [instant(time) for time in given.reshape(-1).tolist()]
            given = np.array(each, "datetime64[us]").reshape(given.shape)
        return replace(self, times=np.broadcast_to(given, len(self)))

    def per_period(self, times: Any, *, first_id: int = 0) -> Self:
        """Each tile once for each of several times, one time after the other: see `timed` for what a time is.

        Ids are new; the column ``place`` holds the tile's own, which tells the same place at other times.
        """
        each = [instant(time) for time in (times if isinstance(times, np.ndarray) else list(times))]
        if not each or isinstance(times, str) or np.isnat(each).any():
            raise ConfigError(f"times={times!r}: expected a list of times, such as ['2024-04-01', '2024-07-01']")
        if "place" in self.columns:
            raise ConfigError("these tiles have a column 'place' already, which per_period makes: call it otherwise")
        which = np.tile(np.arange(len(self)), len(each))
        named = self.with_columns(place=self.ids)
        columns = {name: array[which] for name, array in named.columns.items()}
        many = (self.cols[which], self.rows[which], np.arange(first_id, first_id + len(which)))
        zone = None if self.zone is None else self.zone[which]
        return type(self)(self.grid, *many, np.repeat(np.array(each), len(self)), columns, self.made, zone)


def _owned(array: NDArray[Any]) -> NDArray[Any]:
    """The array, where nobody can write to it; else a copy of which that is true."""
    if array.flags.writeable or array.base is not None:
        array = array.copy()
        array.setflags(write=False)
    return array


def _texts(array: NDArray[Any]) -> NDArray[Any]:
    """Texts as such, where they come as objects, as pandas gives them."""
    return array.astype(str) if array.dtype == object and all(isinstance(value, str) for value in array.flat) else array


def _alike(tiles: T, **changed: Any) -> T:
    """The same but for what is given, unchecked: the set was checked when it was made, each batch is such, and a draw may hold
    a tile twice.
    """
    alike = object.__new__(type(tiles))
    vars(alike).update(vars(tiles) | changed)
    return alike


def _restored(kind: type[T], fields: dict[str, Any]) -> T:
    tiles = object.__new__(kind)
    vars(tiles).update(fields | {"columns": MappingProxyType(fields["columns"])})
    return tiles


def _one_kind(one: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Whether values of both go into one array as they are: their widths may differ, but whole numbers become no floats."""
    kinds = {"i" if dtype.kind == "u" else dtype.kind for dtype in (one, other)}
    return len(kinds) == 1 and (kinds != {"i"} or np.result_type(one, other).kind in "iu")


def _summands(made: Mapping[str, Any]) -> list[Any]:
    return list(made["of"]) if made.get("by") == "sum" else [made]
