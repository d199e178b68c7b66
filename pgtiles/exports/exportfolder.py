"""A folder of exported tiles that is whole at any time: what is there, what was noted of it, and how more is added.

Files are written in a folder within it and moved to their place at once. Only then a lot of tiles is noted, at the end of a
journal, with an empty line behind it: a lot without that line is not there. Whoever is killed goes on from the journal. When
all is written, the journal becomes ``tiles.jsonl``, a line a tile by their ids, however often it was interrupted.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

from ..errors import ConfigError, DataError, LoadError, PgtilesError
from ..layers.describing import differences

FORMAT = 1  # of the folder and of what is noted
SETTINGS, TILES, WORK, JOURNAL = "pgtiles.json", "tiles.jsonl", ".pgtiles", "journal.jsonl"

Json = dict[str, Any]


@contextmanager
def export_folder(path: Path, settings: Json) -> Iterator[Folder]:
    """The folder, made if need be, for this process alone.

    Raises `ConfigError` where it holds anything else, or tiles that were exported otherwise, or another process writes into it.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # whatever ends the process, ends it
        except BlockingIOError:
            raise ConfigError(f"{path}: another process is exporting into it: wait for it, or name another folder") from None
        with explained(path):
            _prepare(path, {"pgtiles export": FORMAT} | settings)
            folder = Folder(path)
        try:
            yield folder
        finally:
            folder.close()
            folder.tidy()
    finally:
        os.close(handle)


def _prepare(path: Path, settings: Json) -> None:
    noted = path / SETTINGS
    if noted.exists():
        try:
            there = json.loads(noted.read_text(encoding="utf-8"))
            known = there["pgtiles export"]
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{noted} is not what an export writes: name another folder") from None
        if known != FORMAT:
            raise DataError(
                f"{path} was exported by another version of pgtiles (format {known}, known is {FORMAT}): export anew"
            )
        if differ := list(differences(there, settings)):
            raise ConfigError(
                f"{path} was exported otherwise: {'; '.join(differ[:3])}. Export into another folder, or remove this one first"
            )
    elif odd := sorted(entry.name for entry in path.iterdir() if entry.name != WORK):
        raise ConfigError(f"{path} holds {odd[0]!r} and is no export: name an empty folder, or one that is not there yet")
    (path / WORK).mkdir(exist_ok=True)
    if not noted.exists():
        aside = path / WORK / SETTINGS
        aside.write_text(json.dumps(settings, indent=1, ensure_ascii=False), encoding="utf-8")
        aside.replace(noted)


class Folder:
    """What `export_folder` gives."""

    def __init__(self, path: Path) -> None:
        self.path, self._numbers, self._lock, self._made = path, count(), Lock(), set[Path]()
        self._places = dict[int, tuple[int, int, int]]()  # of each tile's note: the file, where it begins, and how long it is
        (path / TILES).touch()
        self._files = [(path / TILES).open("rb"), (path / WORK / JOURNAL).open("a+b")]
        self._end = 0  # of the journal, as far as it is whole
        for number in (0, 1):
            self._read(number)

    def _read(self, number: int) -> None:
        """Take in what is noted in a file; of the journal, the lots that were noted whole."""
        file, lot, at = self._files[number], list[tuple[int, int, int, int]](), 0
        file.seek(0)
        for line in file:
            if line == b"\n" or number == 0:
                for id_, *place in lot:
                    self._places[id_] = (place[0], place[1], place[2])
                lot, self._end = [], at + len(line)
            if line != b"\n" and line.endswith(b"\n"):
                with suppress(ValueError):
                    lot.append((json.loads(line)["id"], number, at, len(line)))
            at += len(line)
        if number == 0:
            for id_, *place in lot:
                self._places[id_] = (place[0], place[1], place[2])
            self._end = 0
        else:
            file.truncate(self._end)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._places

    def __len__(self) -> int:
        return len(self._places)

    def forget(self, id_: int) -> None:
        """Take a tile for one that is not there."""
        del self._places[id_]

    def note(self, id_: int) -> Json:
        """What was noted of a tile."""
        return json.loads(self._line(id_))  # type: ignore[no-any-return]

    def notes(self) -> Iterator[Json]:
        """What was noted of all, by their ids."""
        return (self.note(id_) for id_ in sorted(self._places))

    def _line(self, id_: int) -> bytes:
        number, at, length = self._places[id_]
        file = self._files[number]
        return os.pread(file.fileno(), length, at)

    def aside(self) -> Path:
        """A file's name to write under before it is moved to its place."""
        return self.path / WORK / f"{next(self._numbers)}.part"

    def add(self, files: Iterable[tuple[Path, str]], notes: Iterable[Json]) -> None:
        """Move the files of some tiles to their places, and note the tiles: all of them or, where it can't be, none."""
        for aside, name in files:
            self._move(aside, name)
        lines = [json.dumps(note, ensure_ascii=False).encode() + b"\n" for note in notes]
        with self._lock:
            journal, end = self._files[1], self._end
            try:
                journal.write(b"".join(lines) + b"\n")
                journal.flush()
            except OSError:
                with suppress(OSError):  # its buffer, too, is still full of it
                    journal.close()
                os.truncate(self.path / WORK / JOURNAL, end)
                self._files[1] = (self.path / WORK / JOURNAL).open("a+b")
                raise
            for line in lines:
                self._places[json.loads(line)["id"]] = (1, end, len(line))
                end += len(line)
            self._end = end + 1

    def finish(self, beside: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Write what stands beside the tiles, and of each what was noted, by their ids."""
        for name, texts in beside:
            self._move(self._written(text.encode() for text in texts), name)
        self._move(self._written(self._line(id_) for id_ in sorted(self._places)), TILES)
        self.close()
        (self.path / WORK / JOURNAL).unlink()

    def _written(self, parts: Iterable[bytes]) -> Path:
        aside = self.aside()
        with aside.open("wb") as file:
            file.writelines(parts)
        return aside

    def _move(self, aside: Path, name: str) -> None:
        final = self.path / name
        if final.parent not in self._made:
            final.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(final.parent)
        aside.replace(final)

    def tidy(self) -> None:
        """Remove what is left of the work, but for a journal from which the next call goes on."""
        with suppress(OSError):  # what can't be removed, as of a disk that went read-only, is of no harm
            for leftover in (self.path / WORK).iterdir():
                if leftover.name != JOURNAL or not leftover.stat().st_size:
                    leftover.unlink()
            (self.path / WORK).rmdir()

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            with suppress(OSError):
                file.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What the system does not allow, in words: `LoadError`."""
    try:
        yield
    except PgtilesError:  # of which some are OSErrors: a server that is away is no disk that is full
        raise
    except OSError as error:
        raise LoadError(f"{error.filename or path} can't be written: {error.strerror or error}") from error
