"""A module imports only from lower floors: the drawing in DESIGN.md, held by the code's own imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "pgtiles"
FLOORS = [
    {"errors"},
    {
        "template",
        "programs",
        "grid",
        "order",
        "ahead",
        "orphans",
        "faults",
        "wkb",
        "samples",
        "tile",
        "legend",
        "commonest",
        "bins",
        "clusters",
        "usersql",
        "land",
        "dealing",
        "metrics",
        "blending",
        "borders",
    },
    {"catalog", "webmap", "zones", "places", "draws", "splits", "boundaries", "strips", "kinds", "tracing"},
    {"regions", "keeping"},
    {"geoparquet", "tiletable", "tileset", "grouping", "splitting"},
    {"tiles", "moments"},
    {"server", "rasterfile", "vectorfile", "canvas", "copyout", "connecting", "retrying", "translating"},
    {"records", "pixels", "passwords", "pictures"},
    {"database", "osm2pgsql"},
    {"query", "newtable", "outdb", "resampling", "runs", "writing"},
    {"features", "firstlabel", "timeseries"},
    {"rastersource", "burning", "rastertable", "vectortable", "osmtables", "describing", "exported", "simplifying"},
    {
        "exportfolder",
        "annotations",
        "pairs",
        "shards",
        "areas",
        "ignoring",
        "rasters",
        "sharing",
        "tablecheck",
        "errortable",
        "attributes",
        "overviews",
    },
    {"exportnotes", "imagery", "labels", "sampletables", "chiptable", "bakedtable", "predictiontable", "placecheck"},
    {"reading", "load", "targets", "statistics", "plot", "bysrid", "resuming", "parcel", "ranks", "course"},
    {"provenance"},
    {"baking", "measuring", "timing", "surviving", "scores", "stats", "loader", "digests", "classrasters"},
    {"checking", "objects", "comparing", "vectorizing", "modelfiles"},
    {"explaining", "scoring"},
    {"dataset", "normalize", "view", "models"},
    {"exportasked", "exportlots"},
    {"exporting", "starter", "benching", "seeing"},
    {"predicting"},
    {"reports"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}


def imports(path: Path) -> set[str]:
    """Modules of the package that the file imports, anywhere in it, lazily or not."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if (node.level == 1 and not node.module) or parts == ["pgtiles"]:
                found |= {alias.name for alias in node.names if alias.name in FLOOR}
            elif node.level == 1:
                found.add(parts[0])
            elif parts[0] == "pgtiles":
                found.add(parts[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("pgtiles.")}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda p: p.stem)
def test_imports_go_down(path):
    assert path.stem in FLOOR, f"{path.stem} has no floor: give it one here and in DESIGN.md"
    wrong = {name for name in imports(path) if FLOOR[name] >= FLOOR[path.stem]}
    assert not wrong, f"{path.stem} (floor {FLOOR[path.stem]}) imports {sorted(wrong)}, which do not stand below it"


def test_no_module_is_a_ghost():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(FLOOR)
