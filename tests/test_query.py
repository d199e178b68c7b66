"""The user's own SQL: verbatim, gated, guarded, explained; every mistake is one error that points into her text."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from pgtiles import Imagery, Labels, Tiles, read
from pgtiles.errors import ConfigError, DataError, MissingError, PgtilesWarning, QueryError
from pgtiles.layers.query import pointer, text_of
from pgtiles.streaming.reading import Plan

ROADS = "SELECT ST_Buffer(way, 6) AS geom FROM roads WHERE ST_DWithin(way, tile.geom, 6)"


@pytest.fixture(scope="module")
def tiles(world):
    return Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=24, seed=3)


def mask(world, tiles, source, **options):
    return read(world.db, tiles, {"mask": Labels(source, **options)})["mask"]


class TestVerbatim:
    @pytest.mark.parametrize(
        "text",
        [
            ROADS + ";",
            ROADS + " ; -- that's all; really\n",
            ROADS + "\n;; /* over /* and */ out; */ ;",
            "-- roads; {braces} 100 % 'odd'\n" + ROADS,
            ROADS + " AND name NOT LIKE '100%' AND name <> '{x}' AND name <> ';' AND 'a'::text <> E'\\';'",
            ROADS + " AND name <> $q$ ); drop table roads; -- $q$",
            "WITH near AS (SELECT way FROM roads WHERE ST_DWithin(way, tile.geom, 6)) SELECT ST_Buffer(way, 6) AS geom FROM near",
            "SELECT ST_Buffer(roads.way, 6) AS geom FROM roads, tile WHERE ST_DWithin(roads.way, tile.geom, 6)",
            "SELECT ST_Buffer(roads.way, 6) AS geom FROM tile JOIN roads ON ST_DWithin(roads.way, tile.geom, 6)",
        ],
    )
    def test_taken_as_it_stands(self, world, tiles, text):
        np.testing.assert_array_equal(mask(world, tiles, text), mask(world, tiles, ROADS))

    def test_from_tile_means_this_tile(self, world, tiles):
        count = mask(world, tiles, "SELECT geom, count(*) AS value FROM tile GROUP BY geom")
        assert (count == 1).all()

    def test_tile_has_an_id_and_a_raster(self, world, tiles):
        np.testing.assert_array_equal(
            mask(world, tiles, "SELECT tile.geom AS geom, tile.id + 1 AS value FROM tile")[:, 0, 0], tiles.ids + 1
        )
        layer = Labels("SELECT ST_SetValue(tile.rast, 1, 2, 3, 7) AS rast FROM tile")
        got = read(world.db, tiles[:2], {"mask": layer})["mask"]
        assert got[0, 2, 1] == 7
        assert got.sum() == 14

    @given(st.text(alphabet=" ;'\"-/*$()aE\\\n", max_size=24))
    def test_the_semicolon_law(self, text):
        """Whatever the text, only semicolons that end it are taken away, and nothing else changes."""
        try:
            kept = text_of(text)
        except QueryError:
            return
        assert len(kept) == len(text)
        assert {(a, b) for a, b in zip(text, kept, strict=True) if a != b} <= {(";", " ")}


class TestSqlAlchemy:
    def test_select_with_parameters(self, world, tiles):
        from sqlalchemy import column, func, select, table

        import pgtiles

        roads = table("roads", column("way"), column("class"), column("name"))
        query = select(func.ST_Buffer(roads.c.way, 6).label("geom")).where(
            func.ST_DWithin(roads.c.way, pgtiles.tile.geom, 6), roads.c["class"] == 2, roads.c.name.notlike("it's 100%\\ {x}%")
        )
        np.testing.assert_array_equal(mask(world, tiles, query), mask(world, tiles, ROADS + " AND class = 2"))

    def test_reflected_table_with_a_geometry_column(self, world, tiles):
        from sqlalchemy import MetaData, Table, create_engine, func, select

        import pgtiles

        engine = create_engine(world.url.replace("postgresql://", "postgresql+psycopg://"))
        roads = Table("roads", MetaData(), autoload_with=engine)
        engine.dispose()
        query = select(roads.c.way.label("geom"), roads.c["class"].label("value")).where(
            func.ST_DWithin(roads.c.way, pgtiles.tile.geom, 6)
        )
        plain = "SELECT way AS geom, class AS value FROM roads WHERE ST_DWithin(way, tile.geom, 6)"
        np.testing.assert_array_equal(mask(world, tiles, query), mask(world, tiles, plain))

    def test_text_with_parameters_and_two_layers_with_the_same_names(self, world, tiles):
        from sqlalchemy import text

        def layer(width):
            query = text("SELECT ST_Buffer(way, :w) AS geom FROM roads WHERE ST_DWithin(way, tile.geom, :w)")
            return Labels(query.bindparams(w=width))

        got = read(world.db, tiles, {"thin": layer(3), "wide": layer(9)})
        for name, width in (("thin", 3), ("wide", 9)):
            np.testing.assert_array_equal(got[name], mask(world, tiles, ROADS.replace("6", str(width))))


class TestTables:
    def test_where_value_and_buffer(self, world, tiles):
        got = mask(world, tiles, "roads", where="class IN (2, 3) AND name LIKE 'roads %'", value="class")
        want = mask(world, tiles, "SELECT way AS geom, class AS value FROM roads WHERE way && tile.geom AND class IN (2, 3)")
        np.testing.assert_array_equal(got, want)
        assert set(np.unique(got)) == {0, 2, 3}

    def test_names_are_sql_names(self, db):
        with db.connection() as conn:
            conn.execute('CREATE SCHEMA "My Schema"')
            conn.execute('CREATE TABLE "My Schema"."T ""x"" 100%" ("Geo; m" geometry(Polygon, 3857))')
            conn.execute('INSERT INTO "My Schema"."T ""x"" 100%" VALUES (ST_MakeEnvelope(0, 0, 10, 10, 3857))')
            conn.execute('CREATE INDEX ON "My Schema"."T ""x"" 100%" USING gist ("Geo; m")')
        from pgtiles import Grid

        tiles = Tiles(Grid(srid=3857, resolution=1, size=20), np.array([0]), np.array([-20]))
        got = read(db, tiles, {"m": Labels('"My Schema"."T ""x"" 100%"')})["m"]
        assert got.sum() == 100
        assert got[0, -10:, :10].all()


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("SELECT geom FROM roads WHERE way && tile.geom", QueryError, r"(?s)line 1: SELECT geom.*\^.*osm2pgsql calls its geometry way"),
        ("SELECT way FROM roads WHERE way && tile.geom", QueryError, "columns way.*write way AS geom"),
        ("SELECT way AS geom\nFROM roads\nWHERE highwey = 1", QueryError, r"(?s)highwey.*line 3: WHERE highwey = 1\n +\^"),
        ("SELECT way AS geom FORM roads", QueryError, r"(?s)syntax error.*line 1.*\^"),
        ("SELECT way AS geom FROM raods", QueryError, r"(?s)raods.*\^"),
        (ROADS + "; DROP TABLE roads", QueryError, "more than one statement"),
        ("SELECT 1) u; COMMIT; DROP TABLE roads; SELECT * FROM (SELECT 1", QueryError, "closes a bracket"),
        ("SELECT way AS geom FROM roads) AS u, (SELECT 1", QueryError, r"(?s)closes a bracket.*\^"),
        ("DELETE FROM roads RETURNING way AS geom", QueryError, "syntax error"),
        ("WITH d AS (DELETE FROM roads RETURNING way) SELECT way AS geom FROM d", QueryError, "data-modifying"),
        ("SELECT way AS geom, name AS value FROM roads WHERE way && tile.geom", QueryError, r"type text.*CASE"),
        ("SELECT way AS geom, 'it''s AS value FROM roads", QueryError, "unterminated"),
        ("SELECT way AS geom /* no end FROM roads", QueryError, "unterminated"),
        ("  -- nothing\n ;", QueryError, "empty"),
        ("SELECT 1 AS one", QueryError, "columns one, but neither geom nor rast"),
        ("no_such_table", MissingError, "no table 'no_such_table'"),
        ("raods", MissingError, r"public\.roads"),
        ("no_schema.roads", MissingError, "no table"),
        ("SELECT way AS geom FROM roads_4326 WHERE ST_DWithin(way, tile.geom, 6)", QueryError, r"SRID 4326.*srid=4326"),
        ("SELECT way AS geom FROM roads_4326 WHERE way && tile.geom", QueryError, r"SRID 4326"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_one_error(world, tiles, source, error, says):
    with pytest.raises(error, match=r"^layer 'mask': ") as caught:
        Plan.open(world.db, tiles, {"mask": Labels(source)})
    assert caught.match(says)
    assert world.db.query(sql.SQL("SELECT count(*) FROM roads").format())[0][0] == 220


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"value": "klass"}, MissingError, "near are class"),
        ({"value": 300, "dtype": "uint8"}, ConfigError, "does not fit"),
        ({"value": 1.5}, ConfigError, "does not fit"),
        ({"buffer": 0}, ConfigError, "metres"),
        ({"buffer": float("nan")}, ConfigError, "metres"),
        ({"dtype": "uint7"}, ConfigError, "uint8"),
        ({"column": "geom"}, MissingError, "way"),
        ({"where": "klass = 1"}, QueryError, "klass"),
        ({"where": "true); DROP TABLE roads; --"}, QueryError, "bracket"),
    ],
)
def test_wrong_options_of_a_table(world, tiles, options, error, says):
    with pytest.raises(error, match=says):
        Plan.open(world.db, tiles, {"mask": Labels("roads", **options)})


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("SELECT way AS geom, 300 AS value FROM roads WHERE way && tile.geom", "value 300 does not fit dtype='uint8'"),
        ("SELECT way AS geom, -1 AS value FROM roads WHERE way && tile.geom", "value -1"),
        ("SELECT way AS geom, 1.5 AS value FROM roads WHERE way && tile.geom", "value 1.5"),
        ("SELECT way AS geom, NULL::int AS value FROM roads WHERE way && tile.geom", "NULL.*COALESCE"),
    ],
)
def test_a_wrong_value_names_layer_and_tile(world, source, says):
    grid = world.grid
    tiles = Tiles.sliding(grid, within=world.db.extent("scene", 3857))
    with pytest.raises(DataError, match=rf"layer 'mask', tile \d+ at \(.*\): .*{says}"):
        mask(world, tiles, source, dtype="uint8")


def test_an_error_while_running_names_layer_and_tile(world, tiles):
    query = "SELECT tile.geom AS geom, 1 / (tile.id - 5) AS value FROM tile"
    with pytest.raises(QueryError, match=r"layer 'bad', tile 5 at \(.*\): division by zero"):
        read(world.db, tiles, {"good": Labels(ROADS), "bad": Labels(query)})


@pytest.mark.parametrize("far", [(100_000, 50_000), (40_000, 27_000)])
def test_a_fragment_that_no_raster_holds(db, far):
    """Past 65535 pixels a side, and past 1 GB."""
    from pgtiles import Grid

    tiles = Tiles(Grid(srid=3857, resolution=1, size=32), np.array([0]), np.array([0]))
    line = f"SELECT ST_MakeLine(ST_Centroid(tile.geom), ST_Translate(ST_Centroid(tile.geom), {far[0]}, {far[1]})) AS geom FROM tile"
    with pytest.raises(QueryError, match=r"(?s)layer 'm', tile 0 .*ST_Segmentize\(geom, 1000\)"):
        read(db, tiles, {"m": Labels(line)})
    cut = line.replace("SELECT ST_MakeLine(", "SELECT ST_Segmentize(ST_MakeLine(").replace(") AS geom", "), 1000) AS geom")
    assert read(db, tiles, {"m": Labels(cut)})["m"].any()


def test_writing_is_refused_even_through_a_function(db, world):
    with db.connection() as conn:
        conn.execute("CREATE TABLE canary (n int)")
        conn.execute("CREATE FUNCTION sneak() RETURNS int LANGUAGE sql VOLATILE AS 'INSERT INTO canary VALUES (1) RETURNING n'")
    tiles = Tiles(world.grid, np.array([0]), np.array([0]))
    with pytest.raises(QueryError, match="read-only"):
        read(db, tiles, {"m": Labels("SELECT tile.geom AS geom, sneak() AS value FROM tile")})
    with pytest.raises(QueryError, match="read-write"):
        steal = "SELECT tile.geom AS geom, sneak() AS value FROM tile, set_config('transaction_read_only', 'off', true)"
        read(db, tiles, {"m": Labels(steal)})
    assert db.query(sql.SQL("SELECT count(*) FROM canary").format())[0][0] == 0


def test_select_rights_are_enough(db, world, database_url):
    with db.connection() as conn:
        conn.execute("CREATE TABLE public.roads (way geometry(LineString, 3857))")
        conn.execute("INSERT INTO roads VALUES ('SRID=3857;LINESTRING(0 0, 50 -50)')")
        conn.execute("CREATE INDEX ON roads USING gist (way)")
        conn.execute("DROP ROLE IF EXISTS pgtiles_reader")
        conn.execute("CREATE ROLE pgtiles_reader LOGIN PASSWORD 'reader'")
        conn.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO pgtiles_reader")
        conn.execute(f"REVOKE TEMP ON DATABASE {conn.info.dbname} FROM PUBLIC")
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    from pgtiles import Database, Grid

    known = conninfo_to_dict(database_url) | {"user": "pgtiles_reader", "password": "reader"}
    tiles = Tiles(Grid(srid=3857, resolution=1, size=50), np.array([0]), np.array([0]))
    try:
        with Database(make_conninfo(**known)) as reader:
            with pytest.raises(QueryError, match="GRANT SELECT"):
                read(reader, tiles, {"m": Labels("roads")})
            with db.connection() as conn:
                conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO pgtiles_reader")
            assert read(reader, tiles, {"m": Labels("roads")})["m"].sum() == 50
    finally:
        with db.connection() as conn:
            conn.execute("DROP OWNED BY pgtiles_reader; DROP ROLE pgtiles_reader")


class TestFindings:
    @pytest.fixture
    def bare(self, db):
        with db.connection() as conn:
            conn.execute("CREATE TABLE bare (way geometry(Point, 3857), kind int)")
            conn.execute("INSERT INTO bare SELECT ST_SetSRID(ST_MakePoint(i, -i), 3857), 1 FROM generate_series(0, 99) i")
            conn.execute("ANALYZE bare")
        return db

    def warned(self, db, source, **options):
        from pgtiles import Grid

        tiles = Tiles(Grid(srid=3857, resolution=1, size=50), np.array([0]), np.array([0]))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Plan.open(db, tiles, {"m": Labels(source, **options)})
        return [str(w.message) for w in caught if issubclass(w.category, PgtilesWarning)]

    def test_a_missing_index_is_named(self, bare):
        (said,) = self.warned(bare, "SELECT way AS geom FROM bare WHERE way && tile.geom")
        assert 'CREATE INDEX ON "public"."bare" USING gist ("way"); ANALYZE "public"."bare";' in said
        with bare.connection() as conn:
            conn.execute(said[said.index("CREATE") :])
        assert self.warned(bare, "SELECT way AS geom FROM bare WHERE way && tile.geom") == []
        assert self.warned(bare, "bare") == []

    def test_an_index_that_the_condition_hides(self, world):
        query = "SELECT ST_Buffer(way, 6) AS geom FROM roads WHERE ST_Intersects(ST_Buffer(way, 6), tile.geom)"
        (said,) = self.warned(world.db, query)
        assert "has an index" in said
        assert "ST_DWithin(way, tile.geom, 6)" in said

    def test_srid_zero(self, db):
        with db.connection() as conn:
            conn.execute("CREATE TABLE lost AS SELECT ST_MakePoint(1, 1) AS way")
        for source in ("lost", "SELECT way AS geom FROM lost WHERE way && tile.geom"):
            with pytest.raises((DataError, QueryError), match="UpdateGeometrySRID"):
                self.warned(db, source)

    def test_a_joined_table_in_another_srid_is_no_mistake(self, world):
        query = """
            SELECT r.way AS geom FROM roads r JOIN roads_4326 f ON f.id = r.id WHERE r.way && tile.geom AND f.class = 1
        """
        tiles = Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=2)
        Plan.open(world.db, tiles, {"m": Labels(query)})


class TestImagerySources:
    def test_a_query_on_the_lattice(self, world, tiles):
        query = "SELECT rast FROM scene WHERE ST_ConvexHull(rast) && tile.geom"
        plan = Plan.open(world.db, tiles, {"i": Imagery(query)})
        assert plan.layers[0].path == "native"
        np.testing.assert_array_equal(
            read(world.db, tiles, {"i": Imagery(query)})["i"], read(world.db, tiles, {"i": Imagery("scene")})["i"]
        )

    @pytest.mark.parametrize(
        ("layer", "error", "says"),
        [
            (lambda: Imagery("scen"), MissingError, r"public\.scene"),
            (lambda: Imagery("roads"), MissingError, "no raster column"),
            (lambda: Imagery("scene", bands=(1, 4)), MissingError, "has 3 bands"),
            (lambda: Imagery("scene", bands=(0,)), ConfigError, "from 1"),
            (lambda: Imagery("scene", bands=()), ConfigError, "from 1"),
            (lambda: Imagery("scene", resampling="Foo"), ConfigError, "bilinear"),
            (lambda: Imagery("scene", max_error=-1), ConfigError, "0 or more"),
            (lambda: Imagery("scene", dtype="int7"), ConfigError, "native"),
            (lambda: Imagery("scene", order_by="no_such DESC"), QueryError, "no_such"),
            (lambda: Imagery("SELECT way FROM roads"), QueryError, "called rast"),
            (lambda: Imagery("SELECT rast FROM scene WHERE false"), DataError, "no raster"),
        ],
    )
    def test_wrong_imagery(self, world, tiles, layer, error, says):
        with pytest.raises(error, match=says):
            Plan.open(world.db, tiles, {"image": layer()})

    def test_a_dtype_that_does_not_hold_the_pixels(self, db, tmp_path):
        from conftest import scene, write_tiff

        from pgtiles import Grid, load

        load.raster(db, [write_tiff(tmp_path / "t.tif", scene(0, (1, 80, 80), "uint16"))], "t")
        tiles = Tiles(Grid.like(db, "t", size=64), np.array([0]), np.array([0]))
        with pytest.raises(DataError, match=r"tile 0 at .*: pixel value \d+ of type 16BUI does not fit dtype='uint8'"):
            read(db, tiles, {"i": Imagery("t", dtype="uint8")})

    def test_a_dtype_that_does_not_hold_nodata(self, db, tmp_path):
        from conftest import scene, write_tiff

        from pgtiles import Grid, load

        load.raster(db, [write_tiff(tmp_path / "t.tif", scene(0, (1, 80, 80), "int16"), nodata=-9999)], "t")
        tiles = Tiles(Grid.like(db, "t", size=64), np.array([0]), np.array([0]))
        with pytest.raises(ConfigError, match="layer 'i': dtype='uint8' does not hold -9999"):
            read(db, tiles, {"i": Imagery("t", dtype="uint8")})

    def test_missing_srid(self, db, tmp_path):
        from conftest import scene, write_tiff

        from pgtiles import Grid, load

        load.raster(db, [write_tiff(tmp_path / "t.tif", scene(0, (1, 80, 80)))], "t")
        with db.connection() as conn:
            conn.execute("SELECT DropRasterConstraints('t'::name, 'rast'::name); UPDATE t SET rast = ST_SetSRID(rast, 0)")
        with pytest.raises(DataError, match="UpdateRasterSRID"):
            Grid.like(db, "t")
        tiles = Tiles(Grid(srid=3857, resolution=2.5), np.array([0]), np.array([0]))
        with pytest.raises(DataError, match="SRID 0"):
            read(db, tiles, {"i": Imagery("t")})

    def test_a_label_raster_beside_a_burned_one(self, db, tmp_path):
        from conftest import write_tiff

        from pgtiles import Grid, load

        classes = np.random.default_rng(0).integers(0, 5, (1, 90, 90)).astype("uint8")
        load.raster(db, [write_tiff(tmp_path / "c.tif", classes, nodata=0)], "classes", block=32)
        tiles = Tiles(Grid.like(db, "classes", size=64), np.array([3]), np.array([7]))
        got = read(db, tiles, {"m": Labels("classes", background=9)})["m"][0]
        want = classes[0, 7:71, 3:67].astype("int64")
        np.testing.assert_array_equal(got, np.where(want == 0, 9, want))


class TestAncestor:
    """The sub-queries of the 2018 talk from which this library comes: all in SQL, a raster for image and label alike."""

    IMAGE = """
        SELECT tile.id, ST_MapAlgebra(ST_AddBand(tile.rast, '8BUI'::text), 1,
            ST_Resample(ST_Grayscale(ST_Union(image.rast)), tile.rast, 'bilinear'), 1, '[rast2]', NULL, 'FIRST', '[rast2]') AS rast
        FROM tile, LATERAL (SELECT rast FROM scene WHERE ST_Intersects(scene.rast, tile.rast)) AS image
        GROUP BY tile.rast, tile.id
    """
    LABEL = """
        SELECT tile.id, ST_MapAlgebra(tile.rast, ST_AsRaster(label.geom, tile.rast, '8BUI'),
            '([rast2])::integer', NULL, 'FIRST', '([rast2])::integer') AS rast
        FROM tile, LATERAL (
            SELECT ST_ClipByBox2D(ST_Buffer(ST_Union(r.way), 10), ST_Envelope(tile.rast)) AS geom
            FROM roads r WHERE ST_Intersects(r.way, tile.rast)
        ) AS label
    """

    @pytest.mark.usefixtures("quiet")  # PostGIS remarks on a tile without roads
    def test_they_run_as_layers(self, world):
        tiles = Tiles.random(world.grid, within=world.db.extent("scene", 3857), count=4, seed=5)
        got = read(world.db, tiles, {"image": Imagery(self.IMAGE), "mask": Labels(self.LABEL)})
        for i, (xmin, _, _, ymax) in enumerate(tiles.bounds):
            tile = f"""
                (SELECT {i} AS id, ST_AddBand(ST_MakeEmptyRaster(64, 64, {xmin}, {ymax}, 2.5, -2.5, 0, 0, 3857), '8BUI') AS rast) AS tile
            """
            for name, query in (("image", self.IMAGE), ("mask", self.LABEL)):
                statement = query.replace("FROM tile,", f"FROM {tile},")
                with world.db.connection() as conn:
                    values = conn.execute(f"SELECT (ST_DumpValues(q.rast, 1)) FROM ({statement}) q").fetchone()[0]
                want = np.zeros((64, 64)) if values is None else np.array(values, float)
                np.testing.assert_array_equal(got[name][i].reshape(64, 64), np.nan_to_num(want))
        assert got["mask"].any()


def test_layers_are_checked(world, tiles):
    for layers, says in (({}, "at least one"), ({"bounds": Imagery("scene")}, "taken")):
        with pytest.raises(ConfigError, match=says):
            Plan.open(world.db, tiles, layers)


def test_pointer():
    assert pointer("SELECT a\nFROM b", 15) == "  line 2: FROM b\n               ^"
