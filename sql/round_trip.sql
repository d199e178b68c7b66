-- A place in another CRS, and brought back from it: it comes back where that CRS holds there.
-- slots: x, y, srid (of the place), other (SRID)
-- rows: one: x and y in the other CRS as an array, x and y brought back
SELECT ARRAY[ST_X(t.geom), ST_Y(t.geom)], ST_X(b.geom), ST_Y(b.geom)
FROM ST_Transform(ST_SetSRID(ST_MakePoint({x}::float8, {y}::float8), {srid}::int4), {other}::int4) AS t (geom)
CROSS JOIN LATERAL ST_Transform(t.geom, {srid}::int4) AS b (geom)
