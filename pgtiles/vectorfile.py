"""A vector file as GDAL reads it: its fields as columns of a table, its features as rows. No database.

By way of pyogrio, which gives lines for curves and has no place for M (it says so, and the warning becomes a note).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ConfigError, DependencyError, LoadError, MissingError

CHUNK = 50_000  # features to hold at a time
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
    """A date and time, whose column's type is known when all its values are."""


@dataclass
class VectorFile:
    """One layer of a file."""

    path: str
    layer: str
    features: int
    fields: tuple[Field, ...]
    crs: str | None
    """``EPSG:32631``, WKT where it is in no register, None where the file has none."""
    driver: str
    notes: list[str]
    offsets: dict[str, set[bool]] = field(default_factory=dict)
    """Of each column of moments, whether its values (so far) say their offset to UTC."""

    @property
    def authority(self) -> tuple[str, str] | None:
        """Of the CRS, as ``("EPSG", "32631")``; None where it is in no register."""


def describe(path: str, layer: str | None) -> VectorFile:
    """What the file holds.

    Raises:
        LoadError: GDAL can't read it, or its names can't be told apart in a table.
        MissingError: there is no such layer.
        ConfigError: it has several layers and none was named.

    """
