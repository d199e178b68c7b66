-- The overviews of a raster table: the same imagery in larger pixels, as raster2pgsql -l and ST_CreateOverview make it.
-- slots: schema, table, column (NULL: any)
-- rows: schema, table, column, factor (a pixel's side, in pixels of the table), the coarsest first
-- index: none is needed; raster_overviews reads the catalog's constraints
SELECT o.o_table_schema::text, o.o_table_name::text, o.o_raster_column::text, o.overview_factor
FROM raster_overviews AS o
JOIN pg_namespace AS n ON n.nspname = o.o_table_schema
JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = o.o_table_name
WHERE o.r_table_schema = {schema} AND o.r_table_name = {table}
    AND o.r_raster_column = coalesce({column}::text, o.r_raster_column)
    AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY 4 DESC
