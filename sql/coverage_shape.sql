-- A geometry that a layer holds, where it meets a tile: what stands in the place of a user's query of a coverage.
-- slots: shape (EWKB in hexadecimal), srid (of the tiles)
-- rows: geom
SELECT c.geom
FROM (SELECT ST_SetSRID({shape}::geometry, {srid}::int4) AS geom) AS c, tile
WHERE c.geom && tile.geom
