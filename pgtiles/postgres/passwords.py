"""Passwords: none leaves this process in a pickle or is said in an error, and where one may be known from again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import conninfo

from ..errors import ConfigError, PgtilesError
from .server import LocalServer

SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")  # as libpq calls them
SCHEME = re.compile(r"(\w+)(?:\+\w+)?://")  # with a driver, as SQLAlchemy names one


def normal(url: str) -> str:
    """A URL or libpq string as settings by name; `ConfigError`, which shows nothing of it, where it is none.

    Also where a character of the password ends it: libpq would take the rest for a host or a port, and say it in its errors.
    """
    if scheme := SCHEME.match(url):
        if scheme[1] not in {"postgresql", "postgres"}:
            raise ConfigError(f"url={scheme[0]}…: expected postgresql://user@host:port/dbname")
        url = f"postgresql://{url[scheme.end() :]}"
    try:
        made = conninfo.make_conninfo(url, fallback_application_name="pgtiles")
    except psycopg.ProgrammingError as error:
        said = re.sub(r'".*"', '"…"', str(error).strip(), flags=re.S)  # libpq quotes what it stumbles over: maybe the password
        raise ConfigError(f"url: {said}; expected postgresql://user@host:port/dbname") from None
    known, path = conninfo.conninfo_to_dict(made), url.removeprefix("postgresql://").partition("/")[2]
    host, port = (str(known.get(name) or "") for name in ("host", "port"))
    if scheme and ("@" in path.partition("?")[0] or "@" in host or not re.fullmatch(r"[\d,]*", port)):
        raise ConfigError(
            "url: the user's name or the password ends early, at a character that means something in a URL. Write it by its "
            "code, @ as %40, / as %2F, : as %3A, ? as %3F, % as %25: urllib.parse.quote(password, safe='') does"
        )
    return made


def without(settings: str) -> str:
    """A libpq string without its passwords, as it may be kept and sent."""
    known = conninfo.conninfo_to_dict(settings)
    return conninfo.make_conninfo("", **{name: value for name, value in known.items() if name not in SECRETS})


def given_back(settings: str) -> str:
    """A libpq string without passwords, with those of `PGTILES_URL` or of the local server, where server and user are the same.

    From PGPASSWORD and ~/.pgpass libpq takes them by itself.
    """
    known = conninfo.conninfo_to_dict(settings)
    if any(name in known for name in SECRETS):
        return settings
    for other in map(conninfo.conninfo_to_dict, _at_hand()):
        if _whose(other) == _whose(known) and (secrets := {name: other[name] for name in SECRETS if name in other}):
            return conninfo.make_conninfo(settings, **secrets)
    return settings


def _at_hand() -> Iterator[str]:
    with suppress(PgtilesError):
        if url := os.environ.get("PGTILES_URL"):
            yield normal(url)
    with suppress(PgtilesError):
        if (server := LocalServer()).running:
            yield server.url


def _whose(known: Mapping[str, Any]) -> tuple[str, ...]:
    """The user, and the server: whose password it is, whatever the database."""
    names = {"user": "", "host": "", "hostaddr": "", "port": "5432", "service": ""}
    return tuple(str(known.get(name) or os.environ.get(f"PG{name.upper()}") or default) for name, default in names.items())
