-- What kinds of geometry a table holds, and what is wrong with them.
-- slots: table
-- rows: one: the types (as POLYGON, without Z or M), whether any has Z, whether any has none, how many geometries are
--       there, NULL, empty, invalid; of the first invalid one the fid and the reason
-- index: none; reads all rows. ST_IsValidReason says in a column what ST_IsValid would say in a NOTICE for each row.
SELECT
    array_agg(DISTINCT upper(substr(ST_GeometryType(geom), 4))) FILTER (WHERE geom IS NOT NULL),
    coalesce(bool_or(ST_Zmflag(geom) > 1), false),
    coalesce(bool_or(ST_Zmflag(geom) < 2), false),
    count(geom),
    count(*) - count(geom),
    count(*) FILTER (WHERE ST_IsEmpty(geom)),
    count(*) FILTER (WHERE reason <> 'Valid Geometry'),
    min(fid) FILTER (WHERE reason <> 'Valid Geometry'),
    (array_agg(reason ORDER BY fid) FILTER (WHERE reason <> 'Valid Geometry'))[1]
FROM {table}
CROSS JOIN LATERAL ST_IsValidReason(geom) AS reason
