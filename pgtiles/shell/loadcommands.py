"""Commands that load files into tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import load as loading
from ..errors import ConfigError
from ..layers.legend import colours_of
from .terminal import (
    Replace,
    Srid,
    database,
    out,
    progress_bar,
    say_loaded,
    telling,
)
from .view import Url

commands = typer.Typer()
load_app = typer.Typer(no_args_is_help=True, help="Load files into tables, all of it or nothing.")
commands.add_typer(load_app, name="load")


@load_app.command("raster")
def load_raster(
    files: Annotated[list[str], typer.Argument(help="GeoTIFFs, or whatever else GDAL reads; URLs, too.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    srid: Srid = None, replace: Replace = False,
    out_db: Annotated[bool, typer.Option("--out-db", help="Leave the pixels in the files; the server reads them.")] = False,
    seen_in: Annotated[str | None, typer.Option(help="With --out-db: the folder in which the server sees the files.")] = None,
    colours: Annotated[
        str | None, typer.Option(help="Of a mask, a class for each colour: road=#ff0000,water=9:#0000ff")
    ] = None,
    url: Url = None,
) -> None:  # fmt: skip
    """Load rasters into a table, in blocks, with index and constraints as reading wants them."""
    if seen_in is not None and not (out_db and seen_in):
        raise ConfigError("--seen-in goes with --out-db, and names a folder")
    where = seen_in or out_db
    classes = None if colours is None else colours_of(colours)
    db = database(url)
    with progress_bar("blocks") as progress:
        loaded = loading.raster(db, files, table, srid=srid, replace=replace, out_db=where, colours=classes, progress=progress)
    say_loaded(loaded)


@load_app.command("chips")
def load_chips(
    folder: Annotated[Path, typer.Argument(help="With a folder of images for each class.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load chips that lie in a folder for each class, each as one row with its class."""
    db = database(url)
    with progress_bar("chips") as progress:
        loaded = loading.chips(db, folder, table, replace=replace, progress=progress)
    say_loaded(loaded)
    listed = Table("class", "value", "chips")
    for value, name in loaded.classes.items():
        listed.add_row(escape(name), str(value), str(loaded.counts[value]))
    out.print(listed)
    out.print(f"in Python, with the class as a target:\n{loaded.example}", markup=False)


@load_app.command("vector")
def load_vector(
    file: Annotated[Path, typer.Argument(help="GeoJSON, GeoPackage, Shapefile, or whatever else GDAL reads.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    layer: Annotated[str | None, typer.Option(help="Which layer, where a file has several.")] = None,
    srid: Srid = None, replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load features into a table, with an index; invalid geometries are reported."""
    db = database(url)
    with progress_bar("features") as progress:
        loaded = loading.vector(db, file, table, layer=layer, srid=srid, replace=replace, progress=progress)
    say_loaded(loaded)


@load_app.command("osm")
def load_osm(
    file: Annotated[Path, typer.Argument(help="OpenStreetMap, as .osm.pbf.")],
    prefix: Annotated[str, typer.Option(help="Of the tables' names: PREFIX_point, _line, _polygon, _roads.")] = "planet_osm",
    schema: Annotated[str | None, typer.Option(help="Of the tables; the first of the search_path unless given.")] = None,
    srid: Annotated[int, typer.Option(help="EPSG code into which the coordinates are transformed.")] = 3857,
    slim: Annotated[bool, typer.Option("--slim", help="Keep what osm2pgsql --append needs for later updates.")] = False,
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load OpenStreetMap into the tables that people know, by osm2pgsql."""
    db = database(url)
    with telling("osm2pgsql") as progress:
        loaded = loading.osm(db, file, prefix=prefix, schema=schema, srid=srid, slim=slim, replace=replace, progress=progress)
    for table in loaded:
        say_loaded(table)


@commands.command()
def sample(
    name: Annotated[loading.Samples, typer.Argument(help="SpaceNet's scenes with labels, or the map of Helsinki.")],
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Fetch real imagery or a real map, load it, and say how to look at it."""
    db = database(url)
    with telling("fetching") as progress:
        loaded, looks = loading.sample(db, name, replace=replace, progress=progress)
    for table in loaded:
        say_loaded(table)
    for look in looks:
        out.print(f"{look}{' --url …' if url else ''}", markup=False)
