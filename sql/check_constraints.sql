-- What raster_columns says of a table of rasters, which it knows from its constraints alone.
-- slots: schema, name, column
-- rows: one: SRID (0 unknown), whether the scale, whether the bands' types are known
-- index: those of the catalog
SELECT r.srid, r.scale_x IS NOT NULL, r.pixel_types IS NOT NULL
FROM raster_columns AS r
WHERE r.r_table_schema = {schema} AND r.r_table_name = {name} AND r.r_raster_column = {column}
