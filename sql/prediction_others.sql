-- Whether a table of predictions holds any of another run.
-- slots: table, runs (the table of runs), run
-- rows: one truth
-- index: the unique one on (run, block)
SELECT EXISTS (
    SELECT FROM {runs} AS r
    WHERE r.id <> {run} AND EXISTS (SELECT FROM {table} AS p WHERE p.run = r.id)
)
