-- The SRID of a coordinate system, by the code of its register or by the SRID itself.
-- slots: register, code (as in EPSG, 32631), srid (NULL: look the code up)
-- rows: one with the SRID, or none where spatial_ref_sys does not hold it
-- index: the primary key of spatial_ref_sys for the SRID; the code is looked for in all of its 8,500 rows
SELECT srid
FROM spatial_ref_sys
WHERE srid = {srid}::int4 OR ({srid}::int4 IS NULL AND upper(auth_name) = upper({register}::text) AND auth_srid::text = {code}::text)
ORDER BY srid::text <> {code}::text, srid
LIMIT 1
