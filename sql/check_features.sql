-- What is wrong with the geometries of a table.
-- slots: table, column, name and field (the same two as text), key (text that names a row s), most (rows that are looked at), few (invalid rows that are named)
-- rows: one: how many were looked at, how many of them have each SRID (a JSON object), how many are invalid, the keys of some of
--       these, the reason of the first one; the type that the column is declared with, such as MultiPolygonZ; Geometry for any
-- index: none; the limit bounds the work
WITH g AS MATERIALIZED (
    SELECT r.key, ST_SRID(r.geom) AS srid, ST_IsValidReason(r.geom) AS reason, row_number() OVER () AS place
    FROM (
        SELECT {key} AS key, s.{column}::geometry AS geom FROM {table} AS s WHERE s.{column} IS NOT NULL LIMIT {most}::int8
    ) AS r
)
SELECT
    count(*),
    (SELECT jsonb_object_agg(s.srid, s.many) FROM (SELECT g.srid, count(*) AS many FROM g GROUP BY g.srid) AS s),
    count(*) FILTER (WHERE g.reason <> 'Valid Geometry'),
    (array_agg(g.key ORDER BY g.place) FILTER (WHERE g.reason <> 'Valid Geometry'))[1:{few}::int4],
    (array_agg(g.reason ORDER BY g.place) FILTER (WHERE g.reason <> 'Valid Geometry'))[1],
    (
        SELECT postgis_typmod_type(a.atttypmod) FROM pg_attribute AS a
        WHERE a.attrelid = {name}::regclass AND a.attname = {field}
    )
FROM g
