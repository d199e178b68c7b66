-- Every table that a user may have meant: for the hint in an error.
-- slots: none
-- rows: schema, name, whether the schema is on the search path
SELECT n.nspname, c.relname, n.nspname = ANY (current_schemas(false))
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
