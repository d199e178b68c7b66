-- Where the imagery of a table lies, as a box in another SRID.
-- slots: table, column, srid (of the box)
-- rows: xmin, ymin, xmax, ymax; NULL where the table is empty
-- index: none; reads every raster's header once
SELECT ST_XMin(b.box), ST_YMin(b.box), ST_XMax(b.box), ST_YMax(b.box)
FROM (
    SELECT ST_Transform(ST_Segmentize(e.box, greatest(ST_XMax(e.box) - ST_XMin(e.box), 1e-9) / 32), {srid}::int4) AS box
    FROM (
        SELECT ST_SetSRID(ST_Extent(ST_ConvexHull(s.{column}))::geometry, max(ST_SRID(s.{column}))) AS box
        FROM {table} AS s
    ) AS e
) AS b
