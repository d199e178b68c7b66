"""A server of the fault tests' own, what is done to it, and who does it meanwhile."""

import os
import random
import signal
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import psycopg
import pytest
import rasterio
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rasterio.transform import from_origin
from server_helpers import QUICK
from streams import RES, SIDE, X0, Y0
from waiting import until

from pgtiles import Database, load
from pgtiles.postgres.programs import run
from pgtiles.postgres.server import LocalServer

# As max_connections is small, all slots are soon taken.
SETTINGS = QUICK | {"max_connections": "48", "superuser_reserved_connections": "3", "log_min_messages": "warning"}
SLACK = float(os.environ.get("PGTILES_FAULT_SLACK", "1"))  # by how much promised seconds stretch where other work goes on

WORLD = f"""
CREATE ROLE trainer LOGIN PASSWORD 'trainer';
GRANT pg_read_all_data TO trainer;
SELECT setseed(0.5);
CREATE TABLE roads AS
    SELECT i AS id, 1 + i % 4 AS class, ST_SetSRID(ST_MakeLine(
        ST_MakePoint({X0} + random() * {SIDE * RES}, {Y0} - random() * {SIDE * RES}),
        ST_MakePoint({X0} + random() * {SIDE * RES}, {Y0} - random() * {SIDE * RES})), 3857)::geometry(LineString, 3857) AS way
    FROM generate_series(1, 60) AS i;
CREATE INDEX ON roads USING gist (way);
-- How many seconds a tile takes, and the ids of tiles that take a minute, end their backend, or kill it outright.
CREATE TABLE pace (seconds float8, slow int, ends int, crashes int);
INSERT INTO pace VALUES (0);
CREATE FUNCTION acts(id bigint) RETURNS int LANGUAGE plpgsql VOLATILE SECURITY DEFINER AS $$
DECLARE p pace;
BEGIN
    SELECT * INTO p FROM pace;
    PERFORM pg_sleep(CASE WHEN id = p.slow THEN 60 ELSE p.seconds END);
    IF id = p.ends THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
    ELSIF id = p.crashes THEN
        COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID';
    END IF;
    RETURN 1 + id % 5;
END $$;
ANALYZE;
"""


class Source:
    """The server: what it holds, who is connected, and every way to hurt it."""

    def __init__(self, folder):
        self.folder = folder
        self.server = LocalServer(folder / "server", settings=SETTINGS)

    def make(self):
        """Start it, with imagery, labels and a role that may only read."""
        self.server.start()
        pixels = np.random.default_rng(1).integers(1, 255, (3, SIDE, SIDE), "uint8")
        file = self.folder / "scene.tif"
        profile = {"driver": "GTiff", "count": 3, "height": SIDE, "width": SIDE, "dtype": "uint8", "crs": "EPSG:3857"}
        with rasterio.open(file, "w", transform=from_origin(X0, Y0, RES, RES), **profile) as opened:
            opened.write(pixels)
        with Database(self.server.url) as db:
            load.raster(db, [file], "scene")
        self.ask(WORLD)

    @property
    def address(self):
        """Host and port."""
        known = conninfo_to_dict(self.server.url)
        return known["host"], int(known["port"])

    def url(self, **changes):
        """Where the trainers connect, as who may read."""
        known = conninfo_to_dict(self.server.url) | {"user": "trainer", "password": "trainer"}
        return make_conninfo(**known | changes)

    def ask(self, statement, seconds=30.0):
        """All rows of a statement of the superuser's, as soon as the server takes one."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with psycopg.connect(self.server.url, autocommit=True, application_name="control", connect_timeout=5) as conn:
                    done = conn.execute(statement)
                    return done.fetchall() if done.description else []
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def pace(self, seconds=0.0, *, slow=None, ends=None, crashes=None):
        """How long a tile takes from the next statement on, and which tile does what."""
        values = ", ".join("NULL" if value is None else str(value) for value in (seconds, slow, ends, crashes))
        self.ask(f"UPDATE pace SET (seconds, slow, ends, crashes) = ROW ({values})")

    def backends(self, name="pgtiles"):
        """The server's processes that serve a program of that name, and their state."""
        rows = self.ask(f"SELECT pid, state FROM pg_stat_activity WHERE application_name = '{name}' AND usename = 'trainer'")
        return dict(rows)

    def active(self, name="pgtiles"):
        """Those that are at work; waits for the first, which a server that is coming up does not have yet."""
        return until(lambda: [pid for pid, state in self.backends(name).items() if state == "active"], 30, "no backend works")

    def signal(self, pid, number):
        """Send a signal to one of the server's processes, unless it is gone."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def terminate(self, pid):
        """End a backend as an administrator does."""
        self.ask(f"SELECT pg_terminate_backend({pid}, 5000)")

    def control(self, *arguments):
        """Run pg_ctl."""
        server = self.server
        log = ("-l", server.log) if arguments[0] != "stop" else ()
        run(server.bindir / "pg_ctl", *arguments, "-s", "-w", "-D", server.data, *log, folder=server.path)

    def logged(self, text):
        """How often the server's log has that text."""
        return self.server.log.read_text(errors="replace").count(text)

    @contextmanager
    def crowded(self):
        """All of the server's slots taken, by others."""
        taken = []
        try:
            with pytest.raises(psycopg.OperationalError, match="slots"):
                while True:
                    taken.append(psycopg.connect(self.url(application_name="crowd")))
            yield taken
        finally:
            for conn in taken:
                conn.close()

    def calm(self):
        """As it was before the test: up, quick, and with nobody of ours connected."""
        if not self.server.running:
            self.server.start()
        for pid in self.backends():
            self.signal(pid, signal.SIGCONT)
        self.pace()
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'trainer'")
        until(lambda: not self.ask("SELECT FROM pg_stat_activity WHERE usename = 'trainer'"), 30, "backends stay")


@contextmanager
def saboteur(deed, *, times, every, seed, after=None):
    """Do something again and again on a thread, at times that the seed decides; and in the end something else, once.

    deed: gets a random generator. every: seconds between two deeds; the first comes within as many. Gives a list of
    the moments when they were done. Leaving waits for the last one, so that no test passes without its faults.
    """
    rng, moments, failures, enough = random.Random(seed), [], [], threading.Event()

    def work():
        try:
            if not enough.wait(every * rng.uniform(0.2, 1.0)):
                for number in range(times):
                    if number and enough.wait(max(0.0, moments[-1] + every - time.monotonic())):
                        return
                    deed(rng)
                    moments.append(time.monotonic())
        except BaseException as error:
            failures.append(error)
        finally:
            if after:
                after()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield moments
    except BaseException:
        enough.set()
        raise
    finally:
        thread.join(60)
    if failures:
        raise failures[0]
    assert len(moments) == times, f"{len(moments)} of {times} faults came before the end: the epoch was too short"
