-- The polygon that holds each of some points, of the polygons in one SRID.
-- slots: xs, ys, srids (arrays; CRS units), rows (a relation u with the columns geom and id), polygons_srid
-- rows: n, the point's place in the arrays, from 0; the id in text of the polygon that holds it, the least where several do.
--       None for a point that lies in no polygon
-- index: GiST on the polygons' geometry
WITH points AS MATERIALIZED (
    SELECT
        (p.n - 1)::int4 AS n,
        ST_Transform(ST_SetSRID(ST_MakePoint(p.x, p.y), p.srid), {polygons_srid}::int4) AS geom
    FROM unnest({xs}::float8[], {ys}::float8[], {srids}::int4[]) WITH ORDINALITY AS p (x, y, srid, n)
)
SELECT p.n, min(u.id::text)
FROM points AS p
JOIN {rows}
    ON u.geom::geometry && p.geom  -- which takes any SRID, as ST_Covers does not
    AND CASE WHEN ST_SRID(u.geom::geometry) = {polygons_srid}::int4 THEN ST_Covers(u.geom::geometry, p.geom) END
GROUP BY p.n
