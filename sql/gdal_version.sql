-- The GDAL that PostGIS warps with.
-- slots: none
-- rows: text such as "GDAL 3.6.2, released 2023/01/02"
SELECT postgis_gdal_version()
