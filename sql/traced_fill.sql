-- Fill the holes; a polygon's others stay.
-- slots: area (expression, m² of h.geom), least (m²)
-- rows: one: how many polygons had such holes, and are there
-- index: none
WITH filled AS (
    UPDATE pgtiles_traced AS t
    SET geom = ST_MakePolygon(
        ST_ExteriorRing(t.geom),
        ARRAY(
            SELECT ST_ExteriorRing(h.geom)
            FROM ST_DumpRings(t.geom) AS h
            WHERE h.path[1] > 0 AND {area} >= {least}
            ORDER BY h.path[1]
        )
    )
    WHERE t.fid IN (SELECT fid FROM pgtiles_holes)
    RETURNING 1
)
SELECT count(*) FROM filled
