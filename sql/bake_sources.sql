-- Note which rows each tile is made of.
-- slots: tiles (the table), ids, sources (arrays: of each tile the rows, as JSON)
-- rows: none
-- index: the table's primary key
UPDATE {tiles} AS t
SET sources = s.sources::jsonb
FROM unnest({ids}::int8[], {sources}::text[]) AS s (id, sources)
WHERE t.tile_id = s.id
