"""Tiles per second: the dataset beside the ceiling, and beside what one would write by hand. `make bench`.

A scene and roads are made in the database at hand (the local server unless PGTILES_URL says otherwise). All contestants read
the same tiles, in interleaved rounds; medians, and ratios to the first line. Uniformly random tiles and tiles centred on roads
are told apart, because many a random tile is empty.
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from psycopg import sql
from rasterio.transform import from_origin
from rich.console import Console
from rich.table import Table

from pgtiles import Database, Grid, Imagery, Labels, LocalServer, TileDataset, Tiles, errors, load

SIZE, RESOLUTION, X0, Y0, TILE, COUNT, ROUNDS = 4096, 2.5, 1_050_000, 5_985_000, 256, 320, 3
ROADS = "SELECT ST_Buffer(way, 6) AS geom FROM bench_roads WHERE ST_DWithin(way, tile.geom, 6)"


# The same scene in files that the server reads (out-db): how they are kept, and under which table's name.
FILES = {
    "in a file, uncompressed": ("bench_plain", {}),
    "in a file, deflate": ("bench_deflate", {"compress": "deflate"}),
    "in a file, deflate, band by band": ("bench_bands", {"compress": "deflate", "interleave": "band"}),
    "in a file, JPEG": ("bench_jpeg", {"compress": "jpeg", "photometric": "ycbcr"}),
}


def fill(db: Database, folder: Path) -> str | None:
    """A scene of smooth noise in 3 bands, and 3,000 crooked roads that crowd around a few towns.

    The scene goes into the database and, if the server can read it there, stays in its file too; else gives the reason.
    """
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(3, SIZE // 32 + 1, SIZE // 32 + 1))
    smooth = np.repeat(np.repeat(coarse, 32, 1), 32, 2)[:, :SIZE, :SIZE]
    pixels = np.clip(110 + 30 * smooth + 6 * rng.normal(size=smooth.shape), 1, 255).astype("u1")
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    profile |= {"transform": from_origin(X0, Y0, RESOLUTION, RESOLUTION), "tiled": True}  # of 256 px
    for table, how in FILES.values():
        with rasterio.open(folder / f"{table}.tif", "w", **profile, **how) as file:
            file.write(pixels)
        (folder / f"{table}.tif").chmod(0o644)
    load.raster(db, folder / "bench_plain.tif", "bench_scene", replace=True)
    towns = rng.uniform(0.1, 0.9, (8, 2))[rng.integers(0, 8, 3_000)]
    start = (towns + rng.normal(0, 0.08, towns.shape)) * [SIZE * RESOLUTION, -SIZE * RESOLUTION] + [X0, Y0]
    steps = np.cumsum(rng.normal(0, 40, (3_000, 6, 2)), axis=1) + start[:, None]
    with db.connection() as conn, conn.transaction():
        conn.execute("DROP TABLE IF EXISTS bench_roads")
        conn.execute("CREATE TABLE bench_roads (id int PRIMARY KEY, way geometry(LineString, 3857))")
        with conn.cursor().copy("COPY bench_roads FROM STDIN") as copy:
            for i, line in enumerate(steps):
                copy.write_row((i, "SRID=3857;LINESTRING(" + ",".join(f"{x:.2f} {y:.2f}" for x, y in line) + ")"))
        conn.execute("CREATE INDEX ON bench_roads USING gist (way)")
        conn.execute("ANALYZE bench_roads")
    try:
        for table, _ in FILES.values():
            load.raster(db, folder / f"{table}.tif", table, replace=True, out_db=True)
    except errors.PgtilesError as error:
        return str(error)
    return None


def places(db: Database, grid: Grid) -> dict[str, Tiles]:
    """Uniformly random tiles, and tiles whose centre is on a road."""
    last = SIZE - TILE
    rng = np.random.default_rng(1)
    rows = db.query(sql.SQL("SELECT ST_X(p), ST_Y(p) FROM bench_roads, ST_StartPoint(way) p ORDER BY id").format())
    upper_left = np.rint((np.array(rows) - [X0, Y0]) / [RESOLUTION, -RESOLUTION]).astype(int) - TILE // 2
    inside = upper_left[((upper_left >= 0) & (upper_left <= last)).all(axis=1)][:COUNT]
    uniform = rng.integers(0, last + 1, (COUNT, 2))
    return {name: Tiles(grid, xy[:, 0], xy[:, 1]) for name, xy in (("uniform", uniform), ("on roads", inside))}


def run(dataset: TileDataset, workers: int = 0) -> float:
    """Tiles per second of one epoch, the start of the workers included."""
    began = time.perf_counter()
    tiles = sum(len(batch["tile_id"]) for batch in dataset.loader(num_workers=workers, persistent_workers=False))
    return tiles / (time.perf_counter() - began)


def ceiling(db: Database, dataset: TileDataset, tiles: Tiles) -> float:
    """The same statements on one connection, with every byte thrown away."""
    began = time.perf_counter()
    for k in range(0, len(tiles), 16):
        for _ in db.copy(dataset.plan.statement(tiles[k : k + 16])):
            pass
    return len(tiles) / (time.perf_counter() - began)


def by_hand(db: Database, tiles: Tiles) -> float:
    """What one would write first: ST_Union of clipped blocks, a tile at a time."""
    began, few = time.perf_counter(), tiles[:32]
    for xmin, ymin, xmax, ymax in few.bounds:
        statement = sql.SQL(
            "SELECT ST_AsBinary(ST_Union(ST_Clip(s.rast, e.box))) FROM bench_scene s, "
            "ST_MakeEnvelope({}, {}, {}, {}, 3857) AS e (box) WHERE ST_ConvexHull(s.rast) && e.box"
        )
        db.query(statement.format(xmin + 0.1, ymin + 0.1, xmax - 0.1, ymax - 0.1))
    return len(few) / (time.perf_counter() - began)


def main() -> None:
    """Fill and measure."""
    console = Console()
    try:
        db = Database()
    except errors.DatabaseError:
        server = LocalServer()
        server.start()
        db = Database(server.url)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server runs as another account
        with console.status("making the scene"):
            unseen = fill(db, Path(folder))
        if unseen:
            console.print(f"no figures for imagery that stays in a file: {unseen}", markup=False)
        measure(console, db, files=not unseen)


def measure(console: Console, db: Database, *, files: bool) -> None:
    """Interleaved rounds of all contestants; a table for each kind of places."""
    for name, tiles in places(db, Grid.like(db, "bench_scene", size=TILE)).items():

        def layers(dtype: str) -> dict:
            return {"image": Imagery("bench_scene"), "mask": Labels(ROADS, dtype=dtype)}

        plain = {c: TileDataset(db, tiles, layers("int64"), connections=c) for c in (1, 2, 3)}
        kept = {"in the database": "bench_scene"} | ({how: table for how, (table, _) in FILES.items()} if files else {})
        images = {where: TileDataset(db, tiles, {"image": Imagery(scene)}) for where, scene in kept.items()}
        small = TileDataset(db, tiles, layers("uint8"), connections=2)
        contestants = {
            "dataset, 2 connections": lambda plain=plain: run(plain[2]),
            "dataset, 1 connection": lambda plain=plain: run(plain[1]),
            "dataset, 3 connections": lambda plain=plain: run(plain[3]),
            "dataset, 2 connections, uint8 mask": lambda small=small: run(small),
            "2 DataLoader workers, 1 connection each": lambda plain=plain: run(plain[1], 2),
            "the same COPY, bytes thrown away, 1 connection": lambda plain=plain, tiles=tiles: ceiling(db, plain[1], tiles),
            "ST_Union(ST_Clip), image only, 1 connection": lambda tiles=tiles: by_hand(db, tiles),
        }
        contestants |= {f"image only, {where}": lambda image=image: run(image) for where, image in images.items()}
        rates: dict[str, list[float]] = {label: [] for label in contestants}
        with console.status(f"{name}: measuring"):
            for _ in range(ROUNDS):
                for label, contestant in contestants.items():
                    rates[label].append(contestant())
        medians = {label: statistics.median(found) for label, found in rates.items()}
        first = next(iter(medians.values()))
        table = Table(
            "contestant", "tiles/s", "lowest", "highest", "ratio", title=f"{name}: {len(tiles)} tiles of {TILE} px, 3 bands"
        )
        for label, median in medians.items():
            table.add_row(
                label, f"{median:.0f}", f"{min(rates[label]):.0f}", f"{max(rates[label]):.0f}", f"{median / first:.2f}"
            )
        console.print(table)


if __name__ == "__main__":
    main()
