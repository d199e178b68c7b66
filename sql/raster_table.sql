-- A table for blocks of rasters, as yet without key and index: they are made faster of a full table.
-- slots: table
-- rows: none
-- index: see raster_key.sql and raster_index.sql
CREATE TABLE {table} (rid integer NOT NULL, rast raster NOT NULL, filename text NOT NULL)
