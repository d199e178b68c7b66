"""`Statistics`: what is known of a dataset's pixels, as numbers to normalise and to weight by, kept as JSON beside a model."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError, MissingError, PgtilesWarning
from ..layers.describing import Json, differences, plain, wish_said
from ..tiling.draws import Draws, Weighted
from ..tiling.tiles import Tiles
from ..tiling.zones import grids_of

FORMAT = 1
MOST_CLASSES = 2**16  # that a weight is given each
KINDS = ("inverse", "median")


class HasTiles(Protocol):
    """What `Statistics.load` needs of a `TileDataset`."""

    tiles: Tiles
    layers: dict[str, Any]
    draws: Draws[Tiles] | None


@dataclass(frozen=True)
class BandStatistics:
    """What is known of a band. Pixels without data are in none of the numbers but their own; without data all are NaN."""

    pixels: int
    """With data."""
    nodata: float
    """Share of all pixels that have none."""
    infinite: int
    """Pixels that are infinite, which are in no other number."""
    mean: float
    interval: tuple[float, float]
    """Where the mean over all tiles of the dataset lies, at a confidence of 95 %."""
    std: float
    min: float
    max: float
    quantiles: dict[float, float]
    """For some shares of the pixels, the least value that so many don't exceed."""
    counts: list[int]
    edges: list[float]
    """A histogram: counts, and the edges of its bins, one more."""


@dataclass(frozen=True)
class ClassStatistics:
    """What is known of a class of a mask. Ignored pixels are in none of the numbers."""

    name: str
    """Empty where the layer does not know."""
    pixels: int
    share: float
    """Of the pixels that are not ignored."""
    interval: tuple[float, float]
    """Where the share over all tiles of the dataset lies, at a confidence of 95 %."""
    area: float
    """Square metres of the ground in the tiles that were read, where they overlap twice; NaN where it is not known."""
    tiles: int
    """In which it is."""
    beside: int
    """Pixels of those tiles, whatever their class."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of the layers of a dataset, by the keys of its samples (`TileDataset.statistics`).

    Layers of pixels have bands, and masks of whole numbers have classes, by value; others, such as boxes, are left out.
    ``print(statistics)`` shows a table.
    """

    tiles: int
    """That were read."""
    of: int
    """Tiles of the dataset; of one whose tiles are drawn, those of its epoch 0, as often as each is drawn."""
    seed: int
    """By which they were drawn."""
    bands: dict[str, list[BandStatistics]]
    classes: dict[str, dict[int, ClassStatistics]]
    ignored: dict[str, float]
    """Of each mask, the share of all pixels that are ignored."""
    ignore_index: dict[str, int | None]
    """Of each mask, the value of ignored pixels; None where there is none."""
    source: Json
    """What they are the statistics of: the grid, the tiles' digest, the layers."""

    def mean(self, layer: str = "image") -> NDArray[np.float64]:
        """The mean of each band."""
        return np.array([band.mean for band in _named(self.bands, layer, "bands")])

    def std(self, layer: str = "image") -> NDArray[np.float64]:
        """The standard deviation of each band."""
        return np.array([band.std for band in _named(self.bands, layer, "bands")])

    def class_weights(self, layer: str = "mask", *, kind: str = "inverse", count: int | None = None) -> NDArray[np.float32]:
        """A weight for each class from 0 to the greatest, as ``CrossEntropyLoss(weight=torch.from_numpy(…))`` takes them.

        kind: ``"inverse"`` is pixels / (classes × the class's pixels), so that each class weighs the same in all. ``"median"``
        divides the median of the classes' frequencies by the class's own, each in the tiles in which the class is (Eigen and
        Fergus, 2015).
        count: how many classes the model tells apart, where the greatest were not met.

        A class that was not met gets the greatest weight of those that were, and a warning names it: it is rarer than any.
        The value of ignored pixels is no class, and gets 0.
        """
        if kind not in KINDS:
            raise ConfigError(f"kind={kind!r}: expected one of {', '.join(KINDS)}")
        known = _named(self.classes, layer, "classes")
        met = {value: one for value, one in known.items() if one.pixels}
        if not met:
            raise DataError(f"layer {layer!r}: no pixel of any class was met, so there is nothing to weight by")
        if min(known) < 0 or max(known) >= MOST_CLASSES:
            raise ConfigError(
                f"layer {layer!r} has values from {min(known)} to {max(known)}: expected classes from 0 to {MOST_CLASSES - 1}; "
                "what is no class goes into ignore_index="
            )
        length = max(known) + 1 if count is None else count
        if length <= max(met):
            raise ConfigError(f"count={count!r}: layer {layer!r} has a class {max(met)}, so expected {max(met) + 1} or more")
        if kind == "inverse":
            total = sum(one.pixels for one in met.values())
            weights = {value: total / (len(met) * one.pixels) for value, one in met.items()}
        else:
            often = {value: one.pixels / one.beside for value, one in met.items()}
            median = float(np.median(list(often.values())))
            weights = {value: median / share for value, share in often.items()}
        weights |= {} if (ignored := self.ignore_index[layer]) is None else {ignored: 0.0}
        if missing := [str(value) for value in range(length) if value not in weights]:
            text = f"layer {layer!r}: no pixel of {_some(missing, 'class', 'classes')} was met in {self.tiles} tiles"
            warnings.warn(f"{text}: weighted as the rarest that was", PgtilesWarning, stacklevel=2)
        return np.array([weights.get(value, max(weights.values())) for value in range(length)], np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them into a JSON file; one that is there is replaced, whole or not at all."""
        path = Path(path)
        part = path.with_name(path.name + ".part")
        try:
            said = json.dumps(
                {"pgtiles statistics": FORMAT} | _said(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False
            )
            part.write_text(said + "\n", encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, of: HasTiles | None = None) -> Statistics:
        """The statistics in a JSON file.

        of: the dataset that they have to be of, the one for training: `ConfigError` says where its layers or tiles are others.
        """
        try:
            known = json.loads(Path(path).read_text(encoding="utf-8"))
            version = known.pop("pgtiles statistics")
            found = cls._read(known) if version == FORMAT else None
        except FileNotFoundError:
            raise MissingError(f"there is no file {path}: dataset.statistics().save({str(path)!r}) makes it") from None
        except (ValueError, KeyError, AttributeError, TypeError):
            raise DataError(f"{path} holds no statistics: expected the JSON that Statistics.save writes") from None
        if found is None:
            raise DataError(f"{path} is of another version of pgtiles (format {version}, known is {FORMAT}): make it anew")
        if of is not None and (odd := list(differences(found.source, source_of(of)))):
            raise ConfigError(f"{path} holds the statistics of another dataset: {'; '.join(odd)}. Make them anew")
        return found

    @classmethod
    def _read(cls, known: Json) -> Statistics:
        bands = {layer: [BandStatistics(**_read(one)) for one in bands] for layer, bands in known["bands"].items()}
        classes = {
            layer: {int(value): ClassStatistics(**_read(one)) for value, one in classes.items()}
            for layer, classes in known["classes"].items()
        }
        return cls(**known | {"bands": bands, "classes": classes})

    def __str__(self) -> str:
        sampled = "all" if self.tiles == self.of else f"drawn by seed {self.seed}, intervals at 95 %"
        epoch = " of an epoch" if "drawn" in self.source else ""
        lines = [f"{self.tiles} of {self.of} tiles{epoch}, {sampled}"]
        for layer, bands in self.bands.items():
            head = ["mean", "± of mean", "std", "min", "median", "max", "no data"]
            rows = [
                [
                    *(f"{x:.5g}" for x in (one.mean, (one.interval[1] - one.interval[0]) / 2, one.std, one.min)),
                    f"{one.quantiles.get(0.5, math.nan):.5g}", f"{one.max:.5g}", f"{one.nodata:.2%}",
                ]
                for one in bands
            ]  # fmt: skip
            lines += ["", *table([f"{layer}: band", *head], [[str(n), *row] for n, row in enumerate(rows, 1)])]
        for layer, classes in self.classes.items():
            rows = [
                [
                    f"{value} {one.name}".strip(), f"{one.share:.3%}", f"{(one.interval[1] - one.interval[0]) / 2:.3%}",
                    f"{one.pixels}", f"{one.area / 1e6:.4g}", f"{one.tiles}",
                ]
                for value, one in classes.items()
            ]  # fmt: skip
            lines += ["", *table([f"{layer}: class", "share", "± of share", "pixels", "km²", "tiles"], rows)]
            lines += [f"ignored: {self.ignored[layer]:.2%}"] if self.ignored[layer] else []
        return "\n".join(lines)


def source_of(dataset: HasTiles) -> Json:
    """What statistics are of, as JSON has it: settings word for word, tiles and the weights they are drawn by as a digest."""
    tiles, draws = dataset.tiles, dataset.draws
    digest = hashlib.sha256()
    more = (tiles.times, tiles.zone)
    for array in (tiles.cols, tiles.rows, *(array.astype(np.int64) for array in more if array is not None)):
        digest.update(array.astype("<i8").tobytes())
    counted = {"count": len(tiles), "sha256": digest.hexdigest()}
    drawn: Json = {}
    if draws is not None:
        weights = hashlib.sha256(draws.weights.astype("<f8").tobytes()).hexdigest() if isinstance(draws, Weighted) else None
        drawn = {"drawn": {"count": draws.count, "weights": weights}}
    grids = [plain(asdict(grid)) for grid in grids_of(tiles.grid)]
    return {"grid": grids[0] if len(grids) == 1 else grids, "tiles": counted, "layers": wish_said(dataset.layers)} | drawn


def _named(known: Mapping[str, Any], layer: str, what: str) -> Any:
    if layer not in known:
        there = f"those with {what} are {', '.join(known)}" if known else f"none has {what}"
        raise ConfigError(f"layer {layer!r} has no {what} in these statistics: {there}")
    return known[layer]


def _some(names: Sequence[str], one: str, many: str) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"{one if len(names) == 1 else many} {', '.join(names[:8])}{more}"


def _said(value: Any) -> Any:
    """As JSON has it: NaN is null."""
    if isinstance(value, dict):
        return {str(key): _said(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_said(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _read(known: Json) -> Json:
    """The fields of a band or a class: null is NaN, and a quantile's share a number."""
    read = {name: math.nan if value is None else value for name, value in known.items()}
    read["interval"] = tuple(math.nan if end is None else end for end in known["interval"])
    if "quantiles" in known:
        read["quantiles"] = {float(share): math.nan if value is None else value for share, value in known["quantiles"].items()}
    return read


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in (head, *rows)
    ]
