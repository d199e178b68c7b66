-- A place where a table has features, for a first look where there is no imagery to say where.
-- slots: table, column
-- rows: one: x, y of the point, amid the first features, in the column's own SRID; NULL where the table is empty
-- index: none; the limit bounds the work
SELECT
    percentile_cont(0.5) WITHIN GROUP (ORDER BY ST_X(f.point)),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY ST_Y(f.point))
FROM (
    SELECT ST_Centroid(t.{column}) AS point FROM {table} AS t WHERE NOT ST_IsEmpty(t.{column}) LIMIT 5000
) AS f
