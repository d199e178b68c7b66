"""Blending: exact arithmetic in fractions, and a whole picture held in memory, say what is right."""

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest

from pgtiles import Grid
from pgtiles.errors import ConfigError
from pgtiles.prediction.blending import BLENDS, Strip, depth, window
from pgtiles.prediction.strips import BLOCK, HELD, Area

SMOOTH = ("cosine", "linear")


def places(length, size, stride):
    """Where tiles begin along one side, the last one moved back inside."""
    return [*range(0, length - size, stride), length - size]


def whole(strip, end):
    """All that a strip gives, one row of blocks below the other."""
    rows = list(strip.finished(end))
    assert [row for row, *_ in rows] == list(range(rows[0][0], rows[0][0] + len(rows)))
    return np.concatenate([pixels for _, pixels, _ in rows], 1), np.concatenate([covered for *_, covered in rows])


def blended(tiles, shape, size, blend, bands=1, block=16):
    """Tiles (row, col, values) as one picture."""
    end = -(-shape[0] // block) * block
    strip = Strip(bands, size, shape[1], block, 0, blend)
    pixels, covered = [], []
    for row, col, values, *valid in sorted(tiles, key=lambda tile: tile[:2]):
        for _, p, c in strip.finished(row):
            pixels.append(p)
            covered.append(c)
        strip.add(row, col, values, *valid)
    p, c = whole(strip, end)
    pixels, covered = np.concatenate([*pixels, p], 1), np.concatenate([*covered, c])
    return pixels[:, : shape[0]], covered[: shape[0]]


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size, stride", [(20, 12), (20, 20), (20, 15), (33, 7), (16, 9), (5, 1)])
def test_shares_sum_to_one_in_overlaps_and_at_edges(blend, size, stride):
    """Each pixel's shares, as exact fractions of what its tiles weigh; and the strip sums as the fractions do."""
    length = 70
    starts = places(length, size, stride)
    weights = window((size, 1), blend)[:, 0]
    assert (weights >= 1).all()
    assert (weights == np.rint(weights)).all()
    assert (weights == weights[::-1]).all()
    assert weights.argmax() in (size // 2, (size - 1) // 2)
    ones = [(row, col, np.ones((1, size, size), "float32")) for row in starts for col in starts]
    pixels, covered = blended(ones, (length, length), (size, size), blend)
    assert covered.all()
    assert (pixels == 1).all()
    if blend in SMOOTH:
        for pixel in range(length):
            over = [int(weights[pixel - start]) for start in starts if 0 <= pixel - start < size]
            assert sum(Fraction(w, sum(over)) for w in over) == 1


@pytest.mark.parametrize("blend", BLENDS)
def test_what_tiles_agree_on_comes_out_to_the_last_bit(blend):
    rng = np.random.default_rng(0)
    truth = (rng.normal(size=(2, 90, 80)) * 10.0 ** rng.integers(-30, 30, (2, 90, 80))).astype("float32")
    tiles = [(r, c, truth[:, r : r + 20, c : c + 30]) for r in places(90, 20, 7) for c in places(80, 30, 18)]
    pixels, covered = blended(tiles, (90, 80), (20, 30), blend, bands=2)
    assert covered.all()
    assert (pixels.astype("float32") == truth).all()


def test_smooth_blends_are_the_weighted_mean_of_exact_fractions():
    rng = np.random.default_rng(1)
    tiles = [(r, c, rng.random((1, 12, 12), "float32")) for r in places(30, 12, 5) for c in places(26, 12, 7)]
    for blend in SMOOTH:
        pixels, _ = blended(tiles, (30, 26), (12, 12), blend)
        weights = window((12, 12), blend)
        for row, col in [(0, 0), (6, 9), (13, 13), (29, 25), (17, 4)]:
            over = [
                (Fraction(int(weights[row - r, col - c])), Fraction(float(values[0, row - r, col - c])))
                for r, c, values in tiles
                if 0 <= row - r < 12 and 0 <= col - c < 12
            ]
            mean = sum(w * v for w, v in over) / sum(w for w, _ in over)
            assert pixels[0, row, col] == pytest.approx(float(mean), rel=1e-15)


@pytest.mark.parametrize("stride", [12, 11])
def test_crop_takes_the_tile_in_which_a_pixel_lies_deepest(stride):
    """Of tiles on a lattice, the one whose middle is nearest, down and across, the first of two; the margin only counts alone."""
    size, length = 20, 56
    starts = places(length, size, stride)
    tiles = [
        (r, c, np.full((1, size, size), i * 10 + j, "float32")) for i, r in enumerate(starts) for j, c in enumerate(starts)
    ]
    pixels, _ = blended(tiles, (length, length), (size, size), "crop")

    def nearest(pixel):
        away = [abs(pixel + 0.5 - start - size / 2) if 0 <= pixel - start < size else np.inf for start in starts]
        return int(np.argmin(away))

    expected = [[nearest(row) * 10 + nearest(col) for col in range(length)] for row in range(length)]
    assert (pixels[0] == expected).all()


@pytest.mark.parametrize("blend", SMOOTH)
def test_there_is_no_seam(blend):
    """Two tiles that disagree wholly: nowhere does the picture jump, and it goes from one to the other without turning back."""
    left, right = np.zeros((1, 8, 64), "float32"), np.ones((1, 8, 64), "float32")
    pixels, _ = blended([(0, 0, left), (0, 40, right)], (8, 104), (8, 64), blend, block=8)
    steps = np.diff(pixels[0, 4])
    assert (steps >= 0).all()
    assert steps.max() < 3 / 24
    assert pixels[0, 4, 0] == 0
    assert pixels[0, 4, -1] == 1


def test_a_pixel_that_is_not_valid_does_not_count():
    ones, valid = np.full((1, 8, 8), np.nan, "float32"), np.zeros((8, 8), bool)
    valid[2:5, 3:] = True
    ones[0, valid] = 5
    for blend in BLENDS:
        pixels, covered = blended(
            [(0, 0, ones, valid), (0, 4, np.full((1, 8, 8), 5, "float32"))], (8, 12), (8, 8), blend, block=8
        )
        assert (covered[:, 4:]).all()
        assert (covered[:, :4] == valid[:, :4]).all()
        assert (pixels[0, covered] == 5).all()
        assert (pixels[0, ~covered] == 0).all()


def test_a_strip_is_held_once_while_its_rows_come_out():
    strip = Strip(3, (512, 512), 1024, 64, 0, "cosine")
    tracemalloc.start()
    try:
        list(strip.finished(64))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < strip.nbytes / 3


def test_tiles_come_from_the_top_down():
    strip = Strip(1, (8, 8), 32, 8, 0, "cosine")
    strip.add(16 - 8, 0, np.ones((1, 8, 8)))
    assert len(list(strip.finished(16))) == 2
    with pytest.raises(ValueError, match="from the top down"):
        strip.add(15, 0, np.ones((1, 8, 8)))


def test_an_unknown_blend_is_refused():
    with pytest.raises(ConfigError, match="blend='mean': expected one of cosine, linear, crop"):
        window((4, 4), "mean")


def area(cols, rows, size=64, **more):
    return Area.of(Grid(srid=3857, resolution=1, size=size, **more), np.array(cols), np.array(rows))


def test_each_block_is_in_one_strip_and_has_all_its_tiles():
    rng = np.random.default_rng(2)
    cols, rows = rng.integers(-3000, 20_000, 400), rng.integers(-900, 1500, 400)
    whole = area(cols, rows, size=300)
    assert whole.corner[0] % BLOCK == whole.corner[1] % BLOCK == 0
    parts = whole.parts(bands=3)
    assert len(parts) > 2
    seen, numbers = set(), []
    for part in parts:
        assert part.tiles.tolist() == sorted(part.tiles.tolist(), key=lambda t: (whole.rows[t], whole.cols[t]))
        numbers += range(part.number, part.number + part.bottom - part.top)
        for row in range(part.top, part.bottom):
            for col in range(part.first, part.end):
                key = whole.block(row, col)
                assert key not in seen
                seen.add(key)
                x, y = col * BLOCK, row * BLOCK
                reach = (whole.cols < x + BLOCK) & (whole.cols + 300 > x) & (whole.rows < y + BLOCK) & (whole.rows + 300 > y)
                assert set(np.flatnonzero(reach)) <= set(part.tiles)
    assert numbers == list(range(len(numbers)))
    for t in range(400):
        for row in range(whole.rows[t] // BLOCK, (whole.rows[t] + 299) // BLOCK + 1):
            for col in range(whole.cols[t] // BLOCK, (whole.cols[t] + 299) // BLOCK + 1):
                assert whole.block(row, col) in seen


@pytest.mark.parametrize("bands", [1, 2, 20, 300])
@pytest.mark.parametrize("size", [32, 256, 1000])
def test_what_is_held_does_not_grow_with_the_area(bands, size):
    held = set()
    for across in (1, 16, 256):
        cols, rows = (axis.ravel() for axis in np.meshgrid(np.arange(0, across * 4000, size), [0, size]))
        whole = area(cols, rows, size=size)
        wide = whole.widest(bands)
        held.add(wide)
        assert max(part.end - part.first for part in whole.parts(bands)) <= wide
        strip = 8 * (bands + 1) * depth(size, BLOCK) * wide * BLOCK
        assert strip <= HELD or wide == -(-4 * size // BLOCK)
    assert len(held) == 1


def test_steps_of_several_pixels():
    whole = Area.of(Grid(srid=3857, resolution=10, size=6, step=60), np.array([0, 1]), np.array([0, 2]))
    assert whole.cols.tolist() == [0, 6]
    assert whole.rows.tolist() == [0, 12]
    with pytest.raises(ConfigError, match=r"steps are 1\.5 pixels wide"):
        Area.of(Grid(srid=3857, resolution=10, size=6, step=15), np.array([0, 1]), np.array([0, 2]))
