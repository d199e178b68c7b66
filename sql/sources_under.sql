-- The rows of a table that lie under some tiles, by their primary keys: where the tiles' pixels come from.
-- slots: table, key (text that calls a row s), hull (of a row s: its geometry, or its raster's hull), tile (tile_reach.sql, in the table's SRID)
-- rows: tile, key in text
-- index: GiST on hull
SELECT tile.n AS tile, {key} AS key
FROM {tile} AS tile
JOIN {table} AS s ON {hull} && tile.geom
WHERE ST_Distance({hull}, tile.geom) = 0
ORDER BY 1, 2
