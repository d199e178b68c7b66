"""A module imports only from lower floors: the drawing in DESIGN.md, held by the code's own imports."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pgtiles"
FLOORS = [  # from the ground up; a folder is one room, in which no modules import each other in a circle
    {"errors", "template", "tile"},
    {"postgres", "samples"},
    {"tiling"},
    {"layers", "plot", "runs"},
    {"targets", "loading", "streaming"},
    {"inspection", "load"},
    {"baking", "polygons", "evaluation"},
    {"dataset", "normalize"},
    {"prediction", "exports"},
    {"shell"},
    {"__init__", "__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FILES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """Modules of the package that the module imports, anywhere in it, lazily or not: those of a folder as folder.module."""
    found, home = set(), module.split(".")[:-1]
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                parts = home[: len(home) + 1 - node.level] + parts
            elif parts.pop(0) != "pgtiles":
                continue
            named = ".".join(parts)
            found |= {named} if named in FILES else {".".join([*parts, alias.name]) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("pgtiles.") for alias in node.names if alias.name.startswith("pgtiles.")}
    return found & set(FILES)


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", FILES)
def test_imports_go_down(module):
    assert room(module) in FLOOR, f"{room(module)} has no floor: give it one here and in DESIGN.md"
    floor = FLOOR[room(module)]
    wrong = {name for name in imports(module) if room(name) != room(module) and FLOOR[room(name)] >= floor}
    assert not wrong, f"{module} (floor {floor}) imports {sorted(wrong)}, which do not stand below it"


def test_no_circles():
    TopologicalSorter({module: imports(module) for module in FILES}).prepare()


def test_imports_are_found():
    assert imports("streaming.reading") >= {"errors", "postgres.database", "tiling.tiles", "layers.query"}
    assert imports("shell.mapcommands") >= {"baking", "dataset", "shell.view"}  # by name, lazily, within a room
    assert imports("__main__") == {"shell.cli"}


def test_no_room_is_a_ghost_and_design_knows_each():
    assert {room(module) for module in FILES} == set(FLOOR)
    design = (PACKAGE.parent / "DESIGN.md").read_text().partition("## Floors")[2].partition("\n## ")[0]
    for name in set(FLOOR) - {"__init__", "__main__"}:
        assert f"`{name}`" in design, name
