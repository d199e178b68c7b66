-- A table for chips and their classes, as yet without key and index: they are made faster of a full table.
-- slots: table
-- rows: none
-- index: see raster_key.sql, raster_index.sql and chip_index.sql
CREATE TABLE {table} (
    rid integer NOT NULL,
    file text NOT NULL,
    class text NOT NULL,
    value integer NOT NULL,
    rast raster NOT NULL,
    footprint geometry(Polygon, 4326)
)
