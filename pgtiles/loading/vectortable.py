"""A vector file into a table: its features as they are, with an index, and notes on what is odd about them."""

from __future__ import annotations

from psycopg import sql

from ..postgres.database import Database
from . import vectorfile
from .newtable import File, Loaded, NewTable, Progress, new_table, path_of, srid_of
from .vectorfile import VectorFile


def vector(
    db: Database,
    file: File,
    table: str,
    *,
    layer: str | None = None,
    srid: int | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Loaded:
    """Load GeoJSON, a GeoPackage, a Shapefile, or whatever GDAL reads, into a table: fid, geom, the file's fields.

    Geometries are loaded as they are, in the file's order: invalid and empty ones and NULLs too, which the notes count.
    The column geom has their type, or Geometry where they are mixed; Z is kept, M is not. A field's column has its name in
    lower case.

    Args:
        db: where to.
        file: to load.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        layer: which one, where the file has several.
        srid: of the file, where its CRS is missing or has no code; nothing is reprojected.
        replace: drop a table of that name; who may read it may read the new one.
        progress: is told the number of features done, and of all.

    Raises:
        LoadError: the file can't be loaded, or the table not be made; the database is as it was before.
        MissingError: no such file, layer or schema.
        ConfigError: an argument is not allowed.

    """
    found = vectorfile.describe(path_of(file), layer)
    db.require_postgis()
    notes = list(found.notes)
    with new_table(db, table, replace, found.path) as new:
        srid = srid_of(new, found, srid, notes)
        columns = [sql.SQL(", {} " + field.type).format(sql.Identifier(field.column)) for field in found.fields]
        new.execute("vector_table", columns=sql.Composed(columns))
        rows = 0
        with new.rows("vector_copy") as send:
            for row in vectorfile.rows(found, notes.append):
                rows += 1
                send((rows, *row))
                if progress:
                    progress(rows, found.features)
        notes += _settle_types(new, found, srid)
        new.take_place()
        new.execute("vector_key", next=rows + 1)
        new.execute("vector_index")
        return Loaded(new.text, rows, srid, new.analyze(), tuple(dict.fromkeys(notes)))


def _settle_types(new: NewTable, file: VectorFile, srid: int) -> list[str]:
    """Give geometries and moments the types that they turned out to be of; notes on what is odd about them."""
    types, with_z, without_z, there, null, empty, invalid, fid, reason = new.execute("vector_survey")[0]
    notes = [f"{count} of {there + null} geometries are {what}" for count, what in ((null, "NULL"), (empty, "empty")) if count]
    if invalid:
        notes.append(
            f"{invalid} of {there + null} geometries are invalid and loaded as they are; the first, fid {fid}: {reason}"
        )
    if with_z and without_z:
        notes.append("some geometries have heights and others none, which became 0")
    others = []
    for field in file.fields:
        if not field.moment:
            continue
        column = sql.Identifier(field.column)
        zoned, local = new.execute("vector_moments", column=column)[0]
        if zoned and local:
            notes.append(f"column {field.column!r} stays text: some of its times say their offset to UTC, and others do not")
            continue
        moment = sql.SQL("timestamptz" if zoned else "timestamp")
        others.append(sql.SQL(", ALTER COLUMN {0} TYPE {1} USING {0}::{1}").format(column, moment))
    kind = types[0] if types and len(types) == 1 else "Geometry"
    new.execute(
        "vector_types",
        type=sql.SQL(kind + "Z" if with_z else kind),
        geometry=sql.SQL("ST_Force3D(geom)" if with_z else "geom"),
        srid=srid,
        others=sql.Composed(others),
    )
    return notes
