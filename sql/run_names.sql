-- The names of the runs, the latest first.
-- slots: runs (their table)
-- rows: name
-- index: none; few rows
SELECT name FROM {runs} ORDER BY began DESC, id DESC LIMIT 12
