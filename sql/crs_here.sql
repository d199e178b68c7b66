-- What a coordinate system is like at a point: whether its units are degrees, and how many of them a metre on the ground is.
-- slots: x, y, srid (of the point), target_srid (of the system that is asked about)
-- rows: one: whether in degrees, units in a ground metre (east–west, on the ellipsoid), longitude and latitude of the point
SELECT
    s.srtext LIKE 'GEOG%',
    1000 / nullif(ST_Distance(
        ST_Transform(p.here, 4326)::geography,
        ST_Transform(ST_Translate(p.here, 1000 * p.unit, 0), 4326)::geography
    ), 0) * p.unit,
    ST_X(ST_Transform(p.here, 4326)),
    ST_Y(ST_Transform(p.here, 4326))
FROM spatial_ref_sys AS s
CROSS JOIN LATERAL (
    SELECT
        ST_Transform(ST_SetSRID(ST_MakePoint({x}::float8, {y}::float8), {srid}::int4), s.srid) AS here,
        CASE WHEN s.srtext LIKE 'GEOG%' THEN 1e-5 ELSE 1 END AS unit
) AS p
WHERE s.srid = {target_srid}::int4
