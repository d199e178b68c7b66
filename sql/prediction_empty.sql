-- Whether nothing of a run is there.
-- slots: table, run
-- rows: one truth
-- index: the unique one on (run, block)
SELECT NOT EXISTS (SELECT FROM {table} WHERE run = {run})
