-- How long a statement of this role may take here, before a batch sets its own limit.
-- slots: none
-- rows: one: milliseconds, as int8; 0 where there is no limit
SELECT setting::int8 FROM pg_settings WHERE name = 'statement_timeout'
