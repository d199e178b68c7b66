-- The polygons as they are kept, numbered anew.
-- slots: table, shape (expression on t.geom, and on s.geom where they were simplified), simple (empty, or the join with those),
--        area (expression, m² of p.geom)
-- rows: none
-- index: none
INSERT INTO {table} (fid, class, probability, area, geom)
SELECT row_number() OVER (ORDER BY p.fid), p.class, p.probability, {area}, p.geom
FROM (SELECT t.fid, t.class, t.probability, {shape} AS geom FROM pgtiles_traced AS t {simple} OFFSET 0) AS p
ORDER BY p.fid
