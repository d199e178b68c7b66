-- The area on the ground of what is stored in another CRS than degrees: that on the ellipsoid, where an edge is the shortest way
-- between its ends. That of a map is not, so long ones are cut into pieces.
-- slots: geom, longest (piece of an edge, CRS units)
-- rows: none; an expression, in m²
ST_Area(ST_Transform(ST_Segmentize({geom}, {longest}::float8), 4326)::geography)
