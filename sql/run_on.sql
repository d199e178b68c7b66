-- Note how far a run is.
-- slots: runs (its table), id, done (rows of blocks)
-- rows: none
-- index: its primary key
UPDATE {runs} SET done = {done} WHERE id = {id}
