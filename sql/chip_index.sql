-- Find chips by where they truly are.
-- slots: table
-- rows: none
-- index: makes the GiST on footprint
CREATE INDEX ON {table} USING gist (footprint)
