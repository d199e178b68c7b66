"""Servers that are hurt on purpose, a limit of time on every test, and the table of what happened.

`make test-faults` runs these tests; a plain run of all tests leaves them out.
"""

import faulthandler
import gc
import logging
import multiprocessing
import os
import re
import signal
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import streams
from proxy import Proxies
from sabotage import Source
from server_helpers import scratch
from waiting import until

LIMIT = 300  # seconds for a test, unless its mark says otherwise
HEAD = ("no.", "fault", "what happened", "retries", "s")


def pytest_configure(config):
    config.addinivalue_line("markers", f"limit(seconds): how long a fault test may take, {LIMIT} s without it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test that takes too long, with what its threads were doing; and leave even if nothing else helps."""
    mark = item.get_closest_marker("limit")
    seconds = mark.args[0] if mark else LIMIT

    def over(*_):
        faulthandler.dump_traceback()
        raise TimeoutError(f"the test took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)  # again, because an error in a finalizer is lost
    faulthandler.dump_traceback_later(seconds + 60, exit=True)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def made():
    """One server for all tests of a run."""
    with scratch() as folder:
        source = Source(folder)
        source.make()
        yield source


@pytest.fixture
def source(made):
    """The server, as every test finds it: up, quick, and with nobody connected."""
    made.calm()
    yield made
    made.calm()


@pytest.fixture
def make(source):
    """Makes datasets, each with a Database of its own, and closes them in the end."""
    datasets = []

    def _make(url=None, **options):
        datasets.append(streams.dataset(url or source.url(), **options))
        return datasets[-1]

    yield _make
    for dataset in datasets:
        dataset.close()


@pytest.fixture(scope="session")
def want(made):
    """The run without a fault: two epochs, read by one thread over one connection."""
    dataset = streams.dataset(made.url(), connections=1)
    found = [streams.digest(dataset), streams.digest(dataset)]
    dataset.close()
    ids = sorted(streams.places().ids.tolist())
    for epoch in found:
        assert sorted(tile for tile, _ in streams.flat(epoch)) == ids
    assert found[0] != found[1]
    assert len({data for _, data in streams.flat(found[0])}) == streams.COUNT  # no two tiles can be exchanged unseen
    return found


@pytest.fixture(scope="session")
def proxies():
    """Makes proxies, in a process of their own."""
    with Proxies(ctx=multiprocessing.get_context("forkserver")) as manager:
        yield manager


@pytest.fixture
def proxy(source, proxies):
    """A proxy in front of the server."""
    between = proxies.Proxy(*source.address)
    yield between
    between.close()


@pytest.fixture
def proxied(source, proxy):
    """The server's URL through the proxy."""
    return source.url(host="127.0.0.1", port=str(proxy.port()), sslmode="disable", gssencmode="disable")


@pytest.fixture
def logged(tmp_path):
    """The lines that pgtiles logs, from forked workers too: (process, level, text)."""
    file = tmp_path / "log"
    handler = logging.FileHandler(file, mode="a")
    handler.setFormatter(logging.Formatter("%(process)d\t%(levelname)s\t%(message)s"))
    logger = logging.getLogger("pgtiles")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    def lines():
        found = [line.split("\t", 2) for line in file.read_text().splitlines() if line.count("\t") >= 2]
        return [(int(process), level, text) for process, level, text in found]

    yield lines
    logger.setLevel(level)
    logger.removeHandler(handler)
    handler.close()


class Row:
    """What the table says of a test."""

    def __init__(self, record):
        self._record = record

    def identical(self, got, want, dataset=None):
        """Hold that the stream is what it is without the fault, to the byte and in order."""
        assert streams.flat(got) == streams.flat(want)
        assert got == want, "the same tiles in the same order, but in other batches"
        self.tell("identical", dataset)

    def tell(self, what, dataset=None):
        """Say what happened; where a dataset read, how often it tried again."""
        self._record("happened", what)
        if dataset is not None:
            self._record("retries", dataset.stats().retries)

    @contextmanager
    def raises(self, kind, match):
        """As pytest.raises; what the traceback holds, iterators among it, is let go."""
        with pytest.raises(kind, match=match) as caught:
            yield caught
        traceback.clear_frames(caught.value.__traceback__)
        gc.collect()
        self._record("happened", f"raised as it should: {type(caught.value).__name__}")


@pytest.fixture
def row(record_property):
    return Row(record_property)


def children():
    """Processes that this one started and that still are, dead ones that nobody waited for among them."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that ended just now
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


@pytest.fixture
def reaped():
    """Holds, at the test's end, that it left no process behind."""
    before = set(children())
    yield
    until(lambda: not set(children()) - before, 10, "processes are left")


def pytest_runtest_makereport(item, call):
    if call.when == "setup":
        said = (item.function.__doc__ or item.name).strip().splitlines()[0].rstrip(".")
        case = f" ({item.callspec.id})" if hasattr(item, "callspec") else ""
        item.user_properties.append(("fault", said + case))


def pytest_terminal_summary(terminalreporter):
    rows = []
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            told = dict(getattr(report, "user_properties", []))
            number = re.match(r"test_(\d+)_", report.nodeid.rpartition("::")[2])
            if "fault" in told and number and (report.when == "call" or outcome != "passed"):
                happened = told.get("happened", "as it should") if outcome == "passed" else outcome.upper()
                retries = str(told.get("retries", ""))
                rows.append((number[1], told["fault"], happened, retries, f"{report.duration:.1f}"))
    if not rows:
        return
    table = [HEAD, *sorted(rows, key=lambda row: int(row[0]))]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    terminalreporter.section("faults, and what happened")
    for row in table:
        terminalreporter.write_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if file := os.environ.get("PGTILES_FAULT_TABLE"):
        lines = [f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |" for row in table]
        lines.insert(1, "|---|---|---|--:|--:|")
        Path(file).write_text("\n".join(lines) + "\n")
