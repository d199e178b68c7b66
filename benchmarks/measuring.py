"""One work: everybody's pixels are compared, then all read the same tiles in interleaved rounds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np
from contestants import BATCH, Arrays, Contestant, Copied, Reader
from cpu import Clock
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from works import Work

LUMINANCE = np.array([0.2989, 0.5870, 0.1140])  # of PostGIS's grey


def measure(console: Console, clock: Clock, name: str, work: Work, options: argparse.Namespace) -> dict[str, Any]:
    """Compare, then time in rounds; prints a table, and gives all that is in it and more."""
    truth = work.truth(work.tiles[:32]).pixels()
    assert truth, "there is nothing to compare with"
    needed = sum(array.nbytes for array in truth.values()) / len(work.tiles[:32])
    rows: dict[str, dict[str, Any]] = {}
    readers: dict[str, Reader] = {}
    for contestant in work.contestants:
        with console.status(escape(f"{name}: comparing pixels, {contestant.label}")):
            readers[contestant.label], said = _ready(name, work, contestant, truth, options)
        rows[contestant.label] = {"label": contestant.label, "pixels": said, "rates": [], "cpu": []}
    for number in range(options.rounds):
        for label, reader in readers.items():
            with console.status(escape(f"{name}: round {number + 1} of {options.rounds}, {label}")):
                rate, cpu = _round(reader, clock, options.seconds)
            rows[label]["rates"].append(rate)
            rows[label]["cpu"].append(cpu)
    wire = {label: reader.sent / reader.count for label, reader in readers.items() if isinstance(reader, Copied)}
    for row in rows.values():
        row["median"] = median(row["rates"])
        row["ratio"] = row["median"] / next(iter(rows.values()))["median"]
        row["cpu_clients"], row["cpu_server"] = (median(spent) for spent in zip(*row.pop("cpu"), strict=True))
        row["wire"] = wire.get(row["label"])
    duels = [(a, b, rows[a]["median"] / rows[b]["median"]) for a, b in work.duels if a in rows and b in rows]
    result = {"name": name, "what": work.what, "empty": work.empty, "needed": needed, "contestants": list(rows.values())}
    result["duels"] = duels
    _print(console, result)
    return result


def _ready(name: str, work: Work, contestant: Contestant, truth: Arrays, options: argparse.Namespace) -> tuple[Reader, str]:
    """A reader that has read once, of as many tiles as it reads in a round, and what there is to say of its pixels."""
    few = min(contestant.few, len(work.tiles))
    reader = contestant.open(work.tiles[:few])
    began = time.perf_counter()
    found = reader.pixels()
    said = "" if found is None else compared(name, contestant, found, truth)
    rate = few / (time.perf_counter() - began) if found is not None else _epoch_rate(reader)
    count = 0 if options.quick else min(round(rate * options.seconds / BATCH) * BATCH, len(work.tiles))
    if count > few:
        reader = contestant.open(work.tiles[:count])
        _epoch_rate(reader)  # a first epoch starts processes and fills caches
    return reader, said


def _epoch_rate(reader: Reader) -> float:
    began = time.perf_counter()
    tiles = sum(reader.epoch())
    return tiles / (time.perf_counter() - began)


def _round(reader: Reader, clock: Clock, seconds: float) -> tuple[float, tuple[float, float]]:
    """Tiles per second of whole epochs, until about so many seconds are over; CPU milliseconds a tile of clients and server."""
    before, began, tiles = clock.read(), time.perf_counter(), 0
    while True:
        tiles += sum(reader.epoch())
        elapsed = time.perf_counter() - began
        if elapsed >= 0.7 * seconds:
            clients, server = clock.read().spent(before)
            return tiles / elapsed, (1000 * clients / tiles, 1000 * server / tiles)


# -- pixels


def compared(name: str, contestant: Contestant, found: Arrays, truth: Arrays) -> str:
    """What there is to say of its pixels; ends the run where they are wrong."""
    said, wrong = "equal", ""
    if not found:
        wrong = "there are none"
    for key, pixels in found.items():
        want = truth["image"].swapaxes(1, 3) @ LUMINANCE if key == "grey" else truth[key]
        want = (want.swapaxes(1, 2) if key == "grey" else want)[: len(pixels)].astype("f8")
        pixels = pixels.astype("f8")
        if pixels.shape != want.shape:
            wrong = f"{key} is {pixels.shape}, not {want.shape}"
            break
        off = np.abs(pixels - want)
        if off.max() == 0:
            continue
        if key == "mask":
            said = f"{off.astype(bool).mean():.4%} of the mask"
            wrong = wrong or (said if not contestant.off or off.astype(bool).mean() > 0.001 else "")
            continue
        said = f"{off.mean():.2g}, ≤ {off.max():.2g}"
        nearest = min(_shifts(), key=lambda by: np.abs(_shifted(pixels, *by) - _shifted(want, 0, 0)).mean())
        if off.mean() > contestant.off or nearest != (0, 0):
            wrong = f"{key} is {said} off, {contestant.off:g} on average is allowed; it fits best if shifted by {nearest} px"
    if wrong:
        sys.exit(f"{name}: the pixels of {contestant.label} differ: {wrong}")
    return said


def _shifts() -> list[tuple[int, int]]:
    return [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]


def _shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Without its outermost pixels, or others in their place."""
    height, width = pixels.shape[-2:]
    return pixels[..., 1 + down : height - 1 + down, 1 + right : width - 1 + right]


# -- in words


def figure(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def heading(work: dict[str, Any]) -> str:
    """A work's name, what is read, and the share of tiles without a label."""
    return f"{work['name']}: {work['what']}" + (f"; {work['empty']:.0%} without a road" if work["empty"] is not None else "")


def columns(work: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A work's table, its head first."""
    yield "contestant", "tiles/s", "spread", "ratio", "CPU ms/tile", "pixels"
    for row in work["contestants"]:
        spread = f"{figure(min(row['rates']))}–{figure(max(row['rates']))}"
        ratio = f"{row['ratio']:.2f}" if row["ratio"] >= 0.1 else f"{row['ratio']:.2g}"
        cpu = f"{row['cpu_clients']:.2f} + {row['cpu_server']:.2f}"
        yield row["label"], figure(row["median"]), spread, ratio, cpu, row["pixels"]


def bytes_said(work: dict[str, Any]) -> str:
    """Bytes on the wire beside bytes needed; empty where no bare COPY counted them."""
    sent = [row["wire"] for row in work["contestants"] if row["wire"]]
    if not sent:
        return ""
    on_wire, needed = sent[0], work["needed"]
    return f"{on_wire / 1000:,.0f} kB a tile on the wire, {needed / 1000:,.0f} kB needed ({on_wire / needed:.2f} ×)"


def _print(console: Console, work: dict[str, Any]) -> None:
    head, *rows = columns(work)
    table = Table(title=escape(heading(work)), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, text in enumerate(head):
        table.add_column(text, no_wrap=True, justify="right" if 0 < number < len(head) - 1 else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    for ours, theirs, ratio in work["duels"]:
        console.print(f"  {ours}: {ratio:.2f} × {theirs}", markup=False, highlight=False)
    if said := bytes_said(work):
        console.print(f"  {said}", markup=False, highlight=False)
    console.print()
