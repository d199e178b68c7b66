-- Wait until no other process prepares tables of this name, and let none until the transaction ends.
-- slots: name (of the table, in whatever schema)
-- rows: one, of nothing to read
-- index: none
-- CREATE TABLE does not wait for another one of the same name: both see nothing there, and the later is refused.
SELECT pg_advisory_xact_lock(hashtextextended('pgtiles bake ' || {name}, 0))
