"""How fast a GeoTIFF comes into a table, and how large it is there."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from psycopg import sql
from rich.console import Console
from scene import Scene

from pgtiles import Database, load

TIMES = 3


def look(console: Console, db: Database, scene: Scene) -> dict[str, Any]:
    """MB of pixels a second, and table bytes for each byte of the file."""
    pixels, found = 3 * scene.size**2, {}
    for how in ("plain", "deflate"):
        file, seconds = scene.file(f"bench_{how}"), []
        for _ in range(TIMES):
            began = time.perf_counter()
            load.raster(db, file, "bench_load", replace=True)
            seconds.append(time.perf_counter() - began)
        ((size,),) = db.query(sql.SQL("SELECT pg_total_relation_size('bench_load')"))
        found[how] = {
            "mb_per_second": pixels / 1e6 / median(seconds), "seconds": seconds, "file_bytes": file.stat().st_size,
            "table_bytes": size, "bytes_per_file_byte": size / file.stat().st_size,
        }  # fmt: skip
        console.print(
            f"load raster, {how} GeoTIFF: {found[how]['mb_per_second']:.0f} MB of pixels a second; "
            f"{found[how]['bytes_per_file_byte']:.2f} bytes of table for one of file",
            markup=False,
        )
    with db.connection() as conn:
        conn.execute("DROP TABLE bench_load")
    return found
