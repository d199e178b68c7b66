"""TorchGeo, in its own environment: `peers.py` runs there and is told what to do by `Peers`, which runs here.

They talk by lines of JSON. What is timed is the time until a batch is whole over there; its pixels stay there, but for the
comparison, when they come in a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16


class Peers:
    """The other environment's process. python: its interpreter."""

    def __init__(self, python: Path) -> None:
        self.process = subprocess.Popen([python, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions = self.ask(do="versions")

    def ask(self, **what: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"TorchGeo's process ended with {self.process.wait()}; above is what it said")
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate("")


class Remote:
    """A reader over there."""

    def __init__(self, peers: Peers, folder: Path, **what: Any) -> None:
        self.peers, self.folder = peers, folder
        self.number = peers.ask(do="open", **what)
        weakref.finalize(self, peers.ask, do="close", number=self.number).atexit = False

    def epoch(self) -> Iterator[int]:
        count = self.peers.ask(do="epoch", number=self.number)
        while count:
            yield count
            count = self.peers.answer()

    def pixels(self) -> dict[str, np.ndarray]:
        path = self.folder / "peers.npz"
        self.peers.ask(do="pixels", number=self.number, into=str(path))
        with np.load(path) as found:
            return dict(found)


def serve() -> None:
    """Answer until there is nothing more to do."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what TorchGeo prints is no answer
    readers: list[Any] = []

    def say(what: object) -> None:
        out.write(json.dumps(what) + "\n")
        out.flush()

    for line in sys.stdin:
        asked = json.loads(line)
        match asked.pop("do"):
            case "versions":
                say(_versions())
            case "open":
                readers.append(_loader(**asked))
                say(len(readers) - 1)
            case "epoch":
                for batch in readers[asked["number"]]:
                    say(len(batch["image"]))
                say(0)
            case "pixels":
                found: dict[str, list] = {}
                for batch in readers[asked["number"]]:
                    for name in batch.keys() & {"image", "mask"}:
                        found.setdefault(name, []).append(batch[name].numpy())
                np.savez(asked["into"], **{name: np.concatenate(arrays) for name, arrays in found.items()})
                say(True)
            case "close":
                readers[asked["number"]] = None  # with its worker processes
                say(True)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torchgeo", "torch", "torchvision", "rasterio", "geopandas", "numpy")}


def _declare_operators() -> None:
    """TorchGeo imports torchvision, whose wheels hold operators made for CUDA. Beside a torch without, they don't load, and the
    import stops at the first operator that it knows nothing of; so they are declared. Nothing here calls them.
    """
    import torch

    library = next(Path(path) / "torchvision" for path in sys.path if (Path(path) / "torchvision").is_dir())
    try:
        torch.ops.load_library(str(next(library.glob("_C*.so"))))
    except (OSError, StopIteration):
        names = ["nms", "qnms", "qroi_align"]
        for name in ("roi_align", "ps_roi_align", "roi_pool", "ps_roi_pool", "deform_conv2d"):
            names += [name, f"_{name}_backward"]
        _declare_operators.kept = torch.library.Library("torchvision", "DEF")  # they last as long as it does
        for name in names:
            _declare_operators.kept.define(f"{name}(Tensor unused) -> Tensor")


def _loader(file: str, roads: str | None, bounds: list[list[float]], resolution: float, workers: int) -> Any:
    """TorchGeo's way to the same tiles: datasets of files, and a sampler that yields our places."""
    from pyproj import CRS
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, VectorDataset, stack_samples
    from torchgeo.samplers import GeoSampler

    class Places(GeoSampler):
        def __iter__(self):
            when = slice(self.toi.left, self.toi.right)
            return ((slice(xmin, xmax), slice(ymin, ymax), when) for xmin, ymin, xmax, ymax in bounds)

        def __len__(self):
            return len(bounds)

    data: Any = RasterDataset(file, crs=CRS.from_epsg(3857), res=resolution)
    if roads:
        data = data & VectorDataset(roads, res=resolution, label_name="label")
    return DataLoader(
        data, sampler=Places(data), batch_size=BATCH, num_workers=workers, collate_fn=stack_samples,
        persistent_workers=workers > 0,
    )  # fmt: skip


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    _declare_operators()
    serve()
