"""The user's own SQL as text: cut into tokens, one statement only, and pointed into where it is wrong. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, QueryError

if TYPE_CHECKING:
    from sqlalchemy import Select, TextClause

TOKEN = re.compile(
    r"(?P<skip>\s+|--[^\n]*)|(?P<comment>/\*)|(?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')|(?P<quoted>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")"
    r"|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|[A-Za-z_0-9$\u0080-\uffff]+|.",
    re.S,
)

UNKNOWN = re.compile("[\\0\\ud800-\\udfff]")  # characters that PostgreSQL's text has not


def text_of(source: str | Select[Any] | TextClause) -> str:
    """A query as plain SQL: without its last semicolon; an SQLAlchemy statement with its parameters written out.

    Raises `QueryError` where a second statement follows, or a bracket closes that was never opened: the query stands in
    brackets of ours.
    """
    text = source if isinstance(source, str) else _rendered(source)
    if odd := UNKNOWN.search(text):
        raise QueryError(f"the query holds {odd[0]!r}, which no database can: take it out")
    depth, ends = 0, list[int]()  # where the semicolons are that end it
    empty = True
    for start, token in _tokens(text):
        depth += (token == "(") - (token == ")")
        if depth < 0:
            raise QueryError(f"the query closes a bracket that it never opened\n{pointer(text, start + 1)}")
        if ends and token != ";":
            raise QueryError(f"the query holds more than one statement: give one SELECT\n{pointer(text, ends[0] + 1)}")
        ends += [start] if token == ";" else []
        empty = empty and token == ";"
    if empty:
        raise QueryError("the query is empty: expected a SELECT that gives geom or rast")
    for end in ends:
        text = f"{text[:end]} {text[end + 1 :]}"
    return text


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Start and text of each token but blanks and comments, as PostgreSQL's lexer cuts them (its manual, section 4.1)."""
    at = 0
    while match := TOKEN.match(text, at):
        if match["comment"]:  # comments nest
            depth, end = 1, match.end()
            while depth and (inner := re.compile(r"/\*|\*/").search(text, end)):
                depth, end = depth + (1 if inner[0] == "/*" else -1), inner.end()
            at = end if not depth else len(text)
            continue
        if not match["skip"]:
            yield at, match[0]
        at = match.end()


def _rendered(statement: Select[Any] | TextClause) -> str:
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.exc import CompileError

    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # as named, it doubles no percent sign
    dialect._backslash_escapes = False  # as on every server since 9.1, where standard_conforming_strings is on
    try:
        text = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    except (CompileError, NotImplementedError) as error:
        raise ConfigError(f"the SQLAlchemy statement can't be written out as SQL: {error}") from error
    return text


def pointer(text: str, position: int) -> str:
    """The line of the text that holds the 1-based character, with a caret below it."""
    before = text[: position - 1]
    number, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1)
    line = (text.splitlines() or [""])[min(number, len(text.splitlines())) - 1]
    return f"  line {number}: {line}\n{' ' * (len(f'  line {number}: ') + column)}^"
