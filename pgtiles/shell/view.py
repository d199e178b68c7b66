"""What to look at: the options that the commands for tiles share, and the tiles and layers that they mean."""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer

from ..errors import ConfigError, DataError, MissingError
from ..inspection.checking import Report, check
from ..layers.attributes import Attributes
from ..layers.imagery import Imagery
from ..layers.labels import Labels
from ..layers.query import Layer
from ..postgres.catalog import is_table_name
from ..postgres.database import Database
from ..streaming.reading import Plan
from ..targets import Boxes, Instances
from ..tiling.grid import Grid
from ..tiling.tiles import Tiles

Url = Annotated[str | None, typer.Option(help="postgresql://user@host:port/dbname")]


@dataclass(frozen=True, kw_only=True)
class View:
    """What to look at, in the options that the commands for tiles share, preview, check, bake, predict and others."""

    image: Annotated[str | None, typer.Option(help="Raster table, or SQL that gives rast: itself, or a file's name.")] = None
    bands: Annotated[str | None, typer.Option(help="Bands, from 1: 1,2,3")] = None
    labels: Annotated[str | None, typer.Option(help="Table, or SQL that gives geom: itself, or a file's name.")] = None
    where: Annotated[str | None, typer.Option(help="Condition on a label table's columns.")] = None
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", help="A label table's class, NAME=CONDITION, burned 1, 2, 3 … as they come; once for each."),
    ] = None
    value: Annotated[str, typer.Option(help="What a label table's features burn: a number or a column.")] = "1"
    buffer: Annotated[float | None, typer.Option(help="Ground metres by which labels are widened.")] = None
    label_srid: Annotated[int | None, typer.Option(help="SRID in which a label query searches, where not the tiles'.")] = None
    srid: Annotated[int | None, typer.Option(help="SRID of the tiles; the imagery's unless given.")] = None
    resolution: Annotated[float | None, typer.Option(help="CRS units per pixel; the imagery's unless given.")] = None
    size: Annotated[int, typer.Option(help="Pixels along a tile's side.")] = 256
    within: Annotated[str | None, typer.Option(help="xmin,ymin,xmax,ymax in the tiles' SRID; else the whole table.")] = None
    seed: Annotated[int, typer.Option(help="Of the tiles' places.")] = 0
    url: Url = field(default=None, repr=False)  # it may hold a password

    def open(self, db: Database, count: int) -> tuple[Tiles, Plan]:
        """Random tiles on the grid and in the region asked for, and the layers, opened."""
        tiles, layers = self.look(db, count)
        return tiles, Plan.open(db, tiles, layers)

    def check(self, db: Database, count: int, connections: int, workers: int) -> Report:
        """What is wrong with the tables, or slow; of the tables alone where no tiles can be laid."""
        layers, tiles, stopped = self._layers(), None, None
        try:
            tiles, _ = self.look(db, count)
        except DataError as error:
            stopped = error
        return check(db, tiles, layers, connections=connections, workers=workers, count=count, stopped=stopped)

    def tile(self, db: Database, which: str, count: int) -> tuple[Tiles, dict[str, Layer], int]:
        """Tiles and layers, and the id of one of them: its number among so many at random, or that of the tile around x,y."""
        if "," not in which:
            tiles, layers = self.look(db, count)
            return tiles, layers, int(numbers("TILE", which, int)[0])
        layers, grid, at = self._layers(), self._grid(db), numbers("TILE", which, float)
        if len(at) != 2:
            raise ConfigError(f"TILE {which}: expected a tile's number, or x,y in the tiles' SRID")
        (height, width), (sx, sy) = grid.shape, grid.pixel
        corner = at[0] - width * sx / 2, at[1] - height * sy / 2
        col, _, row, _ = grid.places((*corner, corner[0] + width * sx + sx, corner[1] + height * sy + sy))
        return Tiles(grid, np.array([col]), np.array([row])), layers, 0

    def beside(self, db: Database, prediction: str, by: str | None) -> tuple[Tiles, dict[str, Layer]]:
        """Tiles side by side over all of a prediction, on its own pixels unless others are asked for; and the layers, with the
        prediction and the attributes to score by.
        """
        layers = self._layers()
        if "mask" not in layers:
            raise ConfigError("nothing to score against: give --labels, a table or SQL")
        source, own = _source(prediction), self if self.srid else replace(self, image=prediction)
        if not is_table_name(source) and not (self.srid and self.within):
            raise ConfigError("of a query, nobody knows where it predicts: give --srid, --resolution and --within, too")
        grid = own._grid(db)
        box = numbers("--within", self.within, float) if self.within else db.extent(source, grid.srid)
        tiles = Tiles.sliding(grid, within=cast("tuple[float, float, float, float]", box), edge="beyond")
        layers["prediction"] = Imagery(source, resampling="nearest")
        return tiles, layers if by is None else {**layers, "by": Attributes(_source(by))}

    def look(
        self, db: Database, count: int | None, stride: int | None = None, overlap: int | None = None
    ) -> tuple[Tiles, dict[str, Layer]]:
        """Tiles on the grid and in the region asked for, so many at random or all, a stride of pixels apart; and the layers.

        overlap: pixels that those share that lie side by side, which then cover the region to its edge.
        """
        layers, grid = self._layers(), self._grid(db)
        if not self.within and not (table := self._table or self._label_table):
            raise ConfigError("no table to take the tiles' region from: give --within xmin,ymin,xmax,ymax in the tiles' SRID")
        box = numbers("--within", self.within, float) if self.within else db.extent(table, grid.srid)
        within = cast("tuple[float, float, float, float]", box)
        if overlap is not None:
            return Tiles.sliding(grid, within=within, overlap=overlap, edge="shift"), layers
        if count is None:
            return Tiles.sliding(grid, within=within, stride=stride), layers
        return Tiles.random(grid, within=within, count=count, seed=self.seed), layers

    def labelled(
        self, db: Database, count: int | None, stride: int | None, min_share: float, objects: str | None
    ) -> tuple[Tiles, dict[str, Layer]]:
        """Of those, the tiles of which labels cover such a share; and the layers, with labels as boxes or instances."""
        if objects not in (None, "boxes", "instances"):
            raise ConfigError(f"--objects {objects}: expected boxes or instances")
        if not self.labels and (objects or min_share):
            raise ConfigError("--objects and --min-share are about labels: give --labels")
        if objects and (self.classes or self.buffer):
            raise ConfigError(
                "--class and --buffer are for masks: without --objects, the connected parts of a mask are objects"
            )
        tiles, layers = self.look(db, count, stride)
        if self.image:
            layers["image"] = replace(cast("Imagery", layers["image"]), dtype="native")  # for files, which hold uint16 well
        if min_share:
            known = tiles.describe(db, {"mask": cast("Labels", layers["mask"])})
            shares = [name for name in known.columns if name not in tiles.columns and not name.endswith("_count")]
            tiles = known.filter(lambda tile: np.max([tile[name] for name in shares], axis=0) >= min_share)
        if objects:
            del layers["mask"]
            kind = Boxes if objects == "boxes" else Instances
            value = _number_or_column(self.value)
            layers[objects] = kind(_source(self.labels or ""), value=value, where=self.where, srid=self.label_srid)
        return tiles, layers

    @property
    def _table(self) -> str:
        """The imagery's table; none where a query gives it, or nothing does."""
        return "" if self.image is None or _is_file(self.image) else self.image

    @property
    def _label_table(self) -> str:
        """The labels' table; none where a query gives them, or nothing does."""
        return self.labels if self.labels and not _is_file(self.labels) and is_table_name(self.labels) else ""

    def _layers(self) -> dict[str, Layer]:
        layers: dict[str, Layer] = {}
        if self.image:
            layers["image"] = Imagery(_source(self.image), bands=numbers("--bands", self.bands, int) if self.bands else None)
        if self.labels:
            value = _number_or_column(self.value)
            layers["mask"] = Labels(
                _source(self.labels), classes=_conditions(self.classes), value=value, where=self.where, buffer=self.buffer,
                srid=self.label_srid,
            )  # fmt: skip
        if not layers:
            raise ConfigError("nothing to read: give --image, --labels or both")
        return layers

    def _grid(self, db: Database) -> Grid:
        if self.srid and self.resolution:
            return Grid(srid=self.srid, resolution=self.resolution, size=self.size)
        if self.srid or not self._table:
            raise ConfigError(
                "the tiles' lattice is not known: give --srid and --resolution, or --image with a raster table, to take its own"
            )
        like = Grid.like(db, self._table, size=self.size)
        return Grid(srid=like.srid, resolution=self.resolution or like.resolution, size=self.size, origin=like.origin)


def command_line(view: View) -> str:
    """The options that say the same, for a shell."""
    given = ((name, getattr(view, name)) for name in inspect.signature(View).parameters if name != "url")
    defaults = {name: parameter.default for name, parameter in inspect.signature(View).parameters.items()}
    options = [
        f"--{'class' if name == 'classes' else name.replace('_', '-')} {shlex.quote(f'{one}')}"
        for name, value in given
        if value != defaults[name]
        for one in (value if isinstance(value, list) else [value])
    ]
    return " ".join(options)


def viewing(command: Callable[..., None]) -> Callable[..., None]:
    """The command of a `View`, as typer takes it: the view's options stand in front of its own."""
    shared = inspect.signature(View, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @functools.wraps(command)
    def call(**options: Any) -> None:
        command(View(**{name: options.pop(name) for name in shared}), **options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [parameter.replace(kind=keyword) for parameter in (*shared.values(), *own)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return call


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # SQL may be longer than a file's name
        return False


def _source(text: str) -> str:
    """What the file of this name holds; else the text itself, a table's name or SQL."""
    if not _is_file(text):
        if text.endswith(".sql"):
            raise MissingError(f"there is no file {text}")
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{text} is not text in UTF-8: {error}") from None


def _conditions(classes: list[str] | None) -> dict[str, str] | None:
    """The condition for each class's name."""
    if not classes:
        return None
    split = [text.partition("=") for text in classes]
    if wrong := [
        text for text, (name, _, condition) in zip(classes, split, strict=True) if not (name.strip() and condition.strip())
    ]:
        raise ConfigError(f"--class {wrong[0]!r}: expected NAME=CONDITION, such as \"park=leisure = 'park'\"")
    names = [name.strip() for name, *_ in split]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"--class {twice[0]}: given twice; one condition may say both, with OR")
    return {name: condition for name, (*_, condition) in zip(names, split, strict=True)}


def numbers(option: str, text: str, kind: type) -> tuple[Any, ...]:
    """The numbers that an option says, with commas between them."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{option} {text}: expected numbers with commas between them") from None


def pairs(option: str, given: list[str] | None) -> dict[int, str] | None:
    """The name for each value, of options such as 1=building."""
    split = [text.partition("=") for text in given or ()]
    if wrong := [
        value + sign + name for value, sign, name in split if not (value.strip().lstrip("-").isdigit() and name.strip())
    ]:
        raise ConfigError(f"{option} {wrong[0]}: expected VALUE=NAME, such as 1=building")
    return {int(value): name.strip() for value, _, name in split} or None


def _number_or_column(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
