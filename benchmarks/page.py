"""Writes the documentation's page of figures, and its picture, from what a run left.

    python benchmarks/page.py build/bench/bench.json docs/benchmark.md

No figure of the page is typed by hand, and none of its sentences says who is ahead: that is worked out here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import bytes_said, columns, figure, heading
from report import draw, is_ceiling, is_ours

Run = dict[str, Any]

INTRO = """\
# Benchmark

<!-- Written by make bench-page from a run's figures: change benchmarks/page.py, not this file. -->

`make bench` makes a scene in PostGIS and in files, compares everybody's pixels with those that rasterio reads, and then times
all on the same tiles. `make bench-peers` first has TorchGeo among them, `make bench-page` writes this page. Your own machine's
figures are the ones that count: server and client share its cores, and ratios shift with their number, with the disk and with
how dense the map is.
"""

CONTESTANTS = """\
## Who is measured

* **pgtiles**, with *connections* on threads of one process, or one connection in each of some *workers*. *live* is the same
  beside *baked*.
* **rasterio loop**: a window of a GeoTIFF, its roads from an STRtree, `rasterize`: what one would write by hand, in a
  DataLoader. *plain* is uncompressed. Its polygons are buffered beforehand; pgtiles buffers lines while it reads.
* **TorchGeo**: `RasterDataset & VectorDataset` in an environment of its own.
* **one query with map algebra**, **ST_Union**, **ST_Union(ST_Clip)**: SQL that one would write first.
* **the same COPY, thrown away**: pgtiles' own statements without a client that does anything. **raw COPY**: the same bytes out
  of a table where they lie ready: nothing that comes out of PostgreSQL on one connection is faster.

What opens files and starts processes is left out of the time. Figures are medians of interleaved rounds, the spread is from the
slowest to the fastest of them, ratios are to a table's first line. CPU is the milliseconds a tile that clients + server ran; no
waiting is in it, so it says what a machine with more cores may hope for. The scene is small and lies in memory for all;
GDAL's cache is kept at some ten tiles, because no archive fits into one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="that a run left")
    parser.add_argument("page", type=Path, help="to be written; its picture goes to img/ beside it")
    options = parser.parse_args()
    run = json.loads(options.json.read_text())
    picture = options.page.parent / "img" / f"{options.page.stem}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw([work for work in run["works"] if len(work["contestants"]) > 5], picture)
    options.page.write_text("\n".join(_page(run, f"img/{picture.name}")) + "\n")
    print(f"written: {options.page} and {picture} ({picture.stat().st_size / 1000:.0f} kB)")


def _page(run: Run, picture: str) -> Iterator[str]:
    yield INTRO
    yield from _machine(run)
    yield f"\n![Tiles per second of all contestants, with spread and ratios]({picture})\n"
    yield from _standing(run["works"])
    yield from _duels(run["works"])
    yield "\n" + CONTESTANTS
    yield "## All figures"
    for work in run["works"]:
        yield from _work(work)
    parts = {"scaling": _scaling, "memory": _memory, "start": _start, "loading": _loading}
    for name, written in parts.items():
        if name in run:
            yield from written(run[name])


def _machine(run: Run) -> Iterator[str]:
    machine, options = run["machine"], run["options"]
    packages = [f"{name} {version}" for name, version in (machine["packages"] | (machine["peers"] or {})).items()]
    postgis = machine["postgis"].partition('POSTGIS="')[2].partition(" ")[0]
    yield (
        f"The run below: {machine['when'][:10]}, {machine['cores']} cores of {machine['processor'] or 'unknown make'}, "
        f"{machine['memory_gib']:.0f} GiB, {' '.join(machine['postgresql'].split()[:2])}, PostGIS {postgis}, shared_buffers "
        f"{machine['shared_buffers']}; {', '.join(dict.fromkeys(packages))}. Vectors: {options['vectors']}; "
        f"{options['rounds']} rounds; {run['took'] / 60:.0f} minutes."
    )
    if machine["load"][0] > 1.5 * machine["cores"]:
        yield (
            f"\n!!! warning\n    The machine was busy with other things (its load was {machine['load'][0]:.1f}): tiles per "
            "second are too low and unsteady, and ratios of them uncertain. CPU milliseconds hold."
        )


def _standing(works: list[Run]) -> Iterator[str]:
    """The best of ours beside the best of others, for each work that has others."""
    found = []
    for work in works:
        ours = [one for one in work["contestants"] if is_ours(one["label"])]
        others = [one for one in work["contestants"] if not is_ours(one["label"]) and not is_ceiling(one["label"])]
        if ours and others:
            found.append((work, max(ours, key=_median), max(others, key=_median)))
    found.sort(key=lambda one: _median(one[1]) / _median(one[2]), reverse=True)
    head = ("work", "pgtiles' best", "tiles/s", "the others' best", "tiles/s", "ratio")
    for title, chosen in (
        ("Where pgtiles is ahead", [one for one in found if _median(one[1]) >= _median(one[2])]),
        ("Where it loses", [one for one in found if _median(one[1]) < _median(one[2])]),
    ):
        yield f"## {title}\n"
        rows = [
            (heading(work), ours["label"], figure(_median(ours)), other["label"], figure(_median(other)),
             f"{_median(ours) / _median(other):.2f}")
            for work, ours, other in chosen
        ]  # fmt: skip
        yield from _table(head, rows) if rows else ("In none of the works of this run.",)
        yield ""
    if lost := [(work, ours, other) for work, ours, other in found if _median(ours) < _median(other)]:
        yield "Where the time goes there, in CPU milliseconds a tile:\n"
        for work, ours, other in reversed(lost):
            yield (
                f"* {work['name']}: {ours['cpu_clients']:.2f} in pgtiles' client and {ours['cpu_server']:.2f} in the server, "
                f"beside {other['cpu_clients'] + other['cpu_server']:.2f} of {other['label']}."
            )
        yield ""


def _duels(works: list[Run]) -> Iterator[str]:
    rows = [(work["name"], ours, theirs, f"{ratio:.2f}") for work in works for ours, theirs, ratio in work["duels"]]
    if rows:
        yield "## Like beside like\n"
        yield from _table(("work", "this", "beside that", "ratio"), rows)


def _work(work: Run) -> Iterator[str]:
    yield f"\n### {work['name'][0].upper()}{work['name'][1:]}\n"
    yield f"{heading(work).partition(': ')[2]}.\n"
    head, *rows = columns(work)
    yield from _table(head, rows)
    if said := bytes_said(work):
        yield f"\n{said}."


def _scaling(found: Run) -> Iterator[str]:
    yield "\n### A table 10 and 100 times as large\n"
    yield (
        "As many tiles at random places of the whole table, other places in each round. The largest table is "
        f"{found['tables']['bench_100']['bytes'] / found['shared_buffers']:.1f} × shared_buffers.\n"
    )
    rows = [
        (f"{name.partition('_')[2]} ×", f"{one['bytes'] / 1e6:,.0f}", f"{one['rows']:,}", f"{one['median_ms']:.2f}",
         f"{one['ratio']:.2f}", f"{one['hit_rate']:.0%}", str(one["temp_files"]), one["scan"])
        for name, one in found["tables"].items()
    ]  # fmt: skip
    head = ("table", "MB", "blocks", "ms a tile", "ratio", "found in shared_buffers", "temp files", "read by")
    yield from _table(head, rows)


def _memory(found: Run) -> Iterator[str]:
    yield "\n### Memory\n"
    yield (
        "MB in memory over 20 epochs of 256 tiles, image and uint8 mask: medians of the epochs 2 to 6 and of the last five, "
        "and the peak. Of the server's backends without shared buffers. *Ahead* are the batches that a process has read, or is "
        "reading, and that nobody asked for yet.\n"
    )
    rows = [
        (way, process, *(f"{its[when] / 1e6:.0f}" for when in ("early", "late")), f"{its['growth']:+.1%}",
         f"{its['peak'] / 1e6:.0f}", f"{one['ahead']:g}" if process == one["reader"] else "")
        for way, one in found.items() for process, its in one["processes"].items()
    ]  # fmt: skip
    yield from _table(("", "process", "early", "late", "growth", "peak", "ahead"), rows)


def _start(found: Run) -> Iterator[str]:
    yield "\n### The start\n"
    yield "Seconds in processes started for it, median of 5.\n"
    words = {"import": "`import pgtiles`", "first batch": "after `import torch`: dataset opened, first batch of image and mask"}
    rows = [
        (words[name], f"{one['median']:.3f}", f"{min(one['seconds']):.3f}–{max(one['seconds']):.3f}")
        for name, one in found.items()
    ]
    yield from _table(("", "s", "spread"), rows)


def _loading(found: Run) -> Iterator[str]:
    yield "\n### Loading a GeoTIFF\n"
    yield "MB of pixels a second, index included; and the table's bytes, with its indexes, for one of the file.\n"
    rows = [(how, f"{one['mb_per_second']:.0f}", f"{one['bytes_per_file_byte']:.2f}") for how, one in found.items()]
    yield from _table(("GeoTIFF", "MB/s", "table bytes a file byte"), rows)


def _median(one: Run) -> float:
    return one["median"]


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    for number, row in enumerate([head, *rows]):
        yield "| " + " | ".join(row) + " |"
        if not number:
            yield "|" + "---|" * len(head)


if __name__ == "__main__":
    main()
