"""A start on the database at hand: what imagery, grid and label to begin with, as a train.py and a labels.sql to be changed.

All of it comes from the catalog and a glance at the tables: the imagery with the most bands, a lattice in metres, and of the
tables that have something there the one that most likely holds roads, else buildings, else anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from psycopg import sql

from . import catalog
from .database import Database
from .errors import ConfigError, DataError, MissingError
from .template import Slot, compose, folder
from .view import View

Box = tuple[float, float, float, float]

# How likely a table is the label that one wants to begin with, the likeliest first.
ROAD_TAG, ROAD_NAME, BUILDING_TAG, BUILDING_NAME, AREA, LINE, ANY, POINT, ROAD_SELECTION = range(9)
LOOKED_AT = 200  # raster tables: each is opened for a look at its first blocks


class _Column(NamedTuple):
    """A spatial column, as in sql/spatial_columns.sql."""

    schema: str
    table: str
    name: str
    type: str
    geometry: str
    srid: int
    others: list[str]

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    @property
    def text(self) -> str:
        """Schema and table, quoted where SQL needs it."""
        return f"{_quoted(self.schema)}.{_quoted(self.table)}"


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
    label: str
    """SQL."""
    label_srid: int
    classes: dict[int, str]

    def write(self, into: Path) -> list[Path]:
        """Make labels.sql and, where there is imagery, train.py; gives the files. Neither replaces one that is there."""
        texts = {"labels.sql": self.label}
        if self.image is not None:
            texts["train.py"] = self._training()
        for name in texts:
            if (into / name).exists():
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
            label_srid=self.label_srid, srid=None if self.like else self.srid,
            resolution=None if self.like else self.resolution[0], size=self.size,
            within=",".join(f"{v:.2f}" for v in self.within), url=url,
        )  # fmt: skip

    def _training(self) -> str:
        grid = f"Grid.like(db, {self.image!r}, size={self.size})  # on the imagery's own pixels: nothing is resampled"
        if not self.like:
            grid = f"Grid(srid={self.srid}, resolution={self.resolution}, size={self.size})  # PostGIS reprojects the imagery"
        slots = {
            "image": repr(self.image), "bands": self.bands, "classes": self.classes, "srid": self.label_srid, "grid": grid,
            "within": tuple(round(v, 2) for v in self.within), "gap": f"{self.size * self.resolution[0]:.6g}",
        }  # fmt: skip
        return _filled("train.py", slots)


def propose(db: Database) -> Start:
    """Look at the database and say what to begin with.

    Raises:
        MissingError: there is no table with geometries for a label, or none that meets the imagery.

    """
    db.require_postgis()
    columns = [_Column(*row) for row in db.query(compose("spatial_columns"))]
    candidates = sorted((c for c in columns if c.type == "geometry"), key=_unlikely)
    if not candidates:
        raise MissingError(
            f"{db.name} has no table with geometries to make a label of: load some, `pgtiles load osm FILE.osm.pbf` or "
            "`pgtiles load vector FILE TABLE`"
        )
    for image in _imagery(db, columns):
        start = _with_imagery(db, image, candidates)
        if start:
            return start
    if any(c.type == "raster" for c in columns):
        raise MissingError(
            f"{db.name} holds imagery, but no table has features where it lies (or its rasters have no SRID, or are too "
            "few for tiles): load labels for that place, `pgtiles load osm FILE.osm.pbf` or `pgtiles load vector FILE TABLE`"
        )
    return _labels_only(db, candidates)


def _imagery(db: Database, columns: list[_Column]) -> list[tuple[_Column, catalog.Header]]:
    """Raster columns of one kind that know where they lie, those with three bands or more first."""
    found = []
    for column in [c for c in columns if c.type == "raster"][:LOOKED_AT]:
        headers = catalog.headers(db.query, column.identifier, column.name)
        if len({(h.srid, h.scale, h.skew, h.pixel_types) for h in headers}) == 1 and headers[0].srid and headers[0].pixel_types:
            found.append((column, headers[0]))
    return sorted(found, key=lambda pair: len(pair[1].pixel_types) < 3)


def _with_imagery(db: Database, image: tuple[_Column, catalog.Header], candidates: list[_Column]) -> Start | None:
    column, header = image
    table = db.table(column.text)
    own = catalog.extent(db.query, table, column.name, header.srid)
    degrees, _, lon, lat = _crs(db, _middle(own), header.srid, header.srid)
    srid, scale = header.srid, (abs(header.scale[0]), abs(header.scale[1]))
    like = not degrees and header.skew == (0, 0) and header.scale[0] > 0 > header.scale[1]
    if degrees:  # tiles want metres: UTM, at the pixels' size from north to south
        srid = _utm(lon, lat)
        scale = (float(f"{scale[1] * 111_320:.2g}"),) * 2
    box = catalog.extent(db.query, table, column.name, srid)
    for label in candidates:
        place = _features(db, label, box, srid)
        if place is None:
            continue
        both = (max(box[0], place[0]), max(box[1], place[1]), min(box[2], place[2]), min(box[3], place[3]))
        within = both if _size(both, scale) else box  # a few features in a corner leave no room for tiles
        if not (size := _size(within, scale)):
            break
        text, its_srid, classes = _label(db, label, srid, _middle(within))
        bands = (1, 2, 3) if len(header.pixel_types) >= 3 else (1,)
        return Start(column.text, bands, srid, scale, like, size, within, text, its_srid, classes)
    return None


def _labels_only(db: Database, candidates: list[_Column]) -> Start:
    for label in candidates:
        place = db.query(compose("a_place", table=label.identifier, column=sql.Identifier(label.name)))[0]
        its_srid = _srid(db, label)
        if place[0] is None or not its_srid:
            continue
        degrees, unit, lon, lat = _crs(db, place, its_srid, its_srid)
        srid = _utm(lon, lat) if degrees else its_srid
        x, y = (lon, lat) if degrees else place
        if degrees:
            x, y = db.query(compose("point_in", x=lon, y=lat, srid=srid))[0]
            unit = 1.0
        half = 500 * unit
        within = (x - half, y - half, x + half, y + half)
        text, its_srid, classes = _label(db, label, srid, (x, y))
        return Start(None, (), srid, (unit, unit), False, 256, within, text, its_srid, classes)
    raise DataError(f"{db.name}: no table with geometries has features and an SRID: say it with UpdateGeometrySRID")


def _unlikely(column: _Column) -> int:
    """How unlikely a label it is, by its columns and its name."""
    name, kind = column.table.lower(), column.geometry
    line, area = "LINE" in kind or kind == "GEOMETRY", "POLYGON" in kind or kind == "GEOMETRY"
    if "highway" in column.others and line:
        return ROAD_SELECTION if name.endswith("_roads") else ROAD_TAG  # osm2pgsql's table for small scales
    if re.search("road|street|highway|stra(ss|ß)e|route", name) and line:
        return ROAD_NAME
    if "building" in column.others and area:
        return BUILDING_TAG
    if re.search("building|footprint|house|geb(ae|ä)ude|batiment", name) and area:
        return BUILDING_NAME
    return {"GEOMETRY": ANY}.get(kind, AREA if area else LINE if line else POINT)


def _label(db: Database, column: _Column, srid: int, middle: tuple[float, float]) -> tuple[str, int, dict[int, str]]:
    """The label's query, the SRID in which it searches, and its classes."""
    its_srid = _srid(db, column)
    name, likely = _quoted(column.name), _unlikely(column)
    slots = {"srid": its_srid, "table": column.text, "column": name}
    if "POLYGON" in column.geometry or likely in {BUILDING_TAG, BUILDING_NAME}:
        tagged = "building" in column.others
        slots |= {
            "condition": " that is a building" if tagged else "",
            "and_condition": " AND building IS NOT NULL" if tagged else "",
        }
        return (
            _filled("areas.sql", slots),
            its_srid,
            {1: "building" if likely in {BUILDING_TAG, BUILDING_NAME} else column.table},
        )
    degrees, unit, *_ = _crs(db, middle, srid, its_srid)
    metric = srid if degrees else its_srid  # in which a width in metres can be buffered
    metre = _crs(db, middle, srid, metric)[1]
    exact = abs(metre - 1) < 0.002
    roads = likely in {ROAD_TAG, ROAD_SELECTION}
    slots |= {
        "geometry": name if metric == its_srid else f"ST_Transform({name}, {metric})",
        "metre": "" if exact else f" * {metre:.4g}",
        "note": "" if exact else f"\n-- A metre on the ground is {metre:.4g} units of SRID {metric} here.",
        "reach": f"{(35 if roads else 4) * unit:.6g}",
        "lanes": "2",
    }
    if counted := "tags->'lanes'" if "tags" in column.others else "lanes::text" if "lanes" in column.others else None:
        slots["lanes"] = rf"coalesce(substring({counted} FROM '^\d{{1,2}}')::int, 2)"
    text = _filled("roads.sql" if roads else "lines.sql", slots)
    return text, its_srid, {1: "road" if roads or likely == ROAD_NAME else column.table}


def _filled(name: str, slots: Mapping[str, object]) -> str:
    return Template((folder("examples") / "start" / f"{name}.in").read_text("utf-8")).substitute(slots)


def _srid(db: Database, column: _Column) -> int:
    """The SRID of a geometry column, 0 where nobody knows."""
    return column.srid or catalog.srid(db.query, db.table(column.text), column.name) or 0


def _features(db: Database, column: _Column, box: Box, srid: int) -> Any:
    """Where in the box the table has features, in the box's SRID; None where it has none."""
    if not (its_srid := _srid(db, column)):
        return None
    slots: dict[str, Slot] = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    slots |= {"table": column.identifier, "column": sql.Identifier(column.name), "srid": its_srid, "box_srid": srid}
    found = db.query(compose("features_here", **slots))[0]
    return None if found[0] is None else found


def _crs(db: Database, place: tuple[float, float], srid: int, of: int) -> Any:
    """Whether a CRS is in degrees, its units in a ground metre, and the place's longitude and latitude."""
    found = db.query(compose("crs_here", x=place[0], y=place[1], srid=srid, target_srid=of))
    if not found:
        raise MissingError(f"SRID {of} is not in the database's spatial_ref_sys")
    return found[0]


def _utm(lon: float, lat: float) -> int:
    """The EPSG code of the UTM zone."""
    return (32601 if lat >= 0 else 32701) + min(int((lon + 180) // 6), 59)


def _quoted(name: str) -> str:
    return name if re.fullmatch("[a-z_][a-z0-9_]*", name) else sql.Identifier(name).as_string()


def _middle(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _size(within: Box, scale: tuple[float, float]) -> int | None:
    """Pixels along a tile's side: 256, or fewer where the place is small; None where too few of 32 would fit."""
    across, down = (within[2] - within[0]) / scale[0], (within[3] - within[1]) / scale[1]
    return next((size for size in (256, 128, 64, 32) if across >= 6 * size and down >= 1.5 * size), None)
