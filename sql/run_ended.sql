-- Note that a run has ended, the first time that it has.
-- slots: runs (its table), id
-- rows: none
-- index: its primary key
UPDATE {runs} SET ended = coalesce(ended, now()) WHERE id = {id}
