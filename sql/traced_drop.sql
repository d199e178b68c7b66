-- Drop the polygons that are too small.
-- slots: area (expression, m² of t.geom), least (m²)
-- rows: one: how many they were
-- index: none
WITH dropped AS (DELETE FROM pgtiles_traced AS t WHERE {area} < {least} RETURNING 1)
SELECT count(*) FROM dropped
