-- Tiles that are asked for and are not baked, or not at this place and time.
-- slots: tiles (the table), ids, cols, rows (arrays), times (the same, or NULL)
-- rows: one: how many, the first of them in the order asked for
-- index: the table's primary key
SELECT count(*)::int8, (array_agg(w.id ORDER BY w.ordinality))[1]
FROM unnest({ids}::int8[], {cols}::int8[], {rows}::int8[], {times}::timestamptz[])
    WITH ORDINALITY AS w (id, grid_col, grid_row, time, ordinality)
LEFT JOIN {tiles} AS t
    ON t.tile_id = w.id AND t.digest IS NOT NULL
    AND (t.grid_col, t.grid_row, t.time) IS NOT DISTINCT FROM (w.grid_col, w.grid_row, w.time)
WHERE t.tile_id IS NULL
