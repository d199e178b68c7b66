"""Transactions that write blocks: begun again where that helps, and what the driver says of them in words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from psycopg import sql

from ..errors import LoadError, PoisonError, SlowError
from ..postgres.connecting import Connection
from ..postgres.database import Database

T = TypeVar("T")


def again(db: Database, work: Callable[[], T], what: str) -> T:
    """What a transaction of ours gives, begun again where its connection was lost or the server asks for it.

    It may have been committed although nobody said so: it is one that can be done twice.
    """
    try:
        return db.retry(work, lambda: what)
    except (SlowError, PoisonError) as error:  # their advice is about reading
        cause = error.__cause__ or error
        raise cause from cause.__cause__


@contextmanager
def worded(conn: Connection, table: str) -> Iterator[None]:
    """Driver errors in words that name the table, the reason, and what to do."""
    try:
        yield
    except psycopg.Error as error:
        said = ": ".join(filter(None, [error.diag.message_primary or str(error).strip(), error.diag.message_detail]))
        advice = {"53100": "make room on the server's disk", "57014": "it was cancelled"}.get(error.sqlstate or "")
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            user = sql.Identifier(conn.info.user).as_string(None)
            if schema := re.fullmatch(r"permission denied for schema (.+)", said):
                named = sql.Identifier(schema[1]).as_string(None)
                advice = f"have its owner say GRANT USAGE, CREATE ON SCHEMA {named} TO {user}, or this user own the table"
            else:  # must be owner of table …
                advice = f"that is its owner's to do: ALTER … OWNER TO {user}, or have the owner predict"
        raise LoadError(
            f"{table}: {said}; {advice + '. ' if advice else ''}What is there is whole, and the same call goes on from there"
        ) from error
