-- One block, by which the constraints of all are declared; it goes again before the transaction ends.
-- slots: table, run, rast (raster WKB in hexadecimal)
-- rows: none
INSERT INTO {table} (run, block, rast) VALUES ({run}, -1, {rast}::raster)
