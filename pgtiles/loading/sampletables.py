"""The samples as tables: something real to look at in a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from .. import samples
from ..errors import ConfigError
from ..postgres.database import Database
from .newtable import Loaded
from .osmtables import osm
from .rastertable import raster
from .vectortable import vector

Samples = Literal["spacenet", "helsinki"]

LOOKS = {
    "spacenet": (
        "pgtiles preview --image spacenet_vegas --labels spacenet_vegas_roads --buffer 4",
        "pgtiles preview --image spacenet_atlanta --labels spacenet_atlanta_buildings",
    ),
    "helsinki": (
        'pgtiles preview --labels planet_osm_line --where "highway IS NOT NULL" --buffer 4 '
        "--srid 3857 --resolution 2 --within 2775900,8436500,2777700,8439600",
    ),
}


def sample(
    db: Database, name: Samples, *, replace: bool = False, progress: Callable[[str], None] | None = None
) -> tuple[tuple[Loaded, ...], tuple[str, ...]]:
    """Fetch a sample and load it.

    - ``spacenet``: spacenet_vegas with spacenet_vegas_roads, spacenet_atlanta with spacenet_atlanta_buildings
    - ``helsinki``: planet_osm_point, planet_osm_line, planet_osm_polygon and planet_osm_roads, in SRID 3857

    Where they are from, and what to say where you show them, stands in `pgtiles.samples`.

    Args:
        db: where to.
        name: of the sample.
        replace: drop tables of these names.
        progress: is told what is being done.

    Returns:
        The tables; commands that show them.

    Raises:
        MissingError: it can't be fetched.
        LoadError: a table can't be loaded, and nothing of it is left; those before it stay.
        ConfigError: there is no such sample.

    """
    if name not in get_args(Samples):
        raise ConfigError(f"name={name!r} is no sample: {', '.join(get_args(Samples))} are")
    if name == "helsinki":
        return osm(db, samples.helsinki(), replace=replace, progress=progress), LOOKS[name]
    folder, loaded = samples.spacenet(), []
    for table, image, labels_of, labels in (
        ("spacenet_vegas", "road_mask_input.tif", "roads", "sample_roads_for_masking.geojson"),
        ("spacenet_atlanta", "sample_geotiff.tif", "buildings", "geotiff_labels.geojson"),
    ):
        if progress:
            progress(f"loading {table}")
        loaded.append(raster(db, folder / image, table, replace=replace))
        loaded.append(vector(db, folder / labels, f"{table}_{labels_of}", replace=replace))
    return tuple(loaded), LOOKS[name]
