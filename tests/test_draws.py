"""What an epoch reads where it is not each tile once: a pure function of (seed, epoch), the same for any number of workers."""

import hashlib
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import HEIGHT, RES, WIDTH, X0, Y0
from hypothesis import given
from hypothesis import strategies as st

from pgtiles import Database, Draws, Grid, Imagery, Labels, TileDataset, Tiles
from pgtiles.errors import ConfigError, PgtilesWarning
from pgtiles.tiling.draws import neighbours, repeats, tilted

GRID = Grid(srid=3857, resolution=1, size=10)
BOX = (X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0)


def row(n, **columns):
    """Tiles side by side, with ids that are no positions."""
    return Tiles(GRID, np.arange(n) * 10, np.zeros(n, int), np.arange(n) + 500).with_columns(**columns)


def counted(draws, epochs, seed=0):
    """How often each tile of a row comes in some epochs, on average."""
    drawn = np.concatenate([draws.epoch(seed, epoch).ids for epoch in range(epochs)]) - 500
    return np.bincount(drawn) / epochs


class TestWeighted:
    @given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 2**32), st.integers(0, 10_000))
    def test_each_tile_comes_as_often_as_its_weight_says_rounded_up_or_down(self, n, count, seed, epoch):
        weights = np.random.default_rng(seed).exponential(size=n) * (np.arange(n) % 3 != 1)
        weights[0] = 1
        drawn = row(n).weighted(weights, count=count).epoch(seed, epoch)
        assert len(drawn) == count
        times, wanted = np.bincount(drawn.ids - 500, minlength=n), count * weights / weights.sum()
        assert (np.floor(wanted - 1e-9) <= times).all()
        assert (times <= np.ceil(wanted + 1e-9)).all()

    def test_over_many_epochs_each_comes_as_its_weight_says(self):
        """5 standard errors of a rounding by chance."""
        weights = np.arange(1, 41.0)
        times = counted(row(40).weighted(weights, count=25), 4000)
        assert abs(times - 25 * weights / weights.sum()).max() < 5 * 0.5 / np.sqrt(4000)

    def test_tiles_are_drawn_apart_from_their_neighbours(self):
        """Of 20 tiles in 10 draws, any two come together in 9 of 38 epochs: neighbours as seldom as others."""
        draws = row(20).weighted(np.ones(20), count=10)
        seen = np.zeros((20, 20))
        for epoch in range(3000):
            times = np.bincount(draws.epoch(1, epoch).ids - 500, minlength=20)
            seen += np.outer(times, times)
        together = seen[~np.eye(20, dtype=bool)] / 3000
        assert abs(together - 9 / 38).max() < 5 * np.sqrt(9 / 38 * 29 / 38 / 3000)

    def test_with_equal_weights_an_epoch_has_each_tile_once(self):
        assert row(30).weighted(np.full(30, 0.1)).epoch(3, 4).ids.tolist() == list(range(500, 530))

    def test_a_column_by_its_name(self):
        draws = row(4, rare=[0, 1, 0, 3]).weighted("rare", count=400)
        assert (counted(draws, 1) == [0, 100, 0, 300]).all()
        assert draws.tiles.ids.tolist() == [501, 503]  # what never comes need not be checked
        assert draws.epoch(0, 0).columns["rare"].sum() == 1000
        assert (len(draws), draws.grid) == (400, GRID)

    @pytest.mark.parametrize(
        "weights, says",
        [
            ([1, 2], r"expected 3 numbers, found an array of int64 \(2,\)"),
            ([0, 0, 0], "one above 0"),
            ([1, -1, 0], "0 or more"),
            ([1, np.nan, 0], "finite"),
            ("raod", "no column 'raod', but road; describe and with_columns add more"),
        ],
    )
    def test_refused(self, weights, says):
        with pytest.raises(ConfigError, match=says):
            row(3, road=1.0).weighted(weights)


class TestBalanced:
    @pytest.mark.parametrize("dtype", ["U", "int64", "datetime64[D]"])
    def test_each_category_comes_equally_often(self, dtype):
        kinds = np.array([7] * 90 + [3] * 9 + [5])
        kinds = kinds.astype("U") if dtype == "U" else kinds.astype(dtype)
        draws = row(100, kind=kinds).balanced("kind", count=300)
        values, times = np.unique(draws.epoch(0, 5).columns["kind"], return_counts=True)
        assert len(values) == 3
        assert abs(times - 100).max() <= 9  # each tile is rounded by itself
        assert abs(counted(draws, 500).reshape(-1)[[0, 95, 99]] - [100 / 90, 100 / 9, 100]).max() < 0.15

    @pytest.mark.parametrize("share", [0.005, 0.02, 0.1, 0.3, 0.69])
    def test_the_mean_share_becomes_what_was_asked(self, share, quiet):
        rng = np.random.default_rng(0)
        water = np.where(rng.random(2000) < 0.05, rng.uniform(0, 0.7, 2000), 0)
        assert 0.01 < water.mean() < 0.03
        draws = row(2000, water=water).balanced("water", share=share, count=20_000)
        drawn = [draws.epoch(0, epoch).columns["water"].mean() for epoch in range(5)]
        assert abs(np.mean(drawn) - share) < 0.01 * share + 1e-4

    def test_the_weights_are_those_nearest_to_equal_ones(self):
        """Of all weights that give the share, they have the greatest entropy: what SciPy's minimiser would find, in closed form."""
        shares = np.array([0.0, 1.0])
        np.testing.assert_allclose(tilted("x", shares, 0.2) / tilted("x", shares, 0.2).sum(), [0.8, 0.2])
        weights = tilted("x", np.array([0.0, 0.3, 0.9]), 0.5)
        p = weights / weights.sum()
        for step in (1e-4, -1e-4):  # the only way to change them and keep sum and mean
            moved = p + step * np.array([2, -3, 1])
            assert -(moved * np.log(moved)).sum() < -(p * np.log(p)).sum()

    def test_what_can_be_reached_is_told(self):
        tiles = row(4, water=[0.0, 0.1, 0.25, 0.3])
        for share in (0.3, 0.5, 0.0, -1, np.nan):
            with pytest.raises(
                ConfigError, match=r"can't be reached .* the one that has most of it has 0.3, the one that has least 0"
            ):
                tiles.balanced("water", share=share)

    def test_few_tiles_again_and_again_are_warned_of(self):
        tiles = row(1000, water=np.append(np.zeros(990), np.full(10, 0.5)))
        tiles.balanced("water", share=0.02)
        tiles.balanced("water", share=0.01, count=20_000)  # 20 times each, as every tile comes
        with pytest.warns(
            PgtilesWarning, match=r"in an epoch of 1000, 10 of them come more than 10 times each, and tile \d+ 98"
        ):
            tiles.balanced("water", share=0.49)

    def test_two_tiles_that_bear_a_class_alone_are_warned_of(self):
        """Most of the epoch is other tiles, each once or not at all."""
        tiles = row(2000, water=np.append(np.zeros(1998), [0.5, 0.5]))
        with pytest.warns(PgtilesWarning, match=r"2 of them come more than 10 times each, and tile 2498 600 times") as caught:
            tiles.balanced("water", share=0.3)
        assert caught[0].filename == __file__

    def test_refused(self):
        tiles = row(3, water=[0.0, 0.5, 1], name=["a", "b", "c"], gap=[0.0, np.nan, 1])
        with pytest.raises(ConfigError, match="its numbers are no categories: say share="):
            tiles.balanced("water")
        for by in ("name", "gap"):
            with pytest.raises(ConfigError, match=f"by='{by}': expected a column of finite numbers"):
                tiles.balanced(by, share=0.2)
        with pytest.raises(ConfigError, match="count=0"):
            tiles.balanced("water", share=0.2, count=0)


class TestFilter:
    TILES = row(100, road=np.arange(100) / 100)

    def test_by_a_condition(self):
        assert self.TILES.filter(lambda tile: tile["road"] > 0.94).ids.tolist() == [595, 596, 597, 598, 599]
        assert self.TILES.filter(lambda tile: (tile["id"] % 2 == 0) & (tile["road"] < 0.04)).ids.tolist() == [500, 502]

    @pytest.mark.parametrize("negatives, more", [(0, 0), (0.1, 9), (0.5, 45), (1, 90)])
    def test_a_share_of_the_others_is_kept(self, negatives, more):
        kept = self.TILES.filter(lambda tile: tile["road"] >= 0.9, negatives=negatives, seed=3)
        assert (kept.ids >= 590).sum() == 10
        assert (kept.ids < 590).sum() == more
        assert (np.diff(kept.ids) > 0).all()
        again = self.TILES.filter(lambda tile: tile["road"] >= 0.9, negatives=negatives, seed=3)
        np.testing.assert_array_equal(kept.ids, again.ids)

    def test_any_of_the_others_is_kept_as_likely(self):
        """400 seeds: 5 standard errors."""
        times = np.zeros(100)
        for seed in range(400):
            times[self.TILES.filter(lambda tile: tile["road"] < 0, negatives=0.3, seed=seed).ids - 500] += 1
        assert abs(times / 400 - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / 400)

    def test_refused(self):
        with pytest.raises(ConfigError, match="no column 'raod', but id, road"):
            self.TILES.filter(lambda tile: tile["raod"] > 1)
        with pytest.raises(ConfigError, match=r"expected a truth for each of 100 tiles, found an array of float64 \(100,\)"):
            self.TILES.filter(lambda tile: tile["road"])
        with pytest.raises(ConfigError, match=r"found an array of bool \(\)"):
            self.TILES.filter(lambda tile: True)
        with pytest.raises(ConfigError, match="negatives=10"):
            self.TILES.filter(lambda tile: tile["road"] > 1, negatives=10)


class TestDensity:
    def test_it_counts_those_within_the_radius(self):
        """By brute force; what lies within a 16th of the radius from its rim may be counted either way."""
        rng = np.random.default_rng(0)
        x, y = np.concatenate([rng.normal(0, 300, (2, 700)), rng.uniform(-5000, 5000, (2, 300))], axis=1)
        apart = np.hypot(x[:, None] - x, y[:, None] - y)
        found = neighbours(x, y, 200.0)
        assert ((apart <= 200 * 15 / 16).sum(axis=1) <= found).all()
        assert (found <= (apart <= 200 * 17 / 16).sum(axis=1)).all()
        assert abs(found / (apart <= 200).sum(axis=1) - 1).mean() < 0.02

    def test_as_weights_it_gives_a_city_no_more_than_the_land(self):
        """A city of 900 tiles in one place, and 100 apart: drawn by inverse density, it comes once."""
        cols = np.append(np.zeros(900, int), 1000 * np.arange(1, 101))
        tiles = Tiles(GRID, cols, np.zeros(1000, int))
        density = tiles.density(500)
        assert density.tolist() == [900] * 900 + [1] * 100
        assert (tiles.weighted(1 / density, count=101).epoch(0, 0).ids < 900).sum() == 1

    def test_none_and_one(self):
        assert len(row(0).density(5)) == 0
        assert row(1).density(5).tolist() == [1]
        with pytest.raises(ConfigError, match="radius=0: expected CRS units, above 0"):
            row(3).density(0)


class TestFresh:
    def test_each_epoch_has_tiles_of_its_own(self):
        draws = Tiles.fresh(GRID, within=BOX, count=50)
        epochs = [draws.epoch(7, epoch) for epoch in range(4)]
        assert [len(tiles) for tiles in epochs] == [50] * 4
        assert np.concatenate([tiles.ids for tiles in epochs]).tolist() == list(range(200))
        assert len({tuple(tiles.cols.tolist()) for tiles in [*epochs, draws.epoch(8, 0), draws.epoch(0, 7)]}) == 6

    def test_the_same_seed_and_epoch_give_the_same_tiles(self):
        one, other = (
            Tiles.fresh(GRID, within=BOX, count=50),
            pickle.loads(pickle.dumps(Tiles.fresh(GRID, within=BOX, count=50))),
        )
        np.random.seed(1)
        first = one.epoch(2, 9)
        one.epoch(2, 10)
        np.random.seed(2)
        for name in ("cols", "rows", "ids"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other.epoch(2, 9), name))

    def test_refused(self):
        with pytest.raises(ConfigError, match="seed= can't be given: it comes of the dataset's seed and of the epoch"):
            Tiles.fresh(GRID, within=BOX, count=5, seed=1)
        with pytest.raises(ConfigError, match=r"no tile of .* fits"):
            Tiles.fresh(GRID, within=(0, 0, 5, 5), count=5)


class TestRepeated:
    """What was drawn twice stands in a set twice; nobody else may make such a set."""

    def test_slices_may_repeat_and_pickle(self):
        tiles = row(5, x=np.arange(5.0)).timed("2024-01-01")
        twice = pickle.loads(pickle.dumps(tiles[[3, 3, 1]].at(2)))
        assert twice.ids.tolist() == [503, 503, 501]
        assert twice.columns["x"].tolist() == [3, 3, 1]
        assert (twice.grid.pixel, len(twice.times)) == ((2, 2), 3)
        with pytest.raises(TypeError):
            twice.columns["x"] = 1
        with pytest.raises(ConfigError, match="1 tile ids are there twice"):
            Tiles(GRID, [0, 1], [0, 1], [5, 5])
        with pytest.raises(ConfigError, match="1 tile ids are there twice"):
            tiles[[3]] + tiles[[3]]

    @given(st.lists(st.integers(-3, 3), max_size=30))
    def test_repeats(self, ids):
        assert repeats(np.array(ids, "int64")).tolist() == [ids[:i].count(one) for i, one in enumerate(ids)]


LAYERS = {"image": Imagery("scene"), "mask": Labels("SELECT way AS geom, class AS value FROM areas WHERE way && tile.geom")}


def noisy(sample, generator):
    """A transform that shows which generator it had."""
    return sample | {"noise": torch.randint(2**62, (), generator=generator)}


def digest(batches):
    found = []
    for batch in batches:
        data = hashlib.sha256()
        for name in sorted(batch):
            data.update(name.encode() + batch[name].numpy().tobytes())
        found.append((batch["tile_id"].tolist(), data.hexdigest()))
    return found


@pytest.fixture(scope="module", params=["weighted", "balanced", "fresh"])
def draws(request, world):
    if request.param == "fresh":
        return Tiles.fresh(world.grid, within=BOX, count=13)
    tiles = Tiles.random(world.grid, within=BOX, count=30, seed=5, first_id=70)
    if request.param == "weighted":
        return tiles.weighted([9, 5, *np.full(28, 0.2)], count=21)
    return tiles.describe(world.db, {"area": LAYERS["mask"]}).balanced("area", share=0.3, count=25)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
class TestDataset:
    @pytest.fixture
    def make(self, world, draws):
        made = []

        def _make(**options):
            made.append(TileDataset(Database(world.url), draws, LAYERS, **{"batch_size": 4, "seed": 11} | options))
            return made[-1]

        yield _make
        for dataset in made:
            dataset.close()

    @pytest.mark.parametrize(
        "options", [{}, {"last": "drop", "shuffle": False}, {"transform": None}], ids=["shuffled", "as they come", "as read"]
    )
    def test_one_stream_for_any_number_of_workers_and_connections(self, make, options):
        def epochs(num_workers, **more):
            loader = make(**{"transform": noisy} | options | more).loader(num_workers=num_workers)
            found = [digest(loader) for _ in range(3)]
            assert {len(epoch) for epoch in found} == {len(loader)}
            return found

        want = epochs(0)
        assert len({str(epoch) for epoch in want}) == 3
        assert epochs(0, connections=1) == epochs(1) == epochs(2) == want

    def test_it_reads_the_epochs_tiles_in_the_datasets_order(self, make, draws):
        dataset = make(shuffle=False)
        assert len(dataset) == -(-len(draws) // 4)
        dataset.set_epoch(6)
        read = [i for batch in dataset for i in batch["tile_id"].tolist()]
        assert read == draws.epoch(11, 6).ids.tolist()
        shuffled = make()
        shuffled.set_epoch(6)
        mixed = [i for batch in shuffled for i in batch["tile_id"].tolist()]
        assert sorted(mixed) == sorted(read)
        assert mixed != read

    def test_bounds_and_pixels_are_those_of_the_tile(self, make, draws, world):
        dataset = make(shuffle=False, batch_size=None)
        tiles = draws.epoch(11, 0)
        dataset.set_epoch(0)
        for i, sample in enumerate(dataset):
            xmin, _, _, ymax = tiles.bounds[i]
            assert sample["bounds"].tolist() == tiles.bounds[i].tolist()
            col, line = round((xmin - X0) / RES), round((Y0 - ymax) / RES)
            np.testing.assert_array_equal(sample["image"], world.pixels[:, line : line + 64, col : col + 64])

    def test_no_two_draws_of_a_tile_have_one_generator(self, make):
        samples = [(int(s["tile_id"]), int(s["noise"])) for s in make(transform=noisy, batch_size=None).loader()]
        assert len({noise for _, noise in samples}) == len(samples)


def test_a_first_draw_has_the_generator_of_a_tile_that_is_read_once(world):
    """So that augmentation does not depend on what else is drawn."""
    tiles = Tiles.random(world.grid, within=BOX, count=6, seed=5)

    def noise(given):
        with Database(world.url) as db:
            dataset = TileDataset(db, given, LAYERS, batch_size=None, transform=noisy, shuffle=False)
            return [(int(s["tile_id"]), int(s["noise"])) for s in dataset]

    drawn = noise(tiles.weighted([3, 1, 1, 1, 1, 1], count=8))
    first = {}
    for tile, value in drawn:
        first.setdefault(tile, value)
    assert len(drawn) > len(first)
    assert first == {tile: value for tile, value in noise(tiles) if tile in first}


def test_another_process_draws_the_same(world):
    code = (
        "import numpy as np; from pgtiles import Grid, Tiles; g = Grid(srid=3857, resolution=1, size=10);"
        "t = Tiles(g, np.arange(50), np.zeros(50, int)); a = t.weighted(np.arange(50)).epoch(7, 3).ids.tolist();"
        "b = Tiles.fresh(g, within=(0, 0, 1000, 1000), count=20).epoch(7, 3); print([a, b.cols.tolist(), b.rows.tolist()])"
    )
    said = []
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(Path(__file__).parents[1])}
        said.append(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout.decode())
    tiles = Tiles(GRID, np.arange(50), np.zeros(50, int))
    fresh = Tiles.fresh(GRID, within=(0, 0, 1000, 1000), count=20).epoch(7, 3)
    want = [tiles.weighted(np.arange(50)).epoch(7, 3).ids.tolist(), fresh.cols.tolist(), fresh.rows.tolist()]
    assert said == [f"{want}\n"] * 2


def test_fresh_tiles_are_not_baked(world):
    with Database(world.url) as db:
        dataset = TileDataset(db, Tiles.fresh(world.grid, within=BOX, count=5), LAYERS)
        with pytest.raises(ConfigError, match="tiles that are fresh in each epoch can't be baked"):
            dataset.bake("never")


def test_a_million_tiles_are_drawn_in_seconds(quiet):
    n = 1_000_000
    rng = np.random.default_rng(0)
    shares = np.where(rng.random(n) < 0.01, rng.random(n), 0)
    tiles = Tiles(GRID, rng.integers(0, 10**6, n), rng.integers(0, 10**6, n)).with_columns(water=shares)
    began = time.process_time()
    draws = tiles.balanced("water", share=0.1)
    assert isinstance(draws, Draws)
    assert abs(draws.epoch(0, 1).columns["water"].mean() - 0.1) < 1e-3
    assert time.process_time() - began < 20  # 1 s on a machine at rest
