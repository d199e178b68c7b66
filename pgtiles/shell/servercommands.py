"""Commands for a server of one's own, and the demo that needs nothing else."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from ..postgres.server import LocalServer
from ..template import folder
from .terminal import (
    Home,
    Picture,
    err,
    out,
)
from .view import Url

commands = typer.Typer()


@commands.command()
def up(path: Home = None) -> None:
    """Make and start a private PostGIS server from this machine's own PostgreSQL; prints its URL."""
    server = LocalServer(path)
    with err.status("starting the local server"):
        started = server.start()
    err.print(f"{'started' if started else 'already running'}: {escape(str(server.path))}")
    if os.environ.get("PGTILES_URL", server.url) != server.url:
        err.print("[yellow]note:[/] PGTILES_URL names another database, which goes before this one: unset PGTILES_URL")
    out.print(server.url, markup=False)


@commands.command()
def down(path: Home = None) -> None:
    """Stop the local server; its data stays."""
    stopped = LocalServer(path).stop()
    err.print("stopped" if stopped else "it was not running")


@commands.command()
def status(path: Home = None) -> None:
    """Say whether the local server runs, and where."""
    server = LocalServer(path)
    out.print(f"{'running' if server.running else 'down'}: {escape(str(server.path))}")
    if not server.running:
        raise typer.Exit(3)
    out.print(server.url, markup=False)


@commands.command()
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
