"""Waiting for what another thread, process or server does. For all tests, those of faults too."""

import time

# Transactions of others in the same database: what a client that was killed had asked for may still be under way.
UNDER_WAY = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
"""


def until(condition, seconds=60.0, what="it did not come to pass"):
    """Wait until something holds, and give what it gave."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {seconds:g} s: {what}"
        time.sleep(0.01)
    return found
