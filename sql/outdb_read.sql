-- Whether the server can read the pixels of a raster that stays in a file.
-- slots: raster (raster WKB in hexadecimal, with the file's path)
-- rows: one: the same raster with its pixels
SELECT ST_AsBinary({raster}::raster, true)
