"""A local server: made, started, stopped, and brought back from every accident that befalls one."""

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from server_helpers import QUICK, scratch
from sqlalchemy import create_engine, make_url, text
from waiting import until

from pgtiles.errors import DependencyError, ServerError
from pgtiles.postgres import programs as module
from pgtiles.postgres.programs import find_programs
from pgtiles.postgres.server import LocalServer, default_path

ROOT = os.geteuid() == 0
CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder():
    with scratch() as made:
        yield made


@pytest.fixture(scope="module")
def made(folder):
    server = LocalServer(folder / "server", settings=QUICK)
    assert server.start() is True
    return server


@pytest.fixture
def server(made):
    """One server for all tests: whatever the test before did to it, this one gets it running and well."""
    if not made.running:
        made.start()
    return made


def one(server, query, **connect):
    with psycopg.connect(server.url, **connect) as connection:
        return connection.execute(query).fetchone()[0]


def postmaster(server):
    return int((server.data / "postmaster.pid").read_text().splitlines()[0])


def crash(server):
    os.kill(postmaster(server), signal.SIGKILL)
    until(lambda: not server.running)


def python(script, *args, **options):
    """Start a Python of its own, as another program beside this one would be."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *sys.path])}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, args)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, **options)


# What one gets


def test_a_server_is_ready_to_use(server):
    with psycopg.connect(server.url) as connection:
        assert connection.info.dbname == connection.info.user == "pgtiles"
        extensions = {name for (name,) in connection.execute("SELECT extname FROM pg_extension")}
        assert {"postgis", "postgis_raster"} <= extensions
        encoding, lower, order = connection.execute(
            "SELECT current_setting('server_encoding'), lower('ÉÄ'), ARRAY(SELECT unnest('{b,A,a,B}'::text[]) ORDER BY 1)"
        ).fetchone()
    assert (encoding, lower, order) == ("UTF8", "éä", ["A", "B", "a", "b"])
    assert server.version.startswith("PostgreSQL ")
    assert ", PostGIS 3." in server.version
    assert server.running
    assert repr(server) == f"<LocalServer in {server.path}: running>"


def test_sqlalchemy_takes_the_url(server):
    engine = create_engine(make_url(server.url).set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()


def test_starting_a_running_server_does_nothing(server):
    pid = postmaster(server)
    again = LocalServer(server.path)
    assert again.running
    assert again.start() is False
    assert again.url == server.url
    assert postmaster(server) == pid


def test_a_restart_keeps_url_and_data(server):
    url = server.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert server.stop() is True
    assert not server.running
    assert repr(server).endswith("stopped>")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    assert server.stop() is False
    assert server.start() is True
    assert server.url == url
    assert one(server, "SELECT answer FROM kept") == 42


def test_a_port_that_somebody_took_is_left_to_them(server):
    old = make_url(server.url).port
    server.stop()
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", old))
        taken.listen()
        server.start()
        assert make_url(server.url).port != old
        assert one(server, "SELECT 1") == 1


def test_only_the_password_opens(server):
    password = make_url(server.url).password
    assert len(password) >= 32
    sockets = str(server.path / "socket")
    assert one(server, "SELECT 1", host=sockets) == 1
    for host in ("127.0.0.1", sockets):
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url, host=host, password="guessed")
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(server.url.replace(password, ""), host=host, passfile="/dev/null")
    assert one(server, "SELECT bool_and(auth_method = 'scram-sha-256') FROM pg_hba_file_rules")
    assert one(server, "SHOW listen_addresses") == "127.0.0.1"


def test_nobody_else_reads_what_is_private(server):
    modes = {name: stat.S_IMODE((server.path / name).stat().st_mode) for name in ("password", "data", "socket")}
    assert modes == {"password": 0o600, "data": 0o700, "socket": 0o700}
    assert stat.S_IMODE(server.log.stat().st_mode) == 0o600
    assert (server.path / "password").read_text() not in (server.path / "pgtiles.conf").read_text()


def test_surroundings_do_not_leak_in(server, monkeypatch):
    """libpq's variables would lead psql astray; what a Python package tells PROJ and GDAL is not for the server's."""
    server.stop()
    names = ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE", "PGOPTIONS", "PROJ_DATA", "GDAL_DATA")
    for name in names:
        monkeypatch.setenv(name, "/nowhere")
    server.start()
    monkeypatch.undo()
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TEMP TABLE environment (line text)")
        connection.execute("COPY environment FROM PROGRAM 'env' (DELIMITER E'\\x01')")
        told = [line for (line,) in connection.execute("SELECT line FROM environment")]
    assert any(line.startswith("PATH=") for line in told)
    assert not [line for line in told if line.endswith("=/nowhere")]


def test_settings_take_effect_at_a_start(server):
    server.stop()
    with LocalServer(server.path, settings={**QUICK, "work_mem": "5MB", "log_line_prefix": "it's \\here\n"}) as other:
        assert one(other, "SHOW work_mem") == "5MB"
        assert one(other, "SHOW log_line_prefix") == "it's \\here\n"
        assert one(other, "SHOW jit") == "off"
    server.start()
    assert one(server, "SHOW work_mem") == "32MB"


@pytest.mark.parametrize("name", ["unix_socket_directories", "work mem", "x = 1\nport", ""])
def test_settings_that_are_none(name):
    with pytest.raises(ServerError, match="name PostgreSQL settings, except unix_socket_directories"):
        LocalServer("/nowhere", settings={name: "1"})


def test_a_start_that_fails_shows_the_log(server):
    server.stop()
    broken = LocalServer(server.path, settings={"shared_buffers": "many"})
    with pytest.raises(ServerError, match=r'(?s)did not start.*server\.log:.*"shared_buffers": "many"'):
        broken.start()
    assert not broken.running
    assert server.start() is True


def test_a_start_that_can_not_be_finished_leaves_no_server(server):
    server.stop()
    frozen = LocalServer(server.path, settings={**QUICK, "default_transaction_read_only": "on"})
    with pytest.raises(ServerError, match=r"(?s)psql failed for .* in a read-only transaction"), frozen:
        pass
    assert not frozen.running


def test_a_context_stops_what_it_started_and_nothing_else(server):
    with LocalServer(server.path):
        pass
    assert server.running
    server.stop()
    with LocalServer(server.path, settings=QUICK) as inner:
        assert server.running
        assert one(inner, "SELECT 1") == 1
    assert not server.running


# Accidents


def test_killed_in_the_middle_of_a_query(server):
    """Its last queries outlive a killed postmaster, and PostgreSQL starts no other beside them."""
    assert one(server, "SELECT count(*) FROM pg_class WHERE relname = 'crashed'") == 0
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE crashed AS SELECT 7 AS answer")
    url, begun = server.url, threading.Event()

    def query():
        with suppress(psycopg.OperationalError), psycopg.connect(server.url) as connection:
            begun.set()
            connection.execute("SELECT count(*) FROM generate_series(1, 8000000)")

    thread = threading.Thread(target=query)
    thread.start()
    begun.wait()
    time.sleep(0.2)
    crash(server)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)
    assert server.stop() is False
    assert server.start() is True
    thread.join()
    assert server.url == url
    assert one(server, "SELECT answer FROM crashed") == 7


@pytest.mark.parametrize("whose", ["the server's account", "our own", "nobody's"])
def test_a_stale_pid_file_names_a_stranger(server, whose):
    crash(server)
    file = server.data / "postmaster.pid"
    owner = server.data.stat().st_uid
    account = {"user": owner, "extra_groups": []} if ROOT else {}
    with subprocess.Popen(["sleep", "60"], **account) as stranger:
        try:
            pid = {"the server's account": stranger.pid, "our own": os.getpid(), "nobody's": 2**22 + 1}[whose]
            file.write_text("\n".join([str(pid), *file.read_text().splitlines()[1:]]) + "\n")
            assert not server.running
            assert server.stop() is False
            assert server.start() is True
            assert one(server, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_creation_that_is_interrupted_leaves_nothing(folder):
    path = folder / "interrupted"
    script = """
        import pathlib, sys, time
        from pgtiles.postgres.server import LocalServer
        pathlib.Path.rename = lambda *_: time.sleep(600)  # what was made is not given its name
        LocalServer(sys.argv[1]).start()
    """
    with python(script, path, start_new_session=True) as process:
        until(lambda: list(path.glob("data.new-*/global")))
        os.killpg(process.pid, signal.SIGKILL)
    assert not (path / "data").exists()
    server = LocalServer(path, settings=QUICK)
    assert not server.running
    assert server.start() is True
    assert one(server, "SELECT 1") == 1
    assert not list(path.glob("data.new-*"))
    server.remove()
    assert not path.exists()


def test_two_programs_start_one_server(folder):
    path = folder / "raced"
    script = """
        import sys
        from pgtiles.postgres.server import LocalServer
        server = LocalServer(sys.argv[1], settings={"fsync": "off"})
        print(server.start(), server.url)
    """
    with python(script, path) as first, python(script, path) as second:
        told = [process.communicate()[0].split() for process in (first, second)]
    assert sorted(started for started, _ in told) == ["False", "True"]
    assert len({url for _, url in told}) == 1
    raced = LocalServer(path)
    assert told[0][1] == raced.url
    assert one(raced, "SELECT 1") == 1
    raced.remove()


def test_stop_leaves_other_servers_alone(server, folder):
    nothing = LocalServer(folder / "nothing")
    assert nothing.stop() is False
    nothing.remove()
    assert server.running
    assert one(server, "SELECT 1") == 1


# Places


def test_a_path_too_long_for_a_socket(folder):
    with LocalServer(folder / ("long" * 30), settings=QUICK) as server:
        sockets = Path(one(server, "SHOW unix_socket_directories"))
        assert sockets.parent == Path("/tmp")
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert server.running
    assert not sockets.exists()
    server.remove()


def test_before_there_is_a_server(folder):
    server = LocalServer(folder / "nothing")
    assert not server.running
    with pytest.raises(ServerError, match=r"No server of yours is in .*nothing .*start\(\) makes one"):
        _ = server.url


def test_a_folder_with_something_else_in_it(folder):
    path = folder / "images"
    path.mkdir()
    (path / "holiday.jpg").write_text("irreplaceable")
    server = LocalServer(path)
    with pytest.raises(ServerError, match="holds something else: give an empty one"):
        server.start()
    server.remove()
    assert [file.name for file in path.iterdir()] == ["holiday.jpg"]


def test_a_folder_that_belongs_to_another(folder):
    path = Path("/usr")
    if ROOT:
        path = folder / "theirs"
        path.mkdir()
        os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    owner = "nobody" if ROOT else "root"
    with pytest.raises(ServerError, match=f"belongs to {owner}: be {owner}, or give another path"):
        LocalServer(path).start()


def test_a_folder_that_can_not_be(folder):
    (folder / "file").touch()
    with pytest.raises(ServerError, match=r"can't be used: Not a directory\. Give a path where you may write"):
        LocalServer(folder / "file" / "server").start()


def test_a_path_that_the_programs_can_not_be_given():
    with pytest.raises(ServerError, match="contains \"'\", which PostgreSQL's own programs can't be given"):
        LocalServer("/tmp/it's")


@pytest.mark.skipif(not ROOT, reason="only root's server runs as another account")
def test_a_path_closed_to_the_servers_account(folder):
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServerError, match=rf"the account postgres.* can't reach .*: {closed} is closed to it"):
        LocalServer(closed / "server").start()


def test_default_paths(monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    monkeypatch.delenv("PGTILES_HOME", raising=False)
    if ROOT:
        assert default_path() == Path("/var/lib/pgtiles")
    elif sys.platform == "linux":
        assert default_path() == Path("/xdg/pgtiles")
    monkeypatch.setenv("PGTILES_HOME", "/mine")
    assert LocalServer().path == Path("/mine")


def test_an_ordinary_user_needs_nobody(folder):
    """The whole life of a server without a right that an ordinary user lacks, in that user's own home."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    user = pwd.getpwnam("nobody").pw_uid if ROOT else os.geteuid()
    os.chown(home, user, -1)
    script = """
        import json, os, sys
        from pgtiles.postgres.server import LocalServer, default_path
        home, user = sys.argv[1], int(sys.argv[2])
        if os.geteuid() == 0:
            # Only now, with everything imported: root's own Python may be out of that user's reach.
            os.setgroups([]), os.setgid(user), os.setuid(user)
        os.environ.update(HOME=home, XDG_DATA_HOME="", PGTILES_HOME="")
        server = LocalServer(settings={"fsync": "off"})
        told = [server.start(), server.start(), server.url, str(server.path)]
        print(json.dumps(told), flush=True)
        sys.stdin.readline()
        print(json.dumps([server.stop(), server.stop(), server.running]))
    """
    with python(script, home, user, stdin=subprocess.PIPE) as process:
        started, again, url, path = json.loads(process.stdout.readline())
        assert (started, again) == (True, False)
        if sys.platform == "linux":
            assert path == str(home / ".local/share/pgtiles")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT postgis_raster_lib_version()").fetchone()
        assert Path(path, "data").stat().st_uid == user
        assert json.loads(process.communicate("\n")[0]) == [True, False, False]


# Programs


@pytest.fixture
def bare(monkeypatch):
    """A machine without PostgreSQL, as far as the search can see."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.delenv("PGTILES_PG_BINDIR", raising=False)
    monkeypatch.setattr(module, "FOLDERS", ())
    return monkeypatch


@pytest.fixture
def programs():
    return find_programs()


def test_programs_come_with_postgis(programs):
    assert (programs / "pg_ctl").exists()
    major = module.output(programs / "postgres", "--version").split()[2].split(".")[0]
    assert find_programs(major) == programs


def test_no_programs(bare, tmp_path):
    with pytest.raises(DependencyError) as caught:
        find_programs()
    message = str(caught.value)
    assert message.startswith("There is no PostgreSQL server with PostGIS on this machine. Install it:\n")
    assert "sudo apt-get install postgresql postgresql-postgis\n" in message
    assert "brew install postgis\n" in message
    assert "conda install -c conda-forge postgresql postgis\n" in message
    with pytest.raises(DependencyError):
        LocalServer(tmp_path / "server").bindir  # noqa: B018


def test_an_empty_folder_is_named(bare, tmp_path):
    bare.setenv("PGTILES_PG_BINDIR", str(tmp_path))
    with pytest.raises(DependencyError, match=f"{tmp_path} has no initdb, pg_ctl, postgres, psql"):
        find_programs()


def test_pg_config_of_a_client_library(programs, bare, tmp_path):
    """It comes first in the search, points to a folder without a server, and the search goes on."""
    config = tmp_path / "pg_config"
    config.write_text(f"#!/bin/sh\necho {tmp_path}/nothing\n")
    config.chmod(0o755)
    bare.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match=f"{tmp_path}/nothing has no initdb"):
        find_programs()
    bare.setattr(module, "FOLDERS", (str(programs),))
    assert find_programs() == programs


def test_postgresql_without_postgis(programs, bare, tmp_path):
    for name in module.PROGRAMS:
        (tmp_path / name).symlink_to(programs / name)
    bare.setenv("PGTILES_PG_BINDIR", str(tmp_path))
    major = module.output(programs / "postgres", "--version").split()[2].split(".")[0]
    with pytest.raises(DependencyError, match=f"{tmp_path} is PostgreSQL {major} without PostGIS") as caught:
        find_programs()
    assert f"sudo apt-get install postgresql-{major}-postgis-3\n" in str(caught.value)


def test_programs_of_another_version(programs, bare):
    bare.setenv("PGTILES_PG_BINDIR", str(programs))
    with pytest.raises(DependencyError, match="which can't open what version 9 made"):
        find_programs("9")
