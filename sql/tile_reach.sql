-- The relation tile for a layer in another SRID, or one whose features reach into the tile by a buffer or a resampling kernel.
-- slots: srid (of the layer's source), reach (ground metres by which the search envelope is wider than the tile), grow_x, grow_y
--        (the tiles' CRS units by which it is wider besides)
-- rows: n, id, ref, time as in tiles.sql; geom, the envelope to search with, wider by the reach, densified and in the source's
--       SRID, so that the source's own index serves; rast, ref with a band of zeros, for the user; envelope, the tile's own;
--       metre_x, metre_y, ground metres in one CRS unit at the
--       tile's centre, east and north, on the ellipsoid
-- The fence keeps PROJ to a few calls a tile: without it the planner would repeat them for every row.
(
    SELECT
        t.n, t.id, t.ref, t.time, ST_AddBand(t.ref, '8BUI'::text) AS rast, t.geom AS envelope, m.metre_x, m.metre_y,
        ST_Transform(
            ST_Segmentize(g.grown, greatest(ST_XMax(g.grown) - ST_XMin(g.grown), ST_YMax(g.grown) - ST_YMin(g.grown)) / 16),
            {srid}::int4
        ) AS geom
    FROM tiles AS t
    CROSS JOIN LATERAL (
        SELECT
            ST_Centroid(t.geom) AS centre,
            (ST_XMax(t.geom) - ST_XMin(t.geom)) / 2 AS half_x,
            (ST_YMax(t.geom) - ST_YMin(t.geom)) / 2 AS half_y
    ) AS c
    CROSS JOIN LATERAL (
        SELECT
            ST_Distance(
                ST_Transform(ST_Translate(c.centre, -c.half_x, 0), 4326)::geography,
                ST_Transform(ST_Translate(c.centre, c.half_x, 0), 4326)::geography
            ) AS ground_x,
            ST_Distance(
                ST_Transform(ST_Translate(c.centre, 0, -c.half_y), 4326)::geography,
                ST_Transform(ST_Translate(c.centre, 0, c.half_y), 4326)::geography
            ) AS ground_y
    ) AS d
    CROSS JOIN LATERAL (
        SELECT d.ground_x / (2 * c.half_x) AS metre_x, d.ground_y / (2 * c.half_y) AS metre_y
    ) AS m
    CROSS JOIN LATERAL (
        SELECT ST_Expand(
            t.geom, {reach}::float8 / m.metre_x + {grow_x}::float8, {reach}::float8 / m.metre_y + {grow_y}::float8
        ) AS grown
    ) AS g
    OFFSET 0
)
