"""The scene that all contestants read: imagery and roads, in the database and in files beside it.

Imagery is noise, which compresses like a photograph; roads are crooked lines around a few towns, or those of a real map. The
same pixels lie in Web Mercator, on the tiles' own lattice; in UTM, to be reprojected; and at a quarter of the resolution, to be
enlarged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyogrio
import rasterio
import shapely
from psycopg import sql
from rasterio.transform import from_origin
from rasterio.warp import transform

from pgtiles import Database, Grid, Tiles, errors, load, samples

TILE = 256
WIDTH = 6  # CRS units on either side of a road's line
# The label query: the first thing that one would write. The files hold the same polygons.
ROADS = f"SELECT ST_Buffer(way, {WIDTH}) AS geom FROM bench_roads WHERE ST_DWithin(way, tile.geom, {WIDTH})"

# CRS units a pixel, unless said. The drawn map's is a satellite's. The extract of Helsinki is 2.0 × 3.3 km in EPSG:3857, half
# of that on the ground: at 0.5, which is an aerial picture's 25 cm there, 4096 pixels are just as wide as it.
RESOLUTIONS = {"synthetic": 2.5, "helsinki": 0.5}

# The scene in files that the server reads (out-db): how they are kept, and under which table's name.
FILES = {
    "in a file, uncompressed": ("bench_plain", {}),
    "in a file, deflate": ("bench_deflate", {"compress": "deflate"}),
    "in a file, deflate, by band": ("bench_bands", {"compress": "deflate", "interleave": "band"}),
    "in a file, JPEG": ("bench_jpeg", {"compress": "jpeg", "photometric": "ycbcr"}),
}


@dataclass(frozen=True)
class Scene:
    """Where it lies. Tables are called bench_…, and files in the folder as the tables."""

    folder: Path
    vectors: str
    size: int  # pixels a side
    resolution: float
    corner: tuple[float, float]  # the upper left one, in EPSG:3857
    unseen: str | None = None  # why the server can't read the files, where it can't

    @property
    def grid(self) -> Grid:
        return Grid(srid=3857, resolution=self.resolution, size=TILE, origin=self.corner)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        x, y = self.corner
        side = self.size * self.resolution
        return x, y - side, x + side, y

    def file(self, table: str) -> Path:
        return self.folder / f"{table}.tif"

    @property
    def roads_file(self) -> Path:
        return self.folder / "bench_roads.gpkg"


def found(db: Database) -> Scene:
    """The scene that the last run left in the database; its files are gone."""
    grid = Grid.like(db, "bench_scene", size=TILE)
    xmin, _, xmax, ymax = db.extent("bench_scene", grid.srid)
    return Scene(Path(), "as it was", round((xmax - xmin) / grid.pixel[0]), grid.pixel[0], (xmin, ymax))


def make(db: Database, folder: Path, *, vectors: str, size: int, resolution: float | None) -> Scene:
    """Fill the database and the folder. vectors: "synthetic", "helsinki", or an .osm.pbf's path; size in pixels."""
    resolution = resolution or RESOLUTIONS.get(vectors, RESOLUTIONS["synthetic"])
    if vectors == "synthetic":
        scene = Scene(folder, vectors, size, resolution, (1_050_000, 5_985_000))
        _draw_roads(db, scene)
    else:
        x, y = _load_roads(db, samples.helsinki() if vectors == "helsinki" else Path(vectors))
        half = size // 2 * resolution
        scene = Scene(folder, vectors, size, resolution, (round(x - half), round(y + half)))
    pixels = _noise(size)
    profile = {"driver": "GTiff", "width": size, "height": size, "count": 3, "dtype": "uint8", "tiled": True}
    profile |= {"blockxsize": 256, "blockysize": 256}
    native = {"crs": "EPSG:3857", "transform": from_origin(*scene.corner, scene.resolution, scene.resolution)}
    for table, how in FILES.values():
        write(scene.file(table), pixels, profile | native | how)
    write(scene.file("bench_utm"), pixels, profile | _in_utm(scene))
    coarse = pixels.reshape(3, size // 4, 4, size // 4, 4).mean(axis=(2, 4)).astype("u1")
    wide = from_origin(*scene.corner, 4 * scene.resolution, 4 * scene.resolution)
    smaller = {"width": size // 4, "height": size // 4, "crs": "EPSG:3857", "transform": wide}
    write(scene.file("bench_coarse"), coarse, profile | smaller)
    for file, table in (("bench_plain", "bench_scene"), ("bench_utm", "bench_utm"), ("bench_coarse", "bench_coarse")):
        load.raster(db, scene.file(file), table, replace=True)
    _write_roads(db, scene)
    try:
        for table, _ in FILES.values():
            load.raster(db, scene.file(table), table, replace=True, out_db=True)
    except errors.PgtilesError as error:
        return Scene(folder, vectors, size, scene.resolution, scene.corner, unseen=str(error))
    return scene


def places(db: Database, scene: Scene, count: int, size: int = TILE) -> dict[str, Tiles]:
    """Tiles at uniformly random places, and tiles whose centre is on a road, in random order. size: their pixels a side."""
    rng, grid = np.random.default_rng(1), replace(scene.grid, size=size)
    box = _extent_of_roads(db)
    within = np.array([*np.maximum(scene.extent[:2], box[:2]), *np.minimum(scene.extent[2:], box[2:])]).tolist()
    uniform = Tiles.random(grid, within=within, count=count, seed=1)
    middles = sql.SQL("SELECT ST_X(p), ST_Y(p) FROM bench_roads, ST_LineInterpolatePoint(way, 0.5) p ORDER BY id")
    (x, y), (left, top) = np.array(db.query(middles)).T, scene.corner
    cols, rows = (np.rint(v / scene.resolution).astype(int) - size // 2 for v in (x - left, top - y))
    inside = np.flatnonzero((np.minimum(cols, rows) >= 0) & (np.maximum(cols, rows) <= scene.size - size))
    drawn = rng.choice(inside, count, replace=len(inside) < count)
    return {"at random places": uniform, "centred on roads": Tiles(grid, cols[drawn], rows[drawn])}


def share_without_road(scene: Scene, tiles: Tiles) -> float:
    """Of the tiles, those that no road's polygon meets."""
    tree = shapely.STRtree(shapely.from_wkb(pyogrio.raw.read(scene.roads_file)[2]))
    met, _ = tree.query(shapely.box(*tiles.bounds.T), predicate="intersects")
    return 1 - len(np.unique(met)) / len(tiles)


def _noise(size: int) -> np.ndarray:
    """Patches of 32 pixels, and grain on them."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(3, size // 32 + 1, size // 32 + 1))
    smooth = np.repeat(np.repeat(coarse, 32, 1), 32, 2)[:, :size, :size]
    return np.clip(110 + 30 * smooth + 6 * rng.normal(size=smooth.shape), 1, 255).astype("u1")


def _in_utm(scene: Scene) -> dict:
    """The same pixels around the same middle, in the UTM zone there. A pixel is a tenth larger on the ground, so that the
    picture, which lies turned, covers the scene.
    """
    xmin, ymin, xmax, ymax = scene.extent
    middle = [(xmin + xmax) / 2], [(ymin + ymax) / 2]
    (longitude,), (latitude,) = transform("EPSG:3857", "EPSG:4326", *middle)
    crs = f"EPSG:{32601 + math.floor((longitude + 180) / 6)}"
    (x,), (y,) = transform("EPSG:3857", crs, *middle)
    step = 1.1 * scene.resolution * math.cos(math.radians(latitude))
    half = scene.size // 2 * step
    return {"crs": crs, "transform": from_origin(round(x - half), round(y + half), step, step)}


def write(path: Path, pixels: np.ndarray, profile: dict) -> None:
    with rasterio.open(path, "w", **profile) as file:
        file.write(pixels)
    path.chmod(0o644)  # the server runs as another account


def _draw_roads(db: Database, scene: Scene) -> None:
    """Crooked roads that crowd around eight towns, as many to a square kilometre whatever the size: 3,000 on 4096 pixels."""
    rng = np.random.default_rng(0)
    side = scene.size * scene.resolution
    count = round(3_000 * (scene.size / 4096) ** 2)
    towns = rng.uniform(0.1, 0.9, (8, 2))[rng.integers(0, 8, count)]
    start = (towns + rng.normal(0, 0.08, towns.shape)) * [side, -side] + scene.corner
    lines = np.cumsum(rng.normal(0, 40, (count, 6, 2)), axis=1) + start[:, None]
    with db.connection() as conn, conn.transaction():
        conn.execute("DROP TABLE IF EXISTS bench_roads")
        conn.execute("CREATE TABLE bench_roads (id int PRIMARY KEY, way geometry(LineString, 3857))")
        with conn.cursor().copy("COPY bench_roads FROM STDIN") as copy:
            for i, line in enumerate(lines):
                copy.write_row((i, "SRID=3857;LINESTRING(" + ",".join(f"{x:.2f} {y:.2f}" for x, y in line) + ")"))
        conn.execute("CREATE INDEX ON bench_roads USING gist (way)")
    with db.connection() as conn:
        conn.execute("ANALYZE bench_roads")


def _load_roads(db: Database, file: Path) -> tuple[float, float]:
    """The roads of a real map; gives their middle."""
    load.osm(db, file, prefix="bench_osm", replace=True)
    with db.connection() as conn, conn.transaction():
        conn.execute("DROP TABLE IF EXISTS bench_roads")
        conn.execute(
            "CREATE TABLE bench_roads AS SELECT row_number() OVER (ORDER BY osm_id, way) AS id, way FROM bench_osm_line "
            "WHERE highway IS NOT NULL"
        )
        conn.execute("CREATE INDEX ON bench_roads USING gist (way)")
    with db.connection() as conn:
        conn.execute("ANALYZE bench_roads")
    xmin, ymin, xmax, ymax = _extent_of_roads(db)
    return (xmin + xmax) / 2, (ymin + ymax) / 2


def _extent_of_roads(db: Database) -> tuple[float, ...]:
    box = sql.SQL("SELECT ST_XMin(b), ST_YMin(b), ST_XMax(b), ST_YMax(b) FROM (SELECT ST_Extent(way) b FROM bench_roads) e")
    return db.query(box)[0]


def _write_roads(db: Database, scene: Scene) -> None:
    """The polygons that the label query burns, in a file with an index, for those who read files."""
    rows = db.query(sql.SQL(f"SELECT ST_AsBinary(ST_Buffer(way, {WIDTH})) FROM bench_roads ORDER BY id"))
    shapes = np.array([bytes(shape) for (shape,) in rows], object)
    scene.roads_file.unlink(missing_ok=True)
    pyogrio.raw.write(
        scene.roads_file, geometry=shapes, field_data=[np.ones(len(shapes), "i4")], fields=["label"], geometry_type="Polygon",
        crs="EPSG:3857", driver="GPKG", layer="roads",
    )  # fmt: skip
