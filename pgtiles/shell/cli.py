"""The command ``pgtiles``: from a shell what the library does from Python. Each command calls one function."""

from __future__ import annotations

import json
import os
import runpy
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from .. import __version__, baking
from .. import load as loading
from ..errors import ConfigError, PgtilesError, PgtilesWarning
from ..evaluation.errortable import keep_errors
from ..evaluation.objects import score_objects
from ..evaluation.scoring import score
from ..inspection.checking import Report, size_of
from ..inspection.explaining import why as explain
from ..layers.legend import colours_of
from ..postgres.database import Database
from ..postgres.server import LocalServer
from ..streaming.reading import Plan, read_batch
from ..template import folder
from . import reports
from .starter import PICTURE, propose
from .view import Url, View, command_line, numbers, pairs, viewing

typer_app = typer.Typer(
    no_args_is_help=True, invoke_without_command=True, pretty_exceptions_enable=False, add_completion=False,
    help="Tiles, imagery and labels straight out of PostGIS. The database is the one of --url, PGTILES_URL, "
         "libpq's PG* variables, or the running local server.",
)  # fmt: skip
load_app = typer.Typer(no_args_is_help=True, help="Load files into tables, all of it or nothing.")
typer_app.add_typer(load_app, name="load")
out, err = (Console(stderr=stderr, soft_wrap=True, highlight=False, emoji=False) for stderr in (False, True))

Home = Annotated[Path | None, typer.Option("--path", help="Folder of the server; the user's data folder unless given.")]
Srid = Annotated[int | None, typer.Option(help="EPSG code, where the file doesn't say it or says it wrongly.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a table that is already there.")]
Count = Annotated[int, typer.Option(help="How many tiles.")]
Connections = Annotated[int, typer.Option(min=1, help="As the training will open in each process.")]
Workers = Annotated[int, typer.Option(min=0, help="As the training's DataLoader will have; 0 is none.")]
Json = Annotated[bool, typer.Option("--json", help="All of it as JSON, for machines.")]
Picture = Annotated[Path, typer.Option("--out", help="Where the PNG goes.")]


@typer_app.callback()
def main(version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    """What stands before a command."""
    if version:
        out.print(f"pgtiles {__version__}")
        raise typer.Exit


def app() -> None:
    """Run the command; an error of ours, or of the system's, is one message on stderr and exit code 1, not a traceback."""
    warnings.showwarning = _warn
    try:
        typer_app()
    except (PgtilesError, OSError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)


def _warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object) -> None:
    where = "" if issubclass(category, PgtilesWarning) else f"{filename}:{lineno}: "
    err.print(f"[yellow]warning:[/] {escape(f'{where}{message}')}")


# -- a database


@typer_app.command()
def up(path: Home = None) -> None:
    """Make and start a private PostGIS server from this machine's own PostgreSQL; prints its URL."""
    server = LocalServer(path)
    with err.status("starting the local server"):
        started = server.start()
    err.print(f"{'started' if started else 'already running'}: {escape(str(server.path))}")
    if os.environ.get("PGTILES_URL", server.url) != server.url:
        err.print("[yellow]note:[/] PGTILES_URL names another database, which goes before this one: unset PGTILES_URL")
    out.print(server.url, markup=False)


@typer_app.command()
def down(path: Home = None) -> None:
    """Stop the local server; its data stays."""
    stopped = LocalServer(path).stop()
    err.print("stopped" if stopped else "it was not running")


@typer_app.command()
def status(path: Home = None) -> None:
    """Say whether the local server runs, and where."""
    server = LocalServer(path)
    out.print(f"{'running' if server.running else 'down'}: {escape(str(server.path))}")
    if not server.running:
        raise typer.Exit(3)
    out.print(server.url, markup=False)


# -- loading


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
    db = _database(url)
    with _progress("blocks") as progress:
        loaded = loading.raster(db, files, table, srid=srid, replace=replace, out_db=where, colours=classes, progress=progress)
    _say_loaded(loaded)


@load_app.command("chips")
def load_chips(
    folder: Annotated[Path, typer.Argument(help="With a folder of images for each class.")],
    table: Annotated[str, typer.Argument(help="table or schema.table")],
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Load chips that lie in a folder for each class, each as one row with its class."""
    db = _database(url)
    with _progress("chips") as progress:
        loaded = loading.chips(db, folder, table, replace=replace, progress=progress)
    _say_loaded(loaded)
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
    db = _database(url)
    with _progress("features") as progress:
        loaded = loading.vector(db, file, table, layer=layer, srid=srid, replace=replace, progress=progress)
    _say_loaded(loaded)


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
    db = _database(url)
    with _telling("osm2pgsql") as progress:
        loaded = loading.osm(db, file, prefix=prefix, schema=schema, srid=srid, slim=slim, replace=replace, progress=progress)
    for table in loaded:
        _say_loaded(table)


@typer_app.command()
def sample(
    name: Annotated[loading.Samples, typer.Argument(help="SpaceNet's scenes with labels, or the map of Helsinki.")],
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Fetch real imagery or a real map, load it, and say how to look at it."""
    db = _database(url)
    with _telling("fetching") as progress:
        loaded, looks = loading.sample(db, name, replace=replace, progress=progress)
    for table in loaded:
        _say_loaded(table)
    for look in looks:
        out.print(f"{look}{' --url …' if url else ''}", markup=False)


def _say_loaded(loaded: Any) -> None:
    out.print(f"{loaded.table}: {loaded.rows} rows, SRID {loaded.srid}", markup=False)
    for note in loaded.notes:
        err.print(f"[yellow]note:[/] {escape(note)}")


# -- looking


def _database(url: str | None) -> Database:
    db = Database(url)
    err.print(f"database: {db.name} ({db.source})", markup=False)
    return db


@typer_app.command()
@viewing
def preview(view: View, count: Count = 4, output: Picture = Path("preview.png")) -> None:
    """Draw some tiles, image beside labels, to a PNG."""
    _preview(_database(view.url), view, count, output)


@typer_app.command()
@viewing
def sql(view: View, count: Count = 2) -> None:
    """Print the exact statement that reads some tiles, ready for psql."""
    tiles, plan = view.open(_database(view.url), count)
    print(plan.statement(tiles).as_string(None) + ";")


@typer_app.command()
@viewing
def check(view: View, count: Count = 64, connections: Connections = 2, workers: Workers = 0, as_json: Json = False) -> None:
    """Say how each layer is read, how fast, and what is wrong, with SQL that mends it; exit code 1 where there is a problem.

    What could not be checked is exit code 2.
    """
    try:
        report = _check(_database(view.url), view, count, connections, workers, as_json=as_json)
    except (PgtilesError, OSError) as error:
        if as_json:
            out.print(json.dumps({"ok": False, "error": str(error)}, ensure_ascii=False), markup=False)
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from None
    if not report.ok:
        raise typer.Exit(1)


@typer_app.command(context_settings={"ignore_unknown_options": True})  # -100,3000 is a place
@viewing
def why(
    view: View,
    tile: Annotated[str, typer.Argument(help="The tile's number among --count at random; or x,y in the tiles' SRID.")],
    count: Count = 64,
    output: Annotated[Path | None, typer.Option("--out", help="Where a PNG of the tile goes.")] = None,
    as_json: Json = False,
) -> None:
    """Explain one tile: which rows made it, or why it is empty; its SQL, its plan, its picture."""
    db = _database(view.url)
    found = explain(db, *view.tile(db, tile, count))
    (reports.show_json if as_json else reports.show_why)(out, found)
    if output:
        found.plot(output)


@typer_app.command()
@viewing
def bench(
    view: View,
    count: Count = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Each case in turn in each; medians are shown.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure tiles per second with 1 to 3 connections, in this process and in 2 workers, beside a COPY thrown away."""
    from .benching import bench  # brings torch

    db = _database(view.url)
    tiles, layers = view.look(db, count)
    with _progress("cases") as progress:
        found = bench(db, tiles, layers, rounds=rounds, progress=progress)
    (reports.show_json if as_json else reports.show_bench)(out, found)


@typer_app.command()
@viewing
def bake(
    view: View,
    table: Annotated[str, typer.Argument(help="table or schema.table; its tiles go into TABLE_tiles.")],
    count: Annotated[int | None, typer.Option(help="Tiles at random; all side by side unless given.")] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Bake tiles again whose sources give something else.")] = False,
    replace: Replace = False,
    sources: Annotated[bool, typer.Option("--sources", help="Note which rows each tile is made of.")] = False,
) -> None:
    """Write tiles into a table, on the server, to train from there. The same command again goes on where it was."""
    db = _database(view.url)
    tiles, layers = view.look(db, count)
    with _progress("tiles") as progress:
        done = baking.bake(db, table, tiles, layers, refresh=refresh, replace=replace, sources=sources, progress=progress)
    out.print(
        f"{done.table}: {done.tiles} tiles; {done.baked} baked, {done.refreshed} refreshed, {done.unchanged} unchanged, "
        f"{done.skipped} were there; {done.empty} empty", markup=False,
    )  # fmt: skip
    out.print(f"in Python:\ntiles, layers = pgtiles.baked(db, {table!r})", markup=False)


@typer_app.command()
@viewing
def predict(
    view: View,
    model: Annotated[str, typer.Argument(help="A file of torch.export (.pt2) or TorchScript, or module:function.")],
    into: Annotated[str, typer.Argument(help="table or schema.table; the table run beside it says what each run was.")],
    run: Annotated[str | None, typer.Option(help="Name of the run; the table's unless given.")] = None,
    kind: Annotated[str, typer.Option(help="classes, probabilities or values.")] = "classes",
    dtype: Annotated[str | None, typer.Option(help="uint8 or float32.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that tiles share; a quarter of --size unless given.")] = None,
    blend: Annotated[str, typer.Option(help="cosine, linear or crop.")] = "cosine",
    activation: Annotated[str | None, typer.Option(help="softmax, sigmoid or none, before anything is blended.")] = None,
    flips: Annotated[bool, typer.Option("--flips", help="The mean over each tile and its three mirror images.")] = False,
    divide: Annotated[float | None, typer.Option(help="Divide pixels by this, as floats; else they come as stored.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Tiles that the model gets at once.")] = 16,
    device: Annotated[str | None, typer.Option(help="On which the model runs: cuda, cuda:1, mps; cpu unless given.")] = None,
    connections: Connections = 2,
    overviews: Annotated[str | None, typer.Option(help="Factors of overviews to make: 2,4,8")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Drop the run of this name first, and what it predicted.")] = False,
) -> None:
    """Write what a model says of an area into a raster table. The same command again goes on where it was."""
    from ..dataset import TileDataset  # these bring torch
    from ..prediction.predicting import predict

    def scaled(sample: dict[str, Any], _: object) -> dict[str, Any]:
        return sample | {"image": sample["image"] / divide}

    if not view.image:
        raise ConfigError("nothing for the model to see: give --image")
    db = _database(view.url)
    factors = numbers("--overviews", overviews, int) if overviews else ()
    tiles, layers = view.look(db, None, overlap=view.size // 4 if overlap is None else overlap)
    transform = None if divide is None else scaled
    dataset = TileDataset(db, tiles, layers, batch_size=batch, connections=connections, transform=transform)
    with _progress("tiles") as progress:
        done = predict(
            model, dataset, into, run=run, kind=kind, dtype=dtype, blend=blend, activation=activation, flips=flips,
            device=device, overviews=factors, replace=replace, progress=progress,
        )  # fmt: skip
    out.print(
        f"{done.table}: run {done.run!r} (id {done.id}), {done.blocks} blocks; {done.tiles} tiles predicted, "
        f"{done.skipped} rows of blocks were there", markup=False,
    )  # fmt: skip


@typer_app.command()
@viewing
def export(
    view: View,
    folder: Annotated[Path, typer.Argument(help="Where the files go; it is made if need be.")],
    form: Annotated[str, typer.Option("--format", help="geotiff, png, jpeg, coco, yolo, voc or webdataset.")] = "geotiff",
    count: Annotated[int | None, typer.Option(help="Tiles at random; all side by side unless given.")] = None,
    stride: Annotated[int | None, typer.Option(help="Pixels from tile to tile; its size unless given.")] = None,
    min_share: Annotated[float, typer.Option(help="Leave tiles out of which labels cover less, 0 to 1.")] = 0.0,
    objects: Annotated[
        str | None, typer.Option(help="Labels as boxes or instances of features; else the connected parts of a mask.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Kind of the images, where not the format's: tiff, png, jpeg.")] = None,
    stretch: Annotated[str | None, typer.Option(help="LOW,HIGH: values that become 0 and 255 in 8 bits.")] = None,
    names: Annotated[list[str] | None, typer.Option("--name", help="VALUE=NAME of a class; once for each.")] = None,
    shard: Annotated[int, typer.Option(help="Tiles in a tar, of webdataset.")] = 1000,
    sources: Annotated[bool, typer.Option("--sources", help="Note which rows each tile is made of.")] = False,
    connections: Connections = 2,
) -> None:
    """Write tiles into files, for programs that read nothing else. The same command again goes on where it was."""
    from ..dataset import TileDataset  # brings torch
    from ..exports.exporting import export

    db = _database(view.url)
    tiles, layers = view.labelled(db, count, stride, min_share, objects)
    dataset = TileDataset(db, tiles, layers, connections=connections)
    with _progress("tiles") as progress:
        done = export(
            dataset, folder, format=form, images=images, stretch=numbers("--stretch", stretch, float) if stretch else None,
            classes=pairs("--name", names), shard=shard, sources=sources, progress=progress,
        )  # fmt: skip
    said = f"{done.folder}: {done.tiles} tiles; {done.written} written, {done.there} were there; {done.all} in all"
    out.print(said, markup=False)


@typer_app.command("score")
@viewing
def score_(
    view: View,
    prediction: Annotated[
        str, typer.Argument(help="Raster table of classes, or SQL that gives rast: itself, or a file's name.")
    ],
    by: Annotated[
        str | None, typer.Option(help="SQL that gives geom and columns to score by: itself, or a file's name.")
    ] = None,
    tolerance: Annotated[float | None, typer.Option(help="Ground metres by which boundaries may be off.")] = None,
    output: Annotated[Path | None, typer.Option("--out", help="Where a PNG of the confusion matrix goes.")] = None,
    worst: Annotated[Path | None, typer.Option(help="Where a PNG of the worst tiles goes.")] = None,
    keep: Annotated[str | None, typer.Option(help="Table in which the errors of the tiles are kept.")] = None,
    run: Annotated[str | None, typer.Option(help="With --keep: the name of the model or round.")] = None,
    as_json: Json = False,
) -> None:
    """Compare a map of predicted classes with --labels, pixel by pixel: a table, pictures, the errors of each tile."""
    if (keep is None) != (run is None):
        raise ConfigError("--keep and --run go together: the table, and what tells these errors from others")
    db = _database(view.url)
    tiles, layers = view.beside(db, prediction, by)
    with _progress("tiles") as progress:
        found = score(
            db, tiles, layers["mask"], layers["prediction"], by=layers.get("by"), tolerance=tolerance,
            image=layers.get("image"), progress=progress,
        )  # fmt: skip
    out.print(json.dumps(found.said(), ensure_ascii=False) if as_json else str(found), markup=False)
    if output:
        found.plot(output)
    if worst:
        found.plot_worst(worst)
    if keep and run:
        kept = keep_errors(db, keep, found.tiles, found.tiles.columns["error"], run=run)
        err.print(f"{keep}: the errors of {kept} tiles", markup=False)


@typer_app.command("score-objects")
def score_objects_(
    truth: Annotated[str, typer.Argument(help="Table of areas, or SQL that gives geom, id, and value if there are classes.")],
    prediction: Annotated[str, typer.Argument(help="The same of what was predicted.")],
    iou: Annotated[list[float], typer.Option(help="From which overlap on two are the same; once for each.")] = [0.5],  # noqa: B006
    as_json: Json = False, url: Url = None,
) -> None:  # fmt: skip
    """Compare predicted objects with true ones, area by area: precision and recall at an intersection over union."""
    found = score_objects(_database(url), truth, prediction, iou=iou)
    out.print(json.dumps(found.said(), ensure_ascii=False) if as_json else str(found), markup=False)


@typer_app.command()
def vectorize(
    table: Annotated[str, typer.Argument(help="Rasters of classes, such as predict makes.")],
    into: Annotated[str, typer.Argument(help="table or schema.table of the polygons.")],
    run: Annotated[str | None, typer.Option(help="Which run, where the table holds several.")] = None,
    classes: Annotated[str | None, typer.Option(help="Numbers of those wanted: 1,2. All unless given.")] = None,
    probability: Annotated[str | None, typer.Option(help="Rasters of probabilities, for the mean of each polygon.")] = None,
    probability_run: Annotated[str | None, typer.Option(help="Which run there.")] = None,
    min_area: Annotated[float, typer.Option(help="m² on the ground, below which a polygon is dropped.")] = 0.0,
    fill_holes: Annotated[float, typer.Option(help="m² on the ground, below which a hole is filled.")] = 0.0,
    simplify: Annotated[float, typer.Option(help="Pixels by which borders may move; neighbours go on to share theirs.")] = 0.0,
    rectangles: Annotated[
        float | None, typer.Option(help="Share of its smallest rectangle that a polygon must fill to become one: 0.8")
    ] = None,
    replace: Replace = False, url: Url = None,
) -> None:  # fmt: skip
    """Make polygons of a class raster, across its blocks, all of them or nothing."""
    from ..polygons.vectorizing import vectorize  # brings shapely

    wanted = None if classes is None else numbers("--classes", classes, int)
    db = _database(url)
    with _progress("strips") as progress:
        done = vectorize(
            db, table, into, run=run, classes=wanted, probability=probability, probability_run=probability_run,
            min_area=min_area, fill_holes=fill_holes, simplify=simplify, rectangles=rectangles, replace=replace,
            progress=progress,
        )  # fmt: skip
    _say_loaded(done)


def _preview(db: Database, view: View, count: int, output: Path, classes: Mapping[int, str] | None = None) -> None:
    from .. import plot

    tiles, plan = view.open(db, count)
    with err.status("reading tiles"):
        batch = read_batch(db, plan, tiles)
        named = classes or {value: name for layer in plan.layers for value, name in layer.classes.items()}
        plot.batch(batch.sample, output, count=count, classes=named)
    out.print(f"{output}: {len(tiles)} tiles of {size_of(tiles)}", markup=False)
    _say_empty(plan, np.array(batch.empty), len(tiles))


def _check(db: Database, view: View, count: int, connections: int = 2, workers: int = 0, *, as_json: bool = False) -> Report:
    with err.status(f"reading {count} tiles"):
        report = view.check(db, count, connections, workers)
    (reports.show_json if as_json else reports.show_check)(out, report)
    return report


def _say_empty(plan: Plan, empty: NDArray[Any], count: int) -> None:
    for layer, none in zip(plan.layers, empty, strict=True):
        if none == count:
            err.print(
                f"[yellow]warning:[/] layer '{layer.name}': nothing is in any of these {count} tiles. Is anything mapped "
                "there, and does the query ask for it? --within xmin,ymin,xmax,ymax names another place; without it, the whole "
                "table is taken"
            )


@typer_app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go; it is made if need be.")] = Path(),
    image: Annotated[str | None, typer.Option(help="Raster table; the likeliest unless given.")] = None,
    labels: Annotated[str | None, typer.Option(help="Table with geometries; the likeliest unless given.")] = None,
    url: Url = None,
) -> None:
    """Write a labels.sql and a train.py for the database at hand, ready to run, and look at what they give."""
    db = _database(url)
    with err.status("looking at the tables"):
        start = propose(db, image=image, labels=labels)
    out.print(f"imagery: {start.image or 'none'}; label: {start.label.table}", markup=False)
    for file in start.write(folder):
        out.print(f"wrote {file}", markup=False)
    view = start.view(folder, url)
    _check(db, view, 16)
    _preview(db, view, 4, folder / PICTURE, start.label.classes)
    named = "PGTILES_URL=… " if url else ""  # her URL may hold a password
    err.print(f"again, when labels.sql has changed: {named}pgtiles preview {command_line(view)}", markup=False)
    if start.image is None:
        err.print("no train.py yet, for want of imagery in the database: `pgtiles load raster FILES TABLE`, then init again")
    else:
        err.print(f"next, some minutes: {named}python {folder / 'train.py'}", markup=False)


@typer_app.command()
def demo(
    output: Picture = Path("demo.png"),
    seed: Annotated[int, typer.Option(help="Of the model and of the order of the tiles.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Fewer than its own are quicker, and learn less.")] = None,
    url: Url = None,
) -> None:
    """Train a road model on a real SpaceNet scene, straight out of PostGIS: a few minutes on two cores."""
    sys.path.insert(0, str(folder("examples")))
    given = {"epochs": epochs} if epochs else {}
    runpy.run_path(str(folder("examples") / "demo.py"))["main"](output=output, seed=seed, url=url, **given)


@contextmanager
def _progress(unit: str) -> Iterator[Callable[[int, int], None]]:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, disable=not err.is_terminal and "PGTILES_PROGRESS" not in os.environ) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _telling(what: str) -> Iterator[Callable[[str], None]]:
    columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=err, disable=not err.is_terminal and "PGTILES_PROGRESS" not in os.environ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda text: bar.update(task, description=text)
