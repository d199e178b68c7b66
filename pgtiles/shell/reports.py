"""What a shell shows of a check, of a tile that is explained, and of a benchmark: tables for people, JSON for machines."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..inspection.checking import Report
from ..inspection.explaining import Why
from ..inspection.timing import Stages

if TYPE_CHECKING:
    from .benching import Bench

COLOURS = {"problem": "bold red", "note": "yellow"}


def show_json(out: Console, found: Report | Why | Bench) -> None:
    """All of it, as JSON, which knows no number that is none: NaN and infinity are null."""
    out.print(json.dumps(_finite(found.as_dict()), indent=2, default=str, ensure_ascii=False, allow_nan=False), markup=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {_finite(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show_check(out: Console, report: Report) -> None:
    """How each layer is read, how fast, and what is wrong: with the SQL that mends it in a line of its own, to be copied."""
    if report.tiles:
        out.print(f"{report.database}: {report.tiles} tiles of {report.size}", markup=False)
        out.print(_layers(report))
    if report.speed:
        out.print(in_words(report.speed), markup=False)
    out.print(_server(report), markup=False)
    for finding in report.findings:
        value = f" ({finding.value})" if finding.value else ""
        where = f"layer '{finding.layer}': " if finding.layer else ""
        out.print(f"[{COLOURS[finding.severity]}]{finding.severity}:[/] {escape(f'{where}{finding.what}{value}')}")
        if finding.mend:
            out.print(f"    {finding.mend}", markup=False)
    if not report.findings:
        out.print("nothing is wrong")


def _server(report: Report) -> str:
    known, versions = report.connections, ", ".join(f"{name} {version}" for name, version in report.server.items())
    return f"server: {versions}; connections: {known['wanted']} wanted, {known['in_use']} in use of {known['most']}"


def _layers(report: Report) -> Table:
    table = Table("layer", "table", "SRID", "stored", "path", "tile", "dtype", "empty", "why")
    for one in report.layers:
        shape = " × ".join("n" if side is None else str(side) for side in one.shape)
        pixel = " × ".join(f"{side:g}" for side in one.resolution) if one.resolution else ""
        table.add_row(
            one.layer, escape(", ".join(one.tables)), str(one.srid or ""), pixel, one.path, shape, one.dtype,
            f"{one.empty} of {report.tiles}", escape(one.why),
        )  # fmt: skip
    return table


def in_words(speed: Stages) -> str:
    """Tiles a second on one connection, and where the time goes."""
    wire = "the wire" if speed.serialized else "the server's output and the wire"
    return (
        f"{speed.rate:,.0f} tiles/s on one connection; of a tile, the server takes {speed.server:.2f} ms, {wire} "
        f"{speed.wire:.2f}, the client {speed.client:.2f}; {speed.sent:,} bytes are "
        f"sent for {speed.needed:,} of pixels ({speed.tiles} tiles)"
    )


def show_why(out: Console, found: Why) -> None:
    """What made a tile, or kept it empty."""
    bounds = ", ".join(f"{value:.10g}" for value in found.bounds)
    out.print(f"tile {found.tile} at ({bounds}), {found.size}", markup=False)
    for layer in found.layers:
        out.print(f"layer '{layer.layer}': {'empty: ' if layer.empty else ''}{layer.reason}", markup=False)
        for table, keys in layer.rows.items():
            out.print(f"    {table}: {', '.join(keys) or 'no row on the tile'}", markup=False)
        for one in layer.given[:20]:
            named = {"class": one["part"] or None} | one["row"]
            values = ", ".join(f"{name} = {value}" for name, value in named.items() if value is not None)
            out.print(f"    {'on it' if one['meets'] else 'near it'}: {values or 'a feature'}", markup=False)
    out.print(f"\n{found.sql}\n\n{found.plan}", markup=False)


def show_bench(out: Console, found: Bench) -> None:
    """How fast tiles come with how many connections and workers, where the time goes, and what to take."""
    table = Table("connections", "workers", "tiles/s", "COPY thrown away", "share of it")
    for rate in found.rates:
        speeds = f"{rate.tiles:,.0f}", f"{rate.copy:,.0f}", f"{rate.tiles / rate.copy:.0%}"
        table.add_row(str(rate.connections), str(rate.workers), *speeds)
    out.print(table)
    out.print(in_words(found.stages), markup=False)
    most = max(rate.connections for rate in found.rates)
    more = "more were not tried" if found.connections == most else "one more gives less than a twentieth"
    out.print(f"take connections={found.connections}: {more}", markup=False)
