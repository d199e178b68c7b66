-- The rows that a batch of these tiles would send, into a table of this transaction.
-- slots: rows (tiles.sql with the layers' SELECTs)
-- rows: none
INSERT INTO pg_temp.pgtiles_live
{rows}
