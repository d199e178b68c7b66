"""PostgreSQL's programs on this machine: where they are, and as whom they run.

PostgreSQL refuses to run as root: then they run as the account that its package made.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DependencyError, ServerError

if sys.platform != "win32":
    import pwd

PROGRAMS = ("initdb", "pg_ctl", "postgres", "psql")
# Where packages put them: Debian and Ubuntu, the RPMs of postgresql.org, Homebrew on Apple silicon and on Intel.
FOLDERS = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


def find_programs(major: str | None = None) -> Path:
    """The folder with PostgreSQL's server programs, PostGIS among its extensions (of that major version, if given)."""
    seen, bare = [], None
    for folder in dict.fromkeys(_candidates()):
        absent = [program for program in PROGRAMS if not (folder / program).is_file()]
        if absent:
            seen.append(f"{folder} has no {', '.join(absent)}")
            continue
        version = (re.findall(r"\d+", output(folder / "postgres", "--version")) or ["of an unknown version"])[0]
        if not any((share / "extension" / "postgis_raster.control").is_file() for share in _shares(folder)):
            seen.append(f"{folder} is PostgreSQL {version} without PostGIS")
            bare = bare or version
        elif major in (None, version):
            return folder
        else:
            seen.append(f"{folder} is PostgreSQL {version}, which can't open what version {major} made")
    debian = f"postgresql-{major or bare}-postgis-3" if major or bare else "postgresql postgresql-postgis"
    raise DependencyError(
        f"There is no PostgreSQL {major + ' ' if major else ''}server with PostGIS on this machine"
        f"{': ' if seen else ''}{'; '.join(seen)}. Install it:\n"
        f"  Debian, Ubuntu:  sudo apt-get install {debian}\n"
        "  Fedora:          sudo dnf install postgresql-server postgis\n"
        "  macOS:           brew install postgis\n"
        "  conda:           conda install -c conda-forge postgresql postgis\n"
        "or name the folder of its programs in PGTILES_PG_BINDIR, or use another server through PGTILES_URL."
    )


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("PGTILES_PG_BINDIR"):
        yield Path(named)
        return
    if config := shutil.which("pg_config"):  # it may come with the client library alone and point to an empty place
        yield Path(output(config, "--bindir"))
    if found := shutil.which("postgres"):
        yield Path(found).resolve().parent
    if conda := os.environ.get("CONDA_PREFIX"):
        yield Path(conda, "bin")
    for pattern in FOLDERS:  # the newest first
        versions = {folder: [int(n) for n in re.findall(r"\d+", str(folder))] for folder in Path("/").glob(pattern[1:])}
        yield from sorted(versions, key=lambda folder: versions[folder], reverse=True)


def _shares(folder: Path) -> Iterator[Path]:
    if (folder / "pg_config").is_file():
        yield Path(output(folder / "pg_config", "--sharedir"))
    share = folder.parent / "share"
    yield from (share / "postgresql", share, share / "pgsql", Path("/usr/share/postgresql", folder.parent.name))


def output(program: str | Path, *options: str) -> str:
    """What a program prints, asked as ourselves; nothing, if it fails."""
    return subprocess.run([program, *options], capture_output=True, text=True, check=False).stdout.strip()


def account() -> pwd.struct_passwd | None:
    """As root: the account that runs PostgreSQL's programs in our place."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "_postgres"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise ServerError(
        "PostgreSQL refuses to run as root, and the account postgres, which would run it instead, does not exist: "
        "make it (useradd --system postgres), or be an ordinary user."
    )


def run(program: str | Path, *args: object, folder: Path, text: str = "", **env: str) -> str:
    """What a program says that runs in a folder, given a text, as the server's account and without our surroundings."""
    # libpq's variables name other servers, and a Python package's PROJ and GDAL data are not for the server's libraries.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PROJ_", "GDAL_", "POSTGIS_"))}
    other: dict[str, Any] = {}
    if who := account():
        other = {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(program), *map(str, args)], input=text, capture_output=True, encoding="utf-8", errors="replace",
            check=False, cwd=folder, umask=0o077, env={**clean, "LC_ALL": "C", **env}, **other,
        )  # fmt: skip
    except OSError as error:
        by = f" by the account {who.pw_name}, which runs PostgreSQL in place of root" if who else ""
        raise ServerError(f"{program} can't be run{by}: {error.strerror}.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise ServerError(f"{Path(program).name} failed for the server in {folder}:\n{said}")
    return done.stdout.strip()
