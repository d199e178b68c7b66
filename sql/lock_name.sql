-- Have others wait who are about to make a table of the same name, until this transaction ends.
-- slots: name (schema.table, as the user wrote it)
-- rows: one, of no meaning
SELECT pg_advisory_xact_lock(hashtext('pgtiles'), hashtext({name}::text))
