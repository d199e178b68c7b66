-- What the server allows of rasters in files: the formats that it opens, and whether it opens any.
-- slots: none
-- rows: one: PostGIS's version, postgis.gdal_enabled_drivers, postgis.enable_outdb_rasters, the database's name, quoted
-- The settings are there once the library is loaded, which asking for its version does: it stands first.
SELECT
    postgis_raster_lib_version(),
    current_setting('postgis.gdal_enabled_drivers', true),
    current_setting('postgis.enable_outdb_rasters', true),
    quote_ident(current_database())
