"""Tiles that are kept: in GeoParquet and in tables, and back to the last bit. pyarrow, pyproj, shapely and PostGIS look at them."""

import json
import pickle
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pyproj
import pytest
import shapely
from conftest import ask
from jsonschema import validate

from pgtiles import Database, Grid, Tiles
from pgtiles.errors import ConfigError, DataError, LoadError, MissingError

GRID = Grid(srid=32632, resolution=(0.3, 0.1), size=(30, 50), origin=(1 / 3, 2e6 / 7), step=0.1)


def kinds(count=7):
    """A column of each type, with what is hard about it."""
    return {
        "truth": np.arange(count) % 2 == 0,
        "small": np.arange(count, dtype="uint8") + 249,
        "large": np.arange(count) - 2**62,
        "half": np.array([np.nan, np.inf, -0.0, 1 / 3, 1e-7, 6e4, 2], "float16"),
        "real": np.array([np.nan, np.inf, -np.inf, 1 / 3, 1e-40, 3e38, 0.1], "float32"),
        "double": np.array([np.nan, 1 / 3, 5e-324, 1e308, 0.1, -np.inf, 0.3]),
        "text": np.array(["", "a\tb\\N", 'quo"te', "Straße", "NULL", "\n", "x" * 40]),
        "day": np.array(["2024-02-29", "NaT", "1900-01-01", *["2024-01-01"] * 4], "M8[D]"),
        "split": np.array(["train", "val", "test", *["train"] * 4]),
        'Odd "100 %" name; %s --': np.arange(count, dtype="int16"),
    }


def some():
    tiles = Tiles.random(GRID, within=(500_000, 5e6, 500_900, 5_000_500), count=7, seed=4, first_id=-3).with_columns(**kinds())
    return tiles.timed(["2024-03-01T10:30:00.123456Z", None, *["1969-12-31"] * 5])


def do(db, statements):
    with db.connection() as conn:
        conn.execute(statements)


def two_zones():
    ten = Tiles.sliding(Grid(srid=32632, resolution=10, size=64), within=(6e5, 5e6, 602000, 5001000))
    return ten[::-1] + Tiles.random(
        Grid(srid=32633, resolution=10, size=64), within=(4e5, 5e6, 402000, 5001000), count=4, first_id=90
    )


def same(one, other):
    """Whether two sets are one and the same, types and order included."""
    assert one.grid == other.grid
    for name in ("cols", "rows", "ids", "times", "zone"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    assert list(one.columns) == list(other.columns)
    for name, array in one.columns.items():
        assert array.dtype == other.columns[name].dtype, name
        np.testing.assert_array_equal(array, other.columns[name])
        if array.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(array), np.signbit(other.columns[name]))
    assert json.loads(json.dumps(dict(one.made))) == json.loads(json.dumps(dict(other.made)))


@pytest.fixture(
    params=[some, two_zones, lambda: some()[:0], lambda: two_zones()[[0, -1, 1]]], ids=["kinds", "zones", "none", "few"]
)
def tiles(request):
    return request.param()


class TestFile:
    def test_round_trip(self, tiles, tmp_path):
        tiles.save(tmp_path / "tiles.parquet")
        again = Tiles.load(tmp_path / "tiles.parquet")
        same(tiles, again)
        same(tiles, pickle.loads(pickle.dumps(again)))
        np.testing.assert_array_equal(tiles.bounds, again.bounds)

    def test_it_is_geoparquet(self, tiles, tmp_path):
        tiles.save(tmp_path / "tiles.parquet")
        table = parquet.read_table(tmp_path / "tiles.parquet")
        geo = json.loads(table.schema.metadata[b"geo"])
        validate(geo, SCHEMA)
        found = np.zeros((len(tiles), 4))
        for name, column in geo["columns"].items():
            shapes = shapely.from_wkb(table.column(name).to_pylist())
            there = np.array([shape is not None for shape in shapes], bool)
            found[there] = shapely.bounds(shapes[there])
            assert all(shape.exterior.is_ccw for shape in shapes[there])
            assert set(tiles.srids[there].tolist()) <= {pyproj.CRS.from_json_dict(column["crs"]).to_epsg()}
            if there.any():
                np.testing.assert_allclose(column["bbox"], shapely.total_bounds(shapes[there]))
        np.testing.assert_array_equal(found, tiles.bounds)

    def test_a_file_that_is_there_is_refused(self, tmp_path):
        path = tmp_path / "split.parquet"
        some().save(str(path))
        before = path.read_bytes()
        with pytest.raises(LoadError, match=r"split\.parquet is there already: replace=True"):
            some()[:2].save(path)
        assert path.read_bytes() == before
        some()[:2].save(path, replace=True)
        assert len(Tiles.load(path)) == 2

    @pytest.mark.parametrize("kind", ["parquet", "text", "empty"])
    def test_a_file_that_is_none_of_ours_stays(self, tmp_path, kind):
        path = tmp_path / "results.parquet"
        path.write_text("" if kind == "empty" else "id,x,y\n")
        if kind == "parquet":
            parquet.write_table(pa.table({"a": [1]}), path)
        before = path.read_bytes()
        with pytest.raises(
            LoadError, match=r"results\.parquet holds no tiles that save wrote, and stays as it is, replace or not"
        ):
            some().save(path, replace=True)
        assert path.read_bytes() == before

    def test_a_write_that_fails_leaves_what_was(self, tmp_path):
        path = tmp_path / "tiles.parquet"
        some().save(path)
        wide = some().with_columns(odd=np.zeros(7, "longdouble"))
        with pytest.raises(ConfigError, match="column 'odd' is float128"):
            wide.save(path, replace=True)
        with pytest.raises(LoadError, match="can't be written"):
            some().save(tmp_path / "no folder" / "tiles.parquet")
        same(some(), Tiles.load(path))
        assert [p.name for p in tmp_path.iterdir()] == ["tiles.parquet"]

    def test_what_is_no_file_of_tiles(self, tmp_path):
        with pytest.raises(MissingError, match="no file"):
            Tiles.load(tmp_path / "none.parquet")
        parquet.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
        with pytest.raises(MissingError, match="holds no tiles"):
            Tiles.load(tmp_path / "other.parquet")
        (tmp_path / "text.parquet").write_text("id,x,y\n")
        with pytest.raises(DataError, match="can't be read as Parquet"):
            Tiles.load(tmp_path / "text.parquet")

    @pytest.mark.parametrize("name", ["tile_id", "grid_col", "geom"])
    def test_names_that_are_taken(self, tmp_path, name):
        with pytest.raises(ConfigError, match=f"column '{name}' can't be kept"):
            some().with_columns(**{name: 1}).save(tmp_path / "tiles.parquet")

    def test_made_with_numbers_of_numpy(self, tmp_path):
        tiles = Tiles(GRID, np.arange(2), np.arange(2), made={"by": "hand", "jitter": np.int64(4), "of": [np.array([0.5])]})
        tiles.save(tmp_path / "tiles.parquet")
        assert Tiles.load(tmp_path / "tiles.parquet").made == {"by": "hand", "jitter": 4, "of": [[0.5]]}
        with pytest.raises(ConfigError, match="what made the tiles can't be noted"):
            Tiles(GRID, np.arange(2), np.arange(2), made={"by": {1}}).save(tmp_path / "more.parquet")

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"pip install 'pgtiles\[parquet\]'"):
            some().save(tmp_path / "tiles.parquet")


class TestTable:
    def test_round_trip(self, tiles, schema_db):
        tiles.to_table(schema_db, 'mine."Kept; tiles"')
        same(tiles, Tiles.from_table(schema_db, 'mine."Kept; tiles"'))

    def test_a_gis_finds_its_polygons(self, tiles, schema_db):
        tiles.to_table(schema_db, "kept")
        found = np.zeros((len(tiles), 4))
        layers = ask(schema_db, "SELECT f_geometry_column, srid, type FROM geometry_columns WHERE f_table_name = 'kept'")
        assert {kind for *_, kind in layers} == {"POLYGON"}
        assert {srid for _, srid, _ in layers} >= set(tiles.srids.tolist())
        for column, srid, _ in layers:
            for order, wkb, own in ask(
                schema_db, f"SELECT tile_order, ST_AsBinary({column}), ST_SRID({column}) FROM kept WHERE {column} IS NOT NULL"
            ):
                found[order] = shapely.from_wkb(wkb).bounds
                assert own == srid == tiles.srids[order]
        np.testing.assert_array_equal(found, tiles.bounds)
        assert len(schema_db.table("kept").indexes) == len(layers)
        assert schema_db.table("kept").primary_key == ("tile_id",)

    def test_a_table_that_is_there_is_refused(self, schema_db):
        some().to_table(schema_db, "kept")
        with pytest.raises(LoadError, match=r"mine\.kept is there already: replace=True"):
            some()[:2].to_table(schema_db, "kept")
        same(some(), Tiles.from_table(schema_db, "kept"))
        some()[:2].to_table(schema_db, "kept", replace=True)
        assert len(Tiles.from_table(schema_db, "kept")) == 2

    def test_a_write_that_fails_leaves_what_was(self, schema_db):
        some().to_table(schema_db, "kept")
        with pytest.raises(ConfigError, match=r"column 'n': 18446744073709551615 is too large"):
            some().with_columns(n=np.uint64(2**64 - 1)).to_table(schema_db, "kept", replace=True)
        with pytest.raises(DataError.__mro__[1], match="0x00"):
            some().with_columns(n="a\0b").to_table(schema_db, "kept", replace=True)
        same(some(), Tiles.from_table(schema_db, "kept"))

    @pytest.mark.parametrize("comment", [None, "years of work", '{"pgtiles": 1}', "[1]", "7"])
    def test_a_table_that_is_none_of_ours_stays(self, schema_db, comment):
        do(schema_db, "CREATE TABLE labels AS SELECT 42 AS n")
        if comment:
            do(schema_db, f"COMMENT ON TABLE labels IS '{comment}'")
        with pytest.raises(
            LoadError, match=r"mine\.labels holds no tiles that to_table wrote.* stays as it is, replace or not"
        ):
            some().to_table(schema_db, "labels", replace=True)
        assert ask(schema_db, "SELECT n FROM labels") == [(42,)]

    def test_columns_that_were_added_and_changed_there(self, schema_db):
        some().to_table(schema_db, "kept")
        do(schema_db, "ALTER TABLE kept ADD seen_by text DEFAULT 'anna'; UPDATE kept SET split = 'validation' WHERE tile_id = -3; "
            "UPDATE kept SET small = 300 WHERE tile_id = -2; DELETE FROM kept WHERE tile_id = 0")  # fmt: skip
        again = Tiles.from_table(schema_db, "kept")
        assert again.ids.tolist() == [-3, -2, -1, 1, 2, 3]
        assert again.columns["seen_by"].tolist() == ["anna"] * 6
        assert again.columns["split"].tolist()[:2] == ["validation", "val"]
        assert again.columns["small"].tolist()[:2] == [249, 300]

    def test_names_that_begin_like_an_envelopes_are_free(self, schema_db):
        tiles = some().with_columns(geometry_source="survey", geom_32632=np.arange(7))
        tiles.to_table(schema_db, "kept")
        same(tiles, Tiles.from_table(schema_db, "kept"))
        do(schema_db, "ALTER TABLE kept ADD geom_checked bool DEFAULT true")
        assert Tiles.from_table(schema_db, "kept").columns["geom_checked"].all()
        with pytest.raises(ConfigError, match="column 'geom_32633' can't be kept"):
            two_zones().with_columns(geom_32633=1).to_table(schema_db, "two")

    def test_tiles_that_are_there_twice_are_refused(self, schema_db, tmp_path):
        """As they would never come back."""
        drawn = some()[[0, 3, 3]]
        for keep in (lambda: drawn.to_table(schema_db, "kept"), lambda: drawn.save(tmp_path / "kept.parquet")):
            with pytest.raises(ConfigError, match=r"1 tile ids are there twice \(the first: 0\), as in what an epoch draws"):
                keep()
        assert not list(tmp_path.iterdir())

    def test_reading_it_needs_no_more_than_to_select(self, schema_db, world):
        some().to_table(schema_db, "kept")
        do(
            schema_db,
            "CREATE ROLE kept_reader LOGIN PASSWORD 'reads'; GRANT USAGE ON SCHEMA mine TO kept_reader; GRANT SELECT ON kept TO kept_reader",
        )
        try:
            with Database(re.sub("//[^@]*@", "//kept_reader:reads@", world.url)) as reader:
                same(some(), Tiles.from_table(reader, "mine.kept"))
        finally:
            do(schema_db, "DROP OWNED BY kept_reader; DROP ROLE kept_reader")

    def test_what_is_no_table_of_tiles(self, world):
        with pytest.raises(MissingError, match="roads holds no tiles"):
            Tiles.from_table(world.db, "roads")
        with pytest.raises(MissingError, match="schema 'nowhere'"):
            some().to_table(world.db, "nowhere.kept")
        with pytest.raises(LoadError, match="geometry_columns is there already, and no table"):
            some().to_table(world.db, "public.geometry_columns", replace=True)


# of the specification's own, what matters here
SCHEMA = {
    "type": "object",
    "required": ["version", "primary_column", "columns"],
    "properties": {
        "version": {"const": "1.1.0"},
        "primary_column": {"type": "string", "minLength": 1},
        "columns": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["encoding", "geometry_types", "crs"],
                "properties": {
                    "encoding": {"enum": ["WKB"]},
                    "geometry_types": {"type": "array", "uniqueItems": True, "items": {"enum": ["Polygon"]}},
                    "crs": {"type": "object", "required": ["type", "name", "id"]},
                    "orientation": {"const": "counterclockwise"},
                    "bbox": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
                },
            },
        },
    },
}
