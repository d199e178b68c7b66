"""Vectors in the database are those of the file: by shapely's and pyogrio's own reading of both."""

import datetime as dt
import json
import sqlite3
import warnings

import numpy as np
import pyogrio
import pytest
import shapely
from conftest import ask

from pgtiles import load
from pgtiles.errors import ConfigError, LoadError, MissingError
from pgtiles.loading import vectorfile

FORMATS = {"gpkg": "GPKG", "geojson": "GeoJSON", "shp": "ESRI Shapefile", "fgb": "FlatGeobuf"}
BOW_TIE = shapely.Polygon([(0, 0), (4, 4), (4, 0), (0, 4)])


@pytest.fixture
def db(schema_db):
    return schema_db


def write(path, shapes, crs="EPSG:32631", kind="Unknown", layer=None, append=False, **fields):
    wkb = shapely.to_wkb(np.array(shapes, dtype=object), flavor="iso")
    options = {"crs": crs, "geometry_type": kind, "driver": FORMATS[path.suffix[1:]], "layer": layer, "append": append}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.raw.write(path, wkb, [np.array(v) for v in fields.values()], list(fields), **options)
    return path


def geojson(path, *features, crs=None):
    """Features as (geometry or None, properties), written as text: nothing between the test and the file."""
    listed = [
        {"type": "Feature", "properties": properties, "geometry": None if shape is None else shapely.geometry.mapping(shape)}
        for shape, properties in features
    ]
    named = {"crs": {"type": "name", "properties": {"name": crs}}} if crs else {}
    path.write_text(json.dumps({"type": "FeatureCollection", **named, "features": listed}))
    return path


def columns(db, table):
    return dict(
        ask(
            db,
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute "
            f"WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
    )


def shapes(db, table, column="geom"):
    return [
        shapely.from_wkb(wkb) if wkb else None for (wkb,) in ask(db, f"SELECT ST_AsBinary({column}) FROM {table} ORDER BY fid")
    ]


def streets(count=40, seed=0, scale=1000.0, origin=(4.5e5, 5.4e6)):
    rng = np.random.default_rng(seed)
    return [shapely.LineString(np.array(origin) + rng.normal(scale=scale, size=(rng.integers(2, 9), 2))) for _ in range(count)]


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("crs", "srid", "scale", "origin"),
    [
        ("EPSG:4326", 4326, 0.01, (3.2, 48.9)),
        ("EPSG:32631", 32631, 1000, (4.5e5, 5.4e6)),
        ("EPSG:3857", 3857, 1000, (4.5e5, 5.4e6)),
        ("EPSG:2154", 2154, 1000, (6.5e5, 6.8e6)),
    ],
)
def test_features_are_those_of_the_file(db, tmp_path, ending, crs, srid, scale, origin):
    lines = streets(scale=scale, origin=origin)
    path = write(
        tmp_path / f"roads.{ending}", lines, crs, "LineString",
        lanes=np.arange(40, dtype="int32"), width=np.linspace(0.1, 9, 40), name=[f"street '{n}'\t\\N" for n in range(40)],
    )  # fmt: skip
    loaded = load.vector(db, path, "roads")
    assert (loaded.table, loaded.rows, loaded.srid, loaded.notes) == ("mine.roads", 40, srid, ())
    _, _, wkb, (lanes, width, name) = pyogrio.raw.read(path)
    assert shapely.equals_exact(shapes(db, "roads"), shapely.from_wkb(wkb)).all(), "bit for bit"
    if ending not in ("geojson", "fgb"):  # one may be written with fewer digits, the other in another order
        assert shapely.equals_exact(shapes(db, "roads"), lines).all()
    assert ask(db, "SELECT lanes, width, name FROM roads ORDER BY fid") == list(
        zip(lanes.tolist(), width.tolist(), name.tolist(), strict=True)
    )
    expected = {
        "fid": "integer",
        "geom": f"geometry(LineString,{srid})",
        "lanes": "integer",
        "width": "double precision",
        "name": "text",
    }
    assert columns(db, "roads") == expected
    assert ask(db, "SELECT srid, type, coord_dimension FROM geometry_columns WHERE f_table_schema = 'mine'") == [
        (srid, "LINESTRING", 2)
    ]


def test_the_table_is_made_for_reading(db, tmp_path):
    load.vector(db, write(tmp_path / "roads.gpkg", streets(3000, scale=20_000)), "roads")
    plan = str(ask(db, "EXPLAIN SELECT * FROM roads WHERE geom && ST_MakeEnvelope(450000, 5400000, 450010, 5400010, 32631)"))
    assert "Index Cond" in plan or "Index Scan" in plan, "of its own accord, so it knows the table's statistics too"
    assert ask(db, "SELECT reltuples FROM pg_class WHERE oid = 'roads'::regclass") == [(3000,)]
    assert ask(db, "INSERT INTO roads (geom) SELECT geom FROM roads WHERE fid = 1 RETURNING fid") == [(3001,)]
    assert db.table("roads").primary_key == ("fid",)


@pytest.mark.parametrize("ending", ["geojson", "gpkg"])
def test_chunks_make_no_difference(db, tmp_path, monkeypatch, ending):
    lines = streets(50)
    numbers = [None if n % 7 == 0 else 2**60 + n for n in range(50)]
    path = geojson(tmp_path / "roads.geojson", *((line, {"n": n}) for line, n in zip(lines, numbers, strict=True)))
    if ending == "gpkg":
        whole = np.array([n or 0 for n in numbers])
        path = tmp_path / "roads.gpkg"
        nulls = [np.array([n is None for n in numbers])]
        pyogrio.raw.write(
            path, shapely.to_wkb(lines), [whole], ["n"], field_mask=nulls, crs="EPSG:32631", geometry_type="LineString"
        )
    seen = []
    monkeypatch.setattr(vectorfile, "CHUNK", 7 if ending == "gpkg" else 1)
    loaded = load.vector(db, path, "roads", srid=32631, progress=lambda *counts: seen.append(counts))
    assert loaded.rows == 50
    assert seen == [(n, 50) for n in range(1, 51)]
    assert shapely.equals_exact(shapes(db, "roads"), lines).all()
    assert ask(db, "SELECT fid, n FROM roads ORDER BY ctid") == list(enumerate(numbers, 1))


# Types


def test_values_keep_their_types_and_nulls(db, tmp_path):
    point = shapely.Point(1, 2)
    full = {
        "small": 7, "big": 2**60 + 1, "yes": True, "half": 0.5, "name": "Ä\t\n\\N'\"", "day": "1899-12-31",
        "time": "23:59:01", "numbers": [1, 2], "large": [2**60], "halves": [0.5, 2.5],
        "words": ["a", "b,\"c\"", ""], "thing": {"a": [1, None]},
    }  # fmt: skip
    path = geojson(
        tmp_path / "x.geojson", (point, full), (point, dict.fromkeys(full)), (point, {**full, "yes": False, "big": -1})
    )
    assert load.vector(db, path, "x").notes == ()
    assert columns(db, "x") == {
        "fid": "integer", "geom": "geometry(Point,4326)", "small": "integer", "big": "bigint", "yes": "boolean",
        "half": "double precision", "name": "text", "day": "date", "time": "time without time zone", "numbers": "integer[]",
        "large": "bigint[]", "halves": "double precision[]", "words": "text[]", "thing": "json",
    }  # fmt: skip
    values = {**full, "day": dt.date(1899, 12, 31), "time": dt.time(23, 59, 1)}
    names = ", ".join(f'"{name}"' for name in full)
    assert ask(db, f"SELECT {names} FROM x ORDER BY fid") == [
        tuple(values.values()),
        (None,) * len(full),
        tuple({**values, "yes": False, "big": -1}.values()),
    ]


def test_a_type_that_holds_all_values_is_kept_where_some_are_null(db, tmp_path):
    path = tmp_path / "x.gpkg"
    write(
        path,
        [shapely.Point(n, 0) for n in range(3)],
        byte=np.array([1, 2, 3], "int16"),
        single=np.array([0.1, np.nan, 3], "f4"),
    )
    load.vector(db, path, "x")
    assert columns(db, "x") == {"fid": "integer", "geom": "geometry(Point,32631)", "byte": "smallint", "single": "real"}
    assert ask(db, "SELECT byte, single FROM x ORDER BY fid") == [(1, 0.1), (2, None), (3, 3.0)]


@pytest.mark.parametrize(
    ("moments", "kind"),
    [
        (["2020-01-02T03:04:05", "2020-06-02T03:04:05.123"], "timestamp without time zone"),
        (["2020-01-02T03:04:05Z", "2020-06-02T03:04:05.123+05:30", None], "timestamp with time zone"),
        (["2020-01-02T03:04:05Z", "2020-06-02T03:04:05.123"], "text"),
    ],
)
def test_moments_are_local_or_in_a_zone_or_text(db, tmp_path, moments, kind):
    path = geojson(tmp_path / "x.geojson", *((shapely.Point(1, 2), {"at": moment}) for moment in moments))
    notes = load.vector(db, path, "x").notes
    assert columns(db, "x")["at"] == kind
    assert len(notes) == (kind == "text")
    expected = [moment and (dt.datetime.fromisoformat(moment) if kind != "text" else moment) for moment in moments]
    assert [value for (value,) in ask(db, "SELECT at FROM x ORDER BY fid")] == expected


# Geometries


@pytest.mark.parametrize(
    ("geometries", "kind", "notes"),
    [
        (["POINT (1 2)"], "geometry(Point,32631)", []),
        (["POINT Z (1 2 3)", "POINT Z (1 2 4)"], "geometry(PointZ,32631)", []),
        (["POLYGON ((0 0, 1 0, 1 1, 0 0))", "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)))"], "geometry(Geometry,32631)", []),
        (["POINT (1 2)", "LINESTRING (0 0, 1 1)"], "geometry(Geometry,32631)", []),
        (["POINT Z (1 2 3)", "LINESTRING Z (0 0 0, 1 1 1)"], "geometry(GeometryZ,32631)", []),
        (["GEOMETRYCOLLECTION (POINT (1 2))"], "geometry(GeometryCollection,32631)", []),
        (["LINESTRING (0 0, 1 1)", "LINESTRING EMPTY"], "geometry(LineString,32631)", ["1 of 2 geometries are empty"]),
        ([None, "POINT (1 2)", None], "geometry(Point,32631)", ["2 of 3 geometries are NULL"]),
        ([None], "geometry(Geometry,32631)", ["1 of 1 geometries are NULL"]),
    ],
)  # fmt: skip
def test_the_column_has_the_type_of_the_geometries(db, tmp_path, geometries, kind, notes):
    given = [shapely.from_wkt(text) if text else None for text in geometries]
    loaded = load.vector(db, write(tmp_path / "x.gpkg", given), "x")
    assert columns(db, "x") == {"fid": "integer", "geom": kind}
    assert list(loaded.notes) == notes
    stored = shapes(db, "x")
    assert [shape and shapely.to_wkt(shape) for shape in stored] == [shape and shapely.to_wkt(shape) for shape in given]


def test_heights_that_are_missing_become_0(db, tmp_path):
    path = geojson(tmp_path / "x.geojson", (shapely.Point(1, 2, 3), {}), (shapely.Point(1, 2), {}))
    assert load.vector(db, path, "x").notes == ("some geometries have heights and others none, which became 0",)
    assert [shapely.to_wkt(shape, trim=True) for shape in shapes(db, "x")] == ["POINT Z (1 2 3)", "POINT Z (1 2 0)"]


def test_geojson_is_4326_with_heights_and_without(db, tmp_path):
    path = geojson(tmp_path / "x.geojson", (shapely.Point(1, 2, 3), {}))
    assert load.vector(db, path, "x").srid == 4326
    path = geojson(tmp_path / "y.geojson", (shapely.Point(1, 2), {}), crs="urn:ogc:def:crs:OGC:1.3:CRS84")
    assert load.vector(db, path, "y").srid == 4326
    path = geojson(tmp_path / "z.geojson", (shapely.Point(1, 2), {}), crs="urn:ogc:def:crs:EPSG::32631")
    assert load.vector(db, path, "z").srid == 32631


def test_invalid_geometries_are_loaded_as_they_are_and_counted(db, tmp_path):
    good = shapely.box(0, 0, 1, 1)
    loaded = load.vector(
        db, write(tmp_path / "x.gpkg", [good, BOW_TIE, good, shapely.transform(BOW_TIE, lambda c: c + 9)]), "x"
    )
    reason = shapely.is_valid_reason(BOW_TIE)
    assert loaded.notes == (f"2 of 4 geometries are invalid and loaded as they are; the first, fid 2: {reason}",)
    assert shapely.equals_exact(shapes(db, "x")[1], BOW_TIE)


def test_measures_are_lost_but_not_in_silence(db, tmp_path):
    path = write(tmp_path / "x.gpkg", [shapely.Point(1, 2)], kind="Point", layer="x")
    with sqlite3.connect(path) as file:
        file.execute("UPDATE gpkg_geometry_columns SET m = 1")  # every geometry has M
    file.close()
    loaded = load.vector(db, path, "x")
    assert len(loaded.notes) == 1
    assert "Measured (M) geometry types are not supported" in loaded.notes[0]
    assert columns(db, "x")["geom"] == "geometry(Point,32631)"


def test_a_file_without_features_is_a_table_without_rows(db, tmp_path):
    loaded = load.vector(db, write(tmp_path / "x.gpkg", [], kind="Point", a=np.array([], "int64")), "x")
    assert loaded.rows == 0
    assert columns(db, "x") == {"fid": "integer", "geom": "geometry(Geometry,32631)", "a": "bigint"}
    assert ask(db, "INSERT INTO x (a) VALUES (1) RETURNING fid") == [(1,)]


# Layers, fields, coordinate systems


def test_one_of_several_layers_has_to_be_named(db, tmp_path):
    path = tmp_path / "x.gpkg"
    write(path, [shapely.Point(1, 2)], layer="trees")
    write(path, streets(3), layer="it's a {road}", append=True)
    with pytest.raises(ConfigError, match=r"has several layers: say with layer= which of 'trees', \"it's a {road}\" to load"):
        load.vector(db, path, "x")
    with pytest.raises(MissingError, match="has no layer 'rivers' with geometries: it has 'trees', "):
        load.vector(db, path, "x", layer="rivers")
    assert load.vector(db, path, "x", layer="it's a {road}").rows == 3
    assert load.vector(db, path, "x", layer="trees", replace=True).rows == 1


def test_tables_without_geometries_are_no_layers(db, tmp_path):
    path = write(tmp_path / "x.gpkg", [shapely.Point(1, 2)], layer="trees")
    pyogrio.raw.write(path, None, [np.array([1])], ["a"], driver="GPKG", layer="numbers", append=True)
    assert load.vector(db, path, "x").rows == 1
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(LoadError, match="has no layer with geometries"):
        load.vector(db, tmp_path / "x.csv", "y")


HOSTILE = ['a"; DROP TABLE canary; --', "a'b", "100%s", "{table}", "%(x)s", "Straße 🗺", "\\", "select", "a\tb", " "]


def test_hostile_field_names_are_names(db, tmp_path):
    with db.connection() as conn:
        conn.execute("CREATE TABLE canary (alive bool)")
    path = geojson(tmp_path / "x.geojson", *((shapely.Point(n, 2), dict.fromkeys(HOSTILE, n)) for n in range(3)))
    assert load.vector(db, path, "x").rows == 3
    assert sorted(columns(db, "x")) == sorted(["fid", "geom", *[name.lower() for name in HOSTILE]])
    assert ask(db, "SELECT * FROM x ORDER BY fid")[2][2:] == (2,) * len(HOSTILE)
    assert ask(db, "SELECT count(*) FROM canary") == [(0,)]


def test_hostile_times_and_large_numbers_under_hostile_names(db, tmp_path):
    names = ['t"; --', "%s {x}"]
    rows = [{names[0]: "2020-01-02T03:04:05Z", names[1]: n} for n in (None, 2**60 + 1)]
    load.vector(db, geojson(tmp_path / "x.geojson", *((shapely.Point(1, 2), row) for row in rows)), "x")
    found = columns(db, "x")
    assert (found[names[0]], found[names[1]]) == ("timestamp with time zone", "bigint")
    assert ask(db, 'SELECT "%s {x}" FROM x ORDER BY fid') == [(None,), (2**60 + 1,)]


def test_fields_that_would_be_one_column_are_refused(db, tmp_path):
    path = geojson(tmp_path / "x.geojson", (shapely.Point(1, 2), {"Name": 1, "name": 2}))
    with pytest.raises(LoadError, match=r"has fields '[Nn]ame' and '[Nn]ame', which would both be column 'name': rename one"):
        load.vector(db, path, "x")


def test_fields_that_cannot_have_their_name_are_noted(db, tmp_path):
    long = "ö" * 40
    path = geojson(tmp_path / "x.geojson", (shapely.Point(1, 2), {"fid": 5, "Geom": 6, "xmin": 7, long: 8, "Plain": 9}))
    loaded = load.vector(db, path, "x")
    found = ask(db, f'SELECT fid, fid_1, geom_1, xmin_1, "{"ö" * 31}", plain FROM x')
    assert found == [(1, 5, 6, 7, 8, 9)]
    assert sorted(loaded.notes) == sorted(
        ["field 'fid' became column 'fid_1'", "field 'Geom' became column 'geom_1'", "field 'xmin' became column 'xmin_1'",
         f"field '{long}' became column '{'ö' * 31}'"]
    )  # fmt: skip


def test_a_crs_that_is_missing_or_has_no_code_needs_an_srid(db, tmp_path):
    bare = write(tmp_path / "bare.shp", [shapely.Point(1, 2)], None, "Point", a=[1])
    with pytest.raises(LoadError, match=r"bare\.shp does not say its coordinate system: say it with srid="):
        load.vector(db, bare, "x")
    assert load.vector(db, bare, "x", srid=2154).srid == 2154
    custom = write(tmp_path / "custom.gpkg", [shapely.Point(1, 2)], "+proj=laea +lat_0=12 +lon_0=3")
    with pytest.raises(LoadError, match=r"custom\.gpkg: its coordinate system, .*, is in no register"):
        load.vector(db, custom, "y")
    noted = load.vector(db, write(tmp_path / "x.gpkg", [shapely.Point(1, 2)]), "y", srid=4326)
    assert noted.srid == 4326
    assert "its SRID is 32631; srid=4326 was given and used, nothing reprojected" in noted.notes[0]


def test_files_that_cannot_be_read_are_named(db, tmp_path):
    good = geojson(tmp_path / "good.geojson", *((line, {}) for line in streets(500)))
    cut, empty, text = tmp_path / "cut.geojson", tmp_path / "empty.gpkg", tmp_path / "text.geojson"
    cut.write_bytes(good.read_bytes()[:-500])
    empty.touch()
    text.write_text("no features")
    for path, error, message in (
        (tmp_path / "none.gpkg", MissingError, r"there is no file .*none\.gpkg"),
        (empty, LoadError, r"empty\.gpkg is empty"),
        (text, LoadError, r"text\.geojson can't be read as vectors"),
        (cut, LoadError, r"cut\.geojson can't be read as vectors"),
    ):
        with pytest.raises(error, match=message):
            load.vector(db, path, "x")
    assert not ask(db, "SELECT FROM pg_class WHERE relname ~ '^(x|pgtiles_)'")


def test_what_the_server_refuses_is_an_error_that_names_the_file(db, tmp_path):
    many = geojson(tmp_path / "many.geojson", (shapely.Point(1, 2), {f"c{n}": n for n in range(1700)}))
    with pytest.raises(LoadError, match=r"many\.geojson was not loaded into x of .*: tables can have at most 1600 columns"):
        load.vector(db, many, "x")
