"""Batches come whole and in their order whatever happens to the server, or the error says what did. Real servers, really killed.

Each test reads with a bound on its time, and compares with what is read in peace.
"""

import logging
import os
import pickle
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial

import numpy as np
import psycopg
import pytest
from conftest import features, scene, write_tiff
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from server_helpers import QUICK, scratch
from waiting import until

from pgtiles import Database, Grid, Imagery, Labels, LocalServer, TileDataset, Tiles, load
from pgtiles.errors import (
    ConfigError,
    DatabaseError,
    DataError,
    OutageError,
    PgtilesWarning,
    PoisonError,
    QueryError,
    SlowError,
)
from pgtiles.postgres.faults import LONGEST, Kind, kind, origin, pauses
from pgtiles.postgres.retrying import Retries
from pgtiles.streaming.reading import Plan, nothing, read_batch
from pgtiles.streaming.surviving import read
from pgtiles.targets import Boxes

ROADS = "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
LAYERS = {"image": Imagery("scene"), "mask": Labels(ROADS), "boxes": Boxes(ROADS)}
BAD = 105  # the tile that does what it should not


def bad(what, id_=BAD):
    """A layer whose query does something at one tile only."""
    return {
        **LAYERS,
        "bad": Labels(f"SELECT tile.geom AS geom FROM tile WHERE CASE tile.id WHEN {id_} THEN {what} ELSE true END"),
    }


KILLS = "pg_terminate_backend(pg_backend_pid())"
SLEEPS = "pg_sleep(60) IS NOT NULL"
RAISES = "1 / (tile.id - 105) > 0"


def same(one, other):
    """Whether two samples are equal in all their bytes."""
    assert one.keys() == other.keys()
    for key, values in one.items():
        if isinstance(values, list):
            assert len(values) == len(other[key])
            for a, b in zip(values, other[key], strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert values.dtype == other[key].dtype
            np.testing.assert_array_equal(values, other[key])


@contextmanager
def within(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def lines(caplog, level):
    return [r.getMessage() for r in caplog.records if r.name == "pgtiles" and r.levelno == level]


@pytest.fixture(autouse=True)
def heard(caplog):
    caplog.set_level(logging.INFO, logger="pgtiles")


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=12, seed=3, first_id=100)


@pytest.fixture(scope="module")
def want(world, tiles):
    """What is read in peace."""
    sample = read_batch(world.db, Plan.open(world.db, tiles, LAYERS), tiles).sample
    assert sample["mask"].any()
    return sample


@pytest.fixture
def make(world, tiles):
    """A database of the test's own sockets, and a plan for some layers."""
    made = []

    def _make(layers=LAYERS, url=world.url, **options):
        made.append(Database(url, **options))
        return made[-1], Plan.open(made[-1], tiles, layers)

    yield _make
    for db in made:
        db.close()


@pytest.fixture
def killer(world):
    """Ends all backends of the world that were begun for pgtiles, or sends them a signal."""
    with psycopg.connect(world.url, autocommit=True) as conn:
        mine = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgtiles'"

        class Killer:
            def end(self, which="true"):
                rows = conn.execute(f"SELECT pg_terminate_backend(pid, 2000) {mine} AND {which}").fetchall()
                return len(rows)

            def pids(self, which="true"):
                return [pid for (pid,) in conn.execute(f"SELECT pid {mine} AND {which}").fetchall()]

        yield Killer()


ACTIVE = "state = 'active'"


class TestClasses:
    @pytest.mark.parametrize(
        ("state", "is_"),
        [
            ("57P01", Kind.LOST), ("57P02", Kind.LOST), ("57P03", Kind.LOST), ("57P05", Kind.LOST), ("53300", Kind.LOST),
            ("08006", Kind.LOST), ("08P01", Kind.LOST), ("40001", Kind.AGAIN), ("40P01", Kind.AGAIN), ("25P03", Kind.AGAIN),
            ("55P03", Kind.AGAIN), ("57014", Kind.SLOW), ("28P01", Kind.PERMANENT), ("3D000", Kind.PERMANENT),
            ("42P01", Kind.PERMANENT), ("22012", Kind.PERMANENT), ("25006", Kind.PERMANENT), ("XX000", Kind.PERMANENT),
            ("53200", Kind.SLOW), ("25P04", Kind.SLOW), ("58030", Kind.PERMANENT),
        ],
    )  # fmt: skip
    def test_by_code_as_the_server_sends_it(self, world, state, is_):
        with psycopg.connect(world.url) as conn, pytest.raises(psycopg.Error) as caught:
            conn.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
        assert caught.value.sqlstate == state
        assert kind(caught.value) is is_

    @pytest.mark.parametrize(
        ("wrong", "is_"),
        [
            ({"password": "wrong"}, Kind.PERMANENT), ({"user": "nobody_here"}, Kind.PERMANENT),
            ({"dbname": "nothing_here"}, Kind.PERMANENT), ({"port": "1"}, Kind.LOST), ({"host": "/no/such/folder"}, Kind.LOST),
            ({"host": "no.such.host.invalid"}, Kind.LOST),
        ],
        ids=str,
    )  # fmt: skip
    def test_a_connection_that_is_not_to_be_had(self, world, wrong, is_):
        if "password" in wrong and not conninfo_to_dict(world.url).get("password"):
            pytest.skip("this server asks for no password")
        with pytest.raises(psycopg.Error) as caught:
            psycopg.connect(make_conninfo(**conninfo_to_dict(world.url) | wrong))
        assert not caught.value.sqlstate
        assert kind(caught.value) is is_

    def test_what_is_no_error_of_the_driver(self):
        assert kind(None) is kind(ValueError("x")) is Kind.PERMANENT
        assert kind(psycopg.ProgrammingError("missing = in a connection string")) is Kind.PERMANENT

    def test_pauses_grow_and_stay_short(self):
        drawn = [[pause for pause, _ in zip(pauses(), range(12), strict=False)] for _ in range(200)]
        for k in range(12):
            longest = min(0.05 * 2**k, LONGEST)
            column = [one[k] for one in drawn]
            assert 0 <= min(column) < 0.2 * longest
            assert 0.8 * longest < max(column) <= longest

    def test_an_error_that_is_its_own_cause(self):
        error = DatabaseError("x")
        error.__cause__ = error
        assert origin(error) is None


class TestLostConnections:
    def test_backends_are_ended_while_they_read(self, world, make, tiles, want, killer, caplog):
        """At one tile or another: none gets past a tile whose lock another session has."""
        waits = "SELECT tile.geom AS geom FROM tile, LATERAL (SELECT pg_advisory_xact_lock_shared(tile.id)) AS waited"
        db, plan = make({**LAYERS, "waits": Labels(waits)})
        for id_ in tiles.ids[[0, 3, 6, 9, 11]].tolist():
            there = f"pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objid = {id_} AND NOT granted)"
            with psycopg.connect(world.url, autocommit=True) as other, ThreadPoolExecutor(1) as thread:
                other.execute(f"SELECT pg_advisory_lock({id_})")
                ended = thread.submit(until, lambda there=there: killer.end(there))
                ended.add_done_callback(lambda _, other=other: other.execute("SELECT pg_advisory_unlock_all()"))
                batch = read(db, plan, tiles)
                assert ended.result() == 1
            assert batch.sample.pop("waits").all()
            same(batch.sample, want)
        assert db.counters.retries == db.counters.reconnects == 5
        assert len(lines(caplog, logging.WARNING)) == len(lines(caplog, logging.INFO)) == 5

    def test_in_a_storm(self, make, tiles, want, killer):
        db, plan = make()

        def kill():
            for _ in range(12):
                time.sleep(0.2)
                killer.end()

        with within(300), ThreadPoolExecutor(2) as threads, ThreadPoolExecutor(1) as storm:
            passing = storm.submit(kill)
            while not passing.done():
                for batch in threads.map(lambda _: read(db, plan, tiles), range(2)):
                    same(batch.sample, want)
            passing.result()
        assert db.counters.reconnects > 0

    def test_in_the_midst_of_a_row(self, make, tiles, want):
        """A relay that cuts after so many bytes: what came is thrown away, and the pages begin anew."""
        db, plan = make()
        known = conninfo_to_dict(db.conninfo)
        size = sum(len(row) for row in db.copy(plan.statement(tiles)))
        for share in (0.0, 0.01, 0.3, 0.7, 0.99):
            with (
                relay(known["host"], int(known["port"]), cut=int(share * size)) as port,
                Database(
                    make_conninfo(db.conninfo, host="127.0.0.1", port=port, sslmode="disable", gssencmode="disable"),
                    timeout=60,
                ) as cut,
                within(50),
            ):
                same(read(cut, plan, tiles).sample, want)
                assert (cut.counters.retries, cut.counters.reconnects) == (1, 1)

    def test_one_that_was_closed_while_it_was_idle_is_no_outage(self, make, tiles, want, killer, caplog):
        db, plan = make()
        same(read(db, plan, tiles).sample, want)
        assert killer.end("state = 'idle'") >= 1
        same(read(db, plan, tiles).sample, want)
        assert (db.counters.retries, db.counters.reconnects) == (0, 1)
        assert not caplog.records

    def test_the_farewell_of_a_server_that_stops_at_once_is_no_remark(self, make):
        """It may come behind the last row of a batch, which is whole then."""
        db, _ = make()
        with db.connection() as conn:
            for state in ("57P01", "57P02"):
                conn.execute(f"DO $$ BEGIN RAISE WARNING 'terminating connection' USING ERRCODE = '{state}'; END $$")
                conn.heed()
            conn.execute("DO $$ BEGIN RAISE WARNING 'terminating connection'; END $$")
            with pytest.warns(PgtilesWarning, match="terminating connection"):
                conn.heed()

    def test_idle_session_timeout(self, make, tiles, want, killer, caplog):
        db, plan = make()
        for times in range(3):
            same(read(db, plan, tiles).sample, want)
            assert (db.counters.retries, db.counters.reconnects) == (0, times)
            with db.connection() as conn:
                conn.execute("SET idle_session_timeout = 100")
                pid = conn.info.backend_pid
            until(lambda pid=pid: pid not in killer.pids())
        assert not caplog.records


def hang_up(end):
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # closing alone would wait for whoever reads from it


@contextmanager
def relay(host, port, *, cut=None):
    """A port that passes bytes on; the first connection that brings rows is cut after so many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        left = [cut]
        open_ = []

        def serve():
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                server = socket.create_connection((host, port))
                open_.extend((client, server))
                threading.Thread(target=forth, args=(client, server), daemon=True).start()
                threading.Thread(target=back, args=(server, client), daemon=True).start()

        def forth(client, server):
            try:
                while data := client.recv(65536):
                    if b"COPY (\nWITH tiles" in data:
                        asked.add(client)
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def back(server, client):
            try:
                while data := server.recv(4096):
                    if client in asked and left[0] is not None:
                        if left[0] <= len(data):
                            client.sendall(data[: left[0]])
                            left[0] = None
                            break
                        left[0] -= len(data)
                    client.sendall(data)
            except OSError:
                pass
            for one in (client, server):
                hang_up(one)

        asked = set()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for one in open_:
            hang_up(one)
            one.close()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A server that a test may kill, with imagery and roads; its URL, tiles and what is read in peace."""
    with scratch() as folder, LocalServer(folder / "server", settings=QUICK) as server, Database(server.url) as db:
        load.raster(db, [write_tiff(tmp_path_factory.mktemp("own") / "scene.tif", scene())], "scene")
        with db.connection() as conn:
            conn.execute("CREATE TABLE roads (way geometry(LineString, 3857), class int)")
            rows = [(line.wkb, 1 + k % 4) for k, line in enumerate(features().lines)]
            conn.cursor().executemany("INSERT INTO roads VALUES (ST_GeomFromWKB(%s, 3857), %s)", rows)
            conn.execute("CREATE INDEX ON roads USING gist (way); ANALYZE roads")
        tiles = Tiles.random(Grid.like(db, "scene", size=64), within=db.extent("scene", 3857), count=8, seed=1)
        plan = Plan.open(db, tiles, LAYERS)
        yield server, tiles, plan, read_batch(db, plan, tiles).sample


def control(server, command, *options):
    server._run("pg_ctl", command, "-s", "-w", "-D", server.data, *options)


def postmaster(server):
    return int((server.data / "postmaster.pid").read_text().split("\n")[0])


class Epoch:
    """Two threads that read the same batch over and over, until they are told to stop."""

    def __init__(self, db, plan, tiles, want):
        self.stop, self.read = threading.Event(), 0

        def run():
            while not self.stop.is_set():
                same(read(db, plan, tiles).sample, want)
                self.read += 1

        self.threads = ThreadPoolExecutor(2)
        self.futures = [self.threads.submit(run) for _ in range(2)]

    def goes_on(self):
        """Until both threads have surely read again."""
        before = self.read
        until(lambda: self.read > before + 4 or any(f.done() for f in self.futures))

    def __enter__(self):
        self.goes_on()
        return self

    def __exit__(self, *_):
        self.stop.set()
        with within(120):
            for future in self.futures:
                future.result()
        self.threads.shutdown()


class TestOutages:
    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_the_server_is_started_anew(self, own, caplog, mode):
        server, tiles, plan, want = own
        with Database(server.url) as db:
            with Epoch(db, plan, tiles, want) as epoch:
                control(server, "stop", "-m", mode)
                time.sleep(1.5)
                control(server, "start", "-l", server.log)
                epoch.goes_on()
            assert db.counters.retries >= 2
            assert db.counters.reconnects >= 1  # one may wait while the other is back, and take over its connection
            assert db.counters.waited > 1
        (lost,), (back,) = lines(caplog, logging.WARNING), lines(caplog, logging.INFO)
        assert "the work goes on when the server is back" in lost
        assert "the work goes on after" in back

    def test_one_killed_backend_disconnects_all(self, own, caplog):
        server, tiles, plan, want = own
        with Database(server.url) as db, Epoch(db, plan, tiles, want) as epoch:
            with psycopg.connect(server.url) as victim:
                os.kill(victim.info.backend_pid, signal.SIGKILL)
                with pytest.raises(psycopg.OperationalError):
                    victim.execute("SELECT 1")
            until(lambda: lines(caplog, logging.WARNING))
            epoch.goes_on()
        assert len(lines(caplog, logging.WARNING)) == len(lines(caplog, logging.INFO)) == 1

    def test_an_attempt_of_the_last_outage_begins_none(self, caplog):
        """Two are refused, and one of them hears of it when the other one has its connection again."""
        retries, trying, over = Retries("db", 60.0), threading.Event(), threading.Event()

        def work(refused):
            try:
                with retries.connecting():
                    if refused:
                        refused.pop()()
                        raise psycopg.OperationalError("refused")
            except psycopg.Error as error:
                raise DatabaseError("refused") from error
            retries.uses(time.monotonic(), time.monotonic())

        def run(*refused):
            retries.run(partial(work, list(refused)), lambda: "a batch", lambda _: None)

        with ThreadPoolExecutor(1) as thread:
            late = thread.submit(run, lambda: (trying.set(), over.wait(60)))
            run(lambda: trying.wait(60))
            over.set()
            late.result()
            assert len(lines(caplog, logging.WARNING)) == len(lines(caplog, logging.INFO)) == 1
            run(bool)
        assert len(lines(caplog, logging.WARNING)) == len(lines(caplog, logging.INFO)) == 2

    def test_gone_for_good(self, own, caplog):
        server, tiles, plan, _ = own
        db = Database(server.url, patience=2)
        control(server, "stop", "-m", "fast")
        try:
            with within(60), pytest.raises(OutageError, match=r"(?s)tiles 0, 1, 2, 3, 4 and 3 more: given up after") as caught:
                read(db, plan, tiles, skip=True)
        finally:
            control(server, "start", "-l", server.log)
        assert isinstance(caught.value, DatabaseError)
        assert db.name in str(caught.value)
        assert "refused" in str(caught.value)
        assert "patience" in str(caught.value)
        assert len(lines(caplog, logging.WARNING)) == 1
        assert 0 < db.counters.waited < 60

    def test_no_connection_is_free_for_a_while(self, own, caplog):
        server, tiles, plan, want = own
        with Database(server.url) as db, psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1; GRANT SELECT ON scene, roads TO few")
            url = make_conninfo(server.url, user="few", password="few")
            taken = psycopg.connect(url)
            with within(120), Database(url) as few, ThreadPoolExecutor(1) as thread:
                freed = thread.submit(until, lambda: few.counters.retries > 2)
                freed.add_done_callback(lambda _: taken.close())
                same(read(few, plan, tiles).sample, want)
                assert freed.result()
            there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'few'"
            until(lambda: conn.execute(there).fetchone() == (0,))
            conn.execute("DROP OWNED BY few; DROP ROLE few")
            same(read(db, plan, tiles).sample, want)
        (warned,) = lines(caplog, logging.WARNING)
        assert "no connection is to be had" in warned

    def test_who_never_answers(self, tiles, world):
        """A port that takes connections and says nothing: neither the deadline nor an interruption waits for it."""
        plan = Plan.open(world.db, tiles, LAYERS)
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            url = f"postgresql://me@127.0.0.1:{deaf.getsockname()[1]}/db?connect_timeout=2"
            db = Database(url, patience=1)
            with within(60), pytest.raises(OutageError, match=r"patience=…"):
                read(db, plan, tiles)
            slow = Database(url.partition("?")[0] + "?connect_timeout=200")
            with ThreadPoolExecutor(1) as thread:
                ident = thread.submit(threading.get_ident).result()
                reading = thread.submit(read, slow, plan, tiles)
                until(lambda: ident in slow._retries._running)
                with within(60):
                    slow.interrupt({ident})
                    with pytest.raises(DatabaseError, match="interrupted"):
                        reading.result()

    @pytest.mark.parametrize("wrong", [{"password": "wrong"}, {"dbname": "nothing"}, {"user": "nobody"}], ids=str)
    def test_what_is_wrong_is_tried_once(self, tiles, world, wrong, caplog):
        if not conninfo_to_dict(world.url).get("password"):
            pytest.skip("this server asks for no password")
        plan = Plan.open(world.db, tiles, LAYERS)
        db = Database(make_conninfo(world.url, **wrong))
        with within(60), pytest.raises(DatabaseError) as caught:
            read(db, plan, tiles, skip=True)
        assert not isinstance(caught.value, OutageError)
        assert db.counters.retries == 0
        assert not caplog.records

    def test_a_table_that_went_away_is_tried_once(self, schema_db, tiles):
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE there AS SELECT * FROM roads; CREATE INDEX ON there USING gist (way)")
        plan = Plan.open(schema_db, tiles, {"mask": Labels("SELECT way AS geom FROM there WHERE way && tile.geom")})
        with schema_db.connection() as conn:
            conn.execute("DROP TABLE there")
        with within(60), pytest.raises(QueryError, match="there"):
            read(schema_db, plan, tiles, skip=True)
        assert schema_db.counters.retries == 0


class TestHanging:
    def test_a_backend_that_is_stopped(self, make, tiles, want, monkeypatch):
        monkeypatch.setattr("pgtiles.postgres.database.GRACE", 0.5)
        db, plan = make(timeout=60)
        same(read(db, plan, tiles).sample, want)
        pid, drop = db._idle[0].info.backend_pid, db._drop

        def dropped(since):  # the connection is given up: who reads again has time
            db.timeout = 60
            drop(since)

        monkeypatch.setattr(db, "_drop", dropped)
        db.timeout = 1
        os.kill(pid, signal.SIGSTOP)
        try:
            with within(50):
                same(read(db, plan, tiles).sample, want)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert (db.counters.retries, db.counters.reconnects) == (1, 1)

    def test_interrupting_does_not_wait_for_it(self, own):
        """All of the server stands still, so that it can't be asked to stop either."""
        server, tiles, plan, _ = own
        with Database(server.url) as db, ThreadPoolExecutor(3) as threads:
            barrier, idents, stopped = threading.Barrier(3), [], threading.Event()

            def begin():
                with db.connection():
                    barrier.wait(60)  # a connection each
                idents.append(threading.get_ident())
                stopped.wait()
                return read(db, plan, tiles)

            reading = [threads.submit(begin) for _ in range(3)]
            try:
                until(lambda: len(idents) == 3)
                pids = [postmaster(server), *(conn.info.backend_pid for conn in db._idle)]
                assert len(pids) == 4
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                try:
                    stopped.set()
                    until(lambda: len(db._busy) == 3)
                    with within(60):
                        db.interrupt(idents)
                        for one in reading:
                            with pytest.raises(DatabaseError):
                                one.result()
                finally:
                    for pid in pids:
                        os.kill(pid, signal.SIGCONT)
            finally:
                stopped.set()


class TestInterrupting:
    def test_who_sleeps_between_two_tries(self, monkeypatch, tiles, world):
        monkeypatch.setattr("pgtiles.postgres.faults.FIRST", 60.0)
        monkeypatch.setattr("pgtiles.postgres.faults.random.uniform", lambda _, longest: longest)
        plan = Plan.open(world.db, tiles, LAYERS)
        db = Database("postgresql://me@127.0.0.1:1/db")
        with ThreadPoolExecutor(1) as thread:
            ident = thread.submit(threading.get_ident).result()
            for times in range(2):  # the thread lives on: what interrupted it is over
                reading = thread.submit(read, db, plan, tiles)
                until(lambda times=times: db._retries._failures > times)
                assert not reading.done()
                with within(30):
                    db.interrupt({ident})
                    with pytest.raises(DatabaseError, match="refused") as caught:
                        reading.result()
                assert not isinstance(caught.value, OutageError)

    def test_who_reads_does_not_try_again(self, make, tiles, killer):
        db, plan = make(bad(SLEEPS))
        with ThreadPoolExecutor(1) as thread:
            ident = thread.submit(threading.get_ident).result()
            reading = thread.submit(read, db, plan, tiles)
            until(lambda: killer.pids(ACTIVE))
            with within(30):
                db.interrupt({ident})
                with pytest.raises(DatabaseError):
                    reading.result()
            until(lambda: not killer.pids(ACTIVE))
        assert db.counters.retries == 0

    def test_a_keyboard_interrupt_passes(self, make, tiles, killer):
        db, plan = make(bad(SLEEPS))

        def interrupts():
            until(lambda: killer.pids(ACTIVE))
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        with within(50), pytest.raises(KeyboardInterrupt), ThreadPoolExecutor(1) as thread:
            thread.submit(interrupts)
            read(db, plan, tiles)
        assert db.counters.retries == 0
        until(lambda: not killer.pids(ACTIVE))


class TestPoison:
    def others(self, tiles, want):
        keep = [k for k, id_ in enumerate(tiles.ids.tolist()) if id_ != BAD]
        return keep, {key: [v[k] for k in keep] if isinstance(v, list) else v[keep] for key, v in want.items()}

    @pytest.mark.parametrize(
        ("what", "options", "error", "says"),
        [
            (KILLS, {}, PoisonError, "given up after 5 attempts"),
            (SLEEPS, {"timeout": 1}, SlowError, "given up after 3 attempts.*canceling statement due to statement timeout"),
            (RAISES, {}, QueryError, "division by zero"),
        ],
        ids=["kills", "sleeps", "raises"],
    )
    def test_it_is_named_or_left_out(self, make, tiles, want, caplog, what, options, error, says):
        db, plan = make(bad(what), **options)
        with within(120), pytest.raises(error, match=rf"(?s)tile {BAD} at \(.*{says}") as caught:
            read(db, plan, tiles)
        assert type(caught.value) is error
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value) == str(error(str(caught.value)))
        assert what == RAISES or db.name in str(caught.value)
        assert ("on_error='skip' leaves such tiles out" in str(caught.value)) == (what != RAISES)
        caplog.clear()
        with within(120):
            batch = read(db, plan, tiles, skip=True)
        ((at, id_, cause),) = batch.skipped
        assert (tiles.ids[at], id_) == (BAD, BAD)
        assert says.rpartition(".*")[2] in cause
        keep, wanted = self.others(tiles, want)
        assert batch.sample.pop("bad").all()
        same(batch.sample, wanted)
        assert batch.sample["tile_id"].tolist() == tiles.ids[keep].tolist()
        assert len([line for line in lines(caplog, logging.WARNING) if f"tile {BAD} at" in line and "left out" in line]) == 1

    def test_a_batch_of_which_none_is_left(self, make, tiles):
        db, plan = make(bad(RAISES))
        batch = read(db, plan, tiles[tiles.ids == BAD], skip=True)
        assert [tile.tile_id for tile in batch.skipped] == [BAD]
        full = read(db, plan, tiles[tiles.ids == BAD + 1]).sample
        assert list(batch.sample) == list(full)
        for key, values in batch.sample.items():
            assert len(values) == 0
            if not isinstance(values, list):
                assert (values.dtype, values.shape[1:]) == (full[key].dtype, full[key].shape[1:])
        same(nothing(plan, tiles).sample, batch.sample)

    def test_counts_are_those_of_one_statement(self, make, tiles):
        db, plan = make(bad(RAISES))
        rest = tiles[tiles.ids != BAD]
        batch, whole = read(db, plan, tiles, skip=True), read_batch(db, plan, rest)
        assert (batch.empty, batch.united) == (whole.empty, whole.united)
        same(batch.sample, whole.sample)

    def test_a_limit_that_the_role_has_already_is_kept(self, world, make, tiles):
        _, plan = make(bad(SLEEPS))
        with (
            Database(f"{world.url}?options=-cstatement_timeout%3D1000") as db,
            within(50),
            pytest.raises(SlowError, match="statement timeout"),
        ):
            read(db, plan, tiles)

    def test_a_limit_leaves_nothing_in_the_session(self, make, tiles):
        db, plan = make(timeout=7)
        read(db, plan, tiles)
        with db.connection() as conn:
            assert conn.execute("SHOW statement_timeout").fetchone() == ("0",)
        rows = db.copy(sql.SQL("SELECT current_setting('statement_timeout')"))
        assert [bytes(row)[6:] for row in rows] == [b"7s"]


class TestSettings:
    @pytest.mark.parametrize(
        "wrong", [{"patience": -1}, {"patience": "5"}, {"timeout": 0}, {"timeout": None}, {"timeout": 1e9}]
    )
    def test_wrong_numbers(self, wrong):
        ((name, value),) = wrong.items()
        with pytest.raises(ConfigError, match=f"^{name}={value!r}: expected seconds"):
            Database("postgresql://x/y", **wrong)

    def test_they_travel(self):
        there = pickle.loads(pickle.dumps(Database("postgresql://x/y", patience=7, timeout=9)))
        assert (there.patience, there.timeout) == (7, 9)

    def test_a_machine_that_vanishes_is_noticed(self, world):
        with Database(world.url) as db, db.connection() as conn:
            known = conn.info.get_parameters()
        assert (known["connect_timeout"], known["keepalives_idle"], known["tcp_user_timeout"]) == ("10", "10", "30000")
        with Database(make_conninfo(world.url, connect_timeout=3, keepalives_idle=77)) as db, db.connection() as conn:
            known = conn.info.get_parameters()
        assert (known["connect_timeout"], known["keepalives_idle"]) == ("3", "77")

    def test_rows_and_bytes_are_counted(self, make, tiles):
        db, plan = make()
        sizes = [len(row) for row in db.copy(plan.statement(tiles))]
        assert (db.counters.rows, db.counters.bytes) == (len(sizes), sum(sizes))
        read(db, plan, tiles)
        assert (db.counters.rows, db.counters.bytes) == (2 * len(sizes), 2 * sum(sizes))


class TestSkipping:
    """What on_error="skip" leaves out, and what it does not."""

    FAILS = "SELECT tile.geom AS geom, 1 / CASE WHEN tile.id = ANY(ARRAY[{}]) THEN 0 ELSE 1 END AS value FROM tile"

    def dataset(self, world, bad, count=24, **options):
        tiles = Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=count, seed=1)
        layers = {"mask": Labels(self.FAILS.format(",".join(map(str, bad)) or "-1"))}
        options = {"tiles": tiles, "shuffle": False, "batch_size": 4, "on_error": "skip"} | options
        return TileDataset(world.url, layers=layers, **options)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("size", [4, None])
    def test_all_others_once_in_their_order(self, world, workers, size):
        bad = [1, 8, 9, 10, 11, 20]  # of one batch all
        dataset = self.dataset(world, bad, batch_size=size)
        got = [i for batch in dataset.loader(num_workers=workers) for i in batch["tile_id"].reshape(-1).tolist()]
        assert got == [i for i in range(24) if i not in bad]
        stats = dataset.stats()
        assert (stats.skipped, list(stats.skipped_ids)) == (6, bad)

    def test_a_tile_that_is_drawn_again_is_skipped_where_it_failed(self, world):
        plain = self.dataset(world, [3], count=6)
        weights = np.array([1.0, 1, 1, 20, 1, 1])
        dataset = self.dataset(world, [3], tiles=plain.tiles.weighted(weights, count=24), batch_size=None)
        got = [int(tile["tile_id"]) for tile in dataset]
        assert 3 not in got
        assert len(got) + dataset.stats().skipped == 24

    def test_where_nothing_is_left_it_is_not_the_tiles(self, world):
        everything = list(range(24))
        with pytest.raises(DataError, match="none of 24 tiles of epoch 0 could be read"):
            list(self.dataset(world, everything))
        with pytest.raises(DataError, match="64 tiles in a row can't be read"):
            list(self.dataset(world, range(200), count=200))

    def test_other_ranks_are_not_left_waiting(self, world):
        dataset = self.dataset(world, [0, 1, 2, 3], rank=0, world_size=2)
        with pytest.raises(DataError, match=r"tiles 0, 1, 2, 3 can't be read, and with them a whole batch"):
            list(dataset)

    def test_a_wrong_query_is_raised_all_the_same(self, world):
        dataset = self.dataset(world, [])
        dataset.plan = replace(dataset.plan, layers=tuple(replace(one, select="SELECT nothing") for one in dataset.plan.layers))
        with pytest.raises(QueryError, match="nothing"):
            list(dataset)
