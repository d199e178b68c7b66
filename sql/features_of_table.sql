-- The rows of a geometry table for one tile: what stands in the place of a user's query where a layer names a table.
-- slots: table, column, value (a column or a number), more (further columns, each after a comma), condition
-- rows: geom, value, more
-- index: GiST on column
-- The relation tile stands outside, so that its columns come after the table's: a table may have a column id or time.
SELECT t.{column} AS geom, {value} AS value{more}
FROM {table} AS t
WHERE t.{column} && tile.geom AND ({condition}
)
