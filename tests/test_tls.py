"""Over TLS the same tiles come, and a server that can't prove who it is gets no statement; password and service files are libpq's."""

import os
import shutil
import subprocess
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest
from conftest import scene, write_tiff
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from server_helpers import QUICK, scratch

from pgtiles import Database, Grid, Imagery, LocalServer, TileDataset, Tiles, load, read
from pgtiles.errors import DatabaseError
from pgtiles.postgres.programs import account

IN_TLS = sql.SQL("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")


def openssl(folder, *arguments):
    if not shutil.which("openssl"):
        pytest.skip("NO CERTIFICATE CAN BE MADE: the program openssl is missing (apt-get install openssl), and TLS is untested")
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def authority(folder, name):
    """A certificate that signs others, and its key."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}")


@pytest.fixture(scope="module")
def tls():
    """A server that proves to be localhost, a URL of it, and some imagery."""
    with scratch() as home:
        yield from served(home)


def served(home):
    authority(home, "ours")
    authority(home, "theirs")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(home, "req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (home / "names").write_text("subjectAltName=DNS:localhost\n")
    signed = ("-CA", "ours.crt", "-CAkey", "ours.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl(home, "x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")
    (home / "server.key").chmod(0o600)
    if who := account():
        for name in ("server.key", "server.crt"):
            os.chown(home / name, who.pw_uid, who.pw_gid)
    settings = {
        **QUICK,
        "ssl": "on",
        "ssl_cert_file": str(home / "server.crt"),
        "ssl_key_file": str(home / "server.key"),
    }
    with LocalServer(home / "server", settings=settings) as server:
        with Database(server.url) as db:
            pixels = scene(shape=(3, 512, 512))
            load.raster(db, [write_tiff(home / "scene.tif", pixels)], "scene")
            grid = Grid.like(db, "scene", size=128)
        known = conninfo_to_dict(server.url)
        # by name, which the certificate says, and at the address where it listens, whatever a machine calls localhost
        yield SimpleNamespace(
            home=home, grid=grid, pixels=pixels, known=known,
            url=lambda **more: "postgresql://{user}:{password}@localhost:{port}/{dbname}?hostaddr=127.0.0.1".format(**known)
            + "".join(f"&{name}={quote(str(value), safe='')}" for name, value in more.items()),
        )  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("PG") and name != "PGTILES_PG_BINDIR"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.postgresql/root.crt either


def whole(tls, db, **options):
    """All of the scene, as tiles of a dataset put it together."""
    tiles = Tiles.sliding(tls.grid, within=db.extent("scene", 3857))
    out = np.zeros_like(tls.pixels)
    dataset = TileDataset(db, tiles, {"image": Imagery("scene")}, batch_size=4, **options)
    for batch in dataset:
        for tile, image in zip(batch["tile_id"].tolist(), batch["image"].numpy(), strict=True):
            row, col = tiles.rows[tile] - tiles.rows[0], tiles.cols[tile] - tiles.cols[0]
            out[:, row : row + 128, col : col + 128] = image
    return out


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_the_same_tiles_come(tls, mode):
    root = {} if mode == "require" else {"sslrootcert": tls.home / "ours.crt"}
    with Database(tls.url(sslmode=mode, **root)) as db:
        [(ssl, version)] = db.query(IN_TLS)
        assert ssl
        assert version in {"TLSv1.2", "TLSv1.3"}
        np.testing.assert_array_equal(whole(tls, db), tls.pixels)
    with Database(tls.url(sslmode="disable")) as db:
        assert db.query(IN_TLS) == [(False, None)]


def test_rows_of_all_sizes_come_to_their_end(tls):
    """A record of TLS may hold more than libpq takes at once: what is left of the last one must not be waited for."""
    with Database(tls.url(sslmode="require")) as db:
        for size in [*range(7000, 60_000, 997), *(2**k + d for k in range(12, 20) for d in (-40, -24, -1, 0, 1))]:
            rows = list(db.copy(sql.SQL("SELECT convert_to(repeat('x', {}), 'UTF8') FROM generate_series(1, 3)").format(size)))
            assert [len(row) for row in rows] == [size + 6] * 3


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"sslmode": "verify-ca", "sslrootcert": "theirs.crt"}, "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "theirs.crt"}, "certificate verify failed"),
        ({"sslmode": "verify-full", "sslrootcert": "missing.crt"}, "does not exist"),
        ({"sslmode": "verify-full", "sslrootcert": "ours.crt", "host": "elsewhere"}, 'does not match host name "elsewhere"'),
        ({"sslmode": "require", "sslrootcert": "theirs.crt"}, "certificate verify failed"),
        ({"sslmode": "verify-full"}, "does not exist"),
    ],
)
def test_a_server_that_proves_nothing_is_an_error(tls, more, says):
    given = {name: tls.home / value if name == "sslrootcert" else value for name, value in more.items()}
    with pytest.raises(DatabaseError, match=r"sslrootcert") as error:
        Database(tls.url(**given)).query(IN_TLS)
    assert says in str(error.value)
    assert tls.known["password"] not in str(error.value)


def test_a_server_without_tls(server_url, tls):
    plain = conninfo_to_dict(server_url)
    with Database(server_url) as db:
        if db.query(IN_TLS) != [(False, None)]:
            pytest.skip("the tests' server speaks TLS itself")
    with pytest.raises(DatabaseError, match=r"server does not support SSL.*\n.*sslmode"):
        Database(" ".join(f"{name}={value}" for name, value in (plain | {"sslmode": "require"}).items())).query(IN_TLS)


def test_a_password_file_and_a_service_file(tls, tmp_path, monkeypatch):
    (tmp_path / "pass").write_text("localhost:{port}:{dbname}:{user}:{password}\n".format(**tls.known))
    (tmp_path / "services").write_text(
        "[osm]\nhost=localhost\nhostaddr=127.0.0.1\nport={port}\ndbname={dbname}\nuser={user}\n".format(**tls.known)
        + f"sslmode=verify-full\nsslrootcert={tls.home / 'ours.crt'}\n"
    )
    (tmp_path / "pass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pass"))
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for where in ("service=osm", "postgresql://?service=osm", None):
        if where is None:
            monkeypatch.setenv("PGSERVICE", "osm")
        with Database(where) as db:
            assert db.query(IN_TLS)[0][0]
            assert "service osm" in repr(db)
            tiles = Tiles.sliding(tls.grid, within=db.extent("scene", 3857))[:2]
            np.testing.assert_array_equal(read(db, tiles, {"i": Imagery("scene")})["i"][0], tls.pixels[:, :128, :128])


def test_a_service_that_nobody_defines(tmp_path, monkeypatch):
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    (tmp_path / "services").write_text("[osm]\nhost=localhost\n")
    with pytest.raises(DatabaseError, match=r'service mars.*definition of service "mars" not found\n.*PGSERVICEFILE'):
        Database("service=mars").query(IN_TLS)
