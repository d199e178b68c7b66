"""Files into tables, with the storage, index and constraints that make reading fast.

A load is one transaction (see `newtable`): one that fails, or is killed, leaves the database as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from . import rasterfile, vectorfile
from .database import Database
from .errors import ConfigError, LoadError, MissingError
from .newtable import NewTable, new_table
from .rasterfile import RasterFile
from .vectorfile import VectorFile

Progress = Callable[[int, int], None]
File = str | os.PathLike[str]
MAX_BLOCK_BYTES = 500_000_000  # a value has at most 1 GB, and a raster travels as hexadecimal text


@dataclass(frozen=True)
class Loaded:
    """What a load made."""

    table: str
    """Schema and name, quoted where SQL needs it."""
    rows: int
    """Blocks or features."""
    srid: int
    bytes: int
    """On the server's disk, with the index."""
    notes: tuple[str, ...]
    """For the user to read: what was left out or looks wrong, if anything."""


def raster(
    db: Database,
    files: File | Sequence[File],
    table: str,
    *,
    srid: int | None = None,
    replace: bool = False,
    block: int = 128,
    progress: Progress | None = None,
) -> Loaded:
    """Load GeoTIFFs, or whatever GDAL reads, into one table: rid, rast, filename.

    Pixels, nodata and lattice are as they are in the files. A row is a block of pixels. Rows are in
    the order of the files, and within a file from its first row of pixels on.

    Args:
        db: where to.
        files: one or several, of one CRS, pixel type, number of bands and nodata value.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        srid: of the files, where their CRS is missing or has no code; nothing is reprojected.
        replace: drop a table of that name; who may read it may read the new one.
        block: pixels a side; those at the right and lower edge are smaller. 128 is fast to read at random places.
        progress: is told the number of blocks done, and of all.

    Raises:
        LoadError: a file can't be loaded, or the table not be made; the database is as it was before.
        MissingError: no such file or schema.
        ConfigError: an argument is not allowed.

    """
    paths = [_path(file) for file in ([files] if isinstance(files, str | os.PathLike) else files)]
    if not paths:
        raise ConfigError("files is empty: give at least one")
    if not 1 <= block <= 65535:
        raise ConfigError(f"block={block} is not allowed: 1 to 65535 pixels a side are")
    found = [rasterfile.describe(path) for path in paths]
    first = found[0]
    if (size := first.block_bytes(block)) > MAX_BLOCK_BYTES:
        raise ConfigError(
            f"block={block} makes blocks of {size // 10**6} MB: at most {MAX_BLOCK_BYTES // 10**6} MB are allowed"
        )
    notes = _notes(found)
    for file in found[1:]:
        _require_same(first, file, "number of bands", first.bands, file.bands)
        _require_same(first, file, "pixel type", first.dtype, file.dtype)
        _require_same(first, file, "nodata", first.nodata, file.nodata)
        if not first.same_lattice(file):
            notes.append(f"{file.path}: its pixels do not lie on the lattice of {first.path}'s: one of them is read by a warp")

    if db.require_postgis() < (3, 7) and first.dtype == "float16":
        raise LoadError(f"{first.path} has float16 pixels, new in PostGIS 3.7: gdal_translate -ot Float32 {first.path} out.tif")
    source = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    with new_table(db, table, replace, source) as new:
        srids = [_srid(new, file, srid, notes) for file in found]
        for file, its in zip(found, srids, strict=True):
            _require_same(first, file, "SRID", srids[0], its)
        new.execute("raster_table")
        new.execute("raster_storage")
        rows, total = 0, sum(file.count(block) for file in found)
        with new.rows("raster_copy") as send:
            for file, name in zip(found, _names(paths), strict=True):
                for wkb in rasterfile.blocks(file, srids[0], block):
                    rows += 1
                    send((rows, wkb.hex(), name))
                    if progress:
                        progress(rows, total)
        notes += _constrain(new)
        new.take_place()
        new.execute("raster_key", next=rows + 1)
        new.execute("raster_index")
        return Loaded(new.text, rows, srids[0], new.analyze(), tuple(notes))


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
    found = vectorfile.describe(_path(file), layer)
    db.require_postgis()
    notes = list(found.notes)
    with new_table(db, table, replace, found.path) as new:
        srid = _srid(new, found, srid, notes)
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


def _path(file: File) -> str:
    """A file's name for GDAL, which takes more than names of local files; of those, one that is there."""
    name = os.fspath(file)
    if name.startswith("/vsi") or ":" in name:  # /vsicurl/…, s3://…, GTIFF_DIR:2:…: only GDAL can tell
        return name
    if not Path(name).exists():
        raise MissingError(f"there is no file {name}")
    if Path(name).is_file() and not Path(name).stat().st_size:
        raise LoadError(f"{name} is empty (0 bytes)")
    return name


def _notes(files: Sequence[RasterFile]) -> list[str]:
    """What is to be said of the files, each thing once."""
    said: dict[str, list[str]] = {}
    for file in files:
        for note in file.notes:
            said.setdefault(note, []).append(file.path)
    return [f"{paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}: {note}" for note, paths in said.items()]


def _names(paths: Sequence[str]) -> list[str]:
    """What the column filename says: names without folders, as long as that tells the files apart."""
    names = [Path(path).name for path in paths]
    return names if len(set(names)) == len(names) else list(paths)


def _require_same(first: RasterFile, other: RasterFile, what: str, of_first: object, of_other: object) -> None:
    """Refuse a second kind of raster in a table."""
    if repr(of_first) != repr(of_other):  # by its text, for NaN equals NaN
        raise LoadError(
            f"{other.path} can't go into one table with {first.path}: its {what} is {of_other}, not {of_first}; "
            "load it into a table of its own, or convert it with gdalwarp or gdal_translate"
        )


def _srid(new: NewTable, file: RasterFile | VectorFile, given: int | None, notes: list[str]) -> int:
    """The SRID that is given, or else the file's, which the database knows."""
    register, code = file.authority or (None, None)
    own = new.execute("srid_known", register=register, code=code, srid=None)
    if given is not None:
        if not new.execute("srid_known", register=None, code=None, srid=given):
            raise ConfigError(f"srid={given} is not in the database's spatial_ref_sys: give one that is, as 32631 or 3857")
        if own and own[0][0] != given:
            notes.append(
                f"{file.path}: says that its SRID is {own[0][0]}; srid={given} was given and used, nothing reprojected"
            )
        return given
    if own:
        return int(own[0][0])
    if file.crs is None:
        raise LoadError(f"{file.path} does not say its coordinate system: say it with srid= (--srid), as 32631 or 3857")
    known = f"{register}:{code}, which is not in the database's spatial_ref_sys" if register else "in no register"
    raise LoadError(
        f"{file.path}: its coordinate system, {file.crs}, is {known}: reproject it to one that is (gdalwarp or ogr2ogr "
        "-t_srs EPSG:…), or say with srid= (--srid) which one it is"
    )


def _constrain(new: NewTable) -> list[str]:
    """Declare what all blocks have in common; a note on each constraint that PostGIS could not make."""
    new.remarks()
    new.execute("raster_constraints", schema=new.schema, name=new.working_name)
    notes: list[str] = []
    for text in new.remarks():  # a NOTICE for what failed, one for why, and one that sums up
        if text.startswith("Unable") and not text.endswith("Skipping"):
            notes.append(f"PostGIS: {text}")
        elif text.startswith("Returned error message: ") and notes:
            notes[-1] += text.removeprefix("Returned error message").replace(new.working_name, new.name)
    return notes


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
