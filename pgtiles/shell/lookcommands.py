"""Commands that look: at tables, tiles, their SQL and their speed, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.markup import escape

from ..errors import PgtilesError
from ..inspection.checking import Report, size_of
from ..inspection.explaining import why as explain
from ..postgres.database import Database
from ..streaming.reading import Plan, read_batch
from . import reports
from .starter import PICTURE, propose
from .terminal import (
    Connections,
    Count,
    Json,
    Picture,
    Workers,
    database,
    err,
    out,
    progress_bar,
)
from .view import Url, View, command_line, viewing

commands = typer.Typer()


@commands.command()
@viewing
def preview(view: View, count: Count = 4, output: Picture = Path("preview.png")) -> None:
    """Draw some tiles, image beside labels, to a PNG."""
    _preview(database(view.url), view, count, output)


@commands.command()
@viewing
def sql(view: View, count: Count = 2) -> None:
    """Print the exact statement that reads some tiles, ready for psql."""
    tiles, plan = view.open(database(view.url), count)
    print(plan.statement(tiles).as_string(None) + ";")


@commands.command()
@viewing
def check(view: View, count: Count = 64, connections: Connections = 2, workers: Workers = 0, as_json: Json = False) -> None:
    """Say how each layer is read, how fast, and what is wrong, with SQL that mends it; exit code 1 where there is a problem.

    What could not be checked is exit code 2.
    """
    try:
        report = _check(database(view.url), view, count, connections, workers, as_json=as_json)
    except (PgtilesError, OSError) as error:
        if as_json:
            out.print(json.dumps({"ok": False, "error": str(error)}, ensure_ascii=False), markup=False)
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(2) from None
    if not report.ok:
        raise typer.Exit(1)


@commands.command(context_settings={"ignore_unknown_options": True})  # -100,3000 is a place
@viewing
def why(
    view: View,
    tile: Annotated[str, typer.Argument(help="The tile's number among --count at random; or x,y in the tiles' SRID.")],
    count: Count = 64,
    output: Annotated[Path | None, typer.Option("--out", help="Where a PNG of the tile goes.")] = None,
    as_json: Json = False,
) -> None:
    """Explain one tile: which rows made it, or why it is empty; its SQL, its plan, its picture."""
    db = database(view.url)
    found = explain(db, *view.tile(db, tile, count))
    (reports.show_json if as_json else reports.show_why)(out, found)
    if output:
        found.plot(output)


@commands.command()
@viewing
def bench(
    view: View,
    count: Count = 256,
    rounds: Annotated[int, typer.Option(min=1, help="Each case in turn in each; medians are shown.")] = 3,
    as_json: Json = False,
) -> None:
    """Measure tiles per second with 1 to 3 connections, in this process and in 2 workers, beside a COPY thrown away."""
    from .benching import bench  # brings torch

    db = database(view.url)
    tiles, layers = view.look(db, count)
    with progress_bar("cases") as progress:
        found = bench(db, tiles, layers, rounds=rounds, progress=progress)
    (reports.show_json if as_json else reports.show_bench)(out, found)


@commands.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where the files go; it is made if need be.")] = Path(),
    image: Annotated[str | None, typer.Option(help="Raster table; the likeliest unless given.")] = None,
    labels: Annotated[str | None, typer.Option(help="Table with geometries; the likeliest unless given.")] = None,
    url: Url = None,
) -> None:
    """Write a labels.sql and a train.py for the database at hand, ready to run, and look at what they give."""
    db = database(url)
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
