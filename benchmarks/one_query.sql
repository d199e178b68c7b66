-- Tiles the way a PostGIS user first thinks of them, in one query: grey image and mask, each made to lie on an empty raster of
-- the tile's size by map algebra.
-- slots: corners (of four tiles, upper left, a float8[][]), resolution, size, width (CRS units on either side of a road's line)
-- rows: tile (from 1), image and mask as WKB, of one band each
-- index: GiST on ST_ConvexHull(bench_scene.rast) and on bench_roads.way
WITH corner AS (
    SELECT n AS tile, given.at[n][1] AS x, given.at[n][2] AS y
    FROM (SELECT {corners}::float8[] AS at) AS given, generate_subscripts(given.at, 1) AS n
),
canvas AS (
    SELECT tile, ST_AddBand(ST_MakeEmptyRaster({size}, {size}, x, y, {resolution}, -{resolution}, 0, 0, 3857), '8BUI'::text) AS rast
    FROM corner
),
image AS (
    SELECT
        c.tile,
        ST_MapAlgebra(
            c.rast, 1, ST_Resample(ST_Grayscale(ST_Union(s.rast)), c.rast, 'bilinear'), 1, '[rast2]', NULL, 'FIRST', '[rast2]'
        ) AS rast
    FROM canvas AS c JOIN bench_scene AS s ON ST_Intersects(s.rast, c.rast)
    GROUP BY c.tile, c.rast
),
mask AS (
    SELECT
        c.tile,
        ST_MapAlgebra(c.rast, ST_AsRaster(road.geom, c.rast, '8BUI'), '[rast2]::integer', NULL, 'FIRST', '[rast2]::integer') AS rast
    FROM canvas AS c
    CROSS JOIN LATERAL (
        SELECT ST_ClipByBox2D(ST_Buffer(ST_Union(r.way), {width}), ST_Envelope(c.rast)) AS geom
        FROM bench_roads AS r
        WHERE ST_DWithin(r.way, ST_Envelope(c.rast), {width})
    ) AS road
)
SELECT c.tile, ST_AsBinary(i.rast) AS image, ST_AsBinary(coalesce(m.rast, c.rast)) AS mask
FROM canvas AS c JOIN image AS i USING (tile) LEFT JOIN mask AS m USING (tile)
ORDER BY c.tile
