-- A polygon's smallest rectangle, which is then made smaller by the same on all sides, until it is as large as the polygon;
-- the polygon as it would be without, where it fills too little of that rectangle.
-- slots: geom (the polygon), otherwise (what it would be), share (of the rectangle that it must fill)
-- rows: none; an expression
(
    SELECT CASE
        WHEN ST_Area({geom}) < {share} * b.wide * b.high THEN {otherwise}
        ELSE ST_Buffer(
            b.box, -greatest(0, b.wide + b.high - sqrt((b.wide - b.high) ^ 2 + 4 * ST_Area({geom}))) / 4, 'join=mitre'
        )
    END
    FROM (
        SELECT
            e.box,
            ST_Distance(ST_PointN(ST_ExteriorRing(e.box), 1), ST_PointN(ST_ExteriorRing(e.box), 2)) AS wide,
            ST_Distance(ST_PointN(ST_ExteriorRing(e.box), 2), ST_PointN(ST_ExteriorRing(e.box), 3)) AS high
        FROM (SELECT ST_OrientedEnvelope({geom}) AS box OFFSET 0) AS e
    ) AS b
)
