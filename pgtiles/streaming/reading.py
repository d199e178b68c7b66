"""The one read path: tiles and layers go in, one statement a batch, fragments come out and are pasted. No torch.

Each row of a batch is (tile, layer, n, value, data) in PostgreSQL's binary COPY format. Mostly the data is a fragment, a raster
that already lies on its tile's pixels; all that is left to do is to paste it (see `canvas` and `pixels`).
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from psycopg import sql

from ..errors import ConfigError, DataError, MissingError, PgtilesError, PgtilesWarning, QueryError
from ..layers.canvas import Zeros
from ..layers.pixels import UNITED
from ..layers.query import Layer, OpenLayer, over
from ..postgres.database import Database
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles

Sample = dict[str, Any]  # an array a key, with a row a tile; a list of arrays, one a tile, where they are ragged

ROW = struct.Struct(">hiiihiiidi")  # 5 fields, each with its length in front: int4, int2, int4, float8, bytea
ROW_LENGTHS = (5, 4, 2, 4, 8)
NAMED = struct.Struct(">6xi4xh")  # tile and layer alone
RESERVED = ("bounds", "tile_id")


@dataclass(frozen=True)
class Plan:
    """The layers as the server agreed to them: what reading a batch needs besides the tiles. Pickles small."""

    grid: Grid
    layers: tuple[OpenLayer, ...]
    zones: Mapping[int, Plan] = field(default_factory=dict)  # of tiles on several grids: that of each, by its number

    @classmethod
    def open(cls, db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> Plan:
        """Check the layers against the database and decide how each is read.

        Raises `ConfigError`, `MissingError`, `QueryError` or `DataError`, with the layer's name; warns of what will be slow.
        """
        if not layers:
            raise ConfigError("layers={}: expected at least one, such as {'image': Imagery('schema.table')}")
        if taken := [name for name in layers if name in RESERVED]:
            raise ConfigError(f"layers: the key {taken[0]!r} is taken by what every batch carries")
        if not len(tiles):
            raise ConfigError("tiles: there is no tile to read")
        if tiles.zone is not None:
            return cls._across(db, tiles, layers)
        db.require_postgis()
        opened = _opened(db, tiles, layers)
        keys = dict.fromkeys(RESERVED, "what every batch carries")
        shapes = dict[str, tuple[int, ...] | None]()
        for layer in opened:
            for key, array in layer.sheet.page(tiles[:0].at(layer.resolution)).arrays(layer.name).items():
                if key in keys:
                    raise ConfigError(f"layers: the key {key!r} of layer {layer.name!r} is taken by {keys[key]}: rename one")
                keys[key] = f"layer {layer.name!r}"
                shapes[key] = None if isinstance(array, list) else array.shape[1:]
        for layer in opened:
            if layer.ignore_missing:
                _check_missing(layer, shapes)
        return cls(tiles.grid, opened)

    @classmethod
    def _across(cls, db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> Plan:
        """A plan for each of several grids, whose layers must give arrays of the same kind."""
        if "srid" in layers:
            raise ConfigError("layers: the key 'srid' is taken by what a batch from several grids carries")
        plans = {number: cls.open(db, part, layers) for number, _, part in tiles.zones()}
        (one, kinds), *others = ((plan, _kinds(plan.layers, plan.grid)) for plan in plans.values())
        for plan, own in others:
            for key in kinds.keys() | own.keys():
                if kinds.get(key) != own.get(key):
                    raise ConfigError(
                        f"layers: {key!r} is {kinds.get(key)} in SRID {one.grid.srid} and {own.get(key)} in SRID "
                        f"{plan.grid.srid}: a batch holds one kind; dtype= makes them so"
                    )
        return cls(tiles.grid, one.layers, plans)

    def __getstate__(self) -> bytes:
        """Compressed: it is SQL nearly all, of which layers repeat most, and goes to every worker."""
        return zlib.compress(pickle.dumps(self.__dict__))

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(zlib.decompress(state)))

    def statement(self, tiles: Tiles) -> sql.Composed:
        """The statement that reads these tiles."""
        body = "\nUNION ALL\n".join(f"(\n{layer.select}\n)" for layer in self.layers)
        return over(tiles, sql.SQL(body))  # composed when the layers were opened


def _kinds(layers: tuple[OpenLayer, ...], grid: Grid) -> dict[str, str]:
    """What each key of a tile's sample is: pixel type and shape, or a list."""
    none = np.empty(0, np.int64)
    arrays: Sample = {}
    for layer in layers:
        arrays |= layer.sheet.page(Tiles(grid, none, none).at(layer.resolution)).arrays(layer.name)
    return {key: "ragged" if isinstance(a, list) else f"{a.dtype} {a.shape[1:]}" for key, a in arrays.items()}


def _check_missing(layer: OpenLayer, shapes: Mapping[str, tuple[int, ...] | None]) -> None:
    """Raise `ConfigError` where a layer can't ask another one where imagery is missing."""
    other, shape = layer.ignore_missing, shapes[layer.name]
    said = f"layer {layer.name!r}: ignore_missing={other!r}: "
    if other not in shapes:
        raise ConfigError(f"{said}expected the key of a layer in the same dataset; they are {', '.join(shapes)}")
    if (valid := f"{other}_valid") not in shapes:
        raise ConfigError(f"{said}that layer does not tell where it has data: give it valid=True, as in Imagery(…, valid=True)")
    if shapes[valid] != shape:
        raise ConfigError(f"{said}a tile there is {shapes[valid]}, this layer's {shape}: they have to be of one shape")


def _opened(db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> tuple[OpenLayer, ...]:
    """All layers of a dataset, opened; what is worth saying is warned of, with the layer's name in front."""
    opened = []
    for number, (name, layer) in enumerate(layers.items()):
        try:
            here = tiles.at(getattr(layer, "resolution", None))  # boxes and values have no pixels of their own
            one = layer.open(db, here, name, number)
            opened.append(one if here is tiles else one.at(here))
        except (QueryError, DataError, MissingError, ConfigError) as error:
            raise type(error)(_named(name, str(error))) from error
    for layer_ in opened:
        for said in layer_.warnings:
            warnings.warn(_named(layer_.name, said), PgtilesWarning, stacklevel=4)
    return tuple(opened)


def _named(name: str, said: str) -> str:
    """With the layer's name in front; that of a class or of a band, or a coverage, follows it at once."""
    return f"layer {name!r}, {said}" if said.startswith(("class ", "band ", "coverage: ")) else f"layer {name!r}: {said}"


class Skipped(NamedTuple):
    """A tile that can't be read."""

    at: int  # its position among the tiles that were asked for
    tile_id: int
    why: str


class Batch(NamedTuple):
    """What one statement gave."""

    sample: Sample
    empty: tuple[int, ...]  # of each layer, how many tiles no fragment reached
    united: tuple[int, ...]  # of each layer, for how many tiles ST_Union joined the source, the slow exception
    skipped: tuple[Skipped, ...] = ()  # tiles that are not in it because they can't be read


def read(db: Database, tiles: Tiles, layers: Mapping[str, Layer]) -> Sample:
    """One batch of all these tiles as NumPy arrays, without torch.

    Gives a dict with an array per layer, (N, bands, height, width) or (N, height, width), and ``bounds`` (N, 4) float64
    and ``tile_id`` (N,) int64.
    """
    return read_batch(db, Plan.open(db, tiles, layers), tiles).sample


def too_small(db: Database, plan: Plan, tiles: Tiles) -> list[tuple[OpenLayer, int, int]]:
    """Of each layer that has areas, how many lie on the first tiles, and how many of them cover no pixel's centre."""
    if plan.zones:
        return [found for number, _, part in tiles.zones() for found in too_small(db, plan.zones[number], part)]
    counted = []
    for layer in plan.layers:
        if layer.small:
            try:
                [(areas, lost)] = db.ask(over(tiles[:16], sql.SQL(layer.small)))
            except (QueryError, MissingError, DataError):
                continue  # that it can't be read is said, with its tile, when it is read
            counted += [(layer, areas, lost)] if areas else []
    return counted


def lost_in_words(layer: OpenLayer, areas: int, lost: int, grid: Grid) -> str:
    """What a person should know of areas that cover no pixel's centre."""
    pixel = " × ".join(f"{side:g}" for side in dict.fromkeys(layer.resolution or grid.pixel))
    return (
        f"layer {layer.name!r}: {lost} of {areas} areas on the first tiles cover no pixel's centre at {pixel} CRS units a "
        "pixel and are not burned: all_touched=True keeps them"
    )


def read_batch(db: Database, plan: Plan, tiles: Tiles, zeros: Zeros = np.zeros) -> Batch:
    """One batch, by a plan that was opened before. zeros: makes the arrays that it will hold, as np.zeros does."""
    if plan.zones:
        return _read_across(db, plan, tiles)
    canvas = _Canvas(plan, tiles, zeros)
    try:
        for row in db.copy(plan.statement(tiles)):
            canvas.paste(row)
    except (QueryError, MissingError) as error:
        if (found := located(db, plan, tiles, error)) is error:
            raise
        raise found from error
    return canvas.batch()


def nothing(plan: Plan, tiles: Tiles) -> Batch:
    """A batch without a tile, with the keys, shapes and types of those that have some."""
    if plan.zones:
        number, _, part = next(tiles.zones())
        batch = nothing(plan.zones[number], part)
        return batch._replace(sample={"srid": tiles.srids[:0]} | batch.sample)
    return _Canvas(plan, tiles[:0], np.zeros).batch()


def _read_across(db: Database, plan: Plan, tiles: Tiles) -> Batch:
    """One batch of tiles on several grids: a statement for each grid, and the rows back in the tiles' order."""
    sample: Sample = {"srid": tiles.srids}
    empty = united = np.zeros(len(plan.layers), int)
    for number, where, part in tiles.zones():
        batch = read_batch(db, plan.zones[number], part)
        empty, united = empty + batch.empty, united + batch.united
        for key, values in batch.sample.items():
            if isinstance(values, list):
                rows = sample.setdefault(key, [None] * len(tiles))
                for row, value in zip(where.tolist(), values, strict=True):
                    rows[row] = value
            else:
                sample.setdefault(key, np.empty((len(tiles), *values.shape[1:]), values.dtype))[where] = values
    return Batch(sample, tuple(empty.tolist()), tuple(united.tolist()))


def located(db: Database, plan: Plan, tiles: Tiles, error: PgtilesError) -> PgtilesError:
    """The error with the layer and the tile in front, found by reading them one by one until it comes again."""
    for layer in plan.layers:
        for tile in range(len(tiles)):
            if again := _failure(db, plan.grid, layer, tiles[tile]):
                alone = ((part, replace(layer, select=select)) for part, select in layer.parts.items())
                part = next((f", {part}" for part, one in alone if _failure(db, plan.grid, one, tiles[tile])), "")
                said = f"layer {layer.name!r}{part}, tile {tiles.ids[tile]} at {bounds_of(tiles, tile)}: {again}"
                if isinstance(again, MissingError) and layer.files:
                    found = [path for (path,) in db.ask(over(tiles[tile], sql.SQL(layer.files))) if path]
                    said += f"\nthe files there: {', '.join(sorted(found))}"
                return type(again)(said)
    return error


def _failure(db: Database, grid: Grid, layer: OpenLayer, tile: Tiles) -> PgtilesError | None:
    """What is wrong when this layer alone reads this tile; None where nothing is."""
    try:
        for _ in db.copy(Plan(grid, (layer,)).statement(tile)):
            pass
    except (QueryError, MissingError) as error:
        return error
    return None


class _Canvas:
    """The pages of one batch while its rows come in, tile by tile and layer by layer."""

    def __init__(self, plan: Plan, tiles: Tiles, zeros: Zeros) -> None:
        self.layers, self.tiles = plan.layers, tiles
        self.pages = [layer.sheet.page(tiles.at(layer.resolution), zeros) for layer in plan.layers]
        self.reached = [0] * len(plan.layers)
        self.united = [0] * len(plan.layers)
        self.at = (-1, -1)  # layer and tile of the last row
        self.n = 0  # of the last row
        self.joined = False  # whether ST_Union joined anything of it, as for met
        self.met = False  # whether anything of this layer has come into this tile

    def paste(self, row: bytes | bytearray | memoryview) -> None:
        """Take a row apart, and have its layer's page paste it."""
        if len(row) < ROW.size:
            raise self._null(row)
        fields, l1, tile, l2, number, l3, n, l4, value, length = ROW.unpack_from(row)
        if (fields, l1, l2, l3, l4) != ROW_LENGTHS or length != len(row) - ROW.size:
            raise self._null(row)
        if (number, tile) != self.at:
            if not (0 <= number < len(self.layers) and 0 <= tile < len(self.tiles)):
                raise DataError(f"the server sent a row of layer {number}, tile {tile}, which nobody asked for")
            self.at, self.met, self.joined = (number, tile), False, False
        elif n <= self.n:
            raise DataError(f"{self._where(number, tile)}: the server sent row {n} after {self.n}")
        self.n = n
        try:
            met = self.pages[number].paste(tile, n, value, memoryview(row)[ROW.size :])
        except DataError as error:
            raise DataError(f"{self._where(number, tile)}: {error}") from error
        self.reached[number] += met and not self.met
        joined = value == UNITED and self.layers[number].path == "warped"
        self.united[number] += joined and not self.joined
        self.met, self.joined = self.met or met, self.joined or joined

    def batch(self) -> Batch:
        """All that was pasted, and what it lacks."""
        empty = tuple(len(self.tiles) - reached for reached in self.reached)
        sample = self._sample() | {"bounds": self.tiles.bounds, "tile_id": self.tiles.ids.copy()}
        return Batch(sample, empty, tuple(self.united))

    def _sample(self) -> Sample:
        """Its arrays, by their keys."""
        arrays: Sample = {}
        for layer, page in zip(self.layers, self.pages, strict=True):
            arrays |= page.arrays(layer.name)
        for layer in self.layers:
            if layer.ignore_missing:
                mask = arrays[layer.name]
                np.copyto(mask, mask.dtype.type(layer.ignore_index), where=~arrays[f"{layer.ignore_missing}_valid"])
        return arrays

    def _null(self, row: bytes | bytearray | memoryview) -> PgtilesError:
        tile, number = NAMED.unpack_from(row) if len(row) >= NAMED.size else (-1, -1)
        if not (0 <= number < len(self.layers) and 0 <= tile < len(self.tiles)):
            return DataError(f"the server sent a row of {len(row)} bytes that is none of ours: {bytes(row[:40]).hex()}")
        return DataError(
            f"{self._where(number, tile)}: a row's value is NULL: say what it shall be, COALESCE(…, 0) AS value, "
            "or leave the row out with WHERE"
        )

    def _where(self, number: int, tile: int) -> str:
        return f"layer {self.layers[number].name!r}, tile {self.tiles.ids[tile]} at {bounds_of(self.tiles, tile)}"


def bounds_of(tiles: Tiles, tile: int) -> str:
    """Where one of the tiles lies, for messages."""
    return f"({', '.join(f'{v:.10g}' for v in tiles.bounds[tile])})"
