-- The part of a single area, g.geom, inside a box.
-- stands in clipped.sql and areas.sql
-- slots: box
-- value: an area; empty where none of it is inside
-- Each ring is cut by itself, point after point, first at the box's left and right, then at its top and bottom: z holds the
-- coordinate to cut by. What lies within which rings stays so, and so does the even-odd fill of an area that crosses itself.
-- ST_ClipByBox2D takes as long, and fills such an area wrongly, often all of the box.
ST_Force2D(ST_LocateBetweenElevations(
    ST_Affine(
        ST_LocateBetweenElevations(
            ST_Affine(ST_Force3D(g.geom), 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0), ST_XMin({box}), ST_XMax({box})
        ), 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0
    ), ST_YMin({box}), ST_YMax({box})
))
