-- What the server knows of the contents of a table and of its parts: without statistics, or with old ones, it plans badly.
-- slots: table (schema and name, as text)
-- rows: of each table that holds rows: schema, name, whether it was ever analyzed, rows when it was, rows changed since
-- index: those of the catalog
SELECT
    n.nspname, c.relname,
    EXISTS (SELECT FROM pg_stats AS s WHERE s.schemaname = n.nspname AND s.tablename = c.relname),
    greatest(c.reltuples, 0)::int8, coalesce(pg_stat_get_mod_since_analyze(c.oid), 0)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE
    c.relkind IN ('r', 'm') AND pg_relation_size(c.oid) > 0
    AND c.oid IN (SELECT p.relid FROM pg_partition_tree({table}::regclass) AS p UNION SELECT {table}::regclass)
