-- Make room for blocks that are written anew, if they are there.
-- slots: table, run, blocks
-- rows: none
-- index: the unique one on (run, block)
DELETE FROM {table} WHERE run = {run} AND block = ANY ({blocks}::bigint[])
