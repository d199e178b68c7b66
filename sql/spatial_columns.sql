-- Every column that holds rasters or geometries, for a first proposal of layers.
-- slots: none
-- rows: schema, table, column, type (raster or geometry), kind of geometry (POLYGON, …; GEOMETRY where any), SRID (0 unknown),
--       schema.table and column quoted where SQL needs it, the table's columns as a JSON object {name: type}; those that this
--       user may read, the largest tables first
-- Overviews are left out, which show the same imagery again, and what extensions brought along (raster_columns has an extent).
SELECT
    n.nspname, c.relname, a.attname, t.typname,
    CASE WHEN t.typname = 'geometry' THEN upper(postgis_typmod_type(a.atttypmod)) ELSE '' END,
    CASE WHEN t.typname = 'geometry' THEN greatest(postgis_typmod_srid(a.atttypmod), 0) ELSE 0 END,
    quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(a.attname),
    (
        SELECT json_object_agg(o.attname, y.typname)
        FROM pg_attribute AS o JOIN pg_type AS y ON y.oid = o.atttypid
        WHERE o.attrelid = c.oid AND o.attnum > 0 AND NOT o.attisdropped
    )
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('geometry', 'raster')
WHERE
    c.relkind IN ('r', 'p', 'm', 'v', 'f') AND NOT c.relispartition
    AND n.nspname !~ '^pg_|^information_schema$|^topology$|^tiger'
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
    AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    AND NOT EXISTS (
        SELECT FROM raster_overviews AS o
        WHERE o.o_table_schema = n.nspname AND o.o_table_name = c.relname AND o.o_raster_column = a.attname
    )
ORDER BY c.reltuples * (c.relkind <> 'v')::int DESC, c.relpages DESC, 1, 2
