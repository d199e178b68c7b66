-- How many tiles of a chunk have no row at all.
-- slots: ids (an array)
-- rows: one: the number
SELECT count(*)::int8
FROM unnest({ids}::int8[]) AS w (id)
WHERE NOT EXISTS (SELECT FROM pg_temp.pgtiles_baked AS b WHERE b.tile_id = w.id)
