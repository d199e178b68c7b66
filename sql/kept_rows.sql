-- Kept tiles, in their order.
-- slots: table, columns (their names)
-- rows: the columns
-- index: none; all of the table is read
SELECT {columns}
FROM {table} AS t
ORDER BY t.tile_order
