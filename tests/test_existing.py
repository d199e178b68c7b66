"""Tables that are already there, as other programs and other people make them: each is read as it stands.

The programs are run by the tests. rasterio's windows of the file, and its rasterize of the geometries, say what is right. A
warning that nobody expects fails a test, as everywhere here.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psycopg
import pytest
import rasterio
import shapely
from conftest import ask, features, scene, shared, write_tiff
from existing_helpers import (
    burned,
    burned_metres,
    check_imagery,
    check_labels,
    keywords,
    ogr2ogr,
    osm2pgsql,
    random_tiles,
    raster2pgsql,
    run,
    shapes,
    tiles_on,
    warned,
    windows,
)
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rasterio.transform import Affine

from pgtiles import Database, Grid, Imagery, Labels, Tiles, read, samples
from pgtiles.errors import ConfigError, DatabaseError, DataError, MissingError, QueryError
from pgtiles.template import folder

HEIGHT, WIDTH = 320, 400
ROADS, AREAS = "SELECT way, 1 FROM base.roads", "SELECT way, class FROM base.areas"


@pytest.fixture(scope="module")
def there(template):
    """A database with tables of its own kinds, and another one of the same server for foreign tables to look at."""
    place = Path(tempfile.mkdtemp(prefix="pgtiles-test-"))
    place.chmod(0o755)  # the server reads the rasters that stay files
    tif = write_tiff(place / "s2.tif", scene(5, (3, HEIGHT, WIDTH)))
    tif.chmod(0o644)
    with shared(template, "pgtiles_existing") as here, shared(template, "pgtiles_elsewhere") as elsewhere:
        for url in (here, elsewhere):
            with psycopg.connect(url, autocommit=True) as conn:
                conn.execute((folder() / "init.sql").read_text())
                conn.execute(
                    "CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS postgres_fdw; CREATE SCHEMA base"
                )
                _base(conn)
        with Database(here) as db:
            yield SimpleNamespace(db=db, url=here, elsewhere=elsewhere, tif=tif, place=place)
    shutil.rmtree(place)


def _base(conn):
    """Roads and areas with keys, indexes and statistics: what the views, partitions and copies are made of."""
    found = features(7)
    for name, kind, geometries in (("roads", "LineString", found.lines), ("areas", "Geometry", found.areas)):
        conn.execute(f"CREATE TABLE base.{name} (id serial PRIMARY KEY, way geometry({kind}, 3857), class int)")
        conn.cursor().executemany(
            f"INSERT INTO base.{name} (way, class) VALUES (ST_GeomFromWKB(%s, 3857), %s)",
            [(geom.wkb, found.value(i)) for i, geom in enumerate(geometries)],
        )
        conn.execute(f"CREATE INDEX ON base.{name} USING gist (way); ANALYZE base.{name}")


@pytest.fixture
def db(there):
    """The database; what a test makes in its schema public or mine goes with the test."""
    do(there.db, "CREATE SCHEMA IF NOT EXISTS mine")
    yield there.db
    with there.db.connection() as conn:
        conn.execute("DROP SCHEMA mine CASCADE")


def do(db, statement):
    """Run what gives no rows."""
    with db.connection() as conn:
        conn.execute(statement)


class TestRaster2pgsql:
    """What raster2pgsql writes, by its options."""

    @pytest.mark.parametrize(
        "options",
        [
            "-s 3857 -t 100x100 -I",
            "-s 3857 -t 100x100 -I -C",
            "-s 3857 -t 100x100 -I -C -x",
            "-s 3857 -t 100x80 -I -C -r",
            "-t auto -I -M",
            "-s 3857 -I -C",
            "-s 3857 -t 90x90 -P -I -C",
            "-s 3857 -t 100x100 -I -C -N 0",
            "-s 3857 -t 100x100 -I -n source",
            "-s 3857 -t 100x100 -I -Y",
        ],
    )
    def test_as_written(self, db, there, options):
        raster2pgsql(there.url, *options.split(), there.tif, "mine.s2")
        check_imagery(db, "mine.s2", there.tif)

    def test_pixels_that_stay_in_their_file(self, db, there):
        if ask(db, sql.SQL("SELECT pg_stat_file({}, true)").format(str(there.tif))) == [(None,)]:
            pytest.skip("this server does not see the files of this machine")
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", "-C", "-R", there.tif, "mine.s2")
        assert ask(db, "SELECT DISTINCT (ST_BandMetaData(rast)).isoutdb FROM mine.s2") == [(True,)]
        check_imagery(db, "mine.s2", there.tif)

    @pytest.mark.parametrize("options", ["-t 100x100", "-t 100x100 -C", ""])
    def test_without_an_index_the_warning_cures_it(self, db, there, options):
        raster2pgsql(there.url, "-s", 3857, *options.split(), there.tif, "mine.s2")
        tiles = random_tiles(db, "mine.s2")
        (said,), got = warned(db, tiles, Imagery("mine.s2"))
        np.testing.assert_array_equal(got, windows(there.tif, tiles))
        assert "for want of an index" in said
        do(db, said[said.index("CREATE") :])
        check_imagery(db, "mine.s2", there.tif)

    def test_some_bands(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-b", "3,1", "-t", "100x100", "-I", "-C", there.tif, "mine.s2")
        check_imagery(db, "mine.s2", there.tif, path_bands=(3, 1))

    def test_another_column(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-f", "pixels", "-F", "-t", "100x100", "-I", "-C", there.tif, "mine.s2")
        check_imagery(db, "mine.s2", there.tif)
        check_imagery(db, "mine.s2", there.tif, column="pixels")

    def test_quoted_names(self, db, there):
        try:
            do(db, 'CREATE SCHEMA "My Imagery"')
            raster2pgsql(there.url, "-s", 3857, "-q", "-f", "The Rast", "-t", "100x100", "-I", there.tif, "My Imagery.S2 2020")
            check_imagery(db, '"My Imagery"."S2 2020"', there.tif)
            raster2pgsql(there.url, "-s", 3857, "-q", "-t", "100x100", "-I", "-C", there.tif, "My Imagery.S2")
            check_imagery(db, '"My Imagery"."S2"', there.tif)
        finally:
            do(db, 'DROP SCHEMA IF EXISTS "My Imagery" CASCADE')

    def test_overviews(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", "-C", "-l", "2,4", there.tif, "mine.s2")
        check_imagery(db, "mine.s2", there.tif)
        for factor in (2, 4):
            with rasterio.open(there.tif) as file:
                shape = (file.count, file.height // factor, file.width // factor)
                small = file.read(out_shape=shape, resampling=rasterio.enums.Resampling.nearest)
                transform = file.transform * Affine.scale(factor)
            overview = write_tiff(there.place / f"o_{factor}.tif", small, transform=transform)
            assert Grid.like(db, f"mine.o_{factor}_s2").pixel == (2.5 * factor, 2.5 * factor)
            check_imagery(db, f"mine.o_{factor}_s2", overview)

    def test_several_raster_columns(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", "-C", there.tif, "mine.s2")
        do(db, "ALTER TABLE mine.s2 ADD COLUMN infrared raster; UPDATE mine.s2 SET infrared = ST_Band(rast, 2)")
        do(db, "VACUUM FULL mine.s2")  # an index on what was just updated would not serve everybody at once
        with pytest.raises(ConfigError, match=r"2 raster columns, rast, infrared: say which with column="):
            read(db, random_tiles(db, "mine.s2", "rast"), {"image": Imagery("mine.s2")})
        check_imagery(db, "mine.s2", there.tif, column="rast")
        tiles = random_tiles(db, "mine.s2", "infrared")
        (said,), got = warned(db, tiles, Imagery("mine.s2", column="infrared"))
        np.testing.assert_array_equal(got, windows(there.tif, tiles, (2,)))
        do(db, said[said.index("CREATE") :])  # the index is on the other column
        check_imagery(db, "mine.s2", there.tif, column="infrared", path_bands=(2,))

    def test_a_file_that_stands_on_its_head(self, db, there):
        pixels = scene(6, (1, 90, 110))
        south_up = write_tiff(there.place / "up.tif", pixels[:, ::-1], transform=Affine(10, 0, 500_000, 0, 10, 4_000_000))
        raster2pgsql(there.url, "-s", 3857, "-t", "50x50", "-I", "-C", south_up, "mine.up")
        with pytest.raises(DataError, match=r"mine\.up\.rast is not north-up .*give the Grid yourself"):
            Grid.like(db, "mine.up")
        tiles = Tiles(Grid(srid=3857, resolution=10, size=(90, 110), origin=(500_000, 4_000_900)), np.array([0]), np.array([0]))
        got = read(db, tiles, {"image": Imagery("mine.up", resampling="nearest")})["image"]
        np.testing.assert_array_equal(got[0], pixels)

    def test_without_an_srid(self, db, there):
        nowhere = write_tiff(there.place / "nowhere.tif", scene(6, (1, 90, 110)), crs=None)
        raster2pgsql(there.url, "-t", "50x50", "-I", nowhere, "mine.s2")
        with pytest.raises(DataError, match="UpdateRasterSRID") as caught:
            Grid.like(db, "mine.s2")
        do(db, re.search(r"SELECT UpdateRasterSRID\(.*\)", str(caught.value))[0].replace("<srid>", "3857"))
        check_imagery(db, "mine.s2", nowhere)

    def test_by_a_query(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", "-F", there.tif, "mine.s2")
        tiles = random_tiles(db, "mine.s2")
        query = "SELECT rast FROM mine.s2 WHERE filename = 's2.tif' AND ST_ConvexHull(rast) && tile.geom"
        np.testing.assert_array_equal(read(db, tiles, {"i": Imagery(query)})["i"], windows(there.tif, tiles))

    def test_two_files_appended(self, db, there):
        """-a, with the first file's columns, and an overlap in which the row that came first lies on top."""
        with rasterio.open(there.tif) as file:
            right = write_tiff(
                there.place / "right.tif", scene(8, (3, 100, 100)), transform=file.transform * Affine.translation(350, 40)
            )
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", there.tif, "mine.s2")
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-a", right, "mine.s2")
        tiles = random_tiles(db, "mine.s2", count=30)
        got = read(db, tiles, {"i": Imagery("mine.s2")})["i"]
        whole = np.zeros((3, HEIGHT, 450), "uint8")
        whole[:, 40:140, 350:] = rasterio.open(right).read()
        whole[:, :, :400] = rasterio.open(there.tif).read()
        joined = write_tiff(there.place / "joined.tif", whole)
        np.testing.assert_array_equal(got, windows(joined, tiles))


@pytest.fixture(scope="module")
def classic(there):
    osm2pgsql(there.url, "--create", "--hstore", samples.helsinki())


@pytest.fixture(scope="module")
def flex(there):
    style = there.place / "style.lua"
    style.write_text(STYLE)
    with there.db.connection() as conn:
        conn.execute('CREATE SCHEMA flex; CREATE SCHEMA "Flex Style"')
    osm2pgsql(there.url, "--create", "--output=flex", "--style", style, samples.helsinki())


class TestOsm2pgsql:
    """The extract of Helsinki, as osm2pgsql writes it."""

    @pytest.mark.usefixtures("classic")
    def test_classic_lines_in_metres(self, there):
        where = "highway IS NOT NULL AND tags->'lanes' IS NOT NULL"
        found = shapes(there.db, f"SELECT way, 1 FROM planet_osm_line WHERE {where}")
        tiles = tiles_on(found, resolution=1.5)
        got = read(there.db, tiles, {"mask": Labels("planet_osm_line", where=where, buffer=6)})["mask"]
        assert got.any(axis=(1, 2)).all()
        np.testing.assert_array_equal(got, burned_metres(found, tiles, 6))

    @pytest.mark.usefixtures("classic")
    @pytest.mark.parametrize(
        "table, where",
        [
            ("planet_osm_polygon", "building IS NOT NULL"),
            ("planet_osm_roads", None),
            ("planet_osm_point", "\"natural\" = 'tree' OR tags ? 'name'"),
        ],
    )
    def test_classic_tables(self, there, table, where):
        found = shapes(there.db, f"SELECT way, 1 FROM {table} WHERE {where or 'true'}")
        check_labels(there.db, table, found, where=where)

    @pytest.mark.usefixtures("classic")
    def test_classic_by_a_query(self, there):
        found = [
            (g.buffer(6, quad_segs=8), v) for g, v in shapes(there.db, "SELECT way, 1 FROM planet_osm_line WHERE highway <> ''")
        ]
        check_labels(
            there.db, "SELECT ST_Buffer(way, 6) AS geom FROM planet_osm_line WHERE highway <> '' AND ST_DWithin(way, tile.geom, 6)",
            found,
        )  # fmt: skip

    @pytest.mark.usefixtures("flex")
    @pytest.mark.parametrize(
        "table, column, options",
        [
            ("flex.streets", "geom", {"value": "lanes"}),
            ('"Flex Style"."Buildings"', "outline", {}),  # in EPSG:4326
            ("flex.landuse", "area", {"column": "area"}),
        ],
    )
    def test_flex_tables(self, there, table, column, options):
        found = shapes(there.db, f"SELECT ST_Transform({column}, 3857), {options.get('value', 1)} FROM {table}")
        check_labels(there.db, table, found, **options)

    @pytest.mark.usefixtures("flex")
    def test_flex_with_two_geometry_columns(self, there):
        with pytest.raises(ConfigError, match=r"flex\.landuse has 2 geometry columns, area, middle: say which with column="):
            read(there.db, tiles_on([(shapely.Point(0, 0), 1)]), {"mask": Labels("flex.landuse")})
        found = shapes(there.db, "SELECT ST_Transform(middle, 3857), 1 FROM flex.landuse")
        tiles = tiles_on(found)
        (said,), got = warned(there.db, tiles, Labels("flex.landuse", column="middle"))
        np.testing.assert_array_equal(got, burned(found, tiles))
        assert 'CREATE INDEX ON "flex"."landuse" USING gist ("middle")' in said  # osm2pgsql makes it for the first one
        do(there.db, said[said.index("CREATE") :])
        check_labels(there.db, "flex.landuse", found, column="middle")

    @pytest.mark.usefixtures("flex")
    def test_flex_by_a_query_in_its_srid(self, there):
        found = shapes(there.db, 'SELECT ST_Transform(outline, 3857), 1 FROM "Flex Style"."Buildings"')
        query = 'SELECT outline AS geom FROM "Flex Style"."Buildings" WHERE outline && tile.geom'
        check_labels(there.db, query, found, srid=4326)
        with pytest.raises(QueryError, match=r"Flex Style\.Buildings\.outline is in SRID 4326.*srid=4326"):
            read(there.db, tiles_on(found), {"mask": Labels(query)})


STYLE = """
local streets = osm2pgsql.define_way_table('streets', {
    { column = 'class', type = 'text' },
    { column = 'lanes', type = 'int', not_null = true },
    { column = 'geom', type = 'linestring', projection = 3857, not_null = true },
}, { schema = 'flex' })

local buildings = osm2pgsql.define_area_table('Buildings', {
    { column = 'tags', type = 'jsonb' },
    { column = 'outline', type = 'geometry', projection = 4326 },
}, { schema = 'Flex Style' })

local landuse = osm2pgsql.define_table({
    name = 'landuse', schema = 'flex', ids = { type = 'any', id_column = 'osm_id' },
    columns = {
        { column = 'kind', type = 'text' },
        { column = 'area', type = 'polygon', projection = 3857 },
        { column = 'middle', type = 'point', projection = 4326 },
    }
})

function osm2pgsql.process_way(object)
    if object.tags.highway and not object.is_closed then
        streets:insert({ class = object.tags.highway, lanes = tonumber(object.tags.lanes) or 2, geom = object:as_linestring() })
    end
    if object.is_closed and object.tags.building then
        buildings:insert({ tags = object.tags, outline = object:as_polygon() })
    end
    if object.is_closed and (object.tags.landuse or object.tags.leisure) then
        local area = object:as_polygon()
        landuse:insert({ kind = object.tags.landuse, area = area, middle = area:centroid() })
    end
end

function osm2pgsql.process_relation(object)
    if object.tags.type == 'multipolygon' and object.tags.building then
        buildings:insert({ tags = object.tags, outline = object:as_multipolygon() })
    end
end
"""


@pytest.fixture(scope="module")
def source(there):
    """The file, and the shapes with the class that each burns, the ones on top last."""
    found = features(9)
    shapes = [(geom, found.value(i)) for i, geom in enumerate(found.areas)]
    path = there.place / "areas.geojson"
    listed = [
        {"type": "Feature", "properties": {"Class": value, "name": f"n° {value}"}, "geometry": shapely.geometry.mapping(geom)}
        for geom, value in shapes
    ]
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}
    path.write_text(json.dumps({"type": "FeatureCollection", "crs": crs, "features": listed}))
    return SimpleNamespace(path=path, shapes=sorted(shapes, key=lambda shape: shape[1]))


class TestOgr2ogr:
    """A GeoJSON file in EPSG:3857, as ogr2ogr writes it into PostgreSQL."""

    @pytest.mark.parametrize(
        "options, table",
        [
            ("-nln mine.areas", "mine.areas"),
            ("-nln mine.areas -lco GEOMETRY_NAME=geom -lco FID=gid -nlt PROMOTE_TO_MULTI", "mine.areas"),
            ("-nln mine.areas -dim XYZ -nlt GEOMETRYZ", "mine.areas"),
            ("-nln mine.areas -lco DIM=3 -nlt PROMOTE_TO_MULTI -lco UNLOGGED=ON", "mine.areas"),
            ("-nln mine.areas -lco SPATIAL_INDEX=SPGIST", "mine.areas"),
            ("-nln mine.areas -lco SPATIAL_INDEX=BRIN", "mine.areas"),
        ],
    )
    def test_as_written(self, db, there, source, options, table):
        ogr2ogr(there.url, source.path, *options.split())
        check_labels(db, table, source.shapes, value="class")

    def test_names_as_they_are(self, db, there, source):
        try:
            do(db, 'CREATE SCHEMA "My Maps"')
            ogr2ogr(
                there.url, source.path, "-lco", "LAUNDER=NO", "-lco", "SCHEMA=My Maps", "-nln", "Areas of 2020",
                "-lco", "GEOMETRY_NAME=The Geom",
            )  # fmt: skip
            check_labels(db, '"My Maps"."Areas of 2020"', source.shapes, value="Class")
            query = 'SELECT "The Geom" AS geom, "Class" AS value FROM "My Maps"."Areas of 2020" WHERE "The Geom" && tile.geom'
            check_labels(db, query, source.shapes)
        finally:
            do(db, 'DROP SCHEMA IF EXISTS "My Maps" CASCADE')

    def test_a_crs_without_a_number(self, db, there, source):
        """ogr2ogr gives it an SRID of its own; the tiles may be in it, or in another one."""
        ours = "+proj=aea +lat_1=43 +lat_2=62 +lat_0=30 +lon_0=10 +ellps=intl +units=m +no_defs"
        ogr2ogr(there.url, source.path, "-t_srs", ours, "-nln", "mine.areas")
        ((srid,),) = ask(db, "SELECT DISTINCT ST_SRID(wkb_geometry) FROM mine.areas")
        assert srid > 900_000
        found = shapes(db, "SELECT wkb_geometry, class FROM mine.areas")
        tiles = tiles_on(found, srid=srid)
        np.testing.assert_array_equal(read(db, tiles, {"m": Labels("mine.areas", value="class")})["m"], burned(found, tiles))
        check_labels(
            db, "mine.areas", shapes(db, "SELECT ST_Transform(wkb_geometry, 3857), class FROM mine.areas"), value="class"
        )

    def test_geography(self, db, there, source):
        ogr2ogr(there.url, source.path, "-t_srs", "EPSG:4326", "-lco", "GEOM_TYPE=geography", "-nln", "mine.areas")
        found = shapes(db, "SELECT ST_Transform(the_geog::geometry, 3857), class FROM mine.areas")
        check_labels(db, "mine.areas", found, value="class")
        query = "SELECT the_geog AS geom, class AS value FROM mine.areas WHERE the_geog && tile.geom"
        check_labels(db, query, found, srid=4326)

    def test_without_an_index_the_warning_cures_it(self, db, there, source):
        ogr2ogr(there.url, source.path, "-nln", "mine.areas", "-lco", "SPATIAL_INDEX=NONE")
        tiles = tiles_on(source.shapes)
        (said,), got = warned(db, tiles, Labels("mine.areas", value="class"))
        np.testing.assert_array_equal(got, burned(source.shapes, tiles))
        do(db, said[said.index("CREATE") :])
        check_labels(db, "mine.areas", source.shapes, value="class")


class TestQGIS:
    """What QGIS writes with "Export to PostgreSQL", run without a screen."""

    def test_exported(self, db, there):
        python = "/usr/bin/python3"
        if subprocess.run([python, "-c", "import qgis.core"], capture_output=True, check=False).returncode:
            pytest.skip("QGIS is not installed: apt-get install --no-install-recommends python3-qgis (0.9 GB)")
        found = features(9)
        lines = [(geom, found.value(i)) for i, geom in enumerate(found.lines)]
        path = there.place / "lines.csv"
        path.write_text(
            "class;wkt\n" + "".join(f"{value};{shapely.to_wkt(geom, rounding_precision=-1)}\n" for geom, value in lines)
        )
        run(python, "-c", EXPORT, path, keywords(there.url), env=os.environ | {"QT_QPA_PLATFORM": "offscreen"})
        lines = sorted(lines, key=lambda line: line[1])
        check_labels(db, "mine.lines", lines, value="class")
        tiles = tiles_on(lines)
        (said,), got = warned(db, tiles, Labels('mine."Lines of QGIS"', value="class"))
        np.testing.assert_array_equal(got, burned(lines, tiles))
        do(db, said[said.index("CREATE") :])  # without that box there is no index
        check_labels(db, 'mine."Lines of QGIS"', lines, value="class")


EXPORT = """
import sys
from qgis.core import QgsAbstractDatabaseProviderConnection, QgsApplication, QgsCoordinateReferenceSystem
from qgis.core import QgsDataSourceUri, QgsProviderRegistry, QgsVectorLayer, QgsVectorLayerExporter
path, server = sys.argv[1:]
QgsApplication.setPrefixPath("/usr", True)
application = QgsApplication([], False)
application.initQgis()
layer = QgsVectorLayer(f"file://{path}?delimiter=;&wktField=wkt&crs=EPSG:3857&detectTypes=yes", "lines", "delimitedtext")
assert layer.isValid() and layer.featureCount() > 0, layer.error().message()
for table, key, column, options in (
    ("lines", "id", "geom", {"lowercaseFieldNames": True}),
    ("Lines of QGIS", "", "The Geom", {}),
):
    uri = QgsDataSourceUri(server)
    uri.setDataSource("mine", table, column, "", key)
    crs = QgsCoordinateReferenceSystem("EPSG:3857")
    code, said = QgsVectorLayerExporter.exportLayer(layer, uri.uri(False), "postgres", crs, False, options)
    assert code == 0, said
    if table == "lines":  # the box "create spatial index"
        index = QgsAbstractDatabaseProviderConnection.SpatialIndexOptions()
        index.geometryColumnName = column
        connection = QgsProviderRegistry.instance().providerMetadata("postgres").createConnection(uri.uri(False), {})
        connection.createSpatialIndex("mine", table, index)
application.exitQgis()
"""


class TestImposm:
    def test_its_documented_schema(self, db):
        """No Debian package has imposm: this table is made by hand, after its documentation and example mapping."""
        do(db, 'CREATE TABLE mine."osm_roads" (id SERIAL PRIMARY KEY, "osm_id" BIGINT, "type" VARCHAR, "name" VARCHAR, '
                        '"tunnel" SMALLINT, "bridge" SMALLINT, "oneway" SMALLINT, "z_order" INT)')  # fmt: skip
        ask(db, "SELECT AddGeometryColumn('mine', 'osm_roads', 'geometry', '3857', 'LINESTRING', 2)")
        do(db, """
            INSERT INTO mine.osm_roads (osm_id, type, name, tunnel, bridge, oneway, z_order, geometry)
            SELECT -id, CASE class WHEN 1 THEN 'primary' ELSE 'residential' END, '', class / 4, 0, 0, class, way FROM base.roads
        """)  # fmt: skip
        do(db, 'CREATE INDEX "osm_roads_geom" ON mine."osm_roads" USING GIST ("geometry")')
        found = shapes(db, "SELECT way, class FROM base.roads WHERE class < 4")
        check_labels(db, "mine.osm_roads", found, value="z_order", where="tunnel = 0")
        query = "SELECT geometry AS geom, z_order AS value FROM mine.osm_roads WHERE tunnel = 0 AND geometry && tile.geom"
        check_labels(db, query, found)


class TestKinds:
    """Tables, views and whatever else may stand in a FROM, over the same geometries."""

    @pytest.fixture(scope="class")
    @classmethod
    def roads(cls, there):
        return shapes(there.db, ROADS)

    @pytest.mark.parametrize(
        "made",
        [
            "CREATE VIEW mine.t AS SELECT * FROM base.roads",
            "CREATE VIEW mine.inner AS SELECT way AS g FROM base.roads; CREATE VIEW mine.t AS SELECT g AS the_geom FROM mine.inner",
            "CREATE MATERIALIZED VIEW mine.t AS SELECT * FROM base.roads; CREATE INDEX ON mine.t USING gist (way)",
            "CREATE TABLE mine.t AS SELECT * FROM base.roads; CREATE INDEX ON mine.t USING gist (way)",  # no key, not analysed
            "CREATE UNLOGGED TABLE mine.t AS SELECT way::geometry FROM base.roads; CREATE INDEX ON mine.t USING gist (way)",
            # an old table, its SRID held by a constraint only
            "CREATE TABLE mine.t (way geometry, CONSTRAINT enforce_srid_way CHECK (ST_SRID(way) = 3857)); "
            "INSERT INTO mine.t SELECT way FROM base.roads; CREATE INDEX ON mine.t USING gist (way)",
            "CREATE TABLE mine.t (x float8, flat geometry(LineString, 3857) GENERATED ALWAYS AS (ST_GeomFromEWKB(raw)) STORED, "
            "raw bytea); INSERT INTO mine.t (raw) SELECT ST_AsEWKB(way) FROM base.roads; CREATE INDEX ON mine.t USING gist (flat)",
            # a domain over a domain
            "CREATE DOMAIN mine.line AS geometry(LineString, 3857); CREATE DOMAIN mine.road AS mine.line CHECK (ST_IsValid(VALUE)); "
            "CREATE TABLE mine.t (id int, way mine.road); INSERT INTO mine.t SELECT id, way FROM base.roads; "
            "CREATE INDEX ON mine.t USING gist (way)",
            # by range, by list and by default, the index on the parent
            "CREATE TABLE mine.t (id int, way geometry(LineString, 3857)) PARTITION BY RANGE (id); "
            "CREATE TABLE mine.t1 PARTITION OF mine.t FOR VALUES FROM (0) TO (5) PARTITION BY LIST (id); "
            "CREATE TABLE mine.t1a PARTITION OF mine.t1 FOR VALUES IN (1, 2); CREATE TABLE mine.t1b PARTITION OF mine.t1 DEFAULT; "
            "CREATE TABLE mine.t2 PARTITION OF mine.t FOR VALUES FROM (5) TO (150); CREATE TABLE mine.t3 PARTITION OF mine.t DEFAULT; "
            "CREATE TABLE mine.t4 PARTITION OF mine.t FOR VALUES FROM (100000) TO (200000); "  # stays empty
            "INSERT INTO mine.t SELECT id, way FROM base.roads; CREATE INDEX ON mine.t USING gist (way)",
            # inherited: the index of each
            "CREATE TABLE mine.t (id int, way geometry); CREATE TABLE mine.old (closed date) INHERITS (mine.t); "
            "INSERT INTO mine.t SELECT id, way FROM base.roads WHERE id < 90; "
            "INSERT INTO mine.old SELECT id, way FROM base.roads WHERE id >= 90; "
            "CREATE INDEX ON mine.t USING gist (way); CREATE INDEX ON mine.old USING gist (way)",
        ],
    )
    def test_geometries(self, db, roads, made):
        do(db, made)
        check_labels(db, "mine.t", roads)
        column = db.table("mine.t").column("geometry")
        check_labels(db, f"SELECT {column} AS geom FROM mine.t WHERE {column} && tile.geom", roads)

    def test_a_view_that_moves_its_geometries(self, db, roads):
        """Its own SRID counts, not that of the table below; an index on the same expression serves it."""
        do(db, "CREATE TABLE mine.t AS SELECT * FROM base.roads; CREATE INDEX ON mine.t USING gist (way)")
        do(db, "CREATE VIEW mine.v AS SELECT id, ST_Transform(way, 4326) AS way FROM mine.t")
        found, tiles = shapes(db, "SELECT ST_Transform(way, 3857), 1 FROM mine.v"), tiles_on(roads)
        (said,), got = warned(db, tiles, Labels("mine.v"))
        np.testing.assert_array_equal(got, burned(found, tiles))
        assert "mine.t is read from end to end although it has an index" in said
        assert "a function around it, in a view's definition too, hides it" in said
        do(db, "CREATE INDEX ON mine.t USING gist (ST_Transform(way, 4326))")
        check_labels(db, "mine.v", found)
        check_labels(db, "SELECT way AS geom FROM mine.v WHERE way && tile.geom", found, srid=4326)

    def test_srid_zero(self, db, roads):
        """Each kind has a cure of its own, and the one that the error names works."""
        do(db, "CREATE TABLE mine.t AS SELECT id, ST_SetSRID(way, 0) AS way FROM base.roads; CREATE VIEW mine.v AS TABLE mine.t; "
                        "CREATE MATERIALIZED VIEW mine.m AS TABLE mine.t")  # fmt: skip
        tiles = tiles_on(roads)
        for view in ("mine.v", "mine.m"):
            with pytest.raises(
                DataError, match=rf"{view}\.way has SRID 0, .*in its definition, .*ST_SetSRID\(\"way\", <srid>\)"
            ):
                read(db, tiles, {"mask": Labels(view)})
        do(db, "CREATE INDEX ON mine.t USING gist (ST_SetSRID(way, 3857))")
        do(db, "CREATE VIEW mine.cured AS SELECT id, ST_SetSRID(way, 3857) AS way FROM mine.t")
        check_labels(db, "mine.cured", roads)
        check_labels(db, "SELECT ST_SetSRID(way, 3857) AS geom FROM mine.v WHERE ST_SetSRID(way, 3857) && tile.geom", roads)
        do(db, "DROP VIEW mine.v, mine.cured; DROP MATERIALIZED VIEW mine.m")
        with pytest.raises(DataError, match="UpdateGeometrySRID") as caught:
            read(db, tiles, {"mask": Labels("mine.t")})
        ask(db, re.search(r"SELECT UpdateGeometrySRID\(.*\)", str(caught.value))[0].replace("<srid>", "3857"))
        do(db, "CREATE INDEX ON mine.t USING gist (way)")
        check_labels(db, "mine.t", roads)

    @pytest.mark.parametrize(
        "made",
        [
            "CREATE MATERIALIZED VIEW mine.t AS SELECT * FROM base.roads",
            "CREATE TABLE mine.below AS SELECT * FROM base.roads; CREATE VIEW mine.t AS SELECT id, way FROM mine.below",
            "CREATE TABLE mine.t (id int, way geometry(LineString, 3857)) PARTITION BY LIST (id); "
            "CREATE TABLE mine.t1 PARTITION OF mine.t FOR VALUES IN (1, 2, 3); CREATE TABLE mine.t2 PARTITION OF mine.t DEFAULT; "
            "INSERT INTO mine.t SELECT id, way FROM base.roads",
            # an index on some of the rows serves some of the queries
            "CREATE TABLE mine.t AS SELECT * FROM base.roads; CREATE INDEX ON mine.t USING gist (way) WHERE class = 1",
            # an index with the column's name in its own
            "CREATE TABLE mine.t AS SELECT id, way AS id_of, way FROM base.roads; ALTER TABLE mine.t DROP id_of; "
            "ALTER TABLE mine.t ADD shape point; CREATE INDEX t_way ON mine.t USING gist (shape)",
        ],
    )
    def test_without_an_index_one_warning_cures_it(self, db, roads, made):
        do(db, made)
        tiles = tiles_on(roads)
        (said,), got = warned(db, tiles, Labels("mine.t"))
        np.testing.assert_array_equal(got, burned(roads, tiles))
        assert "for want of an index" in said
        do(db, said[said.index("CREATE") :])
        check_labels(db, "mine.t", roads)

    def test_a_geometry_and_another_one_in_another_srid(self, db, roads):
        do(db, "CREATE TABLE mine.t AS SELECT ST_Transform(way, 4326)::geometry(LineString, 4326) AS geom, way FROM base.roads")
        do(db, "CREATE INDEX ON mine.t USING gist (geom); CREATE INDEX ON mine.t USING gist (way)")
        check_labels(db, "mine.t", roads, column="way")
        check_labels(db, "SELECT way AS geom FROM mine.t WHERE way && tile.geom", roads)
        check_labels(db, "mine.t", shapes(db, "SELECT ST_Transform(geom, 3857), 1 FROM mine.t"), column="geom")

    def test_a_geography_beside_a_geometry(self, db, roads):
        do(db, "CREATE TABLE mine.t AS SELECT way, ST_Transform(way, 4326)::geography AS geog FROM base.roads; "
                        "CREATE INDEX ON mine.t USING gist (geog); CREATE INDEX ON mine.t USING gist (way)")  # fmt: skip
        with pytest.raises(ConfigError, match=r"2 geometry columns, way, geog: say which with column="):
            read(db, tiles_on(roads), {"mask": Labels("mine.t")})
        check_labels(db, "mine.t", roads, column="way")
        check_labels(db, "mine.t", shapes(db, "SELECT ST_Transform(geog::geometry, 3857), 1 FROM mine.t"), column="geog")

    @pytest.mark.parametrize(
        "name", ["a.b", "with blank", 'with "quotes" in it', "it's", "Straße Ä", "UPPER", "x" * 63, "select", "ñandú"]
    )
    def test_names(self, db, roads, name):
        """As schema, table and columns, of geometry and value."""
        quoted = '"' + name.replace('"', '""') + '"'
        try:
            do(
                db,
                f"CREATE SCHEMA {quoted}; CREATE TABLE {quoted}.{quoted} AS SELECT way AS {quoted}, 2 AS value FROM base.roads",
            )
            tiles, table = tiles_on(roads), f"{quoted}.{quoted}"
            want = burned([(geom, 2) for geom, _ in roads], tiles)
            (said,), got = warned(db, tiles, Labels(table, value="value"))
            np.testing.assert_array_equal(got, want)
            do(db, said[said.index("CREATE") :])
            np.testing.assert_array_equal(read(db, tiles, {"m": Labels(table, value="value")})["m"], want)
            query = f"SELECT {quoted} AS geom, value FROM {table} WHERE {quoted} && tile.geom"
            np.testing.assert_array_equal(read(db, tiles, {"m": Labels(query)})["m"], want)
            with pytest.raises(QueryError, match="SRID 3857"):
                read(db, tiles, {"m": Labels(query, srid=4326)})
        finally:
            do(db, f"DROP SCHEMA IF EXISTS {quoted} CASCADE")

    def test_names_are_folded_as_postgresql_folds_them(self, db, roads):
        do(
            db,
            "CREATE TABLE mine.STRASSENÄSTE AS SELECT way FROM base.roads; CREATE INDEX ON mine.STRASSENÄSTE USING gist (way)",
        )
        check_labels(db, "mine.StrassenÄste", roads)

    def test_a_name_that_is_too_long(self, db, roads):
        """PostgreSQL cuts it off and says so; that is no notice of wrong pixels."""
        do(db, f"CREATE TABLE mine.{'x' * 63} AS TABLE base.roads; CREATE INDEX ON mine.{'x' * 63} USING gist (way)")
        check_labels(db, f"mine.{'x' * 70}", roads)
        tiles = tiles_on(roads)
        said, got = warned(db, tiles, Labels(f"SELECT way AS geom FROM mine.{'x' * 70} WHERE way && tile.geom"))
        np.testing.assert_array_equal(got, burned(roads, tiles))
        assert said
        assert all("will be truncated to" in each for each in said)

    def test_an_empty_table(self, db, roads):
        tiles = tiles_on(roads)
        do(db, "CREATE TABLE mine.t (id int, way geometry(LineString, 3857)); CREATE INDEX ON mine.t USING gist (way)")
        assert not read(db, tiles, {"m": Labels("mine.t", buffer=6)})["m"].any()
        do(db, "CREATE TABLE mine.bare (id int, way geometry); CREATE INDEX ON mine.bare USING gist (way)")
        assert not read(db, tiles, {"m": Labels("SELECT way AS geom FROM mine.bare WHERE way && tile.geom")})["m"].any()
        with pytest.raises(DataError, match=r"mine\.bare\.way is empty and declares no SRID.*UpdateGeometrySRID"):
            read(db, tiles, {"m": Labels("mine.bare")})
        do(db, "CREATE TABLE mine.r (rid int, rast raster)")
        with pytest.raises(DataError, match=r"mine\.r\.rast holds no raster"):
            read(db, tiles, {"i": Imagery("mine.r")})


class TestKindsOfImagery:
    @pytest.mark.parametrize(
        "made",
        [
            "CREATE VIEW mine.t AS SELECT rid, rast FROM mine.s2",
            "CREATE MATERIALIZED VIEW mine.t AS SELECT * FROM mine.s2; CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast))",
            "CREATE TABLE mine.t (rid int, rast raster) PARTITION BY HASH (rid); "
            "CREATE TABLE mine.t0 PARTITION OF mine.t FOR VALUES WITH (MODULUS 2, REMAINDER 0); "
            "CREATE TABLE mine.t1 PARTITION OF mine.t FOR VALUES WITH (MODULUS 2, REMAINDER 1); "
            "INSERT INTO mine.t SELECT * FROM mine.s2; CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast))",
            "CREATE TABLE mine.t (rid int, rast raster, acquired date, PRIMARY KEY (rid, acquired)) PARTITION BY RANGE (acquired); "
            "CREATE TABLE mine.t0 PARTITION OF mine.t FOR VALUES FROM ('2019-01-01') TO ('2020-01-01'); "
            "CREATE TABLE mine.t1 PARTITION OF mine.t FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); "
            "INSERT INTO mine.t SELECT rid, rast, date '2019-12-29' + rid FROM mine.s2; "
            "CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast))",
            "CREATE TABLE mine.t (rid int, rast raster); CREATE TABLE mine.more () INHERITS (mine.t); "
            "INSERT INTO mine.t SELECT * FROM mine.s2 WHERE rid < 7; INSERT INTO mine.more SELECT * FROM mine.s2 WHERE rid >= 7; "
            "CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast)); CREATE INDEX ON mine.more USING gist (ST_ConvexHull(rast))",
            "CREATE DOMAIN mine.image AS raster CHECK (ST_NumBands(VALUE) = 3); CREATE TABLE mine.t (rid int, rast mine.image); "
            "INSERT INTO mine.t SELECT * FROM mine.s2; CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast))",
            "CREATE TABLE mine.t AS SELECT rid, ST_ConvexHull(rast) AS footprint, rast FROM mine.s2; "
            "CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast)); CREATE INDEX ON mine.t USING gist (footprint)",
        ],
    )
    def test_imagery(self, db, there, made):
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", "-C", there.tif, "mine.s2")
        do(db, made)
        check_imagery(db, "mine.t", there.tif)
        tiles = random_tiles(db, "mine.t")
        query = "SELECT rast FROM mine.t WHERE ST_ConvexHull(rast) && tile.geom"
        np.testing.assert_array_equal(read(db, tiles, {"i": Imagery(query)})["i"], windows(there.tif, tiles))

    def test_labels_by_their_column(self, db, there):
        """A table with a geometry and a raster: column= says which."""
        raster2pgsql(there.url, "-s", 3857, "-b", 1, "-t", "100x100", "-I", there.tif, "mine.s2")
        do(db, "CREATE TABLE mine.t AS SELECT rid, rast, ST_ConvexHull(rast) AS footprint FROM mine.s2; "
               "CREATE INDEX ON mine.t USING gist (footprint); CREATE INDEX ON mine.t USING gist (ST_ConvexHull(rast))")  # fmt: skip
        tiles = random_tiles(db, "mine.t")
        got = read(db, tiles, {"burned": Labels("mine.t", column="footprint"), "pixels": Labels("mine.t", column="rast")})
        assert (got["burned"] == 1).all()
        np.testing.assert_array_equal(got["pixels"], windows(there.tif, tiles, (1,))[:, 0])

    def test_srid_zero_in_a_view(self, db, there):
        raster2pgsql(there.url, "-s", 3857, "-t", "100x100", "-I", there.tif, "mine.s2")
        do(db, "CREATE VIEW mine.v AS SELECT rid, ST_SetSRID(rast, 0) AS rast FROM mine.s2")
        with pytest.raises(DataError, match=r"mine\.v\.rast has SRID 0.*in its definition.*ST_SetSRID\(\"rast\", <srid>\)"):
            Grid.like(db, "mine.v")


@pytest.fixture
def abroad(there, db):
    """The other database's tables, as postgres_fdw shows them in the schema mine."""
    known = conninfo_to_dict(there.elsewhere)
    password = {"password": known["password"]} if "password" in known else {}
    listed = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(k), v) for k, v in ({"user": known["user"]} | password).items()
    )
    do(db, "DROP SERVER IF EXISTS elsewhere CASCADE")
    do(db, sql.SQL("CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host {}, port {}, dbname {})").format(
        known["host"], str(known.get("port", 5432)), known["dbname"]))  # fmt: skip
    do(db, sql.SQL("CREATE USER MAPPING FOR CURRENT_USER SERVER elsewhere OPTIONS ({})").format(listed))
    do(db, "IMPORT FOREIGN SCHEMA base FROM SERVER elsewhere INTO mine")
    yield
    db.close()  # and with it what postgres_fdw keeps open
    do(db, "DROP SERVER elsewhere CASCADE")


@pytest.mark.usefixtures("abroad")
class TestForeign:
    """postgres_fdw, to another database of the same server."""

    def test_geometries(self, db):
        found = shapes(db, ROADS)
        tiles = tiles_on(found)
        (said,), got = warned(db, tiles, Labels("mine.roads"))
        np.testing.assert_array_equal(got, burned(found, tiles))
        assert "all of mine.roads is fetched from the server elsewhere" in said
        do(db, re.search(r"ALTER SERVER .*\)(?=;)", said)[0])
        check_labels(db, "mine.roads", found)
        check_labels(db, "SELECT way AS geom FROM mine.roads WHERE way && tile.geom", found)
        do(db, "ALTER SERVER elsewhere OPTIONS (DROP extensions)")
        (said,), _ = warned(db, tiles, Labels("mine.roads"))
        do(db, re.search(r"ALTER SERVER .*\)(?=;)", said)[0])  # one of the two is there already
        check_labels(db, "mine.roads", found)

    def test_a_copy_of_it(self, db):
        do(db, "CREATE MATERIALIZED VIEW mine.copy AS TABLE mine.areas; CREATE INDEX ON mine.copy USING gist (way)")
        check_labels(db, "mine.copy", shapes(db, AREAS), value="class")

    def test_rasters(self, db, there):
        """They travel as text, and arrive as they were."""
        raster2pgsql(there.elsewhere, "-d", "-s", 3857, "-t", "100x100", "-I", "-C", there.tif, "base.s2")
        do(db, "IMPORT FOREIGN SCHEMA base LIMIT TO (s2) FROM SERVER elsewhere INTO mine")
        tiles = random_tiles(db, "mine.s2", count=4)
        (said,), got = warned(db, tiles, Imagery("mine.s2"))
        np.testing.assert_array_equal(got, windows(there.tif, tiles))
        do(db, re.search(r"ALTER SERVER .*\)(?=;)", said)[0])
        check_imagery(db, "mine.s2", there.tif)

    def test_a_partition_elsewhere(self, db):
        do(db, "ALTER SERVER elsewhere OPTIONS (ADD extensions 'postgis', ADD use_remote_estimate 'true')")
        do(db, "CREATE TABLE mine.t (id int, way geometry(LineString, 3857), class int) PARTITION BY LIST (class); "
                        "CREATE TABLE mine.t1 PARTITION OF mine.t FOR VALUES IN (5); CREATE INDEX ON mine.t USING gist (way); "
                        "ALTER TABLE mine.t ATTACH PARTITION mine.roads DEFAULT; INSERT INTO mine.t VALUES "
                        "(1, 'SRID=3857;LINESTRING(1050000 5985000, 1050500 5984500)', 5)")  # fmt: skip
        line = shapely.LineString([(1050000, 5985000), (1050500, 5984500)])
        check_labels(db, "mine.t", [*((geom, value) for geom, value in shapes(db, "SELECT way, class FROM base.roads")), (line, 5)],
                     value="class")  # fmt: skip

    def test_a_server_that_is_down(self, db):
        """The connection to the database is well: the error is about the other server."""
        do(db, "ALTER SERVER elsewhere OPTIONS (SET port '1')")
        do(db, "ALTER SERVER elsewhere OPTIONS (ADD extensions 'postgis')")
        tiles = tiles_on([(shapely.Point(1_051_000, 5_984_000), 1)])
        says = r'is up, but another server, on which a foreign table .*: could not connect to server "elsewhere"(.|\n)*ALTER SERVER'
        for estimate in (
            "ADD use_remote_estimate 'false'",
            "SET use_remote_estimate 'true'",
        ):  # asked while reading, or opening
            do(db, f"ALTER SERVER elsewhere OPTIONS ({estimate})")
            for source in ("mine.roads", "SELECT way AS geom FROM mine.roads WHERE way && tile.geom"):
                with pytest.raises(DatabaseError, match=says):
                    read(db, tiles, {"mask": Labels(source)})
        assert ask(db, "SELECT 1") == [(1,)]

    def test_a_table_that_is_gone_there(self, db):
        do(db, "ALTER FOREIGN TABLE mine.roads OPTIONS (SET table_name 'roads_2019')")
        tiles = tiles_on([(shapely.Point(1_051_000, 5_984_000), 1)])
        says = r'relation "base.roads_2019" does not exist\nthat is what the server of a foreign table said; it was sent: SELECT way FROM'
        with pytest.raises(QueryError, match=says), pytest.warns(match="is fetched"):
            read(db, tiles, {"mask": Labels("mine.roads")})


class TestRights:
    """A role that may SELECT from some tables only."""

    @pytest.fixture
    def reader(self, db, there):
        do(db, """
            CREATE TABLE mine.open AS SELECT id, way FROM base.roads; CREATE INDEX ON mine.open USING gist (way);
            CREATE TABLE mine.closed AS TABLE mine.open; CREATE INDEX ON mine.closed USING gist (way);
            CREATE SCHEMA secret; CREATE TABLE secret.t AS SELECT id, way::geometry AS way FROM base.roads;
            CREATE INDEX ON secret.t USING gist (way);
            CREATE VIEW mine.shown AS SELECT id, way FROM secret.t;
        """)  # fmt: skip
        role, password = f"reader_{uuid.uuid4().hex}", uuid.uuid4().hex
        do(db, sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), password))
        do(db, f"GRANT USAGE ON SCHEMA mine TO {role}; GRANT SELECT ON mine.open, mine.shown TO {role}")
        known = conninfo_to_dict(there.url) | {"user": role, "password": password}
        with Database(make_conninfo(**known)) as database:
            yield SimpleNamespace(db=database, role=role)
        do(db, f"DROP SCHEMA secret CASCADE; DROP OWNED BY {role}; DROP ROLE {role}")

    def test_what_is_granted_is_read(self, db, reader):
        found = shapes(db, ROADS)
        check_labels(reader.db, "mine.open", found)
        check_labels(reader.db, "SELECT way AS geom FROM mine.open WHERE way && tile.geom", found)

    def test_a_view_of_what_is_not(self, db, reader):
        """Its owner's rights count, and nothing is asked that only they allow."""
        found = shapes(db, ROADS)
        check_labels(reader.db, "mine.shown", found)
        check_labels(reader.db, "SELECT way AS geom FROM mine.shown WHERE way && tile.geom", found)

    @pytest.mark.parametrize(
        "source, says",
        [
            ("mine.closed", "permission denied for table closed: .*GRANT SELECT"),
            (
                "SELECT way AS geom FROM mine.closed WHERE way && tile.geom",
                "permission denied for table closed: .*GRANT SELECT",
            ),
            ("secret.t", r"permission denied for schema secret: .*USAGE on the schema"),
            (
                "SELECT way AS geom FROM secret.t WHERE way && tile.geom",
                r"permission denied for schema secret: .*USAGE on the schema",
            ),
        ],
    )
    def test_what_is_not_granted(self, db, reader, source, says):
        tiles = tiles_on(shapes(db, ROADS))
        with pytest.raises(QueryError, match=says):
            read(reader.db, tiles, {"mask": Labels(source)})
        do(db, f"GRANT USAGE ON SCHEMA secret TO {reader.role}; GRANT SELECT ON secret.t, mine.closed TO {reader.role}")
        assert read(reader.db, tiles, {"mask": Labels(source)})["mask"].any()


class TestMissing:
    @pytest.mark.parametrize(
        "name, near",
        [
            ("mine.raods", "mine.roads"),
            ("road", "mine.roads"),
            ("ROADS", "mine.roads"),  # it is not on the search path
            ("mine.buildings2020", 'mine."Buildings 2020"'),
            ('"MINE"."ROADS"', "mine.roads"),
        ],
    )
    def test_a_table(self, db, name, near):
        do(db, 'CREATE TABLE mine.roads AS TABLE base.roads; CREATE TABLE mine."Buildings 2020" AS TABLE base.areas')
        tiles = tiles_on([(shapely.Point(0, 0), 1)])
        for opened in (lambda: read(db, tiles, {"m": Labels(name)}), lambda: Grid.like(db, name)):
            with pytest.raises(MissingError, match=rf"there is no table {re.escape(repr(name))}; there are .*") as caught:
                opened()
            assert near in str(caught.value).partition("; there are ")[2].split(", ")

    def test_the_name_that_is_said_can_be_used(self, db):
        do(db, 'CREATE TABLE mine."Buildings 2020" AS TABLE base.areas; CREATE INDEX ON mine."Buildings 2020" USING gist (way)')
        with pytest.raises(MissingError) as caught:
            db.table("mine.buildings_2020")
        name = str(caught.value).partition("; there are ")[2].split(", ")[0]
        check_labels(db, name, shapes(db, AREAS), value="class")

    @pytest.mark.parametrize(
        "layer, says",
        [
            (Labels("base.roads", value="klass"), r"base\.roads has no column 'klass'; near are class"),
            (Labels("base.roads", column="geom"), r"column='geom': base\.roads has way of type geometry"),
            (Labels("base.roads", where="kind = 1"), r'column "kind" does not exist'),
            (Labels("SELECT wya AS geom FROM base.roads WHERE way && tile.geom"), r'column "wya" does not exist(.|\n)*\^'),
            (
                Labels("SELECT way AS geom FROM base.raods WHERE way && tile.geom"),
                r'relation "base\.raods" does not exist(.|\n)*\^',
            ),
            (Imagery("base.roads"), r"base\.roads has no raster column; its columns are id \(int4\), way \(geometry\), class"),
            (Labels("pg_catalog.pg_class"), r"pg_catalog\.pg_class has no geometry column"),
        ],
    )
    def test_a_column(self, db, layer, says):
        tiles = tiles_on([(shapely.Point(1_051_000, 5_984_000), 1)])
        with pytest.raises((MissingError, QueryError), match=says):
            read(db, tiles, {"layer": layer})
