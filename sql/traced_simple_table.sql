-- Room for polygons that were simplified elsewhere.
-- slots: none
-- rows: none
CREATE TEMPORARY TABLE pgtiles_simple (fid integer NOT NULL, geom geometry NOT NULL) ON COMMIT DROP
