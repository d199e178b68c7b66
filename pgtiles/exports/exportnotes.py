"""What is noted of each exported tile, and what of all stands beside them: classes, statistics, splits. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .exported import WHOLE, Beside, Contents, Format, Json, Notes, One
from .shards import told


def about_classes(one: One, contents: Contents) -> Json:
    """How many pixels of a tile have which class, and what its other labels are; `DataError` of a class that is not known."""
    pixels, values = dict[str, Json](), Json()
    for key, array in one.sample.items():
        layer = key if key in contents.kinds else key.rpartition("_")[0]
        kind = contents.kinds.get(layer)
        if kind == "mask" and key == layer and array.dtype.kind in "iu":
            found, counts = np.unique(array, return_counts=True)
            for value in found.tolist():
                if value not in (contents.background[layer], contents.layers[layer].ignore_index):
                    contents.class_of(one, layer, value)
            pixels[layer] = dict(zip(map(str, found.tolist()), counts.tolist(), strict=True))
        elif kind in {"boxes", "value"} or (kind in {"instances", "series"} and array.ndim < 2):
            values[key] = told(array)
    return {"pixels": pixels, "values": values}


def about_pixels(one: One, contents: Contents) -> Json:
    """Of each band of a tile's images the number of pixels that have data, their sum, that of their squares, least and most."""
    bands = dict[str, list[list[Any]]]()
    for name, kind in contents.kinds.items():
        if kind == "image":
            valid = one.sample.get(f"{name}_valid")
            bands[name] = [_moments(band if valid is None else band[valid]) for band in one.sample[name]]
    return {"bands": bands}


def _moments(pixels: Any) -> list[Any]:
    if pixels.dtype.kind == "f":
        pixels = pixels[np.isfinite(pixels)]
    if not pixels.size:
        return [0, 0.0, 0.0, None, None]
    wide = pixels.astype(np.float64)
    with np.errstate(over="ignore"):
        sums = told(np.array([wide.sum(), np.square(wide).sum()]))
    return [pixels.size, *sums, pixels.min().item(), pixels.max().item()]


def beside(notes: Notes, form: Format, contents: Contents) -> Beside:
    """The files beside the tiles, of whatever format: names and texts."""
    splits = sorted({note["split"] for note in notes()}, key=lambda split: ("train val test".find(split), split))
    yield "classes.json", iter([_text(_classes(contents))])
    yield "statistics.json", iter([_text({split or WHOLE: _statistics(notes, split, contents) for split in splits})])
    for split in filter(None, splits):
        yield f"splits/{split}.txt", (f"{note['id']}\n" for note in notes() if note["split"] == split)
    if any("sources" in note for note in notes()):
        yield "sources.csv", _sources(notes)
    yield from form.beside(notes, splits, contents)


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _classes(contents: Contents) -> Json:
    """Of each layer of labels its classes' names by their values, its background, and what is ignored."""
    found = Json()
    for name, kind in contents.kinds.items():
        if kind not in {"image", "series"}:
            found[name] = {"classes": {str(value): text for value, text in contents.classes.get(name, {}).items()}}
        if kind == "mask":
            found[name] |= {"background": contents.background[name], "ignore_index": contents.layers[name].ignore_index}
    return found


def _statistics(notes: Notes, split: str, contents: Contents) -> Json:
    """Of the tiles of a split: their number; of each band mean, spread, least and most; pixels, share and tiles of each class;
    how many objects there are of each.
    """
    tiles, bands = 0, dict[str, list[_Band]]()
    pixels, objects = dict[str, dict[str, list[int]]](), dict[str, dict[str, list[int]]]()
    for note in notes():
        if note["split"] != split:
            continue
        tiles += 1
        for layer, found in note["bands"].items():
            for band, one in zip(bands.setdefault(layer, [_Band() for _ in found]), found, strict=True):
                band.add(*one)
        for layer, counts in note["pixels"].items():
            _add(pixels.setdefault(layer, {}), counts)
        for name, kind in contents.kinds.items():
            if kind in {"boxes", "instances"}:
                labels = note["values"][f"{name}_label"]
                _add(objects.setdefault(name, {}), {str(label): labels.count(label) for label in labels})
    return {
        "tiles": tiles,
        "bands": {layer: [band.told() for band in known] for layer, known in bands.items()},
        "pixels": {layer: _counted(found, contents.classes.get(layer, {})) for layer, found in pixels.items()},
        "objects": {layer: _counted(found, contents.classes.get(layer, {})) for layer, found in objects.items()},
    }


def _add(known: dict[str, list[int]], counts: dict[str, int]) -> None:
    for value, many in counts.items():
        kept = known.setdefault(value, [0, 0])
        kept[0], kept[1] = kept[0] + many, kept[1] + 1


class _Band:
    """What tiles noted of a band, added up exactly."""

    def __init__(self) -> None:
        self.size, self.sum, self.squares = 0, Fraction(0), Fraction(0)
        self.least, self.most = math.inf, -math.inf
        self.large = False  # whether a tile's sums are beyond what a float holds

    def add(self, size: int, total: float | None, squares: float | None, least: float | None, most: float | None) -> None:
        """A tile."""
        if least is None or most is None:
            return
        self.size, self.least, self.most = self.size + size, min(self.least, least), max(self.most, most)
        if total is None or squares is None:
            self.large = True
        else:
            self.sum, self.squares = self.sum + Fraction(total), self.squares + Fraction(squares)

    def told(self) -> Json:
        if not self.size:
            return {"pixels": 0, "mean": None, "std": None, "min": None, "max": None}
        mean, square = self.sum / self.size, self.squares / self.size
        spread = None if self.large else math.sqrt(max(square - mean**2, Fraction(0)))
        known = {"mean": None if self.large else float(mean), "std": spread}
        return {"pixels": self.size, **known, "min": self.least, "max": self.most}


def _counted(found: dict[str, list[int]], names: Any) -> list[Json]:
    every = sum(many for many, _ in found.values())
    return [
        {"value": int(value), "name": names.get(int(value)), "count": many, "share": many / every, "tiles": tiles}
        for value, (many, tiles) in sorted(found.items(), key=lambda one: int(one[0]))
    ]


def _sources(notes: Notes) -> Iterator[str]:
    """A line for each row under each tile, as a spreadsheet or a COPY takes it."""
    yield "tile_id,layer,source,row\n"
    for note in notes():
        for layer, source, row in note.get("sources", ()):
            yield ",".join(map(_quoted, (note["id"], layer, source, row))) + "\n"


def _quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if not text or any(sign in text for sign in ',"\n\r') else text
