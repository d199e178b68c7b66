"""The kernels with which PostGIS resamples: how far they reach, and what the server's versions make of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import ConfigError
from ..postgres.database import Database
from ..template import compose


class Kernel(NamedTuple):
    """A way to make a pixel of those around it."""

    postgis: str  # PostGIS takes a name that it doesn't know for nearest neighbour, so ours are checked
    radius: int  # source pixels; where an image is shrunk, that many of the tile's
    picks: bool = False  # it gives one of the pixels there: a transformer that is a little off gives quite another
    since: tuple[int, ...] = ()  # the version of PostGIS that knows it first


RESAMPLING = {
    "nearest": Kernel("NearestNeighbour", 1, picks=True),
    "bilinear": Kernel("Bilinear", 1),
    "cubic": Kernel("Cubic", 2),
    "cubicspline": Kernel("CubicSpline", 2),
    "lanczos": Kernel("Lanczos", 3),
    "max": Kernel("Max", 1, picks=True, since=(3, 4)),
    "min": Kernel("Min", 1, picks=True, since=(3, 4)),
}
SHRINKS = 1 / 0.95  # source pixels to one of the tile's, from which on GDAL widens a kernel
LANCZOS = (3, 10)  # GDAL before it shifts what it shrinks with this kernel (its issue 11042)


def kernel_of(db: Database, name: str) -> Kernel:
    """The kernel of this name; raises `ConfigError` where the server's PostGIS lacks it."""
    kernel = RESAMPLING[name]
    if kernel.since and (have := db.require_postgis()) < kernel.since:
        others = ", ".join(other for other, its in RESAMPLING.items() if not its.since)
        raise ConfigError(
            f"resampling={name!r} is new in PostGIS {_dotted(kernel.since)}; {db.name} has {_dotted(have)}, which would "
            f"take the nearest pixel in silence: take one of {others}, or update PostGIS"
        )
    return kernel


def doubts(db: Database, name: str, ratio: float) -> list[str]:
    """What to warn of where so many source pixels become one."""
    if name != "lanczos" or ratio <= SHRINKS:
        return []
    gdal = tuple(int(part) for part in re.findall(r"\d+", db.query(compose("gdal_version"))[0][0])[:3])
    if gdal >= LANCZOS:
        return []
    return [
        f"resampling='lanczos' shifts and blurs what it shrinks, here by {ratio:.3g}, in the server's GDAL {_dotted(gdal)}: "
        f"take 'cubic', or update GDAL to {_dotted(LANCZOS)}"
    ]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
