-- Declare a raster table an overview of another.
-- slots: schema and name of the overview, of (the table's schema), table, factor
-- rows: one: true
-- index: none
SELECT AddOverviewConstraints(
    {schema}::name, {overview}::name, 'rast'::name, {of}::name, {table}::name, 'rast'::name, {factor}
)
