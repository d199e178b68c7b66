-- Take in polygons: fid, class, probability, geom (WKB in hexadecimal).
-- slots: none
-- rows: none; they come from the client
COPY pgtiles_traced FROM STDIN
