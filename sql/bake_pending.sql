-- Which of some tiles are baked.
-- slots: tiles (the table), ids (an array)
-- rows: tile_id
-- index: the table's primary key
SELECT t.tile_id FROM {tiles} AS t WHERE t.tile_id = ANY ({ids}::int8[]) AND t.digest IS NOT NULL
