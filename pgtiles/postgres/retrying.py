"""Doing a batch again when its server fails: how often, for how long, what is counted, and what is said.

An outage is what all threads of a process share: it begins with the first batch that loses its connection or gets none, and is
over with the first that is read on a connection made since.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from ..errors import OutageError, PgtilesError, PoisonError, SlowError
from . import faults
from .faults import Kind

log = logging.getLogger("pgtiles")
T = TypeVar("T")

TRIES = 5  # that a batch has whose connection ends while it is read
TRIES_SLOW = 3  # that one has which the server stops
SPREAD = 0.125  # seconds · 2ⁿ: how much longer to wait after it ended n times, so that a storm is not taken for poison


class Counters:
    """What this process has seen of a database: totals since it began.

    retries: batches that were begun again. reconnects: connections made in place of lost ones.
    rows, bytes: what came from the server. waited: seconds spent on pauses and reconnecting, of all threads together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.retries = self.reconnects = self.rows = self.bytes = 0
        self.waited = 0.0

    def add(self, *, retries: int = 0, reconnects: int = 0, rows: int = 0, bytes: int = 0, waited: float = 0) -> None:  # noqa: A002
        """Once a batch."""
        with self._lock:
            self.retries += retries
            self.reconnects += reconnects
            self.rows += rows
            self.bytes += bytes
            self.waited += waited


class _Try(threading.local):
    """What a thread is at."""

    until = math.inf  # when it gives up connecting
    began = -math.inf  # when it last tried to connect
    made: float | None = None  # when the connection that it has was made
    well = 0.0  # and when it was last well


@dataclass
class _Batch:
    """How one batch fares."""

    begun: float  # with its first failure
    tries: int = 0
    ended: int = 0  # of them, with the end of the connection that they had
    stopped: int = 0  # of them, by the server
    lost: bool = False


class Retries:
    """The faults of one database, as a process meets them.

    name: of the database, for messages. patience: seconds that an outage may last.
    """

    def __init__(self, name: str, patience: float) -> None:
        self.name, self.patience, self.counters = name, patience, Counters()
        self._mine = _Try()
        self._wake = threading.Condition()  # guards all that follows
        self._running, self._interrupted = set[int](), set[int]()  # threads
        self._missing = 0  # connections that were lost and not replaced yet
        self._since: float | None = None  # when the outage under way began
        self._over = -math.inf  # when the connection was made that ended the last one
        self._failures = 0  # of this outage

    # -- connections tell

    @contextmanager
    def connecting(self) -> Iterator[None]:
        """Around an attempt to connect."""
        self._mine.made, self._mine.began = None, time.monotonic()
        made = 0
        try:
            yield
            made = 1
        finally:
            with self._wake:
                again = self._missing > 0
                self._missing -= again and made
            if again:
                self.counters.add(reconnects=made, waited=time.monotonic() - self._mine.began)

    def watch(self) -> None:
        """Raise, while connecting, once nobody waits for it any more."""
        self._stop_if_interrupted()
        if time.monotonic() > self._mine.until:
            raise psycopg.OperationalError("no answer yet, and patience= has passed")

    def uses(self, made: float, well: float) -> None:
        """Note that this thread has a connection that was made then, and well then."""
        self._mine.made, self._mine.well = made, well
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if threading.get_ident() in self._interrupted:
            raise psycopg.OperationalError("interrupted")

    def lost(self, count: int) -> None:
        """So many connections were found dead."""
        with self._wake:
            self._missing += count

    # -- a batch

    def run(
        self, work: Callable[[], T], what: Callable[[], str], drop: Callable[[float], None], tries_slow: int = TRIES_SLOW
    ) -> T:
        """What `work` gives, done again where it failed in a way that passes.

        what: says what it reads. drop: closes the idle connections that have not been well since a time.
        Raises `OutageError`, `PoisonError` or `SlowError` where it gives up, and what is permanent at once.
        """
        me, pauses, batch = threading.get_ident(), faults.pauses(), _Batch(math.inf)
        with self._wake:
            self._running.add(me)
        try:
            while True:
                self._mine.made, began = None, time.monotonic()
                try:
                    done = work()
                except PgtilesError as error:
                    if me in self._interrupted or (kind := faults.kind(error.__cause__)) is Kind.PERMANENT:
                        raise
                    self._note(batch, kind, error)
                    if given_up := self._given_up(batch, error, what, tries_slow):
                        raise given_up from error
                    if kind is Kind.LOST:
                        drop(began)
                    if self._interrupted_in(next(pauses) + (SPREAD * 2**batch.ended if batch.ended > 1 else 0)):
                        raise
                else:
                    if self._since is not None:
                        self._recover()
                    return done
        finally:
            self._mine.until = math.inf
            with self._wake:
                self._running.discard(me)
                self._interrupted.discard(me)

    def interrupt(self, threads: Collection[int]) -> None:
        """Have these threads, by their identifiers, try nothing again: those that wait to do so raise at once."""
        with self._wake:
            self._interrupted |= self._running.intersection(threads)
            self._wake.notify_all()

    def _note(self, batch: _Batch, kind: Kind, error: PgtilesError) -> None:
        """Count a failure, and say so where an outage begins with it."""
        now, made, well = time.monotonic(), self._mine.made, self._mine.well
        batch.begun = min(batch.begun, now)
        batch.tries += 1
        if kind is not Kind.SLOW:
            self._mine.until = min(self._mine.until, now + self.patience)
        if kind is not Kind.LOST:
            batch.stopped += kind is Kind.SLOW
            log.info("%s: a batch is read again: %s", self.name, _reason(error))
            return
        if made is not None:
            self.lost(1)
            batch.ended += faults.ended(error.__cause__)
        with self._wake:
            # Who gets no connection tells of an outage; so does who loses one for the first time; unless that is of the last
            # outage, and is heard late.
            told_before = self._mine.began < self._over if made is None else well < self._over or batch.lost
            begins = self._since is None and not told_before
            if begins:
                self._since, self._failures = now, 0
            self._failures += 1
        batch.lost = True
        if begins:
            said = "no connection is to be had" if made is None else "the connection is lost"
            text = "%s: %s: %s; the work goes on when the server is back (patience: %g s)"
            log.warning(text, self.name, said, _reason(error), self.patience)

    def _recover(self) -> None:
        with self._wake:
            since, made = self._since, self._mine.made
            if since is None or made is None or made < since:
                return  # it had its connection all along
            self._since, self._over = None, made
            failures = self._failures
        seconds = time.monotonic() - since
        log.info("%s: the work goes on after %.1f s (failed attempts: %d)", self.name, seconds, failures)

    def _given_up(self, batch: _Batch, error: PgtilesError, what: Callable[[], str], tries_slow: int) -> PgtilesError | None:
        """What to raise, where that was the last try."""
        now = time.monotonic()
        slow, poisoned = batch.stopped >= tries_slow, batch.ended >= TRIES
        if not (slow or poisoned or now >= self._mine.until):
            return None
        said = f"{what()}: given up after {batch.tries} attempts in {now - batch.begun:.1f} s; the last one: {error}\n"
        if slow:
            return SlowError(
                f"{said}is an index missing (pgtiles check)? More seconds are given by the role's statement_timeout and, where "
                "a batch is read, Database(timeout=…)"
            )
        if poisoned:
            return PoisonError(
                f"{said}the server's process ended each time; its log says why, mostly for want of memory: fewer or simpler "
                "features, or smaller tiles"
            )
        return OutageError(f"{said}Database(patience=…) is how many seconds an outage may last, here {self.patience:g}")

    def _interrupted_in(self, seconds: float) -> bool:
        """Wait so long, but not beyond the end of patience; whether the thread was interrupted meanwhile."""
        me, began = threading.get_ident(), time.monotonic()
        with self._wake:
            seconds = max(min(seconds, self._mine.until - began), 0)
            interrupted = self._wake.wait_for(lambda: me in self._interrupted, seconds)
        self.counters.add(retries=not interrupted, waited=time.monotonic() - began)
        return interrupted


def _reason(error: PgtilesError) -> str:
    """The driver's own words, on one line."""
    return " ".join(str(error.__cause__).split()).partition(" This probably means")[0]
