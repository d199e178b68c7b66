-- Keep blocks out of line and uncompressed. Run before there are any: it does not change those that are there.
-- slots: table
-- rows: none
-- PostgreSQL's own compression gains little on photographs and costs much at every read, and header functions
-- (ST_ConvexHull, ST_Width, …) can only fetch the first bytes of a value that is not compressed.
ALTER TABLE {table} ALTER COLUMN rast SET STORAGE EXTERNAL
