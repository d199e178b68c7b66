-- The runs of which a table of predictions has any block.
-- slots: table, runs (the table of runs)
-- rows: id, name, whether it has ended
-- index: the unique one on (run, block)
SELECT r.id, r.name, r.ended IS NOT NULL
FROM {runs} AS r
WHERE EXISTS (SELECT FROM {table} AS t WHERE t.run = r.id)
ORDER BY r.id
