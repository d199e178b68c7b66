-- How large a tile's pixel is where it falls in a source raster: for the margin that a resampling kernel needs.
-- slots: xs, ys (places in the tiles' CRS), scale_x, scale_y (a tile's pixel, CRS units), srid, source_srid
-- rows: one: least and greatest width, least and greatest height, in the source's CRS units, of the boxes around a pixel there
-- In degrees a pixel across the antimeridian is as wide as it is with longitudes from 0 to 360; one around a pole, where all
-- longitudes are, counts as a square of its corners' distance from the pole.
SELECT min(w.width), max(w.width), min(w.height), max(w.height)
FROM unnest({xs}::float8[], {ys}::float8[]) AS t (x, y)
CROSS JOIN LATERAL ST_Transform(
    ST_MakeEnvelope(
        t.x - {scale_x}::float8 / 2, t.y - {scale_y}::float8 / 2, t.x + {scale_x}::float8 / 2, t.y + {scale_y}::float8 / 2,
        {srid}::int4
    ),
    {source_srid}::int4
) AS p (box)
CROSS JOIN LATERAL (
    SELECT
        ST_XMax(p.box) - ST_XMin(p.box) AS width, ST_YMax(p.box) - ST_YMin(p.box) AS height,
        ST_XMax(e.box) - ST_XMin(e.box) AS east, sqrt(2) * (90 - least(abs(ST_YMin(p.box)), abs(ST_YMax(p.box)))) AS polar
    FROM ST_ShiftLongitude(p.box) AS e (box)
) AS g
CROSS JOIN (SELECT r.srtext LIKE 'GEOG%' AS degrees FROM spatial_ref_sys AS r WHERE r.srid = {source_srid}::int4) AS s
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN c.torn THEN CASE WHEN g.east < 180 THEN g.east ELSE g.polar END ELSE g.width END AS width,
        CASE WHEN c.torn AND g.east >= 180 THEN g.polar ELSE g.height END AS height
    FROM (SELECT s.degrees AND g.width BETWEEN 180 AND 360 AS torn) AS c
) AS w
