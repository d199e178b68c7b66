"""Every recipe of docs/label-queries.md is run on 25 tiles and equals, pixel for pixel, what shapely and rasterio make of the same
rows: they are fetched whole, and selected, widened and put in order here, in Python. So are the blocks that the page opens with.
"""

import math
import re
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyproj
import pytest
import shapely
import torch
from conftest import shared
from PIL import Image
from rasterio.features import rasterize
from rasterio.transform import from_origin

from pgtiles import Database, Grid, Labels, TileDataset, Tiles, read

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))  # the script that draws the pictures reads the page for us, too
import pictures  # noqa: E402

RECIPES = pictures.recipes()
FIRST, SECOND = pictures.PAGE.read_text().split("\n## Recipes\n")
OPENING = {
    section.partition("\n")[0]: re.findall(r"^```(\w+)[^\n]*\n(.*?)^```$", section, re.M | re.S)
    for section in FIRST.split("\n## ")
}
[LOADING] = re.findall(r"^```python\n(.*?)^```$", SECOND.partition("\n### ")[0], re.M | re.S)
IGNORED = 255
COUNT, SIZE = 20, 400  # tiles, and pixels along a side


# -- the database, and its rows as Python has them


@pytest.fixture(scope="module")
def osm(template):
    """The extract as the page loads it, with what the recipes' setups make."""
    with shared(template, "pgtiles_recipes") as url, Database(url) as db, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGTILES_URL", url)
        exec(LOADING, {})
        crowns = ("9", "12.5 m", "wide", "100", None, None)  # the extract has no tree whose crown was measured
        with db.connection() as conn:
            trees = conn.execute("SELECT osm_id FROM planet_osm_point WHERE \"natural\" = 'tree' ORDER BY osm_id").fetchall()
            conn.cursor().executemany(
                "UPDATE planet_osm_point SET tags = tags || hstore('diameter_crown', %s) WHERE osm_id = %s",
                [(crowns[i % 6], osm_id) for i, (osm_id,) in enumerate(trees)],
            )
            conn.execute("UPDATE planet_osm_line SET route = 'bicycle' WHERE highway = 'cycleway'")  # and no such road
            for recipe in RECIPES.values():
                conn.execute(recipe.setup)
        yield rows_of(db, 3067)


@pytest.fixture(scope="module")
def mercator(helsinki):
    """The extract as osm2pgsql loads it unless told otherwise."""
    return rows_of(helsinki.db, 3857)


def rows_of(db, srid):
    found = SimpleNamespace(db=db, srid=srid)
    for name in ("point", "line", "polygon"):
        with db.connection() as conn:
            rows = conn.execute(
                f"SELECT ST_AsBinary(way), to_jsonb(t) - 'way' - 'tags' || hstore_to_jsonb(tags) FROM planet_osm_{name} AS t"
            ).fetchall()
        setattr(found, f"{name}s", [Row(shapely.from_wkb(way), tags) for way, tags in rows])
    return found


class Row(SimpleNamespace):
    """A row of osm2pgsql's: its geometry, and its columns and tags by name."""

    def __init__(self, way, tags):
        super().__init__(way=way, tags={name: value for name, value in tags.items() if value is not None})

    def __getitem__(self, tag):
        return self.tags.get(tag)


def spread(osm, metres=200, view=None):
    """20 tiles all over the extract; and five around the place that a view shows."""
    grid = Grid(srid=osm.srid, resolution=metres / SIZE, size=SIZE)
    tiles = Tiles.random(grid, within=tuple(shapely.total_bounds([row.way for row in osm.polygons])), count=COUNT, seed=4)
    if view is None:
        return tiles
    there = shapely.Point(view.x, view.y).buffer(metres).bounds
    return tiles + Tiles.random(grid, within=there, count=5, first_id=COUNT)


def burned(shapes, tiles, i, *, background=0, dtype="int64"):
    """Shapes are (priority, value, geometry)."""
    xmin, _, _, ymax = tiles.bounds[i]
    out = np.full(tiles.grid.shape, background, dtype if np.dtype(dtype).kind == "f" else "int32")
    near = shapely.box(*tiles.bounds[i]).buffer(1)
    ordered = [(g, v) for _, v, g in sorted(shapes, key=lambda s: s[:2]) if not g.is_empty and g.intersects(near)]
    if ordered:
        rasterize(ordered, out=out, transform=from_origin(xmin, ymax, *tiles.grid.pixel))
    return out.astype(dtype)


def compare(got, osm, tiles, oracle, **how):
    """Pixel for pixel, on every tile."""
    for i in range(len(tiles)):
        box = shapely.box(*tiles.bounds[i])
        shapes = oracle(osm, box)
        expected = shapes if isinstance(shapes, np.ndarray) else burned(shapes, tiles, i, dtype=got.dtype.name, **how)
        counts = [dict(zip(*np.unique(a, return_counts=True), strict=True)) for a in (got[i], expected)]
        assert np.array_equal(got[i], expected, equal_nan=got.dtype.kind == "f"), f"tile {i}: {counts[0]} != {counts[1]}"


# -- what each recipe says, in Python; geometries widened as PostGIS does, with 8 segments to a quarter circle


def widened(geometry, by, **how):
    return shapely.buffer(geometry, by, quad_segs=8, **how)


def near(rows, box, reach=0):
    """Rows whose bounding box comes as near to the tile as that."""
    xmin, ymin, xmax, ymax = box.bounds
    for row in rows:
        a, b, c, d = row.way.bounds
        if a <= xmax + reach and c >= xmin - reach and b <= ymax + reach and d >= ymin - reach:
            yield row


def houses(osm, box, reach=0):
    return [r for r in near(osm.polygons, box, reach) if r["building"] not in (None, "no", "roof")]


def number(text, pattern):
    found = re.match(pattern, text or "")
    return float(found[0]) if found else None


def roads_by_lanes(osm, box):
    kinds = ("motorway", "trunk", "primary", "secondary", "tertiary", "unclassified", "residential")
    for row in near(osm.lines, box, 30):
        if row["highway"] in kinds and row["tunnel"] is None:
            lanes = number(row["lanes"], r"\d{1,2}")
            yield 0, 1, widened(row.way, 1.75 * min(2 if lanes is None else lanes, 10))


def road_classes(osm, box):
    table = {
        "primary": (1, 3, 14), "secondary": (1, 3, 14), "tertiary": (1, 3, 10), "residential": (2, 2, 7), "unclassified": (2, 2, 7),
        "service": (2, 2, 4), "cycleway": (3, 1, 3), "footway": (3, 1, 3), "pedestrian": (3, 1, 6),
    }  # fmt: skip
    for row in near(osm.lines, box, 30):
        if row["highway"] in table and row["tunnel"] is None:
            value, priority, width = table[row["highway"]]
            yield priority, value, widened(row.way, width / 2)


def buildings(osm, box):
    return [(0, 1, row.way) for row in houses(osm, box)]


def contact_borders(osm, box):
    ways = [row.way for row in houses(osm, box, 10)]
    yield from ((1, 1, way) for way in ways)
    for a, b in combinations(ways, 2):
        if a.distance(b) <= 1:
            yield 2, 0, widened(a, 1.5).intersection(widened(b, 1.5))


def water_over_land_use(osm, box):
    for row in near(osm.polygons, box):
        green = row["leisure"] in ("park", "garden", "pitch")
        if green or row["landuse"] in ("residential", "commercial", "retail", "civil", "grass"):
            yield 0, 2 if row["landuse"] == "grass" or row["leisure"] else 1, row.way
        if row["natural"] == "water" or row["landuse"] in ("basin", "pond", "reservoir"):
            yield 0, 3, row.way
    for row in near(osm.lines, box, 10):
        if row["waterway"] in ("river", "stream", "canal", "drain") and row["tunnel"] is None:
            yield 0, 3, widened(row.way, 1)


def land_use_classes(osm, box):
    table = {"residential": 1, "commercial": 2, "retail": 2, "civil": 3, "military": 3, "grass": 4, "construction": 5}
    return [(-r["way_area"], table[r["landuse"]], r.way) for r in near(osm.polygons, box) if r["landuse"] in table]


def trees(osm, box):
    for row in near(osm.points, box, 30):
        if row["natural"] == "tree":
            crown = number(row["diameter_crown"], r"\d{1,3}(\.\d+)?")
            yield 0, 1, widened(row.way, min(6 if crown is None else crown, 30) / 2)


def railways(osm, box):
    roofs = [row.way for row in osm.polygons if row["building"] is not None or row["man_made"] == "canopy"]
    for row in near(osm.lines, box, 10):
        if row["railway"] in ("rail", "light_rail", "subway", "tram") and row["tunnel"] in (None, "no"):
            open_air = row.way.difference(shapely.union_all([roof for roof in roofs if roof.intersects(row.way)]))
            yield 0, 2 if row["railway"] == "tram" else 1, widened(open_air, 1.5, cap_style="flat")


def own_table(osm, box):
    for row in houses(osm, box):
        osm_id = abs(row["osm_id"])
        yield 0, 1 + osm_id % 3 if osm_id % 5 else IGNORED, row.way


def label_raster(osm, box):
    """The map's own pixels are 2 m wide; of a tile's pixel, the centre counts."""
    xmin, ymin, xmax, ymax = (2 * round(v / 2) for v in box.buffer(4).bounds)
    map_ = np.ones(((ymax - ymin) // 2, (xmax - xmin) // 2), "uint8")
    green = [r.way for r in osm.polygons if r["leisure"] == "park" or r["landuse"] == "grass"]
    built = [r.way for r in osm.polygons if r["building"] is not None]
    rasterize([*((g, 2) for g in green), *((b, 3) for b in built)], out=map_, transform=from_origin(xmin, ymax, 2, 2))
    step = (box.bounds[2] - box.bounds[0]) / SIZE
    centres = (np.arange(SIZE) + 0.5) * step
    down, across = (ymax - box.bounds[3] + centres) // 2, (box.bounds[0] - xmin + centres) // 2
    return map_[np.ix_(down.astype(int), across.astype(int))]


INPUT_BANDS = {
    "buildings": lambda osm, box: [(0, 1, r.way) for r in near(osm.polygons, box) if r["building"]],
    "green": lambda osm, box: [
        (0, 1, r.way) for r in near(osm.polygons, box) if r["landuse"] == "grass" or r["leisure"] == "park"
    ],
    "paths": lambda osm, box: [(0, 1, widened(r.way, 1.5)) for r in near(osm.lines, box, 10) if r["highway"] == "footway"],
}


def unmapped_ignored(osm, box):
    yield from ((0, 1, row.way) for row in houses(osm, box))
    yield from ((0, 0, row.way) for row in near(osm.polygons, box) if row["landuse"] or row["leisure"])
    yield from ((0, 0, widened(row.way, 4)) for row in near(osm.lines, box, 10) if row["highway"])


def valid_at_a_date(osm, box):
    for row in houses(osm, box):
        year = re.search(r"\d{4}", row["start_date"] or "")
        if year is None or int(year[0]) <= 1925:
            yield 0, 1, row.way


def administrative_area(osm, box):
    """The cells of a Voronoi diagram are the points that are nearest to each centre."""
    centres = sorted((r["name"], r.way) for r in osm.points if r["place"] in ("suburb", "neighbourhood"))
    for row in houses(osm, box):
        here = row.way.point_on_surface()
        yield 0, 1 + min(range(len(centres)), key=lambda i: centres[i][1].distance(here)), row.way


def talk_of_2018(osm, box):
    widths = {
        "motorway": 12, "trunk": 12, "primary": 8, "secondary": 8, "tertiary": 5, "residential": 5, "unclassified": 5,
    }  # fmt: skip
    for row in near(osm.lines, box, 30):
        if row["highway"] and row["route"] in ("road", None):
            yield 0, 1, widened(row.way, widths.get(row["highway"], 2))


def ignored_edges(osm, box):
    for row in houses(osm, box, 10):
        yield 1, 1, row.way
        yield 2, IGNORED, widened(row.way.boundary, 0.75)


def instances(osm, box):
    here = [row for row in houses(osm, box) if row.way.intersects(box)]
    ordered = sorted(here, key=lambda row: (-row["way_area"], row["osm_id"]))
    return [(0, 1 + i, row.way) for i, row in enumerate(ordered)]


def heights(osm, box):
    for row in near(osm.polygons, box):
        metres, storeys = (number(row[tag], r"\d+(\.\d+)?") for tag in ("height", "building:levels"))
        if row["building"] and (metres or storeys):
            yield 0, metres or storeys * 3.2, row.way


ORACLES = {
    "roads-by-lanes": roads_by_lanes,
    "road-classes": road_classes,
    "buildings": buildings,
    "contact-borders": contact_borders,
    "water-over-land-use": water_over_land_use,
    "land-use-classes": land_use_classes,
    "trees": trees,
    "railways": railways,
    "own-table": own_table,
    "label-raster": label_raster,
    "input-bands": INPUT_BANDS,
    "unmapped-ignored": unmapped_ignored,
    "valid-at-a-date": valid_at_a_date,
    "administrative-area": administrative_area,
    "talk-of-2018": talk_of_2018,
    "ignored-edges": ignored_edges,
    "instances": instances,
    "heights": heights,
}


# -- the recipes


def test_every_recipe_has_an_oracle_and_a_view_and_none_is_left_over():
    assert len(RECIPES) >= 14
    assert set(RECIPES) == set(ORACLES) == set(pictures.VIEWS)


@pytest.mark.parametrize("slug", ORACLES)
def test_recipe(osm, slug):
    tiles, layers, oracle = spread(osm, view=pictures.VIEWS[slug]), RECIPES[slug].run()["layers"], ORACLES[slug]
    got = read(osm.db, tiles, layers)
    for name, layer in layers.items():
        mask, background = got[name], getattr(layer, "background", 0)
        if isinstance(oracle, dict):
            assert list(layer.bands) == list(oracle)
            for band, of_band in enumerate(oracle.values()):
                compare(mask[:, band], osm, tiles, of_band)
                assert mask[:, band].any()
        else:
            compare(mask, osm, tiles, oracle, background=background)
        shown = set(np.unique(mask).tolist())
        assert set(pictures.VIEWS[slug].classes) <= shown, f"the tiles show only {shown}"
        assert np.isfinite(mask).any() if mask.dtype.kind == "f" else np.mean(mask != background) > 0.005


def test_picture_of_recipe_exists_and_is_small():
    drawn = {path.stem: path for path in pictures.PICTURES.glob("*.png")}
    assert set(drawn) == set(RECIPES)
    for slug, path in drawn.items():
        assert path.stat().st_size < 60_000, slug
        with Image.open(path) as image:
            assert image.width >= 700
            assert len(image.convert("RGB").getcolors(2**24)) > 10, f"{slug} is blank"


def test_input_bands_go_beside_an_image(osm):
    [batch] = list(TileDataset(osm.db, spread(osm), RECIPES["input-bands"].run()["layers"], batch_size=COUNT))
    image = torch.full((COUNT, 4, SIZE, SIZE), 51, dtype=torch.uint8)
    both = torch.cat([image / 255, batch["osm"]], dim=1)  # as the page says
    assert both.dtype == torch.float32
    assert both.shape == (COUNT, 7, SIZE, SIZE)
    assert torch.equal(both[:, 4:].unique(), torch.tensor([0.0, 1.0]))


def test_ignored_pixels_add_nothing_to_the_loss(osm):
    [batch] = list(TileDataset(osm.db, spread(osm), RECIPES["unmapped-ignored"].run()["layers"], batch_size=COUNT))
    mask = batch["mask"]
    logits = torch.randn((COUNT, 2, SIZE, SIZE), generator=torch.Generator().manual_seed(0))
    loss = torch.nn.functional.cross_entropy(logits, mask, ignore_index=IGNORED)
    known = mask != IGNORED
    mapped = torch.nn.functional.cross_entropy(logits.movedim(1, -1)[known], mask[known])
    assert 0 < known.sum() < mask.numel()
    assert torch.isclose(loss, mapped)
    assert torch.nn.functional.cross_entropy(logits, torch.full_like(mask, IGNORED), ignore_index=IGNORED).isnan()


# -- what the page opens with


def opening(section, number=0):
    language, code = OPENING[section][number]
    if language == "sql":
        return Labels(code)
    names = {}
    exec(compile(code, section, "exec"), names)
    return names["layers"]["mask"]


def test_srid_tables_in_metres_under_tiles_in_mercator(osm, mercator):
    tiles = spread(mercator, metres=400)
    project = pyproj.Transformer.from_crs(3067, 3857, always_xy=True).transform

    roads = [shapely.transform(widened(r.way, 3), project, interleaved=False) for r in osm.lines if r["highway"]]
    mask = read(osm.db, tiles, {"mask": opening("SRID")})["mask"]
    compare(mask, osm, tiles, lambda *_: [(0, 1, road) for road in roads])
    assert mask.any()


def test_metres_are_true_where_tables_stay_in_mercator(mercator):
    tiles, geod = spread(mercator, metres=400), pyproj.Geod(ellps="WGS84")
    degrees = pyproj.Transformer.from_crs(3857, 4326, always_xy=True).transform

    def roads(osm, box):
        (x, y), latitude = box.centroid.coords[0], math.radians(degrees(*box.centroid.coords[0])[1])
        for east, north in ((1, 0), (0, 1)):  # 3 in 1,000, as the page says
            ground = geod.inv(*degrees(x - 50 * east, y - 50 * north), *degrees(x + 50 * east, y + 50 * north))[2] / 100
            assert abs(math.cos(latitude) / ground - 1) < 0.003
        for row in near(osm.lines, box, 20):
            if row["highway"]:
                yield 0, 1, widened(row.way, 3 / math.cos(latitude))

    mask = read(mercator.db, tiles, {"mask": opening("Metres")})["mask"]
    compare(mask, mercator, tiles, roads)
    assert mask.any()


def test_overlap(osm):
    def three(osm, box):
        yield from ((0, 1, widened(row.way, 4)) for row in near(osm.lines, box, 10) if row["highway"])
        yield from ((0, 2, row.way) for row in near(osm.polygons, box) if row["building"])
        yield from ((0, 3, widened(row.way, 3)) for row in near(osm.points, box, 10) if row["natural"] == "tree")

    tiles = spread(osm)
    mask = read(osm.db, tiles, {"mask": opening("Overlap")})["mask"]
    compare(mask, osm, tiles, three)
    assert set(np.unique(mask)) == {0, 1, 2, 3}


def test_classes(osm):
    names = {}
    exec(compile(OPENING["Classes"][0][1], "Classes", "exec"), names)
    layers, tiles = names["layers"], spread(osm)

    def mask(osm, box):
        yield from ((3, 1, row.way) for row in near(osm.polygons, box) if row["leisure"] == "park")
        yield from ((2, 2, widened(row.way, 4)) for row in near(osm.lines, box, 10) if row["highway"])
        yield from ((1, 9, row.way) for row in near(osm.polygons, box) if row["natural"] == "water")

    def cover(osm, box):
        for row in near(osm.polygons, box):
            if row["landuse"] == "grass" or row["leisure"] == "park":
                yield 1, 1, row.way
            if row["building"]:
                yield 2, 2, row.way

    dataset = TileDataset(osm.db, tiles, layers, batch_size=COUNT, shuffle=False)
    [batch] = list(dataset)
    compare(batch["mask"].numpy(), osm, tiles, mask)
    compare(batch["cover"].numpy(), osm, tiles, cover)
    assert {name: set(batch[name].unique().tolist()) for name in layers} == {"mask": {0, 1, 2, 9}, "cover": {0, 1, 2}}
    assert dataset.classes == {"mask": {1: "park", 2: "road", 9: "water"}, "cover": {1: "green", 2: "building"}}


def test_priority_null_lies_above_all(osm):
    query = """
        SELECT way AS geom, 1 AS value, NULL::int AS priority FROM planet_osm_polygon WHERE building IS NOT NULL AND way && tile.geom
        UNION ALL
        SELECT tile.geom, 2, 9
    """
    tiles = spread(osm)
    mask = read(osm.db, tiles, {"mask": Labels(query)})["mask"]
    compare(
        mask, osm, tiles, lambda osm, box: [(0, 2, box), *((1, 1, r.way) for r in near(osm.polygons, box) if r["building"])]
    )


def test_ignore_by_options(osm):
    """Features within 1.5 m of which, at the tile's own metres, and beyond all land use, pixels are ignored."""
    degrees, geod = pyproj.Transformer.from_crs(3067, 4326, always_xy=True).transform, pyproj.Geod(ellps="WGS84")

    def classes(osm, box):
        (xmin, ymin, xmax, ymax), (x, y) = box.bounds, box.centroid.coords[0]
        ends = ((xmin, y, xmax, y), (x, ymin, x, ymax))
        scale = np.array([geod.inv(*degrees(a, b), *degrees(c, d))[2] / (c - a + d - b) for a, b, c, d in ends])
        for row in near(osm.polygons, box, 5):
            value = 2 if row["building"] else 1
            if row["building"] or row["leisure"] == "park":
                wide = shapely.transform(row.way, lambda p: p * scale).buffer(1.5, quad_segs=8)
                yield 0, IGNORED, shapely.transform(wide, lambda p: p / scale)
                yield value, value, row.way
            if row["leisure"] == "park" and row["building"]:
                yield 1, 1, row.way

    def labelled(osm, box, i):
        mapped = burned([(0, 1, row.way) for row in near(osm.polygons, box) if row["landuse"]], tiles, i)
        return np.where(mapped == 1, burned(list(classes(osm, box)), tiles, i), IGNORED)

    tiles = spread(osm)
    mask = read(osm.db, tiles, {"mask": opening("Ignore")})["mask"]
    for i in range(len(tiles)):
        np.testing.assert_array_equal(mask[i], labelled(osm, shapely.box(*tiles.bounds[i]), i))
    assert set(np.unique(mask)) == {0, 1, 2, IGNORED}


def test_ignore_by_values(osm):
    def pitches(osm, box):
        yield from ((0, 1, row.way) for row in near(osm.polygons, box) if row["leisure"] == "pitch")
        yield from ((0, 0, row.way) for row in near(osm.polygons, box) if row["leisure"] == "park")

    tiles = spread(osm)
    mask = read(osm.db, tiles, {"mask": opening("Ignore", 2)})["mask"]
    compare(mask, osm, tiles, pitches, background=IGNORED)
    assert set(np.unique(mask)) == {0, 1, IGNORED}


def test_every_block_of_the_opening_is_run_here():
    assert [(section, len(blocks)) for section, blocks in OPENING.items() if blocks] == [
        ("SRID", 1), ("Metres", 1), ("Overlap", 1), ("Classes", 1), ("Ignore", 3),  # the second runs in test_ignore.py
    ]  # fmt: skip
