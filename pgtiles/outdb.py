"""Rasters whose pixels stay in files: what the server calls a file, and whether it can read it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
from psycopg import sql

from . import rasterfile, wkb
from .database import Database
from .errors import LoadError
from .rasterfile import RasterFile
from .template import compose

# GDAL's names for what rasterio, too, takes as URLs.
SCHEMES = {
    "https://": "/vsicurl/https://", "http://": "/vsicurl/http://", "s3://": "/vsis3/", "gs://": "/vsigs/", "az://": "/vsiaz/",
}  # fmt: skip


def server_path(path: str, folder: str | bool) -> str:
    """The file as the server opens it: in the folder, if one is named; a URL as GDAL writes it; else its absolute path."""
    if isinstance(folder, str):
        return str(PurePosixPath(folder) / Path(path).name)
    for scheme, name in SCHEMES.items():
        if path.startswith(scheme):
            return name + path.removeprefix(scheme)
    return path if path.startswith("/vsi") or ":" in path else os.path.abspath(path)  # noqa: PTH100 - links may lead elsewhere there


def require_seen(db: Database, file: RasterFile, path: str, block: tuple[int, int]) -> None:
    """Have the server read the file's first block, and compare it with what GDAL reads here.

    Raises:
        LoadError: the server may not read such files, or finds another one there.
        MissingError: it can't open it.

    """
    _, drivers, allowed = db.query(compose("outdb_settings"))[0]
    name = sql.Identifier(db.query(sql.SQL("SELECT current_database()"))[0][0]).as_string()
    if allowed != "on":
        raise LoadError(
            f"{db.name} reads no pixels from files: postgis.enable_outdb_rasters is {allowed}. Have a superuser run\n"
            f"  ALTER DATABASE {name} SET postgis.enable_outdb_rasters = on;\nand connect anew"
        )
    if not {file.driver, "ENABLE_ALL"} & set(drivers.split()):
        known = "" if drivers == "DISABLE_ALL" else f"{drivers} "
        raise LoadError(
            f"{db.name} may not open {file.driver} files: postgis.gdal_enabled_drivers is {drivers}. Have a superuser run\n"
            f"  ALTER DATABASE {name} SET postgis.gdal_enabled_drivers = '{known}{file.driver}';\nand connect anew"
        )
    first = next(rasterfile.references(file, 0, block, path))
    theirs = wkb.decode(db.query(compose("outdb_read", raster=first.hex()))[0][0]).pixels
    ours = np.nan_to_num(rasterfile.first_pixels(file, block).astype(np.float64))
    off = np.abs(np.nan_to_num(theirs.astype(np.float64)) - ours).mean()
    # decoders of lossy formats differ by a count here and there, other files by as much as pixels differ from one another
    if off > 0.1 * ours.std() + (2 if theirs.dtype.kind in "iu" else 0):
        raise LoadError(
            f"the server finds another file at {path} than {file.path} here: their first pixels differ. Name the folder in "
            "which the server sees the file: out_db='/folder' (--seen-in /folder)"
        )
