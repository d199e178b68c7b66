"""Tiles over several CRSs as one set: rasterio says what each one's pixels are."""

import pickle

import numpy as np
import pytest
import rasterio
import rasterio.warp
from conftest import scene, write_tiff
from rasterio.transform import from_origin
from rasterio.windows import from_bounds

from pgtiles import Boxes, BySrid, Grid, Imagery, Labels, Split, TileDataset, Tiles, bake, load, read
from pgtiles.errors import ConfigError, MissingError

CORNERS = {32632: (700_000, 5_300_000), 32633: (250_000, 5_310_000)}
SIDE, RES = 200, 10


@pytest.fixture
def zones(schema_db, tmp_path):
    """A scene in each of two UTM zones, with a field in each corner, and tiles over both, in one order."""
    sets = []
    for n, (srid, (x, y)) in enumerate(CORNERS.items()):
        path = write_tiff(
            tmp_path / f"{srid}.tif", scene(n, (2, SIDE, SIDE)), crs=f"EPSG:{srid}", transform=from_origin(x, y, RES, RES)
        )
        load.raster(schema_db, path, f"s2_{srid}")
        grid = Grid.like(schema_db, f"s2_{srid}", size=32)
        within = schema_db.extent(f"s2_{srid}", srid)
        sets.append(Tiles.random(grid, within=within, count=20, seed=n, first_id=100 * n).with_columns(zone_name=f"z{srid}"))
    schema_db.folder = tmp_path
    return schema_db, sets[0] + sets[1]


def pixels(folder, tile):
    [srid], [bounds] = tile.srids.tolist(), tile.bounds.tolist()
    with rasterio.open(folder / f"{srid}.tif") as file:
        return file.read(window=from_bounds(*bounds, file.transform))


def transform(srid, other, xs, ys, back=False):
    return rasterio.warp.transform(*(f"EPSG:{code}" for code in ((other, srid) if back else (srid, other))), xs, ys)


IMAGE = BySrid({32632: Imagery("s2_32632"), 32633: Imagery("s2_32633")})


class TestReading:
    def test_each_tile_has_the_pixels_of_its_own_scene(self, zones):
        db, tiles = zones
        mixed = tiles[np.random.default_rng(0).permutation(len(tiles))]
        batch = read(db, mixed, {"image": IMAGE})
        assert batch["srid"].tolist() == mixed.srids.tolist()
        assert batch["tile_id"].tolist() == mixed.ids.tolist()
        np.testing.assert_array_equal(batch["bounds"], mixed.bounds)
        for n in range(len(mixed)):
            np.testing.assert_array_equal(batch["image"][n], pixels(db.folder, mixed[n]))

    def test_a_dataset_has_one_order_whatever_reads_it(self, zones, monkeypatch):
        db, tiles = zones
        monkeypatch.setenv("PGTILES_URL", db.conninfo)  # pickles hold no password
        x, y = CORNERS[32633]
        layers = {
            "image": IMAGE,
            "mask": Labels("SELECT ST_Expand(ST_Centroid(tile.geom), 50) AS geom"),
            "boxes": Boxes(f"SELECT geom FROM ST_MakeEnvelope({x}, {y - 1500}, {x + 1500}, {y}, 32633) AS geom WHERE ST_SRID(tile.geom) = 32633 AND geom && tile.geom"),
        }  # fmt: skip
        runs = []
        for options in ({"connections": 1}, {"connections": 3}, {"num_workers": 2}):
            workers = options.pop("num_workers", 0)
            dataset = pickle.loads(pickle.dumps(TileDataset(db, tiles, layers, batch_size=8, seed=3, **options)))
            runs.append(list(dataset.loader(num_workers=workers)))
        for run in runs:
            assert [b["tile_id"].tolist() for b in run] == [b["tile_id"].tolist() for b in runs[0]]
            assert [b["srid"].tolist() for b in run] == [b["srid"].tolist() for b in runs[0]]
            for b, first in zip(run, runs[0], strict=True):
                np.testing.assert_array_equal(b["image"], first["image"])
        assert any(len(set(b["srid"].tolist())) == 2 for b in runs[0])  # batches are mixed
        where = {int(i): n for n, i in enumerate(tiles.ids)}
        for batch in runs[0]:
            assert batch["mask"].shape[1:] == (32, 32)
            assert (batch["mask"].sum(dim=(1, 2)) == 100).all()
            for k, tile_id in enumerate(batch["tile_id"].tolist()):
                np.testing.assert_array_equal(batch["image"][k].numpy(), pixels(db.folder, tiles[where[tile_id]]))
                assert not len(batch["boxes"][k]) or batch["srid"][k] == 32633

    def test_one_table_may_hold_both(self, zones):
        db, tiles = zones
        with db.connection() as conn:
            conn.execute("CREATE TABLE both_zones AS SELECT rast FROM s2_32632 UNION ALL SELECT rast FROM s2_32633")
        text = "SELECT rast FROM both_zones WHERE ST_SRID(rast) = ST_SRID(tile.geom) AND ST_ConvexHull(rast) && tile.geom"
        with pytest.warns(UserWarning, match="read from end to end for want of an index"):
            batch = read(db, tiles[15:25], {"image": Imagery(text)})
        for n, tile in enumerate(tiles[15:25]):
            np.testing.assert_array_equal(batch["image"][n], pixels(db.folder, tile))

    def test_what_can_not_be_one_batch(self, zones):
        db, tiles = zones
        with pytest.raises(ConfigError, match=r"'image' is uint8 \(2, 32, 32\) in SRID 32632 and float32 .* in SRID 32633"):
            read(db, tiles, {"image": BySrid({32632: Imagery("s2_32632"), 32633: Imagery("s2_32633", dtype="float32")})})
        with pytest.raises(ConfigError, match="layer 'image': no layer is given for tiles in SRID 32633"):
            read(db, tiles, {"image": BySrid({32632: Imagery("s2_32632")})})
        with pytest.raises(ConfigError, match="the key 'srid'"):
            read(db, tiles, {"srid": IMAGE})
        with pytest.raises(ConfigError, match="by_grid"):
            bake(db, "baked", tiles, {"image": IMAGE})
        with pytest.raises(MissingError):
            db.table("baked")


class TestSets:
    def test_slices_sums_and_parts(self, zones):
        _, tiles = zones
        assert len(tiles) == 40
        assert tiles.srids.tolist() == [32632] * 20 + [32633] * 20
        first, second = tiles.by_grid()
        assert (first.grid.srid, second.grid.srid) == (32632, 32633)
        again = second + first
        order = np.argsort(again.ids)
        assert again[order].ids.tolist() == tiles.ids.tolist()
        np.testing.assert_array_equal(again[order].bounds, tiles.bounds)
        np.testing.assert_array_equal(again[order].srids, tiles.srids)
        pieces = tiles[30:] + tiles[:5] + tiles[5:30]
        np.testing.assert_array_equal(pieces[np.argsort(pieces.ids)].bounds, tiles.bounds)
        assert len(pieces.grid.grids) == 2
        copy = pickle.loads(pickle.dumps(tiles[[3, 33]]))
        np.testing.assert_array_equal(copy.bounds, tiles[[3, 33]].bounds)
        assert copy.columns["zone_name"].tolist() == ["z32632", "z32633"]
        assert copy.grid == tiles.grid
        assert hash(copy.grid) == hash(tiles.grid)

    def test_an_empty_set_is_described(self, zones):
        db, tiles = zones
        none = tiles[:0].describe(db, Labels({"field": "SELECT tile.geom AS geom"}))
        assert {name: len(values) for name, values in none.columns.items()} == {"zone_name": 0, "field": 0, "field_count": 0}

    def test_coarser_pixels_in_the_same_bounds(self, zones):
        _, tiles = zones
        np.testing.assert_array_equal(tiles.at(20).bounds, tiles.bounds)
        assert tiles.at(20).grid.shape == (16, 16)

    def test_a_split_keeps_its_gap_across_zones(self, zones):
        db, tiles = zones
        split = tiles.split(train=0.5, test=0.5, block=1200, gap=60, seed=2)
        assert min(len(split.train), len(split.test)) > 0
        assert set(split.tiles.srids.tolist()) == set(CORNERS)
        assert split.proof(db) == []
        # the same ground in the other zone: a test tile laid over a train tile, which only the ground can tell
        tile = split.train[split.train.srids == 32632][:1]
        lon, lat = (v[0] for v in transform(32632, 4326, *tile.bounds.reshape(2, 2).mean(axis=0)[:, None]))
        x, y = (v[0] for v in transform(32633, 4326, [lon], [lat], back=True))
        other = tiles.by_grid()[1].grid
        col, row = int((x - other.origin[0]) / RES) - 16, int((other.origin[1] - y) / RES) - 16
        moved = Tiles(other, np.array([col]), np.array([row]), np.array([999])).with_columns(zone_name="z", split="test")
        found = Split.of(split.tiles + moved, gap=60).proof(db)
        assert (int(tile.ids[0]), 999) in {(near.tile, near.other) for near in found}
        with pytest.raises(ConfigError, match="gap=0: between SRIDs"):
            tiles.split(train=0.5, test=0.5, block=1200, gap=0)

    def test_a_feature_that_two_splits_show_is_found_across_zones(self, zones):
        """One that lies on all tiles: each zone's tiles are of one split."""
        db, tiles = zones
        split = Split.of(tiles.with_columns(split=np.where(tiles.srids == 32632, "train", "test")), gap=0)
        [found] = split.proof(db, Labels("SELECT 'road' AS id, tile.geom AS geom"))
        assert (found.feature, sorted(found.tiles)) == ("road", ["test", "train"])
        assert found.tiles["train"] < 100 <= found.tiles["test"]

    def test_what_is_of_one_grid_is_asked_of_each(self, zones):
        _, tiles = zones
        for ask_ in (lambda: tiles.grid.srid, lambda: tiles.grid.origin, lambda: tiles.grid.bounds(tiles.cols, tiles.rows)):
            with pytest.raises(ConfigError, match=r"2 grids \(SRID 32632, SRID 32633\).*tiles.by_grid\(\)"):
                ask_()

    def test_periods_and_times_go_with_them(self, zones):
        _, tiles = zones
        many = tiles[[0, 39]].per_period(["2024-01-01", "2024-06-01"])
        assert many.srids.tolist() == [32632, 32633] * 2
        assert many.timed("2025-01-01").srids.tolist() == many.srids.tolist()
