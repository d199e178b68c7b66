-- Take them in: fid, geom (EWKB in hexadecimal).
-- slots: none
-- rows: none; they come from the client
COPY pgtiles_simple FROM STDIN
