"""Faults 1 to 13: the database is hurt while a training reads; nothing of it shows in the data, or it is said."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import streams
from psycopg.conninfo import make_conninfo
from sabotage import SLACK, saboteur
from streams import digest, flat
from waiting import until

from pgtiles import Database, Imagery, TileDataset
from pgtiles.errors import DatabaseError, MissingError, QueryError

pytestmark = [
    # Python 3.12 and newer warn of what a DataLoader does by default on Linux: fork a process that has threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

SLOW = 0.2  # seconds a tile takes while faults come: an epoch would take 16 s and more
BRISK = 0.05  # where that is less than the deadline of a batch
WORKERS = {"num_workers": 2, "persistent_workers": False, "multiprocessing_context": "fork"}


@pytest.fixture
def hurt(source):
    """Does something to a busy backend of ours, again and again, in an epoch that is slow until the last time is over."""

    def _hurt(deed, *, times, every, seed, pace=SLOW):
        source.pace(pace)
        return saboteur(lambda rng: deed(rng.choice(source.active())), times=times, every=every, seed=seed, after=source.pace)

    return _hurt


def held(want):
    """A tile of the fourth batch: whoever was asked for one reads ahead as far as that."""
    return want[0][3][0][0]


def addressed(source):
    """The server's host and port, as errors name them."""
    host, port = source.address
    return f"{host}:{port}"


def test_01_kill_9_of_a_backend(source, make, hurt, want, row, reaped):
    """kill -9 of a worker's backend every 0.5 s, 4 times"""
    dataset = make()
    loader = dataset.loader(**WORKERS)
    with hurt(lambda pid: source.signal(pid, signal.SIGKILL), times=4, every=0.5, seed=1):
        got = digest(loader)
    row.identical(got, want[0], dataset)
    stats = dataset.stats()
    assert stats.retries >= 4
    assert stats.reconnects >= 2 * 2  # all connections of both workers fell, because the server begins anew for all
    assert stats.waited > 0
    assert dataset.stats().skipped == 0
    assert digest(loader) == want[1], "the epoch after it is whole too"


def test_02_pg_terminate_backend(source, make, hurt, want, row, reaped):
    """pg_terminate_backend of a busy backend every 0.2 s, 12 times"""
    dataset = make()
    with hurt(source.terminate, times=12, every=0.2, seed=2):
        got = digest(dataset.loader(**WORKERS))
    row.identical(got, want[0], dataset)
    stats = dataset.stats()
    assert stats.reconnects >= 12
    assert stats.retries >= 6  # a statement may just have ended


def test_03_restart_fast(source, make, want, row, reaped):
    """restart -m fast in mid-epoch: on again within 5 s"""
    dataset, on_again = make(), []

    def restart(_):
        source.active()
        source.control("restart", "-m", "fast")
        up = time.monotonic()
        source.active()
        on_again.append(time.monotonic() - up)

    source.pace(SLOW)
    with saboteur(restart, times=1, every=1.0, seed=3, after=source.pace):
        got = digest(dataset.loader(**WORKERS))
    row.identical(got, want[0], dataset)
    assert on_again[0] < 5 * SLACK


def test_04_stop_immediate_and_start(source, make, want, row, reaped, logged):
    """stop -m immediate, 3 s down, start: one line in the log per outage and worker"""
    dataset = make()
    loader = dataset.loader(**WORKERS)

    def fall(_):
        source.active()
        source.control("stop", "-m", "immediate")
        time.sleep(3)
        source.control("start")

    source.pace(SLOW)
    with saboteur(fall, times=1, every=1.0, seed=4, after=source.pace):
        got = digest(loader)
    row.identical(got, want[0], dataset)
    told = [(process, level, text) for process, level, text in logged() if process != os.getpid()]
    warned = [process for process, level, _ in told if level == "WARNING"]
    recovered = [process for process, level, _ in told if level == "INFO"]
    assert len(warned) == len(set(warned)) == 2, told
    assert sorted(recovered) == sorted(warned), told
    assert dataset.stats().waited >= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_05_gone_for_good(source, make, want, row, reaped, workers):
    """the server is gone for good: an error by the deadline + 10 %, with host, tile and attempts"""
    patience = 4.0
    dataset = make(patience=patience)
    loader = dataset.loader(**WORKERS | {"num_workers": workers} if workers else {})
    source.pace(slow=held(want))
    stream = iter(loader)
    next(stream)
    source.active()
    source.control("stop", "-m", "immediate")
    gone = time.monotonic()
    with row.raises(DatabaseError, match=f"(?s){addressed(source)}.*") as caught:
        try:
            for _ in stream:
                pass
        finally:
            took = time.monotonic() - gone
    # a moment for the error's way here; with workers, also for the loss to be met, since they have read ahead
    assert took < (1.1 * patience + (1 if workers else 0.3)) * SLACK, took
    said = str(caught.value)
    assert "tile" in said
    assert any(f"{tile}" in said for tile in streams.places().ids.tolist())
    assert any(word in said for word in ("attempts", "tries", "times"))
    assert [thread for thread in threading.enumerate() if thread.name.startswith("pgtiles")] == []
    del stream


@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ({"password": "wrong"}, DatabaseError, "password"),
        ({"dbname": "nowhere"}, DatabaseError, '"nowhere" does not exist'),
        ({"table": "nothing"}, MissingError, "nothing"),
    ],
    ids=["password", "database", "table"],
)
def test_06_wrong_address(proxy, proxied, row, wrong, error, says):
    """a wrong name or password: an error in under 2 s, after one try"""
    table = wrong.get("table", "scene")
    url = make_conninfo(proxied, **{name: value for name, value in wrong.items() if name != "table"})
    begun = time.monotonic()
    with row.raises(error, match=says), Database(url) as db:
        TileDataset(db, streams.places(), {"image": Imagery(table)})
    assert time.monotonic() - begun < 2 * SLACK
    assert proxy.accepted() == 1


def test_06_password_changed_in_mid_epoch(source, make, want, row):
    """the password changes in mid-epoch, and connections fall: an error in under 2 s, not after all patience"""
    dataset = make()
    source.pace(slow=held(want))
    stream = iter(dataset)
    next(stream)
    try:
        source.ask("ALTER ROLE trainer PASSWORD 'another'")
        source.active()
        begun = time.monotonic()
        for pid in source.backends():
            source.terminate(pid)
        with row.raises(DatabaseError, match=f"{addressed(source)}.*password"):
            for _ in stream:
                pass
        assert time.monotonic() - begun < 2 * SLACK
    finally:
        source.ask("ALTER ROLE trainer PASSWORD 'trainer'")


def test_07_sigstop_of_a_backend(source, make, hurt, want, row):
    """SIGSTOP of a backend: the client's own deadline fires"""
    dataset, stopped = make(timeout=2.0), []

    def stop(pid):
        source.signal(pid, signal.SIGSTOP)
        stopped.append(pid)

    with hurt(stop, times=1, every=0.5, seed=9, pace=BRISK):
        got = digest(dataset)
    row.identical(got, want[0], dataset)
    assert dataset.stats().retries >= 1
    state = Path(f"/proc/{stopped[0]}/stat").read_text().rpartition(")")[2].split()[0]
    assert state == "T", "the backend was stopped all the time"


@pytest.mark.parametrize("workers", [0, 2])
def test_08_half_open_connections(source, proxy, proxied, make, want, row, workers):
    """a proxy that stops forwarding, while connections stay open: the deadline fires"""
    dataset, frozen = make(proxied, timeout=2.0), []
    loader = dataset.loader(**WORKERS | {"num_workers": workers} if workers else {})

    def freeze(_):
        until(lambda: list(source.backends().values()).count("active") >= 2, 60)
        frozen.append(proxy.freeze())

    source.pace(BRISK)
    with saboteur(freeze, times=1, every=0.5, seed=10, after=source.pace):
        got = digest(loader)
    row.identical(got, want[0], dataset)
    assert frozen[0] >= 2
    assert dataset.stats().retries >= 1


@pytest.mark.limit(600)
def test_09_cut_inside_a_row(proxy, proxied, make, row):
    """a proxy that cuts three connections inside a row each, 20 seeds"""
    dataset = make(proxied, count=80, connections=3)
    whole = digest(make(count=80))
    for seed in range(20):
        before = proxy.times_cut()
        dataset.set_epoch(0)
        proxy.cuts(seed, times=3, within=100)
        row.identical(digest(dataset), whole, dataset)
        assert proxy.times_cut() == before + 3
    assert dataset.stats().retries >= 60


SICK = streams.places().ids.tolist()[37]  # a tile


def without(sick, digests):
    return [(tile, data) for tile, data in flat(digests) if tile != sick]


@pytest.mark.parametrize("workers", [0, 2])
def test_10_statement_timeout(source, make, row, reaped, workers):
    """a tile that is slower than the deadline: bounded tries, then an error that names it"""
    dataset = make(timeout=3.0)
    source.pace(slow=SICK)
    before = source.logged("canceling statement due to statement timeout")
    with row.raises(QueryError, match=rf"tile {SICK}\b"):
        for _ in dataset.loader(**WORKERS | {"num_workers": workers} if workers else {}):
            pass
    tried = source.logged("canceling statement due to statement timeout") - before
    assert 2 <= tried <= 8, tried  # thrice the batch, thrice the tile alone, and maybe to say which layer it is


@pytest.mark.parametrize("workers", [0, 2])
def test_10_statement_timeout_skipped(source, make, want, row, reaped, workers):
    """the same with on_error="skip": all others once, and its id is told"""
    dataset = make(timeout=3.0, on_error="skip")
    source.pace(slow=SICK)
    got = digest(dataset.loader(**WORKERS | {"num_workers": workers} if workers else {}))
    assert flat(got) == without(SICK, want[0])
    row.tell("identical without the tile, which is told", dataset)
    stats = dataset.stats()
    assert (stats.skipped, list(stats.skipped_ids)) == (1, [SICK])


def test_11_idle_timeouts(source, make, want, row, logged):
    """idle_session_timeout and idle_in_transaction_session_timeout of 1 s, and a slow consumer"""
    options = "-c idle_session_timeout=1000 -c idle_in_transaction_session_timeout=1000"
    dataset, got = make(source.url(options=options)), []
    for number, batch in enumerate(dataset):
        got += digest([batch])
        if number in (7, 27):
            until(lambda: not source.backends(), 60)
    row.identical(got, want[0], dataset)
    assert dataset.stats().reconnects >= 3
    assert [line for line in logged() if line[1] == "WARNING"] == [], "what the server closes for idleness is no outage"


@pytest.mark.parametrize("workers", [0, 2])
def test_12_all_slots_taken(source, make, want, row, reaped, workers):
    """all connection slots taken for 2 s: waits"""
    dataset = make()
    loader = dataset.loader(**WORKERS | {"num_workers": workers} if workers else {})
    until(lambda: not source.backends(), 60)
    freed = []

    def leave(taken):
        until(lambda: source.logged(full) > before, 60)
        time.sleep(2)
        freed.append(time.monotonic())
        for conn in taken:
            conn.close()

    full = "remaining connection slots"
    with source.crowded() as taken:
        before = source.logged(full)
        thread = threading.Thread(target=leave, args=(taken,))
        thread.start()
        stream = iter(loader)
        first = next(stream)
        assert freed
        assert time.monotonic() >= freed[0], "nobody could connect before"
        thread.join()
        got = digest([first]) + digest(stream)
    row.identical(got, want[0], dataset)
    assert dataset.stats().waited >= 1


@pytest.mark.parametrize("end", ["ends", "crashes"])
def test_13_poison(source, make, row, end):
    """a tile that ends its backend, or crashes it, every time: given up after n tries"""
    dataset = make()
    source.pace(**{end: SICK})
    text = {"ends": "terminating connection due to administrator command", "crashes": "was terminated by signal 9"}[end]
    before = source.logged(text)
    with row.raises(DatabaseError, match=rf"tile {SICK}\b"):
        for _ in dataset:
            pass
    died = source.logged(text) - before
    assert 3 <= died <= 12, died  # five times the batch, five times the tile alone


@pytest.mark.parametrize("end", ["ends", "crashes"])
def test_13_poison_skipped(source, make, want, row, end):
    """the same with on_error="skip": all others once, and its id is told"""
    dataset = make(on_error="skip")
    source.pace(**{end: SICK})
    assert flat(digest(dataset)) == without(SICK, want[0])
    row.tell("identical without the tile, which is told", dataset)
    stats = dataset.stats()
    assert (stats.skipped, list(stats.skipped_ids)) == (1, [SICK])
