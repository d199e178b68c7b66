"""The same server by its local socket and by TCP: what the way costs on one machine."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from contestants import Contestant, dataset, files, raw_copy
from psycopg import conninfo, sql
from scene import ROADS, Scene, share_without_road
from works import SMALL, Work

from pgtiles import Database, Imagery, Labels, Tiles, errors

SERVER = sql.SQL("SELECT current_setting('unix_socket_directories'), current_setting('port'), pg_postmaster_start_time()::text")


def ways(db: Database) -> dict[str, Database] | str:
    """The database by either way; or why there are not two."""
    (folders, port, started), *_ = db.query(SERVER)
    folder = next((f.strip() for f in folders.split(",") if Path(f.strip(), f".s.PGSQL.{port}").exists()), None)
    if folder is None:
        return f"the server has no socket here: unix_socket_directories is {folders!r}"
    host = conninfo.conninfo_to_dict(db.conninfo).get("host")
    hosts = {"local socket": folder, "TCP": host if host and not str(host).startswith("/") else "127.0.0.1"}
    found = {}
    for way, where in hosts.items():
        found[way] = Database(conninfo.make_conninfo(db.conninfo, host=where, port=port))
        try:
            its = found[way].query(SERVER)[0][2]
        except errors.PgtilesError as error:
            return f"no connection by {way}: {error}"
        if its != started:
            return f"by {way}, {where} leads to another server"
    return found


def both_ways(found: dict[str, Database], scene: Scene, tiles: Tiles) -> Work:
    """Image and mask."""
    layers = {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype="uint8")}
    contestants = [Contestant(f"pgtiles, 2 connections, {way}", partial(dataset, db, layers, 2)) for way, db in found.items()]
    contestants += [
        Contestant(f"raw COPY, {way}", partial(raw_copy, db, layers, table=f"bench_rows_{number}"))
        for number, (way, db) in enumerate(found.items())
    ]
    duels = [(f"{who}, local socket", f"{who}, TCP") for who in ("pgtiles, 2 connections", "raw COPY")]
    truth = partial(files, scene, "bench_plain", {"mask": True}, 0)
    return Work(SMALL, tiles, truth, contestants, duels, share_without_road(scene, tiles))
