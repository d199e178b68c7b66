-- What the server is, and how many connections this user may still open to this database.
-- slots: none
-- rows: one: versions of PostgreSQL, of PostGIS's library, of the extensions postgis and postgis_raster as they were installed here,
--       and of GDAL; most connections that this user can have here at all, and how many clients are connected besides this one
-- index: none
SELECT
    current_setting('server_version'), postgis_lib_version(),
    (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'postgis'),
    (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'postgis_raster'),
    postgis_gdal_version(),
    least(
        current_setting('max_connections')::int4 - CASE
            WHEN (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN 0
            ELSE current_setting('superuser_reserved_connections')::int4
                + coalesce(current_setting('reserved_connections', true), '0')::int4
        END,
        (SELECT nullif(d.datconnlimit, -1) FROM pg_database AS d WHERE d.datname = current_database()),
        (SELECT nullif(r.rolconnlimit, -1) FROM pg_roles AS r WHERE r.rolname = current_user)
    ),
    (
        SELECT count(*)::int4 FROM pg_stat_activity AS a
        WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    )
