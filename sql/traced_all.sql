-- All polygons, to be simplified elsewhere.
-- slots: none
-- rows: fid, geom (EWKB)
-- index: none
SELECT t.fid, ST_AsEWKB(t.geom) FROM pgtiles_traced AS t ORDER BY t.fid
