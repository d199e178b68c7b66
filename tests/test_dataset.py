"""TileDataset: what a batch is; promise 2, one order for any number of workers and connections; beginning, end and failure."""

import gc
import hashlib
import pickle
import socket
import threading
import time
import traceback
from urllib.parse import quote

import numpy as np
import psycopg
import pytest
import torch
from conftest import HEIGHT, RES, WIDTH, X0, Y0, scene, write_tiff
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from torch.utils.data import DataLoader
from waiting import until

from pgtiles import Database, Grid, Imagery, Labels, Split, TileDataset, Tiles, load, read
from pgtiles.errors import ConfigError, DatabaseError, MissingError, PgtilesError, PgtilesWarning, QueryError

pytestmark = [
    # Python 3.12 and newer warn of what a DataLoader does by default on Linux: fork a process that has threads.
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than this machine has cores
]

ROADS = "SELECT ST_Buffer(way, 6) AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
LAYERS = {"image": Imagery("scene"), "mask": Labels(ROADS)}
COUNT, BATCH = 22, 4


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=COUNT, seed=3, first_id=100)


@pytest.fixture
def make(world, tiles):
    """Makes datasets, each with a Database of its own, and closes them in the end."""
    made = []

    def _make(layers=LAYERS, tiles=tiles, **options):
        made.append(TileDataset(Database(world.url), tiles, layers, **{"batch_size": BATCH, "seed": 11} | options))
        return made[-1]

    yield _make
    for dataset in made:
        dataset.close()


def digest(batches):
    """What a stream holds: the tiles of each batch, and their bytes."""
    found = []
    for batch in batches:
        data = hashlib.sha256()
        for name in sorted(batch.keys() - {"tile_id"}):
            data.update(name.encode() + str(batch[name].dtype).encode() + batch[name].numpy().tobytes())
        found.append((batch["tile_id"].tolist(), data.hexdigest()))
    return found


def ids(batches):
    return [i for batch in batches for i in batch["tile_id"].reshape(-1).tolist()]


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("pgtiles")]


def release(caught):
    """Let go of what an error's traceback holds: of torch's iterator, which takes 5 s a worker when only gc.collect ends it."""
    traceback.clear_frames(caught.value.__traceback__)


@pytest.fixture
def backends(world):
    """The server processes, and their state, that were begun for pgtiles in this test."""
    with psycopg.connect(world.url, autocommit=True) as conn:

        def now():
            rows = conn.execute(
                "SELECT pid, state FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgtiles'"
            )
            return dict(rows.fetchall())

        before = now()
        yield lambda: {pid: state for pid, state in now().items() if pid not in before}


class TestBatch:
    def test_shapes_types_and_keys(self, make):
        batches = list(make())
        assert [len(b["tile_id"]) for b in batches] == [4] * 5 + [2]
        for batch in batches:
            b = len(batch["tile_id"])
            assert list(batch) == ["image", "mask", "bounds", "tile_id"]
            assert {name: (t.dtype, tuple(t.shape)) for name, t in batch.items()} == {
                "image": (torch.uint8, (b, 3, 64, 64)),
                "mask": (torch.int64, (b, 64, 64)),
                "bounds": (torch.float64, (b, 4)),
                "tile_id": (torch.int64, (b,)),
            }

    def test_each_tile_is_what_reading_it_alone_gives(self, world, make, tiles):
        place = {int(i): n for n, i in enumerate(tiles.ids)}
        want = read(world.db, tiles, LAYERS)
        assert want["mask"].any()
        for batch in make():
            at = [place[i] for i in batch["tile_id"].tolist()]
            np.testing.assert_array_equal(batch["bounds"], tiles.bounds[at])
            for name in LAYERS:
                np.testing.assert_array_equal(batch[name], want[name][at])

    def test_types_that_torch_computes_badly_come_as_float(self, db, database_url, tmp_path):
        for dtype in ("uint16", "int16"):
            load.raster(db, [write_tiff(tmp_path / f"{dtype}.tif", scene(0, (2, 80, 90), dtype))], dtype)
        tiles = Tiles(Grid.like(db, "uint16", size=(30, 40)), np.array([3, 5]), np.array([4, 6]))
        layers = {
            "plain": Imagery("uint16"),
            "native": Imagery("uint16", dtype="native"),
            "half": Imagery("uint16", dtype="float64", bands=(2,)),
            "signed": Imagery("int16"),
            "thin": Labels("SELECT tile.geom AS geom", dtype="uint8"),
        }
        with TileDataset(database_url, tiles, layers).db as opened:
            (batch,) = TileDataset(opened, tiles, layers)
        kinds = {name: (tensor.dtype, tuple(tensor.shape[1:])) for name, tensor in batch.items()}
        assert kinds == {
            "plain": (torch.float32, (2, 30, 40)),
            "native": (torch.uint16, (2, 30, 40)),
            "half": (torch.float64, (1, 30, 40)),
            "signed": (torch.int16, (2, 30, 40)),
            "thin": (torch.uint8, (30, 40)),
            "bounds": (torch.float64, (4,)),
            "tile_id": (torch.int64, ()),
        }
        np.testing.assert_array_equal(batch["plain"], batch["native"].to(torch.float32))

    def test_batches_are_the_users_to_write_into(self, make):
        for batch in make(batch_size=16):
            batch["image"].zero_()
            batch["mask"] += 1

    def test_single_tiles(self, make, tiles):
        singles = list(make(batch_size=None))
        assert {name: tuple(t.shape) for name, t in singles[0].items()} == {
            "image": (3, 64, 64), "mask": (64, 64), "bounds": (4,), "tile_id": ()
        }  # fmt: skip
        batches = list(make())
        assert ids(singles) == ids(batches)
        for name in singles[0]:
            np.testing.assert_array_equal(torch.stack([s[name] for s in singles]), torch.cat([b[name] for b in batches]))


@pytest.fixture(scope="module")
def want(world, tiles):
    """Two epochs, read by one thread and one connection."""
    dataset = TileDataset(Database(world.url), tiles, LAYERS, batch_size=BATCH, seed=11, connections=1)
    found = [digest(dataset), digest(dataset)]
    dataset.close()
    for epoch in found:
        assert sorted(i for batch, _ in epoch for i in batch) == tiles.ids.tolist()
    assert found[0] != found[1]
    return found


class TestOneStream:
    @pytest.mark.parametrize("connections", [1, 2, 3])
    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_any_number_of_workers_and_connections(self, make, want, workers, connections):
        loader = make(connections=connections).loader(num_workers=workers)
        assert [digest(loader), digest(loader)] == want

    @pytest.mark.parametrize(
        "options",
        [
            {"num_workers": 2, "persistent_workers": False},
            {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 1},
            {"num_workers": 2, "multiprocessing_context": "spawn", "persistent_workers": True},
        ],
        ids=lambda o: "-".join(map(str, o.values())),
    )
    def test_however_workers_are_started(self, make, want, options):
        loader = make().loader(**options)
        assert [digest(loader), digest(loader)] == want

    def test_iterating_the_dataset_is_the_same(self, make, want):
        dataset = make()
        assert [digest(dataset), digest(dataset)] == want

    def test_more_workers_than_batches(self, make, tiles):
        few = {"tiles": tiles[:6]}
        assert digest(make(**few).loader(num_workers=3)) == digest(make(**few))
        assert ids(make(**few, batch_size=None).loader(num_workers=3)) == ids(make(**few))

    @pytest.mark.parametrize("workers", [1, 2])
    def test_single_tiles_too(self, make, want, workers):
        singles = ids(make(batch_size=None).loader(num_workers=workers))
        assert singles == [i for batch, _ in want[0] for i in batch]

    def test_another_seed_is_another_order(self, make, want):
        assert digest(make(seed=12)) != want[0]

    def test_it_does_not_hang_on_anyones_global_seed(self, make, want):
        torch.manual_seed(5)
        np.random.seed(5)
        assert digest(make().loader(num_workers=2)) == want[0]


class TestEpochs:
    def test_each_iteration_reads_the_next(self, make):
        dataset = make()
        one, two, three = (ids(dataset) for _ in range(3))
        assert sorted(one) == sorted(two) == sorted(three)
        assert len({tuple(one), tuple(two), tuple(three)}) == 3

    @pytest.mark.parametrize("workers", [0, 2])
    def test_set_epoch(self, make, workers):
        dataset = make()
        loader = dataset.loader(num_workers=workers)
        epochs = [ids(loader) for _ in range(3)]
        dataset.set_epoch(1)
        assert ids(loader) == epochs[1]
        assert ids(loader) == epochs[2]
        dataset.set_epoch(0)
        assert ids(dataset) == epochs[0]
        with pytest.raises(ConfigError, match="epoch=-1"):
            dataset.set_epoch(-1)

    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("shuffle", [False, True])
    def test_a_look_before_training_does_no_harm(self, make, workers, shuffle):
        dataset, fresh = make(shuffle=shuffle), make(shuffle=shuffle)
        loader = dataset.loader(num_workers=workers)
        epochs = [digest(fresh) for _ in range(3)]
        looked = next(iter(dataset))
        assert digest([looked]) == epochs[0][:1]
        assert digest([next(iter(loader))]) == epochs[1][:1]
        assert digest(loader) == epochs[2]
        dataset.set_epoch(0)
        assert digest(loader) == epochs[0]

    def test_two_at_once_do_not_mix(self, make):
        dataset, fresh = make(), make()
        one, two = iter(dataset), iter(dataset)
        got = [[], []]
        for a, b in zip(one, two, strict=True):
            got[0].append(a)
            got[1].append(b)
        assert [digest(g) for g in got] == [digest(fresh), digest(fresh)]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_unshuffled_is_the_tiles_order_in_every_epoch(self, make, tiles, workers):
        loader = make(shuffle=False).loader(num_workers=workers)
        assert ids(loader) == ids(loader) == tiles.ids.tolist()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_last_and_len(self, make, workers):
        dataset, dropping = make(), make(last="drop")
        assert len(dataset) == len(dataset.loader(num_workers=workers)) == 6
        assert len(dropping) == len(dropping.loader(num_workers=workers)) == 5
        batches = digest(dropping.loader(num_workers=workers))
        assert batches == digest(dataset.loader(num_workers=workers))[:5]
        assert len(make(batch_size=None)) == COUNT
        assert len(make(batch_size=COUNT + 1)) == 1
        assert len(make(batch_size=COUNT + 1, last="drop")) == 0


class TestOwnDataLoader:
    def test_a_function_of_ones_own_sees_the_batch_itself(self, make):
        kinds = [{type(batch) for batch in make().loader(num_workers=n, collate_fn=lambda batch: batch)} for n in (0, 2)]
        assert kinds == [{dict}, {dict}]

    def test_small_tensors_that_are_kept_do_not_keep_the_batch(self, make):
        kept = [batch["tile_id"] for batch in make().loader(num_workers=2)]
        assert max(tensor.untyped_storage().nbytes() for tensor in kept) <= 8 * BATCH

    @pytest.mark.filterwarnings("ignore:Got pickle error:UserWarning")
    def test_workers_that_do_not_start_leave_no_trace(self, make):
        dataset = make()
        dataset.unsent = lambda: None  # no other process can be sent this
        with pytest.raises((AttributeError, pickle.PicklingError)):
            iter(dataset.loader(num_workers=1, multiprocessing_context="spawn"))
        del dataset.unsent
        assert isinstance(next(iter(dataset)), dict)

    """Trainers that insist on a DataLoader of their own."""

    def test_it_batches_single_tiles(self, make):
        got = list(DataLoader(make(batch_size=None), batch_size=BATCH))
        assert digest(got) == digest(make())

    def test_its_workers_give_every_tile_once(self, make, tiles):
        dataset = make(batch_size=None)
        dataset.set_epoch(0)
        got = list(DataLoader(dataset, batch_size=BATCH, num_workers=2))
        assert sorted(ids(got)) == tiles.ids.tolist()

    @pytest.mark.parametrize("workers", [0, 2])
    def test_it_passes_our_batches_on(self, make, workers):
        dataset = make()
        dataset.set_epoch(0)
        assert digest(DataLoader(dataset, batch_size=None, num_workers=workers)) == digest(make())

    @pytest.mark.parametrize("persistent", [False, True])
    @pytest.mark.parametrize("workers", [0, 1, 3])
    def test_its_epochs_go_on_by_themselves(self, make, workers, persistent):
        """Workers agree on the epoch: nobody tells them, and those that are started anew know nothing of earlier ones."""
        fresh = make()
        loader = DataLoader(make(), batch_size=None, num_workers=workers, persistent_workers=persistent and workers > 0)
        assert [ids(loader) for _ in range(4)] == [ids(fresh) for _ in range(4)]

    @pytest.mark.parametrize("persistent", [False, True])
    def test_also_where_one_is_abandoned_and_torch_is_seeded_anew(self, make, persistent):
        fresh, dataset = make(), make()
        epochs = [ids(fresh) for _ in range(5)]
        loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=persistent)
        for epoch in range(4):
            torch.manual_seed(3)  # so that workers are given the same seed in each
            if epoch == 1:
                iterator = iter(loader)
                assert next(iterator)["tile_id"].tolist() == epochs[1][:BATCH]
                del iterator
            else:
                assert ids(loader) == epochs[epoch]

    def test_spawned_workers_agree_too(self, make):
        fresh = make()
        loader = DataLoader(make(), batch_size=None, num_workers=2, multiprocessing_context="spawn")
        assert [ids(loader) for _ in range(2)] == [ids(fresh) for _ in range(2)]

    def test_set_epoch_reaches_its_workers(self, make):
        dataset, fresh = make(), make()
        loader = DataLoader(dataset, batch_size=None, num_workers=2, persistent_workers=True)
        epochs = [ids(fresh) for _ in range(4)]
        for epoch in (2, 3, 0):
            dataset.set_epoch(epoch)
            assert ids(loader) == epochs[epoch]


def drawn(sample, generator):
    """An augmentation that shows what it drew, and that it got one tile."""
    assert sample["image"].shape == (3, 64, 64)
    assert sample["tile_id"].shape == ()
    flips = torch.rand(2, generator=generator)
    dims = [d for d, flip in zip((-1, -2), flips, strict=True) if flip < 0.5]
    return sample | {name: torch.flip(sample[name], dims) for name in ("image", "mask")} | {"drawn": flips}


class RefusedError(Exception):
    """Something of the user's own."""


def refusing(sample, generator):
    raise RefusedError(f"not tile {int(sample['tile_id'])}")


class TestTransform:
    def test_it_is_the_same_for_any_workers_connections_and_batches(self, make):
        dataset = make(transform=drawn)
        want = [digest(dataset), digest(dataset)]
        for workers, connections in ((1, 1), (2, 3), (3, 2)):
            torch.manual_seed(workers)
            loader = make(transform=drawn, connections=connections).loader(num_workers=workers)
            assert [digest(loader), digest(loader)] == want

    def test_it_hangs_on_seed_epoch_and_tile_alone(self, make):
        def draws(dataset):
            return {int(i): tuple(d.tolist()) for b in dataset for i, d in zip(b["tile_id"], b["drawn"], strict=True)}

        dataset, other = make(transform=drawn), make(transform=drawn, batch_size=7, shuffle=False, connections=1)
        epochs = [draws(dataset), draws(dataset)]
        assert len(set(epochs[0].values())) == COUNT  # each tile its own
        assert not set(epochs[0].values()) & set(epochs[1].values())  # and another in each epoch
        assert [draws(other), draws(other)] == epochs
        assert not set(draws(make(transform=drawn, seed=12)).values()) & set(epochs[0].values())
        dataset.set_epoch(0)
        assert draws(dataset) == epochs[0]

    def test_single_tiles(self, make):
        singles = [s["drawn"] for s in make(transform=drawn, batch_size=None)]
        np.testing.assert_array_equal(torch.stack(singles), torch.cat([b["drawn"] for b in make(transform=drawn)]))

    def test_what_it_does_is_done(self, make):
        plain = {int(s["tile_id"]): s for s in make(batch_size=None)}
        turned = 0
        for sample in make(transform=drawn, batch_size=None):
            dims = [d for d, flip in zip((-1, -2), sample["drawn"], strict=True) if flip < 0.5]
            turned += len(dims)
            for name in ("image", "mask"):
                np.testing.assert_array_equal(sample[name], torch.flip(plain[int(sample["tile_id"])][name], dims))
        assert 0.3 * COUNT < turned < 1.7 * COUNT

    @pytest.mark.parametrize("workers", [0, 1])
    def test_its_own_errors_come_through(self, make, workers):
        with pytest.raises(RefusedError, match="not tile 1") as caught:
            list(make(transform=refusing).loader(num_workers=workers))
        release(caught)
        assert threads() == []


class TestWhichTiles:
    def test_a_whole_split_is_refused(self, make, tiles):
        split = Split.of(tiles.with_columns(split=np.array(["train", "test"])[np.arange(COUNT) % 2]), gap=0)
        with pytest.raises(ConfigError, match=r"of a Split, give split\.train"):
            make(tiles=split)

    def test_fresh_tiles_are_explained_where_they_are(self, make, world):
        draws = Tiles.fresh(world.grid, within=world.db.extent("scene", 3857), count=6)
        dataset = make(tiles=draws, seed=5)
        for epoch in (0, 3):
            dataset.set_epoch(epoch)
            batch = next(iter(dataset))
            why = dataset.why(int(batch["tile_id"][1]))
            assert list(why.bounds) == batch["bounds"][1].tolist()


class TestConnections:
    def test_none_is_held_before_it_is_needed(self, make, backends, world, monkeypatch):
        monkeypatch.setenv("PGTILES_URL", world.url)  # pickles hold no password
        dataset = make()
        until(lambda: not backends())
        again = pickle.loads(pickle.dumps(dataset))
        until(lambda: not backends())
        assert next(iter(again))["tile_id"].shape == (BATCH,)
        assert backends()
        again.close()
        until(lambda: not backends())

    def test_a_pickled_dataset_is_the_same(self, make, world, monkeypatch):
        monkeypatch.setenv("PGTILES_URL", world.url)  # pickles hold no password
        dataset, fresh = make(transform=drawn), make(transform=drawn)
        assert digest(dataset) == digest(fresh)
        data = pickle.dumps(dataset)
        assert len(data) < 50_000
        again = pickle.loads(data)
        assert digest(again) == digest(fresh)  # it goes on where it stood
        again.close()

    @pytest.mark.parametrize("connections", [1, 3])
    def test_as_many_as_asked_for(self, make, backends, connections):
        dataset, most = make(connections=connections), 0
        until(lambda: not backends())  # the one that opened it
        for _ in dataset:
            most = max(most, len(backends()))
        assert most == connections
        assert set(backends().values()) <= {"idle"}
        dataset.close()
        until(lambda: not backends())
        assert len(ids(dataset)) == COUNT  # it can be used again

    def test_workers_take_theirs_with_them(self, make, backends):
        loader = make().loader(num_workers=2, persistent_workers=False)
        assert len(ids(loader)) == COUNT
        until(lambda: not backends())

    def test_an_abandoned_iteration_leaves_nothing_at_work(self, make, backends):
        for count, _ in enumerate(make(connections=3)):
            if count == 1:
                break
        assert threads() == []
        until(lambda: set(backends().values()) <= {"idle"})

    def test_an_abandoned_iteration_does_not_wait_for_slow_statements(self, make, world, backends):
        with psycopg.connect(world.url, autocommit=True) as conn:
            conn.execute("DROP TABLE IF EXISTS patience; CREATE TABLE patience AS SELECT 0 AS seconds")
            waits = "pg_sleep(CASE WHEN tile.id < 104 THEN 0 ELSE p.seconds END)"
            label = f"SELECT tile.geom FROM patience AS p CROSS JOIN LATERAL {waits}"
            dataset = make({"mask": Labels(label)}, connections=2, shuffle=False)
            conn.execute("UPDATE patience SET seconds = 60")
            stream = iter(dataset)
            assert next(stream)["tile_id"].tolist() == [100, 101, 102, 103]
            until(lambda: "active" in backends().values())
            began = time.monotonic()
            stream.close()
            assert time.monotonic() - began < 50
            assert threads() == []
            until(lambda: "active" not in backends().values())
            conn.execute("DROP TABLE patience")

    @pytest.mark.parametrize("connections", [1, 3])
    def test_an_abandoned_iteration_waits_only_for_what_is_at_work(self, make, monkeypatch, backends, connections):
        monkeypatch.setattr("pgtiles.streaming.ahead.PATIENCE", 60.0)
        stream = iter(make(connections=connections))
        next(stream)
        began = time.monotonic()
        stream.close()  # others had not begun: nobody would ever say that they are done
        assert time.monotonic() - began < 30
        assert set(backends().values()) <= {"idle"}

    def test_a_statement_that_is_abandoned_stops_on_the_server(self, world, backends):
        db = Database(world.url)
        rows = db.copy(
            sql.SQL("SELECT repeat('x', 100000), pg_sleep(CASE WHEN i > 3 THEN 60 ELSE 0 END) FROM generate_series(1, 9) AS i")
        )
        next(rows)
        assert "active" in backends().values()
        rows.close()
        until(lambda: not backends())
        db.close()

    def test_an_iterator_that_is_let_go_ends_its_threads(self, make, backends):
        stream = iter(make(connections=3))
        next(stream)
        assert threads()
        del stream
        gc.collect()
        assert threads() == []
        until(lambda: set(backends().values()) <= {"idle"})

    def test_an_iterator_that_nobody_asks_begins_nothing(self, make, backends):
        stream = iter(make())
        assert threads() == []
        until(lambda: not backends())  # one that was just closed takes a moment to go
        del stream

    @pytest.mark.parametrize("persistent", [False, True])
    def test_an_abandoned_loader_too(self, make, backends, persistent):
        loader = make().loader(num_workers=2, persistent_workers=persistent)
        for count, _ in enumerate(loader):
            if count == 1:
                break
        del loader
        gc.collect()
        assert threads() == []
        until(lambda: not backends())

    def test_forked_after_it_was_used(self, make):
        """A worker that used its parent's socket would read the parent's rows, and the parent the worker's."""
        dataset, fresh = make(connections=3), make()
        want = [digest(fresh) for _ in range(4)]
        assert digest(dataset) == want[0]
        loader = dataset.loader(num_workers=3, multiprocessing_context="fork")
        meanwhile, got = make(shuffle=False), []
        dataset.set_epoch(1)
        with dataset.db.connection() as held:  # one of those that the workers inherit
            for batch, _ in zip(loader, meanwhile, strict=True):
                assert held.execute("SELECT 7").fetchone() == (7,)
                got.append(batch)
        assert digest(got) == want[1]
        dataset.set_epoch(2)
        assert digest(dataset) == want[2]
        assert digest(loader) == want[3]


class TestErrors:
    BAD = "SELECT tile.geom AS geom, 1 / (tile.id - 105) AS value FROM tile"

    @pytest.mark.parametrize("batch_size", [BATCH, None])
    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_query_that_fails_on_one_tile(self, make, backends, workers, batch_size):
        layers = {"mask": Labels(ROADS), "bad": Labels(self.BAD)}
        loader = make(layers, batch_size=batch_size).loader(num_workers=workers, persistent_workers=False)
        with pytest.raises(QueryError, match=r"layer 'bad', tile 105 at \(.*\): division by zero") as caught:
            list(loader)
        release(caught)
        assert threads() == []
        until(lambda: set(backends().values()) <= {"idle"})

    def test_the_batches_before_it_come_first(self, make):
        stream = iter(make({"bad": Labels(self.BAD)}, shuffle=False, connections=3))
        assert next(stream)["tile_id"].tolist() == [100, 101, 102, 103]
        with pytest.raises(QueryError, match="tile 105"):
            next(stream)
        assert list(stream) == []
        assert threads() == []

    @pytest.mark.parametrize(
        ("layers", "error", "says"),
        [
            ({"image": Imagery("scen")}, MissingError, r"layer 'image': .*public\.scene"),
            ({"m": Labels("SELECT nothing AS geom FROM roads")}, QueryError, "layer 'm': .*nothing"),
            ({}, ConfigError, "layers="),
            ({"tile_id": Imagery("scene")}, ConfigError, "tile_id.*taken"),
        ],
    )
    def test_wrong_layers_fail_at_once(self, make, layers, error, says):
        with pytest.raises(error, match=says):
            make(layers)

    @pytest.mark.parametrize(
        "options",
        [
            {"batch_size": 0}, {"batch_size": -1}, {"batch_size": 2.5}, {"batch_size": "16"}, {"connections": 0},
            {"connections": -2}, {"connections": 1.5}, {"connections": None}, {"seed": -1}, {"seed": 1.5}, {"seed": "1"},
        ],
        ids=str,
    )  # fmt: skip
    def test_wrong_numbers(self, make, options):
        ((name, value),) = options.items()
        with pytest.raises(ConfigError, match=f"^{name}={value!r}: expected"):
            make(**options)

    def test_no_tiles(self, make, tiles):
        with pytest.raises(ConfigError, match="no tile"):
            make(tiles=tiles[:0])

    @pytest.mark.parametrize("name", ["batch_size", "shuffle", "sampler", "batch_sampler", "drop_last"])
    def test_what_the_loader_does_not_take(self, make, name):
        with pytest.raises(ConfigError, match=rf"loader\({name}=…\): the dataset itself decides"):
            make().loader(**{name: None})


class TestNothingSilent:
    NONE = Labels("SELECT way AS geom FROM roads WHERE way && tile.geom AND class = 99")

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_without_one_label_row(self, make, workers):
        """Said in the process that trains, of all its tiles."""
        loader = make({"image": Imagery("scene"), "mask": self.NONE}).loader(num_workers=workers)
        for epoch in range(2):
            with pytest.warns(PgtilesWarning, match=rf"layer 'mask': no row .* any of the {COUNT} tiles of epoch {epoch}:"):
                list(loader)

    @pytest.mark.parametrize("workers", [0, 2, 3])
    def test_one_label_row_is_enough(self, make, tiles, workers):
        """In whichever worker it falls: that the others see none is no news."""
        one = Labels(f"SELECT tile.geom AS geom FROM tile WHERE tile.id = {tiles.ids[5]}")
        got = list(make({"mask": one}).loader(num_workers=workers))
        assert sum(int(batch["mask"].any(dim=(1, 2)).sum()) for batch in got) == 1

    @pytest.mark.parametrize("workers", [0, 2])
    def test_tiles_without_imagery_are_counted(self, make, world, workers):
        x, y = world.grid.origin
        cols, rows = (
            np.array([0, WIDTH + 10, WIDTH - 32, 5, WIDTH + 64]),
            np.array([0, 0, HEIGHT - 32, HEIGHT + 10, HEIGHT - 32]),
        )
        tiles = Tiles(world.grid, cols + round((X0 - x) / RES), rows + round((y - Y0) / RES))
        loader = make({"image": Imagery("scene")}, tiles=tiles, batch_size=1, shuffle=False).loader(num_workers=workers)
        with pytest.warns(PgtilesWarning, match=r"layer 'image': 3 of 5 tiles of epoch 0 have no imagery at all, and hold 0"):
            shown = [bool(batch["image"].any()) for batch in loader]
        assert shown == [True, False, True, False, False]

    def test_no_tiles_at_all_are_no_news(self, make):
        assert list(make(batch_size=COUNT + 1, last="drop")) == []


class TestUrls:
    @pytest.fixture(autouse=True)
    def nothing_named(self, monkeypatch, tmp_path):
        """An environment that names no database."""
        for name in (
            "PGTILES_URL",
            "PGHOST",
            "PGHOSTADDR",
            "PGPORT",
            "PGUSER",
            "PGPASSWORD",
            "PGDATABASE",
            "PGSERVICE",
            "PGPASSFILE",
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PGTILES_HOME", str(tmp_path / "home"))
        (tmp_path / "home").mkdir()

    @pytest.fixture
    def known(self, database_url):
        return conninfo_to_dict(database_url)

    def reaches(self, url, known):
        with Database(url) as db:
            said = db.query(sql.SQL("SELECT current_database(), current_user, current_setting('application_name')"))
            assert said == [(known["dbname"], known["user"], "pgtiles")]
            assert known.get("password", "no password") not in repr(db) + db.name
            return db.source

    @pytest.mark.parametrize(
        "scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+psycopg_async"]
    )
    def test_a_url_of_any_driver(self, database_url, known, scheme):
        assert self.reaches(database_url.replace("postgresql", scheme, 1), known) == "the URL given"

    def test_a_libpq_string(self, database_url, known):
        assert self.reaches(make_conninfo(database_url), known) == "the URL given"

    def test_sqlalchemy(self, database_url, known):
        from sqlalchemy import create_engine, make_url

        for scheme in ("postgresql", "postgresql+psycopg"):
            assert self.reaches(make_url(database_url).set(drivername=scheme), known) == "the URL given"
        engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
        assert self.reaches(engine, known) == "the URL given"
        engine.dispose()

    def test_a_name_of_ones_own_is_kept(self, database_url):
        with Database(f"{database_url}?application_name=mine") as db:
            assert db.query(sql.SQL("SELECT current_setting('application_name')")) == [("mine",)]

    def test_a_password_of_any_characters(self, clone, database_url, known):
        from sqlalchemy import make_url

        odd = "p@ss:w/r%d? #&=+'\"\\ ü"
        clone.execute("DROP ROLE IF EXISTS pgtiles_odd")
        clone.execute(sql.SQL("CREATE ROLE pgtiles_odd LOGIN PASSWORD {}").format(odd))
        clone.commit()
        mine = known | {"user": "pgtiles_odd", "password": odd}
        try:
            for url in (
                f"postgresql://pgtiles_odd:{quote(odd, safe='')}@{known['host']}:{known['port']}/{known['dbname']}",
                make_conninfo(**mine),
                make_url(database_url).set(username="pgtiles_odd", password=odd),
            ):
                self.reaches(url, mine)
        finally:
            clone.execute("DROP ROLE pgtiles_odd")
            clone.commit()

    def test_pgtiles_url(self, database_url, known, monkeypatch):
        monkeypatch.setenv("PGTILES_URL", database_url)
        monkeypatch.setenv("PGDATABASE", "another")
        assert self.reaches(None, known) == "PGTILES_URL"
        monkeypatch.setenv("PGTILES_URL", "postgresql://nobody@127.0.0.1:1/nothing")
        assert self.reaches(database_url, known) == "the URL given"

    def test_libpqs_own_variables(self, known, monkeypatch):
        for name, value in known.items():
            monkeypatch.setenv(f"PG{'DATABASE' if name == 'dbname' else name.upper()}", str(value))
        assert self.reaches(None, known) == "libpq's PG* variables"
        assert Database().name == f"{known['user']}@{known['host']}:{known['port']}/{known['dbname']}"

    def test_a_service(self, known, monkeypatch, tmp_path):
        (tmp_path / "services").write_text("[tiles]\n" + "".join(f"{name}={value}\n" for name, value in known.items()))
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        assert self.reaches("service=tiles", known) == "the URL given"
        monkeypatch.setenv("PGSERVICE", "tiles")
        assert self.reaches(None, known) == "libpq's PG* variables"

    def test_nothing_named_says_what_to_do(self):
        with pytest.raises(DatabaseError, match=r"(?s)no database is named.*PGTILES_URL or PGHOST.*`pgtiles up`"):
            Database()

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://me:s3cret@host/db",
            "postgresql://me:s3cret@[::1/db",
            "postgresql://me:100%s3cret@host/db",
            "host=localhost password=my s3cret",
            "host=localhost pasword=s3cret",
            "postgresql://me:s3cret@host/db?no_such_option=1",
        ],
    )
    def test_what_is_no_url_is_refused_and_never_repeated(self, url):
        with pytest.raises(ConfigError, match="expected postgresql://user@host:port/dbname") as caught:
            Database(url)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value))

    def test_a_password_may_look_like_a_url(self):
        assert Database("host=127.0.0.1 user=me password=s3cret://x dbname=db").name == "me@127.0.0.1/db"

    def test_another_kind_of_database(self):
        from sqlalchemy import make_url

        with pytest.raises(ConfigError, match="expected a PostgreSQL URL") as caught:
            Database(make_url("mysql://me:s3cret@host/db"))
        assert "s3cret" not in str(caught.value)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestUnreachable:
    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"password": "s3cret-and-wrong"}, "password.*\ncheck the user and the password"),
            ({"user": "no_such_user", "password": "s3cret-and-wrong"}, "no_such_user.*\ncheck the (user|database)"),
            ({"dbname": "no_such_database"}, r'"no_such_database" does not exist.*\ncheck the database'),
            ({"port": free_port(), "password": "s3cret-and-wrong"}, "\nis the server up, and does it listen there"),
            ({"host": "/no/such/folder", "password": "s3cret-and-wrong"}, "\nis the server up"),
        ],
        ids=["password", "user", "database", "port", "socket"],
    )
    def test_one_error_that_says_where_and_never_the_password(self, world, tiles, wrong, says):
        if list(wrong) == ["password"] and not conninfo_to_dict(world.url).get("password"):
            pytest.skip("this server asks for no password")
        known = {"password": "never told"} | conninfo_to_dict(world.url) | wrong
        begun = time.monotonic()
        with pytest.raises(DatabaseError, match=f"(?s){says}") as caught:
            TileDataset(make_conninfo(**known), tiles, LAYERS)
        assert time.monotonic() - begun < 20
        assert str(caught.value).startswith(f"{known['user']}@{known['host']}:{known['port']}/{known['dbname']}: ")
        assert isinstance(caught.value, ConnectionError)
        assert isinstance(caught.value, PgtilesError)
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert known["password"] not in told

    def test_without_postgis(self, server_url, tiles):
        known = conninfo_to_dict(server_url) | {"dbname": "template1"}
        with (
            Database(make_conninfo(**known)) as db,
            pytest.raises(MissingError, match=r"(?s)no extension postgis,.*CREATE EXTENSION"),
        ):
            TileDataset(db, tiles, LAYERS)
