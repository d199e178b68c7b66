"""Boxes, instances and values: shapely says where a feature lies in a tile, rasterio which pixels it has."""

import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import torch
from conftest import X0, Y0, shared
from rasterio.features import rasterize
from rasterio.transform import from_origin

import pgtiles
from pgtiles import Boxes, Database, Grid, Imagery, Instances, Labels, TileDataset, Tiles, Value, load, read, samples
from pgtiles.errors import ConfigError, DataError, PgtilesWarning, QueryError
from pgtiles.streaming.reading import Plan
from pgtiles.targets import detection, masks

DOCS = Path(__file__).parents[1] / "docs"
BUILDINGS = "spacenet_atlanta_buildings"
AREAS = "SELECT way AS geom, class AS value, id FROM areas WHERE way && tile.geom"


@pytest.fixture(scope="module")
def atlanta(template):
    """The SpaceNet scene of Atlanta with its buildings, a grid on its pixels, and the footprints as PostGIS holds them."""
    folder = samples.spacenet()
    with shared(template, "pgtiles_targets") as url, Database(url) as db:
        load.raster(db, folder / "sample_geotiff.tif", "spacenet_atlanta")
        load.vector(db, folder / "geotiff_labels.geojson", "spacenet_atlanta_buildings")
        grid = Grid.like(db, "spacenet_atlanta", size=128)
        with db.connection() as conn:
            (key,) = conn.execute(
                "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid "
                "AND a.attnum = i.indkey[0] WHERE i.indrelid = 'spacenet_atlanta_buildings'::regclass AND indisprimary"
            ).fetchone()
            (column,) = conn.execute(
                "SELECT f_geometry_column FROM geometry_columns WHERE f_table_name = 'spacenet_atlanta_buildings'"
            ).fetchone()
            rows = conn.execute(
                f"SELECT {key}, ST_AsBinary(ST_Transform({column}, {grid.srid})) FROM spacenet_atlanta_buildings"
            ).fetchall()
        yield SimpleNamespace(url=url, db=db, grid=grid, key=key, column=column,
                              found={i: shapely.from_wkb(g) for i, g in rows},
                              tiles=Tiles.sliding(grid, within=db.extent("spacenet_atlanta", grid.srid), stride=96))  # fmt: skip


@pytest.fixture(scope="module")
def random_tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=60, seed=1)


def fetched(world, table):
    """Geometry, class and id of the base table's rows, as PostGIS holds them."""
    with world.db.connection() as conn:
        rows = conn.execute(f"SELECT ST_AsBinary(way), class, id FROM {table} ORDER BY id").fetchall()
    return [(shapely.from_wkb(g), c, i) for g, c, i in rows]


def inside(geometry, box):
    """The part of a geometry in the tile, of its own dimension; None where there is none."""
    part = shapely.intersection(geometry, box)
    kind = shapely.get_dimensions(geometry)
    parts = [p for p in shapely.get_parts(shapely.get_parts(part)) if shapely.get_dimensions(p) == kind and not p.is_empty]
    return shapely.union_all(parts) if parts else None


def share(part, whole):
    kind = shapely.get_dimensions(whole)
    return 1 if kind == 0 else part.area / whole.area if kind == 2 else part.length / whole.length


def expected_boxes(shapes, tiles, i, min_overlap=0.0):
    """(boxes, labels, ids) by shapely, in the order of ids."""
    xmin, ymin, xmax, ymax = tiles.bounds[i]
    sx, sy = tiles.grid.pixel
    out, tile = [], shapely.box(xmin, ymin, xmax, ymax)
    near = np.flatnonzero(shapely.intersects([geometry for geometry, _, _ in shapes], tile))
    for geometry, label, id_ in sorted((shapes[k] for k in near), key=lambda s: s[2]):
        part = inside(geometry, tile)
        if part is None or share(part, geometry) < min_overlap:
            continue
        x0, y0, x1, y1 = part.bounds
        out.append((((x0 - xmin) / sx, (ymax - y1) / sy, (x1 - xmin) / sx, (ymax - y0) / sy), label, id_))
    return (
        np.array([b for b, _, _ in out], "float64").reshape(-1, 4),
        np.array([v for _, v, _ in out], "int64"),
        np.array([v for _, _, v in out], "int64"),
    )


def check_boxes(got, name, shapes, tiles, min_overlap=0.0):
    """All boxes of all tiles, to a float32 and 1e-6 px; how many there were."""
    total = 0
    for i in range(len(tiles)):
        boxes, labels, ids = expected_boxes(shapes, tiles, i, min_overlap)
        np.testing.assert_array_equal(got[f"{name}_id"][i], ids)
        np.testing.assert_array_equal(got[f"{name}_label"][i], labels)
        assert got[name][i].dtype == np.float32
        assert got[name][i].shape == (len(ids), 4)
        np.testing.assert_allclose(got[name][i], boxes.astype("float32"), rtol=1.2e-7, atol=1e-6)
        total += len(ids)
    return total


def expected_map(shapes, tiles, i):
    """The map by rasterio, the larger below, numbered without a gap; labels and ids of what is left to see."""
    xmin, _, _, ymax = tiles.bounds[i]
    near = shapely.box(*tiles.bounds[i]).buffer(50)
    order = sorted((s for s in shapes if s[0].intersects(near)), key=lambda s: (-s[0].area, -s[0].length, s[2]))
    out = np.zeros(tiles.grid.shape, "int32")
    if order:
        rasterize(
            [(g, k) for k, (g, _, _) in enumerate(order, 1)], out=out, transform=from_origin(xmin, ymax, *tiles.grid.pixel)
        )
    seen = [k for k in range(1, len(order) + 1) if (out == k).any()]
    numbered = sum((np.where(out == k, new, 0) for new, k in enumerate(seen, 1)), np.zeros(out.shape, "int64"))
    return numbered, [order[k - 1][1] for k in seen], [order[k - 1][2] for k in seen]


def check_maps(got, name, shapes, tiles):
    total = 0
    for i in range(len(tiles)):
        numbered, labels, ids = expected_map(shapes, tiles, i)
        np.testing.assert_array_equal(got[name][i], numbered)
        assert got[f"{name}_label"][i].tolist() == labels
        assert got[f"{name}_id"][i].tolist() == ids
        total += len(ids)
    return total


class TestBoxes:
    def test_atlanta(self, atlanta):
        shapes = [(g, 1, i) for i, g in atlanta.found.items()]
        got = read(atlanta.db, atlanta.tiles, {"b": Boxes(BUILDINGS, id=atlanta.key)})
        assert check_boxes(got, "b", shapes, atlanta.tiles) > 43  # some lie in several tiles
        assert min(len(b) for b in got["b"]) == 0

    @pytest.mark.parametrize("min_overlap", [0.3, 1.0])
    def test_atlanta_with_a_share(self, atlanta, min_overlap):
        shapes = [(g, 1, i) for i, g in atlanta.found.items()]
        # a share of exactly one is what lies wholly inside; shapely's cut may be an ulp smaller
        shares = [share(p, g) for g, _, _ in shapes for b in atlanta.tiles.bounds if (p := inside(g, shapely.box(*b)))]
        assert any(s < min_overlap for s in shares)
        got = read(atlanta.db, atlanta.tiles, {"b": Boxes(BUILDINGS, id=atlanta.key, min_overlap=min_overlap)})
        wanted = min_overlap if min_overlap < 1 else 1 - 1e-12
        assert check_boxes(got, "b", shapes, atlanta.tiles, wanted) > 20

    @pytest.mark.parametrize("table", ["areas", "roads", "trees"])
    @pytest.mark.parametrize("min_overlap", [0, 0.5])
    def test_areas_lines_and_points(self, world, random_tiles, table, min_overlap):
        got = read(world.db, random_tiles, {"b": Boxes(table, value="class", id="id", min_overlap=min_overlap)})
        assert check_boxes(got, "b", fetched(world, table), random_tiles, min_overlap) > 15

    def test_a_table_in_another_srid(self, world, random_tiles):
        """Moved by PostGIS, as shapely does not: to the tiles' SRID, where the box is measured."""
        with world.db.connection() as conn:
            rows = conn.execute("SELECT ST_AsBinary(ST_Transform(way, 3857)), class, id FROM areas_4326").fetchall()
        shapes = [(shapely.from_wkb(g), c, i) for g, c, i in rows]
        layers = {
            "table": Boxes("areas_4326", value="class", id="id"),
            "query": Boxes(AREAS.replace("areas", "areas_4326"), srid=4326),
        }
        got = read(world.db, random_tiles, layers)
        for name in layers:
            assert check_boxes(got, name, shapes, random_tiles) > 15

    def test_concave_at_the_edge(self, world):
        """A C whose back lies beyond the tile: the box is that of its arms inside, not the feature's cut at the edge."""
        tile = Tiles(world.grid, [2], [2])
        xmin, _, _, ymax = tile.bounds[0]
        sx, sy = world.grid.pixel
        place = f"ST_SetSRID(ST_Translate(ST_Scale(ST_GeomFromText('%s'), {sx}, -{sy}), {xmin}, {ymax}), 3857)"
        made = place % "POLYGON((-10 -5, 20 -5, 20 5, -5 5, -5 30, 8 30, 8 33, -10 33, -10 -5))"
        got = read(world.db, tile, {"b": Boxes(f"SELECT {made} AS geom")})
        np.testing.assert_allclose(got["b"][0], [[0, 0, 20, 33]], atol=1e-6)
        made = place % "POLYGON((-10 5, 4 5, 4 9, -5 9, -5 50, -10 50, -10 5))"
        got = read(world.db, tile, {"b": Boxes(f"SELECT {made} AS geom")})
        np.testing.assert_allclose(got["b"][0], [[0, 5, 4, 9]], atol=1e-6)  # the feature's own box reaches to y = 50

    def test_what_sticks_out_by_centimetres_is_cut(self, world):
        """Nearer than the float4 boxes of the operators tell: what sticks out is a long wall, and no part of the box."""
        grid = Grid(srid=3857, resolution=2.5, size=64, origin=(X0 + 0.06, Y0))  # no float4 has this edge
        tile = Tiles(grid, [2], [2])
        xmin, _, _, ymax = tile.bounds[0]
        wall = (
            f"{xmin - 0.04} {ymax - 100}, {xmin - 0.04} {ymax - 20}, {xmin + 30} {ymax - 20}, {xmin + 30} {ymax - 30}, "
            f"{xmin - 0.02} {ymax - 30}, {xmin - 0.02} {ymax - 100}, {xmin - 0.04} {ymax - 100}"
        )
        got = read(world.db, tile, {"b": Boxes(f"SELECT 'SRID=3857;POLYGON(({wall}))'::geometry AS geom")})
        np.testing.assert_allclose(got["b"][0], [[0, 8, 12, 12]], atol=1e-5)

    def test_what_only_touches_the_edge_is_outside(self, world):
        tile = Tiles(world.grid, [2], [2])
        query = """
            SELECT ST_Translate(tile.geom, ST_XMax(tile.geom) - ST_XMin(tile.geom), 0) AS geom FROM tile
            UNION ALL SELECT ST_Translate(tile.geom, 0, 160) FROM tile
            UNION ALL SELECT tile.geom FROM tile
        """
        assert read(world.db, tile, {"b": Boxes(query)})["b"][0].tolist() == [[0, 0, 64, 64]]

    def test_bow_ties_collections_and_nothing(self, world):
        """An invalid area is made valid where it has to be cut; a collection is one box; NULL and empty are none."""
        tile = Tiles(world.grid, [2], [2])
        xmin, _, _, ymax = tile.bounds[0]
        query = f"""
            SELECT ST_SetSRID(ST_Translate(ST_Scale(ST_GeomFromText(wkt), 2.5, -2.5), {xmin}, {ymax}), 3857) AS geom, id
            FROM (VALUES ('POLYGON((-10 10, 10 30, 10 10, -10 30, -10 10))', 1),
                         ('GEOMETRYCOLLECTION(POLYGON((1 1, 3 1, 3 3, 1 3, 1 1)), LINESTRING(5 5, 9 70))', 2),
                         ('CURVEPOLYGON(CIRCULARSTRING(40 50, 50 40, 60 50, 50 60, 40 50))', 3),
                         ('POLYGON EMPTY', 4), (NULL, 5)) AS v (wkt, id)
        """
        got = read(world.db, tile, {"b": Boxes(query, min_overlap=0.4)})
        assert got["b_id"][0].tolist() == [1, 2, 3]
        line_end = 5 + 4 * 59 / 65
        np.testing.assert_allclose(got["b"][0], [[0, 10, 10, 30], [1, 1, line_end, 64], [40, 40, 60, 60]], atol=1e-4)

    def test_without_ids_they_are_numbered(self, world, random_tiles):
        layer = Boxes("SELECT way AS geom FROM areas WHERE way && tile.geom ORDER BY random()", value=7)
        got, again = (read(world.db, random_tiles, {"b": layer}) for _ in range(2))
        for boxes, same, ids, labels in zip(got["b"], again["b"], got["b_id"], got["b_label"], strict=True):
            assert ids.tolist() == list(range(1, len(boxes) + 1))
            assert set(labels.tolist()) <= {7}
            np.testing.assert_array_equal(boxes, same)

    def test_where_and_ids_beyond_float(self, world, random_tiles):
        shapes = [s for s in fetched(world, "areas") if s[1] == 2]
        query = (
            f"SELECT way AS geom, class AS value, id + {2**60}::bigint AS id FROM areas WHERE way && tile.geom AND class = 2"
        )
        got = read(world.db, random_tiles, {"t": Boxes("areas", where="class = 2", value="class", id="id"), "q": Boxes(query)})
        assert check_boxes(got, "t", shapes, random_tiles) > 5
        assert check_boxes(got, "q", [(g, c, i + 2**60) for g, c, i in shapes], random_tiles) > 5

    @pytest.mark.parametrize(
        ("query", "error", "says"),
        [
            (AREAS.replace("class", "1.5"), DataError, "value 1.5 is no label"),
            (AREAS.replace("class", "NULL::int"), DataError, "a row's value is NULL"),
            (AREAS.replace("id FROM", "NULL::int AS id FROM"), DataError, "id of a row .* is NULL"),
            (AREAS.replace("id FROM", "name AS id FROM"), QueryError, "column id is of type text: expected a whole number"),
            (AREAS.replace("class", "name"), QueryError, "column value is of type text"),
            (AREAS.replace("way AS geom", "way"), QueryError, "no geom: write way AS geom"),
        ],
    )  # fmt: skip
    def test_wrong_queries(self, world, random_tiles, query, error, says):
        with pytest.raises(error, match=f"layer 'b'.*{says}"):
            read(world.db, random_tiles, {"b": Boxes(query)})

    def test_wrong_arguments(self):
        for wrong in ({"min_overlap": 1.5}, {"value": 0.5}):
            with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
                Boxes("areas", **wrong)
        for wrong in ({"where": "true"}, {"id": "id"}, {"value": "class"}):
            with pytest.raises(ConfigError, match="go with a table's name"):
                Instances(AREAS, **wrong)


class TestInstances:
    def test_atlanta(self, atlanta):
        shapes = [(g, 1, i) for i, g in atlanta.found.items()]
        got = read(atlanta.db, atlanta.tiles, {"m": Instances(BUILDINGS, id=atlanta.key)})
        assert check_maps(got, "m", shapes, atlanta.tiles) > 43

    @pytest.mark.parametrize("table", ["areas", "roads", "trees"])
    def test_areas_lines_and_points(self, world, random_tiles, table):
        got = read(world.db, random_tiles, {"m": Instances(table, value="class", id="id")})
        assert check_maps(got, "m", fetched(world, table), random_tiles) > 15

    def test_the_smaller_lies_on_top_unless_told_otherwise(self, world):
        tile = Tiles(world.grid, [2], [2])
        query = """
            SELECT ST_Expand(ST_Centroid(tile.geom), r) AS geom, r AS value, r * 10 AS id {}
            FROM tile, (VALUES (20), (60), (40)) AS v (r)
        """
        got = read(world.db, tile, {"m": Instances(query.format(""))})
        assert got["m_label"][0].tolist() == [60, 40, 20]
        assert got["m_id"][0].tolist() == [600, 400, 200]
        assert (got["m"][0][32, 32], got["m"][0][32, 32 + 20], got["m"][0][0, 0]) == (3, 1, 0)
        got = read(world.db, tile, {"m": Instances(query.format(", r AS priority"))})
        assert got["m_label"][0].tolist() == [60]  # it covers the others, which so are none
        assert set(np.unique(got["m"])) == {0, 1}

    def test_a_collection_is_one_instance(self, world):
        query = """
            SELECT ST_Collect(ARRAY[
                ST_Expand(c, 10), ST_Translate(ST_Expand(c, 10), 30, 0), ST_Boundary(ST_Expand(c, 50)), ST_Translate(c, 0, 70)
            ]) AS geom
            FROM (SELECT ST_Centroid(tile.geom) AS c FROM tile) AS t
        """
        got = read(world.db, Tiles(world.grid, [2], [2]), {"m": Instances(query), "l": Labels(query)})
        np.testing.assert_array_equal(got["m"], got["l"])
        assert got["m_id"][0].tolist() == [1]

    def test_masks(self, world, random_tiles):
        got = read(world.db, random_tiles, {"m": Instances("areas", id="id")})
        for map_, ids in zip(got["m"], got["m_id"], strict=True):
            apart = masks(map_)
            assert apart.shape == (len(ids), 64, 64)
            assert apart.dtype == bool
            assert apart.any(axis=(1, 2)).all()
            np.testing.assert_array_equal(apart.sum(axis=0), map_ > 0)
            tensor = masks(torch.from_numpy(map_))
            assert tensor.dtype == torch.bool
            np.testing.assert_array_equal(tensor.numpy(), apart)
        with pytest.raises(ConfigError, match="of one tile"):
            masks(got["m"])


class TestValue:
    def test_share_of_areas(self, world, random_tiles):
        query = """
            SELECT ST_Area(ST_Union(ST_Intersection(way, tile.geom))) / ST_Area(tile.geom) AS value
            FROM areas, tile WHERE way && tile.geom GROUP BY tile.geom
        """
        union = shapely.union_all([g for g, _, _ in fetched(world, "areas")])
        expected = [shapely.intersection(union, b).area / b.area for b in (shapely.box(*b) for b in random_tiles.bounds)]
        got = read(world.db, random_tiles, {"v": Value(query, missing=0)})["v"]
        assert (got.shape, got.dtype) == ((60,), np.float32)
        np.testing.assert_allclose(got, expected, atol=1e-6)
        assert 0 < (got > 0).mean() <= 1

    def test_majority_class(self, world, random_tiles):
        """By area; a tile without any has no row, and so is missing."""
        query = """
            SELECT class AS value FROM areas, tile WHERE ST_Intersects(way, tile.geom)
            GROUP BY class ORDER BY sum(ST_Area(ST_Intersection(way, tile.geom))) DESC, class LIMIT 1
        """
        got = read(world.db, random_tiles, {"v": Value(query, dtype="int64", missing=-1)})["v"]
        for i, bounds in enumerate(random_tiles.bounds):
            areas = dict.fromkeys(range(1, 5), 0.0)
            for geometry, label, _ in fetched_once(world):
                areas[label] += geometry.intersection(shapely.box(*bounds)).area
            assert got[i] == (max(areas, key=areas.get) if any(areas.values()) else -1)
        assert got.dtype == np.int64

    def test_several_classes(self, world, random_tiles):
        query = "SELECT DISTINCT class - 1 AS n, true AS value FROM areas WHERE ST_Intersects(way, tile.geom)"
        got = read(world.db, random_tiles, {"v": Value(query, length=4, dtype="uint8", missing=0)})["v"]
        assert got.shape == (60, 4)
        for i, bounds in enumerate(random_tiles.bounds):
            met = {c - 1 for g, c, _ in fetched_once(world) if g.intersects(shapely.box(*bounds))}
            assert set(np.flatnonzero(got[i]).tolist()) == met
        assert 0 < got.mean() < 1

    def test_null_is_missing(self, world, random_tiles):
        query = "SELECT CASE WHEN tile.id % 2 = 0 THEN 5 END AS value FROM tile"
        odd = random_tiles.ids % 2 == 1
        layers = {"f": Value(query), "i": Value(query, dtype="int16"), "s": Value(query, missing=-9)}
        got = read(world.db, random_tiles, layers)
        np.testing.assert_array_equal(np.isnan(got["f"]), odd)
        assert got["f"][~odd].tolist() == [5.0] * (~odd).sum()
        np.testing.assert_array_equal(got["i"], np.where(odd, 0, 5))
        np.testing.assert_array_equal(got["s"], np.where(odd, -9, 5))

    @pytest.mark.parametrize(
        ("layer", "error", "says"),
        [
            (Value("SELECT 1 AS value FROM generate_series(1, 2)"), DataError, "tile 0 at .*more than one row: aggregate"),
            (Value("SELECT 1 AS value, 3 AS n FROM generate_series(1, 2)", length=4), DataError, "more than one row with n = 3"),
            (Value("SELECT 1 AS value, 4 AS n", length=4), DataError, "n = 4: expected 0 to 3, as length=4 says"),
            (Value("SELECT 1 AS value, NULL::int AS n", length=4), DataError, "n is NULL: expected 0 to 3"),
            (Value("SELECT 300 AS value", dtype="uint8"), DataError, "value 300 does not fit dtype='uint8'"),
            (Value(f"SELECT {2**53 + 2} AS value", dtype="int64"), DataError, "does not fit dtype='int64'"),
            (Value("SELECT 1 AS value, 0 AS n"), QueryError, "goes with length="),
            (Value("SELECT 1 AS value", length=2), QueryError, "goes with a column n"),
            (Value("SELECT 1.5 AS n, 1 AS value", length=2), QueryError, "column n is of type numeric"),
            (Value("SELECT 1 AS v"), QueryError, "gives the columns v, but no value"),
            (Value("SELECT 'x'::text AS value"), QueryError, "of type text"),
        ],
    )  # fmt: skip
    def test_wrong_queries(self, world, random_tiles, layer, error, says):
        with pytest.raises(error, match=f"layer 'v'.*{says}"):
            read(world.db, random_tiles, {"v": layer})

    def test_wrong_arguments(self):
        for wrong in ({"length": 0}, {"dtype": "complex64"}, {"missing": math.nan, "dtype": "int32"}):
            with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
                Value("SELECT 1 AS value", **wrong)
        with pytest.raises(ConfigError, match="a table's name"):
            Value("areas")


_CACHE = {}


def fetched_once(world):
    return _CACHE.setdefault(world.url, fetched(world, "areas"))


# -- in a dataset

LAYERS = {
    "image": Imagery("scene", bands=(1, 2, 3)),
    "boxes": Boxes("areas", value="class", id="id"),
    "parts": Instances("areas", value="class", id="id"),
    "share": Value("SELECT count(*) AS value FROM areas WHERE way && tile.geom"),
    "kinds": Value("SELECT DISTINCT class - 1 AS n, 1 AS value FROM areas WHERE way && tile.geom", length=4, missing=0),
}
RAGGED = ("boxes", "boxes_label", "boxes_id", "parts_label", "parts_id")


def same(batch, sample):
    assert list(batch) == list(sample)
    for name, value in sample.items():
        if name in RAGGED:
            assert len(batch[name]) == len(value)
            for one, other in zip(batch[name], value, strict=True):
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        else:
            np.testing.assert_array_equal(np.asarray(batch[name]), np.asarray(value))


def flipped(sample, generator):
    """What an augmentation has to do to them all."""
    image, boxes = sample["image"].flip(-1), sample["boxes"].clone()
    boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
    return sample | {"image": image, "boxes": boxes, "parts": sample["parts"].flip(-1)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches(world, random_tiles, workers):
    tiles = random_tiles[:20]
    data = TileDataset(world.db, tiles, LAYERS, batch_size=8, shuffle=False)
    batches = list(data.loader(num_workers=workers))
    assert [len(batch["boxes"]) for batch in batches] == [8, 8, 4]
    for k, batch in enumerate(batches):
        same(batch, read(world.db, tiles[8 * k : 8 * k + 8], LAYERS))
        assert all(isinstance(box, torch.Tensor) and box.dtype == torch.float32 for box in batch["boxes"])
        assert batch["parts"].dtype == torch.int64
        assert batch["share"].shape == (len(batch["boxes"]),)
        assert batch["kinds"].shape == (len(batch["boxes"]), 4)


def test_a_transform_takes_one_tile(world, random_tiles):
    tiles = random_tiles[:12]
    (batch,) = TileDataset(world.db, tiles, LAYERS, batch_size=12, shuffle=False, transform=flipped)
    plain = read(world.db, tiles, LAYERS)
    np.testing.assert_array_equal(batch["parts"].numpy(), plain["parts"][..., ::-1])
    for box, before in zip(batch["boxes"], plain["boxes"], strict=True):
        np.testing.assert_array_equal(box[:, 0].numpy(), 64 - before[:, 2])
    assert [label.tolist() for label in batch["boxes_label"]] == [label.tolist() for label in plain["boxes_label"]]


def test_single_tiles(world, random_tiles):
    tiles = random_tiles[:5]
    singles = list(TileDataset(world.db, tiles, LAYERS, batch_size=None, shuffle=False))
    plain = read(world.db, tiles, LAYERS)
    for i, single in enumerate(singles):
        for name, value in single.items():
            np.testing.assert_array_equal(np.asarray(value), np.asarray(plain[name][i]))


def test_pictures_leave_out_what_they_cannot_draw(world, random_tiles, tmp_path):
    got = read(world.db, random_tiles[:3], {name: LAYERS[name] for name in ("share", "boxes", "parts", "image")})
    figure = pgtiles.plot.batch(got, tmp_path / "a.png")
    assert [axis.get_title() for axis in figure.axes[:2]] == ["image", "parts"]
    with pytest.raises(ConfigError, match=r"found \['share', 'boxes', 'boxes_label', 'boxes_id', 'bounds', 'tile_id'\]"):
        pgtiles.plot.batch(read(world.db, random_tiles[:3], {name: LAYERS[name] for name in ("share", "boxes")}))


def test_keys_do_not_cover_each_other(world, random_tiles):
    for layers, key in (
        ({"a": LAYERS["boxes"], "a_label": LAYERS["parts"]}, "a_label"),
        ({"tile": LAYERS["boxes"]}, "tile_id"),
    ):
        with pytest.raises(ConfigError, match=f"the key '{key}' of layer '.*' is taken by"):
            Plan.open(world.db, random_tiles, layers)


def test_an_epoch_without_a_box_is_told(world, random_tiles):
    for layer in (
        Boxes("areas", where="class > 99"),
        Instances("areas", where="class > 99"),
        Value("SELECT NULL::int AS value"),
    ):
        with pytest.warns(PgtilesWarning, match="no row of the query met any of the 10 tiles"):
            list(TileDataset(world.db, random_tiles[:10], {"b": layer}))


def test_detection(world, random_tiles):
    got = read(world.db, random_tiles[:6], LAYERS)
    targets = detection(got, "boxes")
    assert [list(target) for target in targets] == [["boxes", "labels"]] * 6
    np.testing.assert_array_equal(targets[3]["boxes"], got["boxes"][3])
    np.testing.assert_array_equal(targets[3]["labels"], got["boxes_label"][3])
    with pytest.raises(ConfigError, match="expected the key of a Boxes layer"):
        detection(got, "parts")
    with pytest.raises(DataError, match="has the label 0: expected 1 or more"):
        detection(read(world.db, random_tiles, {"b": Boxes("areas", value=0)}), "b")
    with pytest.raises(DataError, match="has a box without extent"):
        detection(read(world.db, random_tiles, {"b": Boxes("trees")}), "b")


# -- the page


def test_the_page_runs(atlanta, monkeypatch):
    """Each block of its Python, one after the other, on the sample that it names."""
    monkeypatch.setenv("PGTILES_URL", atlanta.url)
    names = {}
    found = re.findall(r"^```python\n(.*?)^```$", (DOCS / "targets.md").read_text(), re.M | re.S)
    plain = [
        code for code in found if "import torchvision" not in code and "from torchvision" not in code and "torchgeo" not in code
    ]
    assert len(plain) == 5
    for code in plain:
        exec(compile(code, "targets.md", "exec"), names)
    assert [list(target) for target in names["targets"]] == [["boxes", "labels"]] * len(names["images"])
    assert names["apart"].shape == (len(names["labels"]), 256, 256)
    union = shapely.union_all(list(atlanta.found.values()))
    tiles = [shapely.box(*bounds) for bounds in names["tiles"].bounds]
    np.testing.assert_allclose(names["built"], [union.intersection(tile).area / tile.area for tile in tiles], atol=1e-4)
