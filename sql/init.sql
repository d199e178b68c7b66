-- What a database needs before pgtiles can use it. Run once in each new database, by an owner who is superuser:
-- LocalServer feeds it to psql, docker-compose.yml mounts it into /docker-entrypoint-initdb.d, and by hand it is
--     psql -d DATABASE -f init.sql
-- Slots: none. Rows: none. Index: none. Running it again changes nothing, and a setting that somebody has already
-- made for the database is left as it is. Settings take effect with the next connection.

SET client_min_messages = warning;  -- "already exists, skipping" is no news

CREATE EXTENSION IF NOT EXISTS postgis;
CREATE EXTENSION IF NOT EXISTS postgis_raster;

DO $$
DECLARE
    wanted record;
BEGIN
    -- PostGIS opens no file on the server until it is told which formats it may read. Named ones rather than
    -- ENABLE_ALL, which brings drivers that fetch over the network; only those that this server's GDAL has,
    -- because each connection would be warned of the others.
    SET LOCAL postgis.gdal_enabled_drivers = 'ENABLE_ALL';
    FOR wanted IN
        SELECT 'postgis.gdal_enabled_drivers' AS name, string_agg(short_name, ' ' ORDER BY short_name) AS value
        FROM ST_GDALDrivers()
        WHERE short_name IN ('GTiff', 'JP2OpenJPEG', 'JPEG', 'PNG', 'VRT')
        UNION ALL
        SELECT 'postgis.enable_outdb_rasters', 'on'  -- rasters whose pixels stay in files beside the database
    LOOP
        IF NOT EXISTS (
            SELECT FROM pg_db_role_setting, unnest(setconfig) AS made
            WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND setrole = 0 AND starts_with(made, wanted.name || '=')
        ) THEN
            EXECUTE format('ALTER DATABASE %I SET %s = %L', current_database(), wanted.name, wanted.value);
        END IF;
    END LOOP;
END
$$;
