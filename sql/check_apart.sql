-- What moves the rasters of an odd kind into a table of their own, or moves nothing: for a person to run.
-- slots: table, other (the table to be made), test (that a row is of the odd kind)
-- rows: none
-- index: none
BEGIN; CREATE TABLE {other} AS SELECT * FROM {table} WHERE {test}; DELETE FROM {table} WHERE {test}; COMMIT;
