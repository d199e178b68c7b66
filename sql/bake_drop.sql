-- Drop the rows of tiles that are baked again.
-- slots: table, ids (an array)
-- rows: none
-- index: the table's primary key
DELETE FROM {table} WHERE tile_id = ANY ({ids}::int8[])
