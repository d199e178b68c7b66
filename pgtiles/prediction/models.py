"""A model, asked for batches, and held against what a map needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .digests import modules_of
from .modelfiles import Model

ACTIVATIONS = ("softmax", "sigmoid", "none")
SLACK = 1e-3  # by which a probability may be off, as sums of rounded numbers are
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # the dimensions that each look turns over


@dataclass(frozen=True)
class Runner:
    """A model that is asked for batches.

    inputs: keys of the batch, which the model takes in this order.
    size: height and width of a tile, which the model's answer has.
    kind: as of `pgtiles.predict`, as are the next ones.
    batch: tiles that the model gets at once; a last lot that is smaller is filled up, for a model may take no other number.
    said: what each layer gives, for errors.
    """

    model: Model
    inputs: Sequence[str]
    size: tuple[int, int]
    kind: str
    activation: str | None
    flips: bool
    device: torch.device
    batch: int
    said: str

    def __call__(self, sample: Mapping[str, Any]) -> NDArray[np.float32]:
        """Its answer to a batch.  → (tiles, bands, height, width)"""
        count = len(sample["tile_id"])
        given = [self._filled(sample[key]).to(self.device, non_blocking=True) for key in self.inputs]
        with torch.no_grad():  # under inference_mode, what a model keeps for later could not be trained with
            looks = [self._look(given, dims) for dims in (FLIPS if self.flips else FLIPS[:1])]
            mean = looks[0] if len(looks) == 1 else ((looks[0] + looks[1]) + (looks[2] + looks[3])) / 4
            answer: NDArray[np.float32] = mean[:count].cpu().numpy()
        return answer

    def _filled(self, tensor: torch.Tensor) -> torch.Tensor:
        lacking = self.batch - len(tensor)
        return torch.cat([tensor, tensor[-1:].expand(lacking, *tensor.shape[1:])]) if lacking else tensor

    def _look(self, given: Sequence[torch.Tensor], dims: tuple[int, ...]) -> torch.Tensor:
        try:
            answer = self.model.call(*(tensor.flip(dims) if dims and tensor.ndim > 2 else tensor for tensor in given))
        except (RuntimeError, AssertionError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise ConfigError(
                    f"{error}\nthe batches are too large for {self.device}: give the dataset a smaller batch_size"
                ) from error
            raise ConfigError(
                f"the model {self.model.name!r} does not take what it gets: {str(error).strip()}\nit gets {self.said}, "
                f"{self.batch} tiles at once. Other bands: bands=(1, 2, 3) of Imagery. Floats, or other numbers: the dataset's "
                "transform=, such as Normalize. An exported model takes the number of tiles with which it was exported, unless "
                "that was dynamic: the dataset's batch_size="
            ) from error
        return self._activated(self._checked(answer)).flip(dims)

    def _checked(self, answer: Any) -> torch.Tensor:
        if not isinstance(answer, torch.Tensor):
            raise ConfigError(
                f"the model {self.model.name!r} gives a {type(answer).__name__}: expected a tensor (tiles, bands, height, "
                "width). A function around it takes out what is meant: lambda image: model(image)['out']"
            )
        wanted = (self.batch, *self.size)
        if answer.ndim == 3 and tuple(answer.shape) == wanted:
            answer = answer[:, None]
        if answer.ndim != 4 or (len(answer), *answer.shape[2:]) != wanted or not answer.shape[1]:
            raise ConfigError(
                f"the model {self.model.name!r} gives {tuple(answer.shape)}: expected ({self.batch}, bands, {self.size[0]}, "
                f"{self.size[1]}), a pixel for each of the tile's; it gets {self.said}. A model that shrinks its tiles needs "
                "padding, or has its answer enlarged with torch.nn.functional.interpolate"
            )
        if answer.is_complex():
            raise ConfigError(f"the model {self.model.name!r} gives {answer.dtype}: expected real numbers")
        if not answer.is_floating_point() and self.kind != "values" and self.activation != "none":
            raise ConfigError(
                f"the model {self.model.name!r} gives {answer.dtype}: for kind={self.kind!r} it is to give what is before "
                "softmax or sigmoid, a band for each class, as floats. One that gives classes' numbers has to leave out its "
                "argmax, for numbers can't be blended; activation='none' takes shares from 0 to 1 as they are"
            )
        real: torch.Tensor = answer.float()
        return real

    def _activated(self, answer: torch.Tensor) -> torch.Tensor:
        kind = self.activation or ("none" if self.kind == "values" else "softmax" if answer.shape[1] > 1 else "sigmoid")
        if kind == "none":
            return answer
        if kind == "softmax" and answer.shape[1] == 1:
            raise ConfigError("activation='softmax' of one band is 1 everywhere: a model of one band has activation='sigmoid'")
        return answer.softmax(1) if kind == "softmax" else answer.sigmoid()

    @contextmanager
    def ready(self, device: str | torch.device | None) -> Any:
        """The model as it predicts, on the device if one is asked for; its parts are trained on as before afterwards.

        A function's modules predict, too, where it holds on to any.
        """
        modules = modules_of(self.model.call)
        before = [(part, part.training) for module in modules for part in module.modules()]
        for module in modules:
            if device is not None:
                module.to(self.device)
            with suppress(NotImplementedError):  # one of torch.export is as it was exported, which was in eval mode
                module.eval()
        try:
            yield
        finally:
            for part, training in before:
                part.training = training


def device_of(model: Model, device: str | torch.device | None) -> torch.device:
    """The device that is asked for, or else the one on which the model's weights are."""
    if device is None:
        first = next((weights for module in modules_of(model.call) for weights in module.parameters()), None)
        return torch.device("cpu") if first is None else first.device
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device!r}: {str(error).strip().splitlines()[0]}") from error
    return found


def require_numbers(
    values: NDArray[np.float32], valid: NDArray[np.bool_] | None, kind: str, where: Callable[[int], str]
) -> None:
    """`DataError` where an answer, (tiles, bands, height, width), is no number, or no probability where one is meant.

    valid: (tiles, height, width), where there was imagery. where: says which tile it is.
    """
    there = np.True_ if valid is None else valid[:, None]
    wrong, what = ~np.isfinite(values) & there, "no number (NaN or infinite)"
    if not wrong.any() and (kind == "probabilities" or (kind == "classes" and values.shape[1] == 1)):
        wrong = ((values < -SLACK) | (values > 1 + SLACK)) & there
        what = "no probability, which is 0 to 1 (activation= makes them of logits)"
    if wrong.any():
        tile, band = np.argwhere(wrong)[0][:2]
        count, pixels = int(wrong[tile, band].sum()), wrong[tile, band].size
        raise DataError(
            f"{where(int(tile))}: the model gives {values[wrong][0]} in band {band + 1}, {what}, at {count} of {pixels} "
            "pixels. Is its input of the range that it was trained on, and its training sound?"
        )
