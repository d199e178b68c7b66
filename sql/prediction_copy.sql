-- Take in blocks: run, block, rast (raster WKB in hexadecimal: the type has no binary input).
-- slots: table
-- rows: none; they come from the client
COPY {table} (run, block, rast) FROM STDIN
