-- Whether the server can simplify polygons so that neighbours go on to share their borders.
-- slots: none
-- rows: one: whether PostGIS has the function, its version, that of GEOS
SELECT to_regproc('st_coveragesimplify') IS NOT NULL, postgis_lib_version(), postgis_geos_version()
