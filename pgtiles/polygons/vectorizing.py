"""Vectorizing: a class raster becomes polygons in a table, which is made whole or not at all.

Strips of the raster are read, traced (see `tracing`) and sent on as they are done, in the one transaction that makes the table.
So a kill leaves nothing behind, and there is no half of anything to be taken up: to begin anew is quick, and simpler to trust.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from contextlib import closing

import numpy as np
from psycopg import sql

from ..errors import ConfigError
from ..layers import legend
from ..loading.newtable import Loaded, NewTable, Progress, new_table
from ..postgres import catalog
from ..postgres.database import Database
from ..template import compose
from .classrasters import Rasters, Strips
from .simplifying import simplifier_of
from .tracing import Outline, Tracer

LONGEST = 10  # pixels of an edge whose area is measured
POLYGON = struct.Struct("<BIII")  # byte order, type with a flag that an SRID follows, SRID, number of rings


def vectorize(
    db: Database | str,
    table: str,
    into: str,
    *,
    run: str | None = None,
    classes: Sequence[int] | None = None,
    probability: str | None = None,
    probability_run: str | None = None,
    min_area: float = 0.0,
    fill_holes: float = 0.0,
    simplify: float = 0.0,
    rectangles: float | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Loaded:
    """Make polygons of a class raster: fid, class, probability, area, geom.

    Pixels of one class that share an edge are one polygon, however the raster is cut into blocks; where they only touch at a
    corner, they are two. Pixels without data are of none. Holes are filled first, then small polygons dropped, and what is
    left is simplified. The table is made in one transaction: whatever ends it leaves everything as it was.

    Memory holds some strips of the raster and the outlines of the polygons that may go on below; ``simplify`` needs all
    polygons at once, on the server or here.

    Args:
        db: where the raster is and the polygons go.
        table: of rasters with one band of whole numbers, such as `pgtiles.predict` makes.
        into: ``table``, ``schema.table``, or quoted as in SQL.
        run: which one, where the table holds predictions of several.
        classes: those wanted; all of them unless given. Pixels of others are as if they had no data.
        probability: a raster table on the same pixels, a band for each class from 0 on, or one for class 1: floats from 0
            to 1, or 8 bits, in which 254 is 1. The column probability is then the mean over the polygon's pixels of what was
            thought of its class.
        probability_run: which one there.
        min_area: m² on the ground, below which a polygon is dropped.
        fill_holes: m² on the ground, below which a hole is filled; polygons that lie in it are dropped.
        simplify: pixels by which borders may move, about: 1 takes the stairs out. Neighbours go on to share theirs.
        rectangles: the share of its smallest rectangle that a polygon must fill to be replaced by a rectangle of its area, such
            as 0.8, for buildings. These may overlap.
        replace: drop a table of that name; who may read it may read the new one.
        progress: is told strips done, and of how many.

    Raises:
        ConfigError: an argument is not allowed, or the tables do not lie on the same pixels.
        MissingError: there is no such table or run; or nothing here can simplify, and the error says what could.
        DataError: a class has no band of probabilities.
        LoadError: the table can't be made; the database is as it was before.

    """
    db = db if isinstance(db, Database) else Database(db)
    _check(min_area=min_area, fill_holes=fill_holes, simplify=simplify)
    if rectangles is not None and not 0 < rectangles <= 1:
        raise ConfigError(f"rectangles={rectangles!r}: expected a share above 0 and up to 1, such as 0.8")
    db.require_postgis()
    source = Rasters.of(db, table, run, "run")
    weighed = None if probability is None else Rasters.of(db, probability, probability_run, "probability_run")
    if probability is None and probability_run is not None:
        raise ConfigError(f"probability_run={probability_run!r} goes with probability=")
    simplifier = simplifier_of(db) if simplify else None
    strips = Strips.open(db, source, weighed, classes)
    ground = _ground_of(db, strips)
    with new_table(db, into, replace, f"{source.said}, as polygons,") as new:
        for one in filter(None, (source, weighed)):
            if (new.schema, new.name) == (one.table.schema, one.table.name):
                raise ConfigError(f"into={into!r}: polygons can't take the place of the raster that they are made of")
        new.execute("traced_table", srid=strips.grid.srid)
        _trace(db, strips, new, bool(simplify), progress)
        for one in filter(None, (source, weighed)):
            one.require_there(db)
        notes = _tidied(new, min_area, fill_holes, ground)
        if simplifier:
            simplifier(new, simplify * math.sqrt(strips.grid.pixel[0] * strips.grid.pixel[1]))
        shape: sql.Composable = sql.SQL("s.geom" if simplify else "t.geom")
        if rectangles is not None:
            shape = compose("traced_rectangle", geom=sql.SQL("t.geom"), otherwise=shape, share=rectangles)
        new.execute("polygon_table", srid=strips.grid.srid)
        joined = sql.SQL("JOIN pgtiles_simple AS s USING (fid)" if simplify else "")
        new.execute("traced_into", shape=shape, simple=joined, area=ground("p.geom"))
        rows = new.execute("traced_count")[0][0]
        new.execute("vector_key", next=rows + 1)
        new.execute("vector_index")
        new.execute("traced_comment", said=f"polygons of {source.said}")
        if names := legend.names_in(source.table.require(source.column).comment):
            new.execute("class_names", column=sql.Identifier("class"), comment=legend.comment(names))
        size = new.analyze()
        new.take_place()
        if progress:
            progress(strips.count + 1, strips.count + 1)
        return Loaded(new.text, rows, strips.grid.srid, size, tuple(notes))


def _check(**numbers: float) -> None:
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            what = "pixels" if name == "simplify" else "m² on the ground"
            raise ConfigError(f"{name}={value!r}: expected {what}, 0 or more")


def _ground_of(db: Database, strips: Strips) -> Callable[[str], sql.Composed]:
    """How a geometry's area on the ground is told in SQL."""
    if catalog.in_degrees(db.query, strips.grid.srid):
        return lambda geom: compose("ground_area_degrees", geom=sql.SQL(geom))
    longest = LONGEST * min(strips.grid.pixel)
    return lambda geom: compose("ground_area", geom=sql.SQL(geom), longest=longest)


def _trace(db: Database, strips: Strips, new: NewTable, nodes: bool, progress: Progress | None) -> None:
    """Trace the strips as they come in, and send the polygons on."""
    tracer, count = Tracer(strips.width, nodes=nodes), 0
    with new.rows("traced_copy") as send, closing(strips.read(db)) as read:
        for done, (codes, weights) in enumerate(read, 1):
            for outlines in (tracer.add(codes, weights), tracer.finish() if done == strips.count else ()):
                for outline in outlines:
                    count += 1
                    mean = outline.total / outline.known / strips.top_weight if outline.known else None
                    send((count, outline.value + strips.least, mean, _wkb(outline, strips).hex()))
            if progress:
                progress(done, strips.count + 1)


def _wkb(outline: Outline, strips: Strips) -> bytes:
    """A polygon as PostGIS takes it in."""
    grid = strips.grid
    (rx, ry), (x, y) = grid.pixel, grid.origin
    parts = [POLYGON.pack(1, 0x20000003, grid.srid, len(outline.rings))]
    for ring in outline.rings:
        corners = np.empty((len(ring) + 1, 2), "<f8")
        corners[:-1] = ring
        corners[-1] = ring[0]
        corners[:, 0] = x + (corners[:, 0] + strips.left) * rx
        corners[:, 1] = y - (corners[:, 1] + strips.top) * ry
        parts += [struct.pack("<I", len(corners)), corners.tobytes()]
    return b"".join(parts)


def _tidied(new: NewTable, min_area: float, fill_holes: float, ground: Callable[[str], sql.Composed]) -> list[str]:
    """Fill holes, drop what is too small; what there is to say of it."""
    notes = list[str]()
    if fill_holes:
        new.execute("traced_holes", area=ground("h.geom"), least=float(fill_holes))
        new.execute("traced_holes_index")
        swallowed = new.execute("traced_swallow")[0][0]
        filled = new.execute("traced_fill", area=ground("h.geom"), least=float(fill_holes))[0][0]
        notes.append(
            f"holes of {filled} polygons were filled, and {swallowed} polygons in them dropped (fill_holes={fill_holes:g} m²)"
        )
    if min_area:
        dropped = new.execute("traced_drop", area=ground("t.geom"), least=float(min_area))[0][0]
        notes.append(f"{dropped} polygons were dropped (min_area={min_area:g} m²)")
    return notes
