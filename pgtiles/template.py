"""The SQL of pgtiles: files of ``sql/``, composed with typed values. The only module that knows where they lie.

A file is plain SQL with slots in braces. A slot takes a value (sent as a literal, typed by a cast in the file), an
`psycopg.sql.Identifier`, or a piece of SQL. Nothing is ever pasted as text: names and values are quoted by psycopg.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from psycopg import sql

Slot = sql.Composable | str | int | float | bool | list[int] | list[float] | list[str | None] | None


@cache
def folder(name: str = "sql") -> Path:
    """Where a folder that travels with the package lies: inside it when installed, beside it in a checkout."""
    here = Path(__file__).parent
    return here / name if (here / name).is_dir() else here.parent / name


@cache
def _read(name: str) -> str:
    return (folder() / f"{name}.sql").read_text(encoding="utf-8")


def compose(name: str, /, **slots: Slot) -> sql.Composed:
    """The statement in ``sql/{name}.sql`` with its slots filled, without the comment that heads the file."""
    text = _read(name)
    while text.startswith("--"):  # the header is for readers of the file: it need not travel with every batch
        text = text.partition("\n")[2]
    composed = {key: value if isinstance(value, sql.Composable) else sql.Literal(value) for key, value in slots.items()}
    return sql.SQL(text.strip()).format(**composed)
