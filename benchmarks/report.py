"""What a run leaves behind besides its figures: the machine that they are of, and a picture."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import rasterio
from PIL import Image
from psycopg import sql

import pgtiles
from pgtiles import Database

matplotlib.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from peers import Peers


def machine(db: Database, peers: Peers | None) -> dict[str, Any]:
    """Processor, memory, system, and the versions of all that takes part."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    (server,) = db.query(sql.SQL("SELECT version(), postgis_full_version(), current_setting('shared_buffers')"))
    names = ("torch", "numpy", "rasterio", "shapely", "psycopg")
    return {
        "when": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processor": next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "pgtiles": pgtiles.__version__,
        "packages": {name: version(name) for name in names} | {"gdal": rasterio.__gdal_version__},
        "peers": peers.versions if peers else None,
        "postgresql": server[0],
        "postgis": server[1],
        "shared_buffers": server[2],
        "connection": db.name.partition("@")[2].partition("/")[0] or "local socket",
    }  # fmt: skip


def is_ours(label: str) -> bool:
    """Whether a contestant reads by pgtiles."""
    return label.startswith(("pgtiles", "baked", "live", "in a file"))


def is_ceiling(label: str) -> bool:
    """Whether it gives bytes instead of tiles: what there is to reach."""
    return "COPY" in label


def draw(works: list[dict[str, Any]], path: Path, *, columns: int = 2) -> None:
    """Bars from the slowest to the fastest round's figure, with the ratio to the first contestant; works in columns."""
    from measuring import heading

    stacks: list[list[dict[str, Any]]] = [[] for _ in range(min(columns, len(works)))]
    for work in works:
        min(stacks, key=_rows).append(work)
    tallest = max(map(_rows, stacks))
    figure = plt.figure(figsize=(9 * len(stacks), 0.24 * tallest), layout="constrained")
    parts = figure.subfigures(1, len(stacks), squeeze=False)[0]
    for part, stack in zip(parts, stacks, strict=True):
        heights = [_rows([work]) for work in stack] + [tallest - _rows(stack) + 0.01]
        axes = part.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0]
        axes[-1].set_axis_off()  # where this column is the shorter one
        for axis, work in zip(axes, stack, strict=False):
            _bars(axis, work)
            axis.set_title(f"{heading(work)}, tiles/s", fontsize=9, loc="left")
    figure.savefig(path, dpi=80)
    plt.close(figure)
    with Image.open(path) as picture:  # few colours are a third of the bytes, and this one is kept in the repository
        few = picture.convert("RGB").quantize(48)
    few.save(path, optimize=True)


def _rows(works: list[dict[str, Any]]) -> int:
    return sum(3 + len(work["contestants"]) for work in works)


def _bars(axis: Any, work: dict[str, Any]) -> None:
    from measuring import figure

    shown = work["contestants"]
    medians = np.array([one["median"] for one in shown])
    spread = np.abs(np.array([[min(one["rates"]), max(one["rates"])] for one in shown]).T - medians)
    colours = ["C0" if is_ours(one["label"]) else "0.8" if is_ceiling(one["label"]) else "0.55" for one in shown]
    axis.barh(range(len(shown)), medians, xerr=spread, color=colours, ecolor="0.25", capsize=2)
    for row, one in enumerate(shown):
        said = f"{figure(one['median'])}   ({one['ratio']:.2g} ×)"
        axis.annotate(said, (max(one["rates"]), row), (6, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_yticks(range(len(shown)), [one["label"] for one in shown], fontsize=8)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.set_xscale("log")
    axis.set_xlim(medians.min() / 2, medians.max() * 5)
    axis.tick_params(axis="x", labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
