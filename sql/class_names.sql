-- Say what the numbers of a column mean, where psql (\d+), QGIS and pgtiles find it.
-- slots: table, column, comment (the classes' names and values, as pgtiles/layers/legend.py writes them)
-- rows: none
COMMENT ON COLUMN {table}.{column} IS {comment}
