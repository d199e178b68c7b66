"""Fault 22: names and values that are made to break out. What is called so is read like its plainly named twin, or refused by an
error of ours; and the canary lives through it all.
"""

import warnings
from contextlib import suppress

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from pgtiles import Boxes, Database, Grid, Imagery, Instances, Labels, TileDataset, Tiles, TimeSeries, Value, Vectors, read
from pgtiles.baking import bake
from pgtiles.errors import PgtilesError, PgtilesWarning
from pgtiles.layers.bakedtable import baked

HOSTILE = [
    'a"; DROP TABLE canary; --', "a'; DROP TABLE canary; --", "'); DROP TABLE canary; --", "); COMMIT; DROP TABLE canary; SELECT (1", "$$; DROP TABLE canary; $$",
    "%s %(n)s %% %", "{} {0} {name} {{", "\\'; DROP TABLE canary; --", "E'\\x27", ":name ::text :1", "$1 $2", "?", "/* DROP", "-- a\nb", "tile", "geom", "rast", "id", "time",
    "value", "select", "Größe Ω 地図 🗺", "e\u0301 \u202e\u200b\ufeff", " led and trailed ", "a.b", '"', "'", ";", "\t\r\n", "\x01\x7f", "x" * 63, "ß" * 31, "🗺" * 15, "a" * 61 + '"\'',
    "NaN", "NULL", "true", "__proto__", "../../etc/passwd", "<script>alert(1)</script>", "[bold red]", "pg_class", "ctid",
]  # fmt: skip
CANARY = sql.SQL("SELECT array_agg(n ORDER BY n) FROM public.canary")
GRID = Grid(srid=3857, resolution=2.0, size=32)
ROWS = 12


def fit(name, mark):
    """A name with a mark of its own in front, in the 63 bytes that PostgreSQL has."""
    return (mark + name).encode()[:63].decode(errors="ignore")


def quoted(*names):
    """As people quote in SQL."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


class Names:
    """What all is called, in SQL's quotes."""

    def __init__(self, name, *, hostile=True):
        def said(mark):
            return fit(name, mark) if hostile else f"{mark}_plain"

        self.schema, self.features, self.rasters = said("s"), said("f"), said("r")
        self.geom, self.rast, self.key, self.number, self.text, self.when = (said(mark) for mark in "grkntw")
        self.word = name if hostile else "plain"  # a value, a class's name, a layer's key

    def table(self, name):
        return quoted(self.schema, name)


def build(conn, names):
    """Features and rasters under these names; the same rows, whatever they are called."""
    q = {name: sql.Identifier(getattr(names, name)) for name in ("schema", "geom", "rast", "key", "number", "text", "when")}
    q |= {"f": sql.Identifier(names.schema, names.features), "r": sql.Identifier(names.schema, names.rasters), "rows": ROWS}
    for text in (
        "CREATE SCHEMA {schema}",
        "CREATE TABLE {f} ({key} int PRIMARY KEY, {geom} geometry(Polygon, 3857), {number} int, {text} text, {when} timestamptz)",
        """INSERT INTO {f} SELECT i, ST_MakeEnvelope(i * 16 + 3, -i * 8 - 40, i * 16 + 40, -i * 8 - 3, 3857), i % 3 + 1,
           CASE WHEN i % 2 = 0 THEN {word} ELSE 'other' END, timestamptz '2024-01-01' + i * interval '1 day'
           FROM generate_series(0, {rows} - 1) AS i""",
        "CREATE INDEX ON {f} USING gist ({geom})",
        "CREATE TABLE {r} ({key} int PRIMARY KEY, {rast} raster, {when} timestamptz)",
        """INSERT INTO {r} SELECT i, ST_SetValues(ST_AddBand(ST_MakeEmptyRaster(128, 128, (i % 2) * 256, 0, 2, -2, 0, 0, 3857), '8BUI'::text, 1),
           1, 1, 1, ARRAY[[i + 7, 3, i], [4, 9 + i, 6]]::float8[][]), timestamptz '2024-01-01' + i * interval '1 day'
           FROM generate_series(0, 3) AS i""",
        "CREATE INDEX ON {r} USING gist (ST_ConvexHull({rast}))",
    ):  # fmt: skip
        conn.execute(sql.SQL(text).format(**q, word=names.word))


def layers(n):
    """Each kind of layer, by table and by SQL, in every place where a name or a value can stand."""
    features, rasters = n.table(n.features), n.table(n.rasters)
    text, number, key, when = (quoted(name) for name in (n.text, n.number, n.key, n.when))
    literal = "'" + n.word.replace("'", "''") + "'"  # standard_conforming_strings
    is_word = f"{text} = {literal}"
    rows = f"SELECT {quoted(n.geom)} AS geom, {number} AS value, {key} AS id FROM {features} WHERE {quoted(n.geom)} && tile.geom AND {is_word}"
    return {
        "native": Imagery(rasters, column=n.rast, order_by=f"{when} DESC, {key}"),
        "warped": Imagery(rasters, resolution=4.0, resampling="nearest", order_by=key),
        "of a query": Imagery(f"SELECT {quoted(n.rast)} AS rast FROM {rasters} WHERE ST_ConvexHull({quoted(n.rast)}) && tile.geom", order_by=None),
        "series": Imagery(rasters, time=TimeSeries(when, steps=3)),
        "mask": Labels(features, column=n.geom, value=n.number, where=is_word, dtype="float64"),
        "sql": Labels(rows),
        "classes": Labels(features, classes={n.word: is_word, f"{n.word}+": f"NOT {is_word}"}, order="first"),
        "queries": Labels({f"{n.word}{mark}": f"SELECT {quoted(n.geom)} AS geom FROM {features} WHERE {number} = {mark} AND {quoted(n.geom)} && tile.geom" for mark in (1, 2)}),
        "ignored": Labels(features, where=is_word, ignore_index=255, coverage=features, contact=2),
        "bands": Vectors({n.word: features, f"{n.word}+": rows}, buffer=1),
        "boxes": Boxes(features, id=n.key, value=n.number, where=is_word),
        "instances": Instances(features, id=n.key),
        "number": Value(f"SELECT count(*) AS value FROM {features} WHERE {is_word} AND {quoted(n.geom)} && tile.geom"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def url(template):
    """A database of this module's own, with a canary, and the plain twin."""
    from pytest_postgresql.janitor import DatabaseJanitor

    name = "pgtiles_hostile"
    janitor = DatabaseJanitor(
        user=template.user, host=template.host, port=template.port, dbname=name, password=template.password,
        maintenance_dbname="postgres", template_dbname=template.template_dbname,
    )  # fmt: skip
    janitor.drop()
    with janitor:
        secret = f":{template.password}" if template.password else ""
        url = f"postgresql://{template.user}{secret}@{template.host}:{template.port}/{name}"
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("CREATE TABLE canary (n int PRIMARY KEY); INSERT INTO canary VALUES (1), (2), (3)")
            build(conn, Names("", hostile=False))
        yield url


@pytest.fixture(scope="module")
def twin(url):
    """What is read of the plain twin: by layer."""
    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        found = {name: read(db, tiles(), {name: layer}) for name, layer in layers(Names("", hostile=False)).items()}
    assert all(any(np.any(v) for v in arrays[name]) for name, arrays in found.items())
    return found


@pytest.fixture(autouse=True)
def canary(url):
    yield
    with Database(url) as db:
        assert db.query(CANARY) == [([1, 2, 3],)]


@pytest.fixture
def named(url):
    """Makes tables of these names, and drops them in the end."""
    made = []

    def make(name):
        names = Names(name)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(names.schema)))
            build(conn, names)
        made.append(names)
        return names

    yield make
    with psycopg.connect(url, autocommit=True) as conn:
        for names in made:
            conn.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(names.schema)))


def tiles():
    return Tiles.sliding(GRID, within=(0, -128, 256, 0))


def same(got, expected):
    assert got.keys() == expected.keys()
    for key, values in got.items():
        if isinstance(values, list):
            for one, other in zip(values, expected[key], strict=True):
                np.testing.assert_array_equal(one, other, err_msg=key)
        else:
            np.testing.assert_array_equal(values, expected[key], err_msg=key)


def look(url, names, twin):
    """All layers by one statement, under keys that are hostile too."""
    every = layers(names)
    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        got = read(db, tiles(), {f"{names.word} {name}": layer for name, layer in every.items()})
        for name in every:
            expected = {f"{names.word} {key}": values for key, values in twin[name].items() if key.startswith(name)}
            same({key: got[key] for key in expected}, expected)
        dataset = TileDataset(db, tiles(), {names.word + "!": every["classes"]}, batch_size=4)
        assert sum(int(batch[names.word + "!"].sum()) for batch in dataset) == int(twin["classes"]["classes"].sum())
        assert sorted(dataset.classes[names.word + "!"].values()) == sorted([names.word, names.word + "+"])


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_each_kind_of_layer_reads_the_right_rows(name, url, named, twin):
    look(url, named(name), twin)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(
    st.text(alphabet=st.sampled_from("\"'`;:%{}$\\/*-()[]., \n\tEeUux&?!aß🗺\u0301\u202e1"), min_size=1, max_size=40),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63),
))  # fmt: skip
def test_so_it_is_with_names_that_nobody_thought_of(name, url, named, twin):
    look(url, named(name), twin)


@pytest.mark.parametrize("name", HOSTILE[::2], ids=range(0, len(HOSTILE), 2))
def test_tiles_carry_such_columns_and_values(name, url, named):
    n, plain = named(name), Names("", hostile=False)

    def found(names):
        query = "SELECT {g} AS geom, {k} AS id, {n} AS {n}, {t} AS {t}, {n}::float8 AS weight FROM {f} ORDER BY {k}".format(
            g=quoted(names.geom), k=quoted(names.key), n=quoted(names.number), t=quoted(names.text), f=names.table(names.features)
        )  # fmt: skip
        return Tiles.query(db, GRID, query), Tiles.query(db, GRID, query, count=20, seed=1)

    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        (got, drawn), (expected, twin_drawn) = found(n), found(plain)
        np.testing.assert_array_equal(drawn.ids, twin_drawn.ids)
        np.testing.assert_array_equal(drawn.bounds, twin_drawn.bounds)
        np.testing.assert_array_equal(got.bounds, expected.bounds)
        np.testing.assert_array_equal(got.columns[n.number], expected.columns[plain.number])
        words = [n.word if word == "plain" else word for word in expected.columns[plain.text].tolist()]
        assert got.columns[n.text].tolist() == words
        # kept in a table and read from it, dealt by the column, described, and laid on the table's own land
        kept = quoted(n.schema, fit(name, "t"))
        got.to_table(db, kept)
        again = Tiles.from_table(db, kept)
        assert again.columns[n.text].tolist() == words
        np.testing.assert_array_equal(again.bounds, got.bounds)
        split = (
            tiles()
            .with_columns(**{n.text: [n.word, "other"] * (len(tiles()) // 2)})
            .split(by=n.text, train=0.5, val=0.5, gap=0)
        )
        assert {len(np.unique(part.columns[n.text])) for part in (split.train, split.val)} <= {0, 1}
        by_table = tiles().split(polygons=n.table(n.features), db=db, train=0.5, val=0.5, gap=0)
        twin_by_table = tiles().split(polygons=plain.table(plain.features), db=db, train=0.5, val=0.5, gap=0)
        np.testing.assert_array_equal(by_table.train.ids, twin_by_table.train.ids)
        assert by_table.proof(db, Labels(n.table(n.features))) == []
        shares = tiles().describe(db, {n.word: Labels(n.table(n.features))}).columns
        twins = tiles().describe(db, {"plain": Labels(plain.table(plain.features))}).columns
        np.testing.assert_array_equal(shares[n.word], twins["plain"])
        for what in (n.table(n.features), n.table(n.rasters)):
            twin_of = plain.table(plain.features if what == n.table(n.features) else plain.rasters)
            assert db.extent(what, 3857) == db.extent(twin_of, 3857)
            within, twins = (Tiles.random(GRID, within=one, db=db, count=5, min_coverage=0.1) for one in (what, twin_of))
            np.testing.assert_array_equal(within.bounds, twins.bounds)
        assert Grid.like(db, n.table(n.rasters)) == Grid.like(db, plain.table(plain.rasters))


@pytest.mark.parametrize("name", HOSTILE[::3], ids=range(0, len(HOSTILE), 3))
def test_they_are_checked_explained_and_baked(name, url, named, twin):
    n = named(name)
    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        chosen = {n.word: layers(n)["classes"], n.word + "i": layers(n)["native"]}
        dataset = TileDataset(db, tiles(), chosen)
        assert dataset.check()
        why = dataset.why(0)
        assert [one.layer for one in why.layers] == list(chosen)
        table = quoted(n.schema, fit(name, "b"))
        if len(fit(name, "b").encode()) > 57:
            with pytest.raises(PgtilesError, match="bytes"):
                bake(db, table, tiles(), chosen)
            return
        bake(db, table, tiles(), chosen)
        of, live = baked(db, table)
        got = read(db, of, live)
        np.testing.assert_array_equal(got[n.word], twin["classes"]["classes"])
        np.testing.assert_array_equal(got[n.word + "i"], twin["native"]["native"])


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "", "x" * 64, "ß" * 32, '"; DROP TABLE public.canary; --', "a b; DROP TABLE public.canary", "public.canary; DROP TABLE public.canary"])  # fmt: skip
def test_what_can_be_no_name_is_a_clean_error(name, url):
    raw = [name, quoted(name), f"public.{quoted(name)}"]
    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        twin = Names("", hostile=False)
        table = twin.table(twin.features)
        for wrong in (
            *(lambda text=text: db.table(text) for text in raw),
            *(lambda text=text, kind=kind: read(db, tiles(), {"m": kind(text)}) for text in raw for kind in (Labels, Imagery, Boxes)),
            *(lambda text=text: Tiles.query(db, GRID, text) for text in raw),
            *(lambda text=text: Tiles.random(GRID, within=text, db=db, count=1) for text in raw),
            lambda: read(db, tiles(), {"m": Labels(table, column=name)}),
            lambda: read(db, tiles(), {"m": Labels(table, value=name or "\0")}),
            lambda: read(db, tiles(), {"m": Labels(table, where=name or ";;")}),
            lambda: read(db, tiles(), {"m": Boxes(table, id=name or "no")}),
            lambda: read(db, tiles(), {"m": Imagery(twin.table(twin.rasters), column=name)}),
            lambda: read(db, tiles(), {"m": Imagery(twin.table(twin.rasters), time=TimeSeries(name, steps=1))}),
            lambda: tiles().with_columns(a=np.arange(len(tiles()))).split(by=name, train=1, val=1, gap=0),
        ):  # fmt: skip
            with pytest.raises(PgtilesError) as error:
                wrong()
            assert str(error.value)


@pytest.mark.parametrize("word", ["a\0b", "\ud800"])
def test_values_that_no_text_holds_are_a_clean_error_or_a_name(word, url, twin):
    n = Names("", hostile=False)
    with Database(url) as db, warnings.catch_warnings():
        warnings.simplefilter("ignore", PgtilesWarning)
        features = n.table(n.features)
        for run in (
            lambda: read(db, tiles(), {word: Labels(features)}),
            lambda: read(db, tiles(), {"m": Labels(features, classes={word: "true"})}),
            lambda: read(db, tiles(), {"m": Vectors({word: features})}),
            lambda: tiles().describe(db, {word: Labels(features)}),
            lambda: bake(db, "kept_word", tiles(), {word: Labels(features)}),
            lambda: bake(db, quoted(word), tiles(), {"m": Labels(features)}),
            lambda: tiles().with_columns(**{word: np.arange(len(tiles()))}).to_table(db, "kept_column"),
            lambda: tiles().with_columns(a=[word] * len(tiles())).to_table(db, "kept_value"),
            lambda: tiles().to_table(db, quoted(word)),
        ):
            with suppress(PgtilesError):
                run()
