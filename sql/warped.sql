-- The warped path: the source's rasters around each tile are joined, then resampled or reprojected onto the tile's own pixels.
-- slots: layer (its number), source (user_query.sql around stored_blocks.sql or rasters_of_query.sql), pixels (the raster of a
--        row, or the bands asked for), resampling, max_error (of GDAL's approximating transformer, in pixels; 0 is exact)
-- rows: tile, layer, n, value (unused), fragment: on the tile's lattice, but not cut to its extent
-- index: see source
-- They are joined before they are warped: warped one by one, their seams would show. In a union the last raster wins, hence the
-- order, kept by the fences as in native.sql.
SELECT
    m.tile,
    {layer}::int2 AS layer,
    1::int4 AS n,
    0::float8 AS value,
    ST_Transform(
        m.rast, (SELECT t.ref FROM tiles AS t WHERE t.n = m.tile), {resampling}::text, {max_error}::float8
    )::bytea AS fragment
FROM (
    SELECT f.tile, ST_Union({pixels}) AS rast
    FROM (
        SELECT tile.n AS tile, u.rast::raster AS rast
        FROM {source}
        WHERE u.rast IS NOT NULL
        ORDER BY tile.n, u.place DESC
        OFFSET 0
    ) AS f
    GROUP BY f.tile
    ORDER BY f.tile
    OFFSET 0
) AS m
