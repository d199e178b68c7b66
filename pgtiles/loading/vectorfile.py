"""A vector file as GDAL reads it: its fields as columns of a table, its features as rows. No database.

By way of pyogrio, which gives lines for curves and has no place for M (it says so, and the warning becomes a note).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, DependencyError, LoadError, MissingError

CHUNK = 50_000  # features to hold at a time
# Formats that are opened in no time. Others (GeoJSON above all) are parsed anew for every chunk, so theirs is larger.
INDEXED = ("GPKG", "ESRI Shapefile", "FlatGeobuf", "OpenFileGDB", "SQLite")
OURS = ("fid", "geom")
# A table has these already, if out of sight: a column of that name is refused by PostgreSQL.
SYSTEM = ("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid")
MAX_NAME = 63  # bytes; PostgreSQL cuts a longer name off
EXACT = 2**53  # from here on a float64 misses whole numbers

# By the type that pyogrio gives a field; those that it gives as objects are told apart by GDAL's type and subtype.
_TYPES = {
    "bool": "boolean",
    "int16": "smallint",
    "int32": "integer",
    "int64": "bigint",
    "float32": "real",
    "float64": "double precision",
    "OFTDate": "date",
    "OFTTime": "time",
    "OFTDateTime": "text",  # until all values have been seen: with an offset, without, or both
    "OFTBinary": "bytea",
    "OFTIntegerList": "integer[]",
    "OFTInteger64List": "bigint[]",
    "OFTRealList": "double precision[]",
    "OFTStringList": "text[]",
    "OFSTJSON": "json",
}


@dataclass(frozen=True)
class Field:
    """A field of the file and the column that it becomes."""

    name: str
    column: str
    type: str
    """In SQL."""
    moment: bool
    """A date and time of day, as text: what type that is will be known when all of its values are."""


@dataclass(frozen=True)
class VectorFile:
    """One layer of a file."""

    path: str
    layer: str
    features: int
    chunk: int
    """Features to hold at a time."""
    fields: tuple[Field, ...]
    crs: str | None
    """For people: its code or WKT; None where the file has none."""
    authority: tuple[str, str] | None
    """Of the CRS, as ``("EPSG", "32631")``; None where it is in no register."""
    notes: tuple[str, ...]


def describe(path: str, layer: str | None) -> VectorFile:
    """What the file holds.

    Raises:
        LoadError: GDAL can't read it, or its names can't be told apart in a table.
        MissingError: there is no such layer.
        ConfigError: it has several layers and none was named.

    """
    pyogrio = _pyogrio()
    with _reading(path):
        layers = pyogrio.list_layers(path)
    layer = _layer(path, layer, layers)
    with _reading(path) as remarks:
        info = pyogrio.read_info(path, layer=layer, force_feature_count=True)
    columns, notes = _columns(path, list(info["fields"]))
    types = [
        _TYPES.get(subtype) or _TYPES.get(ogr_type) or _TYPES.get(dtype, "text")
        for dtype, ogr_type, subtype in zip(info["dtypes"], info["ogr_types"], info["ogr_subtypes"], strict=True)
    ]
    moments = [ogr_type == "OFTDateTime" for ogr_type in info["ogr_types"]]
    fields = tuple(map(Field, info["fields"], columns, types, moments))
    crs = info["crs"]
    if info["driver"] == "GeoJSON" and crs == "EPSG:4979":
        crs = "EPSG:4326"  # GDAL's name for it where there are heights; in PostGIS GeoJSON is 4326 in any case
    code = re.fullmatch(r"(\w+):(\w+)", crs or "")
    authority = ("EPSG", "4326") if crs == "OGC:CRS84" else code and (code[1], code[2])
    chunk = CHUNK if info["driver"] in INDEXED else 10 * CHUNK
    return VectorFile(path, layer, info["features"], chunk, fields, crs, authority or None, (*notes, *remarks))


def _layer(path: str, wanted: str | None, layers: Sequence[Sequence[Any]]) -> str:
    """The layer wanted, or the only one with geometries."""
    names = [str(name) for name, geometry in layers if geometry is not None]
    listed = ", ".join(map(repr, names)) or "none"
    if wanted is not None:
        if wanted in names:
            return wanted
        raise MissingError(f"{path} has no layer {wanted!r} with geometries: it has {listed}")
    if not names:
        raise LoadError(f"{path} has no layer with geometries")
    if len(names) > 1:
        raise ConfigError(f"{path} has several layers: say with layer= which of {listed} to load")
    return names[0]


def _columns(path: str, fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """A column's name for each field, and a note on each that had to be another one."""
    columns: list[str] = []
    notes = []
    for number, name in enumerate(fields, 1):
        column = name.lower().encode()[:MAX_NAME].decode(errors="ignore") or f"field_{number}"
        if column in OURS + SYSTEM:
            column += "_1"
        if column != name.lower():
            notes.append(f"field {name!r} became column {column!r}")
        if column in columns:
            other = fields[columns.index(column)]
            raise LoadError(
                f"{path} has fields {other!r} and {name!r}, which would both be column {column!r}: rename one of them, "
                "for instance ogr2ogr -sql 'SELECT \"a\" AS b, … FROM layer' out.gpkg " + path
            )
        columns.append(column)
    return columns, notes


def rows(file: VectorFile, remark: Callable[[str], None]) -> Iterator[tuple[Any, ...]]:
    """The features, as the file has them: the geometry's WKB in hexadecimal, then a value for each field.

    remark: is told what GDAL remarks on the way.

    Raises:
        LoadError: the file can't be read to its end.

    """
    pyogrio = _pyogrio()
    for skip in range(0, file.features, file.chunk):
        with _reading(file.path) as remarks:
            _, fids, geometries, arrays = pyogrio.raw.read(
                file.path, layer=file.layer, skip_features=skip, max_features=file.chunk,
                return_fids=True, datetime_as_string=True,
            )  # fmt: skip
            columns = [_values(file, field, array, fids) for field, array in zip(file.fields, arrays, strict=True)]
        for text in remarks:
            remark(text)
        yield from zip((wkb and wkb.hex() for wkb in geometries), *columns, strict=True)


def _values(file: VectorFile, field: Field, array: Any, fids: Any) -> list[Any]:
    """A field's values as Python's own; None for NULL, which pyogrio gives as NaN where it can."""
    if array.dtype.kind == "O":
        return [value.tolist() if isinstance(value, np.ndarray) else value for value in array]
    if array.dtype.kind != "f":
        return list(array.tolist())
    known = ~np.isnan(array)
    values: list[Any] = [None] * len(array)
    if field.type in ("real", "double precision"):
        present = array[known].tolist()
    elif (np.abs(array[known]) < EXACT).all():
        present = array[known].astype("int64" if field.type != "boolean" else "bool").tolist()
    else:  # whole numbers came as floats, as some are NULL: read again without those, the large ones come whole
        _, _, _, (whole,) = _pyogrio().raw.read(
            file.path, layer=file.layer, columns=[field.name], fids=fids[known], read_geometry=False
        )
        present = whole.tolist()
    for index, value in zip(np.flatnonzero(known), present, strict=True):
        values[index] = value
    return values


@contextmanager
def _reading(path: str) -> Iterator[list[str]]:
    """Errors of the reader become ours, and its warnings text."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield remarks
        except UnicodeDecodeError as error:
            hint = f"SHAPE_ENCODING=… names another, or ogr2ogr -oo ENCODING=… out.gpkg {path}"
            raise LoadError(f"{path} has text that is not in the encoding that it states ({error}): {hint}") from error
        except (RuntimeError, ValueError) as error:  # pyogrio's own errors are RuntimeErrors
            raise LoadError(f"{path} can't be read as vectors: {error}") from error
    remarks += dict.fromkeys(str(warning.message) for warning in caught)


def _pyogrio() -> Any:
    try:
        import pyogrio
        import pyogrio.raw
    except ImportError as error:
        raise DependencyError(f"to load vectors needs pyogrio ({error}): pip install 'pgtiles[load]'") from error
    return pyogrio
