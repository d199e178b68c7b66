"""Which errors of a server pass, and how long to wait: a closed list. Pure: no I/O, no state.

What is not on the list is permanent, so that nobody waits five minutes to learn of a misspelt table.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from enum import Enum

import psycopg


class Kind(Enum):
    """What becomes of a batch that met an error."""

    LOST = "the connection was lost, or there is none to be had: another one, until the server is back"
    AGAIN = "the server gave the transaction up, and asks for it once more"
    SLOW = "the statement was stopped, mostly because it took too long: a few tries"
    PERMANENT = "it would fail again"


GONE = {"57P01", "57P02"}  # the server's process for us was ended
AWAY = {"57P03", "57P05", "53300"}  # the server starts or stops; the session idled for too long; no slot is left
AGAIN = {"40001", "40P01", "25P03", "55P03"}  # conflict, deadlock, idle in transaction, a lock that was not to be had
STOPPED = {"57014", "25P04", "53200"}  # out of time, by either limit; out of memory, which others may have taken
# A failed connect has no code, only the server's words.
REFUSED = re.compile(
    r"authentication failed|no password supplied|does not exist|no pg_hba\.conf entry|pg_hba\.conf rejects|permission denied"
    r"|not permitted to log in|not currently accepting connections|does not support SSL|unsupported startup parameter"
    r"|certificate verify failed|certificate has expired|does not match host name|private key file|channel binding"
    r"|definition of service|invalid (port|sslmode|channel_binding|require_auth|sslcertmode)"
)
# Classes of errors that one tile's data may bring about while others read well.
OF_TILES = {
    "21": "a subquery gave several rows",
    "22": "a value is out of range",
    "38": "a function that the query calls failed",
    "39": "a function that the query calls failed",
    "54": "too large",
    "P0": "a function that the query calls raised it",
    "XX": "PostGIS: a geometry or raster that it can't handle, a file that it can't read",
}
FIRST, LONGEST = 0.05, 4.0  # seconds to wait at most, the first time and ever


def kind(error: BaseException | None) -> Kind:
    """What becomes of a batch that met this error of the driver."""
    if not isinstance(error, psycopg.Error):
        return Kind.PERMANENT
    if not error.sqlstate:  # libpq's own words
        ours = isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
        return Kind.LOST if ours and not REFUSED.search(str(error)) else Kind.PERMANENT
    if error.sqlstate in GONE | AWAY or error.sqlstate.startswith("08"):  # poolers and foreign servers report outages as 08
        return Kind.LOST
    if error.sqlstate in AGAIN:
        return Kind.AGAIN
    return Kind.SLOW if error.sqlstate in STOPPED else Kind.PERMANENT


def ended(error: BaseException | None) -> bool:
    """Whether the process that read for us has ended, which its own tiles may have brought about."""
    return isinstance(error, psycopg.Error) and (not error.sqlstate or error.sqlstate in GONE)


def origin(error: BaseException) -> psycopg.Error | None:
    """The driver's error that an error of ours came from."""
    seen = list[BaseException]()
    found: BaseException | None = error
    while found is not None and not isinstance(found, psycopg.Error) and found not in seen:
        seen.append(found)
        found = found.__cause__
    return found if isinstance(found, psycopg.Error) else None


def pauses() -> Iterator[float]:
    """Seconds to wait before each further try: drawn from [0, 0.05 · 2ᵏ), at most 4, so that clients don't come back as one."""
    longest = FIRST
    while True:
        yield random.uniform(0, longest)
        longest = min(2 * longest, LONGEST)
