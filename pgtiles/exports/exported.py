"""What is exported, as the formats are given it: what kind each layer is, one tile's arrays, the objects on it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from ..layers.canvas import Mask
from ..layers.pixels import Pixels
from ..layers.query import OpenLayer
from ..layers.records import BoxSheet, InstanceSheet, ValueSheet
from ..layers.timeseries import Steps
from .pictures import KINDS, Ground, Rings, check, narrow, picture, regions, stretched

Json = dict[str, Any]
OBJECTS = ("instances", "boxes", "mask")  # kinds of layers in which objects are found, the most telling first
WHOLE = "all"  # what the tiles are called that have no split
MOST = 2**16 - 1  # instances of a tile that a file can tell apart
MEND = {
    "image": "stretch=(low, high) brings values to 8 bits, Imagery(bands=(1, 2, 3)) chooses bands, Imagery(dtype='native') "
    "leaves uint16 what it is, images='tiff' keeps all as it is",
    "mask": "give the layer dtype='uint8', or take format='geotiff'",
}


@dataclass(frozen=True)
class One:
    """A tile as it was read: its id, split, SRID, bounds, and for each key its array."""

    id: int
    split: str
    srid: int
    bounds: tuple[float, float, float, float]
    sample: Mapping[str, NDArray[Any]]

    @property
    def said(self) -> str:
        """It in an error."""
        return f"tile {self.id} at ({', '.join(f'{v:.10g}' for v in self.bounds)})"


class Found(NamedTuple):
    """An object on a tile. box: x0, y0, x1, y1 in pixels. parts: its polygons, ring by ring; none of what is a box only."""

    label: int
    box: tuple[float, float, float, float]
    parts: list[Rings]
    id: int | None  # of the feature, where it is one


@dataclass(frozen=True)
class Contents:
    """What the layers are, and how they are written.

    kinds: of each layer, image, mask, boxes, instances, value, or series. crs: what rasterio takes, by SRID. images: what kind
    of picture images are.
    """

    layers: Mapping[str, OpenLayer]
    shape: tuple[int, int]
    pixel: tuple[float, float]
    kinds: Mapping[str, str]
    classes: Mapping[str, Mapping[int, str]]
    crs: Mapping[int, Any]
    image: str | None
    labels: str | None
    images: str
    stretch: tuple[tuple[float, float], ...] = ()
    background: Mapping[str, float] = field(default_factory=dict)

    def the(self, argument: str, *kinds: str, needed: str = "") -> str | None:
        """The layer of these kinds that the argument names, or that is the only one; of several kinds, the first there is."""
        named, fitting = getattr(self, argument), [name for name, kind in self.kinds.items() if kind in kinds]
        if named is not None and named in fitting:
            return str(named)
        if named is not None and needed:
            raise ConfigError(f"{argument}={named!r} is of kind {self.kinds[named]}; {needed}; the layers are {self.said}")
        for kind in kinds:
            found = [name for name in fitting if self.kinds[name] == kind]
            if len(found) > 1:
                raise ConfigError(
                    f"{argument}=None: {' and '.join(found)} would both do: say which is meant, {argument}={found[0]!r}"
                )
            if found:
                return found[0]
        if needed:
            raise ConfigError(f"{needed}; the layers are {self.said}")
        return None

    @property
    def said(self) -> str:
        """The layers in an error."""
        return ", ".join(f"{name!r} ({kind})" for name, kind in self.kinds.items())

    def check_image(self, name: str, kind: str = "") -> None:
        """Raise `ConfigError` where a layer's pixels don't fit the files that they go into."""
        sheet: Any = self.layers[name].sheet
        bands = sheet.shape[0] if len(sheet.shape) == 3 else 1
        if self.kinds[name] == "instances":
            check(f"layer {name!r}", kind, 1, "uint16", MEND["mask"])
            return
        if self.kinds[name] == "mask":
            check(f"layer {name!r}", kind, bands, "uint8" if sheet.dtype == "int64" else sheet.dtype, MEND["mask"])
            return
        if self.stretch and len(self.stretch) not in (1, bands):
            raise ConfigError(
                f"stretch: {len(self.stretch)} pairs for the {bands} bands of {name!r}: expected one, or one a band"
            )
        check(f"layer {name!r}", kind or self.images, bands, "uint8" if self.stretch else sheet.dtype, MEND["image"])

    def ground(self, one: One, name: str) -> Ground:
        """Where a layer's pixels lie."""
        return Ground(self.crs[one.srid], one.bounds[0], one.bounds[3], self.layers[name].resolution or self.pixel)

    def drawn(self, one: One, name: str, kind: str = "", colours: Any = None) -> bytes:
        """The file of a layer that is an image or a mask."""
        pixels = one.sample[name]
        if self.kinds[name] == "image":
            pixels = stretched(pixels, self.stretch) if self.stretch else pixels
        elif self.kinds[name] == "instances":
            if pixels.max() > MOST:
                raise DataError(f"{one.said}: layer {name!r} has {pixels.max()} instances, and a file holds {MOST}")
            pixels = pixels.astype(np.uint16)
        else:
            pixels = narrow(f"{one.said}: layer {name!r}", pixels)
        return picture(pixels, kind or self.images, self.ground(one, name), colours)

    def valid(self, one: One, name: str, kind: str) -> bytes:
        """The file of where a layer has data."""
        return picture(narrow(name, one.sample[f"{name}_valid"]), kind, self.ground(one, name))

    @property
    def suffix(self) -> str:
        """Of an image's file."""
        return KINDS[self.images].suffix

    def class_of(self, one: One, name: str, label: float) -> str:
        """A class's name; `DataError` where the classes are known and it is none of them."""
        known = self.classes.get(name, {})
        if not float(label).is_integer():
            raise DataError(f"{one.said}: layer {name!r} is {label:g} there, which is no class: expected a whole number; "
                            "missing= says what tiles without a row get, Tiles.filter leaves them out")  # fmt: skip
        if known and int(label) not in known:
            there = ", ".join(f"{value} ({text})" for value, text in known.items())
            raise DataError(f"{one.said}: layer {name!r} has the class {int(label)}; known are {there}: name it in classes=")
        return known.get(int(label), str(int(label)))

    def found(self, one: One, name: str) -> list[Found]:
        """The objects of a layer on a tile: boxes, instances, or each connected part of a mask's classes."""
        kind = self.kinds[name]
        found = list(_boxes(one, name) if kind == "boxes" else self._regions(one, name, kind))
        for thing in found:
            self.class_of(one, name, thing.label)
        return found

    def check_objects(self, image: str, objects: str) -> None:
        """Raise `ConfigError` where objects are not told in the image's pixels, or are none."""
        if self.kinds[objects] == "mask" and np.dtype(dtype := self.layers[objects].sheet.dtype).kind == "f":
            raise ConfigError(f"layer {objects!r} is of {dtype}, and classes of objects are whole numbers: dtype='uint8'")
        seen, told = (self.layers[name].sheet.shape[-2:] for name in (image, objects))
        told = self.shape if self.kinds[objects] == "boxes" else told
        if seen != told:
            raise ConfigError(
                f"layer {image!r} is of {seen} pixels and {objects!r} of {told}: objects are told in the image's pixels, so "
                "give both the same resolution="
            )

    def _regions(self, one: One, name: str, kind: str) -> Iterator[Found]:
        array = one.sample[name]
        values, codes = np.unique(array, return_inverse=True)
        left = [0.0] if kind == "instances" else [self.background[name], self.layers[name].ignore_index]
        wanted = ~np.isin(array, [value for value in left if value is not None])
        whole: dict[int, list[Rings]] = {}  # of an instance all parts are one; of a class each is one
        labels = dict[int, float]()
        for number, (code, rings) in enumerate(regions(codes.reshape(array.shape).astype(np.int32), wanted)):
            key = number if kind == "mask" else int(values[code])
            whole.setdefault(key, []).append(rings)
            labels[key] = values[code] if kind == "mask" else one.sample[f"{name}_label"][key - 1]
        for key, parts in sorted(whole.items()):
            corners = np.concatenate([np.array(rings[0]) for rings in parts])
            (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
            id_ = None if kind == "mask" else int(one.sample[f"{name}_id"][key - 1])
            yield Found(int(labels[key]), (x0, y0, x1, y1), parts, id_)


def _boxes(one: One, name: str) -> Iterator[Found]:
    for box, label, id_ in zip(*(one.sample[f"{name}{of}"] for of in ("", "_label", "_id")), strict=True):
        x0, y0, x1, y1 = (float(side) for side in box)
        if x1 <= x0 or y1 <= y0:
            raise DataError(
                f"{one.said}: layer {name!r} has a box without extent: widen points and lines in the query, by ST_Buffer"
            )
        yield Found(int(label), (x0, y0, x1, y1), [], int(id_))


def kind_of(layer: OpenLayer) -> str:
    """What kind a layer is to those who write files."""
    sheet = layer.sheet
    if isinstance(sheet, Pixels | Mask):
        return "image" if len(sheet.shape) == 3 else "mask"
    return {BoxSheet: "boxes", InstanceSheet: "instances", ValueSheet: "value", Steps: "series"}[type(sheet)]


def is_folder(text: str) -> bool:
    """Whether a folder can be called so, here and elsewhere."""
    return bool(text.strip()) and not text.startswith(".") and not any(sign in text for sign in '/\\:*?"<>|\0\n\r')


Notes = Callable[[], Iterator[Json]]  # what was noted of each tile, by its id
Beside = Iterator[tuple[str, Iterator[str]]]  # names of files and their texts


class Format(Protocol):
    """A way to write tiles into files."""

    @property
    def images(self) -> str:
        """What kind of picture images are, unless said."""

    @property
    def shard(self) -> bool:
        """Whether many tiles go into one tar."""

    def check(self, contents: Contents) -> None:
        """Raise `ConfigError` where the layers don't fit."""

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """A tile's files, by their names in the folder, and what is to be noted of it besides."""

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """What is written beside the tiles when all are there."""
