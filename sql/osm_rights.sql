-- Whether this user may make what a load of OpenStreetMap takes.
-- slots: schema (where the tables go)
-- rows: one: the user, the database and the schema, quoted where SQL needs it; whether she may make schemas, and tables there
-- index: those of pg_database and pg_namespace on their names
SELECT
    quote_ident(current_user),
    quote_ident(current_database()),
    quote_ident({schema}::text),
    has_database_privilege(current_database(), 'CREATE'),
    has_schema_privilege({schema}::text, 'CREATE')
