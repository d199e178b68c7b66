-- The rasters of one run for one tile: what a user's query would be.
-- slots: table, column, run (its id), shrink_x, shrink_y (a fraction of a pixel, below 0: && is true where boxes merely touch)
-- rows: rast
-- index: GiST on ST_ConvexHull(column)
SELECT s.{column} AS rast
FROM {table} AS s
WHERE s.run = {run} AND ST_ConvexHull(s.{column}) && ST_Expand(tile.geom, {shrink_x}::float8, {shrink_y}::float8)
