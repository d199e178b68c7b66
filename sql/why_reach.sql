-- The rows of a table under a layer that lie on the tiles, whatever the layer's query makes of them: to explain a tile.
-- slots: table, column, hull (of a row s: its geometry, or its raster's hull), key (text that names a row s), tile (tile_reach.sql or
--        tile_here.sql, in the table's SRID), most
-- rows: key
-- index: GiST on hull
SELECT {key}
FROM {tile} AS tile
JOIN {table} AS s ON {hull} && tile.geom
WHERE ST_Distance({hull}, tile.geom) = 0
ORDER BY 1
LIMIT {most}::int8
