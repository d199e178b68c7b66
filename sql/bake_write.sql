-- Write the rows of tiles that are baked, tile by tile.
-- slots: table, ids (an array)
-- rows: none
INSERT INTO {table} (tile_id, layer, n, value, data)
SELECT b.tile_id, b.layer, b.n, b.value, b.data
FROM pg_temp.pgtiles_baked AS b
WHERE b.tile_id = ANY ({ids}::int8[])
ORDER BY b.tile_id, b.layer, b.n
