"""The command ``pgtiles``: from a shell what the library does from Python. Each command calls one function."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from . import load as loading
from .database import Database
from .errors import ConfigError, PgtilesError
from .grid import Grid, Tiles
from .layers import Imagery, Labels, Layer
from .reading import Plan, read_batch
from .server import LocalServer
from .template import folder

typer_app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Tiles, imagery and labels straight out of PostGIS. The database is the one of --url, PGTILES_URL, "
         "libpq's PG* variables, or the running local server.",
)  # fmt: skip
load_app = typer.Typer(no_args_is_help=True, help="Load files into tables, all of it or nothing.")
typer_app.add_typer(load_app, name="load")
out, err = Console(soft_wrap=True), Console(stderr=True, soft_wrap=True)

Url = Annotated[str | None, typer.Option(help="postgresql://user@host:port/dbname")]
Home = Annotated[Path | None, typer.Option("--path", help="Folder of the server; the user's data folder unless given.")]
Srid = Annotated[int | None, typer.Option(help="EPSG code, where the file doesn't say it or says it wrongly.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a table that is already there.")]
Image = Annotated[str | None, typer.Option(help="Raster table, or a file with SQL that gives rast.")]
Bands = Annotated[str | None, typer.Option(help="Bands, from 1: 1,2,3")]
LabelSource = Annotated[str | None, typer.Option("--labels", help="File with SQL that gives geom, or a table.")]
Where = Annotated[str | None, typer.Option(help="Condition on a label table's columns.")]
Value = Annotated[str, typer.Option(help="What a label table's features burn: a number or a column.")]
Buffer = Annotated[float | None, typer.Option(help="Ground metres by which labels are widened.")]
GridSrid = Annotated[int | None, typer.Option("--srid", help="SRID of the tiles; the imagery's unless given.")]
Resolution = Annotated[float | None, typer.Option(help="CRS units per pixel; the imagery's unless given.")]
Size = Annotated[int, typer.Option(help="Pixels along a tile's side.")]
Within = Annotated[str | None, typer.Option(help="xmin,ymin,xmax,ymax in the tiles' SRID; all imagery unless given.")]
Count = Annotated[int, typer.Option(help="How many tiles.")]
Seed = Annotated[int, typer.Option(help="Of the tiles' places.")]


def app() -> None:
    """Run the command; an error of ours is one message on stderr and exit code 1, not a traceback."""
    try:
        typer_app()
    except PgtilesError as error:
        err.print(f"[bold red]error:[/] {_escaped(error)}", highlight=False)
        sys.exit(1)


def _escaped(text: object) -> str:
    return str(text).replace("[", r"\[")


# -- a database


@typer_app.command()
def up(path: Home = None) -> None:
    """Make and start a private PostGIS server from this machine's own PostgreSQL; prints its URL."""
    server = LocalServer(path)
    with err.status("starting the local server"):
        started = server.start()
    err.print(f"{'started' if started else 'already running'}: {server.path}", highlight=False)
    out.print(server.url, highlight=False)


@typer_app.command()
def down(path: Home = None) -> None:
    """Stop the local server; its data stays."""
    stopped = LocalServer(path).stop()
    err.print("stopped" if stopped else "it was not running")


@typer_app.command()
def status(path: Home = None) -> None:
    """Say whether the local server runs, and where."""
    server = LocalServer(path)
    out.print(f"{'running' if server.running else 'down'}: {server.path}", highlight=False)
    if not server.running:
        raise typer.Exit(3)
    out.print(server.url, highlight=False)


# -- loading


@load_app.command("raster")
def load_raster(
    files: Annotated[list[Path], typer.Argument(help="GeoTIFFs, or whatever else GDAL reads.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    srid: Srid = None, replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load rasters into a table, in blocks, with index and constraints as reading wants them."""
    with _progress("blocks") as progress:
        loaded = loading.raster(Database(url), files, table, srid=srid, replace=replace, progress=progress)
    _say_loaded(loaded)


@load_app.command("vector")
def load_vector(
    file: Annotated[Path, typer.Argument(help="GeoJSON, GeoPackage, Shapefile, or whatever else GDAL reads.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    layer: Annotated[str | None, typer.Option(help="Which layer, where a file has several.")] = None,
    srid: Srid = None, replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load features into a table, with an index; invalid geometries are reported."""
    with _progress("features") as progress:
        loaded = loading.vector(Database(url), file, table, layer=layer, srid=srid, replace=replace, progress=progress)
    _say_loaded(loaded)


def _say_loaded(loaded: Any) -> None:
    out.print(f"{loaded.table}: {loaded.rows} rows, SRID {loaded.srid}", highlight=False)
    for note in loaded.notes:
        err.print(f"[yellow]note:[/] {_escaped(note)}", highlight=False)


# -- looking


@typer_app.command()
def preview(
    image: Image = None, bands: Bands = None, labels: LabelSource = None, where: Where = None, value: Value = "1",
    buffer: Buffer = None, srid: GridSrid = None, resolution: Resolution = None, size: Size = 256, within: Within = None,
    count: Count = 4, seed: Seed = 0, url: Url = None,
    output: Annotated[Path, typer.Option("--out", help="Where the PNG goes.")] = Path("preview.png"),
) -> None:  # fmt: skip
    """Draw some tiles, image beside labels, to a PNG."""
    db, tiles, plan = _open(url, image, bands, labels, where, value, buffer, srid, resolution, size, within, count, seed)
    from . import plot

    with err.status("reading tiles"):
        plot.batch(read_batch(db, plan, tiles).sample, output, count=count)
    out.print(f"{output}: {len(tiles)} tiles of {_size(tiles)}", highlight=False)


@typer_app.command()
def sql(
    image: Image = None, bands: Bands = None, labels: LabelSource = None, where: Where = None, value: Value = "1",
    buffer: Buffer = None, srid: GridSrid = None, resolution: Resolution = None, size: Size = 256, within: Within = None,
    count: Count = 2, seed: Seed = 0, url: Url = None,
) -> None:  # fmt: skip
    """Print the exact statement that reads some tiles, ready for psql."""
    _, tiles, plan = _open(url, image, bands, labels, where, value, buffer, srid, resolution, size, within, count, seed)
    print(plan.statement(tiles).as_string(None) + ";")


@typer_app.command()
def check(
    image: Image = None, bands: Bands = None, labels: LabelSource = None, where: Where = None, value: Value = "1",
    buffer: Buffer = None, srid: GridSrid = None, resolution: Resolution = None, size: Size = 256, within: Within = None,
    count: Count = 64, seed: Seed = 0, url: Url = None,
) -> None:  # fmt: skip
    """Say for each layer which path its pixels take, and why; and what would make it faster."""
    db, tiles, plan = _open(url, image, bands, labels, where, value, buffer, srid, resolution, size, within, count, seed)
    with err.status(f"reading {len(tiles)} tiles"):
        empty = [sum(e) for e in zip(*(read_batch(db, plan, tiles[k : k + 8]).empty for k in range(0, len(tiles), 8)))]
    table = Table(
        "layer", "path", "why", "tile", "dtype", f"empty of {len(tiles)}", title=f"{db.name}: tiles of {_size(tiles)}"
    )
    for layer, none in zip(plan.layers, empty, strict=True):
        why = "\n".join((layer.why, *(f"warning: {w}" for w in layer.warnings)))
        table.add_row(layer.name, layer.path, _escaped(why), " × ".join(map(str, layer.shape)), layer.dtype, str(none))
    out.print(table)


@typer_app.command()
def demo(
    output: Annotated[Path, typer.Option("--out", help="Where the PNG goes.")] = Path("demo.png"),
    seed: Annotated[int, typer.Option(help="Of the model and of the order of the tiles.")] = 0,
    url: Url = None,
) -> None:
    """Train a road model on a real SpaceNet scene, straight out of PostGIS: a few minutes on two cores."""
    sys.path.insert(0, str(folder("examples")))
    runpy.run_path(str(folder("examples") / "demo.py"))["main"](output=output, seed=seed, url=url)


def _open(
    url: str | None, image: str | None, bands: str | None, labels: str | None, where: str | None, value: str,
    buffer: float | None, srid: int | None, resolution: float | None, size: int, within: str | None, count: int, seed: int,
) -> tuple[Database, Tiles, Plan]:  # fmt: skip
    """The database, some random tiles and the opened layers that the options describe."""
    db, layers = Database(url), dict[str, Layer]()
    err.print(f"database: {db.name} ({db.source})", highlight=False)
    if image:
        layers["image"] = Imagery(_source(image), bands=tuple(_numbers("--bands", bands, int)) if bands else None)
    if labels:
        constant = value.lstrip("-").replace(".", "", 1).isdigit()
        layers["mask"] = Labels(_source(labels), value=float(value) if constant else value, where=where, buffer=buffer)
    if not layers:
        raise ConfigError("nothing to read: give --image, --labels or both")
    is_table = image is not None and not Path(image).is_file()
    if srid and resolution:
        grid = Grid(srid=srid, resolution=resolution, size=size)
    elif is_table and not srid:
        like = Grid.like(db, str(image), size=size)
        grid = like if not resolution else Grid(srid=like.srid, resolution=resolution, size=size, origin=like.origin)
    else:
        raise ConfigError("no raster table to take the tiles' lattice from: give --srid and --resolution")
    if not within and not is_table:
        raise ConfigError("no raster table to take the tiles' region from: give --within xmin,ymin,xmax,ymax")
    box = tuple(_numbers("--within", within, float)) if within else db.extent(str(image), grid.srid)
    tiles = Tiles.random(grid, within=box, count=count, seed=seed)  # Tiles itself counts them
    return db, tiles, Plan.open(db, tiles, layers)


def _source(text: str) -> str:
    return Path(text).read_text(encoding="utf-8") if Path(text).is_file() else text


def _numbers(option: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option} {text}: expected numbers with commas between them") from None


def _size(tiles: Tiles) -> str:
    (h, w), (x, y) = tiles.grid.shape, tiles.grid.pixel
    return f"{w} × {h} px at {x:g} × {y:g} CRS units, SRID {tiles.grid.srid}"


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, disable=not err.is_terminal and "PGTILES_PROGRESS" not in os.environ) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
