-- End the sessions of an osm2pgsql that is gone: the server may be busy with its last statement for hours.
-- slots: application (the name that those sessions have)
-- rows: one for each session, true
-- index: none
SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE application_name = {application}::text AND pid <> pg_backend_pid()
