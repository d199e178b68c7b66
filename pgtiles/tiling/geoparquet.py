"""Tiles as a GeoParquet file (1.1): a polygon a tile, which any GIS opens, and in its metadata what makes it tiles again."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, DependencyError, LoadError, MissingError
from .keeping import Json, Kept, as_it_was, is_ours, noted_in

if TYPE_CHECKING:
    import pyarrow

NOTE = b"pgtiles"  # the key in the file's metadata, beside GeoParquet's own, geo


def write(path: Path, tiles: Kept, replace: bool) -> None:
    """Write the file; whoever reads it meanwhile, reads the old one."""
    pa, parquet, pyproj = _libraries()
    if path.exists() and not replace:
        raise LoadError(f"{path} is there already: replace=True writes over it")
    if path.exists() and not _ours(path):
        raise LoadError(f"{path} holds no tiles that save wrote, and stays as it is, replace or not: name another")
    arrays, geo = dict[str, Any](), dict[str, Json]()
    for name, array in tiles.columns.items():
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            raise ConfigError(f"column {name!r} is {array.dtype}, for which GeoParquet has no type: float64 has one")
        arrays[name] = pa.array(array)
    for name, (srid, boxes) in tiles.envelopes.items():
        there = boxes != None  # noqa: E711  # each, not the array
        arrays[name] = pa.array(shapely.to_wkb(boxes).tolist(), pa.binary())
        geo[name] = {
            "encoding": "WKB", "geometry_types": ["Polygon"], "orientation": "counterclockwise",
            "crs": pyproj.CRS.from_epsg(srid).to_json_dict(),
        }  # fmt: skip
        if there.any():
            geo[name]["bbox"] = shapely.total_bounds(boxes[there]).tolist()
    about = {"version": "1.1.0", "primary_column": next(iter(geo)), "columns": geo}
    table = pa.table(arrays).replace_schema_metadata({b"geo": json.dumps(about), NOTE: json.dumps(tiles.noted)})
    working = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        parquet.write_table(table, working)
        os.replace(working, path)  # noqa: PTH105  # at once
    except OSError as error:
        raise LoadError(f"{path} can't be written: {error}") from error
    finally:
        working.unlink(missing_ok=True)


def read(path: Path) -> tuple[Json, dict[str, NDArray[Any]]]:
    """What was noted, and the columns."""
    pa, parquet, _ = _libraries()
    if not path.exists():
        raise MissingError(f"there is no file {path}")
    try:
        metadata = parquet.read_schema(path).metadata or {}
        noted = noted_in(metadata.get(NOTE), str(path))
        geometries = json.loads(metadata.get(b"geo", b"{}")).get("columns", {})
        table: pyarrow.Table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet: {error}") from error
    names = [name for name in table.column_names if name not in geometries]
    found = {name: _array(name, table.column(name)) for name in names}
    return noted, {name: as_it_was(noted, name, array) for name, array in found.items()}


def _ours(path: Path) -> bool:
    pa, parquet, _ = _libraries()
    try:
        return is_ours((parquet.read_schema(path).metadata or {}).get(NOTE))
    except (pa.ArrowException, OSError):
        return False


def _array(name: str, column: Any) -> NDArray[Any]:
    kind = str(column.type)
    if column.null_count and not kind.startswith(("timestamp", "date", "float", "double", "halffloat")):
        raise DataError(f"column {name!r}: {column.null_count} of {len(column)} values are missing, and a tile needs one")
    if kind.startswith("timestamp"):
        return np.asarray(column.cast("timestamp[us]").to_numpy(), "datetime64[us]")
    if kind.endswith("string"):
        return np.array(column.to_pylist(), str)
    return np.asarray(column.to_numpy())


def _libraries() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
        import pyproj
    except ImportError as error:
        raise DependencyError(
            f"to keep tiles in files needs pyarrow and pyproj ({error}): pip install 'pgtiles[parquet]'"
        ) from error
    return pyarrow, pyarrow.parquet, pyproj
