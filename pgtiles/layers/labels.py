"""`Labels` and `Vectors`: features burned on the tiles' pixels, as a mask or as an image; or a label raster."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..postgres.database import Database
from ..tiling.splits import Shown
from ..tiling.tiles import Tiles
from . import areas, features, ignoring, legend
from .burning import Part, Wish, ask, burn, given, parts_of, small, where_of
from .canvas import Mask, check_dtype, fits
from .pixels import Pixels
from .query import OpenLayer
from .rasters import MODE, open_rasters
from .sharing import shown
from .wkb import PIXEL_TYPES

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

ORDERS = ("last", "first", "max", "min")


@dataclass(frozen=True)
class Labels:
    """Labels burned from vectors: a query that gives ``geom`` (and ``value``, ``priority``), or ``rast``; a table; or classes.

    source: SQL, an SQLAlchemy statement, or a table's name; or a mapping with one of these for each class's name. SQL may name
    the relation ``tile``. Classes burn 1, 2, 3 … in the mapping's order; ``{"water": (9, "SELECT …")}`` says another value.
    classes: of a table, a condition for each class's name, in the same manner: ``{"park": "leisure = 'park'"}``.
    order: which class lies on top, the ``"last"`` or the ``"first"`` of them, or the one of the ``"max"`` or ``"min"`` value.
    value: what a table's features burn: a number, or the name of a numeric column. A query says it itself, as a column
    ``value``, and burns this number where it has none.
    where: a condition on a table's columns.
    buffer: ground metres by which features are widened, at each tile's own scale; the search is widened by as much.
    srid: the SRID in which a query searches, where it is not the tiles'; a table's is known.
    column: the geometry or raster column, where a table has several.
    all_touched: burn all pixels that a feature touches, not only those whose centre it covers.
    background: the value where nothing is burned.
    dtype: of the mask; uint8 travels faster through a DataLoader.
    resolution: as for `Imagery`, of a mask in its own height and width.
    resampling: of a label raster off the tiles' lattice: nearest, or mode, the commonest of the pixels below.
    ignore_index: the value of pixels that a trainer leaves out, as told by one or more of the next three. 255 by custom.
    coverage: SQL that gives ``geom``, a table's name, or a shapely geometry in the tiles' SRID: what lies beyond it is ignored.
    contact: ground metres around each feature that are ignored, beneath all features.
    ignore_missing: the key of an `Imagery` layer with ``valid=True`` in the same dataset: where it has no data is ignored.

    Features are burned by ascending priority, then ascending value: the greater lies on top; within a class where there are
    classes. A sample is (height, width).
    """

    source: str | Select[Any] | TextClause | Mapping[str, Any]
    _: KW_ONLY
    classes: Mapping[str, str | tuple[int, str]] | None = None
    order: str = "last"
    value: float | str = 1
    where: str | None = None
    buffer: float | None = None
    srid: int | None = None
    column: str | None = None
    all_touched: bool = False
    background: float = 0
    dtype: str = "int64"
    resolution: float | tuple[float, float] | None = None
    resampling: str = "nearest"
    ignore_index: float | None = None
    coverage: ignoring.Coverage | None = None
    contact: float | None = None
    ignore_missing: str | None = None

    def __post_init__(self) -> None:
        _check_buffer(self.buffer)
        check_dtype(self.dtype)
        if self.resampling not in ("nearest", MODE):
            raise ConfigError(f"resampling={self.resampling!r}: expected nearest or mode; labels are not blended")
        for what in ("value", "background"):
            number = getattr(self, what)
            if not isinstance(number, str) and not fits(number, np.dtype(self.dtype)):
                raise ConfigError(f"{what}={number!r} does not fit dtype={self.dtype!r}")
        if self.order not in ORDERS:
            raise ConfigError(f"order={self.order!r}: expected one of {', '.join(ORDERS)}")
        if not self._is_table and (self.where or self.column or isinstance(self.value, str)):
            raise ConfigError("where=, column= and value='column' go with a table's name: a query says them itself, in SQL")
        if self.classes is not None and not self._is_table:
            raise ConfigError("classes= go with a table's name; queries of classes are Labels({'road': 'SELECT …', …})")
        for what in ("source", "classes"):  # as they are now, whatever becomes of hers
            if isinstance(mapping := getattr(self, what), Mapping):
                object.__setattr__(self, what, dict(mapping))
        if self.classes is not None or isinstance(self.source, Mapping):
            self._check_classes()
        elif self.order != "last":
            raise ConfigError("order= goes with classes: in a query, the column priority says what lies on top")
        self._ignore.check(self.dtype, self._parts)

    def _check_classes(self) -> None:
        if self.value != 1:
            raise ConfigError(f"value={self.value!r}: each class has a value of its own: {{'water': (9, 'SELECT …')}}")
        names: dict[float | str, str] = {}
        for part in self._parts:
            if not fits(float(part.value), np.dtype(self.dtype)):
                raise ConfigError(f"class {part.name!r}: its value {part.value} does not fit dtype={self.dtype!r}")
            if part.value in names:
                raise ConfigError(
                    f"classes {names[part.value]!r} and {part.name!r} both burn {part.value}: expected a value each"
                )
            names[part.value] = part.name

    @property
    def _is_table(self) -> bool:
        return features.is_table(self.source)

    @property
    def _parts(self) -> list[Part]:
        """What is burned, the lowest first."""
        source = self.classes if self.classes is not None else self.source
        where = () if self.where is None else (self.where,)
        if not isinstance(source, Mapping):
            return [Part(source, self.value, where)]
        parts = []
        for place, (name, value, said) in enumerate(parts_of(source, "class")):
            burns = place + 1 if value is None else value
            if self.classes is None:
                parts.append(Part(said, burns, kind="class", name=name))
            else:
                parts.append(Part(str(self.source), burns, (*where, said), "class", name))
        if self.order in {"max", "min"}:
            parts.sort(key=lambda part: float(part.value))
        return parts[::-1] if self.order in {"first", "min"} else parts

    @property
    def _ignore(self) -> ignoring.Ignore:
        return ignoring.Ignore(self.ignore_index, self.coverage, self.contact, self.ignore_missing)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check the query, and read its plan."""
        wish = Wish(self.srid, self.column, self.buffer, self.all_touched)
        found = [ask(db, tiles, part, wish) for part in self._parts]
        if found[0].is_raster:
            return self._open_rasters(db, tiles, name, number)
        if self.resampling != "nearest":
            raise ConfigError(f"resampling={self.resampling!r} goes with a label raster: geometries are burned as they lie")
        every, sheet = ignoring.parts(db, tiles, self._ignore, found, Mask(tiles.grid.shape, self.dtype, self.background), wish)
        select, parts, said = burn(db, tiles, number, every, wish)
        return OpenLayer(
            name, select, sheet, path="burned", why=where_of(found, tiles.grid), warnings=said, parts=parts,
            classes={int(one.part.value): one.part.name for one in found if one.part.kind}, ignore_index=self.ignore_index,
            ignore_missing=self.ignore_missing or "", small="" if self.all_touched else small(found, tiles.grid),
            features=given(found, tiles.grid),
        )  # fmt: skip

    def shown(self, db: Database, tiles: Tiles, sides: Sequence[str]) -> Shown:
        """The features that tiles show (`Split.proof`): by the query's ``id``, or the table's primary key."""
        return shown(db, tiles, sides, self._parts, Wish(self.srid, self.column, self.buffer, self.all_touched))

    def measure(
        self, db: Database, tiles: Tiles, name: str, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, NDArray[Any]]:
        """What `Tiles.describe` adds to the tiles: of each class the share that it covers, and how many features it has."""
        wish = Wish(self.srid, self.column, self.buffer, self.all_touched)
        return areas.measure(db, tiles, self._parts, wish, name, progress)

    def _open_rasters(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        if self.buffer is not None or self.where is not None:
            raise ConfigError(f"buffer= and where= go with geometries; {self.source!s:.60} gives rasters")
        if self.value != 1 or self.all_touched:
            raise ConfigError(
                f"value= and all_touched= say how geometries are burned; {self.source!s:.60} gives rasters, whose pixels are "
                "the classes: leave them out"
            )
        self._ignore.check_raster(f"{self.source!s:.60}")
        opened = open_rasters(
            db, tiles, name, number, source=cast("str", self.source), bands=(1,), resampling=self.resampling,
            column=self.column, dtype=self.dtype, srid=self.srid, fill=self.background,
        )  # fmt: skip
        names = dict[int, str]()
        if self._is_table:
            table = db.table(str(self.source))
            names = legend.names_in(table.require(table.column("raster", self.column)).comment)
        self._ignore.check_names(names)
        pixels = cast("Pixels", opened.sheet)
        whole = [kind for kind in pixels.stored if not np.can_cast(PIXEL_TYPES[kind], self.dtype, "safe")]
        if np.dtype(self.dtype).kind == "f" and whole and PIXEL_TYPES[whole[0]].kind != "f":
            raise ConfigError(
                f"dtype={self.dtype!r} does not hold each class of {self.source!s:.60}, whose pixels are {whole[0]}: give int64"
            )
        sheet = replace(pixels, shape=tiles.grid.shape, fill=self.background)
        return replace(
            opened, sheet=sheet, classes=names, ignore_index=self.ignore_index, ignore_missing=self.ignore_missing or ""
        )


@dataclass(frozen=True)
class Vectors:
    """Vectors as an image, to learn from beside a picture: one band for each name, 1 where its features are, 0 elsewhere.

    bands: SQL, an SQLAlchemy statement or a table's name for each band's name. A query gives ``geom``, and may give ``value``,
    which is then burned in place of 1, and ``priority``. Bands overlap freely.
    buffer, srid, all_touched, resolution: as for `Labels`.
    dtype: of the pixels.

    A sample is (bands, height, width).
    """

    bands: Mapping[str, Any]
    _: KW_ONLY
    buffer: float | None = None
    srid: int | None = None
    all_touched: bool = False
    dtype: str = "uint8"
    resolution: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_buffer(self.buffer)
        check_dtype(self.dtype)
        if not isinstance(self.bands, Mapping):
            raise ConfigError(f"bands={self.bands!r:.60}: expected a mapping, such as {{'road': 'SELECT … AS geom …'}}")
        object.__setattr__(self, "bands", dict(self.bands))
        parts_of(self.bands, "band")

    @property
    def _parts(self) -> list[Part]:
        return [Part(source, kind="band", name=band) for band, _, source in parts_of(self.bands, "band")]

    @property
    def _wish(self) -> Wish:
        return Wish(self.srid, None, self.buffer, self.all_touched)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Have the server check each band's query, and read its plan."""
        found = [ask(db, tiles, part, self._wish) for part in self._parts]
        select, parts, said = burn(db, tiles, number, found, self._wish)
        sheet = Mask((len(found), *tiles.grid.shape), self.dtype, 0)
        return OpenLayer(
            name, select, sheet, path="burned", why=where_of(found, tiles.grid), warnings=said, parts=parts,
            features=given(found, tiles.grid),
        )  # fmt: skip

    def shown(self, db: Database, tiles: Tiles, sides: Sequence[str]) -> Shown:
        """As that of `Labels`."""
        return shown(db, tiles, sides, self._parts, self._wish)

    def measure(
        self, db: Database, tiles: Tiles, name: str, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, NDArray[Any]]:
        """What `Tiles.describe` adds to the tiles: of each band the share that it covers, and how many features it has."""
        return areas.measure(db, tiles, self._parts, self._wish, name, progress)


def _check_buffer(buffer: float | None) -> None:
    if buffer is not None and (not math.isfinite(buffer) or buffer == 0):
        raise ConfigError(f"buffer={buffer!r}: expected ground metres, above 0 (below 0 to narrow areas)")
