-- What polygons are, before tiles are dealt by them.
-- slots: rows (a relation u with the columns geom and id)
-- rows: of each SRID: it, how many polygons there are, how many are no areas, how many have no id
-- index: none; every geometry is read once
SELECT
    ST_SRID(u.geom::geometry),
    count(*),
    count(*) FILTER (WHERE ST_Dimension(u.geom::geometry) < 2),
    count(*) FILTER (WHERE u.id IS NULL)
FROM {rows}
WHERE u.geom IS NOT NULL AND NOT ST_IsEmpty(u.geom::geometry)
GROUP BY 1
ORDER BY 1
