-- Declare a raster table an overview of another.
-- slots: schema, overview, table, factor
-- rows: one: true
-- index: none
SELECT AddOverviewConstraints(
    {schema}::name, {overview}::name, 'rast'::name, {schema}::name, {table}::name, 'rast'::name, {factor}
)
