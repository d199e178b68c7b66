"""OpenStreetMap into the tables that people know, by osm2pgsql, all of it or nothing.

osm2pgsql commits as it goes. So it works in a schema of its own, and what it made is moved to its place in one transaction at
the end: until then everybody reads the old tables, and of a load that fails, or is interrupted, nothing is left.
"""

from __future__ import annotations

import re
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo, sql

from ..errors import ConfigError, LoadError, MissingError, PgtilesError, PgtilesWarning
from ..postgres.connecting import Connection
from ..postgres.database import Database
from ..template import Slot, compose
from . import osm2pgsql
from .newtable import File, Loaded, explained, place_of

KINDS = {"point": "points", "line": "lines", "polygon": "areas", "roads": "main roads, railways or borders"}
FOR_UPDATES = ("nodes", "ways", "rels")
PROPERTIES = "osm2pgsql_properties"  # from version 1.9 on; what it noted of the one load of a schema that can be updated
NAME = re.compile(r"\w[\w -]*")  # osm2pgsql refuses other characters


def osm(
    db: Database,
    file: File,
    *,
    prefix: str = "planet_osm",
    schema: str | None = None,
    srid: int = 3857,
    slim: bool = False,
    replace: bool = False,
    progress: Callable[[str], None] | None = None,
) -> tuple[Loaded, ...]:
    """Load an OpenStreetMap file into the tables that people know: planet_osm_point, _line, _polygon and _roads.

    The program osm2pgsql does it, with the style that it brings. Geometries are in the column ``way``; tags without a column
    of their own are in ``tags``, as ``tags->'lanes'``, for which the extension hstore is made where it is missing.

    With ``slim``, planet_osm_nodes, _ways and _rels stay, which updates need. A note says how to update, for example
    ``osm2pgsql --append --slim --hstore --proj=3857 --prefix='planet_osm' --output-pgsql-schema='public'
    --middle-schema='public' --database=… CHANGES.osc.gz``.

    Args:
        db: where to.
        file: ``.osm.pbf``, or another format that osm2pgsql reads and that its name tells.
        prefix: of the tables' names.
        schema: of the tables; the first of the search_path unless given.
        srid: into which the coordinates are transformed.
        slim: keep what later updates need: it takes less memory, and more time and room.
        replace: drop the tables of that prefix; who may read them may read the new ones.
        progress: is told what osm2pgsql is doing, in its words, about once a second.

    Returns:
        The four tables.

    Raises:
        LoadError: the file can't be loaded, or the tables not be made; the database is as it was before.
        MissingError: no such file or schema.
        ConfigError: an argument is not allowed.
        DependencyError: osm2pgsql is not installed.

    """
    program, path = osm2pgsql.find(), Path(file)
    if not path.is_file():
        raise MissingError(f"there is no file {path}")
    if not path.stat().st_size:
        raise LoadError(f"{path} is empty (0 bytes)")
    _require_name("prefix", prefix, 63 - len("_polygon_osm2pgsql_valid"))
    db.require_postgis()
    load = _Load(db, path, prefix, srid, slim)
    load.prepare(schema, replace)
    try:
        db.close()  # a connection that idles for hours may be cut; the next use opens a new one
        load.run(program, progress)
        return load.take_place()
    except BaseException:  # Ctrl-C too
        load.clean()
        raise


def _require_name(what: str, name: str, longest: int) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{what}={name!r} is not allowed: osm2pgsql takes letters, digits, '_', '-' and spaces")
    if len(name.encode()) > longest:
        raise ConfigError(f"{what}={name!r} has {len(name.encode())} bytes: PostgreSQL's names leave room for {longest}")


def _ask(conn: Connection, statement: str, /, **slots: Slot) -> list[tuple[Any, ...]]:
    return conn.execute(compose(statement, **slots)).fetchall()


class _Load:
    """One load: what osm2pgsql needs, how its tables come to their place, and how nothing is left if they don't."""

    def __init__(self, db: Database, path: Path, prefix: str, srid: int, slim: bool) -> None:
        self.db, self.prefix, self.srid, self.slim = db, prefix, srid, slim
        self.failed = f"{path} was not loaded into {db.name}"
        self.path, self.working = str(path), f"pgtiles_{uuid.uuid4().hex}"
        self.schema, self.old, self.texts, self.notes, self.made_hstore = "", list[str](), dict[str, str](), list[str](), False

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """One transaction, its errors in words that name the file."""
        with self.db.connection() as conn:
            try:
                with conn.transaction():
                    yield conn
            except psycopg.Error as error:
                raise explained(error, self.failed) from error

    def prepare(self, schema: str | None, replace: bool) -> None:
        """Refuse now what would fail after hours; then make the schema in which osm2pgsql works, and hstore."""
        with self._transaction() as conn:
            if not _ask(conn, "srid_known", register=None, code=None, srid=self.srid):
                raise ConfigError(f"srid={self.srid} is not in the database's spatial_ref_sys: give one that is, as 3857")
            for name in (f"{self.prefix}_{kind}" for kind in (*KINDS, *FOR_UPDATES)):
                self.schema, self.texts[name], there = place_of(conn, self.db.name, schema, name, replace, self.path)
                self.old += [name] if there else []
            if self.slim:
                _require_name("schema", self.schema, 63)  # osm2pgsql is to find it again
            self._prepare_properties(conn, replace)
            with conn.transaction() as trial:  # the locks go with it
                self._drop_old(conn)
                raise psycopg.Rollback(trial)
            self._require_rights(conn)
            self._prepare_hstore(conn)
            self.notes += [
                f"schema {left} is of another load, which works there or was killed; if that: DROP SCHEMA {left} CASCADE"
                for (left,) in _ask(conn, "osm_left")
            ]
            conn.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.working)))

    def _prepare_properties(self, conn: Connection, replace: bool) -> None:
        """A schema has room for one load that can be updated: replace its notes with its tables, and never another's."""
        if not _ask(conn, "new_table", schema=self.schema, name=PROPERTIES)[0][3]:
            return
        ((output, prefix),) = _ask(conn, "osm_properties", table=sql.Identifier(self.schema, PROPERTIES))
        if (output, prefix) == ("pgsql", self.prefix):
            self.old += [PROPERTIES] if replace or self.slim else []
        elif self.slim or prefix == self.prefix:
            raise LoadError(
                f"{self.failed}: schema {self.schema} has another load of osm2pgsql's that can be updated (prefix {prefix!r}, "
                f"output {output!r}), and has room for one: name another schema, schema=… (--schema)"
            )

    def _require_rights(self, conn: Connection) -> None:
        ((user, database, schema, may_make, may_use),) = _ask(conn, "osm_rights", schema=self.schema)
        for may, made, where in (may_make, "schemas", f"DATABASE {database}"), (may_use, "tables", f"SCHEMA {schema}"):
            if not may:
                raise LoadError(f"{self.failed}: {user} may not make {made}; the owner can GRANT CREATE ON {where} TO {user}")

    def _prepare_hstore(self, conn: Connection) -> None:
        """The extension, beside PostGIS if it is to be made, where types are found."""
        ((found, there, postgis),) = _ask(conn, "osm_hstore")
        if found:
            return
        if there:
            where = f"{self.db.name}: its extension hstore is in schema {there}, which is not in the search_path"
            raise MissingError(f"{self.path} was not loaded into {where}: ALTER DATABASE … SET search_path = …, {there}")
        try:
            conn.execute(sql.SQL("CREATE EXTENSION hstore SCHEMA {}").format(sql.Identifier(postgis)))
        except psycopg.Error as error:
            todo = "have the database's owner run CREATE EXTENSION hstore; the package postgresql-contrib brings it"
            said = error.diag.message_primary
            raise LoadError(f"{self.failed}: it has no extension hstore, where tags go, and: {said}; {todo}") from error
        self.made_hstore = True

    def run(self, program: Path, progress: Callable[[str], None] | None) -> None:
        """Have osm2pgsql work in its schema."""
        url = conninfo.make_conninfo(self.db.conninfo, application_name=self.working)
        options = ["--create", "--hstore", f"--proj={self.srid}", f"--prefix={self.prefix}"]
        options += [f"--output-pgsql-schema={self.working}", f"--middle-schema={self.working}"]
        options += ["--slim"] if self.slim else []
        try:
            self.notes += osm2pgsql.run(program, url, Path(self.path), options, progress)
        except LoadError as error:
            raise LoadError(f"{self.failed}: {error}; the database is as it was before") from error

    def take_place(self) -> tuple[Loaded, ...]:
        """Move the tables to their place, where the old ones are; who reads these waits for a moment."""
        with self._transaction() as conn:
            loaded = tuple([self._loaded(conn, kind) for kind in KINDS])
            new = [f"{self.prefix}_{kind}" for kind in (*KINDS, *(FOR_UPDATES if self.slim else ()))]
            grants = [grant for name in self.old if name in new for grant in self._grants(conn, name)]
            self._drop_old(conn)
            stays = "" if self.slim else PROPERTIES
            _run(conn, _ask(conn, "osm_move", working=self.working, schema=self.schema, stays=stays))
            _run(conn, grants)
            conn.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(self.working)))
        return loaded

    def _grants(self, conn: Connection, name: str) -> list[tuple[Any, ...]]:
        """The rights to an old table; none where somebody has dropped it meanwhile."""
        table, new = (sql.Identifier(schema, name).as_string() for schema in (self.schema, self.working))
        there = conn.execute(sql.SQL("SELECT to_regclass({})").format(table)).fetchone()
        return _ask(conn, "grants", table=table, new=new) if there and there[0] else []

    def _drop_old(self, conn: Connection) -> None:
        """Drop the tables that are replaced, and the functions of osm2pgsql's that outlive their tables."""
        for name in self.old:
            conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(self.schema, name)))
        functions = [f"{self.prefix}_{kind}_osm2pgsql_valid" for kind in KINDS]
        functions += [f"{self.prefix}_index_bucket", f"{self.prefix}_member_ids"]
        _run(conn, _ask(conn, "osm_functions", schema=self.schema, names=sql.Literal(functions)))

    def _loaded(self, conn: Connection, kind: str) -> Loaded:
        """What is in a table; the first tells what is to be said of the load, each whether it is empty."""
        name = f"{self.prefix}_{kind}"
        table = sql.Identifier(self.working, name)
        ((rows, size),) = _ask(conn, "osm_count", table=table, name=table.as_string())
        notes, self.notes = self.notes, []
        if not rows:
            notes.append(f"{self.path} has no {KINDS[kind]}: {self.texts[name]} is empty")
        if self.slim and kind == "roads":
            where = f"--output-pgsql-schema='{self.schema}' --middle-schema='{self.schema}' --database=…"
            what = f"--append --slim --hstore --proj={self.srid} --prefix='{self.prefix}'"
            notes.append(f"to update the tables: osm2pgsql {what} {where} CHANGES.osc.gz")
        return Loaded(self.texts[name], rows, self.srid, size, tuple(notes))

    def clean(self) -> None:
        """Leave the database as it was before, as far as it answers."""
        try:
            self.db.query(compose("osm_end", application=self.working))
            with self.db.connection() as conn:
                conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(self.working)))
                if self.made_hstore:
                    conn.execute("DROP EXTENSION IF EXISTS hstore")
        except PgtilesError as error:
            left = f"{self.failed}, and what it left could not be removed ({error}): DROP SCHEMA {self.working} CASCADE"
            warnings.warn(left, PgtilesWarning, stacklevel=2)


def _run(conn: Connection, statements: list[tuple[Any, ...]]) -> None:
    for (statement,) in statements:
        conn.execute(statement.encode())
