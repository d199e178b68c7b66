-- Vector labels of the batch's tiles, burned on each tile's own pixels.
-- slots: layer (its number), features (features.sql: of each class or band, one after the other), clipped (clipped.sql), singles (singles.sql), touched,
--        beyond_x, beyond_y (one and a half pixels, in CRS units), stride (how far apart the ranks are in n)
-- rows: tile, layer, n (the order to paste in: rank * stride, then from 1 on), value, fragment: one raster per rank, priority and
--       value, a mask (1 burned, 0 nodata) as large as the burned features; empty where a coordinate is infinite or not a number
-- index: whatever serves the user's condition on her geometry column
-- Rows of equal priority and value can be burned in any order, so together, but areas, lines and points apart: around a mixed
-- collection ST_AsRaster makes the raster too small for the last pixels of a line. It also makes it too small for the last pixels
-- that an area merely touches: then a point beyond the tile's upper left and one beyond its lower right corner keep it whole.
-- It is burned without its SRID, which is given back after it: for each raster with one, PostGIS looks up the CRS and has PROJ
-- build it, which takes longer than to burn.
-- NaN is greater than any number, so what measures less than the bound has none but numbers, and lies on Earth.
SELECT
    f.tile,
    {layer}::int2 AS layer,
    f.rank * {stride}::int4 + f.n::int4 AS n,
    f.value,
    CASE WHEN f.bounded THEN ST_SetSRID(ST_AsRaster(
        ST_SetSRID(CASE WHEN {touched} THEN ST_Collect(ARRAY[
            f.geom,
            ST_Translate(ST_PointN(t.ring, 2), -{beyond_x}::float8, {beyond_y}::float8),
            ST_Translate(ST_PointN(t.ring, 4), {beyond_x}::float8, -{beyond_y}::float8)
        ]) ELSE f.geom END, 0),
        t.ref, '8BUI'::text, 1, 0, {touched}
    ), t.srid)::bytea ELSE ''::bytea END AS fragment
FROM (
    SELECT
        b.tile,
        b.rank,
        b.value,
        row_number() OVER (PARTITION BY b.tile, b.rank ORDER BY b.priority, b.value, b.dimension) AS n,
        bool_and(b.bounded) AS bounded,
        ST_CollectionHomogenize(ST_Collect(b.geom)) AS geom
    FROM (
        SELECT
            g.tile, g.rank, g.value, g.priority, g.dimension,
            CASE g.dimension WHEN 2 THEN ST_Area(g.geom) WHEN 1 THEN ST_Length(g.geom) ELSE abs(ST_X(g.geom) + ST_Y(g.geom)) END
                < 1e20 AS bounded,
            {clipped} AS geom
        FROM (
            SELECT
                r.tile, r.envelope, r.rank, r.value, r.priority, ST_Dimension(d.geom) AS dimension, d.geom
            FROM (
{features}
            ) AS r
            CROSS JOIN LATERAL {singles} AS d
            OFFSET 0
        ) AS g
    ) AS b
    WHERE NOT ST_IsEmpty(b.geom) OR NOT b.bounded
    GROUP BY b.tile, b.rank, b.priority, b.value, b.dimension
    ORDER BY b.tile, b.rank, n
    OFFSET 0
) AS f
CROSS JOIN LATERAL (
    SELECT ST_SetSRID(t.ref, 0) AS ref, ST_SRID(t.ref) AS srid, ST_ExteriorRing(t.geom) AS ring
    FROM tiles AS t
    WHERE t.n = f.tile
) AS t
