-- What the server is, and how many connections this user may still open to this database.
-- slots: none
-- rows: one: versions of PostgreSQL, of PostGIS's library, of the extensions postgis and postgis_raster as they were installed here,
--       and of GDAL; of the limits that hold for this user (the server's, the database's, her own) the one that leaves least: which
--       it is, how many connections it allows, and how many of those that it counts are open besides this one. Other users' rows
--       of pg_stat_activity show an ordinary user a database and a user, but no backend_type.
-- index: none
WITH clients AS (
    SELECT a.datid, a.usesysid
    FROM pg_stat_activity AS a
    WHERE a.datid IS NOT NULL AND a.usesysid IS NOT NULL AND a.pid <> pg_backend_pid()
        AND coalesce(a.backend_type, 'client backend') = 'client backend'
),
here AS (
    SELECT d.oid AS datid, r.oid AS usesysid, r.rolsuper, d.datconnlimit, r.rolconnlimit
    FROM pg_database AS d, pg_roles AS r
    WHERE d.datname = current_database() AND r.rolname = session_user
),
limits AS (
    SELECT
        'server' AS what, (SELECT count(*)::int4 FROM clients) AS in_use,
        current_setting('max_connections')::int4 - CASE WHEN h.rolsuper THEN 0 ELSE
            current_setting('superuser_reserved_connections')::int4
            + coalesce(current_setting('reserved_connections', true), '0')::int4
        END AS most
    FROM here AS h
    UNION ALL
    SELECT 'database', (SELECT count(*)::int4 FROM clients AS c WHERE c.datid = h.datid), h.datconnlimit
    FROM here AS h WHERE h.datconnlimit >= 0 AND NOT h.rolsuper
    UNION ALL
    SELECT 'role', (SELECT count(*)::int4 FROM clients AS c WHERE c.usesysid = h.usesysid), h.rolconnlimit
    FROM here AS h WHERE h.rolconnlimit >= 0 AND NOT h.rolsuper
)
SELECT
    current_setting('server_version'), postgis_lib_version(),
    (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'postgis'),
    (SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'postgis_raster'),
    postgis_gdal_version(), l.what, l.most, l.in_use, current_database()::text, session_user::text
FROM limits AS l
ORDER BY l.most - l.in_use
LIMIT 1
