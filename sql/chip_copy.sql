-- Take in chips: rid, file, class, value, rast (raster WKB in hexadecimal), footprint (EWKB in hexadecimal, or NULL).
-- slots: table (made in this transaction, as FREEZE demands)
-- rows: none; they come from the client
COPY {table} (rid, file, class, value, rast, footprint) FROM STDIN WITH (FREEZE)
