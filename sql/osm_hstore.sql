-- Where the type hstore is.
-- slots: none
-- rows: one: whether it is found by its bare name; the schemas in which the extensions hstore and postgis are (NULL: none)
-- index: that of pg_extension on the name
SELECT
    to_regtype('hstore') IS NOT NULL,
    (SELECT n.nspname::text FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'hstore'),
    (SELECT n.nspname::text FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'postgis')
