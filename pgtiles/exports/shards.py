"""WebDataset: many tiles in one tar, each as some files of the same name, in the order in which they are read."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .exported import Beside, Contents, Json, Notes, One


@dataclass(frozen=True)
class WebDataset:
    """Each layer in the tar: pictures as PNG where it holds them, other arrays as NPY, what is neither in a JSON."""

    images: str = "png"
    shard: bool = True

    def check(self, contents: Contents) -> None:
        """No key has a dot, which ends a sample's name there."""
        if odd := [name for name in contents.kinds if "." in name or "/" in name]:
            raise ConfigError(f"layer {odd[0]!r}: format='webdataset' takes keys without dots: call the layer otherwise")
        for name, kind in contents.kinds.items():
            if kind == "image" and (contents.images != "png" or contents.stretch):
                contents.check_image(name)

    def files(self, one: One, contents: Contents) -> tuple[dict[str, bytes], Json]:
        """As 17.image.png, 17.mask.png, 17.json."""
        files = dict[str, bytes]()
        known: Json = {"id": one.id, "split": one.split, "srid": one.srid, "bounds": one.bounds}
        for key, array in one.sample.items():
            layer = key if key in contents.kinds else key.rpartition("_")[0]
            kind = contents.kinds.get(layer)
            if kind in {"image", "mask", "instances"} and array.ndim >= 2:
                suffix, data = self._pixels(one, layer, key, contents)
                files[f"{one.id}.{key}.{suffix}"] = data
            elif kind == "series" and array.ndim >= 2:
                files[f"{one.id}.{key}.npy"] = _npy(array)
            else:
                known[key] = told(array)
        files[f"{one.id}.json"] = json.dumps(known, ensure_ascii=False).encode()
        return files, {}

    @staticmethod
    def _pixels(one: One, layer: str, key: str, contents: Contents) -> tuple[str, bytes]:
        if key != layer:  # where it has data
            return "png", contents.valid(one, layer, "png")
        kind = contents.images if contents.kinds[layer] == "image" else "png"
        try:
            contents.check_image(layer, kind)
        except ConfigError:
            return "npy", _npy(one.sample[layer])
        return kind if kind == "png" else contents.suffix, contents.drawn(one, layer, kind)

    def beside(self, notes: Notes, splits: list[str], contents: Contents) -> Beside:
        """Nothing else."""
        yield from ()


def told(array: NDArray[Any]) -> Any:
    """Numbers as JSON has them: what is none, or infinite, is null."""
    if array.dtype.kind in "mM":
        return [None if text == "NaT" else text for text in array.astype(str).reshape(-1).tolist()]
    nothing = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    return np.where(nothing, None, array.astype(object)).tolist()  # type: ignore[call-overload]


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


class Shard:
    """A tar while it is being written; the same tiles make the same bytes."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, files: dict[str, bytes]) -> None:
        """Add the files of a tile."""
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(data), 0o644
            self._tar.addfile(about, io.BytesIO(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write the end of the tar."""
        self._tar.close()
