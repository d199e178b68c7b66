-- The tiles of a chunk that are still to be baked, kept from others who would bake them until the transaction ends.
-- slots: tiles (the table), ids (an array), again (whether baked ones are wanted too)
-- rows: tile_id, whether it is baked
-- index: the table's primary key
-- Who waited here for another to bake them finds none left.
SELECT t.tile_id, t.digest IS NOT NULL
FROM {tiles} AS t
WHERE t.tile_id = ANY ({ids}::int8[]) AND (t.digest IS NULL OR {again})
FOR UPDATE
