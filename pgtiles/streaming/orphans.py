"""A DataLoader's worker whose training was killed goes with it.

torch has its workers look every few seconds whether their parent is another one by now. With the start method forkserver, the
default from Python 3.14 on, it never is: such workers stay for ever, and with them their connections.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import connection, parent_process

_watched: int | None = None  # in which process we watch


def go_with_parent() -> None:
    """From now on, end this process at once when the one that asked for it is gone, however it went."""
    global _watched
    if (parent := parent_process()) is not None and _watched != os.getpid():
        _watched = os.getpid()
        threading.Thread(target=_watch, args=(parent.sentinel,), daemon=True, name="orphan watch").start()


def _watch(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)  # nobody is left to clean up for: what it holds, the system and the server give back
