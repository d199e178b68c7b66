"""The page of the command line, written from the commands themselves while the site is built."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from pgtiles.shell.cli import typer_app

MARK = "<!-- commands -->"  # where in a page they go


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the commands where a page asks for them."""
    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, "\n\n".join(_command("pgtiles", get_command(typer_app))))


def _command(name: str, command: Any) -> Iterator[str]:
    """The command in Markdown, or those below it: how it is written, what it does, what it takes."""
    if below := getattr(command, "commands", None):
        for word, sub in below.items():
            yield from _command(f"{name} {word}", sub)
        return
    takes = [parameter for parameter in command.params if parameter.name != "help"]
    usage = [name, *(_written(p) for p in takes if p.param_type_name == "argument")]
    usage += ["[OPTIONS]"] if any(p.param_type_name == "option" for p in takes) else []
    yield f"## `{name}`"
    yield f"```text\n{' '.join(usage)}\n```"
    yield " ".join((command.help or "").split())
    if takes:
        terms = "\n\n".join(f"`{_written(p)}`\n:   {_meaning(p)}" for p in takes)
        yield f'<div class="doc-contents" markdown>\n\n{terms}\n\n</div>'


def _written(parameter: Any) -> str:
    """As one types it: FILES…, --replace, --srid …"""
    if parameter.param_type_name == "argument":
        word = parameter.name.upper() + ("…" if parameter.nargs == -1 else "")
        return word if parameter.required else f"[{word}]"
    return ", ".join(parameter.opts) + ("" if parameter.is_flag else " …")


def _meaning(parameter: Any) -> str:
    """What it means, and what it is unless given."""
    means = " ".join((parameter.help or "").split())
    told = parameter.param_type_name == "option" and parameter.default not in (None, False, ())
    return f"{means} Default: `{parameter.default}`." if told else means
