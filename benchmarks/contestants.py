"""Who reads the tiles. Each is a function that opens itself on some tiles and gives a `Reader`.

All read the same tiles in the same order, 16 in a batch where there are batches. What opens files, connections and worker
processes is left out of the time, as in the second and later epochs of a training run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psycopg
import pyogrio
import rasterio
import shapely
from psycopg import sql
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window
from scene import WIDTH, Scene
from torch.utils.data import DataLoader, Dataset

from pgtiles import Database, TileDataset, Tiles
from pgtiles.inspection.timing import BATCH, batches
from pgtiles.layers import wkb
from pgtiles.streaming.reading import Plan

Arrays = dict[str, np.ndarray]
HERE = Path(__file__).parent


class Reader(Protocol):
    """Tiles that are ready to be read again and again."""

    def epoch(self) -> Iterator[int]:
        """Read all tiles once, and say after each batch how many it held."""

    def pixels(self) -> Arrays | None:
        """What an epoch holds, tile by tile: image (N, 3, H, W), mask (N, H, W) or grey (N, H, W). None: nothing to look at."""


@dataclass(frozen=True)
class Contestant:
    """label: in the table; those that are told apart by it alone read alike.
    open: of some tiles.
    few: so many tiles are compared, and timed at least.
    off: counts by which a pixel may differ on average from GDAL's exact result; 0 is the very same pixels.
    """

    label: str
    open: Callable[[Tiles], Reader]
    few: int = 32
    off: float = 0.0


@dataclass(frozen=True)
class Batches:
    """A reader of what iterates over batches with a dict of arrays."""

    of: Iterable[Mapping[str, Any]]

    def epoch(self) -> Iterator[int]:
        for batch in self.of:
            yield len(next(iter(batch.values())))

    def pixels(self) -> Arrays:
        found: dict[str, list[np.ndarray]] = {}
        for batch in self.of:
            for name in batch.keys() & {"image", "mask", "grey"}:
                found.setdefault(name, []).append(np.asarray(batch[name]))
        return {name: np.concatenate(arrays) for name, arrays in found.items()}


# -- pgtiles


def dataset(db: Database, layers: Mapping[str, Any], connections: int, tiles: Tiles, *, workers: int = 0) -> Reader:
    """The dataset's own loader."""
    opened = TileDataset(db, tiles, layers, batch_size=BATCH, connections=connections, shuffle=False)
    return Batches(opened.loader(num_workers=workers))


@dataclass
class Copied:
    """Statements one after the other on one connection, with every byte thrown away. sent: their number in the last epoch."""

    db: Database
    statements: list[sql.Composed]
    count: int
    sent: int = 0

    def epoch(self) -> Iterator[int]:
        self.sent = 0
        for k, statement in enumerate(self.statements):
            for row in self.db.copy(statement):
                self.sent += len(row) + 5  # a message's kind and length
            yield min(BATCH, self.count - k * BATCH)

    def pixels(self) -> None:
        return None


def _statements(db: Database, layers: Mapping[str, Any], tiles: Tiles) -> list[sql.Composed]:
    plan = Plan.open(db, tiles, layers)
    return [plan.statement(some) for some in batches(tiles)]


def thrown_away(db: Database, layers: Mapping[str, Any], tiles: Tiles) -> Reader:
    """The dataset's own statements: what the client adds is left out."""
    return Copied(db, _statements(db, layers, tiles), len(tiles))


def raw_copy(db: Database, layers: Mapping[str, Any], tiles: Tiles, *, table: str = "bench_rows") -> Reader:
    """The rows that they give, computed beforehand into a table: what is left is the way to the client."""
    rows = sql.Identifier(table)
    statements = _statements(db, layers, tiles)
    with db.connection() as conn:
        conn.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(rows))
        columns = "(batch int, tile int, layer int2, n int, value float8, fragment bytea)"
        conn.execute(sql.SQL(f"CREATE UNLOGGED TABLE {{}} {columns}").format(rows))
        conn.execute(sql.SQL("ALTER TABLE {} ALTER fragment SET STORAGE EXTERNAL").format(rows))
        for k, statement in enumerate(statements):
            conn.execute(sql.SQL("INSERT INTO {} SELECT {}, given.* FROM ({}) AS given").format(rows, k, statement))
        conn.execute(sql.SQL("CREATE INDEX ON {} (batch)").format(rows))
        conn.execute(sql.SQL("VACUUM ANALYZE {}").format(rows))
    text = sql.SQL("SELECT tile, layer, n, value, fragment FROM {} WHERE batch = {}")
    return Copied(db, [text.format(rows, k) for k in range(len(statements))], len(tiles))


# -- SQL by hand


@dataclass(frozen=True)
class _ByTile:
    """A statement for each of some chunks of the tiles, on one connection."""

    db: Database
    statements: list[sql.Composed]
    take: Callable[[int, list[tuple]], list[Arrays]]
    conn: psycopg.Connection

    def _read(self) -> Iterator[list[Arrays]]:
        for k, statement in enumerate(self.statements):
            yield self.take(k, self.conn.execute(statement, binary=True).fetchall())

    def epoch(self) -> Iterator[int]:
        for read in self._read():
            yield len(read)

    def pixels(self) -> Arrays:
        found = [one for read in self._read() for one in read]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}


def _own_connection(db: Database) -> psycopg.Connection:
    """With the one setting that slows these queries down switched off."""
    conn = psycopg.connect(db.conninfo, autocommit=True)
    conn.execute("SET jit = off")
    return conn


def by_hand(db: Database, table: str, warp: str, clip: bool, tiles: Tiles) -> Reader:
    """ST_Union of the blocks that meet the tile, then ST_Transform or ST_Resample: a tile at a time."""
    (resolution, _), bounds = tiles.grid.pixel, tiles.bounds.tolist()
    srid, (source, _), _ = db.lattice(table, None)
    slots = {
        "table": sql.Identifier(table), "resolution": sql.Literal(resolution), "size": sql.Literal(tiles.grid.shape[0]),
        "srid": sql.Literal(srid), "margin": sql.Literal(2 * source),
        "blocks": sql.SQL("ST_Clip(s.rast, tile.around)" if clip else "s.rast"),
        "warp": sql.SQL(f"{warp}(mosaic.rast, tile.ref, 'Bilinear')"),
    }  # fmt: skip
    text = sql.SQL((HERE / "by_hand.sql").read_text())
    statements = [text.format(**slots, xmin=xmin, ymax=ymax) for xmin, _, _, ymax in bounds]

    def take(k: int, rows: list[tuple]) -> list[Arrays]:
        return [{"image": _cut(rows[0][0], bounds[k], resolution, tiles.grid.shape)}]

    return _ByTile(db, statements, take, _own_connection(db))


def _cut(data: bytes, bounds: list[float], resolution: float, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a raster that reaches beyond the tile."""
    raster = wkb.decode(data)
    left, top = (round((a - b) / resolution) for a, b in ((bounds[0], raster.upper_left[0]), (raster.upper_left[1], bounds[3])))
    assert left >= 0 <= top, "the raster does not reach to the tile's edge"
    return raster.pixels[:, top : top + shape[0], left : left + shape[1]]


def union_clip(db: Database, tiles: Tiles) -> Reader:
    """What one would write first for tiles on the imagery's own pixels: ST_Union of clipped blocks, a tile at a time."""
    (resolution, _), bounds = tiles.grid.pixel, tiles.bounds.tolist()
    text = sql.SQL(
        "SELECT ST_AsBinary(ST_Union(ST_Clip(s.rast, e.box))) FROM bench_scene AS s, "
        "ST_MakeEnvelope({}, {}, {}, {}, 3857) AS e (box) WHERE ST_ConvexHull(s.rast) && e.box"
    )
    tenth = resolution / 10  # && is true where boxes merely touch
    statements = [text.format(a + tenth, b + tenth, c - tenth, d - tenth) for a, b, c, d in bounds]

    def take(k: int, rows: list[tuple]) -> list[Arrays]:
        return [{"image": _cut(rows[0][0], bounds[k], resolution, tiles.grid.shape)}]

    return _ByTile(db, statements, take, _own_connection(db))


def one_query(db: Database, tiles: Tiles) -> Reader:
    """Image and mask by one query of common table expressions and map algebra, four tiles at a time."""
    text = sql.SQL((HERE / "one_query.sql").read_text())
    corners = [[xmin, ymax] for xmin, _, _, ymax in tiles.bounds.tolist()]
    slots = {"resolution": tiles.grid.pixel[0], "size": tiles.grid.shape[0], "width": WIDTH}
    statements = [text.format(corners=corners[k : k + 4], **slots) for k in range(0, len(corners), 4)]

    def take(_: int, rows: list[tuple]) -> list[Arrays]:
        return [{"grey": wkb.decode(image).pixels[0], "mask": wkb.decode(mask).pixels[0]} for _, image, mask in rows]

    return _ByTile(db, statements, take, _own_connection(db))


# -- files by hand


class FileTiles(Dataset):
    """The loop that one would write over files: read a window, find the roads by an STRtree, rasterize them.

    image, mask: what is read. warp: the file is to be warped onto the scene's lattice.
    exact: without GDAL's approximation in reprojection: what the others are compared with.
    """

    def __init__(
        self, scene: Scene, file: Path, tiles: Tiles, *, image: bool = True, mask: bool = False, warp: bool = False,
        exact: bool = False,
    ) -> None:  # fmt: skip
        self.scene, self.file, self.tiles = scene, file, tiles
        self.image, self.mask, self.warp, self.exact = image, mask, warp, exact
        self.opened: tuple | None = None  # in each process by itself

    def __len__(self) -> int:
        return len(self.tiles)

    def _open(self) -> tuple:
        source: Any = rasterio.open(self.file)
        if self.warp:
            step = self.scene.resolution
            source = WarpedVRT(
                source, crs="EPSG:3857", transform=from_origin(*self.scene.corner, step, step), width=self.scene.size,
                height=self.scene.size, resampling=Resampling.bilinear, tolerance=1e-9 if self.exact else 0.125,
            )  # fmt: skip
        tree = None
        if self.mask:
            tree = shapely.STRtree(shapely.from_wkb(pyogrio.raw.read(self.scene.roads_file)[2]))
        return source, tree

    def __getitem__(self, i: int) -> Arrays:
        if self.opened is None:
            self.opened = self._open()
        source, tree = self.opened
        height, width = self.tiles.grid.shape
        window = Window(int(self.tiles.cols[i]), int(self.tiles.rows[i]), width, height)
        sample = {"image": source.read(window=window)} if self.image else {}
        if self.mask:
            met = tree.geometries[tree.query(shapely.box(*self.tiles.bounds[i]))]
            place = source.window_transform(window)
            sample["mask"] = (
                rasterize(met, (height, width), transform=place, dtype="uint8") if len(met) else np.zeros((height, width), "u1")
            )
        return sample


def files(scene: Scene, table: str, options: Mapping[str, bool], workers: int, tiles: Tiles) -> Reader:
    """`FileTiles`, in so many processes."""
    read = FileTiles(scene, scene.file(table), tiles, **options)
    return Batches(DataLoader(read, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0))
