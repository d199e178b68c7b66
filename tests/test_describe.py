"""What is known of tiles before they are read: areas and counts are shapely's, of the same rows, taken whole from their tables."""

import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from conftest import HEIGHT, RES, WIDTH, X0, Y0, ask
from sqlalchemy import text
from test_labels_oracle import metres

from pgtiles import Boxes, BySrid, Grid, Imagery, Labels, Tiles, Vectors, plot, read
from pgtiles.errors import ConfigError, DataError, PgtilesWarning, QueryError

NEAR = "FROM {} WHERE way && tile.geom"
ROADS, AREAS, TREES = (f"SELECT way AS geom {NEAR.format(name)}" for name in ("roads", "areas", "trees"))
BOX = (X0, Y0 - HEIGHT * RES, X0 + WIDTH * RES, Y0)


@pytest.fixture(scope="module")
def tiles(world):
    """Some that lie on the lattice, and some of another one; ids that are no positions."""
    grid = Grid(srid=3857, resolution=1.7, size=(90, 70), origin=(0.3, 0.4))
    return Tiles.random(grid, within=BOX, count=150, seed=2, first_id=1000)


def measured(tiles, shapes):
    """Share and count of each tile, by shapely."""
    tree, shapes = shapely.STRtree(shapes), np.array(shapes, object)
    share, count = np.zeros(len(tiles)), np.zeros(len(tiles), int)
    for i, bounds in enumerate(tiles.bounds):
        here = shapely.box(*bounds)
        near = [shapely.make_valid(shape) for shape in shapes[tree.query(here)]]
        parts = [shape.intersection(here) for shape in near]
        share[i] = shapely.union_all(parts).area / here.area
        count[i] = sum(p.area > 0 if s.area else s.intersects(here) for p, s in zip(parts, near, strict=True))
    return share, count


def holds(tiles, name, shapes, rel=1e-9):
    share, count = measured(tiles, shapes)
    assert count.any()
    np.testing.assert_allclose(tiles.columns[name], share, rtol=rel, atol=1e-15)
    np.testing.assert_array_equal(tiles.columns[f"{name}_count"], count)


class TestAgainstShapely:
    def test_classes_of_areas_lines_and_points(self, world, tiles):
        """Bare lines and points have no area, but count; areas have holes, and overlap."""
        layer = Labels({"area": AREAS, "road": (7, ROADS), "tree": TREES})
        found = tiles.describe(world.db, layer)
        assert list(found.columns) == ["area", "area_count", "road", "road_count", "tree", "tree_count"]
        holds(found, "area", world.features.areas)
        holds(found, "road", world.features.lines)
        holds(found, "tree", world.features.points)
        assert not found.columns["road"].any()
        assert found.columns["road_count"].any()
        for name in ("cols", "rows", "ids"):
            np.testing.assert_array_equal(getattr(found, name), getattr(tiles, name))

    def test_what_overlaps_within_a_class_counts_once_and_between_classes_twice(self, world, tiles):
        twice = f"{AREAS} UNION ALL SELECT ST_Translate(way, 9, 9) {NEAR.format('areas')}"
        found = tiles.describe(world.db, {"mask": Labels({"upper": AREAS, "lower": AREAS}), "both": Labels(twice)})
        moved = [shapely.transform(shape, lambda p: p + 9) for shape in world.features.areas]
        # where tile and a moved area meet, but not their boxes before the move, the query itself finds nothing
        inner = tiles.describe(world.db, {"both": Labels(twice.replace("way && tile.geom", "way && ST_Expand(tile.geom, 9)"))})
        holds(inner, "both", world.features.areas + moved)
        np.testing.assert_array_equal(found.columns["upper"], found.columns["lower"])
        holds(found, "upper", world.features.areas)

    def test_a_table_and_its_classes(self, world, tiles):
        found = tiles.describe(
            world.db, Labels("areas", classes={"odd": "class % 2 = 1", "four": "class = 4"}, where="id > 20")
        )
        for name, wanted in (("odd", (1, 3)), ("four", (4,))):
            holds(found, name, [s for i, s in enumerate(world.features.areas) if i >= 20 and 1 + i % 4 in wanted])

    def test_bands_of_vectors_and_statements(self, world, tiles):
        found = tiles.describe(world.db, Vectors({"area": text(AREAS), "tree": "trees"}))
        holds(found, "area", world.features.areas)
        holds(found, "tree", world.features.points)

    def test_widened_by_ground_metres(self, world, tiles):
        """As the burn widens them: at the scale of each tile's own centre."""
        found = tiles[:40].describe(world.db, {"road": Labels("roads", buffer=6)})
        lines, want = np.array(world.features.lines, object), []
        for i in range(len(found)):
            scale = metres(found.bounds[i])
            near = lines[shapely.distance(lines, shapely.box(*found.bounds[i])) < 20]
            wide = [shapely.transform(line, lambda p: p * scale).buffer(6, quad_segs=8) for line in near]
            want.append(measured(found[i], [shapely.transform(shape, lambda p: p / scale) for shape in wide]))
        share, count = np.concatenate(want, axis=1)
        # pyproj's metres and the server's differ in the ninth digit
        np.testing.assert_allclose(found.columns["road"], share, rtol=1e-7)
        np.testing.assert_array_equal(found.columns["road_count"], count)
        assert (count > 1).any()

    def test_rows_in_degrees(self, world, tiles):
        """Their corners went to degrees and came back, to some nanometres."""
        found = tiles.describe(world.db, {"area": Labels("areas_4326")})
        share, _ = measured(tiles, world.features.areas)
        np.testing.assert_allclose(found.columns["area"], share, atol=1e-8)
        assert share.max() > 0.5

    def test_the_mask_shows_it(self, world, tiles):
        """The share of pixels is the share of area, but for the edges of pixels; the upper class takes from the lower."""
        layer = Labels({"area": AREAS})
        pixels = (read(world.db, tiles, {"mask": layer})["mask"] == 1).mean(axis=(1, 2))
        assert abs(pixels - tiles.describe(world.db, layer).columns["area"]).max() < 0.01


class TestShapes:
    """Odd ones, on a tile of 10 × 10 at (0, 0)."""

    TILES = Tiles(Grid(srid=3857, resolution=1, size=10), [0], [-1 * 10])

    def share(self, db, *shapes):
        rows = ", ".join(f"(ST_GeomFromText('{shape}', 3857))" for shape in shapes)
        found = self.TILES.describe(db, {"x": Labels(f"SELECT v.geom FROM (VALUES {rows}) AS v (geom)")})
        return found.columns["x"][0], found.columns["x_count"][0]

    @pytest.mark.parametrize(
        "share, count, shapes",
        [
            (0.25, 1, ["POLYGON((-5 -5, 5 -5, 5 5, -5 5, -5 -5))"]),
            (1, 1, ["POLYGON((-5 -5, 15 -5, 15 15, -5 15, -5 -5))"]),
            # it goes out of the tile and in again: a ring cut at the edge runs to and fro along it
            (0.4, 1, ["POLYGON((-5 0, 10 0, 10 2, -3 2, -3 8, 10 8, 10 10, -5 10, -5 0))"]),
            # a hole that reaches beyond the tile, and one that is all of it
            (0.5, 1, ["POLYGON((-9 -9, 19 -9, 19 19, -9 19, -9 -9), (5 -5, 15 -5, 15 15, 5 15, 5 -5))"]),
            (0, 0, ["POLYGON((-9 -9, 19 -9, 19 19, -9 19, -9 -9), (-1 -1, 11 -1, 11 11, -1 11, -1 -1))"]),
            # bow-ties, filled by even-odd: one within whose halves cancel, one that the edge cuts
            (0.5, 1, ["POLYGON((0 0, 10 10, 10 0, 0 10, 0 0))"]),
            (0.25, 1, ["POLYGON((-5 0, 15 10, 15 0, -5 10, -5 0))"]),
            # parts of one feature that overlap; features that do; one on top of another
            (0.75, 1, ["MULTIPOLYGON(((0 0, 5 0, 5 10, 0 10, 0 0)), ((2 0, 7.5 0, 7.5 10, 2 10, 2 0)))"]),
            (0.75, 2, ["POLYGON((0 0, 5 0, 5 10, 0 10, 0 0))", "POLYGON((2 0, 7.5 0, 7.5 10, 2 10, 2 0))"]),
            (0.5, 2, ["POLYGON((0 0, 5 0, 5 10, 0 10, 0 0))"] * 2),
            # beside the tile: an area has nothing inside, a line along the edge and a point on it do
            (0, 0, ["POLYGON((10 0, 20 0, 20 10, 10 10, 10 0))"]),
            (0, 2, ["LINESTRING(10 0, 10 5)", "POINT(0 0)"]),
            # its box meets the tile, and it does not
            (0, 0, ["LINESTRING(-5 5, 5 16)", "POLYGON((8 16, 16 8, 16 16, 8 16))"]),
            (0.25, 1, ["GEOMETRYCOLLECTION(POINT(1 1), LINESTRING(0 0, 30 30), POLYGON((0 0, 5 0, 5 5, 0 5, 0 0)))"]),
            (0.25, 2, ["POLYGON Z((0 0 1, 5 0 2, 5 5 3, 0 5 4, 0 0 1))", "POINT EMPTY", "LINESTRING(1 1, 2 2)"]),
        ],
    )  # fmt: skip
    def test_shape(self, world, share, count, shapes):
        assert self.share(world.db, *shapes) == (pytest.approx(share, rel=1e-12), count)

    def test_a_circle_is_its_segments(self, world):
        share, _ = self.share(world.db, "CURVEPOLYGON(CIRCULARSTRING(2 5, 5 8, 8 5, 5 2, 2 5))")
        assert share == pytest.approx(np.pi * 9 / 100, rel=2e-3)

    @pytest.mark.parametrize("coordinate", ["'NaN'", "'Infinity'", "1e300"])
    def test_a_coordinate_that_is_none_is_an_error_with_the_tile(self, world, coordinate):
        query = f"SELECT ST_SetSRID(ST_MakeLine(ST_MakePoint(1, 1), ST_MakePoint({coordinate}, 2)), 3857) AS geom"
        with pytest.raises(DataError, match="layer 'x': tile 0: a geometry has a coordinate"):
            self.TILES.describe(world.db, {"x": Labels(query)})


class TestManyTiles:
    def test_chunks_progress_and_empty_tiles(self, world, monkeypatch):
        """More tiles than a statement takes, most of them empty: each row comes to its own tile."""
        tiles = Tiles.sliding(Grid(srid=3857, resolution=RES, size=9), within=BOX)[::-1]
        seen = []
        found = tiles.describe(world.db, Labels({"tree": TREES}), progress=lambda done, of: seen.append((done, of)))
        assert len(tiles) > 2 * 4096
        assert seen == [(4096, len(tiles)), (8192, len(tiles)), (len(tiles), len(tiles))]
        count = found.columns["tree_count"]
        assert (count == 0).mean() > 0.9
        holds(found, "tree", world.features.points)

    def test_no_tile(self, world, tiles):
        found = tiles[:0].describe(world.db, Labels({"tree": TREES}))
        assert {name: len(values) for name, values in found.columns.items()} == {"tree": 0, "tree_count": 0}

    def test_the_tile_that_fails_is_named(self, world, tiles):
        query = f"SELECT ST_Buffer(way, 1 / (tile.id - 1100)) AS geom {NEAR.format('areas')} OR true"
        with pytest.warns(PgtilesWarning), pytest.raises(QueryError, match="tile 1100: division by zero"):
            tiles.describe(world.db, {"x": Labels(query)})

    def test_a_missing_index_is_told(self, schema_db, tiles):
        ask_(schema_db, "CREATE TABLE bare AS SELECT * FROM public.areas")
        with pytest.warns(PgtilesWarning, match="CREATE INDEX ON") as caught:
            tiles.describe(schema_db, {"x": Labels("bare")})
        assert caught[0].filename == __file__

    def test_no_tiles_are_not_drawn(self, tiles):
        with pytest.raises(ConfigError, match="there is no tile to draw"):
            plot.histogram(tiles[:0].with_columns(x=np.zeros(0)), "x")


def ask_(db, statement):
    with db.connection() as conn:
        conn.execute(statement)


class TestRefused:
    @pytest.mark.parametrize(
        "layers, says",
        [
            (Labels(ROADS), "a layer without classes needs a name"),
            ({"image": Imagery("scene")}, "Imagery burns no vectors: expected Labels or Vectors"),
            ({"box": Boxes("areas")}, "Boxes burns no vectors"),
            ({"m": Labels("scene")}, "layer 'm': scene gives rasters, and areas are those of vectors"),
            ({"a": Labels({"road": ROADS}), "b": Labels({"road": TREES})}, "two of the layers give a column 'road'"),
            ({"road_count": Labels(ROADS), "road": Labels(ROADS)}, "two of the layers give a column 'road_count'"),
            (Labels({"a": ROADS, "a_count": ROADS}), "two of its classes give a column 'a_count'"),
        ],
    )
    def test_refused(self, world, tiles, layers, says):
        with pytest.raises(ConfigError, match=says):
            tiles.describe(world.db, layers)

    def test_a_query_that_is_wrong_points_into_it(self, world, tiles):
        with pytest.raises(QueryError, match=r"layer 'x': class 'a': (?s:.)*line 1: SELECT nothing"):
            tiles.describe(world.db, {"x": Labels({"a": "SELECT nothing AS geom FROM roads"})})

    def test_nothing_is_written(self, world, tiles):
        """The user's query runs in a transaction that is read only."""
        before = ask(world.db, "SELECT count(*) FROM trees")
        query = "SELECT geom FROM (SELECT ST_MakePoint(nextval('trees_id_seq'), 0) AS geom) AS g"
        with pytest.raises(QueryError, match="read-only transaction"):
            tiles.describe(world.db, {"x": Labels(query)})
        assert ask(world.db, "SELECT count(*) FROM trees") == before


def test_the_page_runs(helsinki, tmp_path, monkeypatch, capsys):
    """What it says of its last figures holds: an epoch reads a fiftieth of water, measured on its pixels."""
    monkeypatch.setenv("PGTILES_URL", helsinki.url)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "tiles-knowing.md").read_text()
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S):
        exec(compile(code, "tiles-knowing.md", "exec"), names)
    land, read_ = map(float, re.findall(r"\d\.\d+", capsys.readouterr().out))
    assert land < 0.005
    assert abs(read_ - 0.02) < 0.003
    for name in ("buildings.png", "map.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert 0 < len(names["built"]) < len(names["most"]) < 2000
    assert len(list(names["dataset"])) == 200


def test_tiles_on_several_grids(world, tiles):
    """Each grid's tiles are asked in its own SRID; rows and progress come to their own places, and neighbours are of one grid."""
    utm = Grid(srid=32632, resolution=1.7, size=(90, 70))
    bounds = world.db.extent("areas", 32632)
    middle = [(a + b) / 2 for a, b in zip(bounds[:2], bounds[2:], strict=True)]
    there = Tiles.random(utm, within=(*(m - 600 for m in middle), *(m + 600 for m in middle)), count=30, seed=4)
    both, seen = (tiles[:20] + there)[::-1], []
    layer = Labels("areas")
    of_both = both.describe(world.db, {"area": layer}, progress=lambda done, of: seen.append((done, of)))
    want = np.concatenate([part.describe(world.db, {"area": layer}).columns["area"] for part in (tiles[:20], there)])[::-1]
    np.testing.assert_array_equal(of_both.columns["area"], want)
    assert seen[-1] == (50, 50)
    by_srid = BySrid({3857: layer, 32632: Labels("areas", where="class = 1")})
    apart = both.describe(world.db, {"area": by_srid}).columns["area"]
    np.testing.assert_array_equal(apart[30:], want[30:])
    assert 0 < apart[:30].sum() < want[:30].sum()
    np.testing.assert_array_equal(both.density(1e9), [30] * 30 + [20] * 20)
    assert (both.weighted(np.ones(50), count=100).epoch(0, 0)[:4].srids == 32632).all()
    with pytest.raises(ConfigError, match=r"draw each of tiles.by_grid"):
        plot.map(both)
