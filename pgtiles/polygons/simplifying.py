"""Polygons simplified together, so that neighbours go on to share their borders: by the server, where it can, or else here."""

from __future__ import annotations

from collections.abc import Callable

import shapely

from ..errors import MissingError
from ..loading.newtable import NewTable
from ..postgres.database import Database
from ..template import compose


def simplifier_of(db: Database) -> Callable[[NewTable, float], None]:
    """What simplifies the polygons that were traced, by a tolerance in CRS units, into a table of their own.

    Raises `MissingError` where neither the server's GEOS nor shapely's knows how to.
    """
    [(there, postgis, geos)] = db.query(compose("coverage_simplify"))
    if there and tuple(map(int, geos.split("-")[0].split(".")[:2])) >= (3, 12):
        return _on_server
    if hasattr(shapely, "coverage_simplify") and shapely.geos_version >= (3, 12, 0):
        return _here
    raise MissingError(
        f"simplify= needs PostGIS 3.4 with GEOS 3.12, and {db.name} has PostGIS {postgis} with GEOS {geos}; or shapely 2.1 "
        f"with GEOS 3.12 here, and there is shapely {shapely.__version__} with GEOS {shapely.geos_version_string}: pip install "
        "'shapely>=2.1'. Simplified one by one, neighbours would no longer meet"
    )


def _on_server(new: NewTable, tolerance: float) -> None:
    new.execute("traced_simple", tolerance=tolerance)


def _here(new: NewTable, tolerance: float) -> None:
    rows = new.execute("traced_all")
    polygons = shapely.from_wkb([bytes(polygon) for _, polygon in rows])
    new.execute("traced_simple_table")
    with new.rows("traced_simple_copy") as send:
        simple = shapely.set_srid(shapely.coverage_simplify(polygons, tolerance), shapely.get_srid(polygons))
        for (fid, _), text in zip(rows, shapely.to_wkb(simple, hex=True, include_srid=True), strict=True):
            send((fid, text))
