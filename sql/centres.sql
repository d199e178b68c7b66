-- The rows of a query, and the middle of the box of each one's geometry in another SRID.
-- slots: rows (a relation u with the column geom), columns (its other columns, each as u.name, after a comma), srid (of the middle)
-- rows: x, y (NULL without a geometry), the other columns
-- index: none; every row is read once
SELECT (ST_XMin(g.box) + ST_XMax(g.box)) / 2, (ST_YMin(g.box) + ST_YMax(g.box)) / 2{columns}
FROM {rows}
CROSS JOIN LATERAL (SELECT ST_Transform(u.geom::geometry, {srid}::int4) AS box OFFSET 0) AS g
