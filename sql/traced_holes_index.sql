-- Find holes by place.
-- slots: none
-- rows: none
-- index: makes the GiST on geom
CREATE INDEX ON pgtiles_holes USING gist (geom)
