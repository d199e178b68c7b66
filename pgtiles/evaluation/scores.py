"""`Score`: what is known of a prediction beside the truth, to print, to keep as JSON and to draw."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plot
from ..errors import ConfigError
from ..inspection.statistics import table
from ..layers.attributes import Key
from ..layers.describing import Json
from ..streaming.reading import Sample
from ..tiling.tiles import Tiles
from .metrics import Confusion, Found

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1
EACH = ("iou", "f1", "precision", "recall")
WIDE = 6  # classes that have a column each where groups are printed
FEW = 20  # tiles of a contact sheet, at most


@dataclass(frozen=True, eq=False)
class Score:
    """Pixels of a prediction beside those of the truth (`pgtiles.score`). ``print(score)`` shows a table."""

    confusion: Confusion
    """Pixels by their true and their predicted class, with `iou`, `f1`, `precision`, `recall` of each class, `accuracy` and
    `kappa`."""
    names: Mapping[int, str]
    """Of the classes, where the layers know them."""
    by_columns: tuple[str, ...]
    """The attributes by which pixels were scored, if any."""
    by: Mapping[Key, Confusion]
    """For each combination of attributes, the same of the pixels that its features cover."""
    tolerance: float | None
    """Ground metres."""
    boundaries: Mapping[int, Found]
    """Of each class, boundary pixels with one of the other side's within the tolerance."""
    untold: int
    """Pixels that the truth leaves out: ignored, or without data."""
    missing: int
    """Pixels of which the truth tells the class and the prediction does not: ignored there, or without data."""
    tiles: Tiles
    """Those that were read, with the columns ``pixels`` (that were compared), ``error`` (the share of these that is wrong) and
    ``iou`` (the mean over the tile's own classes). A tile without any has the error 0 and the IoU 1."""
    source: Json
    """What was compared: the grid, the tiles' digest, the layers."""
    look: Callable[[Tiles], tuple[Sample, int]] | None = field(default=None, repr=False)

    def worst(self, count: int = 6) -> Tiles:
        """The tiles with the greatest share of wrong pixels, the worst first."""
        return self.tiles[np.argsort(-self.tiles.columns["error"], kind="stable")[:count]]

    def said(self) -> Json:
        """All but the single tiles, as JSON has it: for a file, or beside a run."""
        return {
            "pgtiles score": FORMAT, "tiles": len(self.tiles), "untold": self.untold, "missing": self.missing,
            **_said(self.confusion), "names": {str(value): name for value, name in self.names.items()},
            "by": [{"attributes": dict(zip(self.by_columns, key, strict=True))} | _said(one) for key, one in self.by.items()],
            "tolerance": self.tolerance,
            "boundaries": {str(value): found_said(found) for value, found in self.boundaries.items()}, "source": self.source,
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it into a JSON file; one that is there is replaced, whole or not at all."""
        write_json(self.said(), path)

    def plot(self, path: str | Path | None = None, *, title: str | None = None) -> Figure:
        """Draw the confusion matrix. path: as for `plot.batch`."""
        return plot.confusion(
            self.confusion.counts, [self._called(value) for value in self.confusion.values], path, title=title
        )

    def plot_worst(self, path: str | Path | None = None, *, count: int = 6, title: str | None = None) -> Figure:
        """Draw the worst tiles, a row each: image, where `score` was given one, the truth, the prediction; grey is left out."""
        if self.look is None:
            raise ConfigError("this score no longer knows how to read its tiles, as one that was unpickled")
        if not 1 <= count <= FEW:
            raise ConfigError(f"count={count!r}: expected 1 to {FEW} tiles")
        worst = self.worst(count)
        known = {value: name for value, name in self.names.items() if name}
        sample, ignored = self.look(worst)
        return plot.batch(sample, path, classes=known, ignore_index=ignored, count=count, title=title)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"look": None}

    def __str__(self) -> str:
        one, lines = self.confusion, [f"{len(self.tiles)} tiles, {self.confusion.pixels} pixels"]
        counts = zip(one.truth.tolist(), one.predicted.tolist(), strict=True)
        shares = zip(*(getattr(one, what) for what in EACH), strict=True)
        rows = [
            [self._called(value), *map(_percent, each), str(true), str(found)]
            for value, each, (true, found) in zip(one.values, shares, counts, strict=True)
        ]
        rows.append(["mean", *(_percent(one.mean(what)) for what in EACH), "", ""])
        lines += ["", *table(["class", "IoU", "F1", "precision", "recall", "truth", "predicted"], rows)]
        lines += [f"accuracy {_percent(one.accuracy)}, kappa {one.kappa:.4f}"]
        if self.tolerance is not None:
            rows = [[self._called(value), *found_row(found)] for value, found in self.boundaries.items()]
            lines += [
                "",
                *table([f"boundary, ± {self.tolerance:g} m", "F1", "precision", "recall", "truth", "predicted"], rows),
            ]
        if self.by_columns:
            lines += ["", *self._groups()]
        if self.untold:
            lines += [f"left out by the truth: {self.untold} pixels"]
        if self.missing:
            lines += [f"without a prediction, and left out: {self.missing} pixels"]
        return "\n".join(line.rstrip() for line in lines)

    def _groups(self) -> list[str]:
        """The table of the attributes."""
        values = self.confusion.values if len(self.confusion.values) <= WIDE else ()
        rows = []
        for key, one in self.by.items():
            own = dict(zip(one.values, one.iou.tolist(), strict=True))
            rows.append([
                key_in_words(key), str(one.pixels), _percent(one.accuracy), _percent(one.mean("iou")),
                *(_percent(own.get(value, math.nan)) for value in values),
            ])  # fmt: skip
        head = [", ".join(self.by_columns), "pixels", "accuracy", "mean IoU", *(f"IoU {self._called(v)}" for v in values)]
        return table(head, rows) if rows else [f"by {head[0]}: no feature of the query covers a pixel that was compared"]

    def _called(self, value: int) -> str:
        return f"{value} {self.names.get(value, '')}".strip()


def key_in_words(key: Key) -> str:
    """A combination of attributes, for people."""
    return ", ".join("NULL" if one is None else str(one) for one in key)


def found_row(found: Found) -> list[str]:
    """Shares and counts, for a table."""
    return [*map(_percent, (found.f1, found.precision, found.recall)), str(found.truth), str(found.predicted)]


def found_said(found: Found) -> Json:
    """The same as JSON has it."""
    shares = {what: _number(getattr(found, what)) for what in ("precision", "recall", "f1")}
    return {"truth": found.truth, "predicted": found.predicted, "recalled": found.recalled, "right": found.right} | shares


def write_json(said: Json, path: str | os.PathLike[str]) -> None:
    """Write it into a file, whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(said, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _said(one: Confusion) -> Json:
    each = {what: [_number(share) for share in getattr(one, what).tolist()] for what in EACH}
    return {
        "pixels": one.pixels, "accuracy": _number(one.accuracy), "kappa": _number(one.kappa), "classes": list(one.values),
        **each, **{f"mean_{what}": _number(one.mean(what)) for what in EACH}, "confusion": one.counts.tolist(),
    }  # fmt: skip


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2%}"
