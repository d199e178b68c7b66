"""Models as they are given: an object, a file, or a function by its name."""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigError, MissingError
from .digests import digest_of

TRAINS = {"train", "training"}  # arguments of operations by which training differs
TRAINS_TRACED = {"aten::dropout": "train", "aten::feature_dropout": "train", "aten::batch_norm": "training"}

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
            program = torch.export.load(path)
            call: Any = program.module()
            trains = _trains_exported(program)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*torch.jit.load.*deprecated", DeprecationWarning)
                call = torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-untyped-call]
            trains = _trains_scripted(call)
    except Exception as error:  # torch raises what its parts do: of zip, of pickle, of its own
        said = str(error).strip().partition("\n")[0] or repr(error)
        raise ConfigError(
            f"{path} can't be read as a model: {said}; expected what torch.export.save wrote (its name ends in .pt2), or "
            "torch.jit.save. Weights alone (a state_dict) are no model: name a function that uses them, module:function"
        ) from error
    if trains:
        raise ConfigError(
            f"{path} was made of a model that was training ({trains}): what it says of a tile would depend on chance, or on "
            "the tiles beside it. Say model.eval() before it is exported or traced"
        )
    with path.open("rb") as file:
        return Model(call, path.name, hashlib.file_digest(file, "sha256").hexdigest())


def _trains_exported(program: torch.export.ExportedProgram) -> str:
    """An operation that was exported as it is in training, if there is any."""
    for node in program.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        names = [argument.name for argument in schema.arguments] if schema else []
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        if TRAINS & {name for name, value in given.items() if value is True} and given.get("running_mean", 0) is not None:
            return str(node.target)
    return ""


def _trains_scripted(model: torch.jit.ScriptModule) -> str:
    """The same of one that was traced: scripted ones ask whether they train."""
    graph = model.inlined_graph  # which has to outlive its nodes
    for kind, name in TRAINS_TRACED.items():
        for node in graph.findAllNodes(kind):  # type: ignore[attr-defined]  # torch's stubs lack it
            mean = node.namedInput("running_mean").type().kind() if kind == "aten::batch_norm" else ""
            if node.namedInput(name).toIValue() is True and mean != "NoneType":
                return kind
    return ""
