-- Which of the extensions that pgtiles needs the database has.
-- slots: none
-- rows: name, version
SELECT extname, extversion
FROM pg_extension
WHERE extname IN ('postgis', 'postgis_raster')
