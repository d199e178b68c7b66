"""A first label: which table most likely holds one, and the query for it, in words that the user goes on with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import Template
from typing import Any, NamedTuple

from psycopg import sql

from ..errors import DataError, MissingError
from ..postgres import catalog
from ..postgres.database import Database
from ..template import compose, folder

# How likely a table is the label that one wants to begin with, the likeliest first.
ROAD_TAG, ROAD_NAME, BUILDING_TAG, BUILDING_NAME, AREA, LINE, ANY, POINT, ROAD_SELECTION = range(9)
WORDS = {"text", "varchar", "bpchar"}
NUMBERS = {"bool", "int2", "int4", "int8", "float4", "float8", "numeric"}
LANES = {
    "hstore": "tags->'lanes'",
    "json": "tags->>'lanes'",
    "jsonb": "tags->>'lanes'",
}  # where the column tags is of this type


class SpatialColumn(NamedTuple):
    """A column with rasters or geometries, as in sql/spatial_columns.sql."""

    schema: str
    table: str
    name: str
    type: str
    geometry: str
    declared_srid: int
    text: str
    """Schema and table, quoted where SQL needs it."""
    quoted: str
    """The column's name, quoted where SQL needs it."""
    types: dict[str, str]
    """The types of all columns of the table, by their names."""

    @property
    def identifier(self) -> sql.Identifier:
        """The table."""
        return sql.Identifier(self.schema, self.table)

    def srid(self, db: Database) -> int:
        """As declared, else that of a first row; 0 where nobody knows."""
        return self.declared_srid or catalog.srid(db.query, db.table(self.text), self.name) or 0


class Label(NamedTuple):
    """A label query, the table that it is over, the SRID in which it searches, and the names of its classes."""

    table: str
    text: str
    srid: int
    classes: dict[int, str]


def unlikely(column: SpatialColumn) -> int:
    """How unlikely a label it is, by its columns and its name."""
    name, kind, types = column.table.lower(), column.geometry, column.types
    line, area = "LINE" in kind or kind == "GEOMETRY", "POLYGON" in kind or kind == "GEOMETRY"
    if line and types.get("highway", "bool") not in NUMBERS:
        return ROAD_SELECTION if name.endswith("_roads") else ROAD_TAG  # osm2pgsql's table for small scales
    if line and re.search("road|street|highway|stra(ss|ß)e|route", name):
        return ROAD_NAME
    if area and "building" in types:
        return BUILDING_TAG
    if area and re.search("building|footprint|house|geb(ae|ä)ude|batiment", name):
        return BUILDING_NAME
    return {"GEOMETRY": ANY}.get(kind, AREA if area else LINE if line else POINT)


def first_label(db: Database, column: SpatialColumn, srid: int, middle: tuple[float, float]) -> Label:
    """The query for a table's features: roads as wide as their lanes, buildings and areas as they are, all else 4 m wide.

    srid, middle: of the tiles, and where they lie: there a metre is a metre on the ground.
    """
    its_srid, likely = column.srid(db), unlikely(column)
    slots = {"srid": its_srid, "table": column.text, "name": column.text.replace("\n", " "), "column": column.quoted}
    if "POLYGON" in column.geometry or likely in {BUILDING_TAG, BUILDING_NAME}:
        slots["condition"] = _is_building(column.types.get("building"))
        named = "building" if likely in {BUILDING_TAG, BUILDING_NAME} else column.table
        return Label(column.text, filled("areas.sql", slots), its_srid, {1: named})
    degrees, unit, *_ = crs_at(db, middle, srid, its_srid)
    metric = srid if degrees else its_srid  # in which a width in metres can be buffered
    metre = crs_at(db, middle, srid, metric)[1]
    exact, roads = abs(metre - 1) < 0.002, likely in {ROAD_TAG, ROAD_SELECTION}
    slots |= {
        "geometry": column.quoted if metric == its_srid else f"ST_Transform({column.quoted}, {metric})",
        "metre": "" if exact else f" * {metre:.4g}",
        "note": "" if exact else f"\n-- A metre on the ground is {metre:.4g} units of SRID {metric} here.",
        "reach": f"{(17.5 if roads else 4) * unit:.6g}",
        "highway": "highway" if column.types.get("highway") in WORDS else "highway::text",
        "lanes": _lanes(column.types),
        "above": "\n    AND coalesce(tunnel, 'no') = 'no'" if column.types.get("tunnel") in WORDS else "",
    }
    text = filled("roads.sql" if roads else "lines.sql", slots)
    return Label(column.text, text, its_srid, {1: "road" if roads or likely == ROAD_NAME else column.table})


def _is_building(kind: str | None) -> str:
    if kind is None:
        return ""
    if kind == "bool":
        return " AND building"
    return " AND building NOT IN ('no', 'roof')" if kind in WORDS else " AND building IS NOT NULL"


def _lanes(types: Mapping[str, str]) -> str:
    counted = "lanes::text" if "lanes" in types else LANES.get(types.get("tags", ""))
    return rf"least(coalesce(substring({counted} FROM '^\d{{1,2}}')::int, 2), 10)" if counted else "2"


def filled(name: str, slots: Mapping[str, object]) -> str:
    """A file of examples/start with its slots filled."""
    return Template((folder("examples") / "start" / f"{name}.in").read_text("utf-8")).substitute(slots)


def crs_at(db: Database, place: tuple[float, float], srid: int, of: int) -> Any:
    """Whether a CRS is in degrees, its units in a ground metre, and the place's longitude and latitude."""
    found = db.query(compose("crs_here", x=place[0], y=place[1], srid=srid, target_srid=of))
    if not found:
        raise MissingError(f"SRID {of} is not in the database's spatial_ref_sys")
    if found[0][1] is None:
        raise DataError(f"a metre has no length in SRID {of} at {place}: too near to a pole")
    return found[0]
