-- Say what the polygons are of, where psql (\d+) and QGIS find it.
-- slots: table, said
-- rows: none
COMMENT ON TABLE {table} IS {said}
