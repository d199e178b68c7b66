"""Commands that write what tiles, or a model, give: tables, polygons, scores, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import baking
from ..errors import ConfigError
from ..evaluation.errortable import keep_errors
from ..evaluation.objects import score_objects
from ..evaluation.scoring import score
from .terminal import (
    Connections,
    Json,
    Replace,
    database,
    err,
    out,
    progress_bar,
    say_loaded,
)
from .view import Url, View, numbers, pairs, viewing

commands = typer.Typer()


@commands.command()
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
    db = database(view.url)
    tiles, layers = view.look(db, count)
    with progress_bar("tiles") as progress:
        done = baking.bake(db, table, tiles, layers, refresh=refresh, replace=replace, sources=sources, progress=progress)
    out.print(
        f"{done.table}: {done.tiles} tiles; {done.baked} baked, {done.refreshed} refreshed, {done.unchanged} unchanged, "
        f"{done.skipped} were there; {done.empty} empty", markup=False,
    )  # fmt: skip
    out.print(f"in Python:\ntiles, layers = pgtiles.baked(db, {table!r})", markup=False)


@commands.command()
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
    names: Annotated[list[str] | None, typer.Option("--name", help="VALUE=NAME of a class; once for each.")] = None,
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
    db = database(view.url)
    factors = numbers("--overviews", overviews, int) if overviews else ()
    tiles, layers = view.look(db, None, overlap=view.size // 4 if overlap is None else overlap)
    transform = None if divide is None else scaled
    dataset = TileDataset(db, tiles, layers, batch_size=batch, connections=connections, transform=transform)
    with progress_bar("tiles") as progress:
        done = predict(
            model, dataset, into, run=run, kind=kind, dtype=dtype, blend=blend, activation=activation, flips=flips,
            device=device, classes=pairs("--name", names), overviews=factors, replace=replace, progress=progress,
        )  # fmt: skip
    out.print(
        f"{done.table}: run {done.run!r} (id {done.id}), {done.blocks} blocks; {done.tiles} tiles predicted, "
        f"{done.skipped} rows of blocks were there", markup=False,
    )  # fmt: skip


@commands.command()
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
    db = database(url)
    with progress_bar("strips") as progress:
        done = vectorize(
            db, table, into, run=run, classes=wanted, probability=probability, probability_run=probability_run,
            min_area=min_area, fill_holes=fill_holes, simplify=simplify, rectangles=rectangles, replace=replace,
            progress=progress,
        )  # fmt: skip
    say_loaded(done)


@commands.command("score")
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
    db = database(view.url)
    tiles, layers = view.beside(db, prediction, by)
    with progress_bar("tiles") as progress:
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


@commands.command("score-objects")
def score_objects_(
    truth: Annotated[str, typer.Argument(help="Table of areas, or SQL that gives geom, id, and value if there are classes.")],
    prediction: Annotated[str, typer.Argument(help="The same of what was predicted.")],
    iou: Annotated[list[float], typer.Option(help="From which overlap on two are the same; once for each.")] = [0.5],  # noqa: B006
    as_json: Json = False, url: Url = None,
) -> None:  # fmt: skip
    """Compare predicted objects with true ones, area by area: precision and recall at an intersection over union."""
    found = score_objects(database(url), truth, prediction, iou=iou)
    out.print(json.dumps(found.said(), ensure_ascii=False) if as_json else str(found), markup=False)


@commands.command()
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

    db = database(view.url)
    tiles, layers = view.labelled(db, count, stride, min_share, objects)
    dataset = TileDataset(db, tiles, layers, connections=connections)
    with progress_bar("tiles") as progress:
        done = export(
            dataset, folder, format=form, images=images, stretch=numbers("--stretch", stretch, float) if stretch else None,
            classes=pairs("--name", names), shard=shard, sources=sources, progress=progress,
        )  # fmt: skip
    said = f"{done.folder}: {done.tiles} tiles; {done.written} written, {done.there} were there; {done.all} in all"
    out.print(said, markup=False)
