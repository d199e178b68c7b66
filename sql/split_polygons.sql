-- The polygon that holds each of some points.
-- slots: xs, ys, srids (arrays; CRS units), polygons (a query that gives geom and id), polygons_srid
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
JOIN (
{polygons}
) AS u ON ST_Covers(u.geom, p.geom)
GROUP BY p.n
