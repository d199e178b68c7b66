-- The rows of a baked layer, as they were baked.
-- slots: layer (its number), table, name (of the layer in the table)
-- rows: tile, layer, n, value, data: what the layer would have sent
-- index: the table's primary key, which also gives the order
-- The fence has each tile looked up in it, however small the table is: a scan of it, once a batch, takes longer than all look-ups.
SELECT tile.n AS tile, {layer}::int2 AS layer, b.n, b.value, b.data
FROM tiles AS tile
CROSS JOIN LATERAL (
    SELECT r.n, r.value, r.data
    FROM {table} AS r
    WHERE r.tile_id = tile.id AND r.layer = {name}::text
    ORDER BY r.n
    OFFSET 0
) AS b
