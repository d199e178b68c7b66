-- As much of a single geometry, g.geom of dimension g.dimension, as has to be burned on a tile.
-- stands in labels.sql and instances.sql
-- slots: area_box (what areas may be clipped to), cut (cut.sql, to it), line_box (what segments and points must touch)
-- value: a geometry; NULL where nothing of a point is left
-- Areas are clipped, which costs least and moves no pixel. Of lines only whole segments are left out: to cut one would move its
-- pixels. What lies wholly inside is left alone.
CASE
    WHEN g.dimension = 2 AND g.geom @ {area_box} THEN g.geom
    WHEN g.dimension = 2 THEN {cut}
    WHEN g.geom @ {line_box} THEN g.geom
    WHEN g.dimension = 1 THEN (
        SELECT ST_Collect(s.geom) FROM ST_DumpSegments(g.geom) AS s WHERE s.geom && {line_box}
    )
END
