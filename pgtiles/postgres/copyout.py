"""COPY … TO STDOUT by libpq itself: a whole transaction in one message, and one call for a row.

`psycopg.Cursor.copy` starts a coroutine and a wait for every row, and BEGIN, COPY and COMMIT go and come one by one. For
thousands of rows a second that was a third of the client's time. `psycopg.pq` is the same library underneath, without them.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterator

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

DONE = ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK


def rows(pgconn: PGconn, script: bytes, silence: float | None = None) -> Iterator[memoryview]:
    """The rows of the COPY in a script of statements, one message each. Once they have ended, all of the script has run.

    silence: seconds after which a server that says nothing counts as gone.
    Who stops earlier leaves the connection in the midst of it, to be closed. Raises what the driver raises for the first
    statement that failed; those after it have not run.
    """

    def wait() -> None:
        if not selector.select(silence):
            raise psycopg.OperationalError(f"the server has said nothing for {silence:g} s")

    with selectors.DefaultSelector() as selector:
        selector.register(pgconn.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        pgconn.send_query(script)
        while pgconn.flush():  # what the server says meanwhile is taken in, else both could wait for the other to read
            wait()
            pgconn.consume_input()
        selector.modify(pgconn.socket, selectors.EVENT_READ)
        failed = None
        while result := _result(pgconn, wait):
            if result.status == ExecStatus.COPY_OUT:
                yield from _messages(pgconn, wait)
            elif result.status not in DONE:
                failed = failed or result
        if failed:
            raise psycopg.errors.error_from_result(failed, encoding="utf-8")


def _messages(pgconn: PGconn, wait: Callable[[], object]) -> Iterator[memoryview]:
    while True:
        size, data = pgconn.get_copy_data(1)
        if size > 0:
            yield data
        elif size < 0:
            return  # the next result says how it ended
        else:
            wait()
            pgconn.consume_input()


def _result(pgconn: PGconn, wait: Callable[[], object]) -> PGresult | None:
    while pgconn.is_busy():
        wait()
        pgconn.consume_input()
    return pgconn.get_result()
