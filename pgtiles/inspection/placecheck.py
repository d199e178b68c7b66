"""Where data lie, and whether tiles, labels and imagery meet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import DataError, MissingError, QueryError
from ..postgres import catalog
from ..postgres.database import Database
from ..template import compose
from ..tiling.grid import Bounds
from ..tiling.tiles import Tiles
from .tablecheck import Finding, Used, note, problem

COVERED = 0.9  # of the imagery: where labels reach over less, they may be another place's
SLIGHT = 1e-3  # px: what sticks out by less, does not


def extent(db: Database, one: Used, srid: int) -> Bounds | None:
    """Where a table's data lie, in an SRID; by its index where that tells, for a table may be a planet. None: nobody knows."""
    table, column = one.table, one.column
    try:
        if column.type == "geometry" and table.kind == "r" and table.indexed(column):
            given = catalog.srid(db.query, table, column.name)
            slots = {"schema": table.schema, "name": table.name, "column": column.name}
            box = db.query(compose("index_extent", source_srid=given, srid=srid, **slots))[0]
            if box[0] is not None:
                return box
        return catalog.extent(db.query, table, column.name, srid)
    except (DataError, QueryError, MissingError):
        return None


def check_places(db: Database, tiles: Tiles, tables: Mapping[str, list[Used]]) -> list[Finding]:
    """Whether tiles, labels and imagery meet."""
    srid, found = tiles.grid.srid, list[Finding]()
    boxes = {name: [(one, box) for one in every if (box := extent(db, one, srid))] for name, every in tables.items()}
    imagery = {name: _union([box for one, box in all_ if one.is_raster]) for name, all_ in boxes.items()}
    for name, box in imagery.items():
        found += _outside(tiles, name, box) if box else []
    for name, all_ in boxes.items():
        labels = _union([box for one, box in all_ if not one.is_raster])
        for image, box in imagery.items():
            if labels and box:
                found += _overlap(db, name, labels, image, box, srid)
    return found


def _union(boxes: list[Bounds]) -> Bounds | None:
    low, high = np.min(boxes, axis=0, initial=np.inf), np.max(boxes, axis=0, initial=-np.inf)
    return (*low[:2].tolist(), *high[2:].tolist()) if boxes else None


def _outside(tiles: Tiles, name: str, box: Bounds) -> list[Finding]:
    bounds, slack = tiles.bounds, np.array(tiles.grid.pixel) * SLIGHT
    misses = ((bounds[:, 2:] <= box[:2] + slack) | (bounds[:, :2] >= box[2:] - slack)).any(axis=1)
    out = ((bounds[:, :2] < box[:2] - slack) | (bounds[:, 2:] > box[2:] + slack)).any(axis=1) & ~misses
    said = []
    for kind, which, what in ((problem, misses, "lie outside the imagery"), (note, out, "stick out over the imagery's edge")):
        if count := int(which.sum()):
            value = f"{count} of {len(tiles)}, such as {', '.join(map(str, tiles.ids[which][:5].tolist()))}"
            said.append(kind(name, f"tiles {what}", value, f"within={_in_words(box)} keeps tiles inside"))
    return said


def _overlap(db: Database, name: str, labels: Bounds, image: str, box: Bounds, srid: int) -> list[Finding]:
    wide, high = (min(labels[i + 2], box[i + 2]) - max(labels[i], box[i]) for i in (0, 1))
    value = f"labels {_in_words(labels)}, imagery {_in_words(box)}, in SRID {srid}"
    if wide <= 0 or high <= 0:
        what = f"the labels and the imagery of layer {image!r} do not meet"
        return [problem(name, what, value, "load the labels of that place; UpdateGeometrySRID mends a wrong SRID")]
    share = wide * high / ((box[2] - box[0]) * (box[3] - box[1]))
    if share >= COVERED:
        return []
    what = f"the labels reach over {share:.0%} of the imagery of layer {image!r}"
    return [note(name, what, value, "within= keeps tiles where labels are; coverage= ignores the pixels beyond")]


def _in_words(box: Bounds) -> str:
    return f"({', '.join(f'{value:.10g}' for value in box)})"


def lies_in(db: Database, one: Used) -> tuple[int | None, tuple[float, float] | None]:
    """SRID of a table's data, and CRS units per pixel of rasters."""
    try:
        if one.is_raster:
            kinds = catalog.headers(db.query, one.table.identifier, one.column.name)
            return (kinds[0].srid, (abs(kinds[0].scale[0]), abs(kinds[0].scale[1]))) if kinds else (None, None)
        return catalog.srid(db.query, one.table, one.column.name), None
    except (QueryError, MissingError):
        return None, None
