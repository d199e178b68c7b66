"""Draws the pictures of docs/label-queries.md: every recipe is read from the page and run, on the centre of Helsinki.

    python docs/pictures.py [--url postgresql://…] [recipe …]

It works in a schema of its own, label_queries, which it drops at the end. Left is a plain drawing of what is mapped, right what
the recipe burns.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from pgtiles import Database, Grid, Labels, Tiles, Vectors, load, plot, read, samples

PAGE = Path(__file__).with_name("label-queries.md")
PICTURES = PAGE.parent / "img" / "recipes"
SCHEMA = "label_queries"
SRID = 3067
IGNORED = 255
PIXELS = 360  # along a tile's side


@dataclass(frozen=True)
class View:
    """Where a recipe is looked at, and what its values are called."""

    x: float  # the tile's centre, EPSG:3067
    y: float
    metres: float  # along the tile's side
    classes: dict[int, str]
    background: int = 0


BUILDING = {1: "building"}
VIEWS = {
    "roads-by-lanes": View(385560, 6672200, 300, {1: "road"}),
    "road-classes": View(385900, 6672200, 360, {1: "main road", 2: "street", 3: "path"}),
    "buildings": View(386130, 6672000, 300, BUILDING),
    "contact-borders": View(386077, 6672036, 110, BUILDING),
    "water-over-land-use": View(385990, 6672570, 340, {1: "built-up", 2: "green", 3: "water"}),
    "land-use-classes": View(
        386150, 6672300, 600, {1: "residential", 2: "commerce", 3: "civic, military", 4: "grass", 5: "construction"}
    ),
    "trees": View(386000, 6672540, 200, {1: "tree"}),
    "railways": View(385780, 6672330, 420, {1: "rail", 2: "tram"}),
    "own-table": View(386130, 6672000, 300, {1: "undamaged", 2: "damaged", 3: "destroyed", IGNORED: "not surveyed"}),
    "label-raster": View(386000, 6672540, 200, {1: "open ground", 2: "green", 3: "built up"}),
    "input-bands": View(386000, 6672540, 260, {1: "1"}),
    "unmapped-ignored": View(385900, 6672200, 360, {0: "no building", 1: "building", IGNORED: "ignored"}, IGNORED),
    "valid-at-a-date": View(386120, 6673030, 220, {1: "stood in 1925"}),
    "administrative-area": View(
        386090, 6672330, 420,
        {1: "Hakaniemi", 2: "Kaartinkaupunki", 3: "Kaisaniemi", 4: "Keskusta", 5: "Kluuvi", 6: "Siltasaari"},
    ),
    "talk-of-2018": View(385900, 6672200, 360, {1: "road"}),
    "ignored-edges": View(386077, 6672036, 110, {1: "building", IGNORED: "ignored"}),
    "instances": View(386130, 6672000, 160, {}),
    "heights": View(386130, 6672000, 300, {}),
}  # fmt: skip
OWN_COLOURS = {"green": "#3cb44b", "grass": "#3cb44b", "tree": "#3cb44b", "water": "#4363d8"}


@dataclass(frozen=True)
class Recipe:
    """A recipe as it stands on the page."""

    slug: str
    title: str
    setup: str
    language: str
    code: str

    def run(self) -> dict[str, Any]:
        """The names that the recipe defines; `layers` among them."""
        if self.language == "sql":
            return {"layers": {"label": Labels(self.code)}}
        names: dict[str, Any] = {}
        exec(compile(self.code, f"{PAGE.name}, {self.title}", "exec"), names)
        return names


def recipes() -> dict[str, Recipe]:
    """The page's recipes, by the names of their pictures."""
    found = {}
    for section in re.split(r"^### ", PAGE.read_text(encoding="utf-8").split("\n## Recipes\n")[1], flags=re.M)[1:]:
        title = section.partition("\n")[0]
        blocks = re.findall(r"^```(\w+)( title=\"setup\")?\n(.*?)^```$", section, re.M | re.S)
        setup = "".join(text for _, marked, text in blocks if marked)
        [(language, code)] = [(language, text) for language, marked, text in blocks if not marked]
        [(alt, slug)] = re.findall(r"^!\[(.*)\]\(img/recipes/(.*)\.png\)$", section, re.M)
        if alt != title or slug in found:
            raise ValueError(f"{PAGE.name}: the picture of {title!r} is called {alt!r}, {slug}")
        found[slug] = Recipe(slug, title, setup, language, code)
    return found


@contextmanager
def cookbook(url: str | None) -> Iterator[Database]:
    """A database that has, in a schema of its own and until the end, the extract and what the recipes' setups make."""
    os.environ["PGOPTIONS"] = f"-c search_path={SCHEMA},public"
    with Database(url) as db, db.connection() as conn:
        conn.execute(f"CREATE SCHEMA {SCHEMA}")
        try:
            load.osm(db, samples.helsinki(), srid=SRID)
            for recipe in recipes().values():
                conn.execute(recipe.setup)
            yield db
        finally:
            conn.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


def tile_of(view: View) -> Tiles:
    """The view's one tile."""
    grid = Grid(srid=SRID, resolution=view.metres / PIXELS, size=PIXELS)
    (x, y), step = (view.x - view.metres / 2, view.y + view.metres / 2), view.metres / PIXELS
    return Tiles(grid, np.array([round(x / step)]), np.array([round(-y / step)]))


# -- what is mapped

GREEN = "landuse IN ('grass', 'forest') OR leisure IN ('park', 'garden', 'pitch') OR \"natural\" IN ('scrub', 'heath', 'wood')"
WATER = "\"natural\" = 'water' OR landuse IN ('basin', 'pond')"
PATHS = "highway IN ('footway', 'path', 'cycleway', 'steps', 'pedestrian') AND tunnel IS NULL"
STREETS = "highway IN ('residential', 'unclassified', 'service', 'tertiary') AND tunnel IS NULL"
MAIN_ROADS = "highway IN ('primary', 'secondary', 'trunk', 'motorway') AND tunnel IS NULL"
TRACKS = "railway IN ('rail', 'tram', 'light_rail', 'subway') AND tunnel IS NULL"
STYLES = (  # what is drawn, from the bottom: the geometry's kind, the condition, and matplotlib's words for it
    ("polygon", GREEN, {"facecolor": "#d3e8c6"}),
    ("polygon", WATER, {"facecolor": "#8ec5e8"}),
    ("line", "waterway IS NOT NULL", {"color": "#5a9fd0", "lw": 1}),
    ("polygon", "building IS NOT NULL", {"facecolor": "#c4c0ba", "edgecolor": "#77726b", "lw": 0.5}),
    ("line", PATHS, {"color": "#9a938a", "lw": 0.5}),
    ("line", STREETS, {"color": "#55504a", "lw": 0.9}),
    ("line", MAIN_ROADS, {"color": "#26221e", "lw": 1.6}),
    ("line", TRACKS, {"color": "#7b2d8e", "lw": 0.8}),
    ("polygon", "man_made = 'canopy'", {"facecolor": "#c4c0baaa", "edgecolor": "#77726b", "lw": 0.5}),
    ("line", "railway = 'subway' AND tunnel IS NOT NULL", {"color": "#7b2d8e", "lw": 1.4, "ls": (0, (1, 2))}),
    ("point", "\"natural\" = 'tree'", {"color": "#3f7d2c"}),
)


def drawn(db: Database, tile: Tiles, axis: Any) -> None:
    """What OSM has on the tile, plainly."""
    from matplotlib.collections import LineCollection, PathCollection
    from matplotlib.path import Path as Outline

    xmin, ymin, xmax, ymax = tile.bounds[0]
    for kind, condition, style in STYLES:
        statement = (
            f"SELECT ST_AsBinary(way) FROM planet_osm_{kind} "
            f"WHERE ({condition}) AND way && ST_MakeEnvelope({xmin}, {ymin}, {xmax}, {ymax}, {SRID})"
        )
        with db.connection() as conn:
            shapes = [shapely.from_wkb(row[0]) for row in conn.execute(statement)]
        if kind == "point":
            axis.scatter([p.x for p in shapes], [p.y for p in shapes], s=7, linewidths=0, **style)
        elif kind == "polygon":
            outlines = [
                Outline.make_compound_path(
                    *(Outline(shapely.get_coordinates(ring), closed=True) for ring in (shape.exterior, *shape.interiors))
                )
                for shape in shapely.get_parts(shapes)
            ]
            axis.add_collection(PathCollection(outlines, **{"linewidths": 0} | style))
        else:
            axis.add_collection(LineCollection([shapely.get_coordinates(line) for line in shapes], capstyle="round", **style))
    axis.set(xlim=(xmin, xmax), ylim=(ymin, ymax), aspect="equal")


def districts(db: Database, axis: Any) -> None:
    """The borders of the table that the recipe of districts makes."""
    with db.connection() as conn:
        for (wkb,) in conn.execute("SELECT ST_AsBinary(ST_Boundary(geom)) FROM district"):
            axis.plot(*shapely.get_coordinates(shapely.from_wkb(wkb)).T, color="#d0021b", lw=1.4, ls="--")


# -- what is burned


def picture(db: Database, recipe: Recipe, view: View) -> None:
    """Run the recipe and draw it."""
    from matplotlib.figure import Figure

    tile, layers = tile_of(view), recipe.run()["layers"]
    sample = read(db, tile, layers)
    masks: dict[str, Any] = {}
    for name, layer in layers.items():
        masks |= (
            dict(zip(layer.bands, sample[name][0], strict=True)) if isinstance(layer, Vectors) else {"burned": sample[name][0]}
        )
    figure = Figure(figsize=(7, 3.05 if len(masks) == 1 else 2.05), layout="constrained")
    axes = figure.subplots(1, 1 + len(masks))
    drawn(db, tile, axes[0])
    axes[0].set_title(f"mapped, {view.metres:g} m across", fontsize=8)
    if recipe.slug == "administrative-area":
        districts(db, axes[0])
    for axis, (name, mask) in zip(axes[1:], masks.items(), strict=True):
        burned(figure, axis, mask, view, legend=len(masks) == 1)
        axis.set_title(name, fontsize=8)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    PICTURES.mkdir(parents=True, exist_ok=True)
    slim(plot.save(figure, PICTURES / f"{recipe.slug}.png"))


def burned(figure: Any, axis: Any, mask: Any, view: View, *, legend: bool) -> None:
    """A mask in its classes' colours, with their names; numbers that are no classes by a scale of colours."""
    from matplotlib.patches import Patch

    if mask.dtype.kind == "f":
        shown = axis.imshow(mask, cmap="viridis", interpolation="nearest")
        axis.set_facecolor("#eeeeee")
        figure.colorbar(shown, ax=axis, label="metres", shrink=0.8)
        return
    if not view.classes:
        numbers = np.random.default_rng(3).permutation(int(mask.max()) + 1) / (int(mask.max()) + 1)
        axis.imshow(np.where(mask > 0, numbers[mask], np.nan), cmap="turbo", interpolation="nearest")
        return
    found = {int(v) for v in np.unique(mask)} - ({view.background} if view.background != IGNORED else set())
    if unnamed := found - view.classes.keys():
        raise ValueError(f"values without a name: {unnamed}")
    real = [value for value in view.classes if value != IGNORED and (value or not view.background)]
    free = [colour for colour in plot.PALETTE if colour not in OWN_COLOURS.values()]
    colours = {value: OWN_COLOURS.get(view.classes[value]) or free.pop(0) for value in real} | {IGNORED: "#8a8a8a"}
    axis.imshow(plot.overlaid(None, mask, colours), interpolation="nearest")
    if legend:
        patches = [
            Patch(facecolor=colours.get(value, "white"), edgecolor="#777777", lw=0.5, alpha=0.65 if value in colours else 1,
                  label=f"{name} ({value})")
            for value, name in view.classes.items() if value in found
        ]  # fmt: skip
        figure.legend(handles=patches, loc="outside right center", frameon=False, fontsize=8, handlelength=1.2)


def slim(path: Path) -> None:
    """The same picture in 128 colours, which is a third of the bytes."""
    from PIL import Image

    with Image.open(path) as image:
        few = image.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def main() -> None:
    """Draw the recipes that are named, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="of a PostGIS database; else as pgtiles.Database() finds one")
    parser.add_argument("recipes", nargs="*", help="all unless named")
    arguments = parser.parse_args()
    known = recipes()
    with cookbook(arguments.url) as db:
        for slug in arguments.recipes or known:
            picture(db, known[slug], VIEWS[slug])
            print(f"{slug}.png", (PICTURES / f"{slug}.png").stat().st_size // 1000, "kB")


if __name__ == "__main__":
    main()
