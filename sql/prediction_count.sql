-- How many blocks a run has.
-- slots: table, run
-- rows: one number
-- index: the unique one on (run, block)
SELECT count(*) FROM {table} WHERE run = {run}
