-- The single geometries of a row's geometry, as GDAL burns them: curves as segments, the triangles of a TIN as polygons.
-- stands in labels.sql, small_areas.sql, instances.sql and boxes.sql
-- slots: geometry
-- rows: geom, a point, a line or a polygon
(
    SELECT CASE WHEN GeometryType(d.geom) = 'TRIANGLE' THEN ST_MakePolygon(ST_ExteriorRing(d.geom)) ELSE d.geom END AS geom
    FROM ST_Dump(ST_CurveToLine({geometry})) AS d
)
