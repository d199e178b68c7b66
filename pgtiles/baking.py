"""Baking: the rows that batches would send are written into a table instead, on the server; no pixel passes through here.

A chunk of tiles is one transaction, so a process that is killed leaves whole tiles behind and goes on where it was. The user's
queries run in a part of it that is READ ONLY and may write to a temporary table only; what is in it is then cut, digested,
compared and written by statements of ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from .errors import ConfigError, DataError, LoadError, MissingError, PgtilesError, PoisonError, QueryError, SlowError
from .inspection.provenance import sources as sources_of
from .layers.bakedtable import beside, columns, parts_of, settings_for, settings_of
from .layers.canvas import STRIDE
from .layers.describing import Json, differences
from .layers.pixels import Pixels
from .layers.query import Layer, OpenLayer, in_pixels, over
from .layers.timeseries import STAMP, Steps
from .loading.newtable import Progress, explained, place_of
from .postgres.connecting import Connection
from .postgres.database import Database, translated
from .postgres.retrying import TRIES_SLOW
from .streaming.ahead import ahead
from .streaming.reading import Plan, located, read_batch
from .streaming.surviving import called
from .template import compose
from .tiling.grid import whole
from .tiling.tiles import Tiles

CHUNK = 32  # tiles of a transaction
REGISTERED = 10_000  # tiles noted by a statement


@dataclass(frozen=True)
class Baking:
    """What a call of `bake` found and did."""

    table: str
    """Schema and name, quoted where SQL needs it."""
    tiles: int
    """That were asked for: each is one of the next four."""
    baked: int
    """Were not there."""
    refreshed: int
    """Were there, and their sources gave something else."""
    unchanged: int
    """Were there, and their sources gave the same."""
    skipped: int
    """Were there and, without ``refresh``, not looked at."""
    empty: int
    """Of those looked at, have no row in any layer."""


def bake(
    db: Database | str,
    table: str,
    tiles: Tiles,
    layers: Mapping[str, Layer],
    *,
    refresh: bool = False,
    replace: bool = False,
    sources: bool = False,
    connections: int = 2,
    progress: Progress | None = None,
) -> Baking:
    """Write what these layers show on these tiles into a table, on the server, to be read from there (`baked`).

    The table ``schema.name`` holds the rows, ``schema.name_tiles`` the tiles. The same call again, after whatever ended the
    first one, bakes what is missing; other tiles on the same grid are added.

    Args:
        db: where the layers' sources are and the table will be.
        table: ``table``, ``schema.table``, or quoted as in SQL.
        tiles: which tiles, all on one grid.
        layers: as for `TileDataset`.
        refresh: look at the baked tiles too, and bake those again whose sources give something else by now.
        replace: drop the table first, if it is there.
        sources: note for each tile, in the column ``sources`` of the table of tiles, which rows it is made of.
        connections: that bake at the same time, each a chunk of tiles.
        progress: called with the tiles that are done and all of them.

    Raises:
        ConfigError: the table was baked on another grid, of other layers, or has a tile of this id elsewhere.
        LoadError: something else has the table's name, or the server refuses to write.
        QueryError: a layer's query fails on a tile; the error names it. What was baked before stays.

    """
    whole("connections", connections, 1)
    db = db if isinstance(db, Database) else Database(db)
    plan = Plan.open(db, tiles, layers)
    if sources:
        sources_of(db, plan, layers, tiles[:1])  # raises where rows can't be called by anything
    schema, name = _prepare(db, table, tiles, plan, layers, replace, sources)
    work = _Work(db, plan, sql.Identifier(schema, name), beside(schema, name), refresh, layers if sources else None)
    there = {row[0] for row in db.query(compose("bake_pending", tiles=work.tiles, ids=tiles.ids.tolist()))}
    wanted = tiles if refresh else tiles[[i for i, id_ in enumerate(tiles.ids.tolist()) if id_ not in there]]
    chunks = [wanted[k : k + CHUNK] for k in range(0, len(wanted), CHUNK)]
    done = len(tiles) - len(wanted)
    new = changed = same = empty = 0
    if progress:
        progress(done, len(tiles))
    try:
        found = ahead(work.chunk, chunks, threads=connections, interrupt=db.interrupt)
        for chunk, counts in zip(chunks, found, strict=True):
            new, changed, same, empty = new + counts[0], changed + counts[1], same + counts[2], empty + counts[3]
            done += len(chunk)
            if progress:
                progress(done, len(tiles))
    except PgtilesError as error:
        said = f"at least {done} of {len(tiles)} tiles are baked in {table}; the same call goes on from there"
        raise type(error)(f"{error}\n{said}") from error
    looked = new + changed + same  # of the others, some were there before, some another process baked meanwhile
    return Baking(
        work.table.as_string(None),
        len(tiles),
        baked=new,
        refreshed=changed,
        unchanged=same,
        skipped=len(tiles) - looked,
        empty=empty,
    )


@dataclass(frozen=True)
class _Work:
    """What baking a chunk needs besides its tiles."""

    db: Database
    plan: Plan
    table: sql.Identifier
    tiles: sql.Identifier
    refresh: bool
    traced: Mapping[str, Layer] | None  # the layers, where sources are noted

    def chunk(self, tiles: Tiles) -> tuple[int, int, int, int]:
        """Bake some tiles: how many are new, changed, unchanged; and without a row.

        Where the connection is lost, again; where that does not help, tile by tile, so that the error names the one to blame.
        """
        alone = len(tiles) == 1
        try:
            return self.db.retry(lambda: self._once(tiles), lambda: f"baking {called(tiles)}", TRIES_SLOW if alone else 1)
        except (PoisonError, SlowError):
            if alone:
                raise
        new, changed, same, empty = map(sum, zip(*(self.chunk(tiles[k]) for k in range(len(tiles))), strict=True))
        return new, changed, same, empty

    def _once(self, tiles: Tiles) -> tuple[int, int, int, int]:
        """In one transaction, which may be done twice: who finds a tile baked leaves it."""
        with self.db.connection() as conn, _refusals(self.table.as_string(None)), conn.transaction():
            conn.execute(compose("bake_begin"))
            slots = {"tiles": self.tiles, "ids": tiles.ids.tolist(), "again": self.refresh}
            known = dict(conn.execute(compose("bake_lock", **slots)).fetchall())
            tiles = tiles[[i for i, id_ in enumerate(tiles.ids.tolist()) if id_ in known]]
            if not len(tiles):
                return 0, 0, 0, 0
            self._read(conn, tiles)
            rows = "\nUNION ALL\n".join(f"(\n{_kept(n, layer, tiles)}\n)" for n, layer in enumerate(self.plan.layers))
            conn.execute(compose("bake_join", rows=over(tiles, sql.SQL(rows))))
            ids = tiles.ids.tolist()
            changed = [row[0] for row in conn.execute(compose("bake_changed", tiles=self.tiles, ids=ids)).fetchall()]
            if again := [id_ for id_ in changed if known[id_]]:
                conn.execute(compose("bake_drop", table=self.table, ids=again))
            conn.execute(compose("bake_write", table=self.table, ids=changed))
            if self.traced is not None:
                rows_of = sources_of(self.db, self.plan, self.traced, tiles)
                texts: list[str | None] = [json.dumps(rows_of[id_]) for id_ in ids]
                conn.execute(compose("bake_sources", tiles=self.tiles, ids=ids, sources=texts))
            [(empty,)] = conn.execute(compose("bake_empty", ids=ids)).fetchall()
            return len(changed) - len(again), len(again), len(ids) - len(changed), empty

    def _read(self, conn: Connection, tiles: Tiles) -> None:
        """Have the user's queries fill the temporary table, in a part of the transaction that may write to nothing else."""
        statement = compose("bake_live", rows=self.plan.statement(tiles))
        try:
            with translated(self.db), conn.transaction():
                conn.execute("SET LOCAL transaction_read_only = on")  # which can't be taken back in here
                conn.execute(statement, binary=True)  # by the extended protocol, which takes one statement only
            conn.heed()
        except (QueryError, MissingError) as error:
            raise located(self.db, self.plan, tiles, error) from error
        for (tile,) in conn.execute(compose("bake_wrong")).fetchall():
            read_batch(self.db, self.plan, tiles[tile])  # raises, and says which row it is and what to do
            raise DataError(f"tile {tiles.ids[tile]}: its rows changed while they were read: bake it again")


def _kept(number: int, layer: OpenLayer, tiles: Tiles) -> str:
    """The SELECT of a layer's rows as they are kept."""
    if not isinstance(layer.sheet, Pixels | Steps):
        return compose("baked_as_is", layer=number, name=layer.name).as_string(None)
    stamp, stride = (STAMP.size, STRIDE) if isinstance(layer.sheet, Steps) else (0, 2**31 - 1)
    select = compose("baked_joined", layer=number, name=layer.name, stamp=stamp, stride=stride).as_string(None)
    return in_pixels(tiles.at(layer.resolution), select) if layer.resolution else select


def _prepare(
    db: Database, table: str, tiles: Tiles, plan: Plan, layers: Mapping[str, Layer], replace: bool, sources: bool
) -> tuple[str, str]:
    """Have the tables there, and all tiles noted in them: schema and name. Raises where they are of something else."""
    wanted, name = parts_of(table)
    settings = settings_for(tiles.grid, plan.layers, layers, sources)
    with db.connection() as conn:
        try:
            with conn.transaction():
                conn.execute(compose("bake_alone", name=name))
                schema = _tables(conn, db, wanted, name, table, settings, replace)
                rest = beside(schema, name)
                for k in range(0, len(tiles), REGISTERED):
                    some = tiles[k : k + REGISTERED]
                    slots = columns(some)
                    if moved := conn.execute(compose("baked_place", tiles=rest, **slots)).fetchone():
                        raise ConfigError(
                            f"tile {moved[0]} is in {table} already, at another place or time: number these tiles from "
                            "elsewhere (first_id=), name another table, or drop this one with replace=True (--replace)"
                        )
                    corners = dict(zip(("xmins", "ymins", "xmaxs", "ymaxs"), some.bounds.T.tolist(), strict=True))
                    conn.execute(compose("baked_add", tiles=rest, srid=tiles.grid.srid, **slots, **corners))
        except psycopg.Error as error:
            raise explained(error, f"tiles were not baked into {table} of {db.name}") from error
    return schema, name


def _tables(conn: Connection, db: Database, wanted: str | None, name: str, table: str, settings: Json, replace: bool) -> str:
    """The schema in which the tables are; they are made where they are not there, or are to be replaced."""
    [(schema, known, text, kind)] = conn.execute(compose("new_table", schema=wanted, name=name)).fetchall()
    if known and kind:
        _, there = settings_of(db, text)  # what is none of ours stays as it is, replace or not
        if not replace:
            if differ := list(differences(there, settings)):
                raise ConfigError(
                    f"{table} was baked otherwise: {'; '.join(differ[:3])}. Bake into another table, or drop this one with "
                    "replace=True (--replace)"
                )
            return str(schema)
    schema, _, exists = place_of(conn, db.name, wanted, name, replace, "what is to be baked")
    rows, rest = sql.Identifier(schema, name), beside(schema, name)
    if exists:
        conn.execute(sql.SQL("DROP TABLE {}, {}").format(rows, rest))
    conn.execute(compose("baked_tables", table=rows, tiles=rest, srid=settings["grid"]["srid"]))
    conn.execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(rows, json.dumps(settings, indent=1)))
    return schema


@contextmanager
def _refusals(table: str) -> Iterator[None]:
    """What the server does not allow while a chunk is written."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise LoadError(
            f"{table}: {error.diag.message_primary}: baking needs the right to make temporary tables (GRANT TEMPORARY ON "
            "DATABASE), and to SELECT, INSERT, UPDATE and DELETE in both tables"
        ) from error
