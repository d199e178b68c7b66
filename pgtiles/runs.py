"""Runs as rows: which model, of which layers and settings, predicted what, when, and how good it is.

The table ``run`` stands in the schema of the tables of predictions, whose rows refer to it. It is made when it is first needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import sql

from .errors import LoadError, MissingError
from .postgres.connecting import Connection
from .postgres.database import Database
from .template import Slot, compose
from .tiling.grid import Bounds
from .tiling.tiles import Tiles

NAME = "run"  # of the table
WRITING: list[str | None] = ["SELECT", "INSERT", "UPDATE", "DELETE"]  # rights
COLUMNS = ("id", "name", "model", "layers", "settings", "tiles", "classes", "metrics", "done", "began", "ended", "area")


@dataclass(frozen=True)
class Run:
    """A run, as the table ``run`` has it."""

    id: int
    name: str
    """One of its own in its schema."""
    model: str
    """A digest of its weights; see `pgtiles.predict`."""
    layers: dict[str, Any]
    """What the model saw, as the user asked for it."""
    settings: dict[str, Any]
    tiles: str
    """A fingerprint of the tiles and their grid."""
    classes: dict[int, str]
    """Names of the values."""
    metrics: dict[str, Any]
    """What scores found."""
    done: int
    """Rows of blocks that are finished."""
    began: datetime
    ended: datetime | None
    """None while it is not finished."""


def fingerprint(tiles: Tiles) -> str:
    """A digest of the tiles' grid, places and times, in whatever order they come."""
    order = np.lexsort((tiles.cols, tiles.rows))
    digest = hashlib.sha256(json.dumps(asdict(tiles.grid)).encode())
    for array in (tiles.cols, tiles.rows, *(() if tiles.times is None else (tiles.times,))):
        digest.update(np.ascontiguousarray(array[order]).tobytes())
    return digest.hexdigest()


def find(db: Database | str, table: str, name: str) -> Run:
    """The run of a name, in the schema of a table of predictions. Raises `MissingError`, with the names there are."""
    db = db if isinstance(db, Database) else Database(db)
    runs = sql.Identifier(db.table(table).schema, NAME)
    with db.connection() as conn:
        _require_ours(conn, runs, writing=False)
        if run := found(conn, runs, name):
            return run
        names = [repr(name) for (name,) in conn.execute(compose("run_names", runs=runs)).fetchall()]
    raise MissingError(f"{runs.as_string(None)} has no run {name!r}; there are {', '.join(names) or 'none'}")


def measured(db: Database | str, table: str, name: str, metrics: Mapping[str, Any]) -> None:
    """Note figures with a run: they are added to what its metrics hold, or replace what has the same names."""
    db = db if isinstance(db, Database) else Database(db)
    run = find(db, table, name)
    runs = sql.Identifier(db.table(table).schema, NAME)
    db.query(compose("run_measured", runs=runs, name=run.name, metrics=json.dumps(metrics)))


def found(conn: Connection, runs: sql.Identifier, name: str) -> Run | None:
    """The run of this name, if there is one."""
    row = conn.execute(compose("run_found", runs=runs, name=name)).fetchone()
    if row is None:
        return None
    run = dict(zip(COLUMNS, row, strict=False))
    return Run(**run | {"classes": {int(value): text for value, text in run["classes"].items()}})


def have_table(conn: Connection, schema: str) -> sql.Identifier:
    """The table of runs, which is made where it is not there yet; `LoadError` where something else has its name."""
    runs = sql.Identifier(schema, NAME)
    conn.execute(compose("run_alone", schema=schema))
    if not _require_ours(conn, runs):
        for statement in _definition(schema):
            conn.execute(statement)
    return runs


def new(
    conn: Connection, runs: sql.Identifier, *, name: str, model: str, layers: Any, settings: Any, classes: Mapping[int, str],
    tiles: Tiles, box: Bounds,
) -> Run:  # fmt: skip
    """Note a run that begins."""
    said = {"layers": json.dumps(layers), "settings": json.dumps(settings), "classes": json.dumps(classes)}
    corners = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    slots: dict[str, Slot] = {"runs": runs, "name": name, "model": model, "tiles": fingerprint(tiles), "srid": tiles.grid.srid}
    conn.execute(compose("run_new", **slots, **said, **corners))
    run = found(conn, runs, name)
    assert run is not None
    return run


def there(conn: Connection, table: str, rights: list[str | None] = WRITING) -> tuple[str | None, list[str], list[str], str]:
    """Of a table by its quoted name: its relkind, if there is one; its columns; which rights are lacking; and to whom."""
    [row] = conn.execute(compose("run_there", table=table, rights=rights)).fetchall()
    kind, columns, lacking, user = row
    return kind, columns, lacking, user


def require_rights(what: str, kind: str | None, lacking: list[str], user: str, table: sql.Identifier) -> None:
    """`LoadError`, with the GRANT to ask for, where this user may not write to a table that is there."""
    if kind and lacking:
        grant = sql.SQL("GRANT {} ON {} TO {}").format(
            sql.SQL(", ".join(lacking)),
            table,
            sql.Identifier(user),
        )
        raise LoadError(f"{what}: this user may not write to it; have its owner say {grant.as_string(None)}")


def _require_ours(conn: Connection, runs: sql.Identifier, *, writing: bool = True) -> bool:
    """Whether the table is there; `LoadError` where something else has its name, or this user may not write to it."""
    name = runs.as_string(None)
    kind, columns, lacking, user = there(conn, name)
    if kind and (missing := [column for column in COLUMNS if column not in columns]):
        raise LoadError(
            f"{name} is there already and is no table of runs (it lacks {', '.join(missing[:3])}), which would be called so: "
            "predict into another schema, or rename that table"
        )
    if writing:
        require_rights(name, kind, lacking, user, runs)
    return bool(kind)


def _definition(schema: str) -> list[bytes]:
    """CREATE TABLE, and what it says of itself."""
    import sqlalchemy as sa
    from geoalchemy2 import Geometry
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable, SetTableComment

    json_, now = postgresql.JSONB, sa.func.now()
    table = sa.Table(
        NAME,
        sa.MetaData(),
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("layers", json_, nullable=False),
        sa.Column("settings", json_, nullable=False),
        sa.Column("tiles", sa.Text, nullable=False),
        sa.Column("classes", json_, nullable=False),
        sa.Column("metrics", json_, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("done", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("began", sa.TIMESTAMP(timezone=True), nullable=False, server_default=now),
        sa.Column("ended", sa.TIMESTAMP(timezone=True)),
        sa.Column("area", Geometry("POLYGON", 4326, spatial_index=False)),
        schema=schema,
        comment="Runs of models whose predictions are in tables of this schema: their column run is the id here",
    )
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]  # as named, it doubles no percent sign
    statements: list[Any] = [CreateTable(table), SetTableComment(table)]
    return [str(statement.compile(dialect=dialect)).encode() for statement in statements]
