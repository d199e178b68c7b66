-- Tiles that are asked for and are baked, or to be baked, at another place or time.
-- slots: tiles (the table), ids, cols, rows (arrays), times (the same, or NULL)
-- rows: tile_id; the first
-- index: the table's primary key
SELECT t.tile_id
FROM unnest({ids}::int8[], {cols}::int8[], {rows}::int8[], {times}::timestamptz[]) AS w (id, grid_col, grid_row, time)
JOIN {tiles} AS t ON t.tile_id = w.id
WHERE (t.grid_col, t.grid_row, t.time) IS DISTINCT FROM (w.grid_col, w.grid_row, w.time)
ORDER BY 1
LIMIT 1
