-- A point given in degrees, in another coordinate system.
-- slots: x, y (longitude, latitude), srid
-- rows: one: x, y
SELECT ST_X(p.point), ST_Y(p.point)
FROM ST_Transform(ST_SetSRID(ST_MakePoint({x}::float8, {y}::float8), 4326), {srid}::int4) AS p (point)
