-- As much of a single geometry, g.geom of dimension g.dimension, as has to be burned on a tile.
-- stands in labels.sql and instances.sql
-- slots: area_box (what areas may be clipped to), line_box (what segments and points must touch)
-- value: a geometry; NULL where nothing of a point is left
-- Areas are clipped, which costs least and moves no pixel. Of lines only whole segments are left out: to cut one would move its
-- pixels. What lies wholly inside is left alone.
-- Each ring is cut by itself, point after point, first at the box's left and right, then at its top and bottom: z holds the
-- coordinate to cut by. What lies within which rings stays so, and so does the even-odd fill of an area that crosses itself.
-- ST_ClipByBox2D takes as long, and fills such an area wrongly, often all of the box.
CASE
    WHEN g.dimension = 2 AND g.geom @ {area_box} THEN g.geom
    WHEN g.dimension = 2 THEN ST_Force2D(ST_LocateBetweenElevations(
        ST_Affine(
            ST_LocateBetweenElevations(
                ST_Affine(ST_Force3D(g.geom), 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0), ST_XMin({area_box}), ST_XMax({area_box})
            ), 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0
        ), ST_YMin({area_box}), ST_YMax({area_box})
    ))
    WHEN g.geom @ {line_box} THEN g.geom
    WHEN g.dimension = 1 THEN (
        SELECT ST_Collect(s.geom) FROM ST_DumpSegments(g.geom) AS s WHERE s.geom && {line_box}
    )
END
