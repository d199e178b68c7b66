-- What osm2pgsql (from 1.9 on) notes of the load that can be updated in a schema.
-- slots: table (schema.osm2pgsql_properties)
-- rows: one: output, prefix
-- index: none: a dozen rows
SELECT
    (SELECT value FROM {table} WHERE property = 'output'),
    (SELECT value FROM {table} WHERE property = 'prefix')
