-- Where a table of this name would be made, and what is there now.
-- slots: schema (NULL where none was named: then the first that exists on the search path), name
-- rows: one: the schema (NULL where the path has none), whether it exists, schema.name quoted where SQL needs it,
--       the relkind of what has the name there (NULL: nothing)
-- index: those of pg_namespace and pg_class on their names
SELECT s.schema, n.oid IS NOT NULL, quote_ident(s.schema) || '.' || quote_ident({name}::text), c.relkind::text
FROM (SELECT coalesce({schema}::text, current_schema()::text) AS schema) AS s
LEFT JOIN pg_namespace AS n ON n.nspname = s.schema
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = {name}::text
