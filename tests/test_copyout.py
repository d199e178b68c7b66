"""COPY by libpq itself. The driver's own `Cursor.copy` says what is right."""

import threading
import time

import psycopg
import pytest

from pgtiles.postgres import copyout

END = 2  # bytes of the trailer


@pytest.fixture
def conn(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


def script(select, begin="BEGIN READ ONLY; SET LOCAL jit = off"):
    return f"{begin}; COPY ({select}) TO STDOUT (FORMAT binary); COMMIT".encode()


def drivers(conn, select):
    with conn.cursor() as cursor, cursor.copy(f"COPY ({select}) TO STDOUT (FORMAT binary)") as copy:
        return b"".join(copy)


@pytest.mark.parametrize(
    "select",
    [
        "SELECT 1 WHERE false",
        "SELECT NULL::int",
        "SELECT i, i::float8, repeat('x', i) FROM generate_series(1, 3000) AS i",
        "SELECT repeat(i::text, 4000000) FROM generate_series(1, 5) AS i",  # more than any buffer between
    ],
)
def test_rows_are_the_drivers(conn, select):
    rows = [bytes(row) for row in copyout.rows(conn.pgconn, script(select))]
    assert b"".join(rows) == drivers(conn, select)
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    assert conn.execute("SELECT 7").fetchall() == [(7,)]


def test_a_row_outlives_those_after_it(conn):
    select = "SELECT repeat(chr(64 + i), 100000) FROM generate_series(1, 20) AS i"
    kept = list(copyout.rows(conn.pgconn, script(select)))
    assert b"".join(kept) == drivers(conn, select)


def test_a_statement_larger_than_the_sockets_buffers(conn):
    text = "x" * 20_000_000
    rows = b"".join(copyout.rows(conn.pgconn, script(f"SELECT length('{text}')")))
    assert int.from_bytes(rows[-END - 4 : -END]) == 20_000_000


@pytest.mark.parametrize(
    ("begin", "select", "state"),
    [
        ("BEGIN READ ONLY", "SELECT 1 / (i - 900) FROM generate_series(1, 1000) AS i", "22012"),  # rows came before it
        ("BEGIN READ ONLY", "SELECT nothing", "42703"),
        ("BEGIN READ ONLY; SET LOCAL jit = maybe", "SELECT 1", "22023"),
        ("BEGIN READ ONLY", "SELECT nextval('few')", "25006"),
        ("BEGIN; SELEC", "SELECT 1", "42601"),
    ],
    ids=["late", "at once", "setting", "read only", "syntax"],
)
def test_what_fails_raises_and_what_follows_has_not_run(conn, begin, select, state):
    conn.execute("CREATE SEQUENCE few; CREATE TEMP TABLE after (n int)")
    text = script(select, begin).replace(b"COMMIT", b"INSERT INTO after VALUES (1); COMMIT")
    with pytest.raises(psycopg.Error) as raised:
        list(copyout.rows(conn.pgconn, text))
    assert raised.value.sqlstate == state
    conn.execute("ROLLBACK")
    assert conn.execute("SELECT count(*) FROM after").fetchall() == [(0,)]


def test_a_backend_that_is_ended_meanwhile_raises(conn, database_url):
    pid = conn.info.backend_pid
    rows = copyout.rows(conn.pgconn, script("SELECT i, pg_sleep(0.01) FROM generate_series(1, 10000) AS i"))

    def end():
        time.sleep(0.3)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [pid])

    ender = threading.Thread(target=end)
    ender.start()
    with pytest.raises(psycopg.OperationalError):
        list(rows)
    ender.join()


def test_waiting_lets_other_threads_run(conn, database_url):
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(1)")
        begin = "BEGIN READ ONLY; SET LOCAL statement_timeout = '60s'"
        rows = copyout.rows(conn.pgconn, script("SELECT pg_advisory_xact_lock_shared(1)", begin))
        reader = threading.Thread(target=lambda: list(rows))
        reader.start()
        for _ in range(20):
            time.sleep(0.01)
        assert reader.is_alive()
        other.execute("SELECT pg_advisory_unlock(1)")
        reader.join()
