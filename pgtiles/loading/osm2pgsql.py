"""osm2pgsql, the program that puts OpenStreetMap into tables: finding it, running it, and what it says."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import conninfo

from ..errors import DependencyError, LoadError
from ..postgres import passwords

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +")  # heads a message; a line without it goes on with the last one
# Warnings of how it is called, not of the file: that its classic tables are deprecated, and that without --slim it needs no
# --middle-schema, where its notes go nevertheless.
OURS = re.compile(r"deprecated|--middle-schema")
ADVICE = (
    (
        r"PBF error|XML|top-level|EOF|gzip|bzip2|inflate",
        "is it whole, and what its name says? fetch it again, and compare size",
    ),
    (r"file format", "its name says its format: .osm.pbf, .osm, .osm.bz2 or .osm.gz"),
    (r"[Pp]rojection", "PROJ must know EPSG:… of that number"),
    (r"No space left", "make room on the server's disk"),
    (r"bad_alloc|emory", "slim=True (--slim) needs less memory"),
)


@dataclass(frozen=True)
class Message:
    """What the program said: ``ERROR``, ``WARNING`` or nothing, and the text."""

    level: str
    text: str


def find() -> Path:
    """Where the program is."""
    if found := shutil.which("osm2pgsql"):
        return Path(found)
    raise DependencyError(
        "to load OpenStreetMap needs the program osm2pgsql, which is not on PATH. Install it:\n"
        "  Debian, Ubuntu:  sudo apt-get install osm2pgsql\n"
        "  Fedora:          sudo dnf install osm2pgsql\n"
        "  macOS:           brew install osm2pgsql\n"
        "  conda:           conda install -c conda-forge osm2pgsql"
    )


def run(program: Path, url: str, file: Path, options: Sequence[str], progress: Callable[[str], None] | None) -> list[str]:
    """Load a file; its warnings. ``url`` is libpq's; the password in it travels by the environment, which others can't read.

    Raises:
        LoadError: with the reason that it gave; what it had committed by then stays.

    """
    known = conninfo.conninfo_to_dict(url)
    # libpq's words in English, and not the PROJ data of a Python package, which are of another version
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PROJ_")} | {"LC_ALL": "C"}
    if password := known.pop("password", None):
        environment["PGPASSWORD"] = str(password)
    if open_ := [name for name in passwords.SECRETS if name in known]:  # libpq has no variables for them
        raise LoadError(f"osm2pgsql would show {open_[0]} to everybody on this machine: use a key without one")
    database = conninfo.make_conninfo("", **known)
    command = [str(program), "--log-progress=true", f"--database={database}", *options, str(file.absolute())]
    messages = [Message("", "")]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        try:
            for line in _lines(process.stdout):  # type: ignore[arg-type]  # a pipe, as asked for
                text = STAMP.sub("", line).strip()
                if progress and text and messages[-1].level != "ERROR":
                    progress(text)
                _take(messages, line)
        except BaseException:  # Ctrl-C above all: it must not go on without us
            process.kill()
            raise
    if process.returncode:
        raise LoadError(_reason(messages, process.returncode))
    return [message.text for message in messages if message.level == "WARNING" and not OURS.search(message.text)]


def _lines(pipe: io.BufferedReader) -> Iterator[str]:
    """Lines as they come; a progress line ends with a carriage return and is then written over."""
    rest = ""
    while chunk := pipe.read1(65536):
        *lines, rest = re.split(r"[\r\n]", rest + chunk.decode("utf-8", "replace"))
        yield from lines
    yield rest


def _take(messages: list[Message], line: str) -> None:
    """Add the line to the messages that count: errors, warnings, and the last of whatever else was said."""
    text, stamped = STAMP.subn("", line, count=1)
    if not text.strip(" ."):
        return
    level, colon, rest = text.partition(": ")
    if stamped and colon and level in {"ERROR", "WARNING"}:
        messages.append(Message(level, rest.strip()))
    elif stamped or not messages[-1].level:
        messages[:] = [message for message in messages if message.level] + [Message("", text.strip())]
    else:
        messages[-1] = Message(messages[-1].level, f"{messages[-1].text} {text.strip()}")


def _reason(messages: list[Message], code: int) -> str:
    """Why it failed, and what to do."""
    if code < 0:
        return f"osm2pgsql was killed (signal {-code}); where memory ran out, slim=True (--slim) needs less"
    errors = [message.text for message in messages if message.level == "ERROR"]
    said = errors[-1] if errors else messages[-1].text or f"nothing, and ends with code {code}"
    said = re.split(r"\s+(?:HINT|CONTEXT|LINE \d+):", said)[0]  # the server's: rows of data, the driver's statements
    advice = next((advice for pattern, advice in ADVICE if re.search(pattern, said)), None)
    return f"osm2pgsql says: {said.rstrip(' .')}{f'; {advice}' if advice else ''}"
