-- How far a run is, which no other process takes further until the transaction ends.
-- slots: runs (its table), id
-- rows: one: the rows of blocks that are done; none where the run was forgotten
-- index: its primary key
SELECT done FROM {runs} WHERE id = {id} FOR UPDATE
