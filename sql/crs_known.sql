-- What the database knows of some coordinate systems, for files that say where they lie.
-- slots: srids (array)
-- rows: srid, the register's name and the code in it (NULL where it is in none), WKT, PROJ's text
-- index: the primary key of spatial_ref_sys
SELECT srid, auth_name::text, auth_srid, srtext::text, proj4text::text
FROM spatial_ref_sys
WHERE srid = ANY ({srids}::int4[])
