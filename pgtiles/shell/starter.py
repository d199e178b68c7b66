"""A start on the database at hand: what imagery, grid and label to begin with, as a train.py and a labels.sql to be changed.

All of it comes from the catalog and a glance at the tables: the imagery with the most bands, a lattice in metres, and of the
tables that have something there the one that most likely holds roads, else buildings, else anything.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, PgtilesError, PgtilesWarning
from ..layers.firstlabel import Label, SpatialColumn, crs_at, filled, first_label, unlikely
from ..postgres import catalog
from ..postgres.catalog import Header
from ..postgres.database import Database
from ..template import Slot, compose
from .view import View

Box = tuple[float, float, float, float]

LOOKED_AT = 200  # raster tables: each is opened for a look at its first blocks
PICTURE = "preview.png"


@dataclass(frozen=True)
class Start:
    """What to begin with."""

    image: str | None
    """The imagery's table; None where the database holds none that can be read."""
    bands: tuple[int, ...]
    srid: int
    resolution: tuple[float, float]
    like: bool
    """Whether the tiles lie on the imagery's own lattice."""
    size: int
    within: Box
    """The place of imagery and labels, in the tiles' SRID."""
    label: Label

    def write(self, into: Path) -> list[Path]:
        """Make labels.sql and, where there is imagery, train.py; gives the files. Neither replaces one that is there."""
        texts = {"labels.sql": self.label.text}
        if self.image is not None:
            texts["train.py"] = self._training()
        for name in (*texts, PICTURE):
            if os.path.lexists(into / name):
                raise ConfigError(f"{into / name} is there already: name another folder (pgtiles init FOLDER), or move it away")
        into.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            part = into / f"{name}.part"
            part.write_text(text, encoding="utf-8")
            part.replace(into / name)
        return [into / name for name in texts]

    def view(self, into: Path, url: str | None) -> View:
        """The same, as preview and check take it."""
        return View(
            image=self.image, bands=",".join(map(str, self.bands)) if self.image else None, labels=str(into / "labels.sql"),
            label_srid=self.label.srid, srid=None if self.like else self.srid,
            resolution=None if self.like else self.resolution[0], size=self.size,
            within=",".join(f"{v:.2f}" for v in self.within), url=url,
        )  # fmt: skip

    def _training(self) -> str:
        grid = f"Grid.like(db, {self.image!r}, size={self.size})  # on the imagery's own pixels: nothing is resampled"
        if not self.like:
            grid = f"Grid(srid={self.srid}, resolution={self.resolution}, size={self.size})  # PostGIS reprojects the imagery"
        slots = {
            "image": repr(self.image), "bands": self.bands, "grid": grid,
            "classes": self.label.classes, "srid": self.label.srid,
            "within": tuple(round(v, 2) for v in self.within), "gap": f"{self.size * self.resolution[0]:.6g}",
        }  # fmt: skip
        return filled("train.py", slots)


def propose(db: Database, *, image: str | None = None, labels: str | None = None) -> Start:
    """Look at the database and say what to begin with; a table that can't be looked at is left out, with a warning.

    Args:
        db: where.
        image: the raster table, where it shall not be the likeliest.
        labels: the table with geometries, likewise.

    Raises:
        MissingError: there is no table with geometries for a label, or none that meets the imagery.

    """
    db.require_postgis()
    columns = [SpatialColumn(*row) for row in db.query(compose("spatial_columns"))]
    for named, kind in ((image, "raster"), (labels, "geometry")):
        if named is not None:
            table = db.table(named)
            columns = [c for c in columns if c.type != kind or (c.schema, c.table) == (table.schema, table.name)]
    candidates = sorted((c for c in columns if c.type == "geometry"), key=unlikely)
    if not candidates:
        raise MissingError(
            f"{db.name} has no table with a column of type geometry to make a label of: load some, `pgtiles load osm "
            "FILE.osm.pbf` or `pgtiles load vector FILE TABLE`"
        )
    for column, header in _imagery(db, columns):
        with _left_out(column):
            if start := _with_imagery(db, column, header, candidates):
                return start
    if any(c.type == "raster" for c in columns):
        raise MissingError(
            f"{db.name} holds imagery, but no table has features where it lies: load labels for that place, `pgtiles load osm "
            "FILE.osm.pbf` or `pgtiles load vector FILE TABLE`. (Imagery without an SRID, of less than a few tiles, across the "
            "date line or larger than a UTM zone in degrees is passed over, too: for that, give the Grid yourself)"
        )
    return _labels_only(db, candidates)


@contextmanager
def _left_out(column: SpatialColumn) -> Iterator[None]:
    """An error inside leaves out this table, and says so: a foreign server that is down, a view without rights below it."""
    try:
        yield
    except PgtilesError as error:
        warnings.warn(f"{column.text} is left out: {error}", PgtilesWarning, stacklevel=3)


def _imagery(db: Database, columns: list[SpatialColumn]) -> list[tuple[SpatialColumn, Header]]:
    """Raster columns of one kind that know where they lie, those with three bands or more first."""
    found = []
    for column in [c for c in columns if c.type == "raster"][:LOOKED_AT]:
        with _left_out(column):
            if list(column.types.values()).count("raster") > 1:
                raise ConfigError("it has several raster columns, of which a layer names one, Imagery(..., column=…)")
            headers = catalog.headers(db.query, column.identifier, column.name)
            if (
                len({(h.srid, h.scale, h.skew, h.pixel_types) for h in headers}) == 1
                and headers[0].srid
                and headers[0].pixel_types
            ):
                found.append((column, headers[0]))
    return sorted(found, key=lambda pair: len(pair[1].pixel_types) < 3)


def _with_imagery(db: Database, image: SpatialColumn, header: Header, candidates: list[SpatialColumn]) -> Start | None:
    table = db.table(image.text)
    own = catalog.extent(db.query, table, image.name, header.srid)
    degrees, _, lon, lat = crs_at(db, _middle(own), header.srid, header.srid)
    (sx, sy), (kx, ky) = header.scale, header.skew
    srid, scale = header.srid, (math.hypot(sx, ky), math.hypot(sy, kx))
    like = not degrees and (kx, ky) == (0, 0) and sx > 0 > sy
    if degrees:  # tiles want metres: UTM, at the pixels' size from north to south
        srid, scale = _utm(lon, lat), (float(f"{scale[1] * 111_320:.2g}"),) * 2
    elif not like:
        scale = (min(scale),) * 2
    box = catalog.extent(db.query, table, image.name, srid)
    for label in candidates:
        place = None
        with _left_out(label):
            place = _features(db, label, box, srid)
        if place is None:
            continue
        both = (max(box[0], place[0]), max(box[1], place[1]), min(box[2], place[2]), min(box[3], place[3]))
        within = both if _size(both, scale) else box  # a few features in a corner leave no room for tiles
        if not (size := _size(within, scale)):
            break
        bands = (1, 2, 3) if len(header.pixel_types) >= 3 else (1,)
        return Start(image.text, bands, srid, scale, like, size, within, first_label(db, label, srid, _middle(within)))
    return None


def _labels_only(db: Database, candidates: list[SpatialColumn]) -> Start:
    for label in candidates:
        with _left_out(label):
            place = db.query(compose("a_place", table=label.identifier, column=sql.Identifier(label.name)))[0]
            its_srid = label.srid(db)
            if place[0] is None or not its_srid:
                continue
            degrees, unit, lon, lat = crs_at(db, place, its_srid, its_srid)
            srid, (x, y) = its_srid, place
            if degrees:
                srid, unit = _utm(lon, lat), 1.0
                x, y = db.query(compose("point_in", x=lon, y=lat, srid=srid))[0]
            half = 500 * unit
            within = (x - half, y - half, x + half, y + half)
            return Start(None, (), srid, (unit, unit), False, 256, within, first_label(db, label, srid, (x, y)))
    raise DataError(f"{db.name}: no table with geometries has features and an SRID: say it with UpdateGeometrySRID")


def _features(db: Database, column: SpatialColumn, box: Box, srid: int) -> Any:
    """Where in the box the table has features, in the box's SRID; None where it has none."""
    if not (its_srid := column.srid(db)):
        return None
    slots: dict[str, Slot] = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    slots |= {"table": column.identifier, "column": sql.Identifier(column.name), "srid": its_srid, "box_srid": srid}
    found = db.query(compose("features_here", **slots))[0]
    return None if found[0] is None else found


def _utm(lon: float, lat: float) -> int:
    """The EPSG code of the UTM zone."""
    return (32601 if lat >= 0 else 32701) + min(int((lon + 180) // 6), 59)


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _size(within: Box, scale: tuple[float, float]) -> int | None:
    """Pixels along a tile's side: 256, or fewer where the place is small; None where too few of 32 would fit."""
    across, down = (within[2] - within[0]) / scale[0], (within[3] - within[1]) / scale[1]
    return next((size for size in (256, 128, 64, 32) if across >= 6 * size and down >= 1.5 * size), None)
