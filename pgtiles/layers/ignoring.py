"""Pixels of a mask that a trainer leaves out: beyond what was mapped, around features, and where imagery is missing.

The first two are parts of the burn. A band around features is the features once more, widened and beneath all; a coverage is
burned into a map of its own, and what it leaves is ignored, whatever was burned there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, MissingError
from ..postgres.database import Database
from ..template import compose
from ..tiling.tiles import Tiles
from .burning import MOST, Found, Part, Wish, ask
from .canvas import Mask, fits
from .features import is_table

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

    Coverage = str | Select[Any] | TextClause | Any  # or a shapely geometry in the tiles' SRID


@dataclass(frozen=True)
class Ignore:
    """What a layer says of ignored pixels."""

    index: float | None  # their value
    coverage: Coverage | None
    contact: float | None  # ground metres around each feature
    missing: str | None  # the layer where whose imagery is missing

    def check(self, dtype: str, classes: Sequence[Part]) -> None:
        """Raise `ConfigError` where it does not go together."""
        index, coverage, contact = self.index, self.coverage, self.contact
        sources = {"coverage": coverage, "contact": contact, "ignore_missing": self.missing}
        given = [f"{name}=" for name, source in sources.items() if source is not None]
        if index is None:
            if given:
                raise ConfigError(f"{given[0]} says what is ignored: ignore_index= has to say by which value, 255 by custom")
            return
        if not given:
            raise ConfigError(
                f"ignore_index={index!r} goes with what is ignored: coverage= (what lies beyond it), contact= (metres around "
                "features) or ignore_missing= (where that layer's imagery is missing)"
            )
        if isinstance(index, bool) or not isinstance(index, int | float) or not fits(index, np.dtype(dtype)):
            raise ConfigError(f"ignore_index={index!r} does not fit dtype={dtype!r}")
        if taken := [part for part in classes if part.kind and part.value == index]:
            raise ConfigError(f"ignore_index={index!r} is what class {taken[0].name!r} burns: expected a value of its own")
        if contact is not None and not 0 < contact < math.inf:
            raise ConfigError(f"contact={contact!r}: expected ground metres, above 0")
        if coverage is not None and not (isinstance(coverage, str) or hasattr(coverage, "compile") or _is_shape(coverage)):
            raise ConfigError(f"coverage={coverage!r:.80}: expected SQL that gives geom, a table, or a shapely geometry")

    def check_names(self, classes: Mapping[int, str]) -> None:
        """Raise `ConfigError` where a label raster's class of a name is what is ignored."""
        if taken := [name for value, name in classes.items() if value == self.index]:
            raise ConfigError(f"ignore_index={self.index!r} is class {taken[0]!r}: expected a value of its own")

    def check_raster(self, source: str) -> None:
        """Raise `ConfigError` where it says what a label raster can't be asked."""
        if self.coverage is not None or self.contact is not None:
            raise ConfigError(
                f"coverage= and contact= go with geometries; {source} gives rasters: cut them to what is covered in a query, "
                "ST_Clip(rast, 1, geom, 255) AS rast, and say background=255"
            )


def parts(
    db: Database, tiles: Tiles, ignore: Ignore, found: Sequence[Found], sheet: Mask, wish: Wish
) -> tuple[list[Found], Mask]:
    """The parts of a layer with those that are ignored, the lowest first, and its sheet, which knows them."""
    if ignore.index is None:
        return list(found), sheet
    if taken := [one for one in found if _burns(one) == ignore.index]:
        raise ConfigError(
            f"ignore_index={ignore.index!r} is what {taken[0].part.called or 'value='} burns: expected a value of its own"
        )
    beneath, above = list[Found](), list[Found]()
    if ignore.contact is not None:
        wider = replace(wish, buffer=(wish.buffer or 0) + ignore.contact)
        bands = [ask(db, tiles, replace(one.part, value_of_all=ignore.index), wider) for one in found]
        beneath = [replace(band, again=True) for band in bands]
    if ignore.coverage is not None:
        part = Part(_query(db, ignore.coverage, tiles), kind="coverage", value_of_all=1)
        above = [ask(db, tiles, part, Wish(None if _is_shape(ignore.coverage) else wish.srid))]
    every = [*beneath, *found, *above]
    if len(every) > MOST + 1:
        raise ConfigError(f"{len(found)} classes with contact=: expected {MOST // 2} at most")
    return every, replace(sheet, ignored=ignore.index, beneath=len(beneath), coverage=len(every) - 1 if above else None)


def _burns(found: Found) -> float | None:
    """The one value that a part burns; None where each row says its own."""
    own = isinstance(found.part.value, str) or ("value" in found.rows.columns and not found.part.is_table)
    return None if own else float(found.part.value)


def _query(db: Database, coverage: Any, tiles: Tiles) -> Any:
    if _is_shape(coverage):
        return compose("coverage_shape", shape=str(coverage.wkb_hex), srid=tiles.grid.srid).as_string(None)
    if is_table(coverage):
        try:
            table = db.table(coverage)
        except MissingError as error:
            raise MissingError(f"coverage: {error}") from error
        columns = [column.name for column in table.columns if column.type in {"geometry", "geography"}]
        if len(columns) > 1:
            raise ConfigError(
                f"coverage: {table} has {len(columns)} geometry columns, {', '.join(columns)}: say which in a query, "
                f"coverage='SELECT {columns[0]} AS geom FROM {coverage} WHERE {columns[0]} && tile.geom'"
            )
    return coverage


def _is_shape(coverage: Any) -> bool:
    return hasattr(coverage, "wkb_hex")
