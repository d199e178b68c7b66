-- All baked tiles, in the order in which they were asked for.
-- slots: tiles (the table)
-- rows: tile_id, column and row on the grid, time (seconds since 1970 in UTC, NULL where it has none)
-- index: none; all of the table is read
SELECT tile_id, grid_col, grid_row, extract(epoch FROM time)::float8
FROM {tiles}
WHERE digest IS NOT NULL
ORDER BY place
