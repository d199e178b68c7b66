-- What COMMENT says of a table.
-- slots: table (schema.table, quoted, as text)
-- rows: one: the comment, NULL where there is none
SELECT obj_description({table}::regclass, 'pg_class')
