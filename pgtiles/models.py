"""Models, as predicting needs them: given or read from a file, asked for a batch, and held against what a map needs."""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .digests import digest_of, modules_of
from .errors import ConfigError, DataError, MissingError

ACTIVATIONS = ("softmax", "sigmoid", "none")
FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))  # the dimensions that each look turns over

Given = Callable[..., Any] | str | Path


@dataclass(frozen=True)
class Model:
    """A model: what gives a tensor for one, its name, and a digest of its weights or code."""

    call: Callable[..., Any]
    name: str
    digest: str


def opened(model: Given) -> Model:
    """A model that is given, or in a file of torch.export (.pt2) or TorchScript, or named as ``module:function``."""
    if isinstance(model, str) and ":" in model and not Path(model).exists():
        return _named(model)
    if isinstance(model, str | Path):
        return _from_file(Path(model))
    if not callable(model):
        raise ConfigError(f"model={model!r}: expected a module of torch, a function, the name of a file, or 'module:function'")
    return Model(model, getattr(model, "__qualname__", type(model).__name__), digest_of(model))


def _named(text: str) -> Model:
    module, _, name = text.rpartition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise MissingError(
            f"model {text!r}: {error}; expected a file, or module:function, which Python can import from here"
        ) from error
    if not callable(found):
        raise ConfigError(f"model {text!r} is a {type(found).__name__}: expected something that takes a batch and gives one")
    return Model(found, text, digest_of(found))


def _from_file(path: Path) -> Model:
    if not path.is_file():
        raise MissingError(f"there is no file {path}; a function is named as module:function")
    try:
        if path.suffix == ".pt2":
            call: Any = torch.export.load(path).module()
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*torch.jit.load.*deprecated", DeprecationWarning)
                call = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises what its parts do: of zip, of pickle, of its own
        said = str(error).strip().partition("\n")[0] or repr(error)
        raise ConfigError(
            f"{path} can't be read as a model: {said}; expected what torch.export.save wrote (its name ends in .pt2), or "
            "torch.jit.save. Weights alone (a state_dict) are no model: name a function that uses them, module:function"
        ) from error
    with path.open("rb") as file:
        return Model(call, path.name, hashlib.file_digest(file, "sha256").hexdigest())


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
        with torch.inference_mode():
            looks = [self._look(given, dims) for dims in (FLIPS if self.flips else FLIPS[:1])]
            mean = looks[0] if len(looks) == 1 else ((looks[0] + looks[1]) + (looks[2] + looks[3])) / 4
            answer: NDArray[np.float32] = mean[:count].cpu().numpy()
        return answer

    def _filled(self, tensor: torch.Tensor) -> torch.Tensor:
        lacking = self.batch - len(tensor)
        return torch.cat([tensor, tensor[-1:].expand(lacking, *tensor.shape[1:])]) if lacking else tensor

    def _look(self, given: Sequence[torch.Tensor], dims: tuple[int, ...]) -> torch.Tensor:
        try:
            answer = self.model.call(*(tensor.flip(dims) if dims else tensor for tensor in given))
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
            with suppress(NotImplementedError):  # one of torch.export is as it was exported
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
    wrong = ~np.isfinite(values)
    what = "no number (NaN or infinite)"
    if not wrong.any() and kind == "probabilities":
        wrong, what = (values < 0) | (values > 1), "no probability, which is 0 to 1 (activation= makes them of logits)"
    if valid is not None:
        wrong &= valid[:, None]
    if wrong.any():
        tile, band = np.argwhere(wrong)[0][:2]
        count, pixels = int(wrong[tile, band].sum()), wrong[tile, band].size
        raise DataError(
            f"{where(int(tile))}: the model gives {values[wrong][0]} in band {band + 1}, {what}, at {count} of {pixels} "
            "pixels. Is its input of the range that it was trained on, and its training sound?"
        )
