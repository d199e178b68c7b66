-- What is there under the name of the table of runs, and under the name of a table of predictions.
-- slots: table (schema.table, quoted), rights (by name)
-- rows: one: its kind (NULL: nothing is there), its columns by name, which of the rights this user lacks, and who this user is
-- index: the primary keys of pg_class and pg_attribute
SELECT
    c.relkind::text,
    coalesce((SELECT array_agg(a.attname::text) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0), '{{}}'),
    ARRAY(
        SELECT p.name
        FROM unnest({rights}::text[]) WITH ORDINALITY AS p (name, n)
        WHERE NOT has_table_privilege(c.oid, p.name)
        ORDER BY p.n
    ),
    current_user::text
FROM (SELECT to_regclass({table}) AS oid) AS wanted
LEFT JOIN pg_class AS c ON c.oid = wanted.oid
