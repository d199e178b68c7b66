-- The area on the ground: that on the ellipsoid, whatever the CRS.
-- slots: geom
-- rows: none; an expression, in m²
ST_Area(ST_Transform({geom}, 4326)::geography)
