-- Take in blocks: rid, rast (raster WKB in hexadecimal: the type has no binary input), filename.
-- slots: table (made in this transaction, as FREEZE demands)
-- rows: none; they come from the client
-- FREEZE writes rows as VACUUM would leave them: no later vacuum rewrites what will never change.
COPY {table} (rid, rast, filename) FROM STDIN WITH (FREEZE)
