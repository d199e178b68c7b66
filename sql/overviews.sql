-- The overviews of a raster table: the same imagery in larger pixels, as raster2pgsql -l and ST_CreateOverview make it.
-- slots: schema, table, column
-- rows: schema, table, column, factor (a pixel's side, in pixels of the table), the coarsest first
-- index: none is needed; raster_overviews reads the catalog's constraints
SELECT o.o_table_schema::text, o.o_table_name::text, o.o_raster_column::text, o.overview_factor
FROM raster_overviews AS o
WHERE o.r_table_schema = {schema} AND o.r_table_name = {table} AND o.r_raster_column = {column}
    AND has_table_privilege(format('%I.%I', o.o_table_schema, o.o_table_name), 'SELECT')
ORDER BY 4 DESC
