"""`Normalize`: bands brought to mean 0 and standard deviation 1, as a plain module of torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray

from .errors import ConfigError, PgtilesWarning
from .inspection.statistics import Statistics

Sample = dict[str, Any]


class Normalize(torch.nn.Module):
    """(pixels - mean) / std, band by band, computed in float32.

    mean, std: a number for each band.
    layer: the key of a sample whose tensor is normalised, where a whole sample comes in.

    It takes a tensor, (bands, H, W) with any dimensions in front, of any dtype, as pipelines of torch, torchvision and kornia
    hand them on; or a sample or batch, a dict, of which it gives a copy. So it is a `TileDataset`'s ``transform``, too. Mean
    and std are buffers: they move with the model to its device, and are saved with it. A model of another dtype, as of
    ``model.half()``, gets the result in that dtype.
    """

    mean: torch.Tensor
    std: torch.Tensor
    kind: torch.Tensor  # of the dtype that the model is in

    def __init__(
        self, mean: Sequence[float] | NDArray[Any], std: Sequence[float] | NDArray[Any], *, layer: str = "image"
    ) -> None:
        super().__init__()
        means, stds = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        if means.ndim != 1 or means.shape != stds.shape or not len(means):
            raise ConfigError(f"mean={mean!r}, std={std!r}: expected a number for each band, equally many")
        if not np.isfinite(means).all() or not np.isfinite(stds).all() or (stds < 0).any():
            raise ConfigError(f"mean={mean!r}, std={std!r}: expected finite numbers, and std of 0 or more. Has each band data?")
        exact = np.finfo(np.float32)
        if max(np.abs(means).max(), stds.max()) > exact.max:
            raise ConfigError(f"mean={mean!r}, std={std!r}: expected numbers that float32 holds, up to {exact.max:.3g}")
        flat = stds <= np.maximum(exact.eps * np.abs(means), exact.tiny)  # what float32 does not tell apart
        if flat.any():
            bands = ", ".join(str(band) for band in np.flatnonzero(flat) + 1)
            text = f"layer {layer!r}: all pixels of band {bands} are equal in float32, and become 0"
            warnings.warn(text, PgtilesWarning, stacklevel=2)
        self.layer = layer
        self.register_buffer("mean", torch.tensor(means, dtype=torch.float32)[:, None, None])
        self.register_buffer(
            "std", torch.tensor(np.where(flat, np.maximum(1, np.abs(means)), stds), dtype=torch.float32)[:, None, None]
        )

        self.register_buffer("kind", torch.empty(0), persistent=False)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Normalize:
        """What `to`, `half` and such do: mean and std stay float32, as float16 ends at 65504 and has three digits."""
        exact = {"mean": self.mean, "std": self.std}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in exact.items():
            if (now := getattr(self, name)).dtype != before.dtype:
                setattr(self, name, before.to(now.device))
        return self

    @classmethod
    def from_statistics(cls, statistics: Statistics, layer: str = "image") -> Normalize:
        """By the means and standard deviations of a layer's bands."""
        return cls(statistics.mean(layer), statistics.std(layer), layer=layer)

    @overload
    def forward(self, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor: ...
    @overload
    def forward(self, pixels: Sample, generator: torch.Generator | None = None) -> Sample: ...
    def forward(self, pixels: torch.Tensor | Sample, generator: torch.Generator | None = None) -> torch.Tensor | Sample:
        """Normalised pixels, or the sample with them. generator: what a dataset hands to its transform; not needed."""
        if isinstance(pixels, dict):
            if self.layer not in pixels:
                raise ConfigError(f"the sample has no {self.layer!r}: expected that key among {', '.join(map(str, pixels))}")
            return pixels | {self.layer: self.forward(pixels[self.layer])}
        if pixels.ndim < 3 or pixels.shape[-3] != len(self.mean):
            raise ConfigError(f"a tensor of shape {tuple(pixels.shape)}: expected (…, {len(self.mean)}, height, width)")
        return ((pixels.float() - self.mean) / self.std).to(self.kind.dtype)

    def extra_repr(self) -> str:
        """Shown where the module is printed."""
        return f"{len(self.mean)} bands, layer={self.layer!r}"
