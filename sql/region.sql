-- The land that geometries cover together, in another SRID. A long edge that is bent there is followed in 32 pieces or more.
-- slots: rows (a relation u with the column geom), srid (of the land)
-- rows: one: the land as WKB (NULL without a geometry), how many geometries there are, how many are invalid, how many no areas
-- index: none; every geometry is read once
SELECT
    ST_AsBinary(ST_Union(ST_Transform(
        CASE WHEN ST_SRID(g.geom) = {srid}::int4 THEN g.geom
        ELSE ST_Segmentize(g.geom, greatest(ST_XMax(g.geom) - ST_XMin(g.geom), ST_YMax(g.geom) - ST_YMin(g.geom)) / 32) END,
        {srid}::int4
    )) FILTER (WHERE g.valid AND ST_Dimension(g.geom) = 2)),
    count(*),
    count(*) FILTER (WHERE NOT g.valid),
    count(*) FILTER (WHERE ST_Dimension(g.geom) < 2)
FROM (
    SELECT u.geom::geometry AS geom, (ST_IsValidDetail(u.geom::geometry)).valid  -- ST_IsValid gives a NOTICE for each that is not
    FROM {rows}
    WHERE u.geom IS NOT NULL AND NOT ST_IsEmpty(u.geom::geometry)
    OFFSET 0
) AS g
