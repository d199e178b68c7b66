"""How many tiles a second the user's own layers give, with how many connections and workers, beside a COPY thrown away."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from ..dataset import TileDataset
from ..errors import ConfigError, PgtilesWarning
from ..inspection.timing import BATCH, Stages, batches, copied, lasting, stages, timed
from ..layers.query import Layer
from ..loading.newtable import Progress
from ..postgres.database import Database
from ..tiling.tiles import Tiles

TIMED = 64  # tiles whose stages are told apart
GAIN = 1.05  # what one more connection has to give to be worth it


@dataclass(frozen=True)
class Rate:
    """Tiles a second with so many connections in each of so many workers (0: in the process itself), medians of the rounds.

    tiles: as a dataset gives them. copy: of the same statements on as many connections in all, their rows thrown away.
    """

    connections: int
    workers: int
    tiles: float
    copy: float


@dataclass(frozen=True)
class Bench:
    """What `bench` measured. connections: the fewest beyond which one more gives less than a twentieth."""

    tiles: int
    rates: tuple[Rate, ...]
    stages: Stages
    connections: int

    def as_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return asdict(self)


def bench(
    db: Database,
    tiles: Tiles,
    layers: Mapping[str, Layer],
    *,
    connections: Sequence[int] = (1, 2, 3),
    workers: Sequence[int] = (0, 2),
    rounds: int = 3,
    progress: Progress | None = None,
) -> Bench:
    """Measure how fast tiles of the user's own tables come, each case in turn in each round, after a round that only warms up.

    connections, workers: to be tried, each with each. progress: is told how many cases are done, and of how many.

    Raises `ConfigError` where there are too few tiles to give each connection a batch.
    """
    cases = [(c, w) for w in workers for c in connections]
    opens = sorted({_all(c, w) for c, w in cases})
    if len(batches(tiles)) < opens[-1]:
        raise ConfigError(
            f"{len(tiles)} tiles are {len(batches(tiles))} batches of {BATCH}, fewer than the {opens[-1]} connections "
            f"that are tried: bench takes {BATCH * opens[-1]} tiles at least (--count)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)  # they are said by whoever opened the layers before
        sets = [TileDataset(db, tiles, layers, batch_size=BATCH, shuffle=False, connections=c) for c, _ in cases]
        loaders = [one.loader(num_workers=w) for one, (_, w) in zip(sets, cases, strict=True)]
        spent, sent = [list[float]() for _ in cases], {n: list[float]() for n in opens}
        done, total = 0, (rounds + 1) * (len(cases) + len(opens))
        for lap in range(rounds + 1):
            for work, into in (
                *((lambda n=n: copied(db, sets[0].plan, tiles, n), sent[n]) for n in opens),
                *((lambda loader=loader: sum(1 for _ in loader), one) for loader, one in zip(loaders, spent, strict=True)),
            ):
                seconds, done = (lasting if lap else timed)(work), done + 1
                into += [seconds] if lap else []
                if progress:
                    progress(done, total)
        plan = sets[0].plan
        del loaders  # and with them their workers
    rates = [
        Rate(c, w, len(tiles) / median(one), len(tiles) / median(sent[_all(c, w)]))
        for (c, w), one in zip(cases, spent, strict=True)
    ]
    return Bench(len(tiles), tuple(rates), stages(db, plan, tiles[:TIMED], rounds=rounds), _enough(rates))


def _all(connections: int, workers: int) -> int:
    """How many connections are open in all."""
    return connections * max(workers, 1)


def _enough(rates: Sequence[Rate]) -> int:
    """The connections, in the process itself where that was tried, beyond which one more is not worth it."""
    least = min(rate.workers for rate in rates)
    best, *more = sorted((rate for rate in rates if rate.workers == least), key=lambda rate: rate.connections)
    for rate in more:
        best = rate if rate.tiles > GAIN * best.tiles else best
    return best.connections
