"""The pre-flight: what is wrong, or slow, before a night is spent on it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, PgtilesError, PgtilesWarning, QueryError, SridError
from ..layers.bakedtable import Baked
from ..layers.query import Layer, OpenLayer
from ..postgres.database import Database
from ..streaming.reading import Plan, lost_in_words, read_batch, too_small
from ..template import compose
from ..tiling.tiles import Tiles
from .placecheck import check_places, lies_in
from .tablecheck import Finding, Used, check_table, named_table, note, problem, used
from .timing import Stages, stages

TIMED = 32  # tiles
MANY = 16  # tiles, all of which lack something by no accident
UNREAD = "the layer can't be read"
LOT = 8  # tiles that are read together


@dataclass(frozen=True)
class LayerFacts:
    """How a layer is read. empty: of the tiles that were looked at, how many nothing of it reached."""

    layer: str
    tables: tuple[str, ...]
    srid: int | None
    resolution: tuple[float, float] | None
    path: str
    why: str
    shape: tuple[int | None, ...]
    dtype: str
    empty: int
    indexes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What `check` found.

    tiles: how many were looked at. size: what a tile is, in words. speed: of 32 tiles on one connection; None where they
    can't be read.
    """

    database: str
    tiles: int
    size: str
    layers: tuple[LayerFacts, ...]
    server: dict[str, str]
    connections: dict[str, int]
    speed: Stages | None
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no problem; notes may be there."""
        return all(finding.severity != "problem" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        speed = self.speed and asdict(self.speed) | {"rate": self.speed.rate}
        return asdict(self) | {"ok": self.ok, "speed": speed}


def check(
    db: Database,
    tiles: Tiles | None,
    layers: Mapping[str, Layer],
    *,
    connections: int = 2,
    workers: int = 0,
    count: int = 64,
    stopped: PgtilesError | None = None,
) -> Report:
    """Look at everything that training reads, and say what is wrong or slow and what to do about it.

    tiles: those of the training; so many of them as `count` says are read, evenly spread. None where there can't be any, for
    the reason `stopped`: then only the tables are looked at.
    connections, workers: as the training will have them.

    Raises `ConfigError`, `MissingError` or `QueryError` where a layer asks for something that is not there, as reading would.
    """
    if tiles is not None and tiles.zone is not None:
        raise ConfigError("check looks at tiles of one grid, and these lie on several: check each of tiles.by_grid() by itself")
    plan, findings = opened(db, tiles, layers) if tiles is not None else (None, [])
    tables = {name: _tables(db, tiles, layers[name], _open(plan, name)) for name in layers}
    for name, every in tables.items():
        findings += [finding for one in every for finding in check_table(db, name, one)]
    if stopped and all(finding.severity != "problem" for finding in findings):
        findings.append(problem("", "no tiles can be laid over the imagery", *_split(str(stopped))))
    if tiles is not None:
        findings += check_places(db, tiles, tables)
    server, wanted, said = _server(db, connections * max(workers, 1))
    findings += said
    looked = tiles[_spread(len(tiles), count)] if plan and tiles is not None else None
    facts, speed = list[LayerFacts](), None
    if plan and looked is not None:
        empty, speed, said = _read(db, plan, looked)
        findings += said
        facts = [
            _facts(db, layer, layers[layer.name], tables[layer.name], none)
            for layer, none in zip(plan.layers, empty, strict=True)
        ]
    findings = sorted(dict.fromkeys(findings), key=lambda finding: finding.severity != "problem")
    size = "" if tiles is None else size_of(tiles)
    return Report(db.name, len(looked or ()), size, tuple(facts), server, wanted, speed, tuple(findings))


def opened(db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> tuple[Plan | None, list[Finding]]:
    """The plan of those layers that open, and what is to be said of them and of the others."""
    found, good = list[Finding](), dict(layers)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", PgtilesWarning)
        try:
            plan: Plan | None = Plan.open(db, tiles, layers)
        except (DataError, SridError):
            alone = {name: _Alone(layer) for name, layer in layers.items()}
            for name, layer in alone.items():
                try:
                    Plan.open(db, tiles, {name: layer})
                except (DataError, SridError) as error:
                    del good[name]
                    text = _without_name(name, str(error))
                    found.append(problem(name, UNREAD, *_split(text)))
            good = {name: layer if alone[name].missing in {"", *good} else alone[name] for name, layer in good.items()}
            plan = Plan.open(db, tiles, good) if good else None
    of_layers = {text for layer in (plan.layers if plan else ()) for text in layer.warnings}
    for name, text in [(layer.name, text) for layer in (plan.layers if plan else ()) for text in layer.warnings]:
        what, mend = _split(text)
        found.append(problem(name, what, "", mend))
    for text in dict.fromkeys(str(one.message) for one in said):
        if not any(text.endswith(known) for known in of_layers):
            what, mend = _split(text)
            found.append(problem("", what, "", mend))
    return plan, found


class _Alone:
    """A layer without the one whose missing imagery it ignores: that one may be what can't be read."""

    def __init__(self, layer: Layer) -> None:
        self.layer, self.missing = layer, ""
        self.resolution = getattr(layer, "resolution", None)

    def open(self, db: Database, tiles: Tiles, name: str, number: int) -> OpenLayer:
        """Open the layer; what it asks of another one is kept apart."""
        found = self.layer.open(db, tiles, name, number)
        self.missing = found.ignore_missing
        return replace(found, ignore_missing="")


def size_of(tiles: Tiles) -> str:
    """What a tile is, in words."""
    (h, w), (x, y) = tiles.grid.shape, tiles.grid.pixel
    return f"{w} × {h} px at {x:g} × {y:g} CRS units, SRID {tiles.grid.srid}"


def _split(text: str) -> tuple[str, str]:
    """What a message says is wrong, and what it says to do: it stands after the first colon, that of a class left aside."""
    head = re.match(r"(?:class|band|coverage) ?(?:'[^']*')?: ", text)
    before, colon, after = text[head.end() if head else 0 :].partition(": ")
    return (head[0] if head else "") + before, after if colon else ""


def _without_name(name: str, text: str) -> str:
    return re.sub(rf"^layer {re.escape(repr(name))}[:,] ", "", text)


def _open(plan: Plan | None, name: str) -> OpenLayer | None:
    return next((layer for layer in plan.layers if layer.name == name), None) if plan else None


def _tables(db: Database, tiles: Tiles | None, layer: Layer, found: OpenLayer | None) -> list[Used]:
    if found and tiles is not None:
        return used(db, tiles, found.select)
    try:
        return named_table(db, getattr(layer, "source", None), getattr(layer, "column", None))
    except MissingError:
        return []


def _spread(length: int, count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64))


# -- the server


def _server(db: Database, wanted: int) -> tuple[dict[str, str], dict[str, int], list[Finding]]:
    postgres, library, postgis, raster, gdal, limit, most, in_use, database, role = db.query(compose("check_server"))[0]
    found = []
    if wanted > most - in_use:
        name, enough = sql.Identifier(database if limit == "database" else role).as_string(None), in_use + wanted + 1
        raise_ = f"ALTER {limit.upper()} {name} CONNECTION LIMIT {enough};"
        if limit == "server":
            raise_ = f"ALTER SYSTEM SET max_connections = {10 * -(-(enough + 9) // 10)}; and restart the server"
        found.append(problem("", "the training opens more connections than the server has left",
            f"{wanted} wanted; of {most} that the {limit} allows, {in_use} are in use",
            f"fewer connections= or workers; or {raise_}",
        ))  # fmt: skip
    old = [f"{name} {have}" for name, have in (("postgis", postgis), ("postgis_raster", raster)) if have and have != library]
    if old:
        what, value = "the extensions are of another version than the library", f"{' and '.join(old)}, library {library}"
        found.append(problem("", what, value, "SELECT postgis_extensions_upgrade();"))
    versions = {"postgresql": postgres, "postgis": library, "gdal": re.sub(r"^GDAL ([\d.]+).*", r"\1", gdal)}
    return versions, {"wanted": wanted, "in_use": in_use, "most": most}, found


# -- reading some


def _read(db: Database, plan: Plan, tiles: Tiles) -> tuple[list[int], Stages | None, list[Finding]]:
    """Of each layer, how many tiles nothing of it reached; how long they took; what is to be said."""
    found, counted, speed = list[Finding](), np.zeros((2, len(plan.layers)), int), None
    try:
        for at in range(0, len(tiles), LOT):
            counted += np.array(read_batch(db, plan, tiles[at : at + LOT])[1:3])
        speed = stages(db, plan, tiles[:TIMED])
    except (DataError, QueryError, MissingError) as error:
        found.append(problem("", "the tiles can't be read", *_split(str(error))))
    for layer, none, united in zip(plan.layers, *counted.tolist(), strict=True):
        found += _empty(layer, none, united, len(tiles))
    for layer, areas, lost in too_small(db, plan, tiles):
        if lost:
            text, _, mend = _without_name(layer.name, lost_in_words(layer, areas, lost, plan.grid)).partition(": ")
            found.append(note(layer.name, text, f"{lost} of {areas}", mend))
    return counted[0].tolist(), speed, found


def _empty(layer: OpenLayer, none: int, united: int, count: int) -> list[Finding]:
    found, value = [], f"{none} of {count}"
    if none == count:
        mend = (
            "is anything mapped there, and does the query ask for it? within= (--within xmin,ymin,xmax,ymax) names another "
            "place; pgtiles why tells of one tile"
        )
        say = problem if count >= MANY else note  # few may miss what is there
        found.append(say(layer.name, f"nothing is in any of these {count} tiles", value, mend))
    elif none and layer.path in {"native", "warped"}:
        found.append(note(layer.name, "tiles without any imagery", value, "pgtiles why tells of one tile"))
    if united:
        what = (
            f"{united} of {count} tiles joined by ST_Union, which is slower: scenes overlap, leave holes or differ in nodata, "
            "or the bands differ in type"
        )
        found.append(note(layer.name, what, f"{united} of {count}", "bake the tiles, or cut the scenes so that they touch"))
    return found


def _facts(db: Database, layer: OpenLayer, asked: Layer, tables: list[Used], empty: int) -> LayerFacts:
    names = [str(db.table(asked.table))] if isinstance(asked, Baked) else [str(one.table) for one in tables]
    lies = [lies_in(db, one) for one in tables]
    srid, resolution = lies[0] if len(set(lies)) == 1 else (None, None)
    return LayerFacts(
        layer.name, tuple(names), srid, resolution, layer.path, layer.why, layer.sheet.shape,
        layer.sheet.dtype, empty, tuple(index for one in tables for index in one.indexes),
    )  # fmt: skip
