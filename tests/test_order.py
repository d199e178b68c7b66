"""Promise 2, exact order: which tile comes when is a pure function, the same for any number of workers."""

import os
import subprocess
import sys
from itertools import chain, zip_longest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgtiles.streaming.order import LAST, count_units, epoch_order, left_over, share, units

sizes = st.integers(0, 300)
seeds = st.integers(0, 2**32)
epochs = st.integers(0, 10_000)
unit_sizes = st.integers(1, 40)


def taken_in_turn(shares):
    """What a DataLoader hands out: one unit of each worker, again and again, those that are done left out."""
    return [unit for turn in zip_longest(*shares) for unit in turn if unit is not None]


@given(sizes, seeds, epochs)
def test_an_epoch_is_a_permutation(n, seed, epoch):
    order = epoch_order(n, seed=seed, epoch=epoch, shuffle=True)
    assert sorted(order.tolist()) == list(range(n))


@given(sizes, seeds, epochs, st.booleans())
def test_the_same_arguments_give_the_same_order_whatever_ran_between(n, seed, epoch, shuffle):
    np.random.seed(1)
    first = epoch_order(n, seed=seed, epoch=epoch, shuffle=shuffle)
    epoch_order(n + 1, seed=seed, epoch=epoch + 1, shuffle=True)
    np.random.seed(2)
    np.testing.assert_array_equal(first, epoch_order(n, seed=seed, epoch=epoch, shuffle=shuffle))


def test_another_process_gives_the_same_order():
    """Also with another hash seed: nothing of the interpreter's own goes into it."""
    code = "from pgtiles.streaming.order import epoch_order as e; print(e(50, seed=7, epoch=3, shuffle=True).tolist())"
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout.decode()
        assert said == f"{epoch_order(50, seed=7, epoch=3, shuffle=True).tolist()}\n"


@given(st.integers(20, 300), seeds, epochs)
def test_epochs_and_seeds_differ(n, seed, epoch):
    """By chance, two orders of 20 tiles are equal once in 20! draws; seed and epoch can't stand in for each other."""
    places = [(seed, epoch), (seed, epoch + 1), (seed + 1, epoch)]
    orders = {tuple(epoch_order(n, seed=s, epoch=e, shuffle=True).tolist()) for s, e in places}
    assert len(orders) == 3


def test_every_tile_comes_everywhere():
    """Over 4,000 epochs, each of 10 tiles is at each place about 400 times: chi-square with 81 degrees of freedom, 99.9 %."""
    seen = np.zeros((10, 10))
    for epoch in range(4000):
        seen[np.arange(10), epoch_order(10, seed=1, epoch=epoch, shuffle=True)] += 1
    assert ((seen - 400) ** 2 / 400).sum() < 126.1


@given(sizes, seeds, epochs)
def test_unshuffled_is_the_tiles_own_order(n, seed, epoch):
    assert epoch_order(n, seed=seed, epoch=epoch, shuffle=False).tolist() == list(range(n))


@given(st.lists(st.integers(0, 999), max_size=200), unit_sizes, st.booleans())
def test_units_cut_and_lose_nothing(order, unit, drop):
    last = "drop" if drop else "even"
    cut = units(np.array(order, "int64"), unit=unit, last=last)
    assert len(cut) == count_units(len(order), unit=unit, last=last)
    whole = len(order) - len(order) % unit
    assert list(chain.from_iterable(u.tolist() for u in cut)) == (order[:whole] if drop else order)
    assert all(len(u) == unit for u in cut[:-1])
    assert all(1 <= len(u) <= unit for u in cut)
    assert not drop or all(len(u) == unit for u in cut)


@pytest.mark.parametrize(
    ("n", "unit", "last", "count"),
    [(0, 4, "even", 0), (0, 4, "drop", 0), (3, 4, "even", 1), (3, 4, "drop", 0), (4, 4, "pad", 1), (4, 4, "drop", 1),
     (9, 4, "uneven", 3), (9, 4, "pad", 3), (9, 4, "drop", 2), (9, 1, "even", 9), (9, 1, "drop", 9)],
)  # fmt: skip
def test_count(n, unit, last, count):
    assert count_units(n, unit=unit, last=last) == count


@given(sizes, unit_sizes, seeds, st.sampled_from(LAST), st.integers(1, 5))
def test_workers_in_turn_give_one_sequence(n, unit, seed, last, workers):
    every = units(epoch_order(n, seed=seed, epoch=0, shuffle=True), unit=unit, last=last)
    shares = [share(every, worker=w, workers=workers) for w in range(workers)]
    got = taken_in_turn(shares)
    assert [u.tolist() for u in got] == [u.tolist() for u in every]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def global_batches(order, batch, world, last):
    """What all ranks take at each step, rank after rank."""
    ranks = [units(order, unit=batch // world, last=last, rank=rank, world_size=world) for rank in range(world)]
    for rank, mine in enumerate(ranks):
        assert len(mine) == count_units(len(order), unit=batch // world, last=last, rank=rank, world_size=world)
    return [np.concatenate(step).tolist() for step in zip_longest(*ranks, fillvalue=np.zeros(0, int))]


@given(sizes, seeds, st.sampled_from(LAST))
def test_global_batches_are_the_same_for_any_number_of_ranks(n, seed, last):
    order = epoch_order(n, seed=seed, epoch=0, shuffle=True)
    alone = global_batches(order, 24, 1, last)
    for world in (2, 3, 4, 6, 24):
        assert global_batches(order, 24, world, last) == alone


@given(sizes, st.integers(1, 9), st.integers(1, 6))
def test_what_becomes_of_the_last_tiles(n, unit, world):
    order, left = np.arange(n) + 7, left_over(n, unit=unit, world_size=world)
    assert left == n % (unit * world)
    found = {last: global_batches(order, unit * world, world, last) for last in LAST}
    flat = {last: [k for batch in batches for k in batch] for last, batches in found.items()}
    assert flat["even"] == flat["uneven"] == order.tolist()
    assert flat["drop"] == order.tolist()[: n - left]
    assert flat["pad"][:n] == order.tolist()
    assert len(flat["pad"]) % (unit * world) == 0
    assert flat["pad"][n:] == (order.tolist() * (unit * world + 1))[: len(flat["pad"]) - n]  # from the beginning again
    counts = {last: [count_units(n, unit=unit, last=last, rank=r, world_size=world) for r in range(world)] for last in LAST}
    assert len(set(counts["drop"])) == len(set(counts["pad"])) == 1
    assert (len(set(counts["even"])) == 1) == (left == 0 or left >= world)  # else a dataset refuses it


@given(sizes, unit_sizes, st.integers(0, 20), st.integers(1, 4), st.integers(1, 4))
def test_what_is_consumed_is_cut_off_whoever_did(n, unit, consumed, workers, world):
    """A stream taken up again by another number of workers goes on where it was."""
    order = epoch_order(n, seed=1, epoch=2, shuffle=True)
    for rank in range(world):
        every = units(order, unit=unit, last="drop", rank=rank, world_size=world)
        rest = [share(every[consumed:], worker=w, workers=workers) for w in range(workers)]
        assert [u.tolist() for u in taken_in_turn(rest)] == [u.tolist() for u in every[consumed:]]
