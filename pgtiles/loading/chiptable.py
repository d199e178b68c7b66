"""Chips in folders, one folder a class, into a table: side by side on a sheet of their own, each with its class.

Benchmarks come so (EuroSAT, UC Merced, …), and few of their chips say where on the earth they are. On the sheet each is a tile
on its own pixels, so that they are read like any imagery; a chip that does say where it is keeps that as its footprint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapely
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, LoadError, MissingError
from ..layers import legend, wkb
from ..postgres.database import Database
from . import rasterfile
from .newtable import File, Loaded, Progress, new_table
from .rasterfile import RasterFile
from .rastertable import MAX_BLOCK_BYTES, constrain, notes_on, require_holds, require_same

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".webp", ".img", ".pgm", ".ppm")
SRID = 3857  # of the sheet: one metre a pixel, from the corner (0, 0) to the east and to the south


@dataclass(frozen=True)
class Chips(Loaded):
    """What a load of chips made."""

    size: tuple[int, int]
    """Height and width of a chip in pixels."""
    classes: dict[int, str]
    """Names of the values."""
    counts: dict[int, int]
    """How many chips have that value."""

    @property
    def example(self) -> str:
        """Lines of Python that read them."""
        query = f"SELECT c.value FROM {self.table} AS c, tile WHERE ST_ConvexHull(c.rast) && ST_Centroid(tile.geom)"
        return (
            f"tiles = Tiles.stored(db, {self.table!r})\n"
            f'layers = {{"image": Imagery({self.table!r}), "label": Value({query!r}, dtype="int64")}}'
        )


@dataclass(frozen=True)
class _Chip:
    file: RasterFile
    pixels: NDArray[Any]
    footprint: str | None
    """Where it is on the earth: a polygon in SRID 4326, as EWKB in hexadecimal."""


def chips(
    db: Database,
    folder: File,
    table: str,
    *,
    values: Mapping[str, int] | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Chips:
    """Load image files that lie in a folder for each class, into one table: rid, file, class, value, rast, footprint.

    A row is a chip, whole. Chips lie side by side on a sheet of their own, in SRID 3857 with 1 m a pixel, from (0, 0) to the
    east and to the south, as many in a row as make it about square; classes by name, and within a class files by name. So
    ``Tiles.stored(db, table)`` has a tile for each, on its own pixels. Where a file is georeferenced, ``footprint`` says
    where it truly is, as a polygon in SRID 4326; else it is NULL.

    Args:
        db: where to.
        folder: with a folder for each class in it, and in these the images: GeoTIFF, PNG, JPEG or another that GDAL reads, all
            of one size, number of bands, pixel type and nodata value.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        values: the number of each class. Unless given, 0, 1, 2 … by the sorted names, as torchvision's ImageFolder counts.
        replace: drop a table of that name; who may read it may read the new one.
        progress: is told the number of chips done, and of all.

    Raises:
        LoadError: a file can't be loaded, or the table not be made; the database is as it was before.
        MissingError: no such folder or schema.
        ConfigError: an argument is not allowed.

    """
    files, notes = _listed(Path(folder))
    numbers = _numbered(list(files), values)
    places = [(name, path) for name, paths in files.items() for path in paths]
    across = math.ceil(math.sqrt(len(places)))
    db.require_postgis()
    with new_table(db, table, replace, str(folder)) as new:
        new.execute("chip_table")
        new.execute("raster_storage")
        first, noted = None, list[RasterFile]()
        with new.rows("chip_copy") as send:
            for place, (name, path) in enumerate(places):
                chip = _read(path)
                first = first or chip.file
                _require_one_kind(db, first, chip.file)
                noted += [chip.file] if chip.file.notes else []
                down, right = divmod(place, across)
                corner = (float(right * chip.file.width), float(-down * chip.file.height))
                raster = wkb.encode(chip.pixels, upper_left=corner, scale=(1.0, -1.0), srid=SRID, nodata=chip.file.nodata)
                where = path.relative_to(folder).as_posix()
                send((place + 1, where, name, numbers[name], raster.hex(), chip.footprint))
                if progress:
                    progress(place + 1, len(places))
        notes += notes_on(noted) + constrain(new)
        classes = {value: name for name, value in sorted(numbers.items(), key=lambda item: item[1])}
        new.execute("class_names", column=sql.Identifier("value"), comment=legend.comment(classes))
        new.take_place()
        new.execute("raster_key", next=len(places) + 1)
        new.execute("raster_index")
        new.execute("chip_index")
        counts = Counter(numbers[name] for name, _ in places)
        size = (chip.file.height, chip.file.width)
        return Chips(new.text, len(places), SRID, new.analyze(), tuple(notes), size, classes, {v: counts[v] for v in classes})


def _listed(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The images of each class, both sorted by name; a note on what else lies there."""
    if not folder.is_dir():
        raise MissingError(f"there is no folder {folder}")
    classes: dict[str, list[Path]] = {}
    others = []
    for entry in _sorted(folder):
        if not entry.is_dir() or entry.name.startswith("."):
            others.append(entry)
            continue
        found = classes[entry.name] = list[Path]()
        for file in _sorted(entry):
            hidden = file.name.startswith(".")
            if file.is_dir() and not hidden:
                raise LoadError(
                    f"{file} is a folder within that of the class {entry.name!r}: expected images there. Is {entry} the folder "
                    "that holds the classes?"
                )
            (found if file.suffix.lower() in IMAGES and not hidden else others).append(file)
        if not found:
            raise LoadError(f"{entry} holds no image (files named {', '.join(IMAGES)} are): a class has at least one")
    if not classes:
        raise LoadError(f"{folder} holds no folders: expected one for each class, with its images inside")
    notes = []
    if others:
        names = ", ".join(other.relative_to(folder).as_posix() for other in others[:3])
        notes.append(f"{len(others)} left out, for it is no image in a class's folder: {names}{', …' if others[3:] else ''}")
    if len(classes) == 1:
        notes.append(f"there is one class only, {next(iter(classes))!r}: a classifier has nothing to tell apart")
    return classes, notes


def _sorted(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        try:
            path.name.encode()
        except UnicodeEncodeError:
            raise LoadError(f"{folder} holds a name that is no UTF-8, {path.name!r}: rename it") from None
        yield path


def _numbered(names: Sequence[str], values: Mapping[str, int] | None) -> dict[str, int]:
    """The number of each class."""
    if values is None:
        return {name: number for number, name in enumerate(names)}
    if wrong := sorted(set(names) ^ set(values)):
        what = "has no folder" if wrong[0] in values else "is a folder without a value"
        raise ConfigError(f"values: {wrong[0]!r} {what}: expected a number for each of {', '.join(map(repr, names))}")
    for name, value in values.items():
        if type(value) is not int or not -(2**31) <= value < 2**31:
            raise ConfigError(f"values: {name!r} has {value!r}: expected a whole number of 32 bits")
    if len(set(values.values())) < len(values):
        raise ConfigError(
            f"values={dict(values)!r}: expected another number for each class; the query may put several into one"
        )
    return {name: values[name] for name in names}


def _read(path: Path) -> _Chip:
    with rasterfile.opened(str(path)) as source:
        file = rasterfile.described(str(path), source, placed=False)
        return _Chip(file, source.read(), _footprint(source))


def _footprint(source: Any) -> str | None:
    if source.transform.is_identity or not source.crs:
        return None
    from rasterio.warp import transform

    corners = [source.transform @ corner for corner in ((0, 0), (0, source.height), source.shape[::-1], (source.width, 0))]
    longitudes, latitudes = transform(source.crs, "EPSG:4326", *zip(*corners, strict=True))
    polygon = shapely.set_srid(shapely.Polygon(list(zip(longitudes, latitudes, strict=True))), 4326)
    return str(shapely.to_wkb(polygon, hex=True, include_srid=True))


def _require_one_kind(db: Database, first: RasterFile, other: RasterFile) -> None:
    if first is other:
        require_holds(db, first)
        if (size := first.block_bytes(max(first.width, first.height))) > MAX_BLOCK_BYTES:
            raise LoadError(
                f"{first.path} is no chip: it has {size // 10**6} MB, at most {MAX_BLOCK_BYTES // 10**6} are allowed"
            )
    if other.palette:
        raise LoadError(f"{other.path} has a colour table of its own: gdal_translate -expand rgb {other.path} out.tif")
    require_same(first, other, "size", f"{first.width} × {first.height} px", f"{other.width} × {other.height} px")
    require_same(first, other, "number of bands", first.bands, other.bands)
    require_same(first, other, "pixel type", first.dtype, other.dtype)
    require_same(first, other, "nodata", first.nodata, other.nodata)
