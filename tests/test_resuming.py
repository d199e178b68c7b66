"""A checkpoint's state of the stream: taken up again at any batch, by any number of workers and ranks, or refused."""

import gc
import json
import os
import pickle
import re
import socket
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import X0, Y0, scene, write_tiff
from torch.utils.data import DataLoader

from pgtiles import Grid, Imagery, Labels, TileDataset, Tiles, load
from pgtiles.errors import ConfigError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than this machine has cores
]

BATCH, COUNT = 6, 44  # 8 batches, the last of 2
LAYERS = {
    "image": Imagery("scene", bands=(1,)),
    "mask": Labels("SELECT way AS geom FROM roads WHERE way && tile.geom", buffer=3),
}


@pytest.fixture(scope="module")
def tiles(world):
    grid = Grid.like(world.db, "scene", size=16)
    return Tiles.random(grid, within=world.db.extent("scene", 3857), count=COUNT, seed=5)


@pytest.fixture
def make(world, tiles):
    made = []

    def _make(**options):
        made.append(TileDataset(world.url, **{"tiles": tiles, "layers": LAYERS, "batch_size": BATCH, "seed": 3} | options))
        return made[-1]

    yield _make
    for dataset in made:
        dataset.close()


def ids(batches):
    return [batch["tile_id"].tolist() for batch in batches]


def joined(lists):
    return list(chain.from_iterable(lists))


def some(loader, count):
    """The first batches, and the state then; what was read ahead is thrown away."""
    iterator = iter(loader)
    got = [next(iterator)["tile_id"].tolist() for _ in range(count)]
    state = loader.state_dict()
    del iterator
    gc.collect()
    return got, state


@pytest.fixture(scope="module")
def epochs(world, tiles):
    """Three epochs, nobody stopped."""
    with TileDataset(world.url, tiles, LAYERS, batch_size=BATCH, seed=3).db as db:
        dataset = TileDataset(db, tiles, LAYERS, batch_size=BATCH, seed=3)
        return [ids(dataset) for _ in range(3)]


class TestAtEveryBatch:
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_prefix_and_rest_are_the_whole_and_the_next_epoch_is_whole(self, make, epochs, workers):
        for stop in range(len(epochs[0]) + 1):
            head, state = some(make().loader(num_workers=workers, persistent_workers=False), stop)
            dataset = make()
            dataset.load_state_dict(json.loads(json.dumps(state)))  # as a file gives it back
            assert dataset.epoch == 0 if stop else state["batches"] == 0
            assert head + ids(dataset.loader(num_workers=(workers + 1) % 4)) == epochs[0]
            assert ids(dataset) == epochs[1]

    def test_an_epoch_that_ended_is_over(self, make, epochs):
        dataset = make()
        loader = dataset.loader(num_workers=2)
        assert ids(loader) == epochs[0]
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (1, 0)
        again = make()
        again.load_state_dict(state)
        assert again.epoch == 1
        assert ids(again) == epochs[1]

    def test_the_same_workers_go_on(self, make, epochs):
        """A loader whose workers live on takes a state too."""
        loader = make().loader(num_workers=2)
        head, state = some(loader, 3)
        assert ids(loader) == epochs[1]
        loader.load_state_dict(state)
        assert head + ids(loader) == epochs[0]
        assert ids(loader) == epochs[1]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_setting_the_epoch_that_was_loaded_keeps_the_place(self, make, epochs, workers):
        head, state = some(make().loader(), 5)
        dataset = make()
        loader = dataset.loader(num_workers=workers)
        dataset.load_state_dict(state)
        for epoch in range(dataset.epoch, 3):
            dataset.set_epoch(epoch)
            assert (head if epoch == 0 else []) + ids(loader) == epochs[epoch]
        dataset.load_state_dict(state)
        dataset.set_epoch(2)
        assert ids(loader) == epochs[2]
        dataset.set_epoch(0)
        assert ids(loader) == epochs[0]

    def test_trainers_that_keep_their_loaders_states_find_no_empty_epoch(self, make, epochs):
        """They take as many batches as len says, so that nothing ever tells the iterator that the epoch is over."""
        _, state = some(make().loader(), len(epochs[0]))
        dataset = make()
        loader = dataset.loader(num_workers=1)
        loader.load_state_dict(state)
        assert dataset.epoch == 1
        assert ids(loader) == epochs[1]
        loader.load_state_dict(state)
        dataset.set_epoch(0)
        assert ids(loader) == []
        assert ids(loader) == epochs[1]

    def test_a_state_is_not_used_up(self, make, epochs):
        head, state = some(make(), 2)
        dataset = make()
        for _ in range(2):
            dataset.load_state_dict(state)
            assert dataset.state_dict() == state
            assert head + ids(dataset) == epochs[0]

    def test_resumed_twice(self, make, epochs):
        head, state = some(make(), 2)
        dataset = make()
        dataset.load_state_dict(state)
        more, state = some(dataset.loader(num_workers=2), 3)
        assert state["batches"] == 5
        dataset = make()
        dataset.load_state_dict(state)
        assert head + more + ids(dataset) == epochs[0]

    def test_single_tiles(self, make, epochs):
        flat = joined(epochs[0])
        iterator = iter(loader := DataLoader(dataset := make(batch_size=None), batch_size=BATCH))
        head = [next(iterator)["tile_id"].tolist() for _ in range(3)]
        state = dataset.state_dict()
        assert state["batches"] == 3 * BATCH
        dataset = make(batch_size=None)
        dataset.load_state_dict(state)
        assert joined(head) + joined(ids(DataLoader(dataset, batch_size=BATCH))) == flat
        del iterator, loader

    def test_transforms_draw_the_same(self, make):
        def drawing(sample, generator):
            return sample | {"drawn": torch.rand(1, generator=generator)}

        whole = [batch["drawn"].tolist() for batch in make(transform=drawing)]
        _, state = some(make(transform=drawing), 4)
        dataset = make(transform=drawing)
        dataset.load_state_dict(state)
        assert [batch["drawn"].tolist() for batch in dataset] == whole[4:]

    def test_a_rest_without_labels_is_no_news(self, make, world):
        """That the last batch of an epoch has no label is no reason for the warning that an epoch has none."""
        layers = {"mask": Labels("SELECT tile.geom AS geom FROM roads WHERE tile.id = 0 LIMIT 1")}
        dataset = make(layers=layers, shuffle=False)
        _, state = some(dataset, 7)
        dataset.load_state_dict(state)
        assert len(ids(dataset)) == 1

    def test_weighted_and_fresh_tiles(self, make, world, tiles):
        fresh = Tiles.fresh(tiles.grid, within=world.db.extent("scene", 3857), count=20)
        for draws in (tiles.weighted(np.arange(COUNT) + 1.0), fresh):
            whole = make(tiles=draws)
            ids(whole)
            second = ids(whole)
            dataset = make(tiles=draws)
            dataset.set_epoch(1)
            head, state = some(dataset.loader(num_workers=2), 2)
            other = make(tiles=draws)
            other.load_state_dict(state)
            assert head + ids(other) == second


class TestRanks:
    def parts(self, make, world_size, state=None, **options):
        """What each rank reads, step by step."""
        ranks = []
        for rank in range(world_size):
            dataset = make(rank=rank, world_size=world_size, batch_size=12 // world_size, **options)
            if state:
                dataset.load_state_dict(state)
            ranks.append((dataset, dataset.loader(num_workers=rank % 2)))
        return ranks

    @pytest.mark.parametrize("before", [1, 2, 3, 4])
    @pytest.mark.parametrize("after", [1, 2, 3, 4])
    def test_other_ranks_take_over(self, make, before, after):
        whole = ids(make(batch_size=12))
        parts = self.parts(make, before)
        iterators = [iter(loader) for _, loader in parts]
        steps = [joined(next(i)["tile_id"].tolist() for i in iterators) for _ in range(2)]
        states = [loader.state_dict() for _, loader in parts]
        assert all(state == states[0] for state in states)
        del iterators
        rest = [ids(loader) for _, loader in self.parts(make, after, states[0])]
        assert steps + [joined(step) for step in zip(*rest, strict=True)] == whole

    def test_another_global_batch_is_refused(self, make):
        _, state = some(make(batch_size=12), 1)
        with pytest.raises(
            ConfigError, match=r"global batches of 12 tiles, this run has batch_size=12 on 2 ranks, which makes 24"
        ):
            make(batch_size=12, rank=0, world_size=2).load_state_dict(state)
        make(batch_size=6, rank=0, world_size=2).load_state_dict(state)

    @pytest.mark.parametrize(("last", "counts"), [("drop", [3, 3, 3]), ("pad", [4, 4, 4]), ("uneven", [4, 4, 3])])
    def test_equal_counts_as_it_was_asked(self, make, tiles, last, counts):
        parts = [make(tiles=tiles[:38], batch_size=4, last=last, rank=r, world_size=3) for r in range(3)]
        assert [len(part) for part in parts] == counts
        got = [ids(part) for part in parts]
        assert [len(batches) for batches in got] == counts
        seen = sorted(i for batches in got for batch in batches for i in batch)
        if last == "uneven":
            assert seen == tiles.ids[:38].tolist()
        elif last == "drop":
            assert len(seen) == len(set(seen)) == 36
        else:
            assert len(seen) == 48
            assert set(seen) == set(tiles.ids[:38].tolist())

    def test_ranks_that_would_wait_for_each_other_are_refused(self, make, tiles):
        with pytest.raises(ConfigError, match=r"of 38 tiles, 2 are left over .* for 3 ranks"):
            make(tiles=tiles[:38], batch_size=4, rank=0, world_size=3)
        assert [len(make(tiles=tiles[:39], batch_size=4, rank=r, world_size=3)) for r in range(3)] == [4, 4, 4]

    def test_the_launcher_says_it(self, make, epochs, monkeypatch):
        dataset = make(batch_size=3)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert dataset.rank == (1, 2)
        for workers in (0, 2):
            dataset.set_epoch(0)
            assert ids(dataset.loader(num_workers=workers))[:7] == [batch[3:] for batch in epochs[0][:7]]
        assert make(rank=0, world_size=1).rank == (0, 1)
        monkeypatch.setenv("RANK", "2")
        with pytest.raises(ConfigError, match="RANK='2' and WORLD_SIZE='2'"):
            make()

    @pytest.mark.parametrize("given", [{"rank": 0}, {"world_size": 2}, {"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2},
                                       {"rank": True, "world_size": 2}])  # fmt: skip
    def test_nonsense_is_refused(self, make, given):
        with pytest.raises(ConfigError, match="rank="):
            make(**given)


class TestIterators:
    """Several at a time, some that nobody asked for anything."""

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_state_is_that_of_whoever_handed_out_last(self, make, workers):
        dataset = make()
        loader = dataset.loader(num_workers=workers)
        iterator = iter(loader)
        for _ in range(3):
            next(iterator)
        next(iter(dataset))  # a look meanwhile
        next(iterator)
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (0, 4)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_setting_the_epoch_meanwhile(self, make, workers):
        """As a hook at the beginning of an epoch does, under trainers that have begun to iterate by then."""
        dataset = make()
        loader = dataset.loader(num_workers=workers)
        iterator = iter(loader)
        dataset.set_epoch(0)
        for _ in range(3):
            next(iterator)
        state = loader.state_dict()
        assert (state["epoch"], state["batches"]) == (0, 3)

    def test_one_that_nobody_asked_uses_up_no_epoch(self, make, epochs):
        dataset = make()
        iter(dataset), iter(dataset)
        assert dataset.epoch == 0
        assert ids(dataset) == epochs[0]

    def test_workers_that_live_on_serve_one_at_a_time(self, make, epochs):
        loader = make().loader(num_workers=2)
        first = iter(loader)
        next(first)
        second = iter(loader)
        assert ids(second) == epochs[1]
        with pytest.raises(ConfigError, match="a newer iteration has taken over the workers"):
            next(first)

    def test_workers_that_do_not_serve_each_their_own(self, make, epochs):
        loader = make().loader(num_workers=2, persistent_workers=False)
        first, second = iter(loader), iter(loader)
        got = [[], []]
        for one, two in zip(first, second, strict=True):
            got[0].append(one["tile_id"].tolist())
            got[1].append(two["tile_id"].tolist())
        assert got == epochs[:2]

    def test_a_start_that_fails_uses_up_no_epoch(self, make, epochs, monkeypatch):
        dataset = make(batch_size=BATCH // 2)
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", "30")  # of 44 tiles, 44 are left over for 30 ranks of 3 ...
        monkeypatch.setenv("WORLD_SIZE", "14")  # ... but 2 for 14
        for workers in (0, 1):
            with pytest.raises(ConfigError, match="2 are left over"):
                next(iter(dataset.loader(num_workers=workers)))
        assert dataset.epoch == 0

    def test_loaders_of_other_makes_with_one_seed(self, make):
        """Each with as many workers as it likes: none takes another's epoch for its own."""
        dataset, fresh = make(), make()
        for workers in (1, 2, 3, 2):
            torch.manual_seed(0)
            assert ids(DataLoader(dataset, batch_size=None, num_workers=workers)) == ids(fresh)

    def test_ranks_that_a_process_started_have_each_their_own_epochs(self, make, epochs):
        """As torch.multiprocessing.spawn does, and launchers of notebooks."""
        for method in ("fork", "spawn"):
            context = torch.multiprocessing.get_context(method)
            found, dataset = context.Queue(), make(batch_size=BATCH // 2)
            ranks = [context.Process(target=_rank, args=(dataset, rank, found)) for rank in range(2)]
            for rank in ranks:
                rank.start()
            got = dict(found.get(timeout=600) for _ in ranks)
            for rank in ranks:
                rank.join()
            for epoch in range(2):
                steps = zip(got[0][epoch], got[1][epoch], strict=True)
                assert [one + two for one, two in steps] == epochs[epoch]
            assert dataset.epoch == 0

    def test_an_order_that_no_state_could_tell_is_refused(self, make):
        with pytest.raises(ConfigError, match="in_order=False"):
            make().loader(num_workers=2, in_order=False)

    def test_ranks_with_one_batch_less_end_an_epoch_with_the_others(self, make, tiles):
        options = {"tiles": tiles[:9], "batch_size": 2, "last": "uneven", "world_size": 2}
        parts = [make(rank=rank, **options).loader() for rank in range(2)]
        _, state = some(parts[0], 2)
        for part in parts:
            part.load_state_dict(state)
        assert [part.stream.epoch for part in parts] == [0, 0]
        _, state = some(parts[0], 1)
        for part in parts:
            part.load_state_dict(state)
        assert [part.stream.epoch for part in parts] == [1, 1]


def _rank(dataset, rank, found):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2"}
    loader = dataset.loader(num_workers=1)
    got = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        got.append(ids(loader))
    found.put((rank, got))


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"seed": 4}, "seed was 3, now 4"),
            ({"shuffle": False}, "shuffle was true, now false"),
            ({"last": "drop"}, 'last was "even", now "drop"'),
            ({"layers": LAYERS | {"more": LAYERS["mask"]}}, "layer 'more' was null"),
            ({"layers": {"image": Imagery("scene", bands=(2,)), "mask": LAYERS["mask"]}}, r"layer 'image' bands was \[1\], now \[2\]"),
            ({"layers": LAYERS | {"mask": Labels("SELECT way AS geom FROM roads WHERE way && tile.geom", buffer=4)}},
             "layer 'mask' buffer was 3, now 4"),
            ({"batch_size": 5}, "global batches of 6 tiles"),
        ],
    )  # fmt: skip
    def test_another_stream_with_what_changed(self, make, options, said):
        _, state = some(make(), 1)
        with pytest.raises(ConfigError, match=said):
            make(**options).load_state_dict(state)

    def test_other_tiles(self, make, tiles):
        _, state = some(make(), 1)
        with pytest.raises(ConfigError, match="tiles was 44, now 43; digest of the tiles was"):
            make(tiles=tiles[:43]).load_state_dict(state)
        with pytest.raises(ConfigError, match="state is of another stream of samples: digest of the tiles was"):
            make(tiles=tiles[::-1]).load_state_dict(state)
        with pytest.raises(ConfigError, match='drawn was null, now "weighted"'):
            make(tiles=tiles.weighted(np.ones(COUNT))).load_state_dict(state)

    def test_how_it_is_read_may_change(self, make):
        _, state = some(make(), 1)
        make(connections=3, on_error="skip", transform=lambda sample, _: sample).load_state_dict(state)

    @pytest.mark.parametrize("state", [None, {}, {"epoch": 1}, "state", {"model": 1}])
    def test_what_is_no_state(self, make, state):
        with pytest.raises(ConfigError, match=r"expected what state_dict\(\)"):
            make().load_state_dict(state)

    def test_a_state_of_the_future(self, make):
        with pytest.raises(ConfigError, match="version 2, this pgtiles reads version 1"):
            make().load_state_dict(make().state_dict() | {"version": 2})

    def test_nobody_knows_what_anothers_loader_handed_out(self, make):
        dataset = make()
        loader = DataLoader(dataset, batch_size=None, num_workers=1)
        next(iter(loader))
        with pytest.raises(ConfigError, match=r"use dataset\.loader\(\)"):
            dataset.state_dict()
        dataset.set_epoch(0)
        assert dataset.state_dict()["batches"] == 0


class TestState:
    def test_it_is_plain_and_small(self, make, tmp_path):
        _, state = some(make(), 3)
        assert json.loads(json.dumps(state)) == state
        torch.save({"data": state}, tmp_path / "checkpoint.pt")
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["data"] == state
        assert len(pickle.dumps(state)) < 2000

    def test_a_pickled_dataset_goes_on_where_it_stood(self, make, epochs, monkeypatch, world):
        monkeypatch.setenv("PGTILES_URL", world.url)  # a pickle holds no password
        dataset = make()
        assert ids(dataset) == epochs[0]
        again = pickle.loads(pickle.dumps(dataset))
        assert again.epoch == 1
        assert ids(again) == epochs[1]
        assert dataset.epoch == 1  # a copy is a copy
        loader = DataLoader(again, batch_size=None, num_workers=2)  # and its workers agree as those of any other
        assert [ids(loader) for _ in range(1)] == [epochs[2]]
        again.close()

    def test_what_was_looked_at_before_does_not_count(self, make, epochs):
        dataset = make()
        some(dataset, 2)
        dataset.set_epoch(0)
        assert dataset.state_dict()["batches"] == 0
        assert ids(dataset) == epochs[0]


ROOT = Path(__file__).parents[1]


@pytest.fixture
def reader(db, tmp_path, monkeypatch, database_url):
    """What a reader of the page has: imagery, buildings, a folder."""
    load.raster(db, [write_tiff(tmp_path / "scene.tif", scene(0, (3, 400, 500)))], "sat_s2")
    rng = np.random.default_rng(0)
    with db.connection() as conn:
        conn.execute("CREATE TABLE buildings (id serial PRIMARY KEY, geom geometry(Polygon, 3857))")
        for x, y in zip(X0 + rng.uniform(0, 1200, 600), Y0 - rng.uniform(0, 950, 600), strict=True):
            conn.execute(f"INSERT INTO buildings (geom) VALUES (ST_MakeEnvelope({x}, {y}, {x + 30}, {y + 20}, 3857))")
        conn.execute("CREATE INDEX ON buildings USING gist (geom)")
        conn.execute("ANALYZE buildings")
    monkeypatch.setenv("PGTILES_URL", database_url)
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
def test_the_page_that_explains_it(reader, capsys, tmp_path):
    """Every block of docs/training.md is run; the one for several GPUs by torchrun, on two ranks."""
    pytest.importorskip("torchdata")
    page = (ROOT / "docs" / "training.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.M | re.S)
    names, printed = {}, ""
    for kind, code in blocks:
        if not kind:
            assert "retries=0" in code
            known = {name: int(value) for name, value in re.findall(r"(rows|bytes)=(\d+)", code)}
            found = {name: int(value) for name, value in re.findall(r"(rows|bytes)=(\d+)", printed)}
            assert found.keys() == known.keys()
        elif "torchrun" in code:
            (tmp_path / "train.py").write_text(code)
            run = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                "2",
                "--master-port",
                str(free_port()),
                "train.py",
            ]
            path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}
            done = subprocess.run(run, env=env, capture_output=True, text=True, timeout=600, cwd=tmp_path, check=False)
            assert done.returncode == 0, done.stderr
        else:
            exec(compile(code, "training.md", "exec"), names)
            printed = capsys.readouterr().out or printed
    assert names["dataset"].stats().bytes > 0
    names["dataset"].close()


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
