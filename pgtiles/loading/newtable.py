"""A table made in one transaction, in the place of an old one if need be.

The rows go into a table under another name. At the very end the old one is dropped and its name taken over: until then
everybody reads the old one, undisturbed, and a load that fails, or is killed, leaves nothing behind.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from ..errors import ConfigError, LoadError, MissingError
from ..postgres import catalog
from ..postgres.connecting import Connection
from ..postgres.database import Database
from ..template import Slot, compose
from .rasterfile import RasterFile
from .vectorfile import VectorFile

Progress = Callable[[int, int], None]
File = str | os.PathLike[str]


@dataclass(frozen=True)
class Loaded:
    """What a load made."""

    table: str
    """Schema and name, quoted where SQL needs it."""
    rows: int
    """Blocks or features."""
    srid: int
    bytes: int
    """On the server's disk, with the index."""
    notes: tuple[str, ...]
    """For the user to read: what was left out or looks wrong, if anything."""


class NewTable:
    """The table while it is being made: statements of ``sql/`` with the slot ``table`` filled by it."""

    def __init__(self, conn: Connection, schema: str, name: str, text: str, exists: bool) -> None:
        self._conn, self.schema, self.name, self.text, self._exists = conn, schema, name, text, exists
        self.working_name = f"pgtiles_{uuid.uuid4().hex}"
        self._table = sql.Identifier(schema, self.working_name)

    def execute(self, statement: str, /, **slots: Slot) -> list[tuple[Any, ...]]:
        """Run the statement; its rows, if it returns any."""
        cursor = self._conn.execute(compose(statement, table=self._table, **slots))
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def rows(self, statement: str) -> Iterator[Callable[[tuple[Any, ...]], None]]:
        """A function that sends a row by the COPY of this name."""
        with self._conn.cursor() as cursor, cursor.copy(compose(statement, table=self._table)) as copy:
            yield copy.write_row

    def remarks(self) -> list[str]:
        """What the server remarked since the last call."""
        remarks, self._conn.remarks = self._conn.remarks, []
        return remarks

    def take_place(self) -> None:
        """Drop the old table and take its name. From here on others wait to read it: what is left should be quick."""
        final, grants = sql.Identifier(self.schema, self.name), []
        if self._exists:
            grants = self._conn.execute(compose("grants", table=final.as_string(), new=self._table.as_string())).fetchall()
            self._conn.execute(sql.SQL("DROP TABLE {}").format(final))
        self._conn.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(self._table, sql.Identifier(self.name)))
        self._table = final
        for (grant,) in grants:
            self._conn.execute(grant.encode())

    def analyze(self) -> int:
        """Have the planner know the table; its size in bytes on the server's disk, with indexes."""
        self._conn.execute(sql.SQL("ANALYZE {}").format(self._table))
        size = sql.SQL("SELECT pg_total_relation_size({}::regclass)").format(sql.Literal(self._table.as_string()))
        return int((self._conn.execute(size).fetchone() or (0,))[0])


@contextmanager
def new_table(db: Database, table: str, replace: bool, source: str) -> Iterator[NewTable]:
    """A table to be filled in one transaction, which is rolled back if anything is raised inside.

    Args:
        db: where.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        replace: whether a table of that name may be dropped.
        source: what is being loaded, for errors.

    Raises:
        LoadError: there is such a table and it may not, or can't, be dropped; or the server refuses something.
        MissingError: there is no such schema, or no PostGIS.
        ConfigError: ``table`` can't be a table's name.

    """
    *schemas, name = catalog.parts(table)
    if len(name.encode()) > 63:
        raise ConfigError(f"table {name!r} has a name of {len(name.encode())} bytes: PostgreSQL allows 63")
    with db.connection() as conn:
        try:
            with conn.transaction():
                schema, text, exists = place_of(conn, db.name, schemas[0] if schemas else None, name, replace, source)
                yield NewTable(conn, schema, name, text, exists)
        except psycopg.Error as error:
            raise explained(error, f"{source} was not loaded into {table} of {db.name}") from error


def place_of(conn: Connection, where: str, schema: str | None, name: str, replace: bool, source: str) -> tuple[str, str, bool]:
    """Schema, full name, and whether there is a table of that name, which can be dropped."""
    row = conn.execute(compose("new_table", schema=schema, name=name)).fetchone()
    schema, known, text, kind = row  # type: ignore[misc]  # always one row
    if schema is None:
        raise MissingError(f"{source} was not loaded: no schema of the search_path is in {where}; name one, as schema.table")
    if not known:
        make = sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)).as_string()
        raise MissingError(f"{source} was not loaded: {where} has no schema {schema!r}; make it with: {make}")
    if kind and not replace:
        raise LoadError(f"{source} was not loaded: {text} is there already; replace=True (--replace) drops it first")
    if kind and kind not in "rp":
        raise LoadError(f"{source} was not loaded: {text} is there already, and no table: name another, or drop it")
    if kind:
        _try_to_drop(conn, sql.Identifier(schema, name))
    return schema, text, bool(kind)


def _try_to_drop(conn: Connection, table: sql.Identifier) -> None:
    """Find out now, not after hours of loading, whether it can be dropped; the lock goes with the savepoint."""
    with conn.transaction() as trial:
        conn.execute(sql.SQL("DROP TABLE {}").format(table))
        raise psycopg.Rollback(trial)


def explained(error: psycopg.Error, what: str) -> LoadError:
    """Driver errors in words that name the source, the reason, and what to do."""
    said = ": ".join(filter(None, [error.diag.message_primary or str(error).strip(), error.diag.message_detail]))
    advice = {
        "42501": "have the owner GRANT CREATE ON SCHEMA (or the table's ownership) to this user",
        "2BP01": "drop what depends on it first; pgtiles drops nothing that it was not told to",
        "53100": "make room on the server's disk",
    }.get(error.sqlstate or "")
    if error.sqlstate == "42501" and "temporary" in said:
        advice = "have the owner GRANT TEMPORARY ON DATABASE to this user"
    return LoadError(f"{what}: {said}; {advice + '; ' if advice else ''}the database is as it was before")


def path_of(file: File) -> str:
    """A file's name for GDAL, which takes more than names of local files; of those, one that is there."""
    name = os.fspath(file)
    if name.startswith("/vsi") or ":" in name:  # /vsicurl/…, s3://…, GTIFF_DIR:2:…: only GDAL can tell
        return name
    if not Path(name).exists():
        raise MissingError(f"there is no file {name}")
    if Path(name).is_file() and not Path(name).stat().st_size:
        raise LoadError(f"{name} is empty (0 bytes)")
    return name


def srid_of(new: NewTable, file: RasterFile | VectorFile, given: int | None, notes: list[str]) -> int:
    """The SRID that is given, or else the file's, which the database knows."""
    register, code = file.authority or (None, None)
    own = new.execute("srid_known", register=register, code=code, srid=None)
    if given is not None:
        if not new.execute("srid_known", register=None, code=None, srid=given):
            raise ConfigError(f"srid={given} is not in the database's spatial_ref_sys: give one that is, as 32631 or 3857")
        if own and own[0][0] != given:
            notes.append(
                f"{file.path}: says that its SRID is {own[0][0]}; srid={given} was given and used, nothing reprojected"
            )
        return given
    if own:
        return int(own[0][0])
    if file.crs is None:
        raise LoadError(f"{file.path} does not say its coordinate system: say it with srid= (--srid), as 32631 or 3857")
    known = f"{register}:{code}, which is not in the database's spatial_ref_sys" if register else "in no register"
    raise LoadError(
        f"{file.path}: its coordinate system, {file.crs}, is {known}: reproject it to one that is (gdalwarp or ogr2ogr "
        "-t_srs EPSG:…), or say with srid= (--srid) which one it is"
    )
