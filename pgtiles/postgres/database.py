"""The one seam to the server: connections, transactions, and driver errors turned into ours.

A `Database` holds no socket until it is used, opens its own in every process (an inherited connection gives wrong rows),
pickles, and can be used from several threads. Reading needs SELECT rights only and leaves no session state behind.
"""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import conninfo, sql
from psycopg.pq import ExecStatus, TransactionStatus

from ..errors import ConfigError, DatabaseError, MissingError, PgtilesError, PgtilesWarning, QueryError
from ..template import compose
from . import catalog, connecting, copyout, passwords
from .connecting import Connection
from .retrying import TRIES_SLOW, Counters, Retries
from .translating import translate

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

T = TypeVar("T")

# Dates and times without a zone mean the same on every server; jit costs more than it gives on these statements; one process
# keeps the rows in the order that the SQL asks for.
SERIALIZES = 170000  # the version from which on EXPLAIN can make a statement's rows as they would be sent
BEGIN = b"BEGIN READ ONLY; SET LOCAL timezone = 'UTC'; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0"
LIMIT = b"; SET LOCAL statement_timeout = %d"  # milliseconds
GRACE = 5.0  # seconds for a server to end a statement that is out of time
LONGEST = 2_000_000.0  # seconds that statement_timeout can hold
HEADER = 19  # bytes in front of the first row of a binary COPY


class Database:
    """A PostGIS database, by URL.

    url: ``postgresql://…`` (a driver as in ``postgresql+psycopg://`` is ignored), a libpq string (``host=… dbname=…``), or
    an SQLAlchemy URL or Engine, of which the URL is taken. Nothing given: the environment's ``PGTILES_URL``, then libpq's own
    ``PG*`` variables, then the local server if it runs. ``source`` says which it was. No server is ever started.

    patience: seconds that an outage may last before the reading of batches is given up.
    timeout: seconds that a statement which reads a batch may take; fewer, where the role's own statement_timeout says so. A
        server that says nothing for somewhat longer counts as gone.
    ``counters`` tells what this process has met: `Counters`.
    """

    def __init__(self, url: str | URL | Engine | None = None, *, patience: float = 300.0, timeout: float = 300.0) -> None:
        for name, value, least in (("patience", patience, 0), ("timeout", timeout, 0.001)):
            if isinstance(value, bool) or not (isinstance(value, int | float) and least <= value <= LONGEST):
                raise ConfigError(f"{name}={value!r}: expected seconds, {least} or more")
        self.conninfo, self.source = _resolve(url)
        self.patience, self.timeout = patience, timeout
        self._forget()

    def _forget(self) -> None:
        """Begin anew with what is a process's own."""
        self._pid, self._lock, self._idle = os.getpid(), threading.Lock(), list[Connection]()
        self._busy = dict[Connection, int]()  # in use, and by which thread
        self._retries = Retries(self.name, self.patience)
        weakref.finalize(self, _close, self._idle, self._pid)  # a script need not close what it drops
        _databases.add(self)

    def _begin_in_child(self) -> None:
        self._inherited = self._idle, self._busy  # the sockets are the parent's, and to close them would end its sessions
        self._forget()

    def __getstate__(self) -> dict[str, Any]:
        """All but what is this process's own; passwords only for a child that multiprocessing is about to spawn."""
        state = self._carried()
        return state if get_spawning_popen() else state | {"conninfo": passwords.without(self.conninfo)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, conninfo=passwords.given_back(state["conninfo"]))
        self._forget()

    def __copy__(self) -> Database:
        copy = object.__new__(type(self))
        copy.__setstate__(self._carried())
        return copy

    def __deepcopy__(self, _: Any) -> Database:
        return self.__copy__()

    def _carried(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    @property
    def name(self) -> str:
        """Where it is, without the password: ``user@host:port/dbname``."""
        given = conninfo.conninfo_to_dict(self.conninfo)
        known = {name: given.get(name) or os.environ.get(f"PG{name.upper()}") for name in ("user", "host", "hostaddr", "port")}
        user, port = known["user"], known["port"]
        dbname = given.get("dbname") or os.environ.get("PGDATABASE") or user or ""
        service = given.get("service") or os.environ.get("PGSERVICE")
        where = known["host"] or known["hostaddr"] or (f"service {service}" if service else "local socket")
        return f"{f'{user}@' if user else ''}{where}{f':{port}' if port else ''}/{dbname}"

    def __repr__(self) -> str:
        return f"Database({self.name}, from {self.source})"

    # -- connections

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in autocommit mode that nobody else uses meanwhile; driver errors inside become pgtiles errors."""
        conn = self._waiting() or self._connect()
        conn.remarks.clear()
        with self._lock:
            self._busy[conn] = threading.get_ident()
        try:
            with translated(self):
                self._retries.uses(conn.made, conn.well)
                yield conn
        finally:
            if conn.info.transaction_status == TransactionStatus.ACTIVE:
                connecting.cancel(conn)  # abandoned: else the server goes on until it has something to send
            with self._lock:  # which `interrupt` holds: a connection that is idle is never interrupted
                del self._busy[conn]
                if not conn.closed and conn.info.transaction_status != TransactionStatus.IDLE:
                    conn.close()  # an error or an abandoned COPY: a new connection is certainly clean
                if not conn.closed:
                    conn.well = time.monotonic()
                    self._idle.append(conn)

    def _waiting(self) -> Connection | None:
        """One that waits to be used, unless the server has closed it meanwhile, because it idled or by a restart."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                conn = self._idle.pop()
            if not connecting.is_over(conn):
                return conn
            conn.close()
            self._retries.lost(1)

    def _connect(self) -> Connection:
        with translated(self), self._retries.connecting():
            return connecting.connect(self.conninfo, self._retries.watch)

    def _drop(self, since: float) -> None:
        """Close the connections that wait and have not been well since: what took another one took them too, or will."""
        with self._lock:
            dropped = [conn for conn in self._idle if conn.well < since]
            self._idle[:] = [conn for conn in self._idle if conn.well >= since]
        for conn in dropped:
            conn.close()
        self._retries.lost(len(dropped))

    def retry(self, work: Callable[[], T], what: Callable[[], str], tries_slow: int = TRIES_SLOW) -> T:
        """What `work`, which reads a batch, gives; done again, whole, as long as it fails in a way that passes.

        what: says what it reads, for the error. tries_slow: that it has where the server stops it. Raises `OutageError`,
        `PoisonError` or `SlowError` where it is given up, and at once what would fail again. See `faults` for what passes, and
        `retrying` for how often.
        """
        return self._retries.run(work, what, self._drop, tries_slow)

    def interrupt(self, threads: Collection[int]) -> None:
        """Have these threads, by their identifiers, stop what they wait for, on the server too: it raises there, at once."""
        self._retries.interrupt(threads)
        until = time.monotonic() + connecting.PATIENCE
        with self._lock:
            for conn in [conn for conn, thread in self._busy.items() if thread in threads]:
                connecting.cancel(conn, until)
                connecting.hang_up(conn)

    @property
    def counters(self) -> Counters:
        """What this process has met."""
        return self._retries.counters

    def close(self) -> None:
        """Close the connections that this process holds; the next use opens new ones."""
        with self._lock:
            _close(self._idle, self._pid)

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- statements

    def query(self, statement: sql.Composed | sql.SQL) -> list[tuple[Any, ...]]:
        """All rows of a statement of ours."""
        with self.connection() as conn:
            return conn.execute(statement).fetchall()

    def ask(self, statement: sql.Composable) -> list[tuple[Any, ...]]:
        """All rows of a statement that holds text of the user's, which `describe` has seen: one statement, in READ ONLY."""
        with self.connection() as conn:
            conn.execute(BEGIN)
            rows = conn.execute(statement.as_bytes(conn), binary=True).fetchall()  # the extended protocol takes one statement
            conn.execute("COMMIT")
            conn.heed()
        return rows

    def copy(self, statement: sql.Composable) -> Iterator[memoryview]:
        """The rows of ``COPY (statement) TO STDOUT (FORMAT binary)``, one message each, the header cut off, uncopied.

        BEGIN READ ONLY, settings, COPY and COMMIT are one message: nothing outlives it in the session, so it runs behind a
        transaction pooler and on a standby, and there is one way to the server and back.
        """
        with self.connection() as conn:
            count = size = 0
            try:
                for row in self._rows(conn, conn.begin or self._limited(conn), statement.as_bytes(conn)):
                    data = row if count else row[HEADER:]
                    count += 1
                    if len(data) > 2:  # all but the trailer, a field count of -1
                        size += len(data)
                        yield data
                conn.heed()
            finally:
                self.counters.add(rows=max(count - 1, 0), bytes=size)

    def _rows(self, conn: Connection, begin: bytes, select: bytes) -> Iterator[memoryview]:
        script = b";\n".join([begin, b"COPY (\n" + select + b"\n) TO STDOUT (FORMAT binary)", b"COMMIT"])
        return copyout.rows(conn.pgconn, script, self.timeout + GRACE)

    def _limited(self, conn: Connection) -> bytes:
        """What a batch's transaction begins with on this connection: asked once, what limit the role has already."""
        row = next(rows := self._rows(conn, BEGIN, compose("statement_timeout").as_bytes(conn)))
        list(rows)
        own, ours = int.from_bytes(row[-8:]), round(1000 * self.timeout)
        conn.begin = BEGIN + LIMIT % min(own or ours, ours)
        return conn.begin

    def describe(self, statement: sql.Composable) -> dict[str, str]:
        """Names and types of the columns that a SELECT would give, from Parse and Describe alone.

        This is the gate: the extended protocol takes one statement only, whatever stands in the text, and nothing runs.
        Raises `QueryError`, whose ``position`` is the 1-based character at which the server stopped.
        """
        with self.connection() as conn:
            conn.execute(BEGIN)
            try:
                text = statement.as_bytes(conn)
                for result in (conn.pgconn.prepare(b"", text), conn.pgconn.describe_prepared(b"")):
                    if result.status != ExecStatus.COMMAND_OK:
                        raise psycopg.errors.error_from_result(result, encoding="utf-8")
                columns = [(result.fname(i) or b"", result.ftype(i)) for i in range(result.nfields)]
                oids = sql.Literal([oid for _, oid in columns])
                named = conn.execute(sql.SQL("SELECT oid, typname FROM pg_type WHERE oid = ANY ({}::oid[])").format(oids))
                types = dict(named.fetchall())
            finally:
                if not conn.closed:
                    conn.execute("ROLLBACK")
            return {name.decode(): types[oid] for name, oid in columns}

    def explain(self, statement: sql.Composable) -> dict[str, Any]:
        """The plan with sequential scans avoided wherever an index could serve: one that is left has no index to use."""
        with self.connection() as conn:
            conn.execute(BEGIN)
            conn.execute("SET LOCAL enable_seqscan = off")
            explain = sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) {}").format(statement)
            row = conn.execute(explain, binary=True).fetchone()  # one statement only, as in `ask`
            conn.execute("ROLLBACK")
        return dict(row[0][0]["Plan"]) if row else {}

    def ran(self, statement: sql.Composable, *, timing: bool = False) -> str:
        """What EXPLAIN (ANALYZE, BUFFERS) says of a statement: it runs, and its rows are thrown away on the server.

        timing: of each node too, which makes it slower. Else rows are made as they would be sent, from PostgreSQL 17 on.
        """
        with self.connection() as conn:
            conn.execute(BEGIN)
            rest = "on" if timing else "off, SERIALIZE BINARY" if conn.info.server_version >= SERIALIZES else "off"
            options = sql.SQL("ANALYZE, BUFFERS, TIMING {}").format(sql.SQL(rest))
            rows = conn.execute(sql.SQL("EXPLAIN ({}) {}").format(options, statement), binary=True).fetchall()
            conn.execute("ROLLBACK")
        return "\n".join(line for (line,) in rows)

    # -- what is there

    def table(self, name: str) -> catalog.Table:
        """A table, view or foreign table by its name; `MissingError` with the names that are near where there is none."""
        return catalog.table(self.query, name)

    def lattice(self, table: str, column: str | None = None) -> tuple[int, tuple[float, float], tuple[float, float]]:
        """SRID, resolution (x, y) and origin of the lattice on which a raster table's pixels lie (`Grid.like`)."""
        found = self.table(table)
        return catalog.lattice(self.query, found, found.column("raster", column))

    def rasters(self, table: str, column: str | None = None) -> list[tuple[int, float, float, int, int]]:
        """Key, upper left x and y, width and height of each raster of a table, by key (`Tiles.stored`)."""
        found = self.table(table)
        return catalog.rasters(self.query, found, found.column("raster", column))

    def extent(self, table: str, srid: int, column: str | None = None) -> tuple[float, float, float, float]:
        """xmin, ymin, xmax, ymax of what a table of rasters or geometries holds, in an SRID: a region for `Tiles`."""
        found = self.table(table)
        rasters = any(c.type == "raster" and column in (None, c.name) for c in found.columns)
        return catalog.extent(self.query, found, found.column("raster" if rasters else "geometry", column), srid)

    def require_postgis(self) -> tuple[int, ...]:
        """The version of PostGIS; raises `MissingError` without it or its raster part, and warns of one that burns wrongly."""
        have = dict(self.query(compose("extensions")))
        for name in ("postgis", "postgis_raster"):
            if name not in have:
                raise MissingError(
                    f"{self.name} has no extension {name}, which tiles are made with: have its owner run once\n"
                    f"  CREATE EXTENSION {name} CASCADE;\n(where the server says that it is not available, its machine lacks "
                    "PostGIS's package: postgresql-15-postgis-3 on Debian, for PostgreSQL 15)"
                )
        version = tuple(int(part) for part in re.findall(r"\d+", have["postgis"])[:3])
        if version < (3, 2):
            raise MissingError(f"{self.name} has PostGIS {have['postgis']}: pgtiles needs 3.2 or newer")
        if version < (3, 2, 4) or (3, 3) <= version < (3, 3, 2):
            message = f"PostGIS {have['postgis']} burns some lines wrongly (its bug 5084): update to 3.2.4, 3.3.2 or newer"
            warnings.warn(message, PgtilesWarning, stacklevel=2)
        return version


def _resolve(url: str | URL | Engine | None) -> tuple[str, str]:
    """A libpq connection string, and where it came from."""
    source = "the URL given"
    if url is None:
        from .server import LocalServer

        if url := os.environ.get("PGTILES_URL"):
            source = "PGTILES_URL"
        elif any(name in os.environ for name in ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGPORT")):
            url, source = "", "libpq's PG* variables"
        elif (server := LocalServer()).running:
            url, source = server.url, "the local server"
        else:
            raise DatabaseError(
                "no database is named and no local server runs: give a URL to Database(), set PGTILES_URL or PGHOST, "
                "or start a local server with `pgtiles up`"
            )
    if not isinstance(url, str):  # an SQLAlchemy URL or Engine
        named: URL = getattr(url, "url", None) or url  # type: ignore[assignment]  # an Engine has one
        if named.get_backend_name() != "postgresql":
            raise ConfigError(f"url={named.drivername}://…: expected a PostgreSQL URL, postgresql://user@host:port/dbname")
        named = named.set(drivername="postgresql+psycopg")
        known = named.get_dialect()().create_connect_args(named)[1]
        settings = {name: str(value) for name, value in known.items() if name != "context"}
        return conninfo.make_conninfo("", fallback_application_name="pgtiles", **settings), source
    return passwords.normal(url), source


def _close(idle: list[Connection], pid: int) -> None:
    while idle and pid == os.getpid():  # in a child they are the parent's
        idle.pop().close()


@contextmanager
def translated(db: Database) -> Iterator[None]:
    """Driver errors inside become pgtiles errors that say where, what, and what to do."""
    try:
        yield
    except PgtilesError:
        raise
    except psycopg.Error as error:
        raise translate(error, db.name) from error
    except UnicodeEncodeError as error:
        odd = error.object[error.start : error.end]
        raise QueryError(f"{db.name}: {odd!r} in the statement is in no text of this database ({error.encoding})") from error


_databases = weakref.WeakSet[Database]()


def _after_fork() -> None:
    for db in list(_databases):
        db._begin_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
