-- What tiles are of the ground.
-- slots: none
-- rows: one a tile, in their order: square metres on the spheroid
-- index: none
-- The sides get points in between, because a side that is straight on the map is no geodesic.
SELECT ST_Area(ST_Transform(ST_Segmentize(t.geom, greatest(ST_XMax(t.geom) - ST_XMin(t.geom), ST_YMax(t.geom) - ST_YMin(t.geom)) / 4),
    4326)::geography)
FROM tiles AS t
ORDER BY t.n
