-- How long a CRS unit is on the ground, at each tile.
-- slots: tile (tile_reach.sql)
-- rows: one a tile, in their order: ground metres in one CRS unit, east and north
SELECT tile.metre_x, tile.metre_y
FROM {tile} AS tile
ORDER BY tile.n
