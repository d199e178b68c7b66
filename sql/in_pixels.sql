-- A layer in pixels of its own size: what its SELECT calls tiles are the batch's tiles, with another raster.
-- slots: select (the layer's, from the relation tiles), srid, width, height (pixels), scale_x, scale_y (CRS units per pixel,
--        positive)
-- rows: those of the layer
WITH tiles AS MATERIALIZED (
    SELECT
        t.n,
        t.id,
        t.geom,
        ST_MakeEmptyRaster(
            {width}::int4, {height}::int4, ST_XMin(t.geom), ST_YMax(t.geom), {scale_x}::float8, -{scale_y}::float8, 0, 0,
            {srid}::int4
        ) AS ref,
        t.time
    FROM tiles AS t
)
SELECT * FROM (
{select}
) AS f
