-- What the catalog knows of one table, view, materialized view, partitioned or foreign table.
-- slots: name, as to_regclass takes it ("schema"."table")
-- rows: oid, schema, name, kind (relkind), estimated number of rows (-1 where never analysed), columns as a JSON list of
--       {name, type, srid (of a geometry column; 0 unknown)}, names of the primary key's columns in its order,
--       definitions of its GiST indexes
-- index: those of pg_class and pg_attribute on oid
SELECT
    c.oid::int8,
    n.nspname,
    c.relname,
    c.relkind::text,
    c.reltuples::float8,
    (
        SELECT json_agg(json_build_object(
            'name', a.attname, 'type', t.typname,
            'srid', CASE WHEN t.typname = 'geometry' THEN greatest(postgis_typmod_srid(a.atttypmod), 0) ELSE 0 END
        ) ORDER BY a.attnum)
        FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
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
        SELECT pg_get_indexdef(i.indexrelid)
        FROM pg_index AS i
        JOIN pg_class AS x ON x.oid = i.indexrelid
        JOIN pg_am AS m ON m.oid = x.relam
        WHERE i.indrelid = c.oid AND m.amname = 'gist'
    )
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass({name})
