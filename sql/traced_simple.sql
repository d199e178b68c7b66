-- All polygons, simplified together, so that neighbours go on to share their borders.
-- slots: tolerance (CRS units)
-- rows: none
-- index: none; the server holds all of them at once. Since PostGIS 3.4, with GEOS 3.12.
CREATE TEMPORARY TABLE pgtiles_simple ON COMMIT DROP AS
SELECT t.fid, ST_SetSRID(ST_CoverageSimplify(t.geom, {tolerance}::float8) OVER (), ST_SRID(t.geom)) AS geom
FROM pgtiles_traced AS t
