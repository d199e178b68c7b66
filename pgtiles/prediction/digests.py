"""A digest of a model or a function: the same in every process, another where its weights or code are others.

Things are taken apart: a function into its code and what that holds on to, any other object as pickle would. Functions of
libraries are told by their names, for what those refer to is theirs, and may change as they run.
"""

from __future__ import annotations

import dis
import hashlib
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

ATOMS = int, float, complex, str, bytes, type(None), type(...), type, types.ModuleType, types.BuiltinFunctionType
HELD = (  # what is looked at of the names that a function finds in its module
    torch.nn.Module, torch.Tensor, types.FunctionType, types.MethodType, partial, list, tuple, dict, set, frozenset,
    np.ndarray, np.generic, int, float, complex, str, bytes,
)  # fmt: skip


def digest_of(thing: Any) -> str:
    """A digest of a module's weights or a function's code, with what it holds on to: the same in every process."""
    return _digest(thing, {}, [])


def _digest(thing: Any, known: dict[int, str], kept: list[Any]) -> str:
    """known: digests of what was met already, by its id; kept: so that ids stay theirs."""
    if id(thing) not in known:
        known[id(thing)] = "again"  # for what holds itself
        kept.append(thing)
        parts = [_digest(part, known, kept) for part in _parts(thing)]
        said = hashlib.sha256(f"{type(thing).__qualname__} {len(parts)} ".encode())
        said.update(_told(thing))
        said.update(" ".join(parts).encode())
        known[id(thing)] = said.hexdigest()
    return known[id(thing)]


def modules_of(thing: Any) -> list[torch.nn.Module]:
    """The modules of torch that a function, or another object, holds on to; or the module itself."""
    found, seen, left = list[torch.nn.Module](), dict[int, Any](), [thing]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, torch.nn.Module):
            found.append(one)
        else:
            left += reversed(list(_parts(one)))
    return found


def _told(thing: Any) -> bytes:
    """What it is itself, without its parts."""
    if isinstance(thing, torch.Tensor):
        bare = thing.detach().cpu().contiguous()
        numbers = bare.reshape(-1).view(torch.uint8).numpy().tobytes() if bare.numel() else b""
        return f"{bare.dtype} {tuple(bare.shape)} ".encode() + numbers
    if isinstance(thing, np.ndarray | np.generic):
        return f"{thing.dtype} {thing.shape} ".encode() + (b"" if thing.dtype.hasobject else thing.tobytes())
    if isinstance(thing, torch.nn.Module):
        return " ".join([str(thing), *thing.state_dict(), str(getattr(thing, "code", ""))]).encode()
    if isinstance(thing, types.CodeType):
        return thing.co_name.encode() + thing.co_code + " ".join(thing.co_names).encode()
    if isinstance(thing, type | types.BuiltinFunctionType | types.FunctionType):
        return f"{thing.__module__ if _of_library(thing) else 'ours'}.{thing.__qualname__}".encode()
    if isinstance(thing, types.ModuleType):
        return thing.__name__.encode()
    return repr(thing).encode() if isinstance(thing, ATOMS) else b""


def _parts(thing: Any) -> Iterator[Any]:
    """What it is made of."""
    if isinstance(thing, torch.nn.Module):
        yield from thing.state_dict().values()
        for kind in dict.fromkeys(type(part) for part in thing.modules()):
            yield from _codes(kind)
    elif isinstance(thing, partial):
        yield from (thing.func, *thing.args, *sorted(thing.keywords.items()))
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        if not _of_library(thing):
            yield from (thing.__code__, *_globals(thing))
        yield from (thing.__defaults__, thing.__kwdefaults__, *(cell.cell_contents for cell in thing.__closure__ or ()))
    elif isinstance(thing, types.CodeType):
        yield from thing.co_consts
    elif isinstance(thing, dict):
        for item in thing.items():
            yield from item
    elif isinstance(thing, set | frozenset):
        yield from sorted(thing, key=digest_of)
    elif isinstance(thing, list | tuple):
        yield from thing
    elif isinstance(thing, np.ndarray) and thing.dtype.hasobject:
        yield from thing.ravel().tolist()
    elif not isinstance(thing, (*ATOMS, torch.Tensor, np.ndarray, np.generic)):
        yield from _codes(type(thing))
        try:
            made = thing.__reduce_ex__(4)
        except Exception:  # what does not pickle, as a lock, is told by its type alone
            return
        yield from [made] if isinstance(made, str) else [part if i < 3 else list(part or ()) for i, part in enumerate(made[:5])]


def _codes(kind: type) -> Iterator[types.CodeType]:
    """The code of a class that is no library's."""
    for base in kind.__mro__:
        for member in vars(base).values():
            if isinstance(member, types.FunctionType) and not _of_library(member):
                yield member.__code__


def _globals(function: types.FunctionType) -> Iterator[Any]:
    """What a function finds in its module, but for classes, modules and objects of libraries."""
    names, codes = list[str](), [function.__code__]
    while codes:
        code = codes.pop()
        names += [step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"]
        codes += [part for part in code.co_consts if isinstance(part, types.CodeType)]
    for name in dict.fromkeys(names):
        found = function.__globals__.get(name)
        if isinstance(found, HELD) or not (found is None or isinstance(found, ATOMS) or _of_library(type(found))):
            yield found


def _of_library(thing: type | types.FunctionType | types.BuiltinFunctionType) -> bool:
    """Whether Python itself or an installed package has it."""
    if isinstance(thing, types.FunctionType):
        file = thing.__code__.co_filename
    else:
        module = sys.modules.get(thing.__module__ or "")
        file = "" if thing.__module__ == "__main__" else getattr(module, "__file__", None) or "<frozen>"
    parts = Path(file).parts
    own = file.startswith("<frozen") or "site-packages" in parts or "dist-packages" in parts
    return own or file.startswith(str(Path(dis.__file__).parent) + "/")
