"""What the commands share: where they say what, options of several, the database that is meant, progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
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

from ..errors import PgtilesWarning
from ..postgres.database import Database

out, err = (Console(stderr=stderr, soft_wrap=True, highlight=False, emoji=False) for stderr in (False, True))

Home = Annotated[Path | None, typer.Option("--path", help="Folder of the server; the user's data folder unless given.")]
Srid = Annotated[int | None, typer.Option(help="EPSG code, where the file doesn't say it or says it wrongly.")]
Replace = Annotated[bool, typer.Option("--replace", help="Replace a table that is already there.")]
Count = Annotated[int, typer.Option(help="How many tiles.")]
Connections = Annotated[int, typer.Option(min=1, help="As the training will open in each process.")]
Workers = Annotated[int, typer.Option(min=0, help="As the training's DataLoader will have; 0 is none.")]
Json = Annotated[bool, typer.Option("--json", help="All of it as JSON, for machines.")]
Picture = Annotated[Path, typer.Option("--out", help="Where the PNG goes.")]


def database(url: str | None) -> Database:
    """The database that is meant; which one, and how it was found, is said."""
    db = Database(url)
    err.print(f"database: {db.name} ({db.source})", markup=False)
    return db


def say_loaded(loaded: Any) -> None:
    """What was loaded, and what is to be known of it."""
    out.print(f"{loaded.table}: {loaded.rows} rows, SRID {loaded.srid}", markup=False)
    for note in loaded.notes:
        err.print(f"[yellow]note:[/] {escape(note)}")


def warn(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object) -> None:
    """A warning as a line; the library's own without the place in the code."""
    where = "" if issubclass(category, PgtilesWarning) else f"{filename}:{lineno}: "
    err.print(f"[yellow]warning:[/] {escape(f'{where}{message}')}")


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done, of those that there are; in a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=err, disable=not err.is_terminal and "PGTILES_PROGRESS" not in os.environ) as bar:
        task = bar.add_task(unit, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def telling(what: str) -> Iterator[Callable[[str], None]]:
    """What is going on, in words; in a terminal."""
    columns = SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=err, disable=not err.is_terminal and "PGTILES_PROGRESS" not in os.environ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda text: bar.update(task, description=text)
