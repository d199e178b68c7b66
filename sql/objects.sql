-- Objects of a truth and of a prediction: how many there are of each class, and which of one class overlap by how much.
-- slots: truth, prediction (user_rows.sql: relations u with geom and id), truth_class, prediction_class (of a row u), srid (that
--        of the truth, into which the prediction is brought), least (the IoU from which on a pair is told)
-- rows: side, class, a, b, number: of side 0 (truth) and 1 (prediction), one a class: how many rows, how many different ids, and
--       how many that are no area; of side 2, one a pair: the id of each, and intersection over union
-- index: GiST on the truth's geometry, where it has one
-- Classes are compared once the boxes have met, so that the planner joins by boxes, and not by classes, of which there are few.
SELECT 0 AS side, c.class, count(*)::text AS a, count(DISTINCT c.id)::text AS b, (count(*) FILTER (WHERE c.flat))::float8 AS number
FROM (
    SELECT u.id, {truth_class} AS class, coalesce(ST_Dimension(u.geom::geometry), 0) < 2 AS flat FROM {truth}
) AS c
GROUP BY c.class
UNION ALL
SELECT 1, c.class, count(*)::text, count(DISTINCT c.id)::text, (count(*) FILTER (WHERE c.flat))::float8
FROM (
    SELECT u.id, {prediction_class} AS class, coalesce(ST_Dimension(u.geom::geometry), 0) < 2 AS flat FROM {prediction}
) AS c
GROUP BY c.class
UNION ALL
SELECT 2, m.class, m.a, m.b, m.shared / (m.area_a + m.area_b - m.shared)
FROM (
    SELECT
        s.class, s.a, s.b, ST_Area(s.geom_a) AS area_a, ST_Area(s.geom_b) AS area_b,
        ST_Area(ST_Intersection(s.geom_a, s.geom_b)) AS shared
    FROM (
        SELECT
            j.class, j.a, j.b,
            CASE
                WHEN (ST_IsValidDetail(j.geom_a)).valid THEN j.geom_a ELSE ST_CollectionExtract(ST_MakeValid(j.geom_a), 3)
            END AS geom_a,
            CASE
                WHEN (ST_IsValidDetail(j.geom_b)).valid THEN j.geom_b ELSE ST_CollectionExtract(ST_MakeValid(j.geom_b), 3)
            END AS geom_b
        FROM (
            SELECT
                t.class, t.id::text AS a, p.id::text AS b, ST_Force2D(t.geom) AS geom_a, p.geom AS geom_b,
                t.class = p.class AS alike
            FROM (SELECT u.id, {truth_class} AS class, u.geom::geometry AS geom FROM {truth}) AS t
            JOIN (
                SELECT
                    u.id, {prediction_class} AS class, ST_Force2D(ST_Transform(u.geom::geometry, {srid}::int4)) AS geom
                FROM {prediction}
                OFFSET 0
            ) AS p ON t.geom && p.geom
            OFFSET 0
        ) AS j
        WHERE j.alike
        OFFSET 0
    ) AS s
    OFFSET 0
) AS m
WHERE m.shared > 0 AND m.shared >= {least}::float8 * (m.area_a + m.area_b - m.shared)
