"""Geometries of every kind, sound and unsound: burned as rasterio burns them, or an error that names layer and tile. And areas
too small for a pixel's centre, which are counted.
"""

import numpy as np
import pytest
import shapely
from click.testing import CliRunner
from conftest import ask
from rasterio.features import rasterize
from rasterio.transform import from_origin
from typer.main import get_command

from pgtiles import Boxes, Grid, Instances, Labels, TileDataset, Tiles, Vectors, read
from pgtiles.errors import DataError, PgtilesWarning, QueryError
from pgtiles.shell.cli import typer_app

SIZE = 100
GRID = Grid(srid=3857, resolution=1, size=SIZE)
TILE = Tiles(GRID, np.array([0]), np.array([0]))
TRANSFORM = from_origin(0, 0, 1, 1)


def burned(shapes, **how):
    shapes = [(shape, 1) for shape in shapes if not shape.is_empty]
    return rasterize(shapes, out_shape=GRID.shape, transform=TRANSFORM, **how) if shapes else np.zeros(GRID.shape, "uint8")


def mask(db, wkt, **how):
    return read(db, TILE, {"m": Labels(f"SELECT ST_GeomFromText('{wkt}', 3857) AS geom", **how)})["m"][0]


# what each is to GDAL, where it is not the same text: without Z and M, its curves and surfaces as polygons
KINDS = {
    "collection": ("GEOMETRYCOLLECTION(POLYGON((0 0,90 0,90 -50,0 -50,0 0)),LINESTRING(10 -100,120 -80),POINT(5.5 -95.5))", None),
    "nested": ("GEOMETRYCOLLECTION(GEOMETRYCOLLECTION(POLYGON((0 0,50 0,50 -50,0 0))),LINESTRING(60 -60,90 -90))", None),
    "z": ("POLYGON Z((5 -5 1,160 -5 1,160 -60 1,5 -60 1,5 -5 1))", "POLYGON((5 -5,160 -5,160 -60,5 -60,5 -5))"),
    "m": ("LINESTRING M(-30 -90 1,130 -20 2)", "LINESTRING(-30 -90,130 -20)"),
    "zm": ("POLYGON ZM((0 0 1 2,150 0 1 2,150 -49 1 2,0 0 1 2))", "POLYGON((0 0,150 0,150 -49,0 0))"),
    "multi": ("MULTIPOLYGON(((0 0,30 0,30 -30,0 -30,0 0)),((-20 -20,70 -20,70 -70,-20 -70,-20 -20)))", None),
    "points": ("MULTIPOINT((5 -5),(55.5 -44.4),(500 500))", None),
    "a hole over the edge": ("POLYGON((-50 50,150 50,150 -150,-50 -150,-50 50),(-20 -20,120 -20,50 -80,-20 -20))", None),
    "tin": ("TIN(((0 0,50 0,50 -50,0 0)),((50 0,50 -50,150 -50,50 0)))", "MULTIPOLYGON(((0 0,50 0,50 -50,0 0)),((50 0,50 -50,150 -50,50 0)))"),
    "triangle": ("TRIANGLE Z((0 0 1,50 0 2,50 -150 3,0 0 1))", "POLYGON((0 0,50 0,50 -150,0 0))"),
    "faces": ("POLYHEDRALSURFACE Z(((0 0 0,0 -50 0,50 -50 0,0 0 0)),((0 0 0,150 0 5,50 -50 0,0 0 0)))", "MULTIPOLYGON(((0 0,0 -50,50 -50,0 0)),((0 0,150 0,50 -50,0 0)))"),
    "empty": ("POLYGON EMPTY", None),
    "an empty part": ("GEOMETRYCOLLECTION(POLYGON EMPTY,POINT(5.5 -5.5))", "POINT(5.5 -5.5)"),
    "an area without extent": ("POLYGON((10 -10,150 -50,10 -10,10 -10))", None),
    "a line without length": ("LINESTRING(10.5 -10.5,10.5 -10.5)", None),
    "crossing itself": ("POLYGON((10 -10,150 -90,150 -10,10 -90,10 -10))", None),
    "spike": ("POLYGON((10 -10,60 -10,150 -10,60 -10,60 -60,10 -60,10 -10))", None),
    "ring walked twice": ("POLYGON((-50 -10,60 -10,60 -60,-50 -60,-50 -10,60 -10,60 -60,-50 -60,-50 -10))", None),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["labels", "vectors", "instances"])
def test_kinds_as_gdal_burns_them(world, name, kind):
    wkt, plain = KINDS[name]
    want = burned(getattr(shape := shapely.from_wkt(plain or wkt), "geoms", [shape]))
    query = f"SELECT ST_GeomFromText('{wkt}', 3857) AS geom"
    layer = {"labels": Labels(query), "vectors": Vectors({"it": query}), "instances": Instances(query)}[kind]
    got = read(world.db, TILE, {"m": layer})["m"][0]
    np.testing.assert_array_equal(got.reshape(SIZE, SIZE), want)


@pytest.mark.parametrize(
    "wkt",
    [
        "CURVEPOLYGON(CIRCULARSTRING(0 -50,50 0,100 -50,50 -100,0 -50))",
        "MULTISURFACE(CURVEPOLYGON(CIRCULARSTRING(0 -50,50 0,100 -50,50 -100,0 -50)),((200 0,201 0,201 1,200 0)))",
        "GEOMETRYCOLLECTION(CURVEPOLYGON(CIRCULARSTRING(0 -50,50 0,100 -50,50 -100,0 -50)))",
    ],
)
def test_curves(world, wkt):
    disc = shapely.Point(50, -50)
    got = mask(world.db, wkt).astype(bool)
    assert (got >= burned([disc.buffer(49.7, quad_segs=200)])).all()
    assert (got <= burned([disc.buffer(50, quad_segs=200)])).all()
    wide = mask(world.db, wkt, all_touched=True).astype(bool)
    assert (wide >= burned([disc.buffer(49.7, quad_segs=200)], all_touched=True)).all()


def unsound(kind, count=60):
    """Areas that cross themselves or each other, near the tile's edges."""
    rng = np.random.default_rng(0)

    def ring(n, spread):
        points = rng.uniform(-20, 120, 2) * [1, -1] + rng.normal(0, spread, (n, 2))
        return np.vstack([points, points[:1]])

    make = {
        "bow-ties": lambda: shapely.Polygon(ring(7, 40)),
        "several": lambda: shapely.MultiPolygon([shapely.Polygon(ring(6, 40)) for _ in range(3)]),
        "overlapping": lambda: shapely.MultiPolygon([shapely.Point(ring(1, 50)[0]).buffer(rng.uniform(10, 60)) for _ in range(4)]),
        "holes that cross": lambda: shapely.Polygon(shapely.box(-30, -130, 130, 30).exterior, [ring(5, 30), ring(5, 30)]),
    }  # fmt: skip
    return [make[kind]() for _ in range(count)]


@pytest.mark.parametrize("all_touched", [False, True])
@pytest.mark.parametrize("kind", ["bow-ties", "several", "overlapping", "holes that cross"])
def test_unsound_areas_over_the_edge(schema_db, kind, all_touched):
    """As rasterio burns them whole: what an odd number of rings encloses."""
    shapes = unsound(kind)
    with schema_db.connection() as conn:
        conn.execute("CREATE TABLE t (id int, way geometry(Geometry, 3857)); CREATE INDEX ON t USING gist (way)")
        conn.cursor().executemany(
            "INSERT INTO t VALUES (%s, ST_GeomFromWKB(%s, 3857))", [(i, g.wkb) for i, g in enumerate(shapes)]
        )
    tiles = Tiles(GRID, np.zeros(len(shapes), int), np.zeros(len(shapes), int))
    query = "SELECT way AS geom FROM t WHERE id = tile.id AND way && tile.geom"
    layers = {"m": Labels(query, all_touched=all_touched)} | ({} if all_touched else {"i": Instances(query)})
    got = read(schema_db, tiles, layers)
    want = np.stack([burned([shape], all_touched=all_touched) for shape in shapes])
    assert sum(not shape.is_valid for shape in shapes) > len(shapes) // 2
    assert (got["m"] != want).sum() <= (want.size / 10_000 if all_touched else 0)
    if not all_touched:
        np.testing.assert_array_equal(got["i"], want)


def test_null_is_nothing(world):
    query = "SELECT NULL::geometry AS geom UNION ALL SELECT ST_GeomFromText('POINT(5.5 -5.5)', 3857)"
    for how in ({}, {"buffer": 5}, {"all_touched": True}):
        assert (read(world.db, TILE, {"m": Labels(query, **how)})["m"] > 0).any(), how
    assert not read(world.db, TILE, {"m": Labels("SELECT NULL::geometry AS geom")})["m"].any()


def test_geography_and_other_srids_are_moved(world):
    wkt = "POLYGON((0 0,50 0,50 -50,0 0))"
    for moved in ("4326)::geography", "32631)"):
        query = f"SELECT ST_Transform(ST_GeomFromText('{wkt}', 3857), {moved} AS geom"
        got = read(world.db, TILE, {"m": Labels(query)})["m"][0]
        assert (got != burned([shapely.from_wkt(wkt)])).sum() <= 50  # along the diagonal, which goes through the centres


@pytest.mark.parametrize(
    ("geom", "how", "error", "says"),
    [
        ("ST_GeomFromText('POINT(5 -5)')", {}, QueryError, "SRID 0.*ST_SetSRID"),
        ("ST_GeomFromText('POINT(500 95)', 4326)", {}, QueryError, "where its SRID or the tiles' is not defined"),
        ("ST_GeomFromText('POLYGON((10 -10,NaN -50,10 -50,10 -10))', 3857)", {}, DataError, "not a number"),
        ("ST_GeomFromText('LINESTRING(0 0,NaN -10,50 -50)', 3857)", {}, DataError, "not a number"),
        ("ST_SetSRID(ST_MakePoint('Infinity', 5), 3857)", {}, DataError, "infinite"),
        ("ST_GeomFromText('POLYGON((-1e20 0,1e20 0,0 -1e20,-1e20 0))', 3857)", {}, DataError, "beyond the Earth"),
        ("ST_GeomFromText('LINESTRING(0 0,1e9 -1e9)', 3857)", {}, QueryError, "65535 pixels.*cut very long ones"),
        (
            "ST_GeomFromText('POLYHEDRALSURFACE(((0 0,0 -9,9 -9,0 0)))', 3857)",
            {"buffer": 5},
            QueryError,
            r"\(ST_Dump\(geom\)\)",
        ),
    ],
)
def test_what_nobody_can_burn_is_named(world, geom, how, error, says):
    with pytest.raises(error, match=rf"(?s)^layer 'm', tile 0 at \(0, -100, 100, 0\): .*{says}"):
        read(world.db, TILE, {"m": Labels(f"SELECT {geom} AS geom", **how)})


def test_a_surface_has_a_box(world):
    wkt = "TIN(((10 -10,50 -10,50 -50,10 -10)),((50 -10,50 -50,150 -50,50 -10)))"
    [box] = read(world.db, TILE, {"b": Boxes(f"SELECT ST_GeomFromText('{wkt}', 3857) AS geom")})["b"][0]
    np.testing.assert_allclose(box, [10, 10, 100, 50])


class TestValues:
    """Of every size and kind; each burns a square of its own."""

    @pytest.mark.parametrize(
        ("dtype", "values"),
        [
            ("uint8", [1, 255]),
            ("int8", [-128, 127]),
            ("uint16", range(0, 65536, 257)),
            ("int16", [-32768, 32767]),
            ("uint32", [1, 2**32 - 1]),
            ("int32", [-(2**31), 2**31 - 1]),
            ("int64", [1 - 2**53, 2**53 - 1]),
            ("int64", range(1000, 1999, 3)),
            ("float32", [-0.1, 3.2, 1e30, -1e-30]),
            ("float64", [-0.1, 1 / 3, 1e300]),
        ],
    )
    def test_come_as_they_are(self, world, dtype, values):
        values = list(values)
        rows = ", ".join(f"({i % 50}, {i // 50}, {value!r}::float8)" for i, value in enumerate(values))
        query = f"SELECT ST_MakeEnvelope(2*x, -2*y - 2, 2*x + 2, -2*y, 3857) AS geom, v AS value FROM (VALUES {rows}) AS t (x, y, v)"
        got = read(world.db, TILE, {"m": Labels(query, dtype=dtype, background=7), "n": Labels(query, dtype="float64")})["m"][0]
        want = np.full(GRID.shape, 7, dtype)
        for i, value in enumerate(values):
            want[2 * (i // 50) : 2 * (i // 50) + 2, 2 * (i % 50) : 2 * (i % 50) + 2] = value
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, want)

    @pytest.mark.parametrize(
        ("dtype", "value"),
        [("uint8", 256), ("uint8", -1), ("int16", 0.5), ("uint32", 2**32), ("int64", "NaN"), ("int64", 2**53)],
    )
    def test_what_does_not_fit_is_named(self, world, dtype, value):
        query = f"SELECT tile.geom AS geom, '{value}'::float8 AS value FROM tile"
        with pytest.raises(DataError, match=rf"layer 'm', tile 0 at \(.*\): value .* does not fit dtype='{dtype}'"):
            read(world.db, TILE, {"m": Labels(query, dtype=dtype)})


class TestSmallAreas:
    """Squares of 0.4 to 2.2 m on pixels of 1 m, at random; the oracle burns each by itself."""

    @pytest.fixture
    def huts(self, schema_db):
        rng = np.random.default_rng(1)
        corner, side = rng.uniform(0, 300, (400, 2)) * [1, -1], rng.uniform(0.4, 2.2, 400)
        shapes = [shapely.box(x, y, x + a, y + a) for (x, y), a in zip(corner, side, strict=True)]
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE huts (way geometry(Geometry, 3857)); CREATE INDEX ON huts USING gist (way)")
            conn.cursor().executemany("INSERT INTO huts VALUES (ST_GeomFromWKB(%s, 3857))", [(g.wkb,) for g in shapes])
            conn.execute("ANALYZE huts")
        tiles = Tiles(GRID, np.repeat([0, 1, 2], 3) * SIZE, np.tile([0, 1, 2], 3) * SIZE)
        areas, lost = 0, 0
        for xmin, ymin, xmax, ymax in tiles.bounds:
            here = [shape for shape in shapes if shapely.box(xmin, ymin, xmax, ymax).contains(shape)]
            areas += len(here)
            lost += sum(not rasterize([g], out_shape=GRID.shape, transform=from_origin(xmin, ymax, 1, 1)).any() for g in here)
        return schema_db, tiles, f"{lost} of {areas} areas on the first tiles cover no pixel's centre at 1 CRS units a pixel"

    def test_are_warned_of_when_a_dataset_is_opened(self, huts):
        db, tiles, says = huts
        assert not says.startswith("0 of")
        with pytest.warns(PgtilesWarning, match=rf"layer 'mask': {says} and are not burned: all_touched=True keeps them"):
            TileDataset(db, tiles, {"mask": Labels("huts"), "kept": Labels("huts", all_touched=True)})
        with pytest.warns(PgtilesWarning, match=says):  # each part of a class, and not what is ignored around it
            TileDataset(db, tiles, {"mask": Labels({"a": "huts"}, ignore_index=255, contact=2)})
        kept = read(db, tiles, {"mask": Labels("huts", all_touched=True)})["mask"]
        assert kept.sum() > read(db, tiles, {"mask": Labels("huts")})["mask"].sum()

    def test_no_warning_where_none_is_lost(self, world):
        tiles = Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=20)
        TileDataset(world.db, tiles, {"a": Labels("areas"), "l": Labels("roads"), "p": Labels("trees")})

    def test_check_tells(self, huts):
        db, _, _ = huts
        look = ["--labels", "huts", "--srid", "3857", "--resolution", "1", "--size", "100", "--url", db.conninfo]
        done = CliRunner().invoke(get_command(typer_app), ["check", *look, "--within", "0,-300,300,0"])
        assert done.exit_code == 0, done.output
        assert "cover no pixel's centre at 1 CRS units a pixel" in done.output.replace("\n", " ")

    def test_parts_of_one_feature_count_as_one(self, schema_db):
        """A feature is lost when all its parts are."""
        with schema_db.connection() as conn:
            conn.execute("CREATE TABLE huts (way geometry(Geometry, 3857)); CREATE INDEX ON huts USING gist (way)")
            conn.execute(
                "INSERT INTO huts SELECT ST_GeomFromText(t, 3857) FROM unnest(ARRAY["
                "'MULTIPOLYGON(((10.1 -10.1,10.2 -10.1,10.2 -10.2,10.1 -10.1)),((20 -20,24 -20,24 -24,20 -20)))',"
                "'MULTIPOLYGON(((30.1 -10.1,30.2 -10.1,30.2 -10.2,30.1 -10.1)),((40.1 -20.1,40.2 -20.1,40.2 -20.2,40.1 -20.1)))']) AS t"
            )
        with pytest.warns(PgtilesWarning, match="1 of 2 areas"):
            TileDataset(schema_db, TILE, {"mask": Labels("huts")})
        assert ask(schema_db, "SELECT count(*) FROM huts") == [(2,)]
