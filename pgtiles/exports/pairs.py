"""Files of pixels: a folder for each layer with a picture a tile, or, to classify, a folder for each class."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .exported import Beside, Contents, Json, Notes, One, is_folder
from .pictures import KINDS


@dataclass(frozen=True)
class Pairs:
    """Of each layer that is an image or a mask a file of the same name in a folder of its own; what is none stands in notes.

    images, masks: what kind of picture they are.
    """

    images: str
    masks: str
    shard: bool = False

    def check(self, contents: Contents) -> None:
        """Some layer is a picture, and each fits its files."""
        if not {"image", "mask", "instances"} & set(contents.kinds.values()):
            raise ConfigError(f"expected a layer of imagery, or a mask; the layers are {contents.said}")
        for name, kind in contents.kinds.items():
            if not is_folder(name):
                raise ConfigError(f"layer {name!r}: its files go into a folder of that name: call the layer otherwise")
            if kind == "series":
                raise ConfigError(
                    f"layer {name!r} is a time series, and a picture is of one time: format='webdataset' takes it"
                )
            if kind in {"image", "mask", "instances"}:
                contents.check_image(name, self._kind(kind, contents))

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As image/17.tif, mask/17.tif."""
        files = {}
        for name, kind in contents.kinds.items():
            as_ = self._kind(kind, contents)
            if kind in {"image", "mask", "instances"}:
                files[f"{name}/{one.id}.{KINDS[as_].suffix}"] = contents.drawn(one, name, as_)
            if f"{name}_valid" in one.sample:
                files[f"{name}_valid/{one.id}.{KINDS[self.masks].suffix}"] = contents.valid(one, name, self.masks)
        return files, {}

    def _kind(self, kind: str, contents: Contents) -> str:
        return contents.images if kind == "image" else self.masks

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """Nothing else."""
        yield from ()


@dataclass(frozen=True)
class Folders:
    """To classify: the image of each tile in the folder of its class, as torchvision's ImageFolder reads them."""

    images: str = "png"
    shard: bool = False

    def check(self, contents: Contents) -> None:
        """There is an image, and a number for each tile."""
        name = contents.the(
            "labels", "value", needed="format='folders': expected a layer Value, which says the class of each tile"
        )
        if contents.layers[str(name)].sheet.shape:
            raise ConfigError(f"layer {name!r} has several numbers a tile: format='folders' wants one, its class")
        for text in contents.classes.get(str(name), {}).values():
            if not is_folder(text):
                raise ConfigError(f"classes: {text!r} can't be a folder's name")
        contents.check_image(_image(contents))

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As train/forest/17.png."""
        name = contents.the("labels", "value") or ""
        folder = contents.class_of(one, name, float(one.sample[name]))
        path = f"{one.split}/{folder}/{one.id}.{contents.suffix}" if one.split else f"{folder}/{one.id}.{contents.suffix}"
        return {path: contents.drawn(one, _image(contents))}, {}

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """Nothing else."""
        yield from ()


def _image(contents: Contents) -> str:
    return contents.the("image", "image", needed="image=None: expected a layer of imagery") or ""
