-- What one would write by hand to have a tile of warped imagery: the blocks around it become one raster, which is warped.
-- slots: table; blocks (the rast of a row, or what ST_Clip leaves of it); warp (ST_Transform or ST_Resample to tile.ref);
--        xmin, ymax, resolution, size (the tile's, in EPSG:3857 and pixels); srid (of the table); margin (its CRS units that
--        the resampling needs around the tile)
-- rows: one, the raster's WKB: on the tile's lattice, but not cut to its extent
-- index: GiST on ST_ConvexHull(rast)
WITH tile AS (
    SELECT
        t.ref,
        ST_Expand(ST_Transform(ST_Segmentize(ST_Envelope(t.ref), {size} * {resolution} / 16), {srid}), {margin}) AS around
    FROM (SELECT ST_MakeEmptyRaster({size}, {size}, {xmin}, {ymax}, {resolution}, -{resolution}, 0, 0, 3857) AS ref) AS t
),
mosaic AS (
    SELECT ST_Union({blocks}) AS rast
    FROM {table} AS s, tile
    WHERE ST_ConvexHull(s.rast) && tile.around
)
SELECT ST_AsBinary({warp}) FROM mosaic, tile
