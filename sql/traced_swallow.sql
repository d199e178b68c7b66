-- Forget the polygons that lie in a hole which is filled: the one around it has their place now.
-- slots: none
-- rows: one: how many they were
-- index: GiST on pgtiles_holes.geom
-- Polygons have no pixel in common, so one lies in a hole with all it has or with nothing. Boxes within the hole's alone are asked
-- for: that of the polygon around it is larger, so that it is not looked at once for each of its holes.
WITH swallowed AS (
    DELETE FROM pgtiles_traced AS t
    USING pgtiles_holes AS h
    WHERE t.geom @ h.geom AND ST_Covers(h.geom, ST_PointOnSurface(t.geom))
    RETURNING 1
)
SELECT count(*) FROM swallowed
