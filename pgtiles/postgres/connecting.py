"""One connection: opened so that a dead server is noticed, looked at when it was idle, stopped from beside."""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Self

import psycopg
from psycopg import conninfo
from psycopg.abc import PQGenConn

from ..errors import DataError, PgtilesWarning
from .faults import GONE

# PostGIS reports these mistakes in a NOTICE and goes on with a wrong answer: to us they are errors.
WRONG_PIXELS = re.compile(
    r'clamp|truncat(?!ed to ")|SRID|align|returning (original|NULL)|could not|not found|invalid band',  # names may be cut off
    re.I,
)
# For who says nothing else: a machine that went away without a word is noticed within 30 s.
DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
PATIENCE = 1.0  # seconds, for a server that is asked to stop what it does

_watch: ContextVar[Callable[[], None]] = ContextVar("watch")


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that keeps what the server remarks (psycopg swallows an error raised in a notice handler)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remarks: list[str] = []
        self.add_notice_handler(self._remark)
        self.made = self.well = time.monotonic()  # when it was made, and when it was last well
        self.begin = b""  # what a transaction that reads begins with, once it is known

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
        """Resumed by psycopg every 0.1 s while it waits, which nothing else lets us end before its own time-out."""
        steps = super()._connect_gen(conninfo)
        try:
            waits = next(steps)
            while True:
                ready = yield waits
                _watch.get()()
                waits = steps.send(ready)
        except StopIteration as done:
            made: Self = done.value
            return made

    def _remark(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.sqlstate in GONE:
            return  # a farewell: what was asked for may have come whole before it, and who asks next is told by an error
        if notice.severity_nonlocalized in {"NOTICE", "WARNING"}:
            self.remarks.append(notice.message_primary or "")

    def heed(self) -> None:
        """Raise or warn for the remarks of the statement that just ran."""
        remarks, self.remarks = self.remarks, []
        for text in dict.fromkeys(remarks):
            if WRONG_PIXELS.search(text):
                raise DataError(f"PostGIS gave a notice that means wrong pixels: {text}")
            warnings.warn(f"the server says: {text}", PgtilesWarning, stacklevel=2)


def connect(given: str, watch: Callable[[], None]) -> Connection:
    """A connection in autocommit mode. watch: asked every 0.1 s; what it raises of the driver's errors ends the attempt."""
    token = _watch.set(watch)
    try:
        whole = conninfo.make_conninfo(given, **_defaults(given))
        return Connection.connect(whole, autocommit=True, prepare_threshold=None)
    finally:
        _watch.reset(token)


def _defaults(given: str) -> dict[str, str]:
    known = conninfo.conninfo_to_dict(given)
    if "service" in known or "PGSERVICE" in os.environ:  # a service's settings would yield to these
        return {}
    if "PGCONNECT_TIMEOUT" in os.environ:
        known.setdefault("connect_timeout", os.environ["PGCONNECT_TIMEOUT"])
    return {name: value for name, value in DEFAULTS.items() if name not in known}


def is_over(conn: Connection) -> bool:
    """Whether the server has closed a connection while it was idle: nothing else comes then."""
    with selectors.DefaultSelector() as selector:
        selector.register(conn.pgconn.socket, selectors.EVENT_READ)
        return bool(selector.select(0))


def cancel(conn: Connection, until: float | None = None) -> None:
    """Ask the server to stop what it does for a connection."""
    left = PATIENCE if until is None else until - time.monotonic()
    with suppress(psycopg.Error, OSError):  # a server that is gone does nothing any more
        conn.cancel_safe(timeout=max(left, 0.01))


def hang_up(conn: Connection) -> None:
    """End a connection that another thread waits at: it raises there, at once, whether the server says anything or not."""
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(conn.pgconn.socket)) as same:
        same.shutdown(socket.SHUT_RDWR)
