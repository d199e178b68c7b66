"""Layers as JSON has them: what was asked for, and what their rows become. So a table can say what was baked into it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, cast

import numpy as np

from ..errors import ConfigError
from .canvas import Mask, Sheet
from .pixels import Pixels
from .query import text_of
from .records import BoxSheet, InstanceSheet, ValueSheet
from .timeseries import Steps

SHEETS = {kind.__name__: kind for kind in (Pixels, Mask, BoxSheet, InstanceSheet, ValueSheet, Steps)}

Json = dict[str, Any]


def wish_said(wanted: Any) -> Any:
    """What the user asked for, as JSON has it: of a layer what was said, without what was left as it is."""
    if is_dataclass(wanted):
        said = {field.name: wish_said(getattr(wanted, field.name)) for field in fields(wanted)}
        left = {field.name: wish_said(field.default) for field in fields(wanted) if field.default is not MISSING}
        kept = {name: value for name, value in said.items() if name not in left or value != left[name]}
        return {"layer": type(wanted).__name__} | kept
    if isinstance(wanted, Mapping):
        return {str(key): wish_said(value) for key, value in wanted.items()}
    if isinstance(wanted, list | tuple):
        return [wish_said(value) for value in wanted]
    if wanted is None or isinstance(wanted, str | int | float | np.generic):
        return plain(wanted)
    return text_of(wanted) if hasattr(wanted, "compile") else str(wanted)  # SQLAlchemy's; a geometry, a time


def differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    """What two settings differ in, in words."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from differences(there.get(key), here.get(key), f"{where} {key}".strip())
    elif there != here:
        yield f"{where} was {json.dumps(there, ensure_ascii=False)}, now {json.dumps(here, ensure_ascii=False)}"


def sheet_said(sheet: Sheet) -> Json:
    """A sheet as JSON has it."""
    if type(sheet).__name__ not in SHEETS:
        raise ConfigError(f"a layer of {type(sheet).__name__} can't be baked: known are {', '.join(SHEETS)}")
    values = {field.name: getattr(sheet, field.name) for field in fields(cast("Any", sheet))}
    return {"kind": type(sheet).__name__} | {
        name: sheet_said(value) if isinstance(value, Pixels) else plain(value) for name, value in values.items()
    }


def sheet_of(sheet: Json) -> Sheet:
    """The sheet that was described."""
    values = {name: _value(value) for name, value in sheet.items() if name != "kind"}
    return cast("Sheet", SHEETS[sheet["kind"]](**values))


def plain(value: Any) -> Any:
    """Numbers, text, sequences and mappings as JSON has them."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    return {"number": str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["number"]) if "number" in value else sheet_of(value)
    return tuple(map(_value, value)) if isinstance(value, list) else value
