-- The area on the ground of what is stored in degrees: on the ellipsoid, in a projection that keeps areas and in which parallels
-- and meridians are straight. So pixels' edges stay what they are, in polygons that are larger than half of the Earth too.
-- slots: geom
-- rows: none; an expression, in m²
ST_Area(ST_Transform({geom}, '+proj=cea +ellps=WGS84 +units=m +over'))
