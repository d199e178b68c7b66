-- Statements that drop the functions which osm2pgsql made for tables that are gone: they outlive their tables.
-- slots: schema, names
-- rows: DROP FUNCTION …
-- index: that of pg_proc on the name
SELECT format('DROP FUNCTION %s', p.oid::regprocedure)
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE n.nspname = {schema}::text AND p.proname = ANY ({names}::text[])
