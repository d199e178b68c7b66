-- A table for the polygons of a class raster.
-- slots: table, srid
-- rows: none
-- index: see vector_key.sql and vector_index.sql
CREATE TABLE {table} (
    fid integer NOT NULL,
    class integer NOT NULL,
    probability double precision,
    area double precision NOT NULL,
    geom geometry(Polygon, {srid}) NOT NULL
)
