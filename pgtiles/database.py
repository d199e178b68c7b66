"""The one seam to the server: connections, transactions, and driver errors turned into ours.

A `Database` holds no socket until it is used, opens its own in every process (an inherited connection gives wrong rows),
pickles, and can be used from several threads. Reading needs SELECT rights only and leaves no session state behind.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import conninfo, sql
from psycopg.pq import ExecStatus, TransactionStatus

from . import catalog, copyout
from .errors import ConfigError, DatabaseError, DataError, MissingError, PgtilesError, PgtilesWarning, QueryError
from .template import compose

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

# PostGIS reports these mistakes in a NOTICE and goes on with a wrong answer: to us they are errors.
WRONG_PIXELS = re.compile(
    r'clamp|truncat(?!ed to ")|SRID|align|returning (original|NULL)|could not|not found|invalid band',  # names may be cut off
    re.I,
)


FILES = re.compile(r"offline (raster|band)|VSICURL disabled|from GDAL raster", re.I)
IN_FILES = (
    "the pixels stay in a file that the server opens (out-db): is it still there and whole, and may the account that the "
    "server runs as read it? If it was moved, load it again. Formats are the setting postgis.gdal_enabled_drivers (with "
    "VSICURL for URLs), and postgis.enable_outdb_rasters must be on: ALTER DATABASE … SET …"
)
TOO_LARGE = re.compile(r"exceed the maximum \(65535|invalid memory alloc request size|out of memory", re.I)


# What PostGIS says of geometries that it can't place or widen, and what to do about it.
GEOMETRIES = (
    (r"unknown \(0\) SRID", "a geometry says not where it lies (SRID 0): ST_SetSRID(geom, 4326) says so in the query"),
    (r"Unknown geometry type", "flatten it in the query: (ST_Dump(geom)).geom gives the faces of a surface one by one"),
    (
        r"[Ii]nvalid coordinate|projection domain|tolerance condition",
        "a coordinate is not a number, or lies where its SRID or the tiles' is not defined: mend it, leave its row out, or cut "
        "it, ST_Intersection(geom, <the land at hand>)",
    ),
)


# Dates and times without a zone mean the same on every server; jit costs more than it gives on these statements; one process
# keeps the rows in the order that the SQL asks for.
SERIALIZES = 170000  # the version from which on EXPLAIN can make a statement's rows as they would be sent
BEGIN = b"BEGIN READ ONLY; SET LOCAL timezone = 'UTC'; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0"


PATIENCE = 5.0  # seconds, for a server that is asked to stop a statement


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """A connection that keeps what the server remarks (psycopg swallows an error raised in a notice handler)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.remarks: list[str] = []
        self.add_notice_handler(self._remark)

    def _remark(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized in {"NOTICE", "WARNING"}:
            self.remarks.append(notice.message_primary or "")

    def heed(self) -> None:
        """Raise or warn for the remarks of the statement that just ran."""
        remarks, self.remarks = self.remarks, []
        for text in dict.fromkeys(remarks):
            if WRONG_PIXELS.search(text):
                raise DataError(f"PostGIS gave a notice that means wrong pixels: {text}")
            warnings.warn(f"the server says: {text}", PgtilesWarning, stacklevel=2)


class Database:
    """A PostGIS database, by URL.

    url: ``postgresql://…`` (a driver as in ``postgresql+psycopg://`` is ignored), a libpq string (``host=… dbname=…``), or
    an SQLAlchemy URL or Engine, of which the URL is taken. Nothing given: the environment's ``PGTILES_URL``, then libpq's own
    ``PG*`` variables, then the local server if it runs. ``source`` says which it was. No server is ever started.
    """

    def __init__(self, url: str | URL | Engine | None = None) -> None:
        self.conninfo, self.source = _resolve(url)
        self._forget()

    def _forget(self) -> None:
        self._pid, self._lock, self._idle = os.getpid(), threading.Lock(), list[_Connection]()
        self._busy = dict[_Connection, int]()  # in use, and by which thread
        weakref.finalize(self, _close, self._idle, self._pid)  # a script need not close what it drops

    def __getstate__(self) -> dict[str, str]:
        return {"conninfo": self.conninfo, "source": self.source}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__dict__.update(state)
        self._forget()

    @property
    def name(self) -> str:
        """Where it is, without the password: ``user@host:port/dbname``."""
        given = conninfo.conninfo_to_dict(self.conninfo)
        known = {name: given.get(name) or os.environ.get(f"PG{name.upper()}") for name in ("user", "host", "hostaddr", "port")}
        user, port = known["user"], known["port"]
        dbname = given.get("dbname") or os.environ.get("PGDATABASE") or user or ""
        where = known["host"] or known["hostaddr"] or "local socket"
        return f"{f'{user}@' if user else ''}{where}{f':{port}' if port else ''}/{dbname}"

    def __repr__(self) -> str:
        return f"Database({self.name}, from {self.source})"

    # -- connections

    @contextmanager
    def connection(self) -> Iterator[_Connection]:
        """A connection in autocommit mode that nobody else uses meanwhile; driver errors inside become pgtiles errors."""
        if self._pid != os.getpid():  # forked: the sockets are the parent's, and to close them would end its sessions
            inherited = self._idle
            self._forget()
            self._inherited = inherited
        with self._lock:
            conn = self._idle.pop() if self._idle else None
        conn = conn or self._connect()
        conn.remarks.clear()
        self._busy[conn] = threading.get_ident()
        try:
            with translated(self):
                yield conn
        finally:
            if conn.info.transaction_status == TransactionStatus.ACTIVE:
                _cancel(conn)  # abandoned: else the server goes on until it has something to send
            with self._lock:  # which `interrupt` holds: a connection that is idle is never interrupted
                del self._busy[conn]
                if not conn.closed and conn.info.transaction_status != TransactionStatus.IDLE:
                    conn.close()  # an error or an abandoned COPY: a new connection is certainly clean
                if not conn.closed:
                    self._idle.append(conn)

    def interrupt(self, threads: Collection[int]) -> None:
        """Have the server stop whatever these threads, by their identifiers, wait for: it raises there, at once."""
        with self._lock:
            for conn in [conn for conn, thread in self._busy.items() if thread in threads]:
                _cancel(conn)

    def _connect(self) -> _Connection:
        with translated(self):
            return _Connection.connect(self.conninfo, autocommit=True, prepare_threshold=None)

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
            script = b";\n".join([BEGIN, b"COPY (\n" + statement.as_bytes(conn) + b"\n) TO STDOUT (FORMAT binary)", b"COMMIT"])
            first = True
            for row in copyout.rows(conn.pgconn, script):
                data = row[19:] if first else row
                first = False
                if len(data) > 2:  # all but the trailer, a field count of -1
                    yield data
            conn.heed()

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
            row = conn.execute(sql.SQL("EXPLAIN (FORMAT JSON, VERBOSE) {}").format(statement)).fetchone()
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
            rows = conn.execute(sql.SQL("EXPLAIN ({}) {}").format(options, statement)).fetchall()
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
            raise ConfigError(f"{named!r}: expected a PostgreSQL URL, postgresql://user@host:port/dbname")
        named = named.set(drivername="postgresql+psycopg")
        known = named.get_dialect()().create_connect_args(named)[1]
        settings = {name: str(value) for name, value in known.items() if name != "context"}
        return conninfo.make_conninfo("", fallback_application_name="pgtiles", **settings), source
    if scheme := re.match(r"(\w+)(?:\+\w+)?://", url):
        if scheme[1] not in {"postgresql", "postgres"}:
            raise ConfigError(f"url={scheme[0]}…: expected postgresql://user@host:port/dbname")
        url = f"postgresql://{url[scheme.end() :]}"
    try:
        return conninfo.make_conninfo(url, fallback_application_name="pgtiles"), source
    except psycopg.ProgrammingError as error:
        said = re.sub(r'".*"', '"…"', str(error).strip())  # libpq quotes what it stumbles over: maybe the password
        raise ConfigError(f"url: {said}; expected postgresql://user@host:port/dbname") from None


def _close(idle: list[_Connection], pid: int) -> None:
    while idle and pid == os.getpid():  # in a child they are the parent's
        idle.pop().close()


def _cancel(conn: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error, OSError):  # a server that is gone does nothing any more
        conn.cancel_safe(timeout=PATIENCE)


@contextmanager
def translated(db: Database) -> Iterator[None]:
    """Driver errors inside become pgtiles errors that say where, what, and what to do."""
    try:
        yield
    except PgtilesError:
        raise
    except psycopg.Error as error:
        raise _translate(error, db.name) from error


def _translate(error: psycopg.Error, where: str) -> PgtilesError:
    state, diag = error.sqlstate or "", error.diag
    said = " ".join(filter(None, [diag.message_primary or str(error).strip(), diag.message_detail]))
    if (remote := (diag.context or "").partition("remote SQL command: "))[1]:
        said += f"\nthat is what the server of a foreign table said; it was sent: {remote[2]}"
    if not state and isinstance(error, psycopg.OperationalError):
        hint = "is the server up, and does it listen there?"
        if "password" in said or "authentication" in said or "pg_hba" in said:
            hint = "check the user and the password (in the URL, PGPASSWORD or ~/.pgpass)"
        elif "does not exist" in said:
            hint = "check the database's and the user's name"
        return DatabaseError(f"{where}: {said}\n{hint}")
    if state == "42501":
        return QueryError(f"{where}: {said}: have its owner GRANT SELECT (and USAGE on the schema) to this user")
    if state in {"08000", "08001", "08003", "08006", "HV00N"}:  # our own connection, where it is lost, gives no code
        return DatabaseError(
            f"{where} is up, but another server, on which a foreign table of it lies, can't be reached: {said}\n"
            "is that one up? Its address is in ALTER SERVER … OPTIONS (SET host …), the user in ALTER USER MAPPING …"
        )
    if state[:2] in {"08", "53", "57", "58", "28", "3D"} or not state:
        return DatabaseError(f"{where}: {said}")
    hint = diag.message_hint or ""
    if TOO_LARGE.search(said):
        hint = (
            "\na raster holds at most 65535 pixels a side and 1 GB. A line is burned in whole segments: cut very long ones, "
            "ST_Segmentize(geom, 1000), or buffer the line; store imagery in blocks (pgtiles load raster makes them of 128 px)"
        )
    hint = next((f"\n{text}" for pattern, text in GEOMETRIES if re.search(pattern, said)), hint)
    if FILES.search(said):
        return MissingError(f"{where}: {said.partition(': ')[2] or said}\n{IN_FILES}")
    query = QueryError(" ".join(filter(None, [said, hint])))
    query.position = int(diag.statement_position) if diag.statement_position else None
    return query
