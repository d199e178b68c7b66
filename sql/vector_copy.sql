-- Take in features: fid, geom (WKB in hexadecimal), then the file's fields in their order.
-- slots: table
-- rows: none; they come from the client
COPY {table} FROM STDIN
