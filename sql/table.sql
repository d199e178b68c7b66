-- What the catalog knows of one table, view, materialized view, partitioned or foreign table.
-- slots: which (a condition on c, of pg_class, and n, of pg_namespace)
-- rows: schema, name, kind (relkind), columns as a JSON list of
--       {name, type (what a domain is made of), srid (of a geometry or geography column; 0 unknown), comment}, names of the
--       primary key's columns in its order, what its spatial indexes are on (a column or an expression each; partial ones serve only
--       some queries and are left out), the partitioned table that it is a part of (schema and name; else itself), of a foreign
--       table its server and that server's options (name=value)
-- index: those of pg_class and pg_attribute on oid
SELECT
    n.nspname,
    c.relname,
    c.relkind::text,
    (
        SELECT json_agg(json_build_object(
            'name', a.attname, 'type', t.typname,
            'srid', CASE
                WHEN t.typname = 'geography' AND b.typmod < 0 THEN 4326
                WHEN t.typname IN ('geometry', 'geography') THEN greatest(postgis_typmod_srid(b.typmod), 0)
                ELSE 0
            END,
            'comment', col_description(c.oid, a.attnum)
        ) ORDER BY a.attnum)
        FROM pg_attribute AS a
        CROSS JOIN LATERAL (
            WITH RECURSIVE base AS (
                SELECT a.atttypid AS type, a.atttypmod AS typmod
                UNION ALL
                SELECT d.typbasetype, d.typtypmod FROM base JOIN pg_type AS d ON d.oid = base.type WHERE d.typtype = 'd'
            )
            SELECT base.type, base.typmod FROM base
        ) AS b
        JOIN pg_type AS t ON t.oid = b.type AND t.typtype <> 'd'
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ),
    ARRAY(
        SELECT a.attname::text
        FROM pg_index AS i
        CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, position)
        JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
        WHERE i.indrelid = c.oid AND i.indisprimary
        ORDER BY k.position
    ),
    ARRAY(
        SELECT pg_get_indexdef(i.indexrelid, k.position, true)
        FROM pg_index AS i
        JOIN pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_am AS m ON m.oid = x.relam
        CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) AS k (position)
        WHERE i.indrelid = c.oid AND m.amname IN ('gist', 'spgist', 'brin') AND i.indisvalid AND i.indpred IS NULL
    ),
    (
        SELECT ARRAY[p.nspname, r.relname]::text[]
        FROM pg_class AS r JOIN pg_namespace AS p ON p.oid = r.relnamespace
        WHERE r.oid = coalesce(pg_partition_root(c.oid)::oid, c.oid)
    ),
    s.srvname,
    coalesce(s.srvoptions, ARRAY[]::text[])
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_foreign_table AS f ON f.ftrelid = c.oid
LEFT JOIN pg_foreign_server AS s ON s.oid = f.ftserver
WHERE {which}
