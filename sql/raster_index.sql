-- Find blocks by place.
-- slots: table
-- rows: none
-- index: makes the GiST on ST_ConvexHull(rast), which the PostGIS raster operators and pgtiles look for
CREATE INDEX ON {table} USING gist (ST_ConvexHull(rast))
