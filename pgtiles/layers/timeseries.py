"""Imagery as a time series: which acquisitions a tile's steps are, the SQL that finds them, and the sheet of their pixels.

The rasters of all steps come out of one evaluation of the source. From there on a step is pasted like a tile of its own.
"""

from __future__ import annotations

import struct
from dataclasses import KW_ONLY, dataclass
from datetime import date, datetime, timedelta
from typing import Any, TypeGuard

import numpy as np
from psycopg import sql

from ..errors import ConfigError, DataError, QueryError
from ..postgres import catalog
from ..postgres.catalog import Table
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from ..tiling.tileset import instant
from . import query
from .canvas import STRIDE, Arrays, Page, Zeros
from .pixels import Pixels

Moment = str | date | datetime | np.datetime64  # as `tiles.instant` reads it
STAMP = struct.Struct(">d")  # what stands before a fragment: seconds since 1970
MOST = 2**31 // STRIDE - 1  # steps that n, an int4, can tell apart
KINDS = {"date", "timestamp", "timestamptz"}
NUMBERS = {"int2", "int4", "int8", "float4", "float8", "numeric"}
NOTHING = sql.SQL("")
# All of the relation tile but rast, which has pixels and is kept nowhere
TILE = sql.SQL("tile.n, tile.id, tile.geom, tile.ref, tile.time, tile.envelope, tile.metre_x, tile.metre_y")


@dataclass(frozen=True)
class TimeSeries:
    """Which acquisitions of the imagery over a tile make its time series.

    by: when a raster was acquired: a column of the table, or of the query, or SQL over such columns. Rasters of equal time are
    one acquisition, a mosaic: ``"date_trunc('day', acquired)"``.
    steps: how many at most, 1 to 2047.
    between: the first time that counts, and the first that does not any more; None leaves that side open. A `timedelta` counts
    from the tile's own time (`Tiles.timed`).
    every: of the acquisitions each n-th, beginning with the first.
    nearest: the ones nearest to this time, or to the ``"tile"``'s own; else the first ones.

    Only acquisitions whose rasters meet the tile count. Steps come in ascending time, and what a tile lacks comes last.
    Times are dates or timestamps, in UTC where they have no zone. Rasters whose time is NULL or infinite are left out.
    """

    by: str
    _: KW_ONLY
    steps: int
    between: tuple[Moment | timedelta | None, Moment | timedelta | None] | None = None
    every: int = 1
    nearest: Moment | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.by, str):
            raise ConfigError(f"by={self.by!r}: expected a column, or SQL that gives a time")
        try:
            object.__setattr__(self, "by", query.text_of(self.by))
        except QueryError as error:
            raise ConfigError(f"by={self.by!r}: {error}") from None
        for name, most in (("steps", MOST), ("every", 2**31 - 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                raise ConfigError(f"{name}={value!r}: expected a whole number, 1 to {most}")
        if self.nearest is not None and self.every != 1:
            raise ConfigError(
                f"every={self.every} counts from the first acquisition, nearest={self.nearest!r} from a time: choose"
            )
        if self.nearest is not None and self.nearest != "tile":
            object.__setattr__(self, "nearest", _moment("nearest", self.nearest))
        if self.between is not None:
            ends = () if isinstance(self.between, str) else tuple(self.between)
            if len(ends) != 2 or ends == (None, None):
                raise ConfigError(f"between={self.between!r}: expected (start, end), of which one may be None")
            start, end = ends = tuple[Any, ...](
                e if e is None or isinstance(e, timedelta) else _moment("between", e) for e in ends
            )
            if start is not None and end is not None and type(start) is type(end) and not start < end:
                raise ConfigError(f"between={self.between!r}: the start comes before the end, which does not count any more")
            object.__setattr__(self, "between", ends)

    @property
    def needs_times(self) -> bool:
        """Whether it is of tiles that have times of their own."""
        return _is_tile(self.nearest) or any(isinstance(end, timedelta) for end in self.between or ())

    def require(self, of: Table | dict[str, str]) -> None:
        """Raise where `by` is a mere name that no column of the table, or of a query, has."""
        if not catalog.is_table_name(self.by) or len(name := catalog.parts(self.by)) != 1:
            return
        if isinstance(of, Table):
            of.require(name[0])
        elif name[0] not in of:
            raise QueryError(f"the query gives the columns {', '.join(of)}: expected {name[0]}, the time=TimeSeries is by")

    def check(self, db: Database, tiles: Tiles, source: sql.Composed) -> None:
        """Have the server say what type the times have. source: user_query.sql around a source with `taken`."""
        if self.needs_times and (tiles.times is None or np.isnat(tiles.times).any()):
            lacking = len(tiles) if tiles.times is None else int(np.isnat(tiles.times).sum())
            raise ConfigError(
                f"time=TimeSeries(…) counts from the tile's own time, and {lacking} of {len(tiles)} tiles have none: "
                "say it with tiles.timed(…)"
            )
        try:
            kind = db.describe(query.over(tiles[:1], sql.SQL("SELECT u.step_time FROM {}").format(source)))["step_time"]
        except QueryError as error:
            raise QueryError(f"time=TimeSeries({self.by!r}): {error}") from None
        if kind not in KINDS:
            cast = f"to_timestamp({self.by})" if kind in NUMBERS else f"({self.by})::timestamptz"
            raise QueryError(
                f"time=TimeSeries({self.by!r}): that is of type {kind}, expected a date or a timestamp, such as {cast}"
                + (" where it counts seconds since 1970" if kind in NUMBERS else "")
            )

    def over(self, source: str, tiles: Tiles, wider: float = 0.0) -> str:
        """The rasters of a tile's steps, from the text of a source with `taken`. wider: tile pixels by which tile.geom is."""
        near: sql.Composable = sql.SQL("t.step_time")
        if self.nearest is not None:
            to = sql.SQL("tile.time") if _is_tile(self.nearest) else _literal(self.nearest)
            near = sql.SQL("abs(extract(epoch FROM {0}) - extract(epoch FROM {1})), {0}").format(near, to)
        return compose(
            "series", source=sql.SQL(source), near=near, every=self.every, steps=self.steps,
            edge=(wider + 0.1) / (max(tiles.grid.shape) + 2 * wider), stride=STRIDE,
        ).as_string(None)  # fmt: skip


def taken(time: TimeSeries | None, keyword: str) -> dict[str, sql.Composable]:
    """Slots of a source (stored_blocks.sql, rasters_of_query.sql): a raster's time, and the condition on it."""
    if not time:
        return {"taken": NOTHING, "when": NOTHING}
    own = sql.SQL(time.by)  # the user's own text, and bare in the condition, so that an index on it serves
    said = [
        sql.SQL("({}\n) {} {}").format(own, sql.SQL(sign), _literal(end))
        for sign, end in zip((">=", "<"), time.between or (), strict=False)
        if end is not None
    ]
    when = sql.SQL("\n{} {}").format(sql.SQL(keyword), sql.SQL(" AND ").join(said)) if said else NOTHING
    return {"taken": sql.SQL(", ({}\n) AS step_time").format(own), "when": when}


def native(time: TimeSeries | None, text: str, tile: sql.Composable, tiles: Tiles) -> dict[str, sql.Composable]:
    """Slots of native.sql. text: a source with its slots of `taken`. tile: the relation."""
    if not time:
        return {"source": query.guarded(text, tile), "series": NOTHING, "stamp": NOTHING}
    source = query.guarded(time.over(text, tiles), tile)
    return {"source": source, "series": sql.SQL(", u.seconds"), "stamp": sql.SQL("float8send(r.seconds) || ")}


def warped(time: TimeSeries | None, text: str, tile: sql.Composable, tiles: Tiles, wider: float) -> dict[str, sql.Composable]:
    """Slots of warped.sql, as for `native`. Its relation around holds the tiles; of a series all rasters of their steps too."""
    if not time:
        one = sql.SQL("(SELECT a.*, ST_AddBand(a.ref, '8BUI'::text) AS rast FROM around AS a WHERE a.n = this.n)")
        this = {"this": sql.SQL("around"), "n": sql.SQL("1"), "stamp": NOTHING}
        own = sql.SQL("(SELECT {} FROM {} AS tile)").format(TILE, tile)
        return {"tile": own, "source": query.guarded(text, one), **this}
    return {
        "tile": sql.SQL("(SELECT {}, u.* FROM {})").format(TILE, query.guarded(time.over(text, tiles, wider), tile)),
        "this": compose("series_steps"),
        "n": sql.SQL("(this.step * {}::int4 - 1)").format(STRIDE),
        "stamp": sql.SQL("float8send(this.seconds) || "),
        "source": sql.SQL("(SELECT a.rast, a.place FROM around AS a WHERE a.n = this.n AND a.step = this.step) AS u"),
    }


@dataclass(frozen=True)
class Steps:
    """A time series: a tile is (steps, …), each step a tile of `pixels`; with it come their times, and which are missing."""

    steps: int
    pixels: Pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one tile."""
        return (self.steps, *self.pixels.shape)

    @property
    def dtype(self) -> str:
        """By NumPy's name."""
        return self.pixels.dtype

    @property
    def filled(self) -> str:
        """The fill in words."""
        return self.pixels.filled

    def page(self, tiles: Tiles, zeros: Zeros = np.zeros) -> Page:
        """An empty page for these tiles."""
        return _StepsPage(self, tiles, zeros)


class _StepsPage:
    def __init__(self, sheet: Steps, tiles: Tiles, zeros: Zeros) -> None:
        self.shape = len(tiles), sheet.steps
        each = Tiles(tiles.grid, tiles.cols.repeat(sheet.steps), tiles.rows.repeat(sheet.steps))
        self.page = sheet.pixels.page(each, zeros)
        self.seconds, self.missing = np.full(self.shape, np.nan), np.ones(self.shape, np.bool_)

    def paste(self, tile: int, n: int, value: float, data: memoryview) -> bool:
        step, steps = n // STRIDE, self.shape[1]
        if not 0 <= step < steps:
            raise DataError(f"the server sent row {n}, of step {step}, of {steps}")
        self.seconds[tile, step], self.missing[tile, step] = STAMP.unpack_from(data)[0], False
        return self.page.paste(tile * steps + step, n, value, data[STAMP.size :])

    def arrays(self, name: str) -> Arrays:
        pasted = {key: np.asarray(array) for key, array in self.page.arrays(name).items()}
        stacked: Arrays = {key: array.reshape(*self.shape, *array.shape[1:]) for key, array in pasted.items()}
        return stacked | {f"{name}_time": self.seconds, f"{name}_missing": self.missing}


def _moment(name: str, value: Moment) -> np.datetime64:
    try:
        found = instant(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if np.isnat(found):
        raise ConfigError(f"{name}={value!r} is no time")
    return found


def _is_tile(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value == "tile"


def _literal(moment: object) -> sql.Composable:
    if isinstance(moment, timedelta):
        return sql.SQL("tile.time + {}::interval").format(moment)
    return sql.SQL("{}::timestamptz").format(str(np.datetime_as_string(moment, timezone="UTC")))  # type: ignore[call-overload]
