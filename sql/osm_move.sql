-- Statements that move what osm2pgsql made in a schema of its own to where it belongs, to be run in this order. Indexes go
-- with their tables. One whose name is taken there (by that of a table which was renamed) gets another: nobody calls it by name.
-- slots: working (schema), schema (where to), stays (a table that does not move)
-- rows: ALTER …
-- index: those of pg_class and pg_proc on the schema
SELECT statement
FROM (
    SELECT
        1 AS step,
        format('ALTER INDEX %I.%I RENAME TO %I', {working}::text, c.relname, left(c.relname, 54) || '_' || left(md5({working}), 8))
            AS statement
    FROM pg_class AS c
    WHERE c.relnamespace = {working}::regnamespace AND c.relkind = 'i'
      AND EXISTS (
          SELECT FROM pg_class AS o JOIN pg_namespace AS n ON n.oid = o.relnamespace
          WHERE n.nspname = {schema}::text AND o.relname = c.relname
      )
    UNION ALL
    SELECT 2, format('ALTER TABLE %I.%I SET SCHEMA %I', {working}::text, c.relname, {schema}::text)
    FROM pg_class AS c
    WHERE c.relnamespace = {working}::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> {stays}::text
    UNION ALL
    SELECT 3, format('ALTER FUNCTION %s SET SCHEMA %I', p.oid::regprocedure, {schema}::text)
    FROM pg_proc AS p
    WHERE p.pronamespace = {working}::regnamespace
) AS statements
ORDER BY step
