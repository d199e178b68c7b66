"""Sums over tiles: NumPy says what is right, and how they are dealt and merged must not matter."""

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pgtiles.errors import DataError
from pgtiles.inspection.bins import ERROR
from pgtiles.inspection.clusters import Ratio, student
from pgtiles.inspection.moments import BINS, BandTally, ClassTally

SHARES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LIMITS = {"uint8": (0, 255), "uint16": (0, 65535), "int16": (-32768, 32767)}

finite = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf])
tiles_of_floats = st.lists(arrays("float32", st.integers(0, 30), elements=finite), min_size=1, max_size=8)
tiles_of_bytes = st.lists(arrays("uint8", st.integers(0, 30)), min_size=1, max_size=8)
tiles_of_classes = st.lists(arrays("int64", st.integers(1, 30), elements=st.integers(-3, 70_000)), min_size=1, max_size=8)


def tallied(tiles, limits=None):
    tally = BandTally(limits)
    for tile in tiles:
        tally.add(np.asarray(tile, "float32" if np.asarray(tile).dtype.itemsize <= 4 else "float64"))
    return tally


def classified(tiles, ignored=None, pixel=0.1):
    tally = ClassTally(ignored)
    for tile in tiles:
        tally.add(tile, pixel)
    return tally


def said(tally, of=100):
    """All that follows from a tally, to the last bit."""
    ratio = tally.sum.value, *tally.sum.interval(of)
    return repr((
        tally.count, tally.absent, tally.infinite, tally.least, tally.most, ratio, tally.std, tally.quantiles(SHARES),
        tally.histogram(),
    ))  # fmt: skip


def said_of_classes(tally):
    each = [
        (value, vars(one), tally.share(value).value, tally.share(value).interval(99)) for value, one in tally.classes.items()
    ]
    return repr((tally.pixels, tally.ignored, sorted(each, key=lambda one: one[0])))


def dealt(tiles, make, seed):
    """The tiles in another order, dealt to several tallies, which are merged in another order again."""
    rng = random.Random(seed)
    shuffled = rng.sample(tiles, len(tiles))
    hands = [[] for _ in range(rng.randint(1, 5))]
    for tile in shuffled:
        rng.choice(hands).append(tile)
    total, *others = [make(hand) for hand in hands]
    for other in others:
        total.merge(other)
    return total


class TestMerging:
    @given(tiles_of_floats, st.integers(0, 10**6))
    @settings(deadline=None, max_examples=40)
    def test_floats_in_any_order_and_partition(self, tiles, seed):
        assert said(dealt(tiles, tallied, seed)) == said(tallied(tiles))

    @given(tiles_of_bytes, st.integers(0, 10**6))
    @settings(deadline=None)
    def test_whole_numbers_in_any_order_and_partition(self, tiles, seed):
        def make(some):
            return tallied(some, (0, 255))

        assert said(dealt(tiles, make, seed)) == said(make(tiles))

    @given(tiles_of_classes, st.integers(0, 10**6))
    @settings(deadline=None)
    def test_classes_in_any_order_and_partition(self, tiles, seed):
        def make(some):
            return classified(some, ignored=2)

        assert said_of_classes(dealt(tiles, make, seed)) == said_of_classes(make(tiles))


class TestWholeNumbers:
    @pytest.mark.parametrize("dtype", LIMITS)
    def test_equal_numpys_exactly(self, dtype):
        low, high = LIMITS[dtype]
        rng = np.random.default_rng(1)
        pixels = np.clip(rng.normal(high / 3, high / 9, (7, 5000)), low, high).astype(dtype)
        tally = tallied(pixels, LIMITS[dtype])
        flat = pixels.ravel()
        total, squares = sum(flat.tolist()), sum(value * value for value in flat.tolist())
        assert tally.sum.value == total / flat.size
        assert tally.std == math.sqrt(Fraction(squares, flat.size) - Fraction(total, flat.size) ** 2)
        assert tally.std == pytest.approx(flat.std(), rel=1e-12)
        assert (tally.count, tally.least, tally.most) == (flat.size, flat.min(), flat.max())
        assert tally.quantiles(SHARES) == tuple(np.quantile(flat, SHARES, method="inverted_cdf"))
        counts, edges = tally.histogram()
        assert len(counts) <= BINS
        wanted, _ = np.histogram(flat, [*edges[:-1], edges[-1] - 0.5])  # NumPy's last bin has its upper edge, too
        assert counts == wanted.tolist()
        assert sum(counts) == flat.size

    def test_one_value(self):
        tally = tallied([np.full(9, 7, "uint8")], (0, 255))
        assert tally.histogram() == ([9], [7.0, 8.0])
        assert tally.std == 0

    @pytest.mark.parametrize("value", [300, -1, 1.5])
    def test_what_the_type_does_not_hold_is_refused(self, value):
        with pytest.raises(DataError, match=rf"pixel value {value}: expected whole numbers from 0 to 255"):
            tallied([np.array([1, value, 2], "float32")], (0, 255))


class TestFloats:
    @given(tiles_of_floats)
    @settings(deadline=None, max_examples=40)
    def test_quantiles_are_within_the_stated_error(self, tiles):
        flat = np.concatenate(tiles).astype("float64")
        flat = flat[np.isfinite(flat)]
        tally = tallied(tiles)
        assert tally.count == flat.size
        if flat.size:
            wanted = np.quantile(flat, SHARES, method="inverted_cdf")
            assert (np.abs(np.array(tally.quantiles(SHARES)) - wanted) <= ERROR * np.abs(wanted) + 1.2e-38).all()
        else:
            assert np.isnan(tally.quantiles(SHARES)).all()

    def test_the_error_is_not_much_less(self):
        """So that the stated bound is one that somebody can count on, not one that hides a coarser or a finer count."""
        values = np.random.default_rng(2).lognormal(0, 2, 20_000).astype("float32")
        wanted = np.sort(values)[199:-1:200].astype("float64")  # each hundredth; NumPy's own ranks suffer from 0.29 * 20,000
        off = np.abs(np.array(tallied([values]).quantiles(tuple(n / 100 for n in range(1, 100)))) / wanted - 1)
        assert ERROR / 2 < off.max() <= ERROR == 2**-11

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_moments_equal_numpys(self, dtype):
        tiles = np.random.default_rng(3).normal(280, 5, (9, 4000)).astype(dtype)
        tally = tallied(tiles)
        flat = tiles.astype("float64").ravel()
        assert tally.sum.value == pytest.approx(flat.mean(), rel=1e-14)
        assert tally.std == pytest.approx(flat.std(), rel=1e-12)

    def test_a_small_spread_far_from_zero_is_kept(self):
        tiles = np.random.default_rng(4).normal(1e8, 1e-2, (9, 4000))
        tally = tallied(tiles)
        assert tally.std == pytest.approx((tiles - 1e8).std(), rel=1e-6)

    def test_one_value_has_no_spread(self):
        """0.2 is no float64, nor is the mean of many of them."""
        tally = tallied([np.full(1000, 0.2), np.full(333, 0.2)])
        assert (tally.std, tally.least, tally.most) == (0, 0.2, 0.2)

    @pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1e101])
    def test_what_can_not_be_squared_is_refused(self, value):
        with pytest.raises(DataError, match=r"pixel value .*: expected numbers up to 1e\+100. If it is nodata"):
            tallied([np.array([1.0, value])])
        assert tallied([np.full(4, 1e100), np.full(4, -1e100)]).std == pytest.approx(1e100)

    def test_infinite_and_absent_are_counted_apart(self):
        tally = tallied([np.array([1, np.nan, np.inf, 3], "float32"), np.full(4, np.nan, "float32")])
        assert (tally.count, tally.absent, tally.infinite) == (2, 5, 1)
        assert (tally.sum.value, tally.std, tally.least, tally.most) == (2, 1, 1, 3)

    def test_nothing_at_all(self):
        tally = tallied([np.full(4, np.nan, "float32")])
        assert math.isnan(tally.sum.value)
        assert math.isnan(tally.std)
        assert tally.histogram() == ([], [])

    @pytest.mark.parametrize(("low", "high"), [(2000, 2047), (-2047, -2000), (280, 281), (-3, 7), (1e60, 2e60)])
    def test_evenly_spread_values_make_an_even_histogram(self, low, high):
        """Also where 256 bins are finer than the buckets, as on heights from 2000 to 2047 m."""
        values = np.random.default_rng(7).uniform(low, high, 256_000)
        counts, edges = tallied(values.reshape(16, -1)).histogram()
        wanted, _ = np.histogram(values, edges)
        assert (len(counts), sum(counts)) == (BINS, 256_000)
        if high < 1e38:  # beyond float32 there is one bucket
            assert np.abs(np.array(counts) - wanted).max() < 250  # of 1000, whose own deviation is 32
        assert min(counts) > 700

    def test_a_histogram_of_wide_bins_is_numpys(self):
        """A bucket that lies in one bin is spread over no other one."""
        values = np.random.default_rng(8).normal(0, 100, 50_000)
        counts, edges = tallied(values.reshape(10, -1)).histogram()
        wanted, _ = np.histogram(values, edges)
        assert np.abs(np.array(counts) - wanted).max() <= 20
        assert tallied([np.repeat([0.0, 1.0, 4.0], [5, 6, 7])]).histogram()[0] == [5, *[0] * 63, 6, *[0] * 190, 7]

    def test_a_band_keeps_little(self):
        """Reflectances, of which there may be hundreds of bands: all buckets of floats would be 4 MiB each."""
        tally = tallied([np.random.default_rng(9).uniform(1e-4, 1, 4096), np.zeros(64)])
        assert sum(counts.nbytes for counts in tally.bins.pages.values()) < 2**17

    @given(tiles_of_floats)
    @settings(deadline=None, max_examples=40)
    def test_each_is_in_the_histogram_once(self, tiles):
        tally = tallied(tiles)
        counts, edges = tally.histogram()
        assert sum(counts) == tally.count
        assert tally.count == 0 or (edges[0] == tally.least and edges[-1] >= tally.most and len(edges) == len(counts) + 1)


class TestClasses:
    @given(tiles_of_classes)
    @settings(deadline=None)
    def test_counts_are_numpys(self, tiles):
        tally = classified(tiles, ignored=2, pixel=0.25)
        flat = np.concatenate(tiles)
        values, counts = np.unique(flat[flat != 2], return_counts=True)
        assert {value: one.pixels for value, one in tally.classes.items()} == dict(
            zip(values.tolist(), counts.tolist(), strict=True)
        )
        assert tally.ignored == (flat == 2).sum()
        for value, one in tally.classes.items():
            there = [tile for tile in tiles if (tile == value).any()]
            assert one.tiles == len(there)
            assert one.beside == sum((tile != 2).sum() for tile in there)
            assert one.ground == Fraction(one.pixels, 4)
            assert tally.share(value).value == one.pixels / (flat != 2).sum()


class TestIntervals:
    @pytest.mark.parametrize(  # of printed tables of Student's distribution, two-sided 95 %
        ("freedom", "wanted"),
        [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (10**6, 1.960)],
    )
    def test_students_distribution(self, freedom, wanted):
        assert student(0.95, freedom) == pytest.approx(wanted, rel=2e-3)

    def test_equal_tiles_are_a_simple_random_sample(self):
        """Of tiles of equal size the ratio is a mean of means, and its margin the textbook's, finite population and all."""
        means = np.random.default_rng(5).normal(100, 10, 12)
        ratio = Ratio()
        for mean in means:
            ratio.add(50 * Fraction(float(mean)), 50)
        margin = 2.201 * means.std(ddof=1) / math.sqrt(12) * math.sqrt(1 - 12 / 40)  # 11 degrees of freedom
        assert ratio.interval(40) == pytest.approx((means.mean() - margin, means.mean() + margin), rel=1e-3)

    def test_all_tiles_leave_no_doubt(self):
        ratio = Ratio()
        for n in range(5):
            ratio.add(n, 2)
        assert ratio.interval(5) == (1.0, 1.0)

    def test_one_tile_says_nothing(self):
        ratio = Ratio()
        ratio.add(3, 2)
        assert np.isnan(ratio.interval(5)).all()

    def test_it_covers_the_mean_as_often_as_it_says(self):
        """Tiles that differ more from one another than their pixels do, and in how many have data: pixels would cover far less."""
        rng = np.random.default_rng(6)
        pixels = rng.integers(20, 400, 400)
        sums = pixels * rng.normal(100, 15, 400) + rng.normal(0, 15, 400) * np.sqrt(pixels)
        true = sums.sum() / pixels.sum()
        covered = 0
        for _ in range(1000):
            ratio = Ratio()
            for tile in rng.permutation(400)[:40]:
                ratio.add(Fraction(int(sums[tile])), int(pixels[tile]))
            low, high = ratio.interval(400)
            covered += low <= true <= high
        assert 0.92 <= covered / 1000 <= 0.975
