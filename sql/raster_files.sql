-- In which files the rasters around the tiles keep their pixels: for an error that is to name them. Reads headers only.
-- slots: source (as in native.sql)
-- rows: path
-- index: see source
SELECT DISTINCT (ST_BandMetaData(u.rast::raster, ARRAY(SELECT generate_series(1, ST_NumBands(u.rast::raster))))).path
FROM {source}
WHERE u.rast IS NOT NULL
