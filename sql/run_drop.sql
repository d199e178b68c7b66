-- Forget a run, and with it what it predicted.
-- slots: runs (its table), id
-- rows: none
-- index: its primary key; that on (run, block) of each table of predictions
DELETE FROM {runs} WHERE id = {id}
