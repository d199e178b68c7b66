"""The second example: one epoch of it, with few tiles. That it learns is what the example itself prints."""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import ask

from pgtiles import Database, Labels, Tiles, read

EXAMPLES = Path(__file__).parents[1] / "examples"
TABLES = """
    SELECT relname, oid FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'spatial_ref_sys'
"""


@pytest.fixture
def helsinki(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    module = importlib.import_module("helsinki")
    monkeypatch.setattr(module, "TILES", 60)
    return module


@pytest.mark.filterwarnings("ignore:.*tiles were dropped")  # so few tiles are dealt less evenly
def test_one_epoch(helsinki, database_url, tmp_path):
    with Database(database_url) as db:
        with db.connection() as conn:
            conn.execute("CREATE TABLE planet_osm_line AS SELECT 1 AS osm_id, 'mine' AS highway")
        before = dict(ask(db, TABLES))
    scores = helsinki.main(output=tmp_path / "helsinki.png", url=database_url, epochs=1)
    assert list(scores) == ["background", "road", "building", "park", "mean"]
    assert all(math.isfinite(score) and 0 <= score <= 1 for score in scores.values())
    assert (tmp_path / "helsinki.png").stat().st_size > 50_000
    with Database(database_url) as db:
        after = dict(ask(db, TABLES))
        assert before.items() <= after.items()
        assert ask(db, "SELECT * FROM planet_osm_line") == [(1, "mine")]
        made = {f"helsinki_{kind}" for kind in ("point", "line", "polygon", "roads", "aerial")}
        assert after.keys() - before.keys() <= made | {"osm2pgsql_properties"}
        looked_at(helsinki, db)


def looked_at(helsinki, db):
    """The label has all classes and many widths, and the picture lies where the label does."""
    tiles = Tiles.random(helsinki.GRID, within=helsinki.CITY, count=40)
    of_width = Labels(f"SELECT ST_Buffer(way, width / 2) AS geom, width AS value FROM ({helsinki.STREETS}) AS s "
                      "WHERE ST_DWithin(way, tile.geom, 15)", dtype="float32")  # fmt: skip
    seen = read(db, tiles, helsinki.LAYERS | {"width": of_width})
    mask, image = seen["mask"], np.moveaxis(seen["image"], 1, -1).astype(float)
    assert np.unique(mask).tolist() == [0, 1, 2, 3]
    widths = np.unique(seen["width"][mask == 1])
    assert len(widths) >= 6
    assert widths.max() >= 3 * widths[widths > 0].min()
    green = image[..., 1] - image[..., 0]
    assert green[mask == 3].mean() > 5 > abs(green[mask == 1].mean())
    # a step aside, and less of the roads' even grey lies below the label
    red = [np.abs(np.roll(image[..., 0], shift, axis=2)[mask == 1] - 93).mean() for shift in (-8, 0, 8)]
    assert red[1] == min(red)
