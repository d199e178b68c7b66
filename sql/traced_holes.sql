-- The holes that are to be filled.
-- slots: area (expression, m² of h.geom), least (m², below which a hole is filled)
-- rows: none
-- index: none; each polygon that has holes is taken apart once
CREATE TEMPORARY TABLE pgtiles_holes ON COMMIT DROP AS
SELECT t.fid, h.geom
FROM pgtiles_traced AS t
CROSS JOIN LATERAL ST_DumpRings(t.geom) AS h
WHERE ST_NumInteriorRings(t.geom) > 0 AND h.path[1] > 0 AND {area} < {least}
