-- The land that a table's rasters cover together, in another SRID. A long edge that is bent there is followed in 32 pieces.
-- slots: table, column, srid (of the land)
-- rows: one: the land as WKB (NULL where the table is empty)
-- index: none; reads every raster's header once
SELECT ST_AsBinary(ST_Union(ST_Transform(
    CASE WHEN f.srid = {srid}::int4 THEN f.shape
    ELSE ST_Segmentize(f.shape, greatest(ST_XMax(f.shape) - ST_XMin(f.shape), ST_YMax(f.shape) - ST_YMin(f.shape)) / 32) END,
    {srid}::int4
)))
FROM (
    SELECT ST_SRID(s.{column}) AS srid, ST_Union(ST_ConvexHull(s.{column})) AS shape
    FROM {table} AS s
    WHERE s.{column} IS NOT NULL AND NOT ST_IsEmpty(s.{column})
    GROUP BY ST_SRID(s.{column})
) AS f
