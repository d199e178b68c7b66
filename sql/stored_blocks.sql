-- The rows of a raster table for one tile: what stands in the place of a user's query where a layer names a table.
-- slots: table, column, order (which scene lies on top: the first), grow_x, grow_y (CRS units by which to look beyond the tile:
--        a fraction of a pixel less where only overlapping blocks are wanted, as && is true where boxes merely touch; a
--        resampling kernel's margin where the source is warped), taken (empty, or the
--        column step_time, after a comma), when (empty, or AND with a condition on it)
-- rows: rast, place (1 on top), step_time where asked for
-- index: GiST on ST_ConvexHull(column)
-- The relation tile stands outside, so that its columns come after the table's: a table may have a column id or time.
SELECT s.{column} AS rast, row_number() OVER (ORDER BY {order}
) AS place{taken}
FROM {table} AS s
WHERE ST_ConvexHull(s.{column}) && ST_Expand(tile.geom, {grow_x}::float8, {grow_y}::float8){when}
