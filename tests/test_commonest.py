"""The commonest of many pixels: Python's Counter says which. In a tile and against GDAL: test_resolution.py."""

from collections import Counter

import numpy as np
import pytest

from pgtiles.layers.commonest import CHUNK, NEAR, commonest


def oracle(pixels, valid):
    """The commonest value, the least of equals, and whether there is one."""
    counts = Counter(pixels[valid].tolist())
    return (min(counts, key=lambda value: (-counts[value], value)), True) if counts else (0, False)


@pytest.mark.parametrize("side", [1, 2, 3, 7])
@pytest.mark.parametrize("holes", [0, 0.3, 0.95, 1])
@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("bool", [0, 1]),
        ("uint8", range(256)),
        ("int8", [-128, -1, 0, 127]),
        ("uint16", [0, 1, NEAR - 1]),
        ("uint16", [0, 1, NEAR, 65535]),
        ("int32", [-(2**31), 0, 5, 2**31 - 1]),
        ("uint32", [0, 2**31, 2**32 - 1]),
        ("float32", [-0.5, 0.25, 1e30]),
        ("float64", [0.1, 0.2, -7]),
    ],
)
def test_it_is_what_counting_gives(side, holes, dtype, values):
    rng = np.random.default_rng(side)
    pixels = rng.choice(np.array(values, dtype), (6 * side, 9 * side))
    valid = rng.random(pixels.shape) >= holes
    found, there = commonest(pixels, valid, side)
    assert found.dtype == dtype
    for row in range(6):
        for column in range(9):
            at = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
            value, known = oracle(pixels[at], valid[at])
            assert there[row, column] == known
            assert not known or found[row, column] == value


@pytest.mark.parametrize("side", [5, CHUNK - 1, CHUNK + 1])
def test_rows_longer_than_what_is_counted_at_a_time(side):
    blocks = np.random.default_rng(0).integers(0, 200, (2, 2 * CHUNK // side + 3)).astype("u1")
    pixels = np.kron(blocks, np.ones((side, side), "u1"))
    pixels[::7, ::7] = 255  # few enough
    found, there = commonest(pixels, pixels != 201, side)
    np.testing.assert_array_equal(found, blocks)
    assert there.all()
