"""Where tests put their servers, and what makes such servers quick. For test_server.py and test_compose.py."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgtiles.postgres.server import LocalServer

QUICK = {"fsync": "off", "shared_buffers": "32MB"}  # nobody mourns a test's data


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that the server's account can reach, as it can't pytest's own; in memory where there is room."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2**30
    folder = Path(tempfile.mkdtemp(prefix="pgtiles-test-", dir=memory if roomy else "/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        for lock in list(folder.rglob("pgtiles.lock")):
            LocalServer(lock.parent).remove()
        shutil.rmtree(folder)
