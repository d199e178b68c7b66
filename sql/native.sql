-- The native path: rasters that lie on the tiles' own pixels, as they are.
-- slots: layer (its number), source (user_query.sql around stored_blocks.sql or rasters_of_query.sql), pixels (the raster of a
--        row, or the bands asked for), series and stamp (of a time series: its column of a row, and its bytes before a fragment)
-- rows: tile, layer, n (the order to paste in: the top one last), value (unused), fragment
-- index: see source
-- ST_AsBinary(…, true) has the server fetch the pixels that lie in files; for the others it costs what a cast to bytea does.
-- The fence has the rows sorted while their pixels are still a pointer into TOAST; they are fetched after it, one by one.
SELECT
    r.tile,
    {layer}::int2 AS layer,
    r.n::int4 AS n,
    0::float8 AS value,
    {stamp}ST_AsBinary({pixels}, true) AS fragment
FROM (
    SELECT tile.n AS tile, -u.place AS n, u.rast::raster AS rast{series}
    FROM {source}
    WHERE u.rast IS NOT NULL
    ORDER BY 1, 2
    OFFSET 0
) AS r
