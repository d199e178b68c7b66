-- Schemas in which osm2pgsql works for a load, or did for one that was killed.
-- slots: none
-- rows: name
-- index: none
SELECT nspname::text
FROM pg_namespace
WHERE nspname ~ '^pgtiles_[0-9a-f]{{32}}$'
ORDER BY nspname
