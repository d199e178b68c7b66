-- Rows of a layer that are kept as they are.
-- slots: layer (its number), name
-- rows: tile_id, layer, n, value, data
SELECT tile.id AS tile_id, {name}::text AS layer, l.n, l.value, l.data
FROM tiles AS tile
JOIN pg_temp.pgtiles_live AS l ON l.tile = tile.n AND l.layer = {layer}
