-- What stands before a chunk of tiles is baked: settings as batches are read with, and two tables for it alone.
-- slots: none
-- rows: none
-- A transaction that is READ ONLY may write to temporary tables, and to nothing else. So the user's query fills the first one.
SET LOCAL timezone = 'UTC';
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
CREATE TEMPORARY TABLE pgtiles_live (tile int4, layer int2, n int4, value float8, data bytea) ON COMMIT DROP;
CREATE TEMPORARY TABLE pgtiles_baked (tile_id int8, layer text, n int4, value float8, data bytea) ON COMMIT DROP;
ALTER TABLE pg_temp.pgtiles_live ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE pg_temp.pgtiles_baked ALTER COLUMN data SET STORAGE EXTERNAL
