-- Tiles of different splits that are nearer to each other than the gap, or overlap: no row is the proof that there are none.
-- slots: ids, sides (whole numbers), xmins, ymins, xmaxs, ymaxs (arrays, CRS units), srids, gap (ground metres)
-- rows: id and side of two tiles, the lower side first; metres between them on the ellipsoid
-- index: none, of tiles that are in no table: they are hashed by the cell of space in which their centre lies. A cell is as long
--        as two tiles' radii and the gap, so what is near to a tile lies in its own cell or in one of the 26 around it.
-- Geography finds what may be near, with outlines as lines: tiles are of one size, so that none lies within another. But it takes
-- lines of a few metres that pass each other within as many for lines that cross. So what it finds is measured again, in a map
-- that is true to distance around one of the two.
-- An outline has eight points a side, because geography draws the shortest lines from one to the next. A radius is measured on a
-- sphere, which is quick, and off by less than the hundredth that it is made longer by.
WITH tiles AS MATERIALIZED (
    SELECT
        t.id, t.side, t.xmin, t.ymin, t.xmax, t.ymax, o.outline, ST_ExteriorRing(o.outline)::geography AS line, m.middle, c.x, c.y, c.z, r.radius
    FROM unnest(
        {ids}::int8[], {sides}::int4[], {xmins}::float8[], {ymins}::float8[], {xmaxs}::float8[], {ymaxs}::float8[], {srids}::int4[]
    ) AS t (id, side, xmin, ymin, xmax, ymax, srid)
    CROSS JOIN LATERAL (
        SELECT ST_Transform(ST_Segmentize(
            ST_MakeEnvelope(t.xmin, t.ymin, t.xmax, t.ymax, t.srid), greatest(t.xmax - t.xmin, t.ymax - t.ymin) / 8
        ), 4326) AS outline
        OFFSET 0
    ) AS o
    CROSS JOIN LATERAL (
        SELECT ST_Transform(ST_SetSRID(ST_MakePoint((t.xmin + t.xmax) / 2, (t.ymin + t.ymax) / 2), t.srid), 4326) AS middle
        OFFSET 0
    ) AS m
    CROSS JOIN LATERAL (
        SELECT ST_Transform(ST_SetSRID(ST_Collect(ARRAY[
            ST_MakePoint(t.xmin, t.ymin), ST_MakePoint(t.xmin, t.ymax), ST_MakePoint(t.xmax, t.ymin), ST_MakePoint(t.xmax, t.ymax)
        ]), t.srid), 4326) AS four
        OFFSET 0
    ) AS f
    CROSS JOIN LATERAL (
        SELECT max(ST_Distance(m.middle::geography, ST_GeometryN(f.four, n)::geography, false)) * 1.01 AS radius
        FROM generate_series(1, 4) AS n
    ) AS r
    CROSS JOIN LATERAL (
        SELECT
            6378137 / sqrt(1 - 0.00669437999014 * sind(ST_Y(m.middle)) ^ 2) AS normal
    ) AS n
    CROSS JOIN LATERAL (
        SELECT
            n.normal * cosd(ST_Y(m.middle)) * cosd(ST_X(m.middle)) AS x,
            n.normal * cosd(ST_Y(m.middle)) * sind(ST_X(m.middle)) AS y,
            n.normal * (1 - 0.00669437999014) * sind(ST_Y(m.middle)) AS z
    ) AS c
),
cells AS MATERIALIZED (
    SELECT
        t.id, floor(t.x / s.size)::int4 AS i, floor(t.y / s.size)::int4 AS j, floor(t.z / s.size)::int4 AS k
    FROM tiles AS t
    CROSS JOIN (SELECT greatest(2 * max(radius) + {gap}::float8, 20) AS size FROM tiles) AS s
),
cell_sides AS MATERIALIZED (
    SELECT DISTINCT c.i, c.j, c.k, t.side FROM cells AS c JOIN tiles AS t USING (id)
),
borders AS MATERIALIZED (
    SELECT DISTINCT a.i, a.j, a.k, b.i AS other_i, b.j AS other_j, b.k AS other_k
    FROM cell_sides AS a
    CROSS JOIN generate_series(-1, 1) AS di
    CROSS JOIN generate_series(-1, 1) AS dj
    CROSS JOIN generate_series(-1, 1) AS dk
    JOIN cell_sides AS b ON b.i = a.i + di AND b.j = a.j + dj AND b.k = a.k + dk AND b.side > a.side
)
SELECT p.id, p.side, p.other, p.other_side, d.metres
FROM (
    SELECT
        a.id, a.side, b.id AS other, b.side AS other_side, a.outline, b.outline AS other_outline,
        format('+proj=aeqd +lat_0=%s +lon_0=%s +datum=WGS84 +units=m', ST_Y(a.middle), ST_X(a.middle)) AS map
    FROM borders
    JOIN cells AS cell_a ON cell_a.i = borders.i AND cell_a.j = borders.j AND cell_a.k = borders.k
    JOIN cells AS cell_b ON cell_b.i = borders.other_i AND cell_b.j = borders.other_j AND cell_b.k = borders.other_k
    JOIN tiles AS a ON a.id = cell_a.id
    JOIN tiles AS b ON b.id = cell_b.id
    WHERE
        a.side < b.side
        AND (a.x - b.x) ^ 2 + (a.y - b.y) ^ 2 + (a.z - b.z) ^ 2 <= (a.radius + b.radius + {gap}::float8) ^ 2
        AND CASE
            WHEN {gap}::float8 > 0 THEN ST_DWithin(a.line, b.line, {gap}::float8)
            ELSE least(a.xmax, b.xmax) - greatest(a.xmin, b.xmin) > 1e-6 * (a.xmax - a.xmin)
                AND least(a.ymax, b.ymax) - greatest(a.ymin, b.ymin) > 1e-6 * (a.ymax - a.ymin)
        END
    OFFSET 0
) AS p
CROSS JOIN LATERAL (
    SELECT ST_Distance(ST_Transform(p.outline, p.map), ST_Transform(p.other_outline, p.map)) AS metres
    OFFSET 0
) AS d
WHERE d.metres < {gap}::float8 OR {gap}::float8 = 0
ORDER BY d.metres, p.id, p.other
