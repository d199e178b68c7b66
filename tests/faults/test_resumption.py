"""Faults 26, 27 and 32: a training that goes on elsewhere reads what it would have read, batch by batch."""

import json
import multiprocessing
import pickle
import random

import pytest
from streams import digest, globally
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # more workers than this machine has cores
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata calls what torch wants no more
]

FEW = 26  # tiles: seven batches, the last one of two


@pytest.fixture(scope="module")
def whole(made):
    """Three epochs of few tiles, never interrupted."""
    from streams import dataset

    unbroken = dataset(made.url(), count=FEW, connections=1)
    epochs = [digest(unbroken) for _ in range(3)]
    unbroken.close()
    assert [len(epoch) for epoch in epochs] == [7, 7, 7]
    return epochs


def options(workers, persistent, prefetch):
    return {"num_workers": workers} | ({"persistent_workers": persistent, "prefetch_factor": prefetch} if workers else {})


HOW = [(0, False, 2), (1, False, 2), (1, True, 8), (3, False, 8), (3, True, 2)]
HOW += [(2, persistent, prefetch) for persistent in (False, True) for prefetch in (2, 8)]


def resumed(dataset, loader, epochs):
    """What the loop of a training that goes on reads, by epoch."""
    return {epoch: digest(loader) for epoch in range(dataset.epoch, epochs)}


@pytest.mark.limit(180)
@pytest.mark.parametrize(("workers", "persistent", "prefetch"), HOW)
def test_26_resume_at_every_batch(make, whole, row, workers, persistent, prefetch):
    """resume at every batch"""
    how = options(workers, persistent, prefetch)
    dataset = make(count=FEW)
    loader = dataset.loader(**how)
    states, got = [json.loads(json.dumps(dataset.state_dict()))], []
    for batch in loader:
        got += digest([batch])
        states.append(json.loads(json.dumps(dataset.state_dict())))
    states.append(dataset.state_dict())  # and when the epoch has ended
    assert got == whole[0]
    for number, state in enumerate(states):
        again = make(count=FEW)
        fresh = again.loader(**how)
        again.load_state_dict(state)
        read = resumed(again, fresh, 2)
        before = min(number, 7)
        assert got[:before] + read.get(0, []) == whole[0], f"after {before} batches"
        assert read[1] == whole[1], f"the epoch after, resumed after {before} batches"
        again.close()
    row.tell("identical")


@pytest.mark.parametrize("workers", [0, 2])
def test_26_resume_in_the_second_epoch(make, whole, row, workers):
    """the same in the second epoch, with workers that live on, and from the state of the loader"""
    dataset = make(count=FEW)
    loader = dataset.loader(num_workers=workers)
    assert digest(loader) == whole[0]
    stream = iter(loader)
    got = digest([next(stream) for _ in range(3)])
    state = pickle.loads(pickle.dumps(loader.state_dict()))
    del stream
    again = make(count=FEW)
    fresh = again.loader(num_workers=workers)
    fresh.load_state_dict(state)
    read = resumed(again, fresh, 3)
    assert sorted(read) == [1, 2]
    assert got + read[1] == whole[1]
    assert read[2] == whole[2]
    row.tell("identical")


@pytest.mark.parametrize("workers", [0, 2])
def test_26_stateful_dataloader(make, whole, row, workers):
    """resume at every batch under torchdata's StatefulDataLoader"""

    def loader(dataset):
        return StatefulDataLoader(dataset, batch_size=None, num_workers=workers)

    dataset = loader(make(count=FEW))
    states, got = [dataset.state_dict()], []
    for batch in dataset:
        got += digest([batch])
        states.append(dataset.state_dict())
    assert got == whole[0]
    for number, state in enumerate(states):
        again = loader(make(count=FEW))
        again.load_state_dict(pickle.loads(pickle.dumps(state)))
        rest = digest(again)
        assert got[:number] + rest == whole[0], f"after {number} batches"
        assert digest(again) == whole[1], f"the epoch after, resumed after {number} batches"
    row.tell("identical")


GLOBAL, MANY = 12, 12 * 3 + 7  # tiles of a global batch; three of them and a last one that is not full


def ranks(make, world, workers, state=None, epochs=1, stop=None):
    """What each rank reads, one rank after the other in this process; and the state of each where it stopped."""
    found, states = [], []
    for rank in range(world):
        dataset = make(count=MANY, batch_size=GLOBAL // world, rank=rank, world_size=world)
        if state:
            dataset.load_state_dict(state)
        loader = dataset.loader(num_workers=workers, persistent_workers=False)
        if stop is None:
            read = [tiles for epoch in resumed(dataset, loader, epochs).values() for tiles in epoch]
        else:
            stream = iter(loader)
            read = digest([next(stream) for _ in range(stop)])
            states.append(dataset.state_dict())
            del stream
        found.append(read)
        dataset.close()
    return globally(found), states


@pytest.mark.limit(600)
def test_27_elastic(make, row):
    """workers 0–3 and world sizes 1–4, changed at the checkpoint: the same global batches"""
    want, _ = ranks(make, 1, 0)
    assert [len(batch) for batch in want] == [12, 12, 12, 7]
    rng, told = random.Random(27), {}
    for world in (1, 2, 3, 4):
        for workers in (0, 1, 2, 3):
            stop = rng.randrange(1, 4)
            got, states = ranks(make, world, workers, stop=stop)
            assert got == want[:stop], (world, workers)
            # each rank's state is the same, and the same as that of any other number of ranks and workers: any may go on
            for state in states:
                assert told.setdefault(stop, state) == state, (world, workers)
    assert len(told) == 3
    for number, (world, workers) in enumerate((world, workers) for world in (1, 2, 3, 4) for workers in (0, 1, 2, 3)):
        stop, state = sorted(told.items())[number % len(told)]
        got, _ = ranks(make, world, workers, state=state)
        assert got == want[stop:], (world, workers, stop)
    row.tell("identical")


def test_32_fork_after_use(make, want, row):
    """fork after the parent used the dataset"""
    dataset = make()
    assert digest(dataset) == want[0]
    dataset.set_epoch(0)
    got = digest(dataset.loader(num_workers=2, multiprocessing_context="fork", persistent_workers=False))
    row.identical(got, want[0], dataset)
    assert digest(dataset) == want[1]


@pytest.mark.limit(120)
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_32_other_ways_to_start_workers(make, want, row, method):
    """workers started otherwise"""
    multiprocessing.set_forkserver_preload(["torch", "pgtiles.dataset"])  # else each of its children takes seconds to begin
    dataset = make()
    got = digest(dataset.loader(num_workers=2, multiprocessing_context=method, persistent_workers=False))
    row.identical(got, want[0], dataset)


def test_32_pickled_and_forked(make, want, row, monkeypatch):
    """a dataset that was pickled, under a DataLoader of torch's own: its workers agree on the epoch"""
    dataset = make()
    monkeypatch.setenv("PGTILES_URL", dataset.db.conninfo)  # a pickle holds no password
    dataset = pickle.loads(pickle.dumps(dataset))
    loader = DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context="fork")
    row.identical(digest(loader), want[0])
    assert digest(loader) == want[1]


def test_32_the_pickle_is_small(make, row):
    """the pickle of a dataset is under 10 kB"""
    size = len(pickle.dumps(make(count=100)))
    row.tell(f"{size / 1000:.1f} kB for 100 tiles")
    assert size < 10_000
