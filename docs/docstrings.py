"""Arguments in docstrings, ``name: what it means``, as a list on the page.

Most docstrings of pgtiles name their arguments in a paragraph of such lines, some under ``Args:``; Markdown would run the
former together. Both become definition lists here.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ITEM = re.compile(r"(\w+(?:, \w+)*): +(.*)")


class Arguments(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_function(self, *, func: Any, **_: Any) -> None:
        """A function's or a method's arguments."""
        _rewrite(func, {parameter.name for parameter in func.parameters})

    def on_class(self, *, cls: Any, **_: Any) -> None:
        """A class's fields, and what its constructor takes."""
        init = cls.members.get("__init__")
        _rewrite(cls, set(cls.members) | ({parameter.name for parameter in init.parameters} if init is not None else set()))


def _rewrite(thing: Object, names: set[str]) -> None:
    if thing.docstring is None:
        return
    paragraphs = re.split(r"\n{2,}", thing.docstring.value)
    thing.docstring.value = "\n\n".join(_listed(paragraph, names) for paragraph in paragraphs)


def _listed(paragraph: str, names: set[str]) -> str:
    """The paragraph, its lines about arguments as a definition list; other lines go on with what stands before them."""
    before: list[str] = []
    items: list[tuple[str, list[str]]] = []
    for line in (line.strip() for line in paragraph.removeprefix("Args:\n").splitlines()):
        found = ITEM.match(line)
        if found and set(found[1].split(", ")) <= names:
            items.append((found[1], [found[2]]))
        else:
            (items[-1][1] if items else before).append(line)
    if not items:
        return paragraph
    terms = [f"`{name.replace(', ', '`, `')}`\n:   {' '.join(text)}" for name, text in items]
    return "\n\n".join([*([" ".join(before)] if before else []), *terms])
