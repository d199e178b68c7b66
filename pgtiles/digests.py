"""A digest of a model or a function: the same in every process, another where its weights or code are others."""

from __future__ import annotations

import hashlib
import pickle
import types
from functools import partial
from typing import Any

import torch


def digest_of(thing: Any) -> str:
    """A digest of a module's weights or a function's code, with what it holds on to: the same in every process."""
    digest = hashlib.sha256()
    _feed(digest, thing, set())
    return digest.hexdigest()


def _feed(digest: Any, thing: Any, seen: set[int]) -> None:
    """Add what makes a thing behave as it does. seen: functions that were added already, which may call each other."""
    digest.update(f"\n{type(thing).__qualname__} ".encode())
    if isinstance(thing, torch.nn.Module):
        digest.update(str(thing).encode())
        for name, value in thing.state_dict().items():
            digest.update(name.encode())
            _feed(digest, value, seen)
    elif isinstance(thing, torch.Tensor):
        bare = thing.detach().cpu().contiguous()
        digest.update(f"{bare.dtype} {tuple(bare.shape)}".encode())
        digest.update(bare.reshape(-1).view(torch.uint8).numpy().tobytes() if bare.numel() else b"")
    elif isinstance(thing, partial):
        for part in (thing.func, *thing.args, *sorted(thing.keywords.items())):
            _feed(digest, part, seen)
    elif isinstance(thing, types.MethodType):
        _feed(digest, thing.__self__, seen)
        _feed(digest, thing.__func__, seen)
    elif isinstance(thing, types.FunctionType):
        if id(thing) not in seen:
            seen.add(id(thing))
            cells = (cell.cell_contents for cell in thing.__closure__ or ())
            for part in (thing.__code__, *(thing.__defaults__ or ()), *cells, *_globals(thing)):
                _feed(digest, part, seen)
    elif isinstance(thing, types.CodeType):
        digest.update(thing.co_name.encode() + thing.co_code + " ".join(thing.co_names).encode())
        for part in thing.co_consts:
            _feed(digest, part, seen)
    elif isinstance(thing, list | tuple):
        for part in thing:
            _feed(digest, part, seen)
    else:
        try:  # a number, a text, an object of the user's
            digest.update(pickle.dumps(thing, protocol=4))
        except Exception:  # what does not pickle is told by its type alone
            digest.update(f"{type(thing).__module__}".encode())


def modules_of(thing: Any, seen: set[int] | None = None) -> list[torch.nn.Module]:
    """The modules of torch that a function holds on to, or the module itself."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if isinstance(thing, torch.nn.Module):
        return [thing]
    if isinstance(thing, partial):
        parts = [thing.func, *thing.args, *thing.keywords.values()]
    elif isinstance(thing, types.MethodType):
        parts = [thing.__self__, thing.__func__]
    elif isinstance(thing, types.FunctionType):
        parts = [*(cell.cell_contents for cell in thing.__closure__ or ()), *_globals(thing)]
    else:
        return []
    return [module for part in parts for module in modules_of(part, seen)]


def _globals(function: types.FunctionType) -> list[Any]:
    """What a function finds in its module that may be a model, or a part of one."""
    names, codes = list[str](), [function.__code__]
    while codes:
        code = codes.pop()
        names += code.co_names
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    found = (function.__globals__.get(name) for name in dict.fromkeys(names))
    return [one for one in found if isinstance(one, torch.nn.Module | torch.Tensor | types.FunctionType | partial)]
