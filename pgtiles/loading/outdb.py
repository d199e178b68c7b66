"""Rasters whose pixels stay in files: what the server calls a file, and whether it can read it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ..errors import LoadError, MissingError
from ..layers import wkb
from ..postgres.database import Database
from ..template import compose
from . import rasterfile
from .rasterfile import RasterFile

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
    if path.startswith("/vsi") or (":" in path and not Path(path).exists()):
        return path  # a subdataset: only GDAL can tell
    return os.path.abspath(path)  # noqa: PTH100 - links may lead elsewhere there


def require_allowed(db: Database, drivers: Collection[str]) -> None:
    """See that the database reads pixels from files of these formats.

    Raises:
        LoadError: it may not; with the statements that let it.

    """
    _, enabled, allowed, name = db.query(compose("outdb_settings"))[0]
    missing = [] if "ENABLE_ALL" in enabled.split() else sorted(set(drivers) - set(enabled.split()))
    if allowed == "on" and not missing:
        return
    known = [] if enabled == "DISABLE_ALL" else enabled.split()
    settings = ["postgis.enable_outdb_rasters = on"] if allowed != "on" else []
    settings += [f"postgis.gdal_enabled_drivers = '{' '.join([*known, *missing])}'"] if missing else []
    statements = "".join(f"\n  ALTER DATABASE {name} SET {setting};" for setting in settings)
    raise LoadError(
        f"{db.name} may not read {', '.join(drivers)} files: postgis.enable_outdb_rasters is {allowed}, "
        f"postgis.gdal_enabled_drivers is {enabled}. Have a superuser run{statements}\nand connect anew"
    )


def require_seen(db: Database, file: RasterFile, path: str, block: tuple[int, int]) -> None:
    """Have the server read blocks of the file, and compare them with what GDAL reads here.

    Raises:
        LoadError: it finds another file there.
        MissingError: it can't open it, or not read it to its end.

    """
    for window, ours in rasterfile.telling_blocks(file, block):
        reference = rasterfile.reference(file, 0, window, path)
        try:
            theirs = wkb.decode(db.query(compose("outdb_read", raster=reference.hex()))[0][0]).pixels
        except MissingError as error:
            raise MissingError(f"{path}: {error}") from error
        if not _alike(theirs, ours):
            raise LoadError(
                f"the server finds another file at {path} than {file.path} here: their pixels differ. Name the folder in which "
                "the server sees the file: out_db='/folder' (--seen-in /folder)"
            )


def _alike(theirs: NDArray[np.generic], ours: NDArray[np.generic]) -> bool:
    """Whether nine pixels of ten are the same: decoders of lossy formats differ by some counts."""
    slack = 6 if theirs.dtype.kind in "iu" else 0
    return bool(np.isclose(theirs, ours, rtol=1e-6, atol=slack, equal_nan=True).mean() > 0.9)
