"""A password is in no repr, log, pickle, traceback or error of ours, however it was given; and unpickled elsewhere, a dataset finds
it where libpq and pgtiles look for it.
"""

import copy
import logging
import os
import pickle
import subprocess
import sys
import traceback
import warnings
from urllib.parse import quote

import psycopg
import pytest
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from server_helpers import QUICK, scratch
from sqlalchemy import URL, create_engine, make_url

from pgtiles import Database, Grid, Labels, LocalServer, TileDataset, Tiles, read
from pgtiles.errors import ConfigError, DatabaseError, PgtilesError
from pgtiles.postgres import passwords
from pgtiles.shell.view import View

WORDS = ("hush", "5ecret", "whisp3r")  # of which the password is made: none of them may show, whatever cuts it
PASSWORD = "hush@hush/5ecret:?whisp3r%&= '\"\\ ü#hush"
ROLE = 'keeper of "it"/@:'
WHO = sql.SQL("SELECT current_user::text")


@pytest.fixture(scope="module")
def server():
    """One that asks for a password, whatever the server of the other tests does."""
    with scratch() as home, LocalServer(home / "server", settings=QUICK) as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), PASSWORD))
            conn.execute("CREATE TABLE roads AS SELECT 1 AS id, ST_MakeEnvelope(0, -32, 32, 0, 3857) AS geom")
            conn.execute("CREATE INDEX ON roads USING gist (geom); GRANT SELECT ON roads TO PUBLIC")
        yield server


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path):
    """No password is to be had but from the test's own URL: neither from the environment, nor from files, nor a local server."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        if name != "PGTILES_PG_BINDIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.setenv("PGTILES_HOME", str(tmp_path / "nowhere"))


def place(server, **more):
    """The server, as libpq's settings: host, port and dbname."""
    known = conninfo_to_dict(server.url)
    return {name: known[name] for name in ("host", "port", "dbname")} | {"user": ROLE} | more


def url(server, password=PASSWORD, dbname="pgtiles", user=ROLE, query=""):
    known = place(server)
    secret = "" if password is None else f":{quote(password, safe='')}"
    return f"postgresql://{quote(user, safe='')}{secret}@{known['host']}:{known['port']}/{dbname}{query}"


def written(path, text):
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def escaped(text):
    """As .pgpass has it."""
    return text.replace("\\", "\\\\").replace(":", "\\:")


FORMS = {
    "a URL": lambda s, tmp, env: url(s),
    "a URL with a driver": lambda s, tmp, env: url(s).replace("postgresql://", "postgresql+psycopg://"),
    "a URL's query": lambda s, tmp, env: url(s, None, query=f"?password={quote(PASSWORD, safe='')}"),
    "libpq's string": lambda s, tmp, env: make_conninfo(**place(s, password=PASSWORD)),
    "an SQLAlchemy URL": lambda s, tmp, env: URL.create("postgresql", ROLE, PASSWORD, "127.0.0.1", int(place(s)["port"]), "pgtiles"),
    "an SQLAlchemy URL from text": lambda s, tmp, env: make_url(url(s)),
    "an Engine": lambda s, tmp, env: create_engine(url(s).replace("postgresql:", "postgresql+psycopg:")),
    "PGPASSWORD": lambda s, tmp, env: env("PGPASSWORD", PASSWORD) or url(s, None),
    "PGPASSFILE": lambda s, tmp, env: env(
        "PGPASSFILE", written(tmp / "pass", f"127.0.0.1:*:*:{escaped(ROLE)}:{escaped(PASSWORD)}\n")
    ) or url(s, None),
    "passfile=": lambda s, tmp, env: make_conninfo(
        **place(s, passfile=written(tmp / "my pass", f"*:*:*:*:{escaped(PASSWORD)}\n"))
    ),
    "a service": lambda s, tmp, env: env("PGSERVICEFILE", written(
        tmp / "service.conf", "[osm]\n" + "".join(f"{k}={v}\n" for k, v in place(s, password=PASSWORD).items())
    )) or "service=osm",
    "PGSERVICE": lambda s, tmp, env: FORMS["a service"](s, tmp, env) and env("PGSERVICE", "osm"),
    "PGTILES_URL": lambda s, tmp, env: env("PGTILES_URL", url(s)),
}  # fmt: skip


def shows(text):
    return [word for word in (*WORDS, quote(PASSWORD, safe="")) if word in text]


def told(error):
    """All that a traceback says, of causes and contexts too."""
    return (
        "".join(traceback.format_exception(error))
        + repr(error)
        + repr(error.args)
        + repr(error.__context__)
        + repr(error.__cause__)
    )


def tiles():
    return Tiles.sliding(Grid(srid=3857, resolution=1.0, size=16), within=(0, -32, 32, 0))


@pytest.mark.parametrize("form", FORMS)
def test_it_opens_and_does_not_show(form, server, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    where = FORMS[form](server, tmp_path, monkeypatch.setenv)
    said = []
    with warnings.catch_warnings(record=True) as caught, Database(where) as db:
        warnings.simplefilter("always")
        assert db.query(WHO) == [(ROLE,)]
        dataset = TileDataset(db, tiles(), {"m": Labels("roads")}, batch_size=4)
        assert [int(batch["m"].sum()) for batch in dataset] == [1024]
        for kept in (db, dataset, Labels("roads"), dataset.plan):
            said += [repr(kept), str(kept), pickle.dumps(kept).decode("latin-1"), repr(pickle.dumps(kept, 0))]
        said += [db.name, db.source, repr(View(url=str(db.conninfo))), str(dataset.check()), repr(dataset.why(0))]
        for wrong in (
            lambda: db.table("no such"),
            lambda: read(db, tiles(), {"m": Labels("SELECT geom, 1 / (id - 1) AS value FROM roads")}),
            lambda: db.query(sql.SQL("SELECT pg_terminate_backend(pg_backend_pid())")),
        ):
            with pytest.raises(PgtilesError) as error:
                wrong()
            said.append(told(error.value))
    assert shows("\n".join([*said, *(str(w.message) for w in caught), caplog.text, *capfd.readouterr()])) == []


@pytest.mark.parametrize("wrong", [{"dbname": "no_such"}, {"user": "nobody"}, {"port": "1"}, {"password": PASSWORD + "x"}, {"host": "no.such.host.invalid"}, {"sslmode": "verify-full", "sslrootcert": "/no/such"}, {"sslmode": "hush?"}])  # fmt: skip
def test_nor_where_it_can_not_connect(wrong, server):
    known = place(server, password=PASSWORD) | wrong
    shown = [word for word in WORDS if word not in str({k: v for k, v in known.items() if k != "password"})]
    for where in (make_conninfo(**known), URL.create("postgresql", None, query={k: str(v) for k, v in known.items()})):
        with pytest.raises(DatabaseError) as error:
            Database(where).query(WHO)
        text = told(error.value)
        assert [word for word in shown if word in text] == []


@pytest.mark.parametrize(
    "malformed",
    [
        "postgresql://u:hush@5ecret@h/db", "postgresql://u:hush/5ecret@h/db", "postgresql://u:12/hush@h/db", "postgresql://u:hu?sh@5ecret@h/db",
        "postgresql://u:hush/5ecret?whisp3r=@h/db", "postgresql://u:12/?hush=5ecret@h/db", "postgresql://u:hush%zz5ecret@h/db",
        "postgresql://u:hush\n%zz5ecret@h/db", "postgresql://u:h@hush:5ecret/db", "postgresql://u:12@/hush@h/db",
        "host=h password=hush 5ecret dbname=d", "host=h password='hush 5ecret", "host=h password=hush 5ecret=whisp3r", "hush:5ecret@h/db",
        "host=h password='hush\n5ecret' whisp3r", "mysql://u:hush@h/db?password=5ecret", "postgres+x://u:hush@whisp3r@5ecret/db",
        "postgresql://u@h/db?hush=5ecret", "postgresql://u@h/db?password=hush=5ecret", "postgresql://u:x%00hush@h/db",
    ],
)  # fmt: skip
def test_nor_where_it_ends_early(malformed, monkeypatch):
    for give in (lambda: Database(malformed), lambda: monkeypatch.setenv("PGTILES_URL", malformed) or Database()):
        with pytest.raises(ConfigError) as error:
            give()
        assert shows("".join(traceback.format_exception(error.value))) == []


def test_what_means_nothing_in_a_url_need_no_code():
    known = conninfo_to_dict(Database("postgresql://u:a?b:c#d&e=f@h,[::1]:1,:2/d%40b?application_name=a@b").conninfo)
    assert (known["password"], known["host"], known["port"], known["dbname"]) == ("a?b:c#d&e=f", "h,::1,", ",1,2", "d@b")
    assert conninfo_to_dict(Database("host=@abstract dbname=a@b").conninfo)["host"] == "@abstract"


def test_nor_in_a_wrong_url_of_sqlalchemy():
    wrong = URL.create("mysql", "u", "hush", "h", query={"password": "5ecret"})
    with pytest.raises(ConfigError, match="expected a PostgreSQL URL") as error:
        Database(wrong)
    assert shows("".join(traceback.format_exception(error.value))) == []


def test_nor_on_the_screen(server):
    view = ["--labels", "roads", "--srid", "3857", "--resolution", "1", "--size", "16", "--within", "0,-32,32,0"]
    for where, code in ((url(server), 0), (url(server, dbname="no_such"), 1), (url(server).replace("%40", "@"), 1)):
        done = subprocess.run(
            [sys.executable, "-m", "pgtiles", "sql", *view, "--url", where], capture_output=True, text=True, check=False
        )
        assert (done.returncode != 0) == code, done.stderr
        assert shows(done.stdout + done.stderr) == []


def test_all_that_libpq_hides_is_a_secret():
    hidden = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    assert hidden
    assert hidden <= set(passwords.SECRETS)


def test_a_key_has_a_password_too():
    db = Database("host=h sslkey=/k sslpassword=hush password=5ecret")
    assert shows(repr(db) + pickle.dumps(db).decode("latin-1")) == []
    assert conninfo_to_dict(pickle.loads(pickle.dumps(db)).conninfo)["sslkey"] == "/k"


class TestUnpickled:
    def again(self, server, **known):
        return pickle.loads(pickle.dumps(Database(make_conninfo(**place(server, password=PASSWORD, **known)))))

    def test_without_a_password_it_says_so(self, server):
        with pytest.raises(DatabaseError, match=r"no password supplied\n.*Pickles hold no password.*PGTILES_URL of the same"):
            self.again(server).query(WHO)

    def test_libpq_knows_one(self, server, monkeypatch, tmp_path):
        with monkeypatch.context() as patch:
            patch.setenv("PGPASSWORD", PASSWORD)
            assert self.again(server).query(WHO) == [(ROLE,)]
        monkeypatch.setenv("PGPASSFILE", written(tmp_path / "pass", f"*:*:pgtiles:*:{escaped(PASSWORD)}\n"))
        assert self.again(server).query(WHO) == [(ROLE,)]

    def test_a_url_of_the_same_place_knows_one(self, server, monkeypatch):
        monkeypatch.setenv("PGTILES_URL", url(server, dbname="another"))  # a role's password is that of all databases
        again = self.again(server)
        assert again.query(WHO) == [(ROLE,)]
        assert again.name.endswith("/pgtiles")
        monkeypatch.setenv("PGUSER", ROLE)
        monkeypatch.setenv("PGTILES_URL", url(server).replace(f"{quote(ROLE, safe='')}:", ":").replace("://", "+psycopg://"))
        assert self.again(server).query(WHO) == [(ROLE,)]

    @pytest.mark.parametrize("other", [{"user": "pgtiles"}, {"host": "localhost"}, {"hostaddr": "127.0.0.2"}, {"port": "5431"}])
    def test_one_of_another_place_is_sent_nowhere(self, server, monkeypatch, other):
        monkeypatch.setenv("PGTILES_URL", make_conninfo(**place(server, password=PASSWORD) | other))
        assert shows(self.again(server).conninfo) == []

    def test_a_malformed_one_is_none(self, server, monkeypatch):
        monkeypatch.setenv("PGTILES_URL", "postgresql://u:hush@hush@h")
        with pytest.raises(DatabaseError, match="no password supplied"):
            self.again(server).query(WHO)

    def test_the_local_server_knows_its_own(self, server, monkeypatch):
        data = pickle.dumps(Database(server.url))
        assert conninfo_to_dict(server.url)["password"] not in data.decode("latin-1")
        monkeypatch.setenv("PGTILES_HOME", str(server.path))
        assert pickle.loads(data).query(WHO) == [("pgtiles",)]

    def test_it_carries_all_else(self, server):
        db = Database(url(server))
        db.something = {"else": 5}
        db.query(WHO)  # it holds a connection by now
        again = pickle.loads(pickle.dumps(db))
        assert again.something == {"else": 5}
        assert (again.name, again.source) == (db.name, db.source)

    def test_a_copy_is_no_pickle(self, server):
        db = Database(url(server))
        for again in (copy.copy(db), copy.deepcopy(db), copy.deepcopy({"db": db})["db"]):
            assert again.query(WHO) == [(ROLE,)]
            assert again is not db


@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_that_are_spawned_are_told(start, server):
    dataset = TileDataset(Database(server.url), tiles(), {"m": Labels("roads")}, batch_size=2)
    batches = list(dataset.loader(num_workers=2, multiprocessing_context=start))
    assert sorted(int(i) for batch in batches for i in batch["tile_id"]) == [0, 1, 2, 3]
    assert sum(int(batch["m"].sum()) for batch in batches) == 1024
    assert conninfo_to_dict(server.url)["password"] not in pickle.dumps(dataset).decode("latin-1")  # and nobody else is


def test_osm2pgsql_is_told_by_the_environment_or_not_at_all(tmp_path):
    from pgtiles.errors import LoadError
    from pgtiles.loading import osm2pgsql

    for name in set(passwords.SECRETS) - {"password"}:
        with pytest.raises(LoadError, match=name) as error:
            osm2pgsql.run(tmp_path / "program", make_conninfo(host="h", **{name: PASSWORD}), tmp_path, [], None)
        assert shows(str(error.value)) == []
