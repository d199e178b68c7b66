-- The relation tile for a layer in another SRID, or one whose features reach into the tile by a buffer or a resampling kernel.
-- slots: srid (of the layer's source), reach (ground metres by which the search envelope is wider than the tile), grow_x, grow_y
--        (the tiles' CRS units by which it is wider besides)
-- rows: n, id, ref, time as in tiles.sql; geom, the envelope to search with, wider by the reach, densified and in the source's
--       SRID, so that the source's own index serves; rast, ref with a band of zeros, for the user; envelope, the tile's own;
--       metre_x, metre_y, ground metres in one CRS unit at the
--       tile's centre, east and north, on the ellipsoid
-- The fences keep PROJ to a few calls a tile: without them the planner would repeat them for every row.
-- In degrees a tile's outline may come out torn. Where it goes once round the Earth, a pole lies in the tile: geom is all that is
-- as near to it. Where two neighbouring points of it differ by 10 degrees of longitude or more, a pole is so near that the
-- outline bulges towards it between them: geom is a box that goes on to it. Where they differ by more than 180, the tile lies
-- across the antimeridian: geom is its two halves. An outline less than 10 degrees wide is none of that, and is not looked at.
(
    SELECT
        t.n, t.id, t.ref, t.time, ST_AddBand(t.ref, '8BUI'::text) AS rast, t.geom AS envelope, m.metre_x, m.metre_y,
        CASE
            WHEN ST_XMax(r.ring) - ST_XMin(r.ring) NOT BETWEEN 10 AND 360 OR ST_SRID(t.geom) = {srid}::int4 THEN r.ring
            WHEN (SELECT s.srtext NOT LIKE 'GEOG%' FROM spatial_ref_sys AS s WHERE s.srid = {srid}::int4) THEN r.ring
            ELSE (
                SELECT
                    CASE
                        WHEN abs(d.turn) > 180 THEN ST_MakeEnvelope(-180, d.ymin, 180, d.ymax, {srid}::int4)
                        WHEN d.leap <= 180 THEN ST_MakeEnvelope(ST_XMin(r.ring), d.ymin, ST_XMax(r.ring), d.ymax, {srid}::int4)
                        WHEN ST_XMax(d.east) - ST_XMin(d.east) < 180
                        THEN ST_CollectionExtract(ST_WrapX(d.east, 180, -360), 3)
                        ELSE ST_MakeEnvelope(-180, d.ymin, 180, d.ymax, {srid}::int4)
                    END
                FROM (
                    SELECT
                        e.turn, e.leap, ST_ShiftLongitude(r.ring) AS east,
                        CASE WHEN e.near AND e.y < 0 THEN -90 ELSE ST_YMin(r.ring) END AS ymin,
                        CASE WHEN e.near AND e.y > 0 THEN 90 ELSE ST_YMax(r.ring) END AS ymax
                    FROM (
                        SELECT
                            avg(b.y) AS y, sum(b.way) AS turn, max(abs(b.step)) AS leap,
                            abs(sum(b.way)) > 180 OR max(abs(b.way)) >= 10 AS near
                        FROM (
                            SELECT p.y, p.step, p.step - 360 * round(p.step / 360) AS way
                            FROM (
                                SELECT
                                    ST_Y(v.geom) AS y, ST_X(v.geom) - lag(ST_X(v.geom)) OVER (ORDER BY v.path) AS step
                                FROM ST_DumpPoints(r.ring) AS v
                            ) AS p
                        ) AS b
                    ) AS e
                ) AS d
            )
        END AS geom
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
    CROSS JOIN LATERAL (
        SELECT
            ST_Transform(
                ST_Segmentize(g.grown, greatest(ST_XMax(g.grown) - ST_XMin(g.grown), ST_YMax(g.grown) - ST_YMin(g.grown)) / 16),
                {srid}::int4
            ) AS ring
        OFFSET 0
    ) AS r
    OFFSET 0
)
