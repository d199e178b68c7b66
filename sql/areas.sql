-- How much of each tile the features of each class cover, and how many of them it has: exact areas of vectors, no pixel is made.
-- slots: features (features.sql: of each class, one after the other), singles (singles.sql)
-- rows: tile, rank (of the class), share (of the tile's area, 0 to 1; NaN where a coordinate is infinite or not a number),
--       count (of features that have a part inside the tile); no row where a class has no feature in a tile
-- index: whatever serves the user's condition on her geometry column
-- What overlaps within a class is counted once, what overlaps between classes is counted in each. A feature that only touches the
-- edge with an area has nothing inside. What lies wholly inside is not cut, and told so by its coordinates: @ compares float4 boxes.
-- The cut of cut.sql is right as a fill, and what is left of a large feature is small. But its rings may run to and fro along the
-- edge, or the feature may cross itself: only then is it asked as a whole whether it is valid, made so, and intersected by GEOS
-- (ST_IsValid would send a NOTICE for each). An area that crosses itself is filled as it is when burned, by even-odd.
SELECT
    c.tile,
    c.rank,
    CASE
        WHEN NOT c.bounded THEN 'NaN'
        WHEN c.pieces = 0 THEN 0
        WHEN c.pieces = 1 THEN ST_Area(c.covered)
        ELSE ST_Area(ST_UnaryUnion(c.covered))
    END / ST_Area(t.geom) AS share,
    c.features AS count
FROM (
    SELECT
        r.tile, r.rank,
        count(*) AS features, sum(p.pieces) AS pieces, bool_and(p.bounded) AS bounded, ST_Collect(p.covered) AS covered
    FROM (
{features}
        OFFSET 0
    ) AS r
    CROSS JOIN LATERAL (
        SELECT
            bool_and(v.bounded) AS bounded,
            bool_or(CASE
                WHEN NOT v.bounded THEN true
                WHEN v.dimension = 2 THEN ST_Area(v.geom) > 0
                ELSE ST_Intersects(v.geom, r.envelope)
            END) AS inside,
            count(*) FILTER (WHERE v.dimension = 2 AND v.bounded) AS pieces,
            ST_Collect(v.geom) FILTER (WHERE v.dimension = 2 AND v.bounded) AS covered
        FROM (
            SELECT
                k.bounded, k.dimension,
                CASE
                    WHEN NOT k.bounded OR k.dimension < 2 OR (ST_IsValidDetail(k.geom)).valid THEN k.geom
                    ELSE ST_CollectionExtract(ST_Intersection(
                        CASE
                            WHEN (ST_IsValidDetail(k.uncut)).valid THEN k.uncut
                            ELSE ST_CollectionExtract(ST_MakeValid(k.uncut), 3)
                        END, r.envelope
                    ), 3)
                END AS geom
            FROM (
                SELECT
                    g.dimension, g.bounded, g.geom AS uncut,
                    CASE
                        WHEN g.dimension < 2 OR NOT g.bounded THEN g.geom
                        WHEN ST_XMin(g.geom) >= ST_XMin(r.envelope) AND ST_XMax(g.geom) <= ST_XMax(r.envelope)
                            AND ST_YMin(g.geom) >= ST_YMin(r.envelope) AND ST_YMax(g.geom) <= ST_YMax(r.envelope)
                        THEN g.geom
                        ELSE {cut}
                    END AS geom
                FROM (
                    SELECT
                        ST_Dimension(d.geom) AS dimension, d.geom,
                        CASE ST_Dimension(d.geom)
                            WHEN 2 THEN ST_Area(d.geom) WHEN 1 THEN ST_Length(d.geom) ELSE abs(ST_X(d.geom) + ST_Y(d.geom))
                        END < 1e20 AS bounded
                    FROM {singles} AS d
                    OFFSET 0
                ) AS g
                OFFSET 0
            ) AS k
            OFFSET 0
        ) AS v
    ) AS p
    WHERE p.inside
    GROUP BY r.tile, r.rank
) AS c
JOIN tiles AS t ON t.n = c.tile
