-- Where the features of a table lie, as a box in another SRID.
-- slots: table, column, srid (of the box)
-- rows: xmin, ymin, xmax, ymax; NULL where the table is empty
-- index: none; every geometry's own box is read once, as ST_EstimatedExtent knows no views, and is wrong before ANALYZE
SELECT ST_XMin(b.box), ST_YMin(b.box), ST_XMax(b.box), ST_YMax(b.box)
FROM (
    SELECT ST_Transform(ST_Segmentize(e.box, greatest(ST_XMax(e.box) - ST_XMin(e.box), 1e-9) / 32), {srid}::int4) AS box
    FROM (
        SELECT ST_SetSRID(ST_Extent(s.{column}::geometry)::geometry, max(ST_SRID(s.{column}::geometry))) AS box
        FROM {table} AS s
        WHERE NOT ST_IsEmpty(s.{column}::geometry)
    ) AS e
) AS b
