-- The rights that others have to a table, as the statements that grant them to one that takes its name.
-- slots: table (schema.table, quoted)
-- rows: GRANT …
-- index: the primary key of pg_class
SELECT format(
    'GRANT %s ON %s TO %s%s',
    a.privilege_type,
    {table}::text,
    CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
    CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END
)
FROM pg_class AS c
CROSS JOIN LATERAL aclexplode(c.relacl) AS a
WHERE c.oid = {table}::regclass AND a.grantee <> c.relowner
