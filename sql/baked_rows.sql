-- The rows of a baked layer, as they were baked.
-- slots: layer (its number), table, name (of the layer in the table)
-- rows: tile, layer, n, value, data: what the layer would have sent
-- index: the table's primary key
-- Data is still a pointer into TOAST while rows are sorted.
SELECT tile.n AS tile, {layer}::int2 AS layer, b.n, b.value, b.data
FROM tiles AS tile
JOIN {table} AS b ON b.tile_id = tile.id AND b.layer = {name}::text
ORDER BY 1, 3
