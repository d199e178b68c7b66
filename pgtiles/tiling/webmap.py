"""The z/x/y tiles of web maps: which lie in a box of degrees, and their grid in EPSG:3857. No I/O."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .grid import Bounds, Grid, whole

HALF = math.pi * 6378137  # metres from the middle of the map to its edge
DEEPEST = 30
EDGE = 1e-9  # of a tile: what reaches no further into the next one ends at its border


def grid(zoom: int, size: int) -> Grid:
    """The grid of a zoom level, whose tiles begin at each pixel; the map's upper left corner is its origin."""
    whole("zoom", zoom, 0)
    whole("size", size, 1)
    if zoom > DEEPEST:
        raise ConfigError(f"zoom={zoom!r}: expected 0 to {DEEPEST}")
    return Grid(srid=3857, resolution=2 * HALF / (size * 2**zoom), size=size, origin=(-HALF, HALF))


def numbers(zoom: int, within: Bounds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The x and y of the tiles that share any land with a box of degrees, row by row from the north-west.

    A west that is greater than the east is a box across the antimeridian. What lies beyond the map, at the poles, is left out.
    """
    box = west, south, east, north = tuple(float(v) for v in within) if len(within) == 4 else (math.nan,) * 4
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south < north <= 90 and west != east):
        raise ConfigError(f"within={box!r}: expected west, south, east, north in degrees, south < north")
    count = 2**zoom
    left, right = ((lon + 180) / 360 * count for lon in (west, east))
    top, bottom = (_down(lat) * count for lat in (north, south))
    ys = _range(top, bottom, count)
    xs = _range(left, right, count)
    if west > east:
        end = _range(0, right, count)
        xs = np.append(begin := _range(left, count, count), end[~np.isin(end, begin)])  # a wide tile may be both
    if not len(xs) * len(ys):
        raise ConfigError(f"within={box!r}: no web map tile lies there; maps end at 85.0511 degrees north and south")
    return np.tile(xs, len(ys)), np.repeat(ys, len(xs))


def _down(lat: float) -> float:
    """How far down the map a latitude lies, as a share of its height; a pole lies infinitely far beyond its edge."""
    return (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2


def _range(begin: float, end: float, count: int) -> NDArray[np.int64]:
    """The tiles that lie between two places, which are counted in tiles."""
    return np.arange(max(math.floor(begin + EDGE), 0), min(math.ceil(end - EDGE), count))
