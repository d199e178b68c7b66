"""What the numbers of a class raster mean: their names, as a comment in the database says them, and the colours of a mask."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, LoadError

PREFIX = "classes: "
COLOUR = re.compile("#[0-9a-fA-F]{6}")
NO_COLOUR = 1 << 24  # above all colours: an entry that a file's colour table lacks

Colours = Mapping[str, str | tuple[int, str]]
RGB = tuple[int, int, int]


def comment(names: Mapping[int, str]) -> str:
    """The names of values as a comment, for people and for `names_in`: ``classes: {"road": 1, "building": 2}``."""
    return PREFIX + json.dumps({name: value for value, name in names.items()}, ensure_ascii=False)


def names_in(text: str | None) -> dict[int, str]:
    """The names of values that a comment says; none where it is another's."""
    try:
        said = json.loads(text.removeprefix(PREFIX)) if text and text.startswith(PREFIX) else {}
    except ValueError:
        return {}
    whole = isinstance(said, dict) and all(type(value) is int for value in said.values())
    return {value: name for name, value in said.items()} if whole else {}


@dataclass(frozen=True)
class Legend:
    """The classes of a colour-coded mask."""

    names: dict[int, str]
    """Of the values."""
    values: dict[int, int]
    """Of the colours, which are numbers: 0xrrggbb."""


def legend(colours: Colours) -> Legend:
    """The classes that a mapping says: a colour for each name, ``"#rrggbb"`` or ``(value, "#rrggbb")``.

    Raises `ConfigError` where it says one wrongly, or a value or colour twice.
    """
    names: dict[int, str] = {}
    values: dict[int, int] = {}
    if not isinstance(colours, Mapping) or not colours:
        raise ConfigError(f"colours={colours!r:.80}: expected a colour for each class's name, such as {{'road': '#ff0000'}}")
    for place, (name, said) in enumerate(colours.items(), 1):
        value, colour = said if isinstance(said, tuple) and len(said) == 2 else (place, said)
        if not isinstance(name, str) or not name or not isinstance(colour, str) or not COLOUR.fullmatch(colour):
            raise ConfigError(f"colours: {name!r}: {said!r:.80}: expected a name, and for it '#rrggbb' or (value, '#rrggbb')")
        if type(value) is not int or not 0 <= value <= 255:
            raise ConfigError(f"colours: class {name!r} has the value {value!r}: expected a whole number, 0 to 255")
        code = int(colour[1:], 16)
        if value in names or code in values:
            other = names.get(value) or names[values[code]]
            raise ConfigError(f"colours: classes {other!r} and {name!r} both have {value if value in names else colour}")
        names[value], values[code] = name, value
    return Legend(names, values)


def colours_of(text: str) -> dict[str, str | tuple[int, str]]:
    """The same mapping from one line, ``road=#ff0000,water=9:#0000ff``."""
    colours: dict[str, str | tuple[int, str]] = {}
    for said in text.split(","):
        name, _, colour = (part.strip() for part in said.rpartition("="))
        value, colon, code = colour.partition(":")
        if not name or not COLOUR.fullmatch(code if colon else colour) or (colon and not re.fullmatch("[0-9]+", value)):
            raise ConfigError(f"--colours: {said.strip()!r}: expected NAME=#rrggbb or NAME=VALUE:#rrggbb, with commas between")
        if name in colours:
            raise ConfigError(f"--colours: {name!r} is given twice")
        colours[name] = (int(value), code) if colon else colour
    return colours


@dataclass
class Recoding:
    """The colours of one file become values, window by window; those that the legend lacks are counted.

    palette: the file's colour table, where its pixels are numbers of entries; None where they are red, green and blue.
    """

    path: str
    legend: Legend
    palette: Mapping[int, RGB] | None
    lossy: bool
    unknown: dict[int, tuple[int, tuple[int, int]]] = field(default_factory=dict)  # pixels, and row and column of the first

    def __post_init__(self) -> None:
        self._codes = np.array(sorted(self.legend.values), np.uint32)
        self._values = np.array([self.legend.values[code] for code in self._codes.tolist()], np.uint8)
        self._entries = np.arange(256, dtype=np.uint32) | NO_COLOUR
        for entry, (red, green, blue) in (self.palette or {}).items():
            self._entries[entry] = red << 16 | green << 8 | blue

    def __call__(self, pixels: NDArray[np.uint8], top: int, left: int) -> NDArray[np.uint8]:
        """Values (1, height, width) of a window, whose upper left pixel this is; 0 where the colour is unknown."""
        if self.palette is not None:
            codes = self._entries[pixels[0]]
        else:
            red, green, blue = pixels.astype(np.uint32)
            codes = red << 16 | green << 8 | blue
        place = np.searchsorted(self._codes, codes).clip(max=len(self._codes) - 1)
        known = self._codes[place] == codes
        if not known.all():
            rows, columns = np.nonzero(~known)
            found, first, counts = np.unique(codes[rows, columns], return_index=True, return_counts=True)
            for code, index, count in zip(found.tolist(), first.tolist(), counts.tolist(), strict=True):
                at = (top + int(rows[index]), left + int(columns[index]))
                before, earlier = self.unknown.get(code, (0, at))
                self.unknown[code] = before + count, min(earlier, at)
        return np.where(known, self._values[place], 0).astype(np.uint8)[None]

    def finish(self) -> None:
        """Raise `LoadError` where there was a colour that is no class's."""
        if not self.unknown:
            return
        often = sorted(self.unknown.items(), key=lambda item: (-item[1][0], item[1][1]))
        listed = "; ".join(
            f"{_said(code)} at {count} pixel{'s' * (count > 1)}, the first in row {row}, column {column}"
            for code, (count, (row, column)) in often[:3]
        )
        more = f"; and {len(often) - 3} more colours" if often[3:] else ""
        advice = (
            "it is compressed with loss, which changes colours: find the mask as PNG or GeoTIFF without loss"
            if self.lossy
            else "name each colour in colours= (--colours), one that is no class's too: {'unknown': (0, '#rrggbb')}"
        )
        raise LoadError(f"{self.path} has colours that are no class's (rows and columns from 0): {listed}{more}; {advice}")


def _said(code: int) -> str:
    return f"#{code:06x}" if code < NO_COLOUR else f"entry {code - NO_COLOUR}, which its colour table lacks,"
