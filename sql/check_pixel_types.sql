-- Whether a raster's bands are of these types, and as many: the test in check_apart.sql.
-- slots: column, value (type of each band)
-- rows: an expression
-- index: none
ARRAY(SELECT ST_BandPixelType({column}, b.n) FROM generate_series(1, ST_NumBands({column})) AS b (n) ORDER BY b.n) = {value}::text[]
