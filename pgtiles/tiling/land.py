"""Where tiles lie on the ground, in metres, whatever their CRS: blocks of land, and which tiles are near to which. No database.

A distance is never measured in the CRS, whose units are degrees, or metres that are not the ground's. Outlines are taken to
the ellipsoid (WGS84, as points in space) and looked at from straight above the region at hand. Seen so, nothing gets further
apart than it is: what is a gap apart in that picture is a gap apart on the ground, at the poles and across the antimeridian
too. PROJ, where it is needed, is the one that rasterio brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from ..errors import ConfigError, DependencyError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Truths = NDArray[np.bool_]

MAJOR = 6378137.0  # metres, of WGS84
ECCENTRICITY = 0.0066943799901413165  # squared
LEAST = MAJOR * (1 - ECCENTRICITY)  # metres in a radian of latitude, at the equator: nowhere are there fewer
REGION = 400_000.0  # metres: looked at from above its middle, what is at its edge seems 0.15 % nearer than it is, at most
CHUNK = 100_000
# Corners and middles of the sides, once around: shares of the width and of the height.
AROUND = np.array([[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1], [0.5, 1], [0, 1], [0, 0.5]])
OVERLAP = 1e-6  # of a tile: neighbours that share no more than this only touch


@dataclass(frozen=True, eq=False)
class Land:
    """Tiles on the ellipsoid."""

    srids: Ints  # (N,)
    bounds: Floats  # (N, 4) CRS units, each in its own SRID
    lonlat: Floats  # (N, 2) radians, of their centres
    centres: Floats  # (N, 3) metres from the middle of the Earth
    radius: float  # metres from a centre to its tile's furthest corner, of the tile where it is the most
    widest: float  # metres, the longest side of a tile

    @classmethod
    def of(cls, srid: int | Ints, bounds: Floats) -> Land:
        """srid: of all, or one each.

        Raises `ConfigError` where a tile lies where its CRS has no place on Earth, `DependencyError` without rasterio.
        """
        srids = np.broadcast_to(np.asarray(srid, np.int64), len(bounds))
        lonlat, centres, radius, widest = np.empty((len(bounds), 2)), np.empty((len(bounds), 3)), 0.0, 0.0
        for start in range(0, len(bounds), CHUNK):
            some = slice(start, start + CHUNK)
            lonlat[some] = _lonlats(srids[some], (bounds[some, :2] + bounds[some, 2:]) / 2)
            centres[some] = _in_space(lonlat[some])
            corners = _in_space(_lonlats(srids[some], _outline(bounds[some], AROUND[::2])))  # (n, 4, 3)
            radius = max(radius, float(np.linalg.norm(corners - centres[some, None], axis=-1).max()))
            widest = max(widest, float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=-1).max()))
        return cls(srids, bounds, lonlat, centres, radius, widest)

    def blocks(self, size: float) -> Ints:
        """The block of land, by number, in which each tile's centre lies; at least so many metres in each direction.  → (N,)

        Bands from the south pole to the north pole, each cut into equal blocks, as many as its narrower edge has room for.
        """
        lon, lat = self.lonlat.T
        bands = max(1, int(np.pi * LEAST / size))
        band = np.clip(np.floor((lat / np.pi + 0.5) * bands), 0, bands - 1)
        edges = np.abs(np.stack([band, band + 1]) / bands - 0.5).max(axis=0) * np.pi
        across = np.maximum(1, np.floor(2 * np.pi * MAJOR * np.cos(edges) / size))
        block = np.floor((lon / (2 * np.pi) + 0.5) % 1 * across)
        return np.unique(np.stack([band, block]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def near(self, which: Ints, others: Ints, gap: float) -> Truths:
        """Which of some tiles come within the gap of any of the others; where it is 0, which overlap one.  → (len(which),)"""
        found = np.zeros(len(which), bool)
        reach = max(2.02 * self.radius + gap, 20.0)
        cells = [np.floor(self.centres[w] / reach).astype(np.int64) for w in (which, others)]
        some = np.flatnonzero(_beside(cells[0], cells[1]))
        others = others[_beside(cells[1], cells[0])]
        if gap == 0:  # to the pixel, which only the CRS itself can tell
            if len(np.unique(self.srids)) > 1:
                raise ConfigError(
                    "gap=0: between SRIDs no pixel tells whether tiles overlap; expected a gap of a metre or more"
                )
            tree = shapely.STRtree(self._boxes(others))
            found[some[tree.query(self._boxes(which[some]), predicate="intersects")[0]]] = True
            return found
        for region, middle, far in _regions(self.centres[which[some]]):
            mine = some[region]
            theirs = others[np.linalg.norm(self.centres[others] - middle, axis=1) <= far + reach]
            frame = _from_above(middle)
            ours, nearby = (self._rings(w) @ frame for w in (which[mine], theirs))
            # a side is drawn straight from its middle to its corners, and off by a quarter of this at most
            limit = gap + max(_bend(ours), _bend(nearby)) + 1e-6
            (places, _), metres = shapely.STRtree(shapely.polygons(nearby)).query_nearest(
                shapely.polygons(ours), max_distance=limit, return_distance=True, all_matches=False
            )
            found[mine[places[metres < limit]]] = True
        return found

    def _rings(self, which: Ints) -> Floats:
        return _in_space(_lonlats(self.srids[which], _outline(self.bounds[which], AROUND)))

    def _boxes(self, which: Ints) -> NDArray[Any]:
        xmin, ymin, xmax, ymax = self.bounds[which].T
        dx, dy = (xmax - xmin) * OVERLAP, (ymax - ymin) * OVERLAP
        return shapely.box(xmin + dx, ymin + dy, xmax - dx, ymax - dy)  # type: ignore[no-any-return]


def _outline(bounds: Floats, around: Floats) -> Floats:
    """(n, k, 2) points on the outlines."""
    low, high = bounds[:, None, :2], bounds[:, None, 2:]
    return low + (high - low) * around


def _lonlats(srids: Ints, places: Floats) -> Floats:
    """Longitude and latitude of places, each in its own SRID.  (N,), (N, …, 2) → (N, …, 2)"""
    found = np.empty_like(places)
    for srid in np.unique(srids).tolist():
        found[srids == srid] = _lonlat(srid, places[srids == srid])
    return found


def _lonlat(srid: int, places: Floats) -> Floats:
    """Longitude and latitude in radians of places in CRS units.  (…, 2) → (…, 2)"""
    if srid == 4326:
        found = np.radians(places)
    elif srid == 3857:  # as PROJ has it; half of all tables are so, and need no PROJ
        found = np.stack([places[..., 0] / MAJOR, 2 * np.arctan(np.exp(places[..., 1] / MAJOR)) - np.pi / 2], axis=-1)
    else:
        found = np.radians(_by_proj(srid, places.reshape(-1, 2))).reshape(places.shape)
    wrong = ~(np.abs(found[..., 1]) <= np.pi / 2 + 1e-9)  # infinite ones and NaN are wrong, too
    if wrong.any():
        x, y = places[wrong][0]
        raise ConfigError(f"a tile reaches to ({x:g}, {y:g}), where SRID {srid} has no place on Earth: leave such tiles out")
    return found


def _by_proj(srid: int, places: Floats) -> Floats:
    try:
        from rasterio.crs import CRS
        from rasterio.errors import RasterioError
        from rasterio.warp import transform
    except ImportError as error:
        raise DependencyError(
            f"ground metres in SRID {srid} need rasterio ({error}): pip install 'pgtiles[load]'; 3857 and 4326 do without"
        ) from error
    try:
        return np.array(transform(CRS.from_epsg(srid), "EPSG:4326", *places.T)[:2]).T
    except (RasterioError, ValueError) as error:
        raise ConfigError(
            f"SRID {srid}: PROJ can't tell where its tiles lie on Earth ({error}); expected an EPSG code"
        ) from error


def _in_space(lonlat: Floats) -> Floats:
    """Metres from the middle of the Earth.  (…, 2) → (…, 3)"""
    lon, lat = lonlat[..., 0], lonlat[..., 1]
    normal = MAJOR / np.sqrt(1 - ECCENTRICITY * np.sin(lat) ** 2)
    flat = normal * np.cos(lat)
    return np.stack([flat * np.cos(lon), flat * np.sin(lon), normal * (1 - ECCENTRICITY) * np.sin(lat)], axis=-1)


def _beside(cells: Ints, others: Ints) -> Truths:
    """Which cells are, or touch, one of the others.  (n, 3), (m, 3) → (n,)"""
    low, base = 1 << 20, 1 << 21  # of 20 m and more, there are fewer than these
    ours, theirs = (((c[:, 0] + low) * base + c[:, 1] + low) * base + c[:, 2] + low for c in (cells, others))
    steps = np.array([(x * base + y) * base + z for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    around = np.unique(np.unique(theirs)[:, None] + steps)
    return np.isin(ours, around)


def _regions(centres: Floats) -> Iterator[tuple[Ints, Floats, float]]:
    """Positions of tiles that lie together, the middle of them, and how far from it the furthest is."""
    if not len(centres):
        return
    number = np.unique(np.floor(centres / REGION), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.argsort(number, kind="stable")
    for region in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        middle = centres[region].mean(axis=0)
        yield region, middle, float(np.linalg.norm(centres[region] - middle, axis=1).max())


def _from_above(middle: Floats) -> Floats:
    """(3, 2) what takes points in space to a picture of them from straight above."""
    up = middle / np.linalg.norm(middle)
    east = np.cross(np.eye(3)[np.abs(up).argmin()], up)
    east /= np.linalg.norm(east)
    return np.stack([east, np.cross(up, east)], axis=1)


def _bend(rings: Floats) -> float:
    """How far, at most, the middle of a side lies from halfway between its corners.  (n, 8, 2)"""
    if not len(rings):
        return 0.0
    halfway = (rings[:, ::2] + np.roll(rings[:, ::2], -1, axis=1)) / 2
    return float(np.linalg.norm(rings[:, 1::2] - halfway, axis=-1).max())
