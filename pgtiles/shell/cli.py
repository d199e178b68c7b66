"""The command ``pgtiles``: from a shell what the library does from Python. Each command calls one function."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated

import typer
from rich.markup import escape

from .. import __version__
from ..errors import PgtilesError
from . import loadcommands, lookcommands, mapcommands, servercommands
from .terminal import err, out, warn

typer_app = typer.Typer(
    no_args_is_help=True, invoke_without_command=True, pretty_exceptions_enable=False, add_completion=False,
    help="Tiles, imagery and labels straight out of PostGIS. The database is the one of --url, PGTILES_URL, "
         "libpq's PG* variables, or the running local server.",
)  # fmt: skip
for group in (servercommands, loadcommands, lookcommands, mapcommands):
    typer_app.add_typer(group.commands)


@typer_app.callback()
def main(version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False) -> None:
    """What stands before a command."""
    if version:
        out.print(f"pgtiles {__version__}")
        raise typer.Exit


def app() -> None:
    """Run the command; an error of ours, or of the system's, is one message on stderr and exit code 1, not a traceback."""
    warnings.showwarning = warn
    try:
        typer_app()
    except (PgtilesError, OSError) as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(1)
