-- A table for features, as yet without key and index, and the types that only all rows can tell: see vector_types.sql.
-- slots: table, columns (each ", name type", for the file's fields)
-- rows: none
-- index: see vector_key.sql and vector_index.sql
CREATE TABLE {table} (fid integer NOT NULL, geom geometry{columns})
