"""The stream that the fault tests read, and what is compared of it: the ordered sequence of (tile id, hash of bytes)."""

import hashlib

from pgtiles import Database, Grid, Imagery, Labels, TileDataset, Tiles

X0, Y0, RES, SIDE = 1_050_000.0, 5_985_000.0, 2.5, 640  # upper left corner in EPSG:3857, metres a pixel, pixels a side
COUNT, BATCH, SEED = 320, 4, 7

ROADS = "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
# Its function is as slow as the tests want it to be, and does to its backend what a tile of theirs shall do (`sabotage`).
ACTS = "SELECT tile.geom AS geom, acts(tile.id) AS value FROM tile"
LAYERS = {"image": Imagery("scene"), "mask": Labels(ROADS), "acts": Labels(ACTS)}


def places(count=COUNT):
    """Tiles all over the scene, without asking a server; their ids are no positions."""
    grid = Grid(srid=3857, resolution=RES, size=32, origin=(X0, Y0))
    extent = (X0, Y0 - SIDE * RES, X0 + SIDE * RES, Y0)
    return Tiles.random(grid, within=extent, count=count, seed=3, first_id=1000)


def dataset(url, *, count=COUNT, patience=60.0, timeout=60.0, **options):
    """The dataset of all fault tests."""
    db = Database(url, patience=patience, timeout=timeout)
    return TileDataset(db, places(count), LAYERS, **{"batch_size": BATCH, "seed": SEED} | options)


def digest(batches):
    """Of each batch, its tiles in order: id, and a hash of all that came with it."""
    found = []
    for batch in batches:
        names = sorted(batch.keys() - {"tile_id"})
        tiles = []
        for row, tile in enumerate(batch["tile_id"].tolist()):
            data = hashlib.sha256()
            for name in names:
                one = batch[name][row].numpy()
                data.update(f"{name} {one.dtype} {one.shape}".encode() + one.tobytes())
            tiles.append((tile, data.hexdigest()[:16]))
        found.append(tiles)
    return found


def flat(digests):
    """The sequence itself, whatever the batches."""
    return [tile for tiles in digests for tile in tiles]


def globally(ranks):
    """The global batches that ranks read in parts: a step's parts joined in the order of ranks."""
    return [[tile for part in parts for tile in part] for parts in zip(*ranks, strict=True)]
