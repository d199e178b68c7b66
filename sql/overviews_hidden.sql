-- Tables called like overviews of a raster table that this user may not read, which raster_overviews keeps from it.
-- slots: schema, table
-- rows: their names
-- index: those of pg_namespace and pg_class on their names
SELECT c.relname::text
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = {schema} AND c.relkind IN ('r', 'p')
    AND c.relname ~ '^o_[0-9]+_' AND regexp_replace(c.relname, '^o_[0-9]+_', '') = {table}
    AND NOT has_table_privilege(c.oid, 'SELECT')
