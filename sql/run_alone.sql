-- Wait until no other process begins a run in this schema, and let none until the transaction ends.
-- slots: schema
-- rows: one, of nothing to read
-- index: none
-- CREATE TABLE does not wait for another one of the same name: both see nothing there, and the later is refused.
SELECT pg_advisory_xact_lock(hashtextextended('pgtiles run ' || {schema}, 0))
