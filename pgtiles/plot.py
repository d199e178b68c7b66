"""Pictures of a batch, imagery beside labels, and of what a set of tiles is like. matplotlib is imported only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, DependencyError, MissingError
from .tiling.tiles import Tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = ("#e6194b", "#ffe119", "#4363d8", "#3cb44b", "#f58231", "#911eb4", "#42d4f4", "#f032e6", "#bfef45", "#a9a9a9")
IGNORED = "#404040"
PLAIN = "#4363d8"
FEW = 10  # different whole numbers: so many are shown as categories, more as a scale
RECTANGLES = 20_000  # tiles: of more, a map is drawn in cells
LABELLED = 24  # classes: of more, a confusion matrix has no numbers
CELLS = 400  # along the longer side of such a map


def batch(
    sample: Mapping[str, Any],
    path: str | Path | None = None,
    *,
    classes: Mapping[int, str] | None = None,
    colours: Mapping[int, str] | None = None,
    bands: Sequence[int] | None = None,
    background: int = 0,
    ignore_index: int | None = None,
    count: int = 4,
    title: str | None = None,
) -> Figure:
    """Draw the first tiles of a batch, a row each: every image layer, then every mask laid over the first image.

    sample: a batch as `TileDataset` or `read` gives it, tensors or arrays; (B, C, H, W) is an image, (B, H, W) a mask, and of
    (B, T, C, H, W), a time series, each step is an image with its date.
    path: a file to write, PNG or whatever else matplotlib writes; whole or not at all.
    classes: names of the mask's values, for the legend; values without one are shown as numbers.
    colours: of the mask's values, as matplotlib names them, in place of the palette's. A class keeps its colour from picture to
    picture as long as `classes` names the same.
    bands: which bands are red, green and blue, from 1, or which one is shown in grey; the first three unless given, or the
    first where there are fewer.
    count: how many tiles at most.
    background: the value that is not coloured.
    ignore_index: the value of pixels that are left out of training: grey, and called ignored in the legend.
    title: above everything.
    """
    if count < 1:
        raise ConfigError(f"count={count!r}: expected at least one tile")
    arrays = {name: np.asarray(value) for name, value in sample.items() if not isinstance(value, list)}
    images = {name: array for name, array in arrays.items() if array.ndim in (4, 5) and array.dtype != bool}
    masks = {name: array for name, array in arrays.items() if array.ndim == 3}
    if not images and not masks:
        raise ConfigError(f"sample: expected a batch with (B, C, H, W) images or (B, H, W) masks, found {list(sample)}")
    arrays = images | masks  # not drawn: boxes, values, and what else differs in length from tile to tile
    rows = min(count, len(next(iter(arrays.values()))))
    shown = [column for name, array in images.items() for column in _columns(name, array[:rows], sample, bands)]
    columns = [name for name, _, _ in shown] + list(masks)
    values = sorted({int(v) for m in masks.values() for v in np.unique(m[:rows])} - {background})
    known = sorted({*(classes or ()), *values} - {background, ignore_index})
    painted = {value: PALETTE[i % len(PALETTE)] for i, value in enumerate(known)} | dict(colours or {})
    names = dict(classes or {})
    if ignore_index is not None:
        painted, names = {ignore_index: IGNORED} | painted, names | {ignore_index: "ignored"}
    height, width = next(iter(arrays.values())).shape[-2:]
    side = 2.6 * (height / width) ** 0.5, 2.6 * (width / height) ** 0.5  # inches: down, across
    figure = _blank(side[1] * len(columns) + 0.3, side[0] * rows + 0.7)
    axes = figure.subplots(rows, len(columns), squeeze=False)
    base = shown[0][1] if shown else None
    for r in range(rows):
        for c, name in enumerate(columns):
            axis = axes[r, c]
            above = [name] if r == 0 and name else []
            if c < len(shown):
                _, rgb, dates = shown[c]
                if dates is None or dates[r]:
                    axis.imshow(rgb[r])
                above += [] if dates is None else [dates[r] or "missing"]
            else:
                axis.imshow(overlaid(None if base is None else base[r], masks[name][r], painted))
            axis.set(xticks=[], yticks=[])
            axis.set_title("\n".join(above), fontsize=10)
        if "tile_id" in sample:
            axes[r, 0].set_ylabel(f"tile {int(np.asarray(sample['tile_id'])[r])}", fontsize=8)
    _legend(figure, {f"{names[v]} ({v})" if v in names else str(v): painted[v] for v in values})
    if title:
        figure.suptitle(title, fontsize=11)
    return _saved(figure, path)


def histogram(tiles: Tiles, column: str, path: str | Path | None = None, *, bins: int = 40, title: str | None = None) -> Figure:
    """Draw how many tiles have which values of a column: bars, on a scale of powers of ten, for few tiles show a rare class.

    column: of numbers; or of texts, truths, times or up to ten different whole numbers, which have a bar each.
    path, title: as for `batch`.
    """
    if not len(tiles):
        raise ConfigError("tiles: there is no tile to draw")
    values, named = _known(tiles, column)
    figure, without = _blank(6, 3.4), ""
    axis = figure.subplots()
    if named is not None:
        axis.bar([_verbatim(name) for name in named], np.bincount(values), color=PLAIN)
    else:
        axis.hist(values[np.isfinite(values)], bins=bins, color=PLAIN)
        without = f", {(values == 0).sum():,} of them with none"
    axis.set(yscale="log", ylabel="tiles", xlabel=column, title=title or f"{len(tiles):,} tiles{without}")
    return _saved(figure, path)


def map(  # noqa: A001  # it is called plot.map
    tiles: Tiles, path: str | Path | None = None, *, by: str | None = None, title: str | None = None
) -> Figure:
    """Draw where the tiles lie, in the grid's coordinates, and colour them by a column. The greater values lie on top.

    by: a column of numbers, on a scale; or of texts, truths, times or up to ten different whole numbers, in a colour each.
    path, title: as for `batch`.

    Of more than 20,000 tiles, the map is cut into 400 cells along its longer side, each with the greatest value of those whose
    centre it holds.
    """
    if not len(tiles):
        raise ConfigError("tiles: there is no tile to draw")
    if tiles.zone is not None:
        raise ConfigError("tiles: they lie on several grids, whose coordinates don't share a map: draw each of tiles.by_grid()")
    values, named = (np.zeros(len(tiles), int), ["tiles"]) if by is None else _known(tiles, by)
    values, bounds = values[order := np.argsort(values, kind="stable")], tiles.bounds[order]
    across, down = np.ptp(bounds[:, [0, 2]]), np.ptp(bounds[:, [1, 3]])
    figure = _blank(1.5 + 6 * min(across / down, 1.5) ** 0.5, 1 + 6 * min(down / across, 1.5) ** 0.5)
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import ListedColormap

    axis, shades = figure.subplots(), [PALETTE[(i + 2) % len(PALETTE)] for i in range(len(named or ()))]
    scale: Any = "viridis_r" if named is None else ListedColormap(shades)
    if len(tiles) <= RECTANGLES:
        drawn: Any = PolyCollection(list(bounds[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]), alpha=0.7, linewidths=0.3, cmap=scale)
        drawn.set_array(values)
        axis.add_collection(drawn)
    else:
        side = max(across, down) / CELLS
        left, low = bounds[:, :2].min(axis=0)
        col, row = (((bounds[:, :2] + bounds[:, 2:]) / 2 - (left, low)) / side).astype(int).T
        cells = np.full((int(down / side) + 1, int(across / side) + 1), np.nan)
        np.fmax.at(cells, (row, col), values)
        extent = (left, left + cells.shape[1] * side, low, low + cells.shape[0] * side)
        drawn = axis.imshow(cells, origin="lower", interpolation="nearest", extent=extent, cmap=scale)
    if named is None:
        figure.colorbar(drawn, label=by, shrink=0.7)
    else:
        drawn.set_clim(-0.5, len(named) - 0.5)
        _legend(figure, dict(zip(named, shades, strict=True)) if by else {})
    axis.autoscale_view()
    axis.set(aspect="equal", title=title or f"{len(tiles):,} tiles, EPSG:{tiles.grid.srid}")
    axis.ticklabel_format(style="plain", useOffset=False)
    axis.tick_params("x", rotation=90)
    return _saved(figure, path)


def confusion(
    counts: NDArray[np.int64], names: Sequence[str], path: str | Path | None = None, *, title: str | None = None
) -> Figure:
    """Draw a confusion matrix: rows are true classes, columns predicted ones; a cell is the share of its row.

    counts: (K, K) pixels. names: of the K classes.
    path, title: as for `batch`.
    """
    if counts.shape != (len(names), len(names)) or not names:
        raise ConfigError(f"counts: expected a row and a column for each of {len(names)} names, found {counts.shape}")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 1.6 + 0.75 * len(names)
    figure = _blank(side + 1.2, side)
    axis = figure.subplots()
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    shown = [_verbatim(name) for name in names]
    for row, column in np.ndindex(counts.shape) if len(names) <= LABELLED else ():
        dark = shares[row, column] > 0.6
        axis.text(
            column, row, f"{shares[row, column]:.1%}\n{counts[row, column]:,}", ha="center", va="center", fontsize=7,
            color="white" if dark else "black",
        )  # fmt: skip
    axis.set(
        xticks=range(len(names)), yticks=range(len(names)), xticklabels=shown, yticklabels=shown, xlabel="predicted",
        ylabel="truth", title=title or "",
    )  # fmt: skip
    axis.tick_params("x", rotation=45)
    return _saved(figure, path)


def _blank(width: float, height: float) -> Figure:
    """A figure of so many inches."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError("pictures need matplotlib: pip install 'pgtiles[plot]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        save(figure, path)
    return figure


def _legend(figure: Figure, shades: Mapping[str, str]) -> None:
    """Below the picture, a name for each colour."""
    from matplotlib.patches import Patch

    if shades:
        patches = [Patch(color=shade, label=_verbatim(name)) for name, shade in shades.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 5), frameon=False, fontsize=9)


def _known(tiles: Tiles, column: str) -> tuple[NDArray[Any], list[str] | None]:
    """A column's numbers; or of categories the place of each, and their names."""
    if column not in tiles.columns:
        raise ConfigError(f"these tiles have no column {column!r}, but {', '.join(tiles.columns) or 'none'}")
    values = tiles.columns[column]
    if values.dtype.kind == "f" or (values.dtype.kind in "iu" and len(np.unique(values)) > FEW):
        return values.astype(float), None
    names, which = np.unique(values, return_inverse=True)
    return which.reshape(-1), [str(name) for name in names]


def _verbatim(name: str) -> str:
    """Text that matplotlib shows as it is: between two dollars it would read a formula."""
    return name.replace("$", r"\$")


def _columns(
    name: str, array: NDArray[Any], sample: Mapping[str, Any], bands: Sequence[int] | None
) -> list[tuple[str, NDArray[np.float32], list[str] | None]]:
    """An image's column, or one for each step of a time series: its title, its pictures, and of a step their dates, else "".

    The steps are stretched together, so that what changes is the land.
    """
    if array.ndim == 4:
        return [(name, stretched(array, bands), None)]
    flat = array.reshape(-1, *array.shape[2:]).astype(np.float32)
    seconds = np.asarray(sample[f"{name}_time"])[: len(array)]
    flat[np.isnan(seconds).ravel()] = np.nan
    rgb = stretched(flat, bands).reshape(*array.shape[:2], *array.shape[3:], 3)
    dates = [[str(np.datetime64(int(s), "s"))[:10] if s == s else "" for s in step] for step in seconds.T]
    return [("" if step else name, rgb[:, step], days) for step, days in enumerate(dates)]


def stretched(images: NDArray[Any], bands: Sequence[int] | None = None) -> NDArray[np.float32]:
    """(N, C, H, W) of any type to (N, H, W, 3) in 0 to 1: the 2nd to the 98th percentile of each band, over all images."""
    count = images.shape[1]
    wanted = tuple(bands) if bands is not None else (1, 2, 3) if count >= 3 else (1,)
    if len(wanted) not in (1, 3) or not all(1 <= band <= count for band in wanted):
        raise ConfigError(f"bands={bands!r}: expected one or three band numbers from 1 to {count}, which is what the image has")
    chosen = [band - 1 for band in wanted] * (3 // len(wanted))
    out = np.moveaxis(images[:, chosen].astype(np.float32), 1, -1)
    low, high = np.nanpercentile(out, (2, 98), axis=(0, 1, 2))
    return cast("NDArray[np.float32]", np.nan_to_num(np.clip((out - low) / np.maximum(high - low, 1e-6), 0, 1)))


def overlaid(image: NDArray[Any] | None, mask: NDArray[Any], colours: Mapping[int, str]) -> NDArray[np.float32]:
    """(H, W, 3): the mask's values in colour over a greyed image, whatever its resolution, or over white."""
    from matplotlib.colors import to_rgb

    grey = np.ones((*mask.shape, 3), np.float32)
    if image is not None:
        # they may differ in pixels
        rows, cols = (np.arange(n) * of // n for n, of in zip(mask.shape, image.shape, strict=False))
        grey = np.repeat(image[rows][:, cols].mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.float32)
    for value, colour in colours.items():
        where = mask == value
        grey[where] = 0.35 * grey[where] + 0.65 * np.array(to_rgb(colour), np.float32)
    return grey


def save(figure: Figure, path: str | Path) -> Path:
    """Write the picture, whole or not at all."""
    path = Path(path)
    if path.suffix[1:].lower() not in figure.canvas.get_supported_filetypes():
        known = ", ".join(sorted(figure.canvas.get_supported_filetypes()))
        raise ConfigError(f"{path}: expected a picture's name, ending in one of {known}")
    if not path.parent.is_dir():
        raise MissingError(f"{path}: there is no folder {path.parent}")
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(part, dpi=110)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
