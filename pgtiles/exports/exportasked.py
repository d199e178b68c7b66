"""What was asked of an export, held against the dataset: before anything is written."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import ConfigError
from ..template import compose
from ..tiling.draws import Fresh
from ..tiling.tiles import Tiles
from .exported import WHOLE, Contents, Format, is_folder, kind_of
from .pictures import KINDS, crs_of

if TYPE_CHECKING:
    from ..dataset import TileDataset


def tiles_of(dataset: TileDataset) -> Tiles:
    """The tiles that are exported; `ConfigError` where they can't be."""
    if isinstance(dataset.draws, Fresh):
        raise ConfigError(
            "tiles that are fresh in each epoch can't be exported: export a fixed set, such as Tiles.random gives"
        )
    if dataset.transform is not None:
        raise ConfigError("transform: files hold what the layers show, before any transform: export a dataset without one")
    for split in np.unique(dataset.tiles.columns.get("split", np.array([""]))).tolist():
        if split == WHOLE or not (split == "" or is_folder(str(split))):
            raise ConfigError(
                f"column split: {split!r}: expected train, val, test, or what else can be a folder's name, but not {WHOLE!r}, "
                "as tiles without a split are called"
            )
    return dataset.tiles


def pairs_of(stretch: Any) -> tuple[tuple[float, float], ...]:
    """A stretch as pairs of low and high, one or one a band."""
    if stretch is None:
        return ()
    try:
        pairs = np.asarray(stretch, float).reshape(-1, 2)
    except (ValueError, TypeError):
        pairs = np.empty((0, 2))
    if not len(pairs) or not np.isfinite(pairs).all() or not (pairs[:, 0] < pairs[:, 1]).all():
        raise ConfigError(f"stretch={stretch!r}: expected (low, high), low < high, or such a pair for each band")
    return tuple((low, high) for low, high in pairs.tolist())


def contents_of(
    dataset: TileDataset,
    tiles: Tiles,
    form: Format,
    image: str | None,
    labels: str | None,
    images: str | None,
    stretch: tuple[tuple[float, float], ...],
    classes: Mapping[int, str] | None,
) -> Contents:
    """What the layers are; `ConfigError` where what was asked for is not there."""
    if images is not None and images not in KINDS:
        raise ConfigError(f"images={images!r}: expected one of {', '.join(KINDS)}")
    layers = {layer.name: layer for layer in dataset.plan.layers}
    kinds = {name: kind_of(layer) for name, layer in layers.items()}
    for argument, name in (("image", image), ("labels", labels)):
        if name is not None and name not in layers:
            raise ConfigError(f"{argument}={name!r}: expected the key of a layer; they are {', '.join(layers)}")
    named: dict[str, Mapping[int, str]] = dict(dataset.classes)
    if classes is not None:
        nameless = [name for name, kind in kinds.items() if kind not in {"image", "series"} and name not in named]
        if not nameless:
            raise ConfigError("classes= names those of layers that have no names, and there is none: leave it out")
        named |= dict.fromkeys(nameless, _checked(classes))
    for name, text in ((name, text) for name, known in named.items() for text in known.values()):
        if any(unicodedata.category(sign) in {"Cc", "Cs"} or sign in "\ufffe\uffff" for sign in text):
            raise ConfigError(f"layer {name!r}: the class {text!r} has a sign that can't be in text files: call it otherwise")
    srids = sorted(set(tiles.srids.tolist()))
    crs = {srid: crs_of(*known) for srid, *known in dataset.db.query(compose("crs_known", srids=srids))}
    if unknown := [srid for srid in srids if crs.get(srid) is None]:
        raise ConfigError(
            f"SRID {unknown[0]}: spatial_ref_sys of {dataset.db.name} says in no words that GDAL knows what it is, and files "
            "have to say where they lie: have its row there mended"
        )
    fills = {name: float(cast("Any", layers[name].sheet).fill) for name, kind in kinds.items() if kind == "mask"}
    return Contents(
        layers, tiles.grid.shape, tiles.grid.pixel, kinds, named, crs, image, labels, images or form.images, stretch, fills
    )


def _checked(classes: Mapping[int, str]) -> dict[int, str]:
    if not isinstance(classes, Mapping) or not classes:
        raise ConfigError(f"classes={classes!r}: expected a name for each value, such as {{1: 'building'}}")
    for value, name in classes.items():
        if not isinstance(value, int | np.integer) or not isinstance(name, str) or not name or "\n" in name:
            raise ConfigError(f"classes: {value!r}: {name!r}: expected a whole number and its name, such as {{1: 'building'}}")
    if len(set(classes.values())) < len(classes):
        raise ConfigError(f"classes={classes!r}: two values have the same name: expected one each")
    return {int(value): classes[value] for value in sorted(classes)}
