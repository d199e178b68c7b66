"""Raster files into a table, with the storage, index and constraints that make reading fast."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from psycopg import sql

from ..errors import ConfigError, LoadError
from ..layers import legend
from ..layers.legend import Colours, Legend, Recoding
from ..postgres import catalog
from ..postgres.database import Database
from . import rasterfile
from .newtable import File, Loaded, NewTable, Progress, new_table, path_of, srid_of
from .outdb import require_allowed, require_seen, server_path
from .rasterfile import RasterFile

MAX_BLOCK_BYTES = 500_000_000  # a value has at most 1 GB, and a raster travels as hexadecimal text


def raster(
    db: Database,
    files: File | Sequence[File],
    table: str,
    *,
    srid: int | None = None,
    replace: bool = False,
    block: int | None = None,
    out_db: bool | str = False,
    colours: Colours | None = None,
    progress: Progress | None = None,
) -> Loaded:
    """Load GeoTIFFs, or whatever GDAL reads, into one table: rid, rast, filename.

    Pixels, nodata and lattice are as they are in the files. A row is a block of pixels. Rows are in
    the order of the files, and within a file from its first row of pixels on.

    With ``out_db`` the pixels stay in the files, which the server reads whenever they are asked for: it must find them under
    the same path, now and later, as the account that it runs as. Before anything is made it is asked to read three blocks of
    each file, which are compared with what GDAL reads here.

    Args:
        db: where to.
        files: one or several, of one CRS, pixel type, number of bands and nodata value.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        srid: of the files, where their CRS is missing or has no code; nothing is reprojected.
        replace: drop a table of that name; who may read it may read the new one.
        block: pixels a side; those at the right and lower edge are smaller. 128 unless given, which is fast to read at
            random places; with ``out_db`` the file's own tiles, or 256 where it is in strips or its tiles are above 1024.
        out_db: leave the pixels in the files. A folder's name says where the server sees them, if that is elsewhere:
            ``"/data"`` for a container's. A URL (``https://…``, ``s3://…``) or a ``/vsi…`` name is one that GDAL opens there.
        colours: of a colour-coded mask (red, green and blue, or a colour table), a class's name for each:
            ``{"road": "#ff0000", "building": "#0000ff"}``. Pixels become the classes' numbers, 1, 2, 3 … in the mapping's order
            (``{"water": (9, "#0000ff")}`` says another), in one band. A colour of the file that is not here is an error.
        progress: is told the number of blocks done, and of all.

    Raises:
        LoadError: a file can't be loaded, or the table not be made; the database is as it was before.
        MissingError: no such file or schema.
        ConfigError: an argument is not allowed.

    """
    paths = [path_of(file) for file in ([files] if isinstance(files, str | os.PathLike) else files)]
    if not paths:
        raise ConfigError("files is empty: give at least one")
    if block is not None and not 1 <= block <= 65535:
        raise ConfigError(f"block={block} is not allowed: 1 to 65535 pixels a side are")
    classes = legend.legend(colours) if colours is not None else None
    if classes and out_db:
        raise ConfigError("colours= makes other pixels, and out_db (--out-db) leaves those of the file: leave one of them out")
    found = [rasterfile.describe(path) for path in paths]
    first, notes = found[0], notes_on(found) + _notes_on_places(found, classes)
    parts = [_part(file, name, block, out_db, classes) for file, name in zip(found, _names(paths), strict=True)]
    if not out_db and (size := first.block_bytes(parts[0].block[0])) > MAX_BLOCK_BYTES:
        raise ConfigError(
            f"block={block} makes blocks of {size // 10**6} MB: at most {MAX_BLOCK_BYTES // 10**6} MB are allowed"
        )
    for file in found[1:]:
        require_same(first, file, "number of bands", first.bands, file.bands)
        require_same(first, file, "pixel type", first.dtype, file.dtype)
        require_same(first, file, "nodata", first.nodata, file.nodata)
        if not first.same_lattice(file):
            notes.append(f"{file.path}: its pixels do not lie on the lattice of {first.path}'s: one of them is read by a warp")
    require_holds(db, first)
    if out_db:
        notes += _require_seen(db, parts)

    source = paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    with new_table(db, table, replace, source) as new:
        _require_no_overviews(db, new, source)
        srids = [srid_of(new, file, srid, notes) for file in found]
        for file, its in zip(found, srids, strict=True):
            require_same(first, file, "SRID", srids[0], its)
        new.execute("raster_table")
        new.execute("raster_storage")
        rows, total = 0, sum(part.file.count(part.block) for part in parts)
        with new.rows("raster_copy") as send:
            for part in parts:
                for wkb in part.rasters(srids[0]):
                    rows += 1
                    send((rows, wkb.hex(), part.name))
                    if progress:
                        progress(rows, total)
        notes += constrain(new)
        if classes:
            new.execute("class_names", column=sql.Identifier("rast"), comment=legend.comment(classes.names))
        new.take_place()
        new.execute("raster_key", next=rows + 1)
        new.execute("raster_index")
        return Loaded(new.text, rows, srids[0], new.analyze(), tuple(notes))


@dataclass(frozen=True)
class _Part:
    """A file and how it goes into the table."""

    file: RasterFile
    name: str
    block: tuple[int, int]  # columns and rows
    seen_as: str | None  # by the server, where the pixels stay in the file
    recode: Recoding | None  # where its colours are to become numbers

    def rasters(self, srid: int) -> Iterator[bytes]:
        if self.seen_as is not None:
            yield from rasterfile.references(self.file, srid, self.block, self.seen_as)
            return
        yield from rasterfile.blocks(self.file, srid, self.block[0], self.recode)
        if self.recode:
            self.recode.finish()  # at the file's end, for the error counts all of its pixels


def _require_no_overviews(db: Database, new: NewTable, source: str) -> None:
    """Raise `LoadError` where a table that is to be replaced has overviews, which would go on to show its old imagery."""
    if found := catalog.overviews(db.query, new.schema, new.name):
        names = ", ".join(sql.Identifier(schema, name).as_string() for schema, name, *_ in found)
        raise LoadError(
            f"{source} was not loaded: {new.schema}.{new.name} has overviews, which would show its old imagery. Drop them "
            f"first, and make them anew after it: DROP TABLE {names}"
        )


def _require_seen(db: Database, parts: Sequence[_Part]) -> list[str]:
    """See that the server reads the files that we mean; notes on those that are slow or inexact to read there."""
    require_allowed(db, {part.file.driver for part in parts})
    notes, known = list[str](), dict[str, str]()
    for part in parts:
        if (other := known.setdefault(str(part.seen_as), part.file.path)) != part.file.path:
            raise LoadError(
                f"{other} and {part.file.path} are both {part.seen_as} to the server: load them by folder, into two tables"
            )
    for part in parts:
        path, file = str(part.seen_as), part.file
        require_seen(db, file, path, part.block)
        if file.striped:
            notes.append(f"{file.path}: is kept in strips, slow to read: gdal_translate -of COG makes tiles")
        if file.lossy:
            notes.append(f"{file.path}: is compressed with loss, and what the server's GDAL decodes may differ by some counts")
    return notes


def _part(file: RasterFile, name: str, block: int | None, out_db: bool | str, classes: Legend | None) -> _Part:
    if not out_db:
        return _Part(file, name, (block or 128,) * 2, None, _recoding(file, classes) if classes else None)
    own = (256, 256) if file.striped or max(file.block) > 1024 else file.block
    return _Part(file, name, (block, block) if block else own, server_path(file.path, out_db), None)


def _recoding(file: RasterFile, classes: Legend) -> Recoding:
    if file.dtype != "uint8" or (file.bands != 3 and file.palette is None):
        have = f"{file.bands} band{'s' * (file.bands > 1)} of {file.dtype}"
        advice = (
            "its pixels are numbers already, load it without colours="
            if file.bands == 1
            else f"gdal_translate -b 1 -b 2 -b 3 -ot Byte {file.path} out.tif takes the first three"
        )
        raise LoadError(f"{file.path} has {have}; colours= expects red, green and blue as uint8, or a colour table: {advice}")
    return Recoding(file.path, classes, file.palette, file.lossy)


def notes_on(files: Sequence[RasterFile]) -> list[str]:
    """What is to be said of the files, each thing once."""
    return _said_once((file.path, note) for file in files for note in file.notes)


def _notes_on_places(files: Sequence[RasterFile], classes: Legend | None) -> list[str]:
    """What of their pixels' places and meanings the table does not keep."""
    south_up = "it stands south-up, so it is read by way of a warp: gdalwarp makes it north-up"
    palette = (
        "its colour table is not loaded: pixels are the numbers of its entries; colours= (--colours) makes classes of them"
    )
    said = [(file.path, south_up) for file in files if file.south_up]
    return _said_once(said + [(file.path, palette) for file in files if file.palette and not classes])


def _said_once(notes: Iterable[tuple[str, str]]) -> list[str]:
    said: dict[str, list[str]] = {}
    for path, note in notes:
        said.setdefault(note, []).append(path)
    return [f"{paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}: {note}" for note, paths in said.items()]


def _names(paths: Sequence[str]) -> list[str]:
    """What the column filename says: names without folders, as long as that tells the files apart; no secrets of URLs."""
    bare = [_without_secrets(path) if "://" in path else path for path in paths]
    names = [Path(path).name for path in bare]
    return names if len(set(names)) == len(names) else bare


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(query="", fragment="", netloc=parts.hostname or "").geturl()


def require_holds(db: Database, file: RasterFile) -> None:
    """See that the database can hold pixels of the file's type."""
    if db.require_postgis() < (3, 7) and file.dtype == "float16":
        raise LoadError(f"{file.path} has float16 pixels, new in PostGIS 3.7: gdal_translate -ot Float32 {file.path} out.tif")


def require_same(first: RasterFile, other: RasterFile, what: str, of_first: object, of_other: object) -> None:
    """Refuse a second kind of raster in a table."""
    if repr(of_first) != repr(of_other):  # by its text, for NaN equals NaN
        raise LoadError(
            f"{other.path} can't go into one table with {first.path}: its {what} is {of_other}, not {of_first}; "
            "load it into a table of its own, or convert it with gdalwarp or gdal_translate"
        )


def constrain(new: NewTable) -> list[str]:
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
