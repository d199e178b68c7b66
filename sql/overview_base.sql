-- The raster table of which another one is an overview.
-- slots: schema, name, column (of the overview)
-- rows: none or one: its schema, name and column
-- index: none; a view over the catalog
SELECT r_table_schema::text, r_table_name::text, r_raster_column::text
FROM raster_overviews
WHERE (o_table_schema, o_table_name, o_raster_column) = ({schema}::name, {name}::name, {column}::name)
