-- The tiles of one batch, as the relation that every layer's rows are selected for. Heads each statement.
-- slots: ids, xmins, ymins, xmaxs, ymaxs (arrays, CRS units), times (the same, or NULL), srid, width, height (pixels), scale_x, scale_y (CRS units per
--        pixel, positive), select (what to select, from the relation tiles)
-- rows of tiles: n, the tile's place in the batch, from 0; id; geom, its envelope; ref, a raster without bands on its pixels;
--       time, its own, NULL where it has none
WITH tiles AS MATERIALIZED (
    SELECT
        (t.ordinality - 1)::int4 AS n,
        t.id,
        ST_MakeEnvelope(t.xmin, t.ymin, t.xmax, t.ymax, {srid}::int4) AS geom,
        ST_MakeEmptyRaster(
            {width}::int4, {height}::int4, t.xmin, t.ymax, {scale_x}::float8, -{scale_y}::float8, 0, 0, {srid}::int4
        ) AS ref,
        t.time
    FROM unnest(
        {ids}::int8[], {xmins}::float8[], {ymins}::float8[], {xmaxs}::float8[], {ymaxs}::float8[], {times}::timestamptz[]
    ) WITH ORDINALITY AS t (id, xmin, ymin, xmax, ymax, time, ordinality)
)
SELECT * FROM (
{select}
) AS f
