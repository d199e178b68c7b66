-- Find features by place.
-- slots: table
-- rows: none
-- index: makes the GiST on geom
CREATE INDEX ON {table} USING gist (geom)
