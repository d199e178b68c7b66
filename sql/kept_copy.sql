-- Fill a table of kept tiles.
-- slots: table, columns (their names)
-- rows: sent as text: the values of the columns; geometries as EWKB in hexadecimal
-- index: none; it is made afterwards
COPY {table} ({columns}) FROM STDIN
