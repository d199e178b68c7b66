-- How much is in a table.
-- slots: table, name (the same, as text)
-- rows: one: rows; bytes on the server's disk, with indexes
-- index: none: it is counted
SELECT count(*), pg_total_relation_size({name}::regclass)
FROM {table}
