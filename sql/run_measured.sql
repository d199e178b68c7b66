-- Add figures to a run's; one of the same name is replaced.
-- slots: runs (its table), name, metrics (JSON)
-- rows: its id; none where there is no such run
-- index: the unique one on name
UPDATE {runs} SET metrics = metrics || {metrics}::jsonb WHERE name = {name} RETURNING id
