-- The rights that others have to a table and to columns of it, as the statements that grant them to one that takes its name.
-- slots: table (schema.table, quoted), new (the table that takes its name: a right to a column that it lacks is left out)
-- rows: GRANT …
-- index: the primary keys of pg_class and pg_attribute
-- Its owner counts among the others, where somebody else replaces the table. The maintenance of a table is left out: it is
-- the new owner's.
SELECT format(
    'GRANT %s%s ON %s TO %s%s',
    a.privilege_type,
    ' (' || quote_ident(r.attname) || ')',
    {table}::text,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END
)
FROM (
    SELECT NULL::name AS attname, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
    FROM pg_class AS c
    WHERE c.oid = {table}::regclass
    UNION ALL
    SELECT o.attname, o.attacl
    FROM pg_attribute AS o
    JOIN pg_attribute AS n ON n.attrelid = {new}::regclass AND n.attname = o.attname AND NOT n.attisdropped
    WHERE o.attrelid = {table}::regclass AND o.attnum > 0 AND o.attacl IS NOT NULL
) AS r
CROSS JOIN LATERAL aclexplode(r.acl) AS a
WHERE a.grantee <> current_user::regrole AND a.privilege_type <> 'MAINTAIN'
