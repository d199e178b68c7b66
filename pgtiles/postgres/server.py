"""A private PostGIS server, made from the PostgreSQL programs that the machine already has.

Everything lies in one folder, by default the user's data folder, or the one that ``PGTILES_HOME`` names:

* ``data`` is the cluster: there whole, or not at all; ``password`` opens it, ``server.log`` tells what it did;
* ``socket`` holds its Unix socket. Nobody else can listen there, so whoever answers is this server: that, and no pid
  file, is how we know that it runs;
* ``pgtiles.conf`` has its port and settings, is included by the cluster's own configuration and written at each start;
* ``pgtiles.lock`` is held while a process starts or stops the server, and marks the folder as ours.

PostgreSQL refuses to run as root. As root, the server runs as the account that its package made, and the default
folder is ``/var/lib/pgtiles``, because that account can't look into root's home.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from .. import template
from ..errors import DependencyError, ServerError
from .programs import PROGRAMS, account, find_programs, output, run

if sys.platform != "win32":
    import fcntl
    import pwd

NAME = "pgtiles"  # of the database and of the role that owns it
# The same in docker-compose.yml, where the reasons are told too.
SETTINGS = {
    "max_connections": "100",
    "jit": "off",  # compiling a plan costs more than a batch of tiles takes
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",  # the indexes of a load
    "random_page_cost": "1.1",  # solid-state disks: an index is worth its while
    "max_wal_size": "4GB",  # fewer checkpoints in the middle of a load
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",  # a load that makes its table writes the pixels once, not twice …
    "max_wal_senders": "0",  # … at the price of no replicas
    "shared_preload_libraries": "postgis_raster-3",  # else each new connection loads GDAL for itself, 0.15 s
}
CREATE = f"SELECT 'CREATE DATABASE {NAME}' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{NAME}') \\gexec"
PATIENCE = 300  # seconds for pg_ctl: recovery after a crash in the middle of a large load takes its time


def default_path() -> Path:
    """Where a user's server lies when nobody says otherwise."""
    if named := os.environ.get("PGTILES_HOME"):
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/pgtiles")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "pgtiles"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pgtiles"


class LocalServer:
    """A PostGIS server of one's own in a folder of one's own: made at the first start, kept until it is removed.

    ``path`` is the folder, of one user and nobody else; without it, the user's data folder. ``settings`` are PostgreSQL's, by
    name, on top of ours; they take effect when a start finds the server down. As a context manager it stops at the end what
    it started at the beginning, and leaves alone what ran before.

    The role ``pgtiles`` in the URL is the server's superuser. Its log is too short for replicas: who wants some gives
    ``{"wal_level": "replica", "max_wal_senders": "10"}``.
    """

    def __init__(self, path: str | Path | None = None, *, settings: Mapping[str, str] | None = None) -> None:
        if sys.platform == "win32":
            raise DependencyError(
                "pgtiles makes local servers on Linux and macOS only. Here, start one with `docker compose up -d` "
                "and name it in PGTILES_URL."
            )
        self.path = (Path(path) if path is not None else default_path()).expanduser().resolve()
        if wrong := sorted(set(str(self.path)) & set("\"'`\\$,\n")):
            raise ServerError(
                f"The path {str(self.path)!r} contains {' '.join(map(repr, wrong))}, which PostgreSQL's own programs "
                "can't be given: choose a path without quotes, backslashes, commas, $ and line breaks."
            )
        self.settings = dict(settings or {})
        for name in self.settings:
            if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name) or name == "unix_socket_directories":
                raise ServerError(f"settings has {name!r}: name PostgreSQL settings, except unix_socket_directories.")
        self.data = self.path / "data"
        self.log = self.path / "server.log"
        self._started = False

    def __repr__(self) -> str:
        return f"<LocalServer in {self.path}: {'running' if self.running else 'stopped'}>"

    def __enter__(self) -> LocalServer:
        self._started = self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self.stop()

    @property
    def running(self) -> bool:
        """Whether the server in this folder is up, or coming up: asked at its own socket."""
        try:
            folder = Path(self._conf("unix_socket_directories"))
            if folder.stat().st_uid != self.data.stat().st_uid:  # a name in /tmp that somebody took after a reboot
                return False
            with socket.socket(socket.AF_UNIX) as probe:
                probe.setblocking(False)
                probe.connect(str(folder / f".s.PGSQL.{self._conf('port')}"))
        except BlockingIOError:  # somebody listens, and is too busy for one more
            return True
        except (OSError, ServerError):
            return False
        return True

    @property
    def url(self) -> str:
        """Where to connect, password included: the same after a restart, unless somebody took the port meanwhile."""
        return f"postgresql://{NAME}:{self._read('password')}@127.0.0.1:{self._conf('port')}/{NAME}"

    @property
    def version(self) -> str:
        """The versions of PostgreSQL and PostGIS, as the running server tells them."""
        return self._psql(
            "SELECT format('PostgreSQL %s, PostGIS %s', split_part(current_setting('server_version'), ' ', 1),"
            " postgis_lib_version())"
        )

    @cached_property
    def bindir(self) -> Path:
        """The folder of the PostgreSQL programs that fit this server."""
        made_by = self.data / "PG_VERSION"
        return find_programs(made_by.read_text().strip() if made_by.exists() else None)

    def start(self) -> bool:
        """Bring the server up, made and ready to use; False if it was up already."""
        self._take_folder()
        with self._lock():
            if started := not self.running:
                if not self.data.exists():
                    self._create()
                self._launch()
            try:
                self._psql((template.folder() / "init.sql").read_text("utf-8"))
            except BaseException:  # an interrupt too: who got no server has none to stop
                if started:
                    self._halt()
                raise
        return started

    def stop(self) -> bool:
        """Take down the server in this folder, and no other; False if it was down already."""
        if not self.running:
            return False
        with self._lock():
            if not self.running:
                return False
            self._halt()
        return True

    def remove(self) -> None:
        """Stop the server and delete its folder, with all data in it."""
        self.stop()
        if (self.path / "pgtiles.lock").exists():  # else nothing in there is ours
            shutil.rmtree(self.path)

    def _take_folder(self) -> None:
        """Make the folder, or see that it is ours."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                owner = pwd.getpwuid(self.path.stat().st_uid).pw_name
                raise ServerError(f"The folder {self.path} belongs to {owner}: be {owner}, or give another path.")
            if any(self.path.iterdir()) and not (self.path / "pgtiles.lock").exists():
                raise ServerError(f"The folder {self.path} holds something else: give an empty one, or a new path.")
            self.path.chmod(0o711 if account() else 0o700)
        except OSError as error:
            raise ServerError(
                f"The folder {self.path} can't be used: {error.strerror}. Give a path where you may write, "
                "here or in PGTILES_HOME."
            ) from error
        if not account():
            return
        try:
            self._run("sh", "-c", 'cd "$0"', self.path)
        except ServerError as error:
            closed = [str(parent) for parent in self.path.parents if not parent.stat().st_mode & 0o001]
            raise ServerError(
                "PostgreSQL refuses to run as root, and the account postgres, which runs it instead, can't reach "
                f"{self.path}: {', '.join(closed)} is closed to it. Give a path elsewhere, or no path."
            ) from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with os.fdopen(os.open(self.path / "pgtiles.lock", os.O_RDWR | os.O_CREAT, 0o600)) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system if we die
            yield

    def _create(self) -> None:
        """Make the cluster aside and move it into place: one that was interrupted is never taken for a whole one."""
        for rest in self.path.glob("data.new-*"):
            shutil.rmtree(rest, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.path))
        self._write("password", secrets.token_urlsafe(24), 0o600)
        self._hand_over(new, self.path / "password")
        # Text sorts by bytes, so that an index serves LIKE; upper and lower case are known in every script.
        kind = "en_US.UTF-8" if sys.platform == "darwin" else "C.UTF-8"
        self._run(
            "initdb", "-D", new, "-U", NAME, "-E", "UTF8", "--locale=C", f"--lc-ctype={kind}",
            "-A", "scram-sha-256", "--pwfile", self.path / "password",
        )  # fmt: skip
        self._run("tee", "-a", new / "postgresql.conf", text="\ninclude '../pgtiles.conf'\n")
        new.rename(self.data)

    def _launch(self) -> None:
        self._forget_stranger()
        if self.log.exists() and self.log.stat().st_size > 10 * 2**20:
            self.log.replace(self.path / "server.log.1")
        self.log.touch(0o600)
        self._hand_over(self.log)
        deadline = time.monotonic() + 30
        while True:
            self._configure()
            before = self.log.stat().st_size
            try:
                self._run("pg_ctl", "start", "-s", "-w", "-t", PATIENCE, "-D", self.data, "-l", self.log)
            except ServerError as error:
                said = self.log.read_bytes()[before:].decode("utf-8", "replace")
                # Two things pass: the last queries of a server that was killed, and a port taken a moment ago.
                passes = "is still in use" in said or ("Address already in use" in said and "port" not in self.settings)
                if not passes or time.monotonic() > deadline:
                    tail = "\n".join(said.strip().splitlines()[-15:]) or str(error)
                    raise ServerError(f"The server in {self.path} did not start. The end of {self.log}:\n{tail}") from error
                time.sleep(0.5)
            else:
                return

    def _halt(self) -> None:
        self._run("pg_ctl", "stop", "-s", "-w", "-t", PATIENCE, "-m", "fast", "-D", self.data)
        shutil.rmtree(self._conf("unix_socket_directories"), ignore_errors=True)

    def _forget_stranger(self) -> None:
        """Free the way where the pid in a crashed server's pid file is by now that of a process of something else.

        PostgreSQL would take any process of its account for a living server. Our own pid it passes over, because we
        start it; the rest of the file stays, by which it finds out whether old sessions are still at work.
        """
        file = self.data / "postmaster.pid"
        if file.exists():
            pid, _, rest = file.read_text().partition("\n")
            command = b""
            if Path("/proc/self").exists():
                with suppress(OSError):  # nobody has that pid
                    command = Path("/proc", pid, "cmdline").read_bytes()
            else:
                command = output("ps", "-o", "args=", "-p", pid).encode()
            if os.fsencode(self.data) not in command:
                self._run("tee", file, text=f"{os.getpid()}\n{rest}")

    def _configure(self) -> None:
        """Write pgtiles.conf, with the port of last time while it is free, and an empty folder for the socket."""
        sockets = self.path / "socket"
        if (self.path / "pgtiles.conf").exists():  # what a crash left there is in the way
            shutil.rmtree(self._conf("unix_socket_directories"), ignore_errors=True)
        if len(os.fsencode(sockets / ".s.PGSQL.65535")) > 103:  # what macOS allows; Linux 107
            sockets = Path(tempfile.mkdtemp(prefix="pgtiles-", dir="/tmp"))
        sockets.mkdir(mode=0o700, exist_ok=True)
        self._hand_over(sockets)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
        made_by = int((self.data / "PG_VERSION").read_text())
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._free_port()),
            "shared_buffers": f"{min(memory // 4, 2048)}MB",
            # Stop working for a client that is gone. Elsewhere, and before version 14, there is no such setting.
            **({"client_connection_check_interval": "1s"} if sys.platform == "linux" and made_by >= 14 else {}),
            **SETTINGS,
            **self.settings,
            "unix_socket_directories": str(sockets),
        }
        quoted = {k: str(v).replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") for k, v in settings.items()}
        lines = [f"{name} = '{value}'\n" for name, value in quoted.items()]
        self._write(
            "pgtiles.conf",
            "".join(["# Written at each start. To change a setting for good, use ALTER SYSTEM.\n", *lines]),
            0o644,
        )

    def _free_port(self) -> int:
        kept = int(self._conf("port")) if (self.path / "pgtiles.conf").exists() else 0
        # Below the ports that systems give to outgoing connections, so that it is still free next time.
        for port in filter(None, (kept, *random.sample(range(20000, 32000), 50))):
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
                probe.bind(("127.0.0.1", port))
                return port
        raise ServerError("No free port was found on 127.0.0.1 between 20000 and 32000: name one in settings['port'].")

    def _conf(self, name: str) -> str:
        """A value that _configure wrote."""
        found = re.search(rf"^{name} = '(.*)'$", self._read("pgtiles.conf"), re.M)
        if not found:
            raise ServerError(f"{self.path / 'pgtiles.conf'} has no line for {name}: start() writes it anew.")
        return found[1]

    def _read(self, name: str) -> str:
        try:
            return (self.path / name).read_text("utf-8")
        except OSError as error:
            raise ServerError(f"No server of yours is in {self.path} ({name}: {error.strerror}): start() makes one.") from error

    def _write(self, name: str, text: str, mode: int) -> None:
        file = self.path / name
        file.unlink(missing_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as opened:
            os.fchmod(opened.fileno(), mode)  # whatever the umask
            opened.write(text)

    def _hand_over(self, *files: Path) -> None:
        if who := account():
            for file in files:
                os.chown(file, who.pw_uid, who.pw_gid)

    def _run(self, program: str, *args: object, text: str = "", **env: str) -> str:
        """Run a program of ours, or one of the system's, in our folder."""
        return run(self.bindir / program if program in PROGRAMS else program, *args, folder=self.path, text=text, **env)

    def _psql(self, script: str) -> str:
        """What our own database's server answers to a script: asked at the socket, where nobody else can answer."""
        where = ("-h", self._conf("unix_socket_directories"), "-p", self._conf("port"), "-U", NAME, "-d", "postgres")
        options = ("-XqAtw", "-v", "ON_ERROR_STOP=1", *where, "-f", "-")
        return self._run("psql", *options, text=f"{CREATE}\n\\connect {NAME}\n{script}", PGPASSWORD=self._read("password"))
