-- The same rows as they are kept.
-- slots: rows (tiles.sql with baked_as_is.sql or baked_joined.sql for each layer)
-- rows: none
INSERT INTO pg_temp.pgtiles_baked
{rows}
