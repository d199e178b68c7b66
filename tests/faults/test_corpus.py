"""Fault 34: bytes that are no raster. `test_wkb.py` has the laws of the codec, its corpus and its oracle; here the read path."""

import random
import time

import numpy as np
import pytest
import streams

from pgtiles.errors import PgtilesError, WKBError
from pgtiles.layers.wkb import decode
from pgtiles.streaming.reading import ROW, _Canvas


@pytest.fixture(scope="module")
def rows(made):
    """Rows as the server sends them, of some tiles, and what they show."""
    dataset = streams.dataset(made.url())
    tiles = dataset.tiles[:6]
    canvas, sent = _Canvas(dataset.plan, tiles, np.zeros), []
    for one in dataset.db.copy(dataset.plan.statement(tiles)):
        sent.append(bytes(one))
        canvas.paste(one)
    dataset.close()
    return dataset.plan, tiles, sent


def broken(data, rng):
    """Bytes flipped, cut off, put in, or all of that."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        deed, at = rng.randrange(4), rng.randrange(max(1, min(len(data), rng.choice([70, len(data) or 1]))))
        if deed == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif deed == 1:
            del data[at:]
        elif deed == 2:
            data[at:at] = rng.randbytes(rng.randint(1, 9))
        elif data:
            data[at % len(data)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
    return bytes(data)


def test_34_fragments(rows, row):
    """20,000 broken fragments: an array that the bytes hold, or WKBError"""
    fragments, rng, refused = [one[ROW.size :] for one in rows[2]], random.Random(34), 0
    for _ in range(20_000):
        data, begun = broken(rng.choice(fragments), rng), time.thread_time()
        try:
            raster = decode(data)
            assert raster.pixels.shape == (raster.bands, raster.height, raster.width)
            assert raster.pixels.nbytes <= 8 * len(data)
        except WKBError:
            refused += 1
        assert time.thread_time() - begun < 1
    assert 5_000 < refused < 20_000
    row.tell(f"{refused} WKBError, {20_000 - refused} arrays")


def test_34_rows(rows, row):
    """5,000 broken rows on the read path: pasted inside the tile, or an error of ours"""
    plan, tiles, sent = rows
    rng, refused = random.Random(35), 0
    for _ in range(5_000):
        canvas = _Canvas(plan, tiles[:1], np.zeros)
        try:
            canvas.paste(broken(rng.choice(sent), rng))
        except PgtilesError:
            refused += 1
    row.tell(f"{refused} errors of ours, the others pasted")
    assert refused > 1_000
