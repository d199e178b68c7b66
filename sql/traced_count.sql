-- How many polygons there are.
-- slots: none
-- rows: one number
-- index: none
SELECT count(*) FROM pgtiles_traced
